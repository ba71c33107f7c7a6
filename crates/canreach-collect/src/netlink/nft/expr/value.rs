//! What puts values into registers and changes them.

use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{BitwiseOp, Constant, Operand};

use super::super::super::attr::Malformed;
use super::super::constant::{self, VERDICT_REGISTER};
use super::super::field::Fields;

/// net/netfilter/nft_immediate.c.
pub(super) fn immediate(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const DATA: u16 = 2;
    let (Some(register), Some(data)) = (fields.be32(DREG)?, fields.of(DATA)) else {
        return Ok(None);
    };
    Ok(match (constant::constant(data)?, constant::register(register)) {
        (Some(Constant::Verdict(verdict)), None) if register == VERDICT_REGISTER => {
            Some(Expr::Verdict(verdict))
        }
        (Some(Constant::Value(value)), Some(dreg)) => Some(Expr::Immediate { dreg, value }),
        _ => None,
    })
}

/// net/netfilter/nft_bitwise.c.
pub(super) fn bitwise(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const SREG: u16 = 1;
    const DREG: u16 = 2;
    const LEN: u16 = 3;
    const MASK: u16 = 4;
    const XOR: u16 = 5;
    const OP: u16 = 6;
    const DATA: u16 = 7;
    const SREG2: u16 = 8;
    let (Some(sreg), Some(dreg)) = (fields.register(SREG)?, fields.register(DREG)?) else {
        return Ok(None);
    };
    let operand = || -> Result<Option<Operand>, Malformed> {
        Ok(match fields.register(SREG2)? {
            Some(register) => Some(Operand::Register(register)),
            None => fields.value(DATA)?.map(Operand::Constant),
        })
    };
    // Kernels before 5.6 know the first only, and do not say so.
    let op = match fields.be32(OP)?.unwrap_or(0) {
        0 => fields
            .value(MASK)?
            .zip(fields.value(XOR)?)
            .map(|(mask, xor)| BitwiseOp::MaskXor { mask, xor }),
        1 => fields.value_u32(DATA)?.map(BitwiseOp::Lshift),
        2 => fields.value_u32(DATA)?.map(BitwiseOp::Rshift),
        3 => operand()?.map(BitwiseOp::And),
        4 => operand()?.map(BitwiseOp::Or),
        5 => operand()?.map(BitwiseOp::Xor),
        _ => None,
    };
    Ok(op.zip(fields.be32(LEN)?).map(|(op, len)| Expr::Bitwise { sreg, dreg, len, op }))
}

/// net/netfilter/nft_byteorder.c.
pub(super) fn byteorder(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const SREG: u16 = 1;
    const DREG: u16 = 2;
    const OP: u16 = 3;
    const LEN: u16 = 4;
    const SIZE: u16 = 5;
    let (Some(sreg), Some(dreg)) = (fields.register(SREG)?, fields.register(DREG)?) else {
        return Ok(None);
    };
    let to_host = match fields.be32(OP)? {
        Some(0) => true,
        Some(1) => false,
        _ => return Ok(None),
    };
    let (len, size) = (fields.be32(LEN)?, fields.be32(SIZE)?);
    Ok(len.zip(size).map(|(len, size)| Expr::Byteorder { sreg, dreg, to_host, len, size }))
}

/// net/netfilter/nft_hash.c.
pub(super) fn hash(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const SREG: u16 = 1;
    const DREG: u16 = 2;
    const LEN: u16 = 3;
    const MODULUS: u16 = 4;
    const SEED: u16 = 5;
    const OFFSET: u16 = 6;
    const TYPE: u16 = 7;
    let (Some(dreg), Some(modulus)) = (fields.register(DREG)?, fields.be32(MODULUS)?) else {
        return Ok(None);
    };
    let sreg = fields.register(SREG)?;
    // `NFT_HASH_JENKINS`, over a register, and `NFT_HASH_SYM`, over the packet.
    if fields.be32(TYPE)?.unwrap_or(0) != u32::from(sreg.is_none()) {
        return Ok(None);
    }
    Ok(Some(Expr::Hash {
        dreg,
        sreg,
        len: fields.be32(LEN)?.unwrap_or(0),
        modulus,
        seed: fields.be32(SEED)?,
        offset: fields.be32(OFFSET)?.unwrap_or(0),
    }))
}

/// net/netfilter/nft_numgen.c.
pub(super) fn numgen(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const MODULUS: u16 = 2;
    const TYPE: u16 = 3;
    const OFFSET: u16 = 4;
    let (Some(dreg), Some(modulus)) = (fields.register(DREG)?, fields.be32(MODULUS)?) else {
        return Ok(None);
    };
    let random = match fields.be32(TYPE)? {
        Some(0) => false,
        Some(1) => true,
        _ => return Ok(None),
    };
    let offset = fields.be32(OFFSET)?.unwrap_or(0);
    Ok(Some(Expr::Numgen { dreg, modulus, random, offset }))
}
