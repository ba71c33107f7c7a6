//! Targets that translate addresses.

use std::net::IpAddr;

use canreach_snapshot::Family;
use canreach_snapshot::xt::{NatRange, TargetKind};

use super::structure::Structure;

/// `NF_NAT_RANGE_MAP_IPS`: the addresses count.
const ADDRESSES: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: the ports count.
const PORTS: u32 = 1 << 1;
/// `NF_NAT_RANGE_PROTO_OFFSET`: so does the port they start from.
const BASE_PORT: u32 = 1 << 5;

pub(super) fn kind(name: &str, revision: u8, fields: &mut Structure<'_>) -> Option<TargetKind> {
    match (name, revision) {
        ("DNAT", 0) => multi_range(fields).map(TargetKind::Dnat),
        ("SNAT", 0) => multi_range(fields).map(TargetKind::Snat),
        ("DNAT", 1 | 2) => range(revision, fields).map(TargetKind::Dnat),
        ("SNAT", 1 | 2) => range(revision, fields).map(TargetKind::Snat),
        ("MASQUERADE", 0) => range_of_family(fields).map(TargetKind::Masquerade),
        ("REDIRECT", 0) => range_of_family(fields).map(TargetKind::Redirect),
        ("NETMAP", 0) => range_of_family(fields).map(TargetKind::Netmap),
        _ => None,
    }
}

fn range_of_family(fields: &mut Structure<'_>) -> Option<NatRange> {
    match fields.family()? {
        Family::Ipv4 => multi_range(fields),
        Family::Ipv6 => range(1, fields),
    }
}

/// `struct nf_nat_ipv4_multi_range_compat`; the kernel takes no more than one range.
fn multi_range(fields: &mut Structure<'_>) -> Option<NatRange> {
    if fields.u32()? != 1 {
        return None;
    }
    let flags = fields.u32()?;
    let addresses = (fields.ipv4_address()?, fields.ipv4_address()?);
    let ports = (fields.be16()?, fields.be16()?);
    // These revisions know no base.
    Some(asked(flags & !BASE_PORT, addresses, ports, 0))
}

/// `struct nf_nat_range`, `struct nf_nat_range2`.
fn range(revision: u8, fields: &mut Structure<'_>) -> Option<NatRange> {
    let flags = fields.u32()?;
    let addresses = (fields.address()?, fields.address()?);
    let ports = (fields.be16()?, fields.be16()?);
    match revision {
        2 => Some(asked(flags, addresses, ports, fields.be16()?)),
        _ => Some(asked(flags & !BASE_PORT, addresses, ports, 0)),
    }
}

fn asked(flags: u32, addresses: (IpAddr, IpAddr), ports: (u16, u16), base: u16) -> NatRange {
    NatRange {
        addresses: (flags & ADDRESSES != 0).then_some(addresses),
        ports: (flags & PORTS != 0).then_some(ports),
        base_port: (flags & BASE_PORT != 0).then_some(base),
        flags: flags & !(ADDRESSES | PORTS | BASE_PORT),
    }
}
