//! One routing table, searched for one flow.
//!
//! Mirrors `fib_table_lookup` (net/ipv4/fib_trie.c) and `fib6_table_lookup` (net/ipv6/route.c).
//! Left out: the reachability of IPv6 routers, which changes by the second and moves packets between
//! equal routes only; route exceptions (redirects, path MTU).

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{
    Family, Ifindex, LinkSysctl, NextHop, NextHopFlags, Prefix, Route, RouteType, TableId,
};

use super::walk::Walk;

/// What is asked of the routing tables (`struct flowi4`, `struct flowi6`).
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) destination: IpAddr,
    /// `None`: not chosen yet.
    pub(super) source: Option<IpAddr>,
    pub(super) iif: Option<Ifindex>,
    pub(super) oif: Option<Ifindex>,
    pub(super) l3mdev: Option<Ifindex>,
    pub(super) mark: u32,
    pub(super) uid: u32,
    /// 0 where the kernel did not look.
    pub(super) ip_protocol: u8,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// A received packet, as opposed to one that is about to be sent.
    pub(super) input: bool,
    /// IPv6: only nexthops on the link asked for (`RT6_LOOKUP_F_IFACE`).
    pub(super) strict: bool,
}

/// The route found, and the nexthops the kernel may pick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Position in `Netns::routes`.
    pub(super) route: usize,
    /// Positions in the route's nexthops; never empty.
    pub(super) nexthops: Vec<usize>,
}

/// Why no route was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FibError {
    /// No rule and no table had an answer (ENETUNREACH).
    NoRoute,
    /// A policy rule says unreachable (ENETUNREACH).
    RuleUnreachable,
    /// A route says unreachable (EHOSTUNREACH).
    RouteUnreachable,
    /// EACCES.
    Prohibit,
    /// EINVAL.
    Blackhole,
    /// No error, and the packet is dropped with an ICMPv6 one later: a route through `lo`, by its
    /// position in `Netns::routes`.
    Discarded(usize),
    /// Not in this table (EAGAIN): the next rule decides. Never the end result.
    Again,
}

/// What a route's type makes of a lookup (`fib_props`, `ip6_rt_type_to_error`).
const fn type_error(kind: RouteType) -> Option<FibError> {
    match kind {
        RouteType::Blackhole => Some(FibError::Blackhole),
        RouteType::Unreachable => Some(FibError::RouteUnreachable),
        RouteType::Prohibit => Some(FibError::Prohibit),
        RouteType::Throw => Some(FibError::Again),
        RouteType::Unicast
        | RouteType::Local
        | RouteType::Broadcast
        | RouteType::Anycast
        | RouteType::Multicast
        | RouteType::Nat
        | RouteType::Other(_) => None,
    }
}

/// The same for IPv6, where a unicast route through `lo` discards as well: the lookup succeeds, but
/// every packet gets the error of "no route" (`fib6_is_reject`, `ip6_rt_init_dst_reject`).
fn rt6_error(route: &Route, position: usize) -> Option<FibError> {
    let through_lo =
        |nexthop: &NextHop| nexthop.ifindex == Some(canreach_snapshot::link::LOOPBACK_IFINDEX);
    let leads_out = route.nexthops.is_empty() || !route.nexthops.iter().all(through_lo);
    if route.kind == RouteType::Unicast && !leads_out && !route.destination.address().is_loopback()
    {
        return Some(FibError::Discarded(position));
    }
    type_error(route.kind)
}

/// How well a node's route suits a flow, by the score of its nexthop; the position of both.
type Best = Option<(u32, usize, usize)>;

impl<'a> Walk<'a> {
    /// Routes of a family in any of these tables, with their positions.
    fn routes_in(&self, family: Family, tables: &[TableId]) -> Vec<(usize, &'a Route)> {
        let all = self.netns.routes.iter().enumerate();
        all.filter(|(_, route)| route.family() == family && tables.contains(&route.table)).collect()
    }

