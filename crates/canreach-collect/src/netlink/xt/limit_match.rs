//! Matches on rates, counts, chance and the time of day.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::Family;
use canreach_snapshot::xt::{MatchKind, TimeMatch};

use super::packet_match::raw;
use super::structure::{Structure, text};

pub(super) fn kind(name: &str, revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    match (name, revision) {
        ("limit", 0) => limit(fields),
        ("hashlimit", 1..=3) => hashlimit(revision, fields),
        ("recent", 0 | 1) => recent(revision, fields),
        ("connlimit", 1) => {
            let mask = fields.address()?;
            let (limit, flags) = (fields.u32()?, fields.u32()?);
            fields.aligned_pointer()?;
            Some(MatchKind::Connlimit { limit, flags, mask })
        }
        ("statistic", 0) => statistic(fields),
        ("time", 0) => time(fields),
        ("nfacct", 0 | 1) => {
            let name = fields.text::<32>()?;
            if revision == 0 {
                fields.pointer()?
            } else {
                fields.aligned_pointer()?
            }
            Some(MatchKind::Nfacct { name })
        }
        ("quota", 0) => {
            let (flags, _padding) = (fields.u32()?, fields.u32()?);
            let quota = fields.aligned_u64()?;
            fields.pointer()?;
            Some(MatchKind::Quota { quota, inverted: flags & 1 != 0 })
        }
        _ => None,
    }
}

/// `struct xt_rateinfo`.
fn limit(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let (average, burst) = (fields.u32()?, fields.u32()?);
    // `prev` is a number of the kernel's own, as long as a pointer.
    fields.pointer()?;
    for _credit in 0..3 {
        fields.u32()?;
    }
    fields.pointer()?;
    Some(MatchKind::Limit { average, burst })
}

/// `struct xt_hashlimit_mtinfo1` to `3`: name, configuration, and the kernel's table.
fn hashlimit(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    let mut name = String::new();
    let raw = raw(fields, |fields| {
        name = if revision == 1 { fields.text::<16>()? } else { fields.text::<255>()? };
        let numbers = match revision {
            // mode, avg, burst, size, max, gc_interval, expire.
            1 => 7,
            _ => {
                // avg and burst.
                fields.u64()?;
                fields.u64()?;
                // mode, size, max, gc_interval, expire; then interval.
                if revision == 2 { 5 } else { 6 }
            }
        };
        for _number in 0..numbers {
            fields.u32()?;
        }
        // The lengths of prefixes; the configuration is a structure of its own, padded as such.
        fields.skip(2)?;
        fields.align(if revision == 1 { 4 } else { align_of::<u64>() });
        fields.aligned_pointer()
    })?;
    Some(MatchKind::Hashlimit { name, raw })
}

/// `struct xt_recent_mtinfo`, `struct xt_recent_mtinfo_v1`. The former asks about whole addresses.
fn recent(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    let (seconds, hits) = (fields.u32()?, fields.u32()?);
    let (check, inverted) = (fields.u8()?, fields.flag()?);
    let name = text(&fields.array::<200>()?);
    let by_destination = fields.flag()?;
    let mask = match revision {
        0 => match fields.family()? {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::BROADCAST),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
        },
        _ => fields.address()?,
    };
    Some(MatchKind::Recent { name, check, seconds, hits, inverted, by_destination, mask })
}

/// `struct xt_statistic_info`.
fn statistic(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let (mode, flags) = (fields.u16()?, fields.u16()?);
    let numbers = (fields.u32()?, fields.u32()?, fields.u32()?);
    fields.aligned_pointer()?;
    let inverted = flags & 1 != 0;
    // One union: a probability, or each how manyth packet, and from which on.
    match mode {
        0 => Some(MatchKind::Statistic {
            random: true,
            probability: numbers.0,
            every: 0,
            packet: 0,
            inverted,
        }),
        1 => Some(MatchKind::Statistic {
            random: false,
            probability: 0,
            every: numbers.0,
            packet: numbers.1,
            inverted,
        }),
        _ => None,
    }
}

/// `struct xt_time_info`.
fn time(fields: &mut Structure<'_>) -> Option<MatchKind> {
    Some(MatchKind::Time(Box::new(TimeMatch {
        date_start: fields.u32()?,
        date_stop: fields.u32()?,
        daytime_start: fields.u32()?,
        daytime_stop: fields.u32()?,
        monthdays: fields.u32()?,
        weekdays: fields.u8()?,
        flags: fields.u8()?,
    })))
}
