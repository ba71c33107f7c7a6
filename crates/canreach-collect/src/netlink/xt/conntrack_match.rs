//! Matches on the connection that a packet belongs to.

use canreach_snapshot::xt::{ConntrackMatch, MaskedAddress, MatchKind};

use super::packet_match::raw;
use super::structure::Structure;

/// `XT_STATE_UNTRACKED` of xt_state.h, which the conntrack match has elsewhere.
const STATE_UNTRACKED: u32 = 1 << 6;

pub(super) fn kind(name: &str, revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    match (name, revision) {
        ("conntrack", 1..=3) => conntrack(revision, fields),
        ("state", 0) => state(fields),
        ("connmark", 1) => Some(MatchKind::Connmark {
            mark: fields.u32()?,
            mask: fields.u32()?,
            inverted: fields.flag()?,
        }),
        ("helper", 0) => {
            let inverted = fields.u32()? != 0;
            Some(MatchKind::Helper { name: fields.text::<30>()?, inverted })
        }
        ("connbytes", 0) => {
            let raw = raw(fields, |fields| {
                fields.aligned_u64()?;
                fields.aligned_u64()?;
                fields.skip(2)
            });
            Some(MatchKind::Connbytes { raw: raw? })
        }
        ("connlabel", 0) => {
            Some(MatchKind::Connlabel { bit: fields.u16()?, options: fields.u16()? })
        }
        _ => None,
    }
}

/// `struct xt_state_info`, in the bits of the conntrack match.
fn state(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let raw = fields.u32()?;
    // INVALID, ESTABLISHED, RELATED, NEW.
    let mut mask = raw as u16 & 0xf;
    if raw & STATE_UNTRACKED != 0 {
        mask |= ConntrackMatch::UNTRACKED;
    }
    Some(MatchKind::State { mask })
}

fn masked(fields: &mut Structure<'_>) -> Option<MaskedAddress> {
    let (address, mask) = (fields.address()?, fields.address()?);
    Some(MaskedAddress::new(address, mask))
}

/// `struct xt_conntrack_mtinfo1` to `3`. The first two hold one port for each end, in the network's
/// order, the last first and last in the machine's.
fn conntrack(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    // Which address is asked about stands behind them, and unused ones need no family.
    let addresses = fields.rest();
    fields.align(4);
    fields.skip(8 * 16)?;
    let expires = (fields.u32()?, fields.u32()?);
    let protocol = fields.u16()?;
    let mut ports = [(0, 0); 4];
    for (first, last) in &mut ports {
        *first = if revision < 3 { fields.be16()? } else { fields.u16()? };
        *last = *first;
    }
    let (asked, inverted) = (fields.u16()?, fields.u16()?);
    let (state, status) = match revision {
        1 => (u16::from(fields.u8()?), u16::from(fields.u8()?)),
        _ => (fields.u16()?, fields.u16()?),
    };
    if revision == 3 {
        for (_, last) in &mut ports {
            *last = fields.u16()?;
        }
    }
    let mut addresses = fields.again(addresses);
    let mut address = |bit: u16| -> Option<Option<(MaskedAddress, bool)>> {
        if asked & bit == 0 {
            addresses.skip(32)?;
            return Some(None);
        }
        Some(Some((masked(&mut addresses)?, inverted & bit != 0)))
    };
    let [orig_source_port, orig_destination_port, reply_source_port, reply_destination_port] =
        ports;
    Some(MatchKind::Conntrack(Box::new(ConntrackMatch {
        state: ask(asked, inverted, 1 << 0, state),
        protocol: ask(asked, inverted, 1 << 1, protocol),
        orig_source: address(1 << 2)?,
        orig_destination: address(1 << 3)?,
        reply_source: address(1 << 4)?,
        reply_destination: address(1 << 5)?,
        status: ask(asked, inverted, 1 << 6, status),
        expires: ask(asked, inverted, 1 << 7, expires),
        orig_source_port: ask(asked, inverted, 1 << 8, orig_source_port),
        orig_destination_port: ask(asked, inverted, 1 << 9, orig_destination_port),
        reply_source_port: ask(asked, inverted, 1 << 10, reply_source_port),
        reply_destination_port: ask(asked, inverted, 1 << 11, reply_destination_port),
        direction: (asked & 1 << 12 != 0).then_some(inverted & 1 << 12 == 0),
    })))
}

/// A value that one of `XT_CONNTRACK_*` asks about, and whether another inverts it.
fn ask<Value>(asked: u16, inverted: u16, bit: u16, value: Value) -> Option<(Value, bool)> {
    (asked & bit != 0).then_some((value, inverted & bit != 0))
}
