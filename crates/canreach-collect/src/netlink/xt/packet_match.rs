//! Matches on what is in the packet: headers, ports, addresses, payload.

use canreach_snapshot::nft::Bytes;
use canreach_snapshot::xt::{MatchKind, MultiportWhich, PortRange};

use super::structure::Structure;

/// `XT_MULTI_PORTS`.
const MULTIPORTS: usize = 15;
/// `struct xt_u32_test`, without the padding: eleven locations, eleven values, two counts.
const U32_TEST: usize = 11 * 8 + 11 * 8 + 4;
/// `struct sock_filter[XT_BPF_MAX_NUM_INSTR]`.
const BPF_PROGRAM: usize = 64 * 8;

pub(super) fn kind(name: &str, revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    match (name, revision) {
        ("tcp", 0) => tcp(fields),
        ("udp" | "udplite", 0) => udp(fields),
        ("icmp" | "icmp6", 0) => icmp(fields),
        ("multiport", 0 | 1) => multiport(revision, fields),
        ("iprange", 1) => iprange(fields),
        ("comment", 0) => fields.text::<256>().map(MatchKind::Comment),
        ("ttl" | "hl", 0) => Some(MatchKind::Ttl { mode: fields.u8()?, value: fields.u8()? }),
        ("dscp", 0) => Some(MatchKind::Dscp { dscp: fields.u8()?, inverted: fields.flag()? }),
        ("tos", 1) => Some(MatchKind::Tos {
            mask: fields.u8()?,
            value: fields.u8()?,
            inverted: fields.flag()?,
        }),
        ("ecn", 0) => raw(fields, |fields| fields.skip(4)).map(|raw| MatchKind::Ecn { raw }),
        ("length", 0) => {
            let range = (fields.u16()?, fields.u16()?);
            Some(MatchKind::Length { range, inverted: fields.flag()? })
        }
        ("tcpmss", 0) => {
            let range = (fields.u16()?, fields.u16()?);
            Some(MatchKind::Tcpmss { range, inverted: fields.flag()? })
        }
        ("string", 0 | 1) => string(fields),
        ("u32", 0) => u32(fields),
        ("bpf", 0 | 1) => bpf(revision, fields),
        _ => None,
    }
}

/// The bytes that `read` passes over.
pub(super) fn raw(
    fields: &mut Structure<'_>,
    read: impl FnOnce(&mut Structure<'_>) -> Option<()>,
) -> Option<Bytes> {
    let bytes = fields.rest();
    read(fields)?;
    Some(bytes.into())
}

fn ports(fields: &mut Structure<'_>) -> Option<PortRange> {
    Some((fields.u16()?, fields.u16()?))
}

/// `struct xt_tcp`.
fn tcp(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let (source_ports, destination_ports) = (ports(fields)?, ports(fields)?);
    let option = fields.u8()?;
    let (flag_mask, flag_value) = (fields.u8()?, fields.u8()?);
    let inverted = fields.u8()?;
    Some(MatchKind::Tcp {
        source_ports,
        source_ports_inverted: inverted & 1 != 0,
        destination_ports,
        destination_ports_inverted: inverted & 2 != 0,
        flag_mask,
        flag_value,
        flags_inverted: inverted & 4 != 0,
        option,
        option_inverted: inverted & 8 != 0,
    })
}

/// `struct xt_udp`.
fn udp(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let (source_ports, destination_ports) = (ports(fields)?, ports(fields)?);
    let inverted = fields.u8()?;
    Some(MatchKind::Udp {
        source_ports,
        source_ports_inverted: inverted & 1 != 0,
        destination_ports,
        destination_ports_inverted: inverted & 2 != 0,
    })
}

/// `struct ipt_icmp`, `struct ip6t_icmp`.
fn icmp(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let kind = fields.u8()?;
    let codes = (fields.u8()?, fields.u8()?);
    Some(MatchKind::Icmp { kind, codes, inverted: fields.u8()? & 1 != 0 })
}

/// `struct xt_multiport`, `struct xt_multiport_v1`: in the latter a port with a flag is the first of
/// a range that the next one ends.
fn multiport(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    let which = match fields.u8()? {
        0 => MultiportWhich::Source,
        1 => MultiportWhich::Destination,
        2 => MultiportWhich::Either,
        _ => return None,
    };
    let count = usize::from(fields.u8()?);
    let mut ports = [0; MULTIPORTS];
    for port in &mut ports {
        *port = fields.u16()?;
    }
    let (starts, inverted) = match revision {
        0 => ([0; MULTIPORTS], false),
        _ => (fields.array()?, fields.flag()?),
    };
    let mut ranges = Vec::new();
    let mut listed = ports.get(..count)?.iter().zip(starts);
    while let Some((&first, start)) = listed.next() {
        let last = if start == 0 { first } else { *listed.next()?.0 };
        ranges.push((first, last));
    }
    Some(MatchKind::Multiport { which, ports: ranges, inverted })
}

/// `struct xt_iprange_mtinfo`.
fn iprange(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let source = (fields.address()?, fields.address()?);
    let destination = (fields.address()?, fields.address()?);
    let flags = fields.u8()?;
    Some(MatchKind::Iprange {
        source: (flags & 1 != 0).then_some(source),
        source_inverted: flags & 0x10 != 0,
        destination: (flags & 2 != 0).then_some(destination),
        destination_inverted: flags & 0x20 != 0,
    })
}

/// `struct xt_string_info`.
fn string(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let raw = raw(fields, |fields| {
        fields.u16()?;
        fields.u16()?;
        // Algorithm, pattern, its length, flags.
        fields.skip(16 + 128 + 1 + 1)?;
        fields.aligned_pointer()
    })?;
    Some(MatchKind::String { raw })
}

/// `struct xt_u32`.
fn u32(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let raw = raw(fields, |fields| {
        fields.align(4);
        fields.skip(11 * U32_TEST + 2)
    })?;
    Some(MatchKind::U32 { raw })
}

/// `struct xt_bpf_info`, `struct xt_bpf_info_v1`: instructions, or where a program is pinned.
fn bpf(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    let raw = raw(fields, |fields| {
        fields.u16()?;
        if revision > 0 {
            fields.u16()?;
        }
        fields.align(4);
        if revision > 0 {
            fields.u32()?;
        }
        fields.skip(BPF_PROGRAM)?;
        fields.aligned_pointer()
    })?;
    Some(MatchKind::Bpf { raw })
}
