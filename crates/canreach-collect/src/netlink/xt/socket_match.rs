//! Matches on the socket that a packet is for or comes from.

use canreach_snapshot::xt::MatchKind;

use super::structure::{Structure, text};

pub(super) fn kind(name: &str, revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    match (name, revision) {
        // The first revision has no structure, and asks for any socket.
        ("socket", 0) => Some(MatchKind::Socket { flags: 0 }),
        ("socket", 1..=3) => Some(MatchKind::Socket { flags: fields.u8()? }),
        ("owner", 1) => owner(fields),
        ("cgroup", 0..=2) => cgroup(revision, fields),
        _ => None,
    }
}

/// `struct xt_owner_match_info`.
fn owner(fields: &mut Structure<'_>) -> Option<MatchKind> {
    let uid = (fields.u32()?, fields.u32()?);
    let gid = (fields.u32()?, fields.u32()?);
    let (asked, inverted) = (fields.u8()?, fields.u8()?);
    let is = |bit: u8| inverted & bit != 0;
    Some(MatchKind::Owner {
        uid: (asked & 1 != 0).then_some((uid, is(1))),
        gid: (asked & 2 != 0).then_some((gid, is(2))),
        socket: (asked & 4 != 0).then_some(!is(4)),
        supplementary: asked & 8 != 0,
    })
}

/// `struct xt_cgroup_info_v0` to `v2`. The kernel takes a path or a class, never both.
fn cgroup(revision: u8, fields: &mut Structure<'_>) -> Option<MatchKind> {
    if revision == 0 {
        let (class, inverted) = (fields.u32()?, fields.u32()? != 0);
        return Some(MatchKind::Cgroup { path: None, classid: Some(class), inverted });
    }
    let (has_path, has_class) = (fields.flag()?, fields.flag()?);
    let (path_inverted, class_inverted) = (fields.flag()?, fields.flag()?);
    let (path, class) = if revision == 1 {
        (text(&fields.array::<4096>()?), fields.u32()?)
    } else {
        // A union of both.
        fields.align(4);
        let path: [u8; 512] = fields.array()?;
        (text(&path), u32::from_ne_bytes(*path.first_chunk()?))
    };
    fields.aligned_pointer()?;
    match (has_path, has_class) {
        (true, false) => {
            Some(MatchKind::Cgroup { path: Some(path), classid: None, inverted: path_inverted })
        }
        (false, true) => {
            Some(MatchKind::Cgroup { path: None, classid: Some(class), inverted: class_inverted })
        }
        (false, false) | (true, true) => None,
    }
}
