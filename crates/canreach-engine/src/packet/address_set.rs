//! Sets of addresses of one family: sorted, disjoint, non-adjacent closed ranges.
//!
//! Closed on both ends, because a half-open end would overflow at the last IPv6 address.

use std::fmt;
use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{Family, Prefix};

/// A set of addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressSet {
    family: Family,
    ranges: Vec<(u128, u128)>,
}

impl AddressSet {
    /// No address.
    #[must_use]
    pub const fn empty(family: Family) -> Self {
        Self { family, ranges: Vec::new() }
    }

    /// Every address of a family.
    #[must_use]
    pub fn all(family: Family) -> Self {
        Self { family, ranges: vec![Prefix::all(family).range()] }
    }

    /// The union of prefixes. Those of the other family are left out.
    #[must_use]
    pub fn from_prefixes(family: Family, prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let of_family = prefixes.into_iter().filter(|prefix| prefix.family() == family);
        Self::from_ranges(family, of_family.map(Prefix::range))
    }

    /// The union of closed ranges, in any order. A range whose ends are swapped holds nothing.
    #[must_use]
    pub fn from_ranges(family: Family, ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|(low, high)| low <= high).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(sorted.len());
        for (low, high) in sorted {
            match merged.last_mut() {
                // Touching ranges merge too; the addition cannot overflow below an open end.
                Some(last) if last.1 == u128::MAX || low <= last.1 + 1 => {
                    last.1 = last.1.max(high);
                }
                _ => merged.push((low, high)),
            }
        }
        Self { family, ranges: merged }
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Holds no address.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The closed ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.ranges
    }

    /// Whether an address is in it. Never one of the other family.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let value = address_value(address);
        let after = self.ranges.partition_point(|(low, _)| *low <= value);
        Family::of(address) == self.family
            && after.checked_sub(1).is_some_and(|index| value <= self.ranges[index].1)
    }

    /// Addresses in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.family, self.ranges.iter().chain(&other.ranges).copied())
    }

    /// Addresses in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut left, mut right) = (0, 0);
        while let (Some(a), Some(b)) = (self.ranges.get(left), other.ranges.get(right)) {
            if a.0.max(b.0) <= a.1.min(b.1) {
                ranges.push((a.0.max(b.0), a.1.min(b.1)));
            }
            if a.1 < b.1 { left += 1 } else { right += 1 }
        }
        Self { family: self.family, ranges }
    }

    /// Addresses in this one that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    /// Addresses of the family that are not in it.
    #[must_use]
    pub fn complement(&self) -> Self {
        let (first, last) = Prefix::all(self.family).range();
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut next = Some(first);
        for (low, high) in &self.ranges {
            if let Some(start) = next.filter(|start| start < low) {
                ranges.push((start, low - 1));
            }
            next = if *high == last { None } else { Some(high + 1) };
        }
        ranges.extend(next.map(|start| (start, last)));
        Self { family: self.family, ranges }
    }

    /// The set with addresses added or left out that nobody has, so that it is short to say: holes
    /// are filled, and what nobody has is not named by itself. A set of nothing else stays as it is.
    #[must_use]
    pub fn filled_up(&self, nobodys: &Self) -> Self {
        let sendable = self.difference(nobodys);
        if sendable.is_empty() {
            return self.clone();
        }
        let filled = sendable.union(nobodys).to_prefixes().into_iter().filter(|prefix| {
            let (low, high) = prefix.range();
            // The first range that does not end before the prefix starts.
            let at = sendable.ranges.partition_point(|(_, last)| *last < low);
            sendable.ranges.get(at).is_some_and(|(first, _)| *first <= high)
        });
        Self::from_prefixes(self.family, filled)
    }

    /// The fewest prefixes that make up the set, ascending.
    #[must_use]
    pub fn to_prefixes(&self) -> Vec<Prefix> {
        let mut prefixes = Vec::new();
        for (low, high) in &self.ranges {
            let mut start = *low;
            loop {
                // The largest block that starts here: limited by alignment, then by what is left.
                let bits = self.family.bits();
                let aligned = (start.trailing_zeros().min(u32::from(bits))) as u8;
                let left = (high - start).checked_add(1).map_or(128, |count| count.ilog2() as u8);
                let host_bits = aligned.min(left);
                prefixes.extend(Prefix::new(self.family.address(start), bits - host_bits));
                let size_less_one = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
                if high - start <= size_less_one {
                    break;
                }
                start += size_less_one + 1;
            }
        }
        prefixes
    }
}

impl fmt::Display for AddressSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: Vec<_> = self.to_prefixes().iter().map(Prefix::to_string).collect();
        formatter.write_str(&prefixes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> AddressSet {
        let prefixes: Vec<Prefix> =
            text.split_whitespace().map(|word| word.parse().expect(word)).collect();
        let family = prefixes.first().map_or(Family::Ipv4, |prefix| prefix.family());
        AddressSet::from_prefixes(family, prefixes)
    }

    #[test]
    fn the_fewest_prefixes() {
        let check = |given: &str, expected: &str| assert_eq!(set(given).to_string(), expected);
        check("10.0.0.0/25 10.0.0.128/25", "10.0.0.0/24");
        check("10.0.0.1 10.0.0.2 10.0.0.3", "10.0.0.1/32, 10.0.0.2/31");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("::/0", "::/0");
        check("::/1 8000::/1", "::/0");
        check("255.255.255.255", "255.255.255.255/32");
        check(
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        );
    }

    #[test]
    fn filled_up_with_what_nobody_has() {
        let nobodys = set("192.168.1.20 192.168.1.255 127.0.0.0/8 0.0.0.0/8");
        let check = |given: &AddressSet, expected: &str| {
            assert_eq!(given.filled_up(&nobodys).to_string(), expected);
        };
        check(&set("192.168.1.0/24").difference(&nobodys), "192.168.1.0/24");
        check(&set("0.0.0.0/0").difference(&nobodys), "0.0.0.0/0");
        check(&set("192.168.1.20"), "192.168.1.20/32");
        check(&set("10.0.0.0/8"), "10.0.0.0/8");
    }

    #[test]
    fn algebra_at_the_ends_of_the_space() {
        for all in [AddressSet::all(Family::Ipv4), AddressSet::all(Family::Ipv6)] {
            let none = AddressSet::empty(all.family());
            assert_eq!(all.complement(), none);
            assert_eq!(none.complement(), all);
            assert_eq!(all.difference(&all), none);
        }
        let hole = set("192.168.1.0/24").difference(&set("192.168.1.20"));
        assert!(!hole.contains("192.168.1.20".parse().unwrap()));
        assert!(hole.contains("192.168.1.19".parse().unwrap()));
        assert!(hole.contains("192.168.1.21".parse().unwrap()));
        assert_eq!(hole.union(&set("192.168.1.20")), set("192.168.1.0/24"));
        assert_eq!(hole.complement().complement(), hole);
    }
}