    /// `fib_table_lookup` of net/ipv4/fib_trie.c. Two tables stand for a merged trie.
    pub(super) fn fib_table_lookup(
        &mut self,
        tables: &[TableId],
        flow: &Flow,
    ) -> Result<Found, FibError> {
        let mut aliases = self.routes_in(Family::Ipv4, tables);
        aliases.retain(|(_, route)| route.destination.contains(flow.destination));
        // The order of aliases in a leaf (`fib_find_alias`): longest prefix, then table local before
        // main, then TOS, then metric; the order of the dump among equals.
        aliases.sort_by_key(|(_, route)| {
            (
                u8::MAX - route.destination.length(),
                u32::MAX - route.table.0,
                u8::MAX - route.tos,
                route.metric,
            )
        });
        let mut missed_leaf = None;
        for (index, route) in aliases {
            // A packet without special wishes has TOS 0.
            if route.tos != 0 || missed_leaf == Some(route.destination.range().0) {
                continue;
            }
            if let Some(error) = type_error(route.kind) {
                return Err(error);
            }
            let mut nexthops = Vec::new();
            for (position, nexthop) in route.nexthops.iter().enumerate() {
                if self.fib_lookup_good_nhc(nexthop, flow) {
                    nexthops.push(position);
                }
            }
            if !nexthops.is_empty() {
                return Ok(Found { route: index, nexthops });
            }
            // The kernel gives up the whole leaf after a nexthop object without a usable way out
            // (`goto miss`), also on other routes to the same network.
            if route.nexthop_id.is_some() {
                missed_leaf = Some(route.destination.range().0);
            }
        }
        Err(FibError::Again)
    }

    /// `fib_lookup_good_nhc` of net/ipv4/fib_trie.c.
    fn fib_lookup_good_nhc(&mut self, nexthop: &NextHop, flow: &Flow) -> bool {
        self.is_alive(nexthop, LinkSysctl::IgnoreRoutesWithLinkdown)
            && (flow.oif.is_none() || flow.oif == nexthop.ifindex)
    }

    /// Not dead, and not without carrier where that counts.
    fn is_alive(&mut self, nexthop: &NextHop, ignores_linkdown: LinkSysctl) -> bool {
        if nexthop.flags.has(NextHopFlags::DEAD) {
            return false;
        }
        let without_carrier = nexthop.flags.has(NextHopFlags::LINK_DOWN);
        let Some(ifindex) = nexthop.ifindex.filter(|_| without_carrier) else { return true };
        self.link_sysctl(ignores_linkdown, ifindex) == 0
    }

    /// `fib6_table_lookup` of net/ipv6/route.c: the nodes of the tree that cover the flow, from the
    /// most specific up, until one of them has a usable route.
    pub(super) fn fib6_table_lookup(
        &mut self,
        table: TableId,
        flow: &Flow,
    ) -> Result<Found, FibError> {
        let routes = self.routes_in(Family::Ipv6, &[table]);
        for node in fib6_nodes(&routes, flow) {
            if let Some(found) = self.rt6_select(&node, flow) {
                let route = &self.netns.routes[found.route];
                return rt6_error(route, found.route).map_or(Ok(found), Err);
            }
        }
        Err(FibError::Again)
    }

