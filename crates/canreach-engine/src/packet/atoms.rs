//! Classes of values that nothing tells apart: two values are of one class exactly if every predicate
//! says the same of both.
//!
//! One sweep over the ends of all intervals finds them. A diagram over classes instead of values has
//! as many edges as there are classes, however many intervals the predicates have. Left out: masks
//! that are no prefix.

use std::collections::BTreeMap;

/// Closed intervals, ascending, disjoint and not adjacent: the values a predicate holds for.
pub type Ranges = Vec<(u128, u128)>;

/// The classes of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The elementary intervals, ascending, each with its class.
    elementary: Vec<(u128, u128, u32)>,
    count: u32,
}

/// How often the sweep is tried with other constants before every interval becomes its own class.
const MAX_ATTEMPTS: u64 = 8;

impl Classes {
    /// Finds the classes of the values from 0 to `last`.
    #[must_use]
    pub fn sweep(last: u128, predicates: &[Ranges]) -> Self {
        (0..MAX_ATTEMPTS)
            .map(|attempt| Self::attempt(last, predicates, attempt))
            .find(|classes| predicates.iter().all(|ranges| classes.holds_exactly(ranges)))
            .unwrap_or_else(|| Self::one_by_one(last, predicates))
    }

    /// How many classes there are; they are numbered from 0 in the order of their first values.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The class of a value.
    #[must_use]
    pub fn of(&self, value: u128) -> u32 {
        let after = self.elementary.partition_point(|(low, ..)| *low <= value);
        // The first interval starts at 0, so there is one at or before every value.
        self.elementary[after.saturating_sub(1)].2
    }

    /// The values of each class, neighbours merged.
    #[must_use]
    pub fn members(&self) -> Vec<Ranges> {
        let mut members = vec![Ranges::new(); self.count as usize];
        for (low, high, class) in &self.elementary {
            let ranges = &mut members[*class as usize];
            match ranges.last_mut().filter(|last| last.1 + 1 == *low) {
                Some(last) => last.1 = *high,
                None => ranges.push((*low, *high)),
            }
        }
        members
    }

    /// The classes that make up a predicate that was swept, as closed ranges of class numbers.
    #[must_use]
    pub fn classes_in(&self, ranges: &Ranges) -> Ranges {
        let mut classes: Vec<u32> = self.inside(ranges).map(|(.., class)| *class).collect();
        classes.sort_unstable();
        classes.dedup();
        let mut runs = Ranges::new();
        for class in classes.into_iter().map(u128::from) {
            match runs.last_mut().filter(|run| run.1 + 1 == class) {
                Some(run) => run.1 = class,
                None => runs.push((class, class)),
            }
        }
        runs
    }

    /// The first and the last value of every elementary interval: a complete set of examples, with
    /// the borders where one-off errors hide.
    #[must_use]
    pub fn borders(&self) -> Vec<u128> {
        let mut borders: Vec<_> =
            self.elementary.iter().flat_map(|(low, high, _)| [*low, *high]).collect();
        borders.dedup();
        borders
    }

    fn attempt(last: u128, predicates: &[Ranges], attempt: u64) -> Self {
        let mut events: BTreeMap<u128, u128> = BTreeMap::from([(0, 0)]);
        for (number, ranges) in predicates.iter().enumerate() {
            let constant = constant(attempt, number as u64);
            for (low, high) in ranges {
                *events.entry(*low).or_default() ^= constant;
                // An end at the last value has nothing behind it, and would overflow.
                if *high < last {
                    *events.entry(high + 1).or_default() ^= constant;
                }
            }
        }
        let starts: Vec<u128> = events.keys().copied().collect();
        let mut numbers: BTreeMap<u128, u32> = BTreeMap::new();
        let mut signature = 0;
        let mut elementary = Vec::with_capacity(starts.len());
        for (index, (low, event)) in events.into_iter().enumerate() {
            signature ^= event;
            let next = numbers.len() as u32;
            let class = *numbers.entry(signature).or_insert(next);
            let high = starts.get(index + 1).map_or(last, |next| next - 1);
            elementary.push((low, high, class));
        }
        Self { elementary, count: numbers.len() as u32 }
    }

