//! What takes note of a packet, and leaves it as it is.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::DynsetOp;

use super::super::super::attr::Malformed;
use super::super::field::Fields;
use super::dispatch::{list, single};

/// net/netfilter/nft_counter.c.
pub(super) fn counter(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const BYTES: u16 = 1;
    const PACKETS: u16 = 2;
    let counts = fields.be64(PACKETS)?.zip(fields.be64(BYTES)?);
    Ok(counts.map(|(packets, bytes)| Expr::Counter { packets, bytes }))
}

/// net/netfilter/nft_last.c.
#[allow(clippy::unnecessary_wraps, reason = "one of the decoders")]
pub(super) const fn last(_: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    Ok(Some(Expr::Last))
}

/// net/netfilter/nft_log.c.
pub(super) fn log(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const GROUP: u16 = 1;
    const PREFIX: u16 = 2;
    Ok(Some(Expr::Log { prefix: fields.text(PREFIX), group: fields.be16(GROUP)? }))
}

/// net/netfilter/nft_objref.c.
pub(super) fn objref(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const TYPE: u16 = 1;
    const NAME: u16 = 2;
    const SET_SREG: u16 = 3;
    const SET_NAME: u16 = 4;
    let one = fields.be32(TYPE)?.zip(fields.text(NAME));
    let of_map = fields.text(SET_NAME).zip(fields.register(SET_SREG)?);
    Ok(match (one, of_map) {
        (Some((kind, name)), None) => Some(Expr::Objref { kind, name }),
        (None, Some((set, sreg))) => Some(Expr::ObjrefMap { set, sreg }),
        _ => None,
    })
}

/// net/netfilter/nft_ct.c.
#[allow(clippy::unnecessary_wraps, reason = "one of the decoders")]
pub(super) const fn notrack(_: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    Ok(Some(Expr::Notrack))
}

/// net/netfilter/nft_dynset.c.
pub(super) fn dynset(fields: &Fields<'_>, family: NfFamily) -> Result<Option<Expr>, Malformed> {
    const SET_NAME: u16 = 1;
    const OP: u16 = 3;
    const SREG_KEY: u16 = 4;
    const SREG_DATA: u16 = 5;
    const TIMEOUT: u16 = 6;
    const EXPR: u16 = 7;
    const FLAGS: u16 = 9;
    const EXPRESSIONS: u16 = 10;
    /// `NFT_DYNSET_F_INV`, `NFT_DYNSET_F_EXPR`.
    const KNOWN: u32 = 3;
    const INVERT: u32 = 1;
    if fields.beyond(EXPRESSIONS) {
        return Ok(None);
    }
    let op = match fields.be32(OP)? {
        Some(0) => DynsetOp::Add,
        Some(1) => DynsetOp::Update,
        Some(2) => DynsetOp::Delete,
        _ => return Ok(None),
    };
    let (Some(set), Some(sreg_key)) = (fields.text(SET_NAME), fields.register(SREG_KEY)?) else {
        return Ok(None);
    };
    let flags = fields.be32(FLAGS)?.unwrap_or(0);
    if flags & !KNOWN != 0 {
        return Ok(None);
    }
    let exprs = match fields.of(EXPR) {
        Some(expr) => vec![single(expr, family)?],
        None => list(fields.nested(EXPRESSIONS), family)?,
    };
    Ok(Some(Expr::Dynset {
        set,
        op,
        sreg_key,
        sreg_data: fields.register(SREG_DATA)?,
        // 0: as long as the set says.
        timeout_ms: fields.be64(TIMEOUT)?.filter(|timeout| *timeout != 0),
        invert: flags & INVERT != 0,
        exprs,
    }))
}
