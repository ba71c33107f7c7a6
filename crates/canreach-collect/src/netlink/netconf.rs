//! Sysctls of `all` that rtnetlink tells (RTM_NEWNETCONF): one question for several files of /proc.

use std::collections::BTreeMap;

use canreach_snapshot::{Family, LinkSysctl};

use super::attr::{Malformed, split_header};
use super::message::Message;

/// `RTM_GETNETCONF`; its answers are `RTM_NEWNETCONF`.
pub(crate) const GET: u16 = 82;

const FORWARDING: u16 = 2;
const RP_FILTER: u16 = 3;
const PROXY_NEIGH: u16 = 5;
const IGNORE_ROUTES_WITH_LINKDOWN: u16 = 6;
const BC_FORWARDING: u16 = 8;

/// `struct netconfmsg`, and `NETCONFA_IFINDEX` of -1, which stands for `all`.
pub(crate) fn request(family: Family) -> [u8; 12] {
    let number = match family {
        Family::Ipv4 => libc::AF_INET,
        Family::Ipv6 => libc::AF_INET6,
    };
    let [l0, l1] = 8_u16.to_ne_bytes();
    let [k0, k1] = 1_u16.to_ne_bytes();
    [number as u8, 0, 0, 0, l0, l1, k0, k1, 0xff, 0xff, 0xff, 0xff]
}

/// Decodes the values of one family that have a name here.
pub(crate) fn decode(
    family: Family,
    message: &Message<'_>,
) -> Result<Option<BTreeMap<LinkSysctl, i64>>, Malformed> {
    let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
    let mut values = BTreeMap::new();
    for attribute in attributes {
        let attribute = attribute?;
        let Some(sysctl) = sysctl(family, attribute.kind) else { continue };
        values.insert(sysctl, i64::from(attribute.i32()?));
    }
    Ok(Some(values))
}

const fn sysctl(family: Family, attribute: u16) -> Option<LinkSysctl> {
    Some(match (family, attribute) {
        (Family::Ipv4, RP_FILTER) => LinkSysctl::RpFilter,
        (Family::Ipv4, PROXY_NEIGH) => LinkSysctl::ProxyArp,
        (Family::Ipv4, IGNORE_ROUTES_WITH_LINKDOWN) => LinkSysctl::IgnoreRoutesWithLinkdown,
        (Family::Ipv4, BC_FORWARDING) => LinkSysctl::BcForwarding,
        (Family::Ipv6, FORWARDING) => LinkSysctl::V6Forwarding,
        (Family::Ipv6, PROXY_NEIGH) => LinkSysctl::V6ProxyNdp,
        _ => return None,
    })
}
