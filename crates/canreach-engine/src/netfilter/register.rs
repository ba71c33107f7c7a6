//! Registers: bytes that are known, or bits of something that is not, and tests of them.
//!
//! *Kernel:* `struct nft_regs`, `nft_cmp_eval`, `nft_range_eval`, `nft_bitwise_eval`,
//! `nft_byteorder_eval`. Numbers in host order are little-endian: other machines' are taken for that.
//! Left out: the kernel's leftovers in registers that a rule has not written.

use std::ops::Range;

use canreach_snapshot::nft::expr::{BitwiseOp, CmpOp, Operand, Register};

use crate::host::Host;
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::packet::diagram::Diagram;
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::{NfSubject, UnknownReason};

/// The most intervals that one test of a field under a mask may come to.
const MAX_INTERVALS: u32 = 1 << 14;

/// All registers are so many bytes.
pub(crate) const BYTES: usize = 64;

/// A byte of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Byte {
    /// This.
    Is(u8),
    /// A part of a field: its value shifted right by `shift` bits (left where negative), the low eight
    /// of them under `mask`, then those of `flip` flipped.
    Of { field: Field, shift: i8, mask: u8, flip: u8 },
    /// Nothing is known of it.
    Unknown,
}

impl Byte {
    /// Some of its bits, the others 0.
    pub(crate) const fn and(self, bits: u8) -> Self {
        match self {
            Self::Is(value) => Self::Is(value & bits),
            // (v & mask ^ flip) & bits
            Self::Of { field, shift, mask, flip } => {
                if mask & bits == 0 {
                    Self::Is(flip & bits)
                } else {
                    Self::Of { field, shift, mask: mask & bits, flip: flip & bits }
                }
            }
            Self::Unknown if bits == 0 => Self::Is(0),
            Self::Unknown => Self::Unknown,
        }
    }

    const fn xor(self, bits: u8) -> Self {
        match self {
            Self::Is(value) => Self::Is(value ^ bits),
            Self::Of { field, shift, mask, flip } => {
                Self::Of { field, shift, mask, flip: flip ^ bits }
            }
            Self::Unknown => Self::Unknown,
        }
    }

    const fn or(self, bits: u8) -> Self {
        // Bits that are set are no longer of the field.
        self.and(!bits).xor(bits)
    }

    /// The value, if the field has this one.
    pub(crate) fn with(self, of: Field, value: u128) -> Option<u8> {
        match self {
            Self::Of { field, shift, mask, flip } if field == of => {
                let by = u32::from(shift.unsigned_abs());
                let moved = if shift >= 0 { value >> by } else { value << by };
                Some((moved as u8 & mask) ^ flip)
            }
            other => other.known(),
        }
    }

    /// The value, where it is known.
    pub(crate) const fn known(self) -> Option<u8> {
        match self {
            Self::Is(value) => Some(value),
            Self::Of { .. } | Self::Unknown => None,
        }
    }
}

/// The registers of one evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registers([Byte; BYTES]);

impl Default for Registers {
    fn default() -> Self {
        Self([Byte::Unknown; BYTES])
    }
}

const fn span(register: Register, length: usize) -> Range<usize> {
    let start = register.0 as usize * 4;
    let start = if start > BYTES { BYTES } else { start };
    let end = start + length;
    start..if end > BYTES { BYTES } else { end }
}

impl Registers {
    /// Bytes from a register on.
    pub(crate) fn bytes(&self, register: Register, length: usize) -> &[Byte] {
        &self.0[span(register, length)]
    }

    /// Writes bytes. The rest of the last word becomes 0, as the kernel's stores do.
    pub(crate) fn write(&mut self, register: Register, bytes: &[Byte]) {
        let range = span(register, bytes.len());
        let end = range.end;
        let count = range.len();
        self.0[range].copy_from_slice(&bytes[..count]);
        let padded = end.next_multiple_of(4).min(BYTES);
        self.0[end..padded].fill(Byte::Is(0));
    }

    /// Writes known bytes.
    pub(crate) fn write_known(&mut self, register: Register, bytes: &[u8]) {
        let bytes: Vec<_> = bytes.iter().map(|byte| Byte::Is(*byte)).collect();
        self.write(register, &bytes);
    }

    /// `*dest = value` for a number of four bytes in host order.
    pub(crate) fn write_number(&mut self, register: Register, value: u32) {
        self.write_known(register, &value.to_le_bytes());
    }

    /// The number of four bytes in a register, where it is known.
    pub(crate) fn number(&self, register: Register) -> Option<u32> {
        let known: Option<Vec<u8>> = self.bytes(register, 4).iter().map(|b| b.known()).collect();
        Some(u32::from_le_bytes(known?.try_into().ok()?))
    }

