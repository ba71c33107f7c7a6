//! Matches on where the packet came from and goes, other than by its own addresses: links, hardware
//! addresses, routes, marks.

use canreach_snapshot::xt::MatchKind;

use super::packet_match::raw;
use super::structure::{Structure, link_pattern};

/// `struct xt_policy_elem`: four addresses, two numbers, four bytes.
const POLICY_ELEMENT: usize = 4 * 16 + 2 * 4 + 4;

pub(super) fn kind(name: &str, revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    match (name, revision) {
        ("addrtype", 0 | 1) => addrtype(revision, fields),
        ("mark", 1) => Some(MatchKind::Mark {
            mark: fields.u32()?,
            mask: fields.u32()?,
            inverted: fields.flag()?,
        }),
        ("mac", 0) => {
            let address = fields.array()?;
            Some(MatchKind::Mac { address, inverted: fields.u32()? != 0 })
        }
        ("physdev", 0) => physdev(fields),
        ("pkttype", 0) => {
            Some(MatchKind::Pkttype { kind: fields.u32()?, inverted: fields.u32()? != 0 })
        }
        ("policy", 0) => policy(fields),
        ("rpfilter", 0) => {
            let flags = fields.u8()?;
            Some(MatchKind::Rpfilter {
                loose: flags & 1 != 0,
                valid_mark: flags & 2 != 0,
                accept_local: flags & 4 != 0,
                inverted: flags & 8 != 0,
            })
        }
        ("realm", 0) => Some(MatchKind::Realm {
            id: fields.u32()?,
            mask: fields.u32()?,
            inverted: fields.flag()?,
        }),
        ("cpu", 0) => Some(MatchKind::Cpu { cpu: fields.u32()?, inverted: fields.u32()? != 0 }),
        ("devgroup", 0) => devgroup(fields),
        _ => None,
    }
}

/// `struct xt_addrtype_info`, `struct xt_addrtype_info_v1`.
fn addrtype(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    let (source, destination) = (fields.u16()?, fields.u16()?);
    let flags = match revision {
        0 => u32::from(fields.u32()? != 0) | u32::from(fields.u32()? != 0) << 1,
        _ => fields.u32()?,
    };
    Some(MatchKind::Addrtype {
        source,
        source_inverted: flags & 1 != 0,
        destination,
        destination_inverted: flags & 2 != 0,
        limit_iface_in: flags & 4 != 0,
        limit_iface_out: flags & 8 != 0,
    })
}

/// `struct xt_physdev_info`.
fn physdev(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let physin = link_pattern(&fields.array()?, &fields.array()?)?;
    let physout = link_pattern(&fields.array()?, &fields.array()?)?;
    let inverted = fields.u8()?;
    Some(MatchKind::Physdev { physin, physout, ops: fields.u8()?, inverted })
}

/// `struct xt_policy_info`.
fn policy(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let mut flags = 0;
    let raw = raw(fields, |fields| {
        fields.align(4);
        fields.skip(4 * POLICY_ELEMENT)?;
        flags = fields.u16()?;
        fields.u16().map(drop)
    })?;
    Some(MatchKind::Policy {
        inbound: flags & 1 != 0,
        none: flags & 4 != 0,
        strict: flags & 8 != 0,
        raw,
    })
}

/// `struct xt_devgroup_info`.
fn devgroup(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let flags = fields.u32()?;
    let source = (fields.u32()?, fields.u32()?, flags & 2 != 0);
    let destination = (fields.u32()?, fields.u32()?, flags & 8 != 0);
    Some(MatchKind::Devgroup {
        source: (flags & 1 != 0).then_some(source),
        destination: (flags & 4 != 0).then_some(destination),
    })
}
