//! Bytes of which some bits are not known, and what can be said of them all the same.
//!
//! Stands for the registers of nft (`struct nft_regs`). A predicate that holds, or does not hold,
//! whatever the unknown bits are, is decided; any other is a question to be put to the forks.

use std::rc::Rc;

use canreach_snapshot::nft::expr::CmpOp;

use crate::UnknownReason;

/// Whether something holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::reference) enum Tri {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Cannot be told. Questions of the same content have the same answer; without a content each is
    /// a new one.
    Maybe(UnknownReason, Option<String>),
}

impl Tri {
    pub(in crate::reference) const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// With the answer inverted.
    pub(in crate::reference) fn inverted_if(self, inverted: bool) -> Self {
        match self {
            Self::Yes if inverted => Self::No,
            Self::No if inverted => Self::Yes,
            Self::Maybe(reason, Some(content)) if inverted => {
                Self::Maybe(reason, Some(format!("not {content}")))
            }
            same @ (Self::Yes | Self::No | Self::Maybe(..)) => same,
        }
    }

    /// Both hold.
    pub(in crate::reference) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, other) => other,
            (one, Self::Yes) => one,
            (Self::Maybe(reason, one), Self::Maybe(_, other)) => {
                let both = one.zip(other).map(|(one, other)| format!("{one} and {other}"));
                Self::Maybe(reason, both)
            }
        }
    }

    /// At least one holds.
    pub(in crate::reference) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, other) => other,
            (one, Self::No) => one,
            (Self::Maybe(reason, one), Self::Maybe(_, other)) => {
                let either = one.zip(other).map(|(one, other)| format!("{one} or {other}"));
                Self::Maybe(reason, either)
            }
        }
    }
}

/// Where unknown bits come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::reference) struct Origin {
    pub(in crate::reference) reason: UnknownReason,
    /// What they are; `None` where they are others each time.
    pub(in crate::reference) name: Option<Rc<str>>,
}

/// One byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::reference) struct Byte {
    /// Its bits; the unknown ones are 0.
    pub(in crate::reference) value: u8,
    /// Which bits are known.
    pub(in crate::reference) known: u8,
    /// The least it can be.
    pub(in crate::reference) least: u8,
    pub(in crate::reference) origin: Option<Origin>,
}

impl Byte {
    pub(in crate::reference) const fn of(value: u8) -> Self {
        Self { value, known: u8::MAX, least: value, origin: None }
    }
}

/// Some bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::reference) struct Value(pub(in crate::reference) Vec<Byte>);

