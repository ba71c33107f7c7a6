//! What ends a rule that does not apply.

use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::CmpOp;

use super::super::super::attr::Malformed;
use super::super::constant::VERDICT_REGISTER;
use super::super::field::Fields;

/// The first flag of several expressions is inversion; others are not known.
const fn inverted(flags: Option<u32>) -> Option<bool> {
    match flags {
        None | Some(0) => Some(false),
        Some(1) => Some(true),
        Some(_) => None,
    }
}

/// net/netfilter/nft_cmp.c.
pub(super) fn cmp(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const SREG: u16 = 1;
    const OP: u16 = 2;
    const DATA: u16 = 3;
    let op = match fields.be32(OP)? {
        Some(0) => CmpOp::Eq,
        Some(1) => CmpOp::Neq,
        Some(2) => CmpOp::Lt,
        Some(3) => CmpOp::Lte,
        Some(4) => CmpOp::Gt,
        Some(5) => CmpOp::Gte,
        _ => return Ok(None),
    };
    let (sreg, value) = (fields.register(SREG)?, fields.value(DATA)?);
    Ok(sreg.zip(value).map(|(sreg, value)| Expr::Cmp { sreg, op, value }))
}

/// net/netfilter/nft_range.c.
pub(super) fn range(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const SREG: u16 = 1;
    const OP: u16 = 2;
    const FROM: u16 = 3;
    const TO: u16 = 4;
    let op = match fields.be32(OP)? {
        Some(0) => CmpOp::Eq,
        Some(1) => CmpOp::Neq,
        _ => return Ok(None),
    };
    let ends = fields.value(FROM)?.zip(fields.value(TO)?);
    let all = fields.register(SREG)?.zip(ends);
    Ok(all.map(|(sreg, (from, to))| Expr::Range { sreg, op, from, to }))
}

/// net/netfilter/nft_lookup.c.
pub(super) fn lookup(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const SET: u16 = 1;
    const SREG: u16 = 2;
    const DREG: u16 = 3;
    const FLAGS: u16 = 5;
    let (Some(set), Some(sreg)) = (fields.text(SET), fields.register(SREG)?) else {
        return Ok(None);
    };
    let (dreg, verdict) = match fields.be32(DREG)? {
        None => (None, false),
        Some(VERDICT_REGISTER) => (None, true),
        Some(_) => match fields.register(DREG)? {
            None => return Ok(None),
            register => (register, false),
        },
    };
    let invert = inverted(fields.be32(FLAGS)?);
    Ok(invert.map(|invert| Expr::Lookup { set, sreg, dreg, verdict, invert }))
}

/// net/netfilter/nft_limit.c.
pub(super) fn limit(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const RATE: u16 = 1;
    const UNIT: u16 = 2;
    const BURST: u16 = 3;
    const TYPE: u16 = 4;
    const FLAGS: u16 = 5;
    let bytes = match fields.be32(TYPE)? {
        None | Some(0) => false,
        Some(1) => true,
        Some(_) => return Ok(None),
    };
    let (Some(rate), Some(unit_s)) = (fields.be64(RATE)?, fields.be64(UNIT)?) else {
        return Ok(None);
    };
    let burst = fields.be32(BURST)?.unwrap_or(0);
    let invert = inverted(fields.be32(FLAGS)?);
    Ok(invert.map(|invert| Expr::Limit { rate, unit_s, burst, bytes, invert }))
}

/// net/netfilter/nft_quota.c.
pub(super) fn quota(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const BYTES: u16 = 1;
    const FLAGS: u16 = 2;
    const CONSUMED: u16 = 4;
    /// `NFT_QUOTA_F_DEPLETED`: it has been reported as used up.
    const DEPLETED: u32 = 2;
    let Some(bytes) = fields.be64(BYTES)? else { return Ok(None) };
    let consumed = fields.be64(CONSUMED)?.unwrap_or(0);
    let invert = inverted(fields.be32(FLAGS)?.map(|flags| flags & !DEPLETED));
    Ok(invert.map(|invert| Expr::Quota { bytes, consumed, invert }))
}

/// net/netfilter/nft_connlimit.c.
pub(super) fn connlimit(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const COUNT: u16 = 1;
    const FLAGS: u16 = 2;
    let invert = inverted(fields.be32(FLAGS)?);
    Ok(fields.be32(COUNT)?.zip(invert).map(|(count, invert)| Expr::Connlimit { count, invert }))
}
