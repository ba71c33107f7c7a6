//! Sources under a mask that is no prefix: so many intervals that they are told apart only where it
//! counts.
//!
//! A mask of few low bits holds for a part of each small network. For all sources that is more than a
//! set can have. Then it is exact for the sources that are asked about, or at least for those behind
//! this machine's own links, and unknown for the others.

use crate::UnknownReason;
use crate::netfilter::register::{Tester, masked_ranges};
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::packet::address_set::AddressSet;
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;

/// The most intervals that one test comes to.
const MAX_INTERVALS: usize = 1 << 14;

impl Tester<'_, '_> {
    /// Packets whose client's address has these bits under a mask.
    pub(crate) fn source_masked(&mut self, mask: u128, wanted: u128) -> PacketSet {
        let family = self.sets.family();
        let bits = u32::from(family.bits());
        if let Some(ranges) = masked_ranges(bits, mask, wanted) {
            return self.sets.ranges(Field::Source, &ranges);
        }
        let asked = self.sets.sources(self.sets.universe());
        let mut found = Vec::new();
        if asked.ranges().iter().all(|range| add_within(&mut found, bits, (mask, wanted), *range)) {
            return self.sets.ranges(Field::Source, &joined(found));
        }
        let links = &self.host.netns().links;
        let near = links.iter().flat_map(|link| self.host.on_link(link.ifindex));
        let near = AddressSet::from_prefixes(
            family,
            near.copied().filter(|prefix| prefix.family() == family),
        );
        let (mut found, mut judged) = (Vec::new(), Vec::new());
        for range in near.ranges() {
            let before = found.len();
            if add_within(&mut found, bits, (mask, wanted), *range) {
                judged.push(*range);
            } else {
                found.truncate(before);
            }
        }
        let exact = self.sets.ranges(Field::Source, &joined(found));
        let judged = self.sets.ranges(Field::Source, &judged);
        let cause = Cause { reason: UnknownReason::LimitReached, subject: Some(self.subject) };
        let same = Sameness::Machine(format!("source & {mask:x} = {wanted:x}"));
        let variable = self.unknowns.same(same, cause, 0, 1);
        let perhaps = Unknowns::happens(self.sets, variable);
        let perhaps = self.sets.difference(perhaps, judged);
        self.sets.or(exact, perhaps)
    }
}

/// Adds the intervals of a range whose values have the wanted bits; `false` where there are too many.
fn add_within(
    found: &mut Vec<(u128, u128)>,
    bits: u32,
    (mask, wanted): (u128, u128),
    (low, high): (u128, u128),
) -> bool {
    // Bits below the mask are free: so many neighbours match alike.
    let run = if mask == 0 { u128::MAX } else { (1 << mask.trailing_zeros()) - 1 };
    let mut next = next_match(low, bits, mask, wanted);
    while let Some(value) = next.filter(|value| *value <= high) {
        if found.len() >= MAX_INTERVALS {
            return false;
        }
        let last = (value | run).min(high);
        found.push((value, last));
        next = last.checked_add(1).and_then(|from| next_match(from, bits, mask, wanted));
    }
    true
}

/// The lowest value of so many bits, not below this one, that has the wanted bits.
fn next_match(from: u128, bits: u32, mask: u128, wanted: u128) -> Option<u128> {
    let ones = |count: u32| if count >= 128 { u128::MAX } else { (1 << count) - 1 };
    if from & !ones(bits) != 0 {
        return None;
    }
    let differ = (from ^ wanted) & mask;
    if differ == 0 {
        return Some(from);
    }
    let highest = 127 - differ.leading_zeros();
    if wanted >> highest & 1 == 1 {
        return Some((from & !ones(highest + 1)) | (wanted & ones(highest + 1)));
    }
    // A free bit above has to become one.
    let free = !mask & !from & !ones(highest + 1) & ones(bits);
    if free == 0 {
        return None;
    }
    let carry = free.trailing_zeros();
    Some((from & !ones(carry + 1)) | (1 << carry) | (wanted & ones(carry)))
}

/// Neighbours as one.
fn joined(ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match joined.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(low) => *last = high,
            _ => joined.push((low, high)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_value_with_these_bits() {
        for bits in [5, 6] {
            for mask in 0..1_u128 << bits {
                let wanted = 0b1_0110_1101 & mask;
                for from in 0..=(1_u128 << bits) {
                    let slow = (from..1 << bits).find(|value| value & mask == wanted);
                    assert_eq!(next_match(from, bits, mask, wanted), slow, "{from} {mask:b}");
                }
            }
        }
    }

    #[test]
    fn intervals_of_a_range() {
        let mut found = Vec::new();
        assert!(add_within(&mut found, 32, (0b101, 0b100), (0, 17)));
        assert_eq!(found, [(4, 4), (6, 6), (12, 12), (14, 14)]);
        let mut found = Vec::new();
        assert!(add_within(&mut found, 32, (0b10100, 0b100), (6, 100)));
        assert_eq!(
            joined(found),
            [(6, 7), (12, 15), (36, 39), (44, 47), (68, 71), (76, 79), (100, 100)]
        );
        let mut found = Vec::new();
        assert!(!add_within(&mut found, 32, (0b101, 0b100), (0, u128::from(u32::MAX))));
    }
}
