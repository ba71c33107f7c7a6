//! What targets do.

use std::net::IpAddr;

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::xt::{ConnmarkMode, TargetKind};

use super::structure::Structure;
use super::{nat_target, set};

/// Shifts of marks are of 32-bit numbers.
const LARGEST_SHIFT: u8 = 31;

/// Targets that go on to the next rule, having done something that decides nothing.
pub(super) fn decides_nothing(name: &str, revision: u8) -> bool {
    matches!(
        (name, revision),
        (
            "LOG"
                | "NFLOG"
                | "AUDIT"
                | "TRACE"
                | "CHECKSUM"
                | "TCPMSS"
                | "TCPOPTSTRIP"
                | "CLASSIFY"
                | "LED"
                | "RATEEST"
                | "CONNSECMARK"
                | "ECN",
            0
        ) | ("TEE", 1)
            | ("IDLETIMER" | "SECMARK", 0 | 1)
    )
}

pub(super) fn kind(
    name: &str,
    revision: u8,
    family: NfFamily,
    fields: &mut Structure<'_>,
) -> Option<TargetKind> {
    match (name, revision) {
        ("", 0) => standard(fields.u32()?.cast_signed()).map(TargetKind::Standard),
        ("ERROR", 0) => fields.skip(30).map(|()| TargetKind::Error),
        // Bridges and ARP have none by this name and structure.
        ("REJECT", 0) if matches!(family, NfFamily::Ip | NfFamily::Ip6) => {
            Some(TargetKind::Reject { with: fields.u32()? })
        }
        ("MARK", 2) => Some(TargetKind::Mark { mark: fields.u32()?, mask: fields.u32()? }),
        ("CONNMARK", 1 | 2) => connmark(revision, fields),
        ("NOTRACK", 0) => {
            Some(TargetKind::Ct { notrack: true, zone: 0, zone_flags: 0, helper: None })
        }
        ("CT", 0..=2) => ct(revision, fields),
        ("TPROXY", 0 | 1) => tproxy(revision, fields),
        ("NFQUEUE", 0..=3) => nfqueue(revision, fields),
        ("SET", _) => set::target_kind(revision, fields),
        ("TTL" | "HL", 0) => Some(TargetKind::Ttl { mode: fields.u8()?, value: fields.u8()? }),
        // Six bits at the upper end of the octet.
        ("DSCP", 0) => Some(TargetKind::Tos { mask: 0xfc, value: fields.u8()? << 2 }),
        ("TOS", 1) => {
            let (value, mask) = (fields.u8()?, fields.u8()?);
            Some(TargetKind::Tos { mask, value })
        }
        // `struct nf_synproxy_info`: options, scale of the window, segment size.
        ("SYNPROXY", 0) => {
            fields.skip(2)?;
            fields.u16()?;
            Some(TargetKind::Synproxy)
        }
        _ => nat_target::kind(name, revision, fields),
    }
}

/// A verdict of a standard target: `-NF_* - 1`. `None` for jumps, which are offsets in the table.
pub(super) fn standard(verdict: i32) -> Option<NfVerdict> {
    Some(match verdict {
        0.. => return None,
        -1 => NfVerdict::Drop,
        -2 => NfVerdict::Accept,
        -3 => NfVerdict::Stolen,
        -4 => NfVerdict::Queue { number: 0, bypass: false },
        // `XT_RETURN`, where `NF_REPEAT` would be.
        -5 => NfVerdict::Return,
        _ => NfVerdict::Other(verdict),
    })
}

/// `struct xt_connmark_tginfo1`, `struct xt_connmark_tginfo2`.
fn connmark(revision: u8, fields: &mut Structure<'_>) -> Option<TargetKind> {
    let (ctmark, ctmask, nfmask) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let shift = if revision == 1 {
        0
    } else {
        let (right, bits) = (fields.flag()?, fields.u8()?);
        let bits = i8::try_from(Some(bits).filter(|bits| *bits <= LARGEST_SHIFT)?).ok()?;
        if right { -bits } else { bits }
    };
    let mode = match fields.u8()? {
        0 => ConnmarkMode::Set,
        1 => ConnmarkMode::Save,
        2 => ConnmarkMode::Restore,
        _ => return None,
    };
    Some(TargetKind::Connmark { mode, ctmark, ctmask, nfmask, shift })
}

/// `struct xt_ct_target_info`, `struct xt_ct_target_info_v1`.
fn ct(revision: u8, fields: &mut Structure<'_>) -> Option<TargetKind> {
    let (flags, zone) = (fields.u16()?, fields.u16()?);
    let (_ct_events, _exp_events) = (fields.u32()?, fields.u32()?);
    let helper = fields.text::<16>()?;
    if revision > 0 {
        // The name of a timeout policy.
        fields.skip(32)?;
    }
    fields.aligned_pointer()?;
    // `XT_CT_NOTRACK_ALIAS` is for iptables, which then prints NOTRACK.
    Some(TargetKind::Ct {
        notrack: flags & 1 != 0,
        zone,
        zone_flags: flags & 0x1c,
        helper: Some(helper).filter(|helper| !helper.is_empty()),
    })
}

/// `struct xt_tproxy_target_info`, `struct xt_tproxy_target_info_v1`.
fn tproxy(revision: u8, fields: &mut Structure<'_>) -> Option<TargetKind> {
    let (mark_mask, mark_value) = (fields.u32()?, fields.u32()?);
    let address = if revision == 0 { fields.ipv4_address()? } else { fields.address()? };
    let port = fields.be16()?;
    Some(TargetKind::Tproxy {
        address: Some(address).filter(|address: &IpAddr| !address.is_unspecified()),
        port: Some(port).filter(|port| *port != 0),
        mark_mask,
        mark_value,
    })
}

/// `struct xt_NFQ_info` to `v3`.
fn nfqueue(revision: u8, fields: &mut Structure<'_>) -> Option<TargetKind> {
    let number = fields.u16()?;
    let total = if revision == 0 { 1 } else { fields.u16()? };
    let bypass = match revision {
        0 | 1 => false,
        2 => fields.u16()? != 0,
        // `NFQ_FLAG_BYPASS`.
        _ => fields.u16()? & 1 != 0,
    };
    Some(TargetKind::Nfqueue { number, total, bypass })
}