    /// `nft_bitwise_eval`.
    pub(crate) fn bitwise(
        &mut self,
        (from, to): (Register, Register),
        length: usize,
        op: &BitwiseOp,
    ) {
        let source = self.bytes(from, length).to_vec();
        let zip = |bits: &[u8], f: fn(Byte, u8) -> Byte| -> Vec<Byte> {
            let bits = bits.iter().copied().chain(std::iter::repeat(0));
            source.iter().zip(bits).map(|(byte, bits)| f(*byte, bits)).collect()
        };
        let result = match op {
            BitwiseOp::MaskXor { mask, xor } => {
                let masked = zip(mask.as_slice(), Byte::and);
                let flips = xor.as_slice().iter().copied().chain(std::iter::repeat(0));
                masked.into_iter().zip(flips).map(|(byte, bits)| byte.xor(bits)).collect()
            }
            BitwiseOp::Lshift(bits) => shifted(&source, *bits, true),
            BitwiseOp::Rshift(bits) => shifted(&source, *bits, false),
            BitwiseOp::And(operand) => self.combine(&source, operand, Byte::and),
            BitwiseOp::Or(operand) => self.combine(&source, operand, Byte::or),
            BitwiseOp::Xor(operand) => self.combine(&source, operand, Byte::xor),
        };
        self.write(to, &result);
    }

    fn combine(&self, source: &[Byte], operand: &Operand, f: fn(Byte, u8) -> Byte) -> Vec<Byte> {
        let other: Vec<Byte> = match operand {
            Operand::Register(register) => self.bytes(*register, source.len()).to_vec(),
            Operand::Constant(bytes) => {
                bytes.as_slice().iter().map(|byte| Byte::Is(*byte)).collect()
            }
        };
        let other = other.into_iter().chain(std::iter::repeat(Byte::Is(0)));
        let pairs = source.iter().copied().zip(other);
        pairs
            .map(|pair| match pair {
                (byte, Byte::Is(bits)) | (Byte::Is(bits), byte) => f(byte, bits),
                (Byte::Of { .. } | Byte::Unknown, _) => Byte::Unknown,
            })
            .collect()
    }

    /// `nft_byteorder_eval`: on a little-endian machine both ways turn each number round.
    pub(crate) fn byteorder(
        &mut self,
        (from, to): (Register, Register),
        length: usize,
        size: usize,
    ) {
        // The kernel converts one number of 2 or 4 bytes, whatever the length says; of 8 bytes
        // likewise.
        let length = if size == 0 { 0 } else { size.min(length) };
        let turned: Vec<_> = self.bytes(from, length).iter().rev().copied().collect();
        self.write(to, &turned);
    }
}

/// Shifts as the kernel does: words of 32 bits in host order, the first word the highest.
fn shifted(source: &[Byte], bits: u32, left: bool) -> Vec<Byte> {
    let words = source.len().div_ceil(4);
    let mut padded = source.to_vec();
    padded.resize(words * 4, Byte::Is(0));
    // The bytes from the most significant one on.
    let ordered: Vec<_> = padded.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
    let (whole, rest) = ((bits / 8) as usize, bits % 8);
    let at = |index: Option<usize>| {
        index.and_then(|index| ordered.get(index)).copied().unwrap_or(Byte::Is(0))
    };
    let moved = (0..ordered.len()).map(|index| {
        let (near, far) = if left {
            (at(index.checked_add(whole)), at(index.checked_add(whole + 1)))
        } else {
            (at(index.checked_sub(whole)), at(index.checked_sub(whole + 1)))
        };
        if rest == 0 {
            return near;
        }
        match (near, far) {
            (Byte::Is(near), Byte::Is(far)) if left => {
                Byte::Is((near << rest) | (far >> (8 - rest)))
            }
            (Byte::Is(near), Byte::Is(far)) => Byte::Is((near >> rest) | (far << (8 - rest))),
            _ => Byte::Unknown,
        }
    });
    let moved: Vec<_> = moved.collect();
    let back = moved.chunks(4).flat_map(|word| word.iter().rev().copied());
    back.take(source.len()).collect()
}

/// What a test of bytes needs.
pub(crate) struct Tester<'t, 'a> {
    pub(crate) host: &'t Host<'a>,
    pub(crate) sets: &'t mut Diagram,
    pub(crate) unknowns: &'t mut Unknowns,
    pub(crate) subject: NfSubject,
}

/// Neighbouring bytes of one field, the highest first, none of them masked; or one byte.
#[derive(Debug)]
enum Run {
    Known(u8),
    /// `bytes` bytes of the field, the lowest of them at `shift`.
    Field {
        field: Field,
        shift: u32,
        bytes: usize,
    },
    One(Byte),
}

