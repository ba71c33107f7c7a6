//! A set of packets: a handle into a [`Diagram`], and what the stages ask of sets.

use canreach_snapshot::Port;

use crate::AddressSet;
use crate::packet::diagram::Diagram;
use crate::packet::field::Field;

/// A set of packets. Two handles of one diagram are equal exactly if the sets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketSet(u32);

impl PacketSet {
    /// No packet.
    pub const NONE: Self = Self(0);
    /// Every packet.
    pub const ALL: Self = Self(1);

    /// Holds no packet.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn is_inner(self) -> bool {
        self.0 > 1
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize - 2
    }

    pub(crate) const fn from_index(index: usize) -> Self {
        // A diagram has at most `MAX_NODES` nodes, so this fits.
        Self(index as u32 + 2)
    }
}

/// Sources, and the source ports it holds for: `None` for every port.
pub type SourcesAndPorts = (AddressSet, Option<Vec<(u16, u16)>>);

impl Diagram {
    /// Packets from these sources.
    pub fn from_sources(&mut self, sources: &AddressSet) -> PacketSet {
        if sources.family() == self.family() {
            self.ranges(Field::Source, sources.ranges())
        } else {
            PacketSet::NONE
        }
    }

    /// Packets from this closed range of source ports.
    pub fn from_ports(&mut self, low: Port, high: Port) -> PacketSet {
        if low > high {
            return PacketSet::NONE;
        }
        self.ranges(Field::SourcePort, &[(u128::from(low.0), u128::from(high.0))])
    }

    /// Those for which a thing that cannot be judged happens.
    pub fn unknown(&mut self, number: u16) -> PacketSet {
        self.ranges(Field::Unknown(number), &[(1, u128::MAX)])
    }

    /// Packets that are in the set whatever the unknowns turn out to be.
    pub fn must(&mut self, set: PacketSet) -> PacketSet {
        self.unknowns_of(set).into_iter().fold(set, |set, field| self.forall(field, set))
    }

    /// Packets that are in the set if the unknowns turn out well.
    pub fn may(&mut self, set: PacketSet) -> PacketSet {
        self.unknowns_of(set).into_iter().fold(set, |set, field| self.exists(field, set))
    }

    fn unknowns_of(&self, set: PacketSet) -> Vec<Field> {
        let unknown = |field: &Field| matches!(field, Field::Unknown(_));
        self.support(set).into_iter().filter(unknown).collect()
    }

    /// Reads a set that depends on source and source port alone: disjoint sources, each with the
    /// ports it holds for. Sources for which every port is in the set come first.
    #[must_use]
    pub fn read(&self, set: PacketSet) -> Vec<SourcesAndPorts> {
        let family = self.family();
        let all = AddressSet::all(family);
        let Some((field, intervals)) = self.intervals(set) else {
            return if set.is_empty() { Vec::new() } else { vec![(all, None)] };
        };
        if field != Field::Source {
            return vec![(all, Some(self.read_ports(set)))];
        }
        let mut children: Vec<(PacketSet, Vec<(u128, u128)>)> = Vec::new();
        for (low, high, child) in intervals {
            match children.iter_mut().find(|(known, _)| *known == child) {
                Some((_, ranges)) => ranges.push((low, high)),
                None if child.is_empty() => {}
                None => children.push((child, vec![(low, high)])),
            }
        }
        children.sort_by_key(|(child, ranges)| (*child != PacketSet::ALL, ranges[0]));
        children
            .into_iter()
            .map(|(child, ranges)| {
                let ports = (child != PacketSet::ALL).then(|| self.read_ports(child));
                (AddressSet::from_ranges(family, ranges), ports)
            })
            .collect()
    }

    fn read_ports(&self, set: PacketSet) -> Vec<(u16, u16)> {
        let Some((_, intervals)) = self.intervals(set) else { return Vec::new() };
        intervals
            .into_iter()
            .filter(|(_, _, child)| !child.is_empty())
            .map(|(low, high, _)| (low as u16, high as u16))
            .collect()
    }

    /// The lowest and the highest source of a set; `None` for the empty set.
    #[must_use]
    pub fn source_bounds(&self, set: PacketSet) -> Option<(u128, u128)> {
        let all = (0, Field::Source.last(self.family()));
        match self.intervals(set) {
            None => (!set.is_empty()).then_some(all),
            Some((Field::Source, intervals)) => {
                let mut held = intervals.iter().filter(|(_, _, child)| !child.is_empty());
                let (low, high, _) = held.next()?;
                Some((*low, held.next_back().map_or(*high, |(_, last, _)| *last)))
            }
            Some(_) => Some(all),
        }
    }

    /// The sources for which at least one port is in the set.
    #[must_use]
    pub fn sources(&self, set: PacketSet) -> AddressSet {
        let none = AddressSet::empty(self.family());
        self.read(set).iter().fold(none, |sum, (sources, _)| sum.union(sources))
    }
}