impl Value {
    pub(in crate::reference) fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().map(Byte::of).collect())
    }

    /// Nothing is known of these bytes, but that the bits outside the mask are 0.
    pub(in crate::reference) fn unknown(
        mask: &[u8],
        reason: UnknownReason,
        name: Option<&str>,
    ) -> Self {
        let origin =
            |at: usize| Origin { reason, name: name.map(|name| Rc::from(format!("{name}[{at}]"))) };
        let byte = |(at, mask): (usize, &u8)| Byte {
            value: 0,
            known: !mask,
            least: 0,
            origin: (*mask != 0).then(|| origin(at)),
        };
        Self(mask.iter().enumerate().map(byte).collect())
    }

    pub(in crate::reference) fn bytes(&self) -> Option<Vec<u8>> {
        let known = self.0.iter().all(|byte| byte.known == u8::MAX);
        known.then(|| self.0.iter().map(|byte| byte.value).collect())
    }

    /// The value as a number, by the byte order of the machine.
    pub(in crate::reference) fn host_number(&self) -> Option<u32> {
        let bytes = self.bytes()?;
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = from;
        }
        Some(u32::from_le_bytes(word))
    }

    /// The question whether something holds of the unknown bits.
    pub(in crate::reference) fn question(&self, what: &str) -> Tri {
        let mut names = Some(String::new());
        let mut reason = UnknownReason::PacketDetails;
        let mut first = true;
        for byte in self.0.iter().filter(|byte| byte.known != u8::MAX) {
            let Some(origin) = &byte.origin else { continue };
            if first {
                reason = origin.reason;
                first = false;
            }
            names = names.zip(origin.name.as_deref()).map(|(names, name)| names + name + " ");
        }
        Tri::Maybe(reason, names.map(|names| names + what))
    }

    /// Whether these bytes are those, as far as they go.
    pub(in crate::reference) fn is(&self, other: &[u8]) -> Tri {
        let pairs = || self.0.iter().zip(other);
        let differs =
            |(own, other): (&Byte, &u8)| (own.value ^ other) & own.known != 0 || *other < own.least;
        if pairs().any(differs) {
            return Tri::No;
        }
        if pairs().all(|(own, _)| own.known == u8::MAX) {
            return Tri::Yes;
        }
        self.question(&format!("== {other:02x?}"))
    }

    /// `memcmp` below 0.
    pub(in crate::reference) fn is_below(&self, other: &[u8]) -> Tri {
        let least: Vec<u8> = self.0.iter().map(|byte| byte.least).collect();
        let most: Vec<u8> = self.0.iter().map(|byte| byte.value | !byte.known).collect();
        let len = other.len().min(least.len());
        if most[..len] < other[..len] {
            Tri::Yes
        } else if least[..len] >= other[..len] {
            Tri::No
        } else {
            self.question(&format!("< {other:02x?}"))
        }
    }

    /// `memcmp` above 0.
    pub(in crate::reference) fn is_above(&self, other: &[u8]) -> Tri {
        let least: Vec<u8> = self.0.iter().map(|byte| byte.least).collect();
        let most: Vec<u8> = self.0.iter().map(|byte| byte.value | !byte.known).collect();
        let len = other.len().min(least.len());
        if least[..len] > other[..len] {
            Tri::Yes
        } else if most[..len] <= other[..len] {
            Tri::No
        } else {
            self.question(&format!("> {other:02x?}"))
        }
    }

    /// `nft_cmp_eval`.
    pub(in crate::reference) fn compare(&self, op: CmpOp, other: &[u8]) -> Tri {
        match op {
            CmpOp::Eq => self.is(other),
            CmpOp::Neq => self.is(other).inverted_if(true),
            CmpOp::Lt => self.is_below(other),
            CmpOp::Gte => self.is_below(other).inverted_if(true),
            CmpOp::Gt => self.is_above(other),
            CmpOp::Lte => self.is_above(other).inverted_if(true),
        }
    }

    /// Within a closed range.
    pub(in crate::reference) fn is_within(&self, from: &[u8], to: &[u8]) -> Tri {
        let from_on = self.is_below(from).inverted_if(true);
        from_on.and(self.is_above(to).inverted_if(true))
    }

    /// Combines with another value bit by bit. `both` says what two bits give, and which of the
    /// results are known.
    fn bitwise(&self, other: &Self, what: &str, both: impl Fn(&Byte, &Byte) -> (u8, u8)) -> Self {
        let byte = |(one, other): (&Byte, &Byte)| {
            let (value, known) = both(one, other);
            let from = one.origin.as_ref().or(other.origin.as_ref());
            let origin = from.filter(|_| known != u8::MAX).map(|origin| Origin {
                reason: origin.reason,
                name: origin.name.as_ref().map(|name| {
                    let (low, high) = (other.value, other.known);
                    Rc::from(format!("{name}{what}{low:02x}/{high:02x}"))
                }),
            });
            // What keeps all unknown bits keeps the least they can be.
            let keeps = known == one.known && other.known == u8::MAX;
            let least = match what {
                "&" if keeps => one.least & other.value,
                "|" | "^" if keeps && other.value == 0 => one.least,
                _ => value & known,
            };
            Byte { value: value & known, known, least, origin }
        };
        Self(self.0.iter().zip(&other.0).map(byte).collect())
    }

    pub(in crate::reference) fn and(&self, other: &Self) -> Self {
        self.bitwise(other, "&", |a, b| {
            let zero = (a.known & !a.value) | (b.known & !b.value);
            (a.value & b.value, (a.known & b.known) | zero)
        })
    }

    pub(in crate::reference) fn or(&self, other: &Self) -> Self {
        self.bitwise(other, "|", |a, b| {
            let one = (a.known & a.value) | (b.known & b.value);
            (a.value | b.value, (a.known & b.known) | one)
        })
    }

    pub(in crate::reference) fn xor(&self, other: &Self) -> Self {
        self.bitwise(other, "^", |a, b| (a.value ^ b.value, a.known & b.known))
    }

    /// `nft_bitwise_eval_lshift` and `nft_bitwise_eval_rshift`: over 32-bit words in the machine's
    /// byte order, the first of which is the highest.
    pub(in crate::reference) fn shifted(&self, bits: u32, left: bool) -> Self {
        let bits = bits.min(31);
        let word = |at: usize, of: &dyn Fn(&Byte) -> u8| {
            let byte = |offset: usize| self.0.get(at * 4 + offset).map_or(0, of);
            u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
        };
        let count = self.0.len().div_ceil(4);
        let shift = |of: &dyn Fn(&Byte) -> u8| -> Vec<u8> {
            let mut carry = 0;
            let mut words = vec![0_u32; count];
            let order: Vec<usize> =
                if left { (0..count).rev().collect() } else { (0..count).collect() };
            for at in order {
                let own = word(at, of);
                if left {
                    words[at] = own << bits | carry;
                    carry = own.checked_shr(32 - bits).unwrap_or(0);
                } else {
                    words[at] = own >> bits | carry;
                    carry = own.checked_shl(32 - bits).unwrap_or(0);
                }
            }
            words.into_iter().flat_map(u32::to_le_bytes).collect()
        };
        let values = shift(&|byte| byte.value);
        let unknown = shift(&|byte| !byte.known);
        let origin = self.0.iter().find_map(|byte| byte.origin.clone()).map(|origin| Origin {
            reason: origin.reason,
            name: self.question(&format!("{}{bits}", if left { "<<" } else { ">>" })).content(),
        });
        let single = (self.0.len() == 1 && !left).then(|| self.0[0].least.checked_shr(bits));
        let bytes = values.into_iter().zip(unknown).take(self.0.len());
        let byte = |(value, unknown): (u8, u8)| Byte {
            value,
            known: !unknown,
            least: single.flatten().unwrap_or(value),
            origin: origin.clone().filter(|_| unknown != 0),
        };
        Self(bytes.map(byte).collect())
    }

    /// Each group of so many bytes backwards (`nft_byteorder_eval`).
    pub(in crate::reference) fn swapped(&self, size: usize) -> Self {
        let size = size.max(1);
        Self(self.0.chunks(size).flat_map(|group| group.iter().rev().cloned()).collect())
    }
}

