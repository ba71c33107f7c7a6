//! Nexthop objects (RTM_NEWNEXTHOP), which routes may refer to by number.

use canreach_snapshot::{Ifindex, NextHopFlags, NexthopObject};

use super::attr::{Malformed, family_of, split_header};
use super::message::Message;

/// `RTM_GETNEXTHOP`; its answers are `RTM_NEWNEXTHOP`.
pub(crate) const GET: u16 = 106;

/// `struct nhmsg`, zeroed: every object.
pub(crate) const REQUEST: [u8; 8] = [0; 8];

const ID: u16 = 1;
const GROUP: u16 = 2;
const BLACKHOLE: u16 = 4;
const OUT_LINK: u16 = 5;
const GATEWAY: u16 = 6;
const ENCAP_TYPE: u16 = 7;
/// Belongs to a bridge, no route can use it.
const FDB: u16 = 11;

/// Decodes one object; `None` for those of bridges.
pub(crate) fn decode(message: &Message<'_>) -> Result<Option<NexthopObject>, Malformed> {
    let (header, attributes) = split_header::<8>(message.kind, message.payload)?;
    let [family, _, _, _, flags @ ..] = *header;
    let family = family_of(family);
    let mut row = NexthopObject {
        id: 0,
        ifindex: None,
        gateway: None,
        blackhole: false,
        group: Vec::new(),
        // The kernel's own flags beyond these eight bits (offload marks) do not steer packets.
        flags: NextHopFlags(u32::from_ne_bytes(flags) as u8),
        encapsulated: false,
    };
    for attribute in attributes {
        let attribute = attribute?;
        match (attribute.kind, family) {
            (ID, _) => row.id = attribute.u32()?,
            (GROUP, _) => row.group = members(attribute.payload),
            (BLACKHOLE, _) => row.blackhole = true,
            (OUT_LINK, _) => row.ifindex = Some(Ifindex(attribute.u32()?)),
            (GATEWAY, Some(family)) => row.gateway = Some(attribute.address(family)?),
            (ENCAP_TYPE, _) => row.encapsulated = attribute.u16()? != 0,
            (FDB, _) => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(row))
}

/// An array of `struct nexthop_grp`: number, and weight less one in two halves (the high one since
/// 6.12, zero before).
fn members(payload: &[u8]) -> Vec<(u32, u16)> {
    let (entries, _) = payload.as_chunks::<8>();
    entries
        .iter()
        .map(|[i0, i1, i2, i3, low, high, ..]| {
            let weight = u16::from_le_bytes([*low, *high]).saturating_add(1);
            (u32::from_ne_bytes([*i0, *i1, *i2, *i3]), weight)
        })
        .collect()
}
