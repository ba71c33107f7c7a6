//! From a name and a revision to the structure, and from there to its meaning.

use canreach_snapshot::NfFamily;
use canreach_snapshot::xt::{Match, MatchKind, Target, TargetKind};

use super::structure::Structure;
use super::{conntrack_match, limit_match, link_match, packet_match, set, socket_match, target};

/// Decodes a match (`struct xt_entry_match`, `NFTA_MATCH_INFO`) of a rule in a table of this family.
#[must_use]
pub fn decode_match(name: &str, revision: u8, family: NfFamily, bytes: &[u8]) -> Match {
    let mut structure = Structure::new(bytes, family);
    let kind = match_kind(name, revision, family, &mut structure);
    let kind = kind.filter(|_| structure.end().is_some());
    let kind = kind.unwrap_or_else(|| MatchKind::Opaque(bytes.into()));
    Match { name: name.to_owned(), revision, kind }
}

/// Decodes a target (`struct xt_entry_target`, `NFTA_TARGET_INFO`) of a rule in a table of this
/// family. A jump to a chain stays opaque: what it jumps to only the whole table says.
#[must_use]
pub fn decode_target(name: &str, revision: u8, family: NfFamily, bytes: &[u8]) -> Target {
    let kind = if target::decides_nothing(name, revision) {
        Some(TargetKind::NoVerdict)
    } else {
        let mut structure = Structure::new(bytes, family);
        let kind = target::kind(name, revision, family, &mut structure);
        kind.filter(|_| structure.end().is_some())
    };
    let kind = kind.unwrap_or_else(|| TargetKind::Opaque(bytes.into()));
    Target { name: name.to_owned(), revision, kind }
}

fn match_kind(
    name: &str,
    revision: u8,
    family: NfFamily,
    structure: &mut Structure<'_>,
) -> Option<MatchKind> {
    // Bridges have matches of their own by these names.
    if family == NfFamily::Bridge && matches!(name, "limit" | "pkttype") {
        return None;
    }
    packet_match::kind(name, revision, structure)
        .or_else(|| link_match::kind(name, revision, structure))
        .or_else(|| conntrack_match::kind(name, revision, structure))
        .or_else(|| limit_match::kind(name, revision, structure))
        .or_else(|| socket_match::kind(name, revision, structure))
        .or_else(|| match (name, revision) {
            ("set", _) => set::match_kind(revision, structure),
            _ => None,
        })
}

#[cfg(test)]
mod tests;
