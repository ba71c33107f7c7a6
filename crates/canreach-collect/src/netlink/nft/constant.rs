//! Registers, values and verdicts.

use canreach_snapshot::nft::Bytes;
use canreach_snapshot::nft::expr::{Constant, NfVerdict, Register};

use super::super::attr::{Attribute, Malformed};
use super::field::Fields;

const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFT_REG_VERDICT`.
pub(super) const VERDICT_REGISTER: u32 = 0;

/// `NF_VERDICT_MASK`; a queue's number stands in the upper half.
const VERDICT_MASK: i32 = 0xff;
/// `NF_VERDICT_FLAG_QUEUE_BYPASS`.
const QUEUE_BYPASS: i32 = 0x8000;
const NF_QUEUE: i32 = 3;

/// The first slot of a data register: `NFT_REG_1` to `NFT_REG_4` are four slots each, `NFT_REG32_00`
/// to `NFT_REG32_15` one.
pub(super) const fn register(number: u32) -> Option<Register> {
    match number {
        1..=4 => Some(Register((number as u8 - 1) * 4)),
        8..=23 => Some(Register(number as u8 - 8)),
        _ => None,
    }
}

/// The bytes of `NFTA_DATA_VALUE`, without a copy.
pub(super) fn value(attribute: Attribute<'_>) -> Result<Option<&[u8]>, Malformed> {
    for nested in attribute.nested() {
        let nested = nested?;
        if nested.kind == DATA_VALUE {
            return Ok(Some(nested.payload));
        }
    }
    Ok(None)
}

/// A value or a verdict.
pub(super) fn constant(attribute: Attribute<'_>) -> Result<Option<Constant>, Malformed> {
    for nested in attribute.nested() {
        let nested = nested?;
        match nested.kind {
            DATA_VALUE => return Ok(Some(Constant::Value(Bytes::from(nested.payload)))),
            DATA_VERDICT => return verdict(nested).map(|it| it.map(Constant::Verdict)),
            _ => {}
        }
    }
    Ok(None)
}

fn verdict(attribute: Attribute<'_>) -> Result<Option<NfVerdict>, Malformed> {
    let fields = Fields::read(attribute.nested())?;
    let Some(code) = fields.be32(VERDICT_CODE)? else { return Ok(None) };
    let code = code.cast_signed();
    let chain = || fields.text(VERDICT_CHAIN).unwrap_or_default();
    Ok(Some(match code {
        -1 => NfVerdict::Continue,
        -2 => NfVerdict::Break,
        -3 => NfVerdict::Jump(chain()),
        -4 => NfVerdict::Goto(chain()),
        -5 => NfVerdict::Return,
        0 => NfVerdict::Drop,
        1 => NfVerdict::Accept,
        2 => NfVerdict::Stolen,
        _ if code & VERDICT_MASK == NF_QUEUE => NfVerdict::Queue {
            number: (code.cast_unsigned() >> 16) as u16,
            bypass: code & QUEUE_BYPASS != 0,
        },
        _ => NfVerdict::Other(code),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::super::attr::push;
    use super::*;

    #[test]
    fn registers_are_numbered_by_slot() {
        for (number, slot) in [
            (0, None),
            (1, Some(0)),
            (2, Some(4)),
            (4, Some(12)),
            (5, None),
            (7, None),
            (8, Some(0)),
            (12, Some(4)),
            (23, Some(15)),
            (24, None),
            (u32::MAX, None),
        ] {
            assert_eq!(register(number), slot.map(Register), "{number}");
        }
    }

    #[test]
    fn verdicts_of_each_kind() {
        for (code, chain, expected) in [
            (0, None, NfVerdict::Drop),
            (1, None, NfVerdict::Accept),
            (2, None, NfVerdict::Stolen),
            (0x0007_8003, None, NfVerdict::Queue { number: 7, bypass: true }),
            (4, None, NfVerdict::Other(4)),
            (-1, None, NfVerdict::Continue),
            (-2, None, NfVerdict::Break),
            (-3, Some("other"), NfVerdict::Jump("other".to_owned())),
            (-4, Some("other"), NfVerdict::Goto("other".to_owned())),
            (-5, None, NfVerdict::Return),
            (-6, None, NfVerdict::Other(-6)),
        ] {
            let mut fields = Vec::new();
            push(&mut fields, VERDICT_CODE, &i32::to_be_bytes(code));
            if let Some(chain) = chain {
                push(&mut fields, VERDICT_CHAIN, format!("{chain}\0").as_bytes());
            }
            let mut data = Vec::new();
            push(&mut data, DATA_VERDICT, &fields);
            let read = constant(Attribute { kind: 2, payload: &data });
            assert_eq!(read, Ok(Some(Constant::Verdict(expected))), "{code}");
        }
    }
}
