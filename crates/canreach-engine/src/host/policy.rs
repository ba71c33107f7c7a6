//! The route lookup: policy rules in order, each with its table.
//!
//! Kernel counterparts: `fib_lookup` (include/net/ip_fib.h), `fib_rules_lookup` and
//! `fib_rule_match` (net/core/fib_rules.c), `fib6_rule_lookup`. The lookup takes a set of packets and
//! returns a partition of it, so that one call answers for every source. Left out: tunnel ids,
//! `FIB_RULE_FIND_SADDR` (it matters only where no source is given).

use std::collections::BTreeMap;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, PolicyAction, PolicyRule, Prefix, TableId};

use crate::AddressSet;
use crate::host::flow::{Flow, Found, PortTerm, Refusal, Term};
use crate::host::resolve::Host;
use crate::host::table::{Hit, Selector, Table};
use crate::packet::atoms::Classes;
use crate::packet::diagram::Diagram;
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;

/// A partition of a set of packets by what a lookup finds.
pub type Lookup = Vec<(PacketSet, Found)>;

impl Host<'_> {
    /// Looks up every packet of a set. The parts are disjoint and make up the set. Rules that cannot
    /// be judged count as far as they are known: a doubt of their own speaks of them.
    pub fn look_up(&self, sets: &mut Diagram, flow: &Flow, within: PacketSet) -> Lookup {
        let mut found = Vec::new();
        if flow.family == Family::Ipv4 && !flow.split {
            self.look_up_merged(sets, flow, within, &mut found);
        } else {
            self.look_up_by_rules(sets, flow, within, &mut found);
        }
        unite(sets, found)
    }

    /// Looks in one table alone; the second part is what is not found in it.
    pub fn look_up_in(
        &self,
        sets: &mut Diagram,
        flow: &Flow,
        table: TableId,
        within: PacketSet,
    ) -> (Lookup, PacketSet) {
        let mut found = Vec::new();
        let missed = match self.fib(flow.family).tables.get(&table) {
            Some(table) => self.look_in(sets, flow, table, None, within, &mut found),
            None => within,
        };
        (unite(sets, found), missed)
    }

    /// Without rules: the merged trie, then table default (`fib_lookup`).
    fn look_up_merged(
        &self,
        sets: &mut Diagram,
        flow: &Flow,
        within: PacketSet,
        found: &mut Lookup,
    ) {
        let fib = self.fib(flow.family);
        let tables = [fib.merged.as_ref(), fib.tables.get(&TableId::DEFAULT)];
        let mut open = within;
        for table in tables.into_iter().flatten() {
            open = self.look_in(sets, flow, table, None, open, found);
        }
        push_no_route(open, found);
    }

    fn look_up_by_rules(
        &self,
        sets: &mut Diagram,
        flow: &Flow,
        within: PacketSet,
        found: &mut Lookup,
    ) {
        let rules = self.rules(flow.family);
        // Packets wait at the position of the next rule they meet. A goto only leads forward, so
        // each position is visited once.
        let mut waiting: BTreeMap<usize, PacketSet> = BTreeMap::from([(0, within)]);
        while let Some((position, here)) = waiting.pop_first() {
            let Some((index, rule)) = rules.get(position) else {
                push_no_route(here, found);
                continue;
            };
            let matching = self.matching(sets, rule, flow);
            let hit = sets.and(here, matching);
            let mut on = sets.difference(here, hit);
            let mut jump = None;
            if !hit.is_empty() {
                let refuse = |refusal| Found::Refused { refusal, route: None, rule: Some(*index) };
                match rule.action {
                    PolicyAction::Lookup(id) => {
                        let id = if rule.l3mdev { flow.vrf_table } else { Some(id) };
                        let table = id.and_then(|id| self.fib(flow.family).tables.get(&id));
                        let missed = match table {
                            Some(table) => self.look_in(sets, flow, table, Some(rule), hit, found),
                            // A table without routes does not exist: the next rule.
                            None => hit,
                        };
                        on = sets.or(on, missed);
                    }
                    PolicyAction::Goto(priority) => {
                        let target = rules.partition_point(|(_, rule)| rule.priority < priority);
                        let exists = rules.get(target).is_some_and(|(_, rule)| {
                            rule.priority == priority && target > position
                        });
                        if exists { jump = Some(target) } else { on = sets.or(on, hit) }
                    }
                    PolicyAction::Nop => on = sets.or(on, hit),
                    // The kernel drops by actions it does not know (`fib4_rule_action`).
                    PolicyAction::Blackhole | PolicyAction::Other(_) => {
                        found.push((hit, refuse(Refusal::Blackhole)));
                    }
                    PolicyAction::Unreachable => {
                        found.push((hit, refuse(Refusal::RuleUnreachable)));
                    }
                    PolicyAction::Prohibit => found.push((hit, refuse(Refusal::Prohibit))),
                }
            }
            for (position, set) in
                [(position + 1, on)].into_iter().chain(jump.map(|target| (target, hit)))
            {
                if !set.is_empty() {
                    let known = waiting.get(&position).copied().unwrap_or(PacketSet::NONE);
                    let united = sets.or(known, set);
                    waiting.insert(position, united);
                }
            }
        }
    }

    /// Searches one table; returns the packets that are not found in it.
    fn look_in(
        &self,
        sets: &mut Diagram,
        flow: &Flow,
        table: &Table,
        rule: Option<&PolicyRule>,
        within: PacketSet,
        found: &mut Lookup,
    ) -> PacketSet {
        let select = Selector {
            device: match flow.family {
                Family::Ipv4 => flow.oif,
                // Input scores by the incoming link, output by the one asked for.
                Family::Ipv6 if flow.iif == LOOPBACK_IFINDEX => flow.oif,
                Family::Ipv6 => Some(flow.iif),
            },
            strict: flow.strict,
        };
        let exact = matches!(flow.destination, Term::Is(_));
        let key = |hit: Option<Hit>| self.found(flow.family, rule, hit, exact);
        let parts: Vec<(Option<Found>, PacketSet)> = match (flow.destination, flow.source) {
            (Term::Is(destination), Term::Is(source)) => {
                vec![(key(table.look_up(destination, source, select)), PacketSet::ALL)]
            }
            (Term::Is(destination), Term::AnySource) => {
                let mut parts = Vec::new();
                for sources in blocks(flow.family, &table.source_ranges(destination)) {
                    let Some((low, _)) = sources.ranges().first().copied() else { continue };
                    let hit = table.look_up(destination, low, select);
                    parts.push((key(hit), sets.from_sources(&sources)));
                }
                parts
            }
            (Term::AnySource, source) => {
                // Both ends the same address: no lookup of the path asks that.
                let source = match source {
                    Term::Is(source) => source,
                    Term::AnySource => 0,
                };
                let Some(bounds) = sets.source_bounds(within) else { return PacketSet::NONE };
                let cells = table.partition(source, select, bounds, key);
                let mut parts = Vec::with_capacity(cells.len());
                for (found, ranges) in cells {
                    let sources = AddressSet::from_ranges(flow.family, ranges);
                    parts.push((found, sets.from_sources(&sources)));
                }
                parts
            }
        };
        let mut missed = PacketSet::NONE;
        for (what, set) in parts {
            let set = sets.and(set, within);
            match what {
                _ if set.is_empty() => {}
                Some(what) => found.push((set, what)),
                None => missed = sets.or(missed, set),
            }
        }
        missed
    }

    /// What a hit in a table means; `None` for "go on with the next rule".
    fn found(
        &self,
        family: Family,
        rule: Option<&PolicyRule>,
        hit: Option<Hit>,
        exact: bool,
    ) -> Option<Found> {
        let fib = self.fib(family);
        match hit? {
            Hit::Throw => None,
            Hit::Refused { route, refusal } => {
                let suppressed = |rule| self.suppresses_discarded(rule, route);
                if refusal == Refusal::Discarded && rule.is_some_and(suppressed) {
                    return None;
                }
                let route = (exact || fib.names_refusals()).then_some(route);
                Some(Found::Refused { refusal, route, rule: None })
            }
            Hit::Route { route, way, length } => {
                let too_short = rule
                    .and_then(|rule| rule.suppress_prefix_length)
                    .is_some_and(|shortest| u32::from(length) <= shortest);
                let exit = fib.way(way).exits.first();
                let in_group = rule.and_then(|rule| rule.suppress_ifgroup).is_some_and(|group| {
                    exit.and_then(|exit| self.link(exit.link))
                        .is_some_and(|link| link.group == group)
                });
                let route = if exact { route } else { fib.first_route(way) };
                (!too_short && !in_group).then_some(Found::Route { route, way })
            }
        }
    }

    /// For a rule, a route that discards is a result like any other (`fib6_rule_suppress`).
    fn suppresses_discarded(&self, rule: &PolicyRule, route: usize) -> bool {
        let length = u32::from(self.netns().routes[route].destination.length());
        let group = self.link(LOOPBACK_IFINDEX).map(|link| link.group);
        rule.suppress_prefix_length.is_some_and(|shortest| length <= shortest)
            || rule.suppress_ifgroup.is_some_and(|suppressed| Some(suppressed) == group)
    }

    /// The packets a rule matches (`fib_rule_match`).
    fn matching(&self, sets: &mut Diagram, rule: &PolicyRule, flow: &Flow) -> PacketSet {
        let named = |name: &Option<String>, ifindex| {
            name.as_deref().is_none_or(|name| {
                self.link_named(name).is_some_and(|link| Some(link.ifindex) == ifindex)
            })
        };
        let plain = named(&rule.iif, Some(flow.iif))
            && named(&rule.oif, flow.oif)
            && (rule.mark ^ flow.mark) & rule.mark_mask == 0
            && rule.tunnel_id.unwrap_or(0) == 0
            && (!rule.l3mdev || flow.vrf_table.is_some())
            && rule.uid_range.is_none_or(|(low, high)| (low..=high).contains(&flow.uid))
            && rule.tos == 0
            && rule.dscp.unwrap_or(0) == 0
            && rule.ip_protocol.is_none_or(|number| number == 0 || number == flow.protocol);
        let mut set = if plain { PacketSet::ALL } else { PacketSet::NONE };
        for (prefix, term) in [(rule.source, flow.source), (rule.destination, flow.destination)] {
            let matching = prefix.map_or(PacketSet::ALL, |prefix| prefix_set(sets, prefix, term));
            set = sets.and(set, matching);
        }
        for (range, term) in
            [(rule.source_ports, flow.source_port), (rule.destination_ports, flow.destination_port)]
        {
            let matching = range.map_or(PacketSet::ALL, |range| port_set(sets, range, term));
            set = sets.and(set, matching);
        }
        if rule.invert { sets.not(set) } else { set }
    }
}