    /// `rt6_select` and `find_rr_leaf`: the best route of the lowest metric; if none of that metric is
    /// usable, the best of all others, whatever their metrics.
    fn rt6_select(&mut self, node: &[(usize, &'a Route)], flow: &Flow) -> Option<Found> {
        let mut leaf = node.to_vec();
        leaf.sort_by_key(|(_, route)| route.metric);
        let first_metric = leaf.first()?.1.metric;
        let others = leaf.iter().position(|(_, route)| route.metric != first_metric);
        let (first, others) = leaf.split_at(others.unwrap_or(leaf.len()));
        let best = self.find_best(first, flow);
        let (_, route, nexthop) = best.or_else(|| self.find_best(others, flow))?;
        Some(self.fib6_select_path(route, nexthop, flow))
    }

    /// `__find_rr_leaf`: the highest score wins, the first among equals.
    fn find_best(&mut self, routes: &[(usize, &'a Route)], flow: &Flow) -> Best {
        let mut best: Best = None;
        for (index, route) in routes {
            for (position, nexthop) in ways_out(route).iter().enumerate() {
                let Some(score) = self.rt6_score_route(route, nexthop, flow) else { continue };
                if best.is_none_or(|(other, ..)| score > other) {
                    best = Some((score, *index, position));
                }
            }
        }
        best
    }

    /// `find_match` and `rt6_score_route`. On input the link asked for is the one the packet came in
    /// by; without the strict flag it is a preference only.
    fn rt6_score_route(&mut self, route: &Route, nexthop: &NextHop, flow: &Flow) -> Option<u32> {
        if !self.is_alive(nexthop, LinkSysctl::V6IgnoreRoutesWithLinkdown) {
            return None;
        }
        // The `oif` argument of `ip6_pol_route`.
        let wanted = if flow.input { flow.iif } else { flow.oif };
        let on_link = wanted.is_none() || wanted == nexthop.ifindex;
        if !on_link && flow.strict {
            return None;
        }
        // IPV6_DECODE_PREF: 1 low, 2 medium, 3 high.
        let preference = u32::from(route.preference.unwrap_or(0) & 3) ^ 2;
        Some(if on_link { 2 } else { 0 } | preference << 2)
    }

    /// `fib6_select_path`: of several ways out of one route, any usable one, unless one was asked for.
    fn fib6_select_path(&mut self, route: usize, chosen: usize, flow: &Flow) -> Found {
        let data = &self.netns.routes[route];
        let ways = ways_out(data);
        let asked_for = !flow.input && flow.oif.is_some() && flow.oif == ways[chosen].ifindex;
        let mut nexthops = vec![chosen];
        if !asked_for {
            for (position, nexthop) in ways.iter().enumerate() {
                let usable = self.rt6_score_route(data, nexthop, flow).is_some();
                if usable && position != chosen {
                    nexthops.push(position);
                }
            }
        }
        nexthops.sort_unstable();
        Found { route, nexthops }
    }
}

/// A route's nexthops. An IPv6 route that only refuses leads to `lo`.
pub(super) fn ways_out(route: &Route) -> Vec<NextHop> {
    if !route.nexthops.is_empty() || type_error(route.kind).is_none() {
        return route.nexthops.clone();
    }
    let ifindex = Some(canreach_snapshot::link::LOOPBACK_IFINDEX);
    vec![NextHop {
        ifindex,
        gateway: None,
        weight: 1,
        flags: NextHopFlags::default(),
        encapsulated: false,
    }]
}

/// The nodes of an IPv6 table that `fib6_node_lookup` and `fib6_backtrack` visit, in that order.
///
/// A node is a destination prefix; routes with a source prefix hang below it in a tree of their own.
/// While the kernel looks for the node to start at, it passes over one that has such a tree and no
/// matching source in it, and with it over the node's routes without a source; only the root is
/// exempt. While it backtracks, it does not pass over them.
fn fib6_nodes<'a>(routes: &[(usize, &'a Route)], flow: &Flow) -> Vec<Vec<(usize, &'a Route)>> {
    let covering = routes.iter().filter(|(_, route)| route.destination.contains(flow.destination));
    let mut lengths: Vec<u8> = covering.map(|(_, route)| route.destination.length()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut nodes: Vec<Vec<(usize, &Route)>> = Vec::new();
    for length in lengths.into_iter().rev() {
        let at_node = |route: &Route| {
            route.destination.contains(flow.destination) && route.destination.length() == length
        };
        let node: Vec<_> = routes.iter().copied().filter(|(_, route)| at_node(route)).collect();
        let (plain, below): (Vec<_>, Vec<_>) =
            node.into_iter().partition(|(_, route)| source_of(route).is_none());
        let matching = source_nodes(&below, flow);
        let is_start = nodes.is_empty() && length != 0;
        let passed_over = is_start && !below.is_empty() && matching.is_empty();
        nodes.extend(matching);
        if !passed_over && !plain.is_empty() {
            nodes.push(plain);
        }
    }
    nodes
}

/// The source prefixes below one node that cover the flow's source, longest first.
fn source_nodes<'a>(below: &[(usize, &'a Route)], flow: &Flow) -> Vec<Vec<(usize, &'a Route)>> {
    let source = flow.source.unwrap_or(Family::Ipv6.unspecified());
    let mut prefixes: Vec<Prefix> = below
        .iter()
        .filter_map(|(_, route)| source_of(route))
        .filter(|prefix| prefix.contains(source))
        .collect();
    prefixes.sort_by_key(|prefix| (u8::MAX - prefix.length(), address_value(prefix.address())));
    prefixes.dedup();
    let with = |prefix| {
        below.iter().copied().filter(|(_, route)| source_of(route) == Some(prefix)).collect()
    };
    prefixes.into_iter().map(with).collect()
}

/// The source prefix of a route, if it has one that says anything.
fn source_of(route: &Route) -> Option<Prefix> {
    route.source.map(Prefix::network).filter(|prefix| prefix.length() > 0)
}
