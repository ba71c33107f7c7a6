//! Neighbours (RTM_NEWNEIGH): ARP and ND entries, and addresses answered for by proxy.

use canreach_snapshot::{Ifindex, MacAddress, Neighbor, NudState};

use super::attr::{Malformed, family_of, split_header};
use super::message::Message;

/// `RTM_GETNEIGH`; its answers are `RTM_NEWNEIGH`.
pub(crate) const GET: u16 = 30;

/// `NTF_PROXY`.
const PROXY_FLAG: u8 = 1 << 3;
/// `NTF_ROUTER`.
const ROUTER_FLAG: u8 = 1 << 7;

/// `struct ndmsg`, zeroed: every entry.
pub(crate) const REQUEST: [u8; 12] = [0; 12];
/// Proxy entries, which the kernel keeps apart.
pub(crate) const REQUEST_PROXIES: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, PROXY_FLAG, 0];

const DESTINATION: u16 = 1;
const LINK_LAYER_ADDRESS: u16 = 2;

/// Decodes one entry; `None` for other families (bridges keep their forwarding tables here).
pub(crate) fn decode(message: &Message<'_>) -> Result<Option<Neighbor>, Malformed> {
    let (header, attributes) = split_header::<12>(message.kind, message.payload)?;
    let [family, _, _, _, i0, i1, i2, i3, s0, s1, flags, _] = *header;
    let Some(family) = family_of(family) else { return Ok(None) };
    let mut address = None;
    let mut mac = None;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            DESTINATION => address = Some(attribute.address(family)?),
            LINK_LAYER_ADDRESS => {
                mac = <[u8; 6]>::try_from(attribute.payload).ok().map(MacAddress);
            }
            _ => {}
        }
    }
    Ok(address.map(|address| Neighbor {
        ifindex: Ifindex(u32::from_ne_bytes([i0, i1, i2, i3])),
        address,
        mac,
        state: state(u16::from_ne_bytes([s0, s1])),
        router: flags & ROUTER_FLAG != 0,
        proxy: flags & PROXY_FLAG != 0,
    }))
}

/// `NUD_*` of include/uapi/linux/neighbour.h.
const fn state(bits: u16) -> NudState {
    match bits {
        0x01 => NudState::Incomplete,
        0x02 => NudState::Reachable,
        0x04 => NudState::Stale,
        0x08 => NudState::Delay,
        0x10 => NudState::Probe,
        0x20 => NudState::Failed,
        0x40 => NudState::NoArp,
        0x80 => NudState::Permanent,
        _ => NudState::None,
    }
}