fn prefix_set(sets: &mut Diagram, prefix: Prefix, term: Term) -> PacketSet {
    let (low, high) = prefix.range();
    match term {
        Term::Is(value) if (low..=high).contains(&value) => PacketSet::ALL,
        Term::Is(_) => PacketSet::NONE,
        Term::AnySource => {
            sets.from_sources(&AddressSet::from_ranges(prefix.family(), [(low, high)]))
        }
    }
}

fn port_set(sets: &mut Diagram, (low, high): (u16, u16), term: PortTerm) -> PacketSet {
    match term {
        PortTerm::Is(port) if (low..=high).contains(&port) => PacketSet::ALL,
        PortTerm::Is(_) | PortTerm::Absent => PacketSet::NONE,
        PortTerm::AnySourcePort => {
            sets.from_ports(canreach_snapshot::Port(low), canreach_snapshot::Port(high))
        }
    }
}

/// Cuts all addresses into blocks that each of the ranges either holds or does not touch.
fn blocks(family: Family, ranges: &[(u128, u128)]) -> Vec<AddressSet> {
    let predicates: Vec<_> = ranges.iter().map(|range| vec![*range]).collect();
    let classes = Classes::sweep(Field::Source.last(family), &predicates);
    classes.members().into_iter().map(|block| AddressSet::from_ranges(family, block)).collect()
}

/// Whether a rule asks or does something that this version does not know.
#[must_use]
pub const fn is_unjudged(rule: &PolicyRule) -> bool {
    !rule.unrecognized.is_empty() || matches!(rule.action, PolicyAction::Other(_))
}

fn push_no_route(set: PacketSet, found: &mut Lookup) {
    if !set.is_empty() {
        found.push((set, Found::Refused { refusal: Refusal::NoRoute, route: None, rule: None }));
    }
}

/// Unites the parts that found the same, in a fixed order.
fn unite(sets: &mut Diagram, found: Lookup) -> Lookup {
    let mut united: BTreeMap<Found, PacketSet> = BTreeMap::new();
    for (set, what) in found {
        let known = united.get(&what).copied().unwrap_or(PacketSet::NONE);
        let sum = sets.or(known, set);
        united.insert(what, sum);
    }
    united.into_iter().map(|(what, set)| (set, what)).collect()
}
