//! The forwarding information base of one family: every table, indexed.
//!
//! Kernel counterpart: `struct fib_table`, `fib_unmerge` (net/ipv4/fib_frontend.c), `fib6_table`.
//! Left out: route exceptions, expiry of routes.

use std::collections::{BTreeMap, BTreeSet};

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{
    Family, FibLayout, Ifindex, LinkSysctl, Netns, NextHop, NextHopFlags, Route, RouteProtocol,
    RouteType, TableId,
};

use crate::host::flow::{Exit, Refusal, Way, WayKind};
use crate::host::table::{Candidate, CandidateVerdict, Table, verdict_of};

/// The most refusing routes that an answer tells apart. A block list of 100,000 blackhole routes is
/// one reason, not 100,000.
pub const MAX_NAMED_REFUSALS: usize = 64;

/// Every table of one family.
#[derive(Debug)]
pub struct Fib {
    pub(crate) tables: BTreeMap<TableId, Table>,
    /// IPv4: tables local and main as the one trie they are until a rule is touched.
    pub(crate) merged: Option<Table>,
    ways: Vec<Way>,
    /// For each way, the first route that leads it.
    first_routes: Vec<usize>,
    /// How many routes refuse packets.
    refusing: usize,
    /// IPv4: a local route that the kernel did not make itself is there.
    pub(crate) has_foreign_local: bool,
    /// IPv4: some route or rule has realms.
    pub(crate) has_realms: bool,
}

/// What says whether nexthops are usable.
struct Usability {
    /// Links whose nexthops without carrier are not used.
    ignores_linkdown: BTreeSet<Ifindex>,
    /// So do all links.
    all_ignore_linkdown: bool,
    blackhole_objects: BTreeSet<u32>,
}

impl Fib {
    /// Indexes the routes of one family.
    pub(crate) fn new(netns: &Netns, family: Family) -> Self {
        let usability = Usability::new(netns, family);
        let mut numbers: BTreeMap<Way, u32> = BTreeMap::new();
        let mut first_routes = Vec::new();
        let mut by_table: BTreeMap<TableId, Vec<(&Route, Candidate)>> = BTreeMap::new();
        for (index, route) in netns.routes.iter().enumerate() {
            // A first packet carries no TOS, so routes that want one never match.
            if route.family() == family && route.tos == 0 {
                let candidate = usability.candidate(index, route, &mut numbers);
                first_routes.resize(numbers.len(), index);
                by_table.entry(route.table).or_default().push((route, candidate));
            }
        }
        let merges = family == Family::Ipv4 && netns.fib_layout != FibLayout::Split;
        let merged = merges.then(|| {
            // With equal prefixes table local comes first (`fib_insert_alias` sorts by table).
            let both = [TableId::LOCAL, TableId::MAIN].into_iter().flat_map(|table| {
                by_table.get(&table).into_iter().flatten().map(move |(route, candidate)| {
                    let rank = u32::from(table != TableId::LOCAL);
                    (*route, Candidate { metric: rank, ..candidate.clone() }, candidate.metric)
                })
            });
            let mut both: Vec<_> = both.collect();
            both.sort_by_key(|(_, candidate, metric)| (candidate.metric, *metric));
            Table::new(family, both.into_iter().map(|(route, candidate, _)| (route, candidate)))
        });
        let of_family = || netns.routes.iter().filter(|route| route.family() == family);
        // One trie holds both where the layout is known; they are not looked at one by one then.
        let only_merged = family == Family::Ipv4 && netns.fib_layout == FibLayout::Merged;
        let apart = |id: TableId| !only_merged || (id != TableId::LOCAL && id != TableId::MAIN);
        let tables = by_table
            .into_iter()
            .filter(|(id, _)| apart(*id))
            .map(|(id, routes)| (id, Table::new(family, routes)))
            .collect();
        let mut ways: Vec<_> = numbers.into_iter().map(|(way, number)| (number, way)).collect();
        ways.sort_unstable_by_key(|(number, _)| *number);
        Self {
            tables,
            merged,
            ways: ways.into_iter().map(|(_, way)| way).collect(),
            first_routes,
            refusing: of_family().filter(|route| WayKind::of(route.kind).is_none()).count(),
            has_foreign_local: of_family().any(|route| {
                route.kind == RouteType::Local && route.protocol != RouteProtocol::KERNEL
            }),
            has_realms: of_family().any(|route| route.realm.is_some_and(|realm| realm != 0))
                || netns.policy_rules.iter().any(|rule| {
                    rule.family == family && rule.realm.is_some_and(|realm| realm != 0)
                }),
        }
    }