impl Tester<'_, '_> {
    /// Packets for which bytes compare so to a constant (`memcmp`).
    pub(crate) fn compare(&mut self, bytes: &[Byte], op: CmpOp, value: &[u8]) -> PacketSet {
        let length = bytes.len().min(value.len());
        let (bytes, value) = (&bytes[..length], &value[..length]);
        match op {
            CmpOp::Eq => self.equal(bytes, value),
            CmpOp::Neq => {
                let equal = self.equal(bytes, value);
                self.sets.not(equal)
            }
            CmpOp::Lt => self.less(bytes, value).0,
            CmpOp::Gte => {
                let less = self.less(bytes, value).0;
                self.sets.not(less)
            }
            CmpOp::Lte => {
                let (less, equal) = self.less(bytes, value);
                self.sets.or(less, equal)
            }
            CmpOp::Gt => {
                let (less, equal) = self.less(bytes, value);
                let at_most = self.sets.or(less, equal);
                self.sets.not(at_most)
            }
        }
    }

    /// Packets for which bytes lie between two constants.
    pub(crate) fn between(&mut self, bytes: &[Byte], from: &[u8], to: &[u8]) -> PacketSet {
        let from = self.compare(bytes, CmpOp::Gte, from);
        if from.is_empty() {
            return from;
        }
        let to = self.compare(bytes, CmpOp::Lte, to);
        self.sets.and(from, to)
    }

    fn equal(&mut self, bytes: &[Byte], value: &[u8]) -> PacketSet {
        // Of each field, the bits that are asked about, and what they have to be.
        let mut asked: Vec<(Field, u128, u128)> = Vec::new();
        let mut unknown = false;
        for (byte, value) in bytes.iter().zip(value) {
            match *byte {
                Byte::Is(known) if known != *value => return PacketSet::NONE,
                Byte::Is(_) => {}
                Byte::Unknown => unknown = true,
                Byte::Of { field, shift, mask, flip } => {
                    let wanted = value ^ flip;
                    if wanted & !mask != 0 {
                        return PacketSet::NONE;
                    }
                    let Some((mask, wanted)) = placed(shift, mask, wanted) else {
                        return PacketSet::NONE;
                    };
                    match asked.iter_mut().find(|(known, ..)| *known == field) {
                        Some((_, bits, values)) => {
                            if (*values ^ wanted) & (*bits & mask) != 0 {
                                return PacketSet::NONE;
                            }
                            *bits |= mask;
                            *values |= wanted;
                        }
                        None => asked.push((field, mask, wanted)),
                    }
                }
            }
        }
        let mut result = PacketSet::ALL;
        for (field, mask, wanted) in asked {
            let set = self.masked(field, mask, wanted);
            result = self.sets.and(result, set);
        }
        if unknown {
            let what = format!("{bytes:?} = {value:?}");
            let set = self.not_modelled(what);
            result = self.sets.and(result, set);
        }
        result
    }

    /// Packets whose bytes are less than a constant, and those whose bytes are equal to it.
    fn less(&mut self, bytes: &[Byte], value: &[u8]) -> (PacketSet, PacketSet) {
        let (mut less, mut equal) = (PacketSet::NONE, PacketSet::ALL);
        let mut at = 0;
        for run in runs(bytes) {
            let length = match run {
                Run::Field { bytes, .. } => bytes,
                Run::Known(_) | Run::One(_) => 1,
            };
            let part = &value[at..at + length];
            let (run_less, run_equal) = match run {
                Run::Known(known) => (truth(known < part[0]), truth(known == part[0])),
                Run::Field { field, shift, bytes } => self.field_less(field, shift, bytes, part),
                Run::One(byte) => self.byte_less(byte, part[0]),
            };
            let here = self.sets.and(equal, run_less);
            less = self.sets.or(less, here);
            equal = self.sets.and(equal, run_equal);
            if equal.is_empty() {
                break;
            }
            at += length;
        }
        (less, equal)
    }

    fn field_less(
        &mut self,
        field: Field,
        shift: u32,
        bytes: usize,
        value: &[u8],
    ) -> (PacketSet, PacketSet) {
        let bound = value.iter().fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
        let width = 8 * bytes as u32;
        let mask = ones(width) << shift;
        let above = self.bits(field).saturating_sub(shift + width);
        let equal = self.masked(field, mask, bound << shift);
        if bound == 0 {
            return (PacketSet::NONE, equal);
        }
        if 1_u32.checked_shl(above).is_none_or(|count| count > MAX_INTERVALS) {
            let what = format!("{field:?} >> {shift} < {bound}");
            return (self.limit_reached(what), equal);
        }
        // One interval for each value of the bits above.
        let ranges: Vec<_> = (0..1_u128 << above)
            .map(|high| {
                let base = if above == 0 { 0 } else { high << (shift + width) };
                (base, base | (((bound - 1) << shift) | ones(shift)))
            })
            .collect();
        let less = self.ranges(field, &ranges);
        (less, equal)
    }

