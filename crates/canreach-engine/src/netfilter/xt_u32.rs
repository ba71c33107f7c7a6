//! The u32 match of xtables: words of a packet, masked and shifted, each within some ranges.
//!
//! *Kernel:* `u32_match_it` (net/netfilter/xt_u32.c). Left out: an offset that is itself the sender's to
//! decide, shifts that cut a word the sender decides at a bit that begins no byte.

use canreach_snapshot::nft::expr::{BitwiseOp, PayloadBase, Register};

use crate::NfSubject;
use crate::netfilter::chain::Evaluation;
use crate::netfilter::header::load;
use crate::netfilter::register::{Byte, Registers};
use crate::netfilter::unknown::Unknowns;
use crate::netfilter::view::View;
use crate::packet::packet_set::PacketSet;

/// The layout of `struct xt_u32`: tests of so many bytes, each with eleven locations, eleven ranges,
/// and how many there are of both; then how many tests, and whether the whole is inverted.
mod layout {
    pub(super) const ELEMENTS: usize = 11;
    pub(super) const TEST: usize = 180;
    pub(super) const RANGES: usize = 88;
    pub(super) const LOCATION_COUNT: usize = 176;
    pub(super) const RANGE_COUNT: usize = 177;
    pub(super) const TEST_COUNT: usize = ELEMENTS * TEST;
    pub(super) const INVERTED: usize = TEST_COUNT + 1;
}

/// `XT_U32_*`.
mod operator {
    pub(super) const AND: u8 = 0;
    pub(super) const LEFT: u8 = 1;
    pub(super) const RIGHT: u8 = 2;
}

/// A word of the packet, in network order, and the packets that have it.
struct Word {
    bytes: Vec<Byte>,
    there: PacketSet,
}

impl Evaluation<'_, '_, '_> {
    /// Packets that the match matches; `None` where that cannot be said.
    pub(crate) fn u32_match(
        &mut self,
        subject: NfSubject,
        view: &View,
        raw: &[u8],
    ) -> Option<PacketSet> {
        let tests = usize::from(*raw.get(layout::TEST_COUNT)?);
        let inverted = *raw.get(layout::INVERTED)? != 0;
        let mut set = PacketSet::ALL;
        for test in raw.chunks_exact(layout::TEST).take(tests.min(layout::ELEMENTS)) {
            let holds = self.u32_test(subject, view, test)?;
            set = self.sets.and(set, holds);
        }
        Some(self.invert(set, inverted))
    }

    fn u32_test(&mut self, subject: NfSubject, view: &View, test: &[u8]) -> Option<PacketSet> {
        let locations = usize::from(test[layout::LOCATION_COUNT]).min(layout::ELEMENTS);
        let mut at = 0_u32;
        let mut word = self.u32_load(subject, view, number(test, 0)?);
        for location in 1..locations {
            let operand = number(test, location * 8)?;
            word.bytes = match *test.get(location * 8 + 4)? {
                operator::AND => masked(&word.bytes, operand),
                operator::LEFT => moved(&word.bytes, &BitwiseOp::Lshift(operand))?,
                operator::RIGHT => moved(&word.bytes, &BitwiseOp::Rshift(operand))?,
                _ => {
                    let known: Option<Vec<u8>> = word.bytes.iter().map(|b| b.known()).collect();
                    let by = u32::from_be_bytes(known?.try_into().ok()?);
                    at = at.checked_add(by)?;
                    let next = self.u32_load(subject, view, at.checked_add(operand)?);
                    let there = self.sets.and(word.there, next.there);
                    word = Word { there, ..next };
                    continue;
                }
            };
        }
        if word.bytes.contains(&Byte::Unknown) {
            return None;
        }
        let ranges = usize::from(test[layout::RANGE_COUNT]).min(layout::ELEMENTS);
        let mut any = PacketSet::NONE;
        for range in 0..ranges {
            let low = number(test, layout::RANGES + range * 8)?.to_be_bytes();
            let high = number(test, layout::RANGES + range * 8 + 4)?.to_be_bytes();
            if low <= high {
                let within = self.tester(subject).between(&word.bytes, &low, &high);
                any = self.sets.or(any, within);
            }
        }
        Some(self.sets.and(any, word.there))
    }

    fn u32_load(&mut self, subject: NfSubject, view: &View, at: u32) -> Word {
        let loaded = load(view, self.unknowns, subject, PayloadBase::Network, (at, 4));
        let there = loaded.present.map(|variable| Unknowns::happens(self.sets, variable));
        Word { bytes: loaded.bytes, there: there.unwrap_or(PacketSet::ALL) }
    }
}

fn number(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(raw.get(at..at + 4)?.try_into().ok()?))
}

fn masked(bytes: &[Byte], mask: u32) -> Vec<Byte> {
    bytes.iter().zip(mask.to_be_bytes()).map(|(byte, bits)| byte.and(bits)).collect()
}

/// Shifts a word. `None` for more bits than it has, where machines differ.
fn moved(bytes: &[Byte], op: &BitwiseOp) -> Option<Vec<Byte>> {
    if !matches!(op, BitwiseOp::Lshift(0..32) | BitwiseOp::Rshift(0..32)) {
        return None;
    }
    let mut registers = Registers::default();
    let register = Register(0);
    // Registers shift words in host order.
    let turned: Vec<Byte> = bytes.iter().rev().copied().collect();
    registers.write(register, &turned);
    registers.bitwise((register, register), 4, op);
    Some(registers.bytes(register, 4).iter().rev().copied().collect())
}