impl Tri {
    /// The content of a question.
    fn content(self) -> Option<Rc<str>> {
        match self {
            Self::Maybe(_, content) => content.map(Rc::from),
            Self::Yes | Self::No => None,
        }
    }
}

/// `struct nft_regs`: sixteen slots of four bytes.
#[derive(Debug, Clone)]
pub(in crate::reference) struct Registers(Vec<Byte>);

/// Bytes of all registers together.
const SIZE: usize = 64;

impl Registers {
    pub(in crate::reference) fn new() -> Self {
        Self(vec![Byte::of(0); SIZE])
    }

    /// The bytes from a slot on.
    pub(in crate::reference) fn load(&self, slot: u8, len: usize) -> Value {
        let from = (usize::from(slot) * 4).min(SIZE);
        Value(self.0[from..(from + len).min(SIZE)].to_vec())
    }

    /// Writes a value; the rest of its last slot becomes 0, as `nft_reg_store8` and the like do.
    pub(in crate::reference) fn store(&mut self, slot: u8, value: &Value) {
        let from = (usize::from(slot) * 4).min(SIZE);
        let padded = value.0.len().div_ceil(4) * 4;
        for at in 0..padded {
            if let Some(cell) = self.0.get_mut(from + at) {
                *cell = value.0.get(at).cloned().unwrap_or(Byte::of(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl() -> Value {
        Value::unknown(&[0xff], UnknownReason::PacketDetails, Some("ttl"))
    }

    #[test]
    fn what_holds_for_all_values_is_decided() {
        assert_eq!(ttl().compare(CmpOp::Gte, &[0]), Tri::Yes);
        assert_eq!(ttl().compare(CmpOp::Gt, &[255]), Tri::No);
        assert!(matches!(ttl().compare(CmpOp::Lt, &[64]), Tri::Maybe(..)));
        let low = ttl().and(&Value::of(&[0x0f]));
        assert_eq!(low.compare(CmpOp::Eq, &[0x10]), Tri::No);
        assert_eq!(low.compare(CmpOp::Lt, &[0x10]), Tri::Yes);
        let set = ttl().or(&Value::of(&[0x80]));
        assert_eq!(set.compare(CmpOp::Lt, &[0x80]), Tri::No);
        assert_eq!(ttl().and(&Value::of(&[0])).bytes(), Some(vec![0]));
        let mut doff = Value::unknown(&[0xf0], UnknownReason::PacketDetails, Some("doff"));
        doff.0[0].least = 0x50;
        let words = doff.and(&Value::of(&[0xf0])).xor(&Value::of(&[0])).shifted(4, false);
        assert_eq!(words.compare(CmpOp::Lt, &[5]), Tri::No);
        assert!(matches!(words.compare(CmpOp::Lt, &[6]), Tri::Maybe(..)));
    }

    #[test]
    fn equal_questions_have_equal_content() {
        assert_eq!(ttl().is(&[1]), ttl().is(&[1]));
        assert_ne!(ttl().is(&[1]), ttl().is(&[2]));
        assert_ne!(ttl().and(&Value::of(&[3])).is(&[1]), ttl().is(&[1]));
    }

    #[test]
    fn words_shift_as_one_number() {
        let value = Value::of(&[0, 0, 0, 0x80, 1, 0, 0, 0]);
        let right = Value::of(&[0, 0, 0, 0x40, 0, 0, 0, 0]);
        assert_eq!(value.shifted(1, false), right);
        assert_eq!(value.shifted(0, true), value);
        assert_eq!(Value::of(&[0x12, 0x34]).swapped(2), Value::of(&[0x34, 0x12]));
    }
}
