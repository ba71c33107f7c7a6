//! Addresses of links (RTM_NEWADDR).

use canreach_snapshot::{Address, AddressFlags, Ifindex, Prefix, Scope};

use super::attr::{Malformed, family_of, split_header};
use super::message::Message;

/// `RTM_GETADDR`; its answers are `RTM_NEWADDR`.
pub(crate) const GET: u16 = 22;

/// `struct ifaddrmsg`, zeroed: addresses of every link and family.
pub(crate) const REQUEST: [u8; 8] = [0; 8];

const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const LABEL: u16 = 3;
const BROADCAST: u16 = 4;
const CACHEINFO: u16 = 6;
const FLAGS: u16 = 8;

/// A lifetime that does not end (`INFINITY_LIFE_TIME`).
const FOREVER: u32 = u32::MAX;

/// Decodes one address; `None` for a family the model does not have.
pub(crate) fn decode(message: &Message<'_>) -> Result<Option<Address>, Malformed> {
    let (header, attributes) = split_header::<8>(message.kind, message.payload)?;
    let [family, length, flags, scope, index @ ..] = *header;
    let Some(family) = family_of(family) else { return Ok(None) };
    let mut address = None;
    let mut local = None;
    let mut row = Address {
        ifindex: Ifindex(u32::from_ne_bytes(index)),
        prefix: Prefix::all(family),
        peer: None,
        broadcast: None,
        scope: Scope(scope),
        flags: AddressFlags(u32::from(flags)),
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            ADDRESS => address = Some(attribute.address(family)?),
            LOCAL => local = Some(attribute.address(family)?),
            LABEL => row.label = Some(attribute.text()),
            BROADCAST => row.broadcast = Some(attribute.address(family)?),
            CACHEINFO => {
                let [p0, p1, p2, p3, v0, v1, v2, v3] = attribute.bytes::<8>()?;
                let preferred = u32::from_ne_bytes([p0, p1, p2, p3]);
                let valid = u32::from_ne_bytes([v0, v1, v2, v3]);
                row.preferred_lifetime_s = Some(preferred).filter(|&life| life != FOREVER);
                row.valid_lifetime_s = Some(valid).filter(|&life| life != FOREVER);
            }
            FLAGS => row.flags = AddressFlags(attribute.u32()?),
            _ => {}
        }
    }
    // IFA_ADDRESS is the other end where there is one, and IFA_LOCAL this machine's own; IPv6
    // leaves IFA_LOCAL out when they are the same (net/ipv6/addrconf.c, `inet6_fill_ifaddr`).
    let Some(own) = local.or(address) else { return Ok(None) };
    row.peer = address.filter(|&peer| peer != own);
    let Some(prefix) = Prefix::new(own, length) else {
        return Err(Malformed {
            what: "prefix length of address in message",
            number: message.kind,
            length: usize::from(length),
            wanted: usize::from(family.bits()),
        });
    };
    row.prefix = prefix;
    Ok(Some(row))
}
