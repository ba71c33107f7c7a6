//! Hooks with small rulesets, and exactly which sources they let pass.

use canreach_snapshot::nft::{Ruleset, Set};
use canreach_snapshot::{
    Address, AddressFlags, Family, Ifindex, Link, LinkFlags, LinkKind, Netns, NfHook, OperState,
    Scope,
};

use super::hook::{HookPlace, HookResult, Neutral, NfStop, RejectAnswer, Strand, pass_hook};
use super::unknown::Unknowns;
use super::view::{Part, Turn, View};
use crate::host::Host;
use crate::packet::diagram::Diagram;
use crate::packet::packet_set::PacketSet;
use crate::{DropReason, NfSubject, UnknownReason};

mod build;
mod filter;
mod nat;
mod size;

pub(crate) use build::{addresses, numbers, pairs, ruleset, with_expr};

/// One walk through hooks.
pub(crate) struct Bench {
    pub(crate) netns: Netns,
    pub(crate) neutral: Neutral,
}

/// What came of it, as text.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) sets: Diagram,
    pub(crate) unknowns: Unknowns,
    pub(crate) result: HookResult,
}

pub(crate) fn link(index: u32, name: &str) -> Link {
    Link {
        ifindex: Ifindex(index),
        name: name.to_owned(),
        kind: if name == "lo" { LinkKind::Loopback } else { LinkKind::Ethernet },
        flags: LinkFlags(if name == "lo" { 0x1_0009 } else { 0x1_0001 }),
        operstate: OperState::Up,
        mtu: 1500,
        group: 0,
        mac: None,
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: None,
        wireless: None,
    }
}

/// An address of a link, with the length of its network.
pub(crate) fn address(prefix: &str, ifindex: Ifindex) -> Address {
    Address {
        ifindex,
        prefix: prefix.parse().expect(prefix),
        peer: None,
        broadcast: None,
        scope: Scope::UNIVERSE,
        flags: AddressFlags::default(),
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    }
}

impl Bench {
    pub(crate) fn of(ruleset: Ruleset) -> Self {
        let links = vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")];
        let mut netns = Netns { links, ..Netns::default() };
        netns.firewall.nft = Some(ruleset);
        Self { netns, neutral: Neutral::default() }
    }

    pub(crate) fn new(text: &str, sets: Vec<Set>) -> Self {
        Self::of(ruleset(text, sets))
    }

    /// A SYN to 192.0.2.1, port 22, that came in by eth0.
    pub(crate) fn syn() -> View {
        let to = (Part::Is(0xc000_0201), Part::Is(22));
        let mut view = View::new(Family::Ipv4, 6, Turn::First, (Part::Client, Part::Client), to);
        view.iif = Some(Ifindex(2));
        view
    }

    /// Takes a SYN through hooks, one after the other.
    pub(crate) fn run(&self, view: View, hooks: &[NfHook]) -> Seen {
        let places: Vec<_> = hooks.iter().map(|hook| HookPlace::at(*hook)).collect();
        self.run_at(view, &places)
    }

    /// Takes a SYN through hooks of links, too.
    pub(crate) fn run_at(&self, view: View, places: &[HookPlace]) -> Seen {
        let host = Host::resolve(&self.netns);
        let mut sets = Diagram::new(Family::Ipv4);
        let mut unknowns = Unknowns::default();
        let mut result = HookResult {
            passed: vec![Strand { set: PacketSet::ALL, view, by: None }],
            ..HookResult::default()
        };
        for place in places {
            let entering = std::mem::take(&mut result.passed);
            let next = pass_hook(&host, &mut sets, &mut unknowns, *place, entering, &self.neutral);
            result.passed = next.passed;
            result.stopped.extend(next.stopped);
            result.lost.extend(next.lost);
        }
        let mut seen = Seen { sets, unknowns, result };
        seen.check_partition();
        seen
    }

    pub(crate) fn input(&self) -> Seen {
        self.run(Self::syn(), &[NfHook::Input])
    }
}

impl Seen {
    /// The parts are disjoint, and all that entered.
    fn check_partition(&mut self) {
        let parts: Vec<PacketSet> = (self.result.passed.iter().map(|strand| strand.set))
            .chain(self.result.stopped.iter().map(|(strand, _)| strand.set))
            .chain(self.result.lost.iter().map(|(strand, _)| strand.set))
            .collect();
        let mut sum = PacketSet::NONE;
        for part in parts {
            assert_eq!(self.sets.and(sum, part), PacketSet::NONE, "{:?}", self.result);
            sum = self.sets.or(sum, part);
        }
        assert_eq!(sum, PacketSet::ALL, "{:?}", self.result);
        assert!(!self.unknowns.is_breached() && !self.sets.is_breached());
    }

    fn sum(&mut self, sets: Vec<PacketSet>) -> PacketSet {
        sets.into_iter().fold(PacketSet::NONE, |sum, set| self.sets.or(sum, set))
    }

    fn text(&mut self, set: PacketSet) -> String {
        let must = self.sets.must(set);
        let may = self.sets.may(set);
        let show = |sets: &Diagram, set| {
            let parts = sets.read(set).into_iter().map(|(sources, ports)| match ports {
                None => sources.to_string(),
                Some(ports) => format!("{sources} {ports:?}"),
            });
            parts.collect::<Vec<_>>().join("; ")
        };
        let certain = show(&self.sets, must);
        if must == may {
            return certain;
        }
        let possible = self.sets.difference(may, must);
        format!("{certain} ? {}", show(&self.sets, possible)).trim().to_owned()
    }

    /// Sources that pass; behind a question mark, those that may.
    pub(crate) fn passed(&mut self) -> String {
        let sets = self.result.passed.iter().map(|strand| strand.set).collect();
        let sum = self.sum(sets);
        self.text(sum)
    }

    /// Sources that are stopped; behind a question mark, those that may be.
    pub(crate) fn stopped(&mut self) -> String {
        let sets = self.result.stopped.iter().map(|(strand, _)| strand.set).collect();
        let sum = self.sum(sets);
        self.text(sum)
    }

    /// Sources that are rejected.
    pub(crate) fn rejected(&mut self) -> String {
        let rejected = self.result.stopped.iter();
        let rejected = rejected.filter(|(_, stop)| stop.reason == DropReason::FwReject);
        let sets = rejected.map(|(strand, _)| strand.set).collect();
        let sum = self.sum(sets);
        self.text(sum)
    }

    /// Why it is not known what becomes of some.
    pub(crate) fn reasons(&self) -> Vec<UnknownReason> {
        let mut reasons: Vec<_> = (0..)
            .map_while(|number| self.unknowns.cause(number))
            .map(|cause| cause.reason)
            .chain(self.result.lost.iter().map(|(_, lost)| lost.reason))
            .collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }

    pub(crate) fn stops(&self) -> Vec<NfStop> {
        self.result.stopped.iter().map(|(_, stop)| *stop).collect()
    }
}
