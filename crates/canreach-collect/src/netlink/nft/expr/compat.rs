//! Matches and targets of xtables inside nftables (net/netfilter/nft_compat.c).

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::Expr;

use super::super::super::attr::Malformed;
use super::super::super::xt::{decode_match, decode_target};
use super::super::field::Fields;

/// `NFTA_MATCH_*` and `NFTA_TARGET_*` have the same numbers.
const NAME: u16 = 1;
const REV: u16 = 2;
const INFO: u16 = 3;

pub(super) fn xt_match(fields: &Fields<'_>, family: NfFamily) -> Result<Option<Expr>, Malformed> {
    Ok(extension(fields)?
        .map(|it| Expr::Match(decode_match(&it.name, it.revision, family, it.bytes))))
}

pub(super) fn xt_target(fields: &Fields<'_>, family: NfFamily) -> Result<Option<Expr>, Malformed> {
    Ok(extension(fields)?
        .map(|it| Expr::Target(decode_target(&it.name, it.revision, family, it.bytes))))
}

/// A match or a target of xtables, as it came.
struct Extension<'a> {
    name: String,
    revision: u8,
    /// Its structure, padded to a multiple of eight bytes.
    bytes: &'a [u8],
}

fn extension<'a>(fields: &Fields<'a>) -> Result<Option<Extension<'a>>, Malformed> {
    if fields.beyond(INFO) {
        return Ok(None);
    }
    let revision = fields.be32(REV)?.unwrap_or(0);
    let bytes = fields.of(INFO).map_or(&[][..], |attribute| attribute.payload);
    let name = fields.text(NAME).zip(u8::try_from(revision).ok());
    Ok(name.map(|(name, revision)| Extension { name, revision, bytes }))
}
