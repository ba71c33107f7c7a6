//! The link: is it up, and can neighbours find the address on it?
//!
//! Mirrors `arp_process`, `arp_ignore`, `arp_filter` (net/ipv4/arp.c), `inet_confirm_addr`
//! (net/ipv4/devinet.c) and `ndisc_recv_ns` (net/ipv6/ndisc.c). Left out: what neighbours have in
//! their caches already, private VLANs, gratuitous ARP.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{
    Address, Family, GapSubject, Ifindex, LinkFlags, LinkKind, LinkSysctl, Prefix, Proto, Route,
    RouteType, Scope,
};

use super::route::{Onward, RouteInput, is_limited_broadcast, is_link_local};
use super::table::Flow;
use super::walk::{Stop, Walk};
use crate::{DoubtEffect, DropReason, Packet, TheySee};

/// What becomes of the question who has the address.
enum Neighbor {
    /// Answered, or never asked.
    Answered,
    /// Not answered, because input routing does not accept the one who asks.
    RouteRefuses,
    /// Not answered, for this reason.
    Silent(DropReason),
}

impl Walk<'_> {
    /// The stage. Gives the link the IP layer sees: a port of a bridge or bond stands for it.
    pub(super) fn link_stage(&mut self, ifindex: Ifindex) -> Result<Ifindex, Stop> {
        self.gaps(DoubtEffect::MayRedirect, |subject| *subject == GapSubject::Links);
        let ifindex = self.receiving_link(ifindex);
        let refused = self.refused_by_client(ifindex);
        let they_see = match refused {
            None => self.neighbor_fails(),
            Some(_) => TheySee::NetworkUnreachable,
        };
        let unreachable = |reason| Stop { reason, they_see: Some(they_see) };
        let usable = self.link(ifindex).is_some_and(|link| link.is_up() && link.has_carrier());
        if !usable {
            return Err(unreachable(DropReason::LinkDown));
        }
        if let Some(reason) = refused {
            return Err(unreachable(reason));
        }
        let destination = self.packet.destination;
        if self.family() == Family::Ipv6
            && self.link_sysctl(LinkSysctl::V6DisableIpv6, ifindex) != 0
        {
            let reason = DropReason::Ipv6Disabled;
            let on_link =
                self.on_link_prefixes(ifindex).iter().any(|prefix| prefix.contains(destination));
            return Err(if on_link { unreachable(reason) } else { self.silent(reason) });
        }
        match self.who_has(ifindex) {
            Neighbor::Answered => {}
            Neighbor::Silent(reason) => return Err(unreachable(reason)),
            Neighbor::RouteRefuses => {
                // Where the route stage stops this sender too, it names the reason.
                let accepts = |onward| matches!(onward, Onward::Here(_));
                if self.attempt(|walk| walk.route_decision(ifindex)).is_ok_and(accepts) {
                    return Err(unreachable(DropReason::NeighborSilent));
                }
                self.unheard = true;
            }
        }
        Ok(ifindex)
    }

    /// TCP knows no groups and no broadcasts: connect(2) to an address that the client knows for one
    /// fails at once, and nothing is sent (`tcp_v4_connect`, `tcp_v6_connect`).
    fn refused_by_client(&self, link: Ifindex) -> Option<DropReason> {
        let Packet { proto, source, destination, .. } = self.packet;
        let subnet = |prefix: &Prefix| {
            prefix.family() == Family::Ipv4
                && prefix.length() < 31
                && prefix.range().1 == address_value(destination)
                && prefix.contains(source)
        };
        if proto == Proto::Udp {
            None
        } else if destination.is_multicast() {
            Some(DropReason::MulticastDestination)
        } else if is_limited_broadcast(destination)
            || self.on_link_prefixes(link).iter().any(subnet)
        {
            Some(DropReason::BroadcastDestination)
        } else {
            None
        }
    }

    /// The master of a bridge port or of a member of a bond (`rx_handler`).
    fn receiving_link(&self, ifindex: Ifindex) -> Ifindex {
        let mut current = ifindex;
        // A loop of masters cannot be; a damaged snapshot may hold one.
        for _ in 0..self.netns.links.len() {
            let master = self.link(current).and_then(|link| self.link(link.master?));
            match master {
                Some(master)
                    if matches!(
                        master.kind,
                        LinkKind::Bridge | LinkKind::Bond | LinkKind::Team
                    ) =>
                {
                    current = master.ifindex;
                }
                Some(_) | None => break,
            }
        }
        current
    }

    /// Addresses that neighbours on this link take to be on it.
    pub(super) fn on_link_prefixes(&self, link: Ifindex) -> Vec<Prefix> {
        let family = self.family();
        let own = |address: &&Address| address.ifindex == link && address.prefix.family() == family;
        let mut prefixes: Vec<Prefix> = Vec::new();
        for address in self.netns.addresses.iter().filter(own) {
            if address.prefix.length() < family.bits() {
                prefixes.push(address.prefix.network());
            }
            if is_link_local(address.address()) {
                prefixes.extend(Prefix::new(address.address(), 64).map(Prefix::network));
            }
        }
        let routes = self.netns.routes.iter().filter(|route| is_connected(route, link));
        prefixes.extend(routes.map(|route| route.destination).filter(|of| of.family() == family));
        prefixes
    }

    /// Whether clients on this link know an address for a broadcast address, which nobody resolves.
    pub(super) fn is_broadcast_on(&self, link: Ifindex, address: IpAddr) -> bool {
        is_limited_broadcast(address)
            || (self.family() == Family::Ipv4
                && self.on_link_prefixes(link).iter().any(|prefix| {
                    prefix.length() < 31 && prefix.range().1 == address_value(address)
                }))
    }

    /// Whether this machine answers who asks for the address on this link.
    fn who_has(&mut self, ifindex: Ifindex) -> Neighbor {
        let destination = self.packet.destination;
        let flags = self.link(ifindex).map_or_else(LinkFlags::default, |link| link.flags);
        let resolves = ![LinkFlags::NO_ARP, LinkFlags::POINT_TO_POINT, LinkFlags::LOOPBACK]
            .into_iter()
            .any(|flag| flags.has(flag));
        if !resolves || destination.is_multicast() || self.is_broadcast_on(ifindex, destination) {
            return Neighbor::Answered;
        }
        let mut around = self.on_link_prefixes(ifindex);
        around.retain(|prefix| prefix.contains(destination));
        let Some(sender) = self.resolver(&around) else { return Neighbor::Answered };
        match self.family() {
            Family::Ipv4 => {
                self.arp_hooks();
                let answer = self.arp_process(ifindex, sender);
                self.past_rules(answer, ifindex, sender)
            }
            Family::Ipv6 => {
                let answer = self.ndisc_recv_ns(ifindex);
                self.past_rules(answer, ifindex, sender)
            }
        }
    }

    /// Question and answer pass rules like other packets. Where this machine would not answer anyway,
    /// that is the reason.
    fn past_rules(&mut self, answer: Neighbor, ifindex: Ifindex, sender: IpAddr) -> Neighbor {
        if !matches!(answer, Neighbor::Answered) {
            return answer;
        }
        let port = self.port.unwrap_or(ifindex);
        // Link-local addresses do not cross routers: such a client asks by itself.
        let own = Some(self.packet.source).filter(|source| is_link_local(*source));
        let sender = own.unwrap_or(sender);
        match self.neighbor_hooks(sender, port, ifindex) {
            Ok(()) => Neighbor::Answered,
            Err(stop) => Neighbor::Silent(stop.reason),
        }
    }

    /// Who asks: the source itself if it shares an on-link prefix with the destination, otherwise a
    /// router there. A router's address is not known; the lowest that is not this machine's stands
    /// for it.
    fn resolver(&self, around: &[Prefix]) -> Option<IpAddr> {
        if around.iter().any(|prefix| prefix.contains(self.packet.source)) {
            return Some(self.packet.source);
        }
        // A prefix of one address holds no router.
        let mut around = around.to_vec();
        around.retain(|prefix| prefix.length() < prefix.family().bits());
        around.sort_by_key(|prefix| u8::MAX - prefix.length());
        around.into_iter().find_map(|prefix| self.some_router_in(prefix))
    }

    /// The lowest address of a prefix that a router could have.
    fn some_router_in(&self, prefix: Prefix) -> Option<IpAddr> {
        let family = prefix.family();
        let (low, high) = prefix.range();
        let first = match family {
            Family::Ipv4 if prefix.length() < 31 => low + 1,
            Family::Ipv4 | Family::Ipv6 => low,
        };
        let own = |address: IpAddr| self.netns.addresses.iter().any(|own| own.address() == address);
        // There are no more own addresses in a row than own addresses.
        let last = high.min(first.saturating_add(self.netns.addresses.len() as u128));
        (first..=last).map(|value| family.address(value)).find(|address| !own(*address))
    }

    /// `arp_process`, for a request from `sender` for the destination.
    fn arp_process(&mut self, device: Ifindex, sender: IpAddr) -> Neighbor {
        let target = self.packet.destination;
        if target.is_loopback() && self.link_sysctl(LinkSysctl::RouteLocalnet, device) == 0 {
            return Neighbor::RouteRefuses;
        }
        match self.ip_route_input(device, sender, 0, (0, 0)) {
            RouteInput::Local => {}
            RouteInput::Forward(way_out)
                if way_out != Some(device)
                    && self.link_sysctl(LinkSysctl::Forwarding, device) != 0
                    && (self.link_sysctl(LinkSysctl::ProxyArp, device) != 0
                        || self.is_proxied(device, target)) =>
            {
                return Neighbor::Answered;
            }
            RouteInput::Forward(_)
            | RouteInput::Broadcast
            | RouteInput::Anycast
            | RouteInput::Refused(..) => return Neighbor::RouteRefuses,
        }
        if self.arp_ignore(device, sender, target) || self.arp_filter(device, sender, target) {
            return Neighbor::Silent(DropReason::NeighborSilent);
        }
        Neighbor::Answered
    }

    /// `pneigh_lookup`: an entry of `ip neigh add proxy`.
    fn is_proxied(&self, device: Ifindex, target: IpAddr) -> bool {
        self.netns.neighbors.iter().any(|neighbor| {
            neighbor.proxy && neighbor.ifindex == device && neighbor.address == target
        })
    }

    /// `arp_ignore`: `true` to stay silent.
    fn arp_ignore(&mut self, device: Ifindex, sender: IpAddr, target: IpAddr) -> bool {
        match self.link_sysctl(LinkSysctl::ArpIgnore, device) {
            1 => !self.confirm_addr_indev(device, None, target, Scope::HOST),
            2 => !self.confirm_addr_indev(device, Some(sender), target, Scope::HOST),
            3 => {
                let links: Vec<Ifindex> =
                    self.netns.links.iter().map(|link| link.ifindex).collect();
                !links
                    .into_iter()
                    .any(|link| self.confirm_addr_indev(link, None, target, Scope::LINK))
            }
            8 => true,
            _ => false,
        }
    }

    /// `confirm_addr_indev`, for a given local address: the link has it, in a scope that is wide
    /// enough, and one of the link's subnets holds it and the other side.
    fn confirm_addr_indev(
        &mut self,
        device: Ifindex,
        other: Option<IpAddr>,
        local: IpAddr,
        scope: Scope,
    ) -> bool {
        let local_scope = self.widest_host_scope(device);
        let of_link = |address: &&Address| address.ifindex == device;
        let addresses = self.netns.addresses.iter().filter(of_link);
        let has_it = addresses
            .clone()
            .any(|address| address.address() == local && address.scope.min(local_scope) <= scope);
        let same_subnet = addresses.clone().any(|address| {
            subnet(address).contains(local) && other.is_none_or(|of| subnet(address).contains(of))
        });
        has_it && same_subnet
    }

    /// `arp_filter`: `true` to stay silent, because the way to the asker is another link.
    fn arp_filter(&mut self, device: Ifindex, sender: IpAddr, target: IpAddr) -> bool {
        if self.link_sysctl(LinkSysctl::ArpFilter, device) == 0 {
            return false;
        }
        let flow = Flow {
            destination: sender,
            source: Some(target),
            oif: self.l3mdev_master(device),
            ..self.output_flow(sender)
        };
        match self.ip_route_output(&flow, false) {
            // To an address of its own this machine sends by `lo`, or by the VRF.
            Ok(way) => self.stays(&way) || way.links.first() != Some(&device),
            Err(_) => true,
        }
    }

    /// `ndisc_recv_ns`: only addresses of the link itself, or of its VRF, are answered.
    fn ndisc_recv_ns(&mut self, device: Ifindex) -> Neighbor {
        let target = self.packet.destination;
        let vrf = self.l3mdev_master(device).filter(|vrf| *vrf != device);
        for link in [Some(device), vrf].into_iter().flatten() {
            let own = self
                .netns
                .addresses
                .iter()
                .find(|address| address.ifindex == link && address.address() == target);
            match own {
                Some(address) if address.is_tentative() => {
                    return Neighbor::Silent(DropReason::Tentative);
                }
                Some(_) => return Neighbor::Answered,
                None => {}
            }
        }
        let anycast = self.netns.routes.iter().any(|route| {
            route.kind == RouteType::Anycast
                && route.destination == Prefix::host(target)
                && route.nexthops.iter().any(|nexthop| nexthop.ifindex == Some(device))
        });
        let proxied = self.is_proxied(device, target)
            && self.link_sysctl(LinkSysctl::V6Forwarding, device) != 0
            && (self.all_sysctl(LinkSysctl::V6ProxyNdp) != 0
                || self.link_sysctl(LinkSysctl::V6ProxyNdp, device) != 0);
        if anycast || proxied { Neighbor::Answered } else { Neighbor::RouteRefuses }
    }
}

/// A route whose destinations are neighbours on this link.
fn is_connected(route: &Route, link: Ifindex) -> bool {
    let scope_fits = match route.family() {
        Family::Ipv4 => route.scope == Scope::LINK,
        Family::Ipv6 => true,
    };
    route.kind == RouteType::Unicast
        && scope_fits
        && route
            .nexthops
            .iter()
            .any(|nexthop| nexthop.ifindex == Some(link) && nexthop.gateway.is_none())
}

/// What `inet_ifa_match` compares with: the subnet of an address, or of its peer.
fn subnet(address: &Address) -> Prefix {
    let other_end = address.peer.unwrap_or_else(|| address.address());
    Prefix::new(other_end, address.prefix.length()).unwrap_or(address.prefix).network()
}
