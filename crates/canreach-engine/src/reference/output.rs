//! Output routing: a way out for a packet that starts here.
//!
//! Mirrors `ip_route_output_key_hash_rcu`, `__mkroute_output` (net/ipv4/route.c),
//! `ip6_route_output_flags` (net/ipv6/route.c) and `__ip_dev_find` (net/ipv4/devinet.c). Left out:
//! multicast.

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, Ifindex, Link, LinkKind, LinkSysctl, NextHop, RouteType, TableId};

use super::route::{is_limited_broadcast, is_link_local, rt6_need_strict};
use super::table::{FibError, Flow, ways_out};
use super::walk::Walk;

/// A route for sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WayOut {
    /// What the destination is; unicast where it is only assumed to be on the link.
    pub(super) kind: RouteType,
    /// Position in `Netns::routes`; `None` where on-link is assumed.
    pub(super) route: Option<usize>,
    /// The links it may leave by.
    pub(super) links: Vec<Ifindex>,
    /// The nexthops it may leave by.
    pub(super) nexthops: Vec<NextHop>,
    /// How many more ways the route has that the source may not take.
    pub(super) barred: usize,
}

/// Why nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoWayOut {
    /// The source address is not one to send from.
    Source,
    /// No route.
    Fib(FibError),
}

impl Walk<'_> {
    /// An output flow to a destination, with everything else at its default.
    pub(super) fn output_flow(&self, destination: IpAddr) -> Flow {
        Flow {
            destination,
            source: None,
            iif: Some(LOOPBACK_IFINDEX),
            oif: None,
            l3mdev: None,
            mark: 0,
            uid: 0,
            ip_protocol: 0,
            source_port: 0,
            destination_port: 0,
            input: false,
            strict: false,
        }
    }

    /// `ip_route_output_key_hash_rcu`, `ip6_route_output_flags`. `any_source` is
    /// FLOWI_FLAG_ANYSRC: a transparent socket may send from any address.
    pub(super) fn ip_route_output(
        &mut self,
        flow: &Flow,
        any_source: bool,
    ) -> Result<WayOut, NoWayOut> {
        if Family::of(flow.destination) == Family::Ipv6 {
            return self.ip6_route_output(flow);
        }
        let chosen = flow.source.filter(|source| !source.is_unspecified());
        if let Some(source) = chosen {
            if source.is_multicast() || is_limited_broadcast(source) {
                return Err(NoWayOut::Source);
            }
            if !any_source && !self.ip_dev_find(source) {
                return Err(NoWayOut::Source);
            }
        }
        let is_up = |link: Ifindex| self.link(link).is_some_and(|link| link.is_up());
        if flow.oif.is_some_and(|oif| !is_up(oif)) {
            return Err(NoWayOut::Fib(FibError::NoRoute));
        }
        let found = match self.fib_lookup(flow) {
            Ok(found) => found,
            Err(error) => {
                // With a link asked for, and no VRF involved, the kernel takes the destination to be
                // on that link. Only the walk of rules works out the VRF.
                let in_vrf = flow.oif.is_some_and(|oif| self.l3mdev_master(oif).is_some());
                let Some(oif) = flow.oif.filter(|_| !(self.split && in_vrf)) else {
                    return Err(NoWayOut::Fib(error));
                };
                return self.checked_source(
                    flow,
                    WayOut {
                        kind: RouteType::Unicast,
                        route: None,
                        links: vec![oif],
                        nexthops: Vec::new(),
                        barred: 0,
                    },
                );
            }
        };
        let way = self.way_out(found.route, &found.nexthops);
        self.checked_source(flow, way)
    }

    /// `__mkroute_output`: a loopback source does not leave by another link.
    fn checked_source(&mut self, flow: &Flow, mut way: WayOut) -> Result<WayOut, NoWayOut> {
        let is_loopback = flow.source.is_some_and(|source| source.is_loopback());
        if !is_loopback || way.kind == RouteType::Local {
            return Ok(way);
        }
        let all = way.links.len();
        way.links.retain(|link| {
            let inside = self
                .link(*link)
                .is_some_and(|link| link.is_loopback() || link.kind == LinkKind::Vrf);
            inside || self.link_sysctl(LinkSysctl::RouteLocalnet, *link) != 0
        });
        way.barred = all - way.links.len();
        if way.links.is_empty() { Err(NoWayOut::Source) } else { Ok(way) }
    }

    /// `ip6_route_output_flags`.
    fn ip6_route_output(&mut self, flow: &Flow) -> Result<WayOut, NoWayOut> {
        let no_source = flow.source.is_none();
        let strict =
            flow.strict || rt6_need_strict(flow.destination) || (flow.oif.is_some() && no_source);
        let flow = Flow { strict, ..flow.clone() };
        let is_vrf = |oif| self.link(oif).is_some_and(|link| link.kind == LinkKind::Vrf);
        if is_link_local(flow.destination) && flow.oif.is_some_and(is_vrf) {
            // A VRF has no link-local addresses (`vrf_link_scope_lookup`).
            return Err(NoWayOut::Fib(FibError::NoRoute));
        }
        match self.fib_lookup(&flow) {
            Ok(found) => Ok(self.way_out(found.route, &found.nexthops)),
            Err(error) => Err(NoWayOut::Fib(error)),
        }
    }

    fn way_out(&self, index: usize, positions: &[usize]) -> WayOut {
        let route = &self.netns.routes[index];
        let all = ways_out(route);
        let nexthops: Vec<NextHop> =
            positions.iter().filter_map(|position| all.get(*position).cloned()).collect();
        let links = nexthops.iter().filter_map(|nexthop| nexthop.ifindex).collect();
        WayOut { kind: route.kind, route: Some(index), links, nexthops, barred: 0 }
    }

    /// Whether what is sent this way comes back in on this machine: an address of its own, or anything
    /// that leaves by the loopback link (`__mkroute_output`, RTCF_LOCAL).
    pub(super) fn stays(&self, way: &WayOut) -> bool {
        let loops = |link: &Ifindex| self.link(*link).is_some_and(Link::is_loopback);
        let own = match self.family() {
            Family::Ipv4 => way.kind == RouteType::Local,
            Family::Ipv6 => matches!(way.kind, RouteType::Local | RouteType::Anycast),
        };
        own || (!way.links.is_empty() && way.links.iter().all(loops))
    }

    /// `__ip_dev_find`: an address of some link, or local by table local alone (which is searched
    /// together with main as long as they are one).
    pub(super) fn ip_dev_find(&mut self, address: IpAddr) -> bool {
        if self.netns.addresses.iter().any(|own| own.address() == address) {
            return true;
        }
        let merged = [TableId::LOCAL, TableId::MAIN];
        let tables = if self.split { &merged[..1] } else { &merged[..] };
        let flow = self.output_flow(address);
        self.fib_table_lookup(tables, &flow)
            .is_ok_and(|found| self.netns.routes[found.route].kind == RouteType::Local)
    }
}