    fn byte_less(&mut self, byte: Byte, value: u8) -> (PacketSet, PacketSet) {
        let equal = self.equal(&[byte], &[value]);
        let mut less = PacketSet::NONE;
        if byte == Byte::Unknown {
            return (self.not_modelled(format!("{byte:?} < {value}")), equal);
        }
        for smaller in 0..value {
            let set = self.equal(&[byte], &[smaller]);
            less = self.sets.or(less, set);
        }
        (less, equal)
    }

    /// Packets whose field has these bits.
    pub(crate) fn masked(&mut self, field: Field, mask: u128, wanted: u128) -> PacketSet {
        if field == Field::Source {
            return self.source_masked(mask, wanted);
        }
        match masked_ranges(self.bits(field), mask, wanted) {
            Some(ranges) => self.ranges(field, &ranges),
            None => self.limit_reached(format!("{field:?} & {mask:x} = {wanted:x}")),
        }
    }

    /// Packets whose field has one of these values.
    pub(crate) fn ranges(&mut self, field: Field, ranges: &[(u128, u128)]) -> PacketSet {
        match field {
            Field::Unknown(number) => self.unknowns.variable(number).within(self.sets, ranges),
            Field::L4proto
            | Field::Iif
            | Field::DestinationPort
            | Field::Destination
            | Field::Source
            | Field::SourcePort => self.sets.ranges(field, ranges),
        }
    }

    fn bits(&self, field: Field) -> u32 {
        let last = match field {
            Field::Unknown(number) => self.unknowns.variable(number).high,
            Field::L4proto
            | Field::Iif
            | Field::DestinationPort
            | Field::Destination
            | Field::Source
            | Field::SourcePort => field.last(self.sets.family()),
        };
        u128::BITS - last.leading_zeros()
    }

    /// A test of this field that would come to too many intervals.
    fn limit_reached(&mut self, what: String) -> PacketSet {
        let cause = Cause { reason: UnknownReason::LimitReached, subject: Some(self.subject) };
        let variable = self.unknowns.same(Sameness::Machine(what), cause, 0, 1);
        Unknowns::happens(self.sets, variable)
    }

    /// A test of bytes of which nothing is known: each is a thing of its own.
    fn not_modelled(&mut self, _what: String) -> PacketSet {
        let cause = Cause { reason: UnknownReason::NotModelled, subject: Some(self.subject) };
        let variable = self.unknowns.fresh(cause, 0, 1);
        Unknowns::happens(self.sets, variable)
    }
}

const fn truth(holds: bool) -> PacketSet {
    if holds { PacketSet::ALL } else { PacketSet::NONE }
}

const fn ones(bits: u32) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

/// The mask and the wanted bits of a byte, where they stand in the field. `None`: no value has them.
const fn placed(shift: i8, mask: u8, wanted: u8) -> Option<(u128, u128)> {
    if shift >= 0 {
        return Some(((mask as u128) << shift, (wanted as u128) << shift));
    }
    let left = shift.unsigned_abs() as u32;
    // Bits below come from nowhere: they are 0.
    if wanted & (ones(left) as u8) != 0 {
        return None;
    }
    Some(((mask >> left) as u128, (wanted >> left) as u128))
}

fn runs(bytes: &[Byte]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for byte in bytes {
        match *byte {
            Byte::Is(value) => runs.push(Run::Known(value)),
            Byte::Of { field, shift, mask: 0xff, flip: 0 } if shift >= 0 => {
                let shift = u32::from(shift.unsigned_abs());
                match runs.last_mut() {
                    Some(Run::Field { field: known, shift: low, bytes })
                        if *known == field && shift + 8 == *low =>
                    {
                        *low = shift;
                        *bytes += 1;
                    }
                    _ => runs.push(Run::Field { field, shift, bytes: 1 }),
                }
            }
            other @ (Byte::Of { .. } | Byte::Unknown) => runs.push(Run::One(other)),
        }
    }
    runs
}

/// The values of so many bits that have the wanted ones under a mask; `None` where that are too many
/// intervals.
pub(crate) fn masked_ranges(bits: u32, mask: u128, wanted: u128) -> Option<Vec<(u128, u128)>> {
    let all = ones(bits);
    if wanted & !mask != 0 || wanted & !all != 0 {
        return Some(Vec::new());
    }
    let mask = mask & all;
    let low = ones(mask.trailing_zeros().min(bits));
    let free = all & !mask & !low;
    if 1_u32.checked_shl(free.count_ones()).is_none_or(|count| count > MAX_INTERVALS) {
        return None;
    }
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    let mut chosen = 0_u128;
    loop {
        ranges.push((wanted | chosen, wanted | chosen | low));
        // The next subset of the free bits, in ascending order.
        chosen = chosen.wrapping_sub(free) & free;
        if chosen == 0 {
            return Some(ranges);
        }
    }
}
