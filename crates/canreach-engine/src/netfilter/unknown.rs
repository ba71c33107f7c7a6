//! What rules depend on and nobody can tell from here: variables of the diagram, each with its cause.
//!
//! A variable has as many values as the thing can have: two for "it matches", 256 for a hop count, n for
//! a choice among n. So rules that compare one quantity with several numbers stay exact among each
//! other. Left out: dependence between quantities (the lengths of IP and of UDP).

use canreach_snapshot::nft::expr::PayloadBase;

use crate::netfilter::view::{Turn, View};
use crate::packet::diagram::{Diagram, FixedMap};
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::{NfSubject, UnknownReason};

/// The most unknowns of one question; with more, nothing is told.
const MAX_UNKNOWNS: u16 = 8192;

/// Why something is unknown, and which rule asks for it: the first one, where several share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cause {
    pub(crate) reason: UnknownReason,
    pub(crate) subject: Option<NfSubject>,
}

/// A variable: its number, and the lowest and highest value it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Variable {
    pub(crate) number: u16,
    pub(crate) low: u128,
    pub(crate) high: u128,
}

/// What makes two unknowns the same: they are asked of the same packet, and say the same of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Sameness {
    /// A byte, or some bytes as one number, of a header or of what it carries.
    Header(Turn, PayloadBase, u32),
    /// Something else about a packet that does not change on its way.
    Packet(Turn, String),
    /// Something about a packet as it is here.
    Here(Box<View>, String),
    /// Something about the machine that stays as it is while one packet passes.
    Machine(String),
}

/// The unknowns of one question.
#[derive(Debug, Default)]
pub(crate) struct Unknowns {
    causes: Vec<(Cause, Variable)>,
    known: FixedMap<Sameness, Variable>,
    breached: bool,
}

impl Unknowns {
    /// How many there are: their numbers are below this.
    pub(crate) const fn count(&self) -> usize {
        self.causes.len()
    }

    /// Why a variable is unknown.
    pub(crate) fn cause(&self, number: u16) -> Option<Cause> {
        self.causes.get(usize::from(number)).map(|(cause, _)| *cause)
    }

    /// A variable by its number.
    pub(crate) fn variable(&self, number: u16) -> Variable {
        let known = self.causes.get(usize::from(number));
        known.map_or(Variable { number, low: 0, high: u128::MAX }, |(_, variable)| *variable)
    }

    /// Whether there were too many: no answer may rest on the sets then.
    pub(crate) const fn is_breached(&self) -> bool {
        self.breached
    }

    /// Nothing may rest on the sets any more.
    pub(crate) const fn breach(&mut self) {
        self.breached = true;
    }

    /// A variable of its own: asked twice, it may answer differently.
    pub(crate) fn fresh(&mut self, cause: Cause, low: u128, high: u128) -> Variable {
        let number = self.causes.len() as u16;
        if number >= MAX_UNKNOWNS {
            self.breached = true;
            return Variable { number: MAX_UNKNOWNS, low, high };
        }
        let variable = Variable { number, low, high };
        self.causes.push((cause, variable));
        variable
    }

    /// The one variable for this.
    pub(crate) fn same(
        &mut self,
        sameness: Sameness,
        cause: Cause,
        low: u128,
        high: u128,
    ) -> Variable {
        if let Some(known) = self.known.get(&sameness) {
            return *known;
        }
        let variable = self.fresh(cause, low, high);
        self.known.insert(sameness, variable);
        variable
    }

    /// Packets for which an unmodelled thing of two outcomes happens.
    pub(crate) fn happens(sets: &mut Diagram, variable: Variable) -> PacketSet {
        variable.within(sets, &[(1, 1)])
    }
}

impl Variable {
    /// Packets for which it has one of these values: closed ranges, ascending, disjoint, not adjacent.
    /// A test that holds for every value it can have holds, one for none does not.
    pub(crate) fn within(self, sets: &mut Diagram, ranges: &[(u128, u128)]) -> PacketSet {
        let field = Field::Unknown(self.number);
        let last = field.last(sets.family());
        // The diagram has values that the thing cannot have. They go with the nearest it can have.
        let clipped = ranges.iter().filter_map(|(low, high)| {
            let (low, high) = ((*low).max(self.low), (*high).min(self.high));
            let low_end = if low == self.low { 0 } else { low };
            let high_end = if high == self.high { last } else { high };
            (low <= high).then_some((low_end, high_end))
        });
        let clipped: Vec<_> = clipped.collect();
        sets.ranges(field, &clipped)
    }
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::Family;

    use super::*;

    const CAUSE: Cause = Cause { reason: UnknownReason::PacketDetails, subject: None };

    #[test]
    fn a_test_that_holds_for_every_value_is_decided() {
        let (mut sets, mut unknowns) = (Diagram::new(Family::Ipv4), Unknowns::default());
        let hops = unknowns.fresh(CAUSE, 1, 255);
        assert_eq!(hops.within(&mut sets, &[(0, 255)]), PacketSet::ALL);
        assert_eq!(hops.within(&mut sets, &[(1, 300)]), PacketSet::ALL);
        assert_eq!(hops.within(&mut sets, &[(0, 0)]), PacketSet::NONE);
        assert_eq!(hops.within(&mut sets, &[(256, 300)]), PacketSet::NONE);
        let few = hops.within(&mut sets, &[(1, 63)]);
        let many = hops.within(&mut sets, &[(64, 255)]);
        assert_eq!(sets.or(few, many), PacketSet::ALL);
        assert_eq!(sets.and(few, many), PacketSet::NONE);
        assert_eq!(sets.must(few), PacketSet::NONE);
        assert_eq!(sets.may(few), PacketSet::ALL);
    }

    #[test]
    fn the_same_is_asked_once() {
        let mut unknowns = Unknowns::default();
        let key = || Sameness::Packet(Turn::First, "ttl".to_owned());
        let one = unknowns.same(key(), CAUSE, 0, 255);
        assert_eq!(unknowns.same(key(), CAUSE, 0, 255), one);
        assert_ne!(unknowns.fresh(CAUSE, 0, 1), one);
    }
}
