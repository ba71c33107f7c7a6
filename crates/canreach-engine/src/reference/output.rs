//! Output routing: a way out for a packet that starts here, and the source it gets.
//!
//! Mirrors `ip_route_output_key_hash_rcu`, `__mkroute_output` (net/ipv4/route.c),
//! `ip6_route_output_flags` (net/ipv6/route.c), `__ip_dev_find` and `inet_select_addr`
//! (net/ipv4/devinet.c). Left out: multicast, and the full choice of IPv6 source addresses
//! (RFC 6724).

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{
    Address, AddressFlags, Family, Ifindex, Link, LinkKind, LinkSysctl, NextHop, Prefix, RouteType,
    Scope, TableId,
};

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
                    },
                );
            }
        };
        let way = self.way_out(found.route, &found.nexthops);
        self.checked_source(flow, way)
    }

    /// `__mkroute_output`: a loopback source does not leave by another link.
    fn checked_source(&mut self, flow: &Flow, way: WayOut) -> Result<WayOut, NoWayOut> {
        let is_loopback = flow.source.is_some_and(|source| source.is_loopback());
        if !is_loopback || way.kind == RouteType::Local {
            return Ok(way);
        }
        let leaks = way.links.iter().any(|link| {
            let data = self.link(*link);
            data.is_some_and(|link| !link.is_loopback() && link.kind != LinkKind::Vrf)
        });
        let allowed = way
            .links
            .clone()
            .into_iter()
            .all(|link| self.link_sysctl(LinkSysctl::RouteLocalnet, link) != 0);
        if leaks && !allowed { Err(NoWayOut::Source) } else { Ok(way) }
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
        WayOut { kind: route.kind, route: Some(index), links, nexthops }
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

    /// `inet_select_addr`: the first primary address of the link in the gateway's subnet, or the first
    /// at all, or one of another link.
    pub(super) fn inet_select_addr(
        &mut self,
        device: Ifindex,
        gateway: Option<IpAddr>,
        scope: Scope,
    ) -> Option<IpAddr> {
        let local_scope = if self.link_sysctl(LinkSysctl::RouteLocalnet, device) != 0 {
            Scope::LINK
        } else {
            Scope::HOST
        };
        let gateway = gateway.filter(|gateway| Family::of(*gateway) == Family::Ipv4);
        let primary =
            |address: &&Address| address.prefix.family() == Family::Ipv4 && !address.is_secondary();
        let addresses = || self.netns.addresses.iter().filter(primary);
        let mut suitable = addresses()
            .filter(|address| address.ifindex == device && address.scope.min(local_scope) <= scope);
        let beside = |address: &&Address| {
            gateway.is_none_or(|gateway| {
                let other_end = address.peer.unwrap_or_else(|| address.address());
                let subnet = Prefix::new(other_end, address.prefix.length());
                subnet.is_some_and(|subnet| subnet.contains(gateway))
            })
        };
        let chosen = suitable.clone().find(beside).or_else(|| suitable.next());
        if let Some(address) = chosen {
            return Some(address.address());
        }
        let vrf = self.l3mdev_master(device);
        let of_link = |link: Ifindex| {
            addresses()
                .find(|address| {
                    address.ifindex == link
                        && address.scope != Scope::LINK
                        && address.scope <= scope
                })
                .map(Address::address)
        };
        vrf.and_then(of_link).or_else(|| {
            let mut links = self.netns.links.iter().map(|link| link.ifindex);
            links
                .find_map(|link| if self.l3mdev_master(link) == vrf { of_link(link) } else { None })
        })
    }

    /// IPv6: the one address of the link that suits a destination, if there is exactly one. Among
    /// several the kernel chooses by RFC 6724, which is not followed here.
    pub(super) fn only_source(&self, link: Ifindex, destination: IpAddr) -> Option<IpAddr> {
        let link_local = is_link_local(destination);
        let mut suitable = self.netns.addresses.iter().filter(|address| {
            address.ifindex == link
                && address.prefix.family() == Family::Ipv6
                && !address.is_tentative()
                && !address.flags.has(AddressFlags::DEPRECATED)
                && !address.address().is_loopback()
                && is_link_local(address.address()) == link_local
        });
        let first = suitable.next()?;
        suitable.next().is_none().then(|| first.address())
    }
}
