//! A client on this machine that dials one of its addresses.
//!
//! Mirrors `ip_route_connect` (include/net/route.h), `tcp_v4_connect`, `tcp_v6_connect`,
//! `ip6_dst_lookup_tail` and the loopback device. The packet leaves by `lo` and comes back in by it,
//! with its route attached: neither martian checks nor source validation happen. Left out: clients
//! bound to a link.

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, Ifindex, NfHook, Proto, RouteType};

use super::netfilter::NfStop;
use super::netfilter::skb::{Owner, Skb};
use super::output::{NoWayOut, WayOut};
use super::route::{Arrived, is_limited_broadcast, is_link_local};
use super::table::{FibError, Flow};
use super::walk::{Stop, Walk};
use crate::{DropReason, SocketIndex, Stage, TheySee};

/// What connect(2) decided.
struct Connected {
    arrived: Arrived,
    /// The link that the packet is sent by.
    device: Ifindex,
    /// It comes back in on this machine.
    stays: bool,
}

impl Walk<'_> {
    /// The stages for a client of this machine.
    pub(super) fn leave_and_return(&mut self, uid: u32) -> Result<Vec<SocketIndex>, Stop> {
        self.connect_hooks();
        self.route_gaps();
        let Connected { mut arrived, device, stays } = self.connect(uid)?;
        self.client.source = arrived.source;
        self.client.destination = arrived.destination;
        self.hooks(Stage::Output);
        let mut skb = self.first_skb(self.client);
        skb.owner = Owner::Client(uid);
        let left = if stays {
            self.leave(&mut skb, &arrived, device)?
        } else {
            let there = self.leave(&mut skb, &arrived, device);
            // Only rules can turn it round.
            let turned = there.ok().flatten();
            let away = Stop { reason: DropReason::NotLocal, they_see: None };
            Some(turned.ok_or(away)?)
        };
        let out = match left {
            Some(looped) => {
                arrived = looped.0;
                looped.1
            }
            None => device,
        };
        if !self.link(out).is_some_and(|link| link.is_up()) {
            return Err(self.silent(DropReason::LinkDown));
        }
        self.ingress_hooks(out);
        self.hooks(Stage::Prerouting);
        self.hooks(Stage::Input);
        if let Err(stop) = self.loop_back(&mut skb, out) {
            return Err(self.nf_stopped(stop, &skb, &arrived));
        }
        self.adopt(&skb);
        arrived.source = skb.source;
        let sockets = self.socket_stage(&arrived)?;
        self.gate_stage(&sockets)?;
        if !arrived.broadcast {
            // Its link and user may lead the answer astray even here.
            self.reply_stage(&arrived, &sockets)?;
        }
        Ok(sockets)
    }

    /// The client's packet past output and postrouting. Where rules gave it another route: where that
    /// leads, inside this machine.
    fn leave(
        &mut self,
        skb: &mut Skb,
        arrived: &Arrived,
        device: Ifindex,
    ) -> Result<Option<(Arrived, Ifindex)>, Stop> {
        if let Err(stop) = self.ip_hook(NfHook::Output, skb, None, Some(device)) {
            return Err(self.refused_here(stop, skb, arrived));
        }
        let looped = match skb.rerouted.clone() {
            Some(way) if !self.stays(&way) => {
                let away = way.links.first().copied().unwrap_or(device);
                let passed = self.post_route(skb, away);
                return Err(match passed {
                    Ok(()) => Stop { reason: DropReason::Forwarded, they_see: None },
                    Err(stop) => self.refused_here(stop, skb, arrived),
                });
            }
            Some(way) => Some(self.looped(&way, skb.destination, skb.source)),
            None => None,
        };
        let out = looped.as_ref().map_or(device, |(_, out)| *out);
        if let Err(stop) = self.post_route(skb, out) {
            return Err(self.refused_here(stop, skb, arrived));
        }
        Ok(looped)
    }

    /// The end of a packet before it has left: a datagram's sender gets the error at once, TCP goes on
    /// trying.
    fn refused_here(&mut self, stop: NfStop, skb: &Skb, arrived: &Arrived) -> Stop {
        let mut end = self.nf_stopped(stop, skb, arrived);
        if self.packet.proto == Proto::Udp {
            end.they_see = Some(stop.sees.unwrap_or(TheySee::OperationNotPermitted));
        }
        end
    }

    /// Where connect(2) leads, and the link the packet loops through.
    fn connect(&mut self, uid: u32) -> Result<Connected, Stop> {
        if self.packet.destination.is_multicast() {
            let to_lo = |arrived| Connected { arrived, device: LOOPBACK_IFINDEX, stays: true };
            return self.connect_to_group(uid).map(to_lo);
        }
        match self.family() {
            Family::Ipv4 => self.ip_route_connect(uid),
            Family::Ipv6 => self.ip6_connect(uid),
        }
    }

    /// A group needs a route like any other destination. IPv6 TCP does not get as far as to ask for it,
    /// and IPv4 takes the link of a source that is given.
    fn connect_to_group(&mut self, uid: u32) -> Result<Arrived, Stop> {
        let (source, destination) = (self.packet.source, self.packet.destination);
        let bound = Some(source).filter(|source| !source.is_unspecified());
        let needs_route = match self.family() {
            Family::Ipv4 => bound.is_none(),
            Family::Ipv6 => self.packet.proto == Proto::Udp,
        };
        if needs_route {
            self.connect_route(&self.connect_flow(uid, destination, bound))?;
        }
        let arrived = self.arrived(destination, source, None, true);
        self.multicast_destination(&arrived)
    }

    fn arrived(
        &self,
        destination: IpAddr,
        source: IpAddr,
        dif: Option<Ifindex>,
        broadcast: bool,
    ) -> Arrived {
        let dif = dif.unwrap_or(LOOPBACK_IFINDEX);
        Arrived { source, destination, link: None, dif, sdif: None, broadcast }
    }

    fn connect_flow(&self, uid: u32, destination: IpAddr, source: Option<IpAddr>) -> Flow {
        Flow {
            source,
            uid,
            ip_protocol: self.packet.proto.number(),
            source_port: self.packet.source_port.0,
            destination_port: self.packet.destination_port.0,
            ..self.output_flow(destination)
        }
    }

    /// `ip_route_connect`: the first lookup chooses the source, the second one uses it.
    fn ip_route_connect(&mut self, uid: u32) -> Result<Connected, Stop> {
        let bound = Some(self.packet.source).filter(|source| !source.is_unspecified());
        let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let (destination, source) = if self.packet.destination.is_unspecified() {
            (bound.unwrap_or(loopback), bound.or(Some(loopback)))
        } else {
            let destination = self.packet.destination;
            let way = self.connect_route(&self.connect_flow(uid, destination, bound))?;
            if is_limited_broadcast(destination) {
                return Err(self.refused_broadcast());
            }
            (destination, bound.or_else(|| self.chosen_source(&way, destination)))
        };
        let way = self.connect_way(&self.connect_flow(uid, destination, source))?;
        Ok(self.connected(&way, destination, source.unwrap_or(destination)))
    }

    /// Where the route of a packet leads: back in, or away.
    fn connected(&self, way: &WayOut, destination: IpAddr, source: IpAddr) -> Connected {
        if self.stays(way) {
            let (arrived, device) = self.looped(way, destination, source);
            return Connected { arrived, device, stays: true };
        }
        let link = way.links.first().copied();
        let arrived = self.arrived(destination, source, link, false);
        Connected { device: arrived.dif, arrived, stays: false }
    }

    /// The packet on its way through `lo`, or through the VRF that stands for it.
    fn looped(&self, way: &WayOut, destination: IpAddr, source: IpAddr) -> (Arrived, Ifindex) {
        // The socket lookup sees the link of the local route, not the one it loops through.
        let owner = way.links.first().copied();
        // `ip6_rt_get_dev_rcu` sends what belongs to one link by `lo` also inside a VRF.
        let vrf = owner.filter(|_| !is_link_local(destination));
        let vrf = vrf.and_then(|link| self.l3mdev_master(link));
        let through = vrf.unwrap_or(LOOPBACK_IFINDEX);
        (self.arrived(destination, source, owner, false), through)
    }

    /// One lookup of connect(2), and the error it may end with.
    fn connect_route(&mut self, flow: &Flow) -> Result<WayOut, Stop> {
        self.ip_route_output(flow, false).map_err(|error| match error {
            NoWayOut::Source => Stop {
                reason: DropReason::ReplySourceNotLocal,
                they_see: Some(TheySee::NetworkUnreachable),
            },
            NoWayOut::Fib(error) => refused(error),
        })
    }

    /// The last lookup, and the error it may end with.
    fn connect_way(&mut self, flow: &Flow) -> Result<WayOut, Stop> {
        let way = self.connect_route(flow)?;
        if way.kind == RouteType::Broadcast {
            return Err(self.refused_broadcast());
        }
        Ok(way)
    }

    /// UDP needs SO_BROADCAST, which ordinary clients do not set.
    const fn refused_broadcast(&self) -> Stop {
        let they_see = Some(match self.packet.proto {
            Proto::Tcp => TheySee::NetworkUnreachable,
            Proto::Udp => TheySee::PermissionDenied,
        });
        Stop { reason: DropReason::BroadcastDestination, they_see }
    }

    /// `fib_select_path`: the source that goes with a route.
    fn chosen_source(&mut self, way: &WayOut, destination: IpAddr) -> Option<IpAddr> {
        let route = &self.netns.routes[way.route?];
        let nexthop = way.nexthops.first();
        let gateway = nexthop.and_then(|nexthop| nexthop.gateway);
        match (route.preferred_source, nexthop.and_then(|nexthop| nexthop.ifindex)) {
            (Some(preferred), _) => Some(preferred),
            (None, _) if route.kind == RouteType::Local => Some(destination),
            (None, Some(link)) => {
                self.inet_select_addr(link, gateway, route.scope).first().copied()
            }
            (None, None) => None,
        }
    }

    /// `tcp_v6_connect` and `ip6_dst_lookup_tail`: a route first, then a source for it; without a
    /// route the source comes first, and another lookup with it.
    fn ip6_connect(&mut self, uid: u32) -> Result<Connected, Stop> {
        let loopback = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        let dialled = Some(self.packet.destination).filter(|to| !to.is_unspecified());
        let destination = dialled.unwrap_or(loopback);
        let bound = Some(self.packet.source).filter(|source| !source.is_unspecified());
        let mut flow = self.connect_flow(uid, destination, bound);
        if is_link_local(destination) {
            // Whoever dials a link-local address names its link.
            let owner = self.netns.addresses.iter().find(|own| own.address() == destination);
            flow.oif = owner.map(|own| own.ifindex);
            flow.strict = true;
        }
        let mut answer = self.ip_route_output(&flow, false);
        let (route, by) = match &answer {
            Ok(way) => (way.route, way.links.first().copied()),
            Err(NoWayOut::Fib(FibError::Discarded(route))) => {
                (Some(*route), Some(LOOPBACK_IFINDEX))
            }
            Err(_) => (None, None),
        };
        let named = route.and_then(|route| self.netns.routes[route].preferred_source);
        let candidates = self.ipv6_dev_get_saddr(by, destination);
        let chosen = bound.or(named).or_else(|| candidates.first().copied());
        let Some(source) = chosen else {
            let they_see = Some(TheySee::AddressNotAvailable);
            return Err(Stop { reason: DropReason::NoRoute, they_see });
        };
        if route.is_none() {
            flow.source = Some(source);
            answer = self.ip_route_output(&flow, false);
        }
        match answer {
            Err(NoWayOut::Fib(FibError::Discarded(_))) => Err(self.discarded(source, destination)),
            Err(NoWayOut::Fib(error)) => Err(refused(error)),
            Err(NoWayOut::Source) => Err(refused(FibError::NoRoute)),
            Ok(way) => {
                if self.stays(&way)
                    && way.kind == RouteType::Anycast
                    && self.packet.proto == Proto::Tcp
                {
                    return Err(self.silent(DropReason::AnycastDestination));
                }
                Ok(self.connected(&way, destination, source))
            }
        }
    }

    /// `ip6_pkt_discard_out`: the error of connect(2) comes as an ICMPv6 message, from the address
    /// dialled if it is one of this machine's, which has to find its way as well. UDP sockets are not
    /// told (`icmpv6_err_convert` calls it not fatal).
    fn discarded(&mut self, source: IpAddr, dialled: IpAddr) -> Stop {
        let reason = DropReason::RouteUnreachable;
        let own = self.netns.addresses.iter().any(|own| own.address() == dialled);
        let flow = Flow {
            source: Some(if own { dialled } else { source }),
            oif: is_link_local(source).then_some(LOOPBACK_IFINDEX),
            ip_protocol: 58,
            ..self.output_flow(source)
        };
        let way = self.ip_route_output(&flow, false);
        if self.packet.proto == Proto::Tcp && way.is_ok_and(|way| self.stays(&way)) {
            return Stop { reason, they_see: Some(TheySee::NetworkUnreachable) };
        }
        self.silent(reason)
    }
}

/// What connect(2) returns.
const fn refused(error: FibError) -> Stop {
    let reason = match error {
        FibError::NoRoute | FibError::Again => DropReason::NoRoute,
        FibError::RuleUnreachable | FibError::RouteUnreachable | FibError::Discarded(_) => {
            DropReason::RouteUnreachable
        }
        FibError::Prohibit => DropReason::RouteProhibit,
        FibError::Blackhole => DropReason::RouteBlackhole,
    };
    Stop { reason, they_see: Some(errno(error)) }
}

/// The error of a lookup, as a program sees it.
pub(super) const fn errno(error: FibError) -> TheySee {
    match error {
        FibError::NoRoute
        | FibError::Again
        | FibError::RuleUnreachable
        | FibError::Discarded(_) => TheySee::NetworkUnreachable,
        FibError::RouteUnreachable => TheySee::HostUnreachable,
        FibError::Prohibit => TheySee::PermissionDenied,
        FibError::Blackhole => TheySee::InvalidArgument,
    }
}