    /// Whether the classes inside a predicate hold nothing outside: two signatures that collide would
    /// make one class of values that differ.
    fn holds_exactly(&self, ranges: &Ranges) -> bool {
        let mut inside = vec![false; self.count as usize];
        for (.., class) in self.inside(ranges) {
            inside[*class as usize] = true;
        }
        let of_classes =
            self.elementary.iter().filter(|(.., class)| inside[*class as usize]).count();
        of_classes == self.inside(ranges).count()
    }

    fn inside<'c>(&'c self, ranges: &'c Ranges) -> impl Iterator<Item = &'c (u128, u128, u32)> {
        ranges.iter().flat_map(|(low, high)| {
            let start = self.elementary.partition_point(|(first, ..)| first < low);
            self.elementary[start..].iter().take_while(move |(first, ..)| first <= high)
        })
    }

    /// Every elementary interval its own class: right whatever the constants.
    fn one_by_one(last: u128, predicates: &[Ranges]) -> Self {
        let mut classes = Self::attempt(last, predicates, 0);
        for (number, entry) in classes.elementary.iter_mut().enumerate() {
            entry.2 = number as u32;
        }
        classes.count = classes.elementary.len() as u32;
        classes
    }
}

/// A constant for a predicate: two words of the splitmix64 sequence. It only has to look random; the
/// check after the sweep is what makes the result exact.
const fn constant(attempt: u64, number: u64) -> u128 {
    let seed = attempt.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(number.wrapping_mul(2));
    ((mix(seed) as u128) << 64) | mix(seed.wrapping_add(1)) as u128
}

const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ranges from any pairs, as predicates have them: sorted, disjoint, not adjacent.
    fn normal(pairs: &[(u8, u8)]) -> Ranges {
        let ranges = pairs.iter().map(|(a, b)| (u128::from(*a.min(b)), u128::from(*a.max(b))));
        let set = crate::AddressSet::from_ranges(canreach_snapshot::Family::Ipv4, ranges);
        set.ranges().to_vec()
    }

    fn holds(ranges: &Ranges, value: u128) -> bool {
        ranges.iter().any(|(low, high)| (*low..=*high).contains(&value))
    }

    fn check(last: u128, predicates: &[Ranges]) -> Classes {
        let classes = Classes::sweep(last, predicates);
        let verdicts =
            |value| -> Vec<bool> { predicates.iter().map(|ranges| holds(ranges, value)).collect() };
        for a in 0..=last {
            for b in a..=last {
                let alike = verdicts(a) == verdicts(b);
                assert_eq!(classes.of(a) == classes.of(b), alike, "{a} and {b}");
            }
        }
        classes
    }

    proptest! {
        #[test]
        fn one_class_exactly_for_values_that_no_predicate_tells_apart(
            predicates in prop::collection::vec(
                prop::collection::vec((0_u8..=63, 0_u8..=63), 0..5), 0..6)
        ) {
            let predicates: Vec<_> = predicates.iter().map(|pairs| normal(pairs)).collect();
            let classes = check(63, &predicates);
            // The members of the classes inside a predicate are the predicate.
            for ranges in &predicates {
                let inside = classes.classes_in(ranges);
                for value in 0..=63 {
                    let class = u128::from(classes.of(value));
                    prop_assert_eq!(holds(&inside, class), holds(ranges, value));
                }
            }
            let members = classes.members();
            prop_assert_eq!(members.iter().flatten().map(|(low, high)| high - low + 1).sum::<u128>(), 64);
        }
    }

    #[test]
    fn the_ends_of_the_largest_field_are_values_like_others() {
        let predicates = [vec![(0, 0)], vec![(u128::MAX, u128::MAX)], vec![(0, u128::MAX)]];
        let classes = Classes::sweep(u128::MAX, &predicates);
        assert_eq!(classes.count(), 3);
        assert_eq!(classes.borders(), [0, 1, u128::MAX - 1, u128::MAX]);
        assert_ne!(classes.of(0), classes.of(u128::MAX));
        assert_eq!(classes.of(1), classes.of(u128::MAX - 1));
    }

    #[test]
    fn when_constants_fail_every_interval_stands_alone() {
        let predicates = [vec![(2, 3), (6, 7)]];
        assert_eq!(Classes::sweep(9, &predicates).count(), 2);
        let alone = Classes::one_by_one(9, &predicates);
        assert_eq!(alone.count(), 5);
        assert!(alone.holds_exactly(&predicates[0]));
    }
}
