//! Filters of tc at the ingress and egress of links (RTM_GETQDISC, RTM_GETTFILTER).
//!
//! Filters hang on a queueing discipline of kind `clsact` or `ingress`. Those on other disciplines
//! sort packets into queues (traffic shaping) and are left out.

use canreach_snapshot::{AttachPoint, BpfAttachment, Ifindex};

use super::attr::{Attribute, Malformed, split_header};
use super::message::Message;

/// `RTM_GETQDISC`; its answers are `RTM_NEWQDISC`.
pub(crate) const GET_DISCIPLINE: u16 = 38;
/// `RTM_GETTFILTER`; its answers are `RTM_NEWTFILTER`.
pub(crate) const GET_FILTER: u16 = 46;

/// `sizeof(struct tcmsg)`.
const HEADER: usize = 20;
/// `struct tcmsg`, zeroed: the disciplines of every link.
pub(crate) const DISCIPLINES: [u8; HEADER] = [0; HEADER];

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// Inside `TCA_OPTIONS` of a `bpf` filter.
const BPF_NAME: u16 = 7;
const BPF_ID: u16 = 11;

/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// The handle of the `ingress` discipline.
const INGRESS: u32 = 0xffff_0000;

/// A place that filters hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterPlace {
    pub(crate) point: AttachPoint,
    ifindex: Ifindex,
    parent: u32,
}

impl FilterPlace {
    /// The request for its filters.
    pub(crate) fn request(self) -> [u8; HEADER] {
        let mut request = [0; HEADER];
        request[4..8].copy_from_slice(&self.ifindex.0.to_ne_bytes());
        request[12..16].copy_from_slice(&self.parent.to_ne_bytes());
        request
    }
}

/// The places of a discipline that takes filters; `None` for the others.
pub(crate) fn decode_places(message: &Message<'_>) -> Result<Option<Vec<FilterPlace>>, Malformed> {
    let (header, attributes) = split_header::<HEADER>(message.kind, message.payload)?;
    let [_, _, _, _, i0, i1, i2, i3, ..] = *header;
    let ifindex = Ifindex(u32::from_ne_bytes([i0, i1, i2, i3]));
    let ingress = AttachPoint::TcIngress(ifindex);
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind != KIND {
            continue;
        }
        let place = |point, parent| FilterPlace { point, ifindex, parent };
        return Ok(match attribute.text().as_str() {
            "clsact" => Some(vec![
                place(ingress, CLSACT_INGRESS),
                place(AttachPoint::TcEgress(ifindex), CLSACT_EGRESS),
            ]),
            "ingress" => Some(vec![place(ingress, INGRESS)]),
            _ => None,
        });
    }
    Ok(None)
}

/// Decodes a filter at `point`.
pub(crate) fn decode_filter(
    point: AttachPoint,
    message: &Message<'_>,
) -> Result<Option<BpfAttachment>, Malformed> {
    let (_, attributes) = split_header::<HEADER>(message.kind, message.payload)?;
    let mut filter = BpfAttachment { point, program_id: None, name: None };
    let mut has_options = false;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            KIND => filter.name = Some(attribute.text()),
            OPTIONS => {
                has_options = true;
                if filter.name.as_deref() == Some("bpf") {
                    read_program(&mut filter, attribute)?;
                }
            }
            _ => {}
        }
    }
    // Each priority starts with a message about itself, which is no filter.
    Ok(Some(filter).filter(|_| has_options))
}

fn read_program(filter: &mut BpfAttachment, options: Attribute<'_>) -> Result<(), Malformed> {
    for attribute in options.nested() {
        let attribute = attribute?;
        match attribute.kind {
            BPF_NAME => filter.name = Some(attribute.text()),
            BPF_ID => filter.program_id = Some(attribute.u32()?),
            _ => {}
        }
    }
    Ok(())
}