    /// A way by its number.
    #[must_use]
    pub fn way(&self, number: u32) -> &Way {
        &self.ways[number as usize]
    }

    /// The first route that leads a way: it stands for all of them where many sources are asked
    /// about at once.
    pub(crate) fn first_route(&self, way: u32) -> usize {
        self.first_routes[way as usize]
    }

    /// Whether so few routes refuse packets that an answer may name each of them.
    pub(crate) const fn names_refusals(&self) -> bool {
        self.refusing <= MAX_NAMED_REFUSALS
    }
}

impl Usability {
    fn new(netns: &Netns, family: Family) -> Self {
        let sysctl = match family {
            Family::Ipv4 => LinkSysctl::IgnoreRoutesWithLinkdown,
            Family::Ipv6 => LinkSysctl::V6IgnoreRoutesWithLinkdown,
        };
        let set = |value: Option<i64>| value.is_some_and(|value| value != 0);
        // IPv6 reads the link's value alone, IPv4 that of `all` as well (`IN_DEV_ORCONF`).
        let all = family == Family::Ipv4 && set(netns.sysctls.all.get(&sysctl).copied());
        let ignores = |name: &str| set(netns.sysctls.of_link(sysctl, name));
        let objects = netns.nexthops.iter().filter(|object| object.blackhole);
        Self {
            ignores_linkdown: netns
                .links
                .iter()
                .filter(|link| ignores(&link.name))
                .map(|link| link.ifindex)
                .collect(),
            all_ignore_linkdown: all,
            blackhole_objects: objects.map(|object| object.id).collect(),
        }
    }

    fn candidate(
        &self,
        index: usize,
        route: &Route,
        numbers: &mut BTreeMap<Way, u32>,
    ) -> Candidate {
        let mut verdict = verdict_of(route.kind);
        if route.nexthop_id.is_some_and(|id| self.blackhole_objects.contains(&id)) {
            verdict = CandidateVerdict::Refuse(Refusal::Blackhole);
        }
        if is_discarded(route) {
            verdict = CandidateVerdict::Refuse(Refusal::Discarded);
        }
        let usable = route.nexthops.iter().filter_map(|nexthop| self.exit(nexthop));
        let exits: Vec<_> = usable.collect();
        let kind = WayKind::of(route.kind).filter(|_| verdict == CandidateVerdict::Way);
        let way = kind.map(|kind| {
            // In the order of the nexthops: some lookups take the first.
            let mut ways_out: Vec<Exit> = Vec::new();
            for exit in &exits {
                if !ways_out.contains(exit) {
                    ways_out.push(*exit);
                }
            }
            let mut all: Vec<_> = route.nexthops.iter().filter_map(|hop| hop.ifindex).collect();
            all.sort_unstable();
            all.dedup();
            let preferred_source = route.preferred_source;
            let scope = route.scope;
            let way = Way { kind, exits: ways_out, links: all, preferred_source, scope };
            let next = numbers.len() as u32;
            *numbers.entry(way).or_insert(next)
        });
        Candidate {
            route: index,
            // Candidates that refuse have no way; nothing looks at the number then.
            way: way.unwrap_or(0),
            metric: route.metric,
            verdict,
            exits: exits.iter().map(|exit| exit.link).collect(),
            by_object: route.nexthop_id.is_some(),
            // RFC 4191's code for low is 3, for medium 0, for high 1 (`IPV6_DECODE_PREF`).
            preference: route.preference.map_or(2, |code| (code ^ 2) & 3),
        }
    }

    fn exit(&self, nexthop: &NextHop) -> Option<Exit> {
        let link = nexthop.ifindex?;
        let no_carrier = nexthop.flags.has(NextHopFlags::LINK_DOWN)
            && (self.all_ignore_linkdown || self.ignores_linkdown.contains(&link));
        let usable = !nexthop.flags.has(NextHopFlags::DEAD) && !no_carrier;
        usable.then_some(Exit { link, gateway: nexthop.gateway })
    }
}

/// IPv6: a unicast route through `lo` leads nowhere, unless it is the one of ::1
/// (net/ipv6/route.c, `fib6_is_reject`). An address on `lo` has such a route in table main.
fn is_discarded(route: &Route) -> bool {
    route.family() == Family::Ipv6
        && route.kind == RouteType::Unicast
        && !route.destination.address().is_loopback()
        && !route.nexthops.is_empty()
        && route.nexthops.iter().all(|nexthop| nexthop.ifindex == Some(LOOPBACK_IFINDEX))
}
