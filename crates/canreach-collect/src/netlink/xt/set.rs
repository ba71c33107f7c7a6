//! Sets of ipset in rules: the match that looks up in one, the target that changes some.

use canreach_snapshot::xt::{MatchKind, SetReference, TargetKind};

use super::structure::Structure;

/// `IPSET_DIM_MAX`.
const DIMENSIONS: u8 = 6;
/// `IPSET_INVALID_ID`: no set.
const NO_SET: u16 = 65535;
/// `IPSET_INV_MATCH`.
const INVERTED: u8 = 1;
/// `IPSET_RETURN_NOMATCH`, in the flags of the set itself (revision 2).
const RETURN_NOMATCH: u8 = 1 << 7;

/// `struct xt_set_info_match_v0` to `v4`.
pub(super) fn match_kind(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    let (mut set, set_flags) = reference(revision, fields)?;
    match revision {
        0 | 1 => {}
        2 if set_flags & RETURN_NOMATCH != 0 => set.flags |= SetReference::RETURN_NOMATCH,
        2 => {}
        3 | 4 => {
            let packets = counter(revision, fields)?;
            let bytes = counter(revision, fields)?;
            set.flags = fields.u32()?;
            // The kernel sets it at each packet.
            if packets || bytes {
                set.flags |= SetReference::MATCH_COUNTERS;
            }
        }
        _ => return None,
    }
    Some(MatchKind::Set(set))
}

/// `struct xt_set_info_target_v0` to `v3`.
pub(super) fn target_kind(revision: u8, fields: &mut Structure<'_>) -> Option<TargetKind> {
    let mut next = || -> Option<Option<SetReference>> {
        let (set, _) = reference(revision, fields)?;
        Some(Some(set).filter(|set| set.index != NO_SET))
    };
    let (add, delete) = (next()?, next()?);
    let map = if revision == 3 { next()? } else { None };
    let flags = match revision {
        0 | 1 => 0,
        2 | 3 => {
            let (flags, _timeout) = (fields.u32()?, fields.u32()?);
            flags
        }
        _ => return None,
    };
    Some(TargetKind::Set { add, delete, map, flags })
}

/// `struct xt_set_info`; before it `struct xt_set_info_v0`, into whose words the kernel writes number
/// of dimensions and flags as the later one has them. Beside the set, those flags.
fn reference(revision: u8, fields: &mut Structure<'_>) -> Option<(SetReference, u8)> {
    let index = fields.u16()?;
    if revision == 0 {
        fields.align(4);
        fields.skip(6 * 4)?;
    }
    let (dimensions, flags) = (fields.u8()?, fields.u8()?);
    if revision == 0 {
        fields.skip(2)?;
    }
    if dimensions > DIMENSIONS {
        return None;
    }
    let set = SetReference {
        index,
        name: None,
        source: (1..=dimensions).map(|dimension| flags & 1 << dimension != 0).collect(),
        inverted: flags & INVERTED != 0,
        flags: 0,
    };
    Some((set, flags))
}

/// `struct ip_set_counter_match0`, `struct ip_set_counter_match`: whether it asks anything.
fn counter(revision: u8, fields: &mut Structure<'_>) -> Option<bool> {
    if revision == 3 {
        fields.align(align_of::<u64>());
        let asked = fields.flag()?;
        fields.u64()?;
        return Some(asked);
    }
    fields.aligned_u64()?;
    let asked = fields.flag()?;
    fields.align(8);
    Some(asked)
}
