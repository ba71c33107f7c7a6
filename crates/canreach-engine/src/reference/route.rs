//! Input routing: is the address this machine's, and is the packet acceptable?
//!
//! Mirrors `ip_route_input_slow` (net/ipv4/route.c), `ip6_rcv_core` and `ip6_route_input`
//! (net/ipv6/ip6_input.c, route.c), `vrf_ip_rcv` and `vrf_ip6_rcv` (drivers/net/vrf.c). Left out:
//! multicast forwarding, IP options, IPsec.

use std::net::IpAddr;

use canreach_snapshot::{
    Family, GapSubject, Ifindex, LinkFlags, LinkSysctl, NfHook, PolicyAction, PolicyRule, Proto,
    RouteType,
};

use super::reply::Answering;
use super::table::{FibError, Flow};
use super::walk::{Stop, Walk, gap_reason};
use crate::{Arrival, DoubtEffect, DropReason, TheySee, UnknownReason};

/// A packet that input routing handed on to the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Its source; for a local client the one the kernel chose.
    pub(super) source: IpAddr,
    /// Its destination; dialling 0.0.0.0 or `::` changes it.
    pub(super) destination: IpAddr,
    /// The link it came in by, not a VRF above it; for a local client none.
    pub(super) link: Option<Ifindex>,
    /// The link the socket lookup uses (`inet_iif`): a VRF stands for its members.
    pub(super) dif: Ifindex,
    /// The member of the VRF it came in by (`inet_sdif`).
    pub(super) sdif: Option<Ifindex>,
    /// To everyone on the link, not to this machine alone.
    pub(super) broadcast: bool,
}

impl Arrived {
    /// The link that the hooks see it on: a VRF stands for its members.
    pub(super) fn seen_on(&self) -> Ifindex {
        if self.sdif.is_some() { self.dif } else { self.link.unwrap_or(self.dif) }
    }
}

/// What input routing makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteInput {
    /// For this machine.
    Local,
    /// For everyone on the link, this machine among them.
    Broadcast,
    /// IPv6: for this machine, which shares the address with others.
    Anycast,
    /// Sent on, by this link.
    Forward(Option<Ifindex>),
    /// Refused, and what is sent back by ICMP.
    Refused(DropReason, Option<Icmp>),
}

/// Where input routing sends a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Onward {
    /// To the sockets.
    Here(Arrived),
    /// On, by this link.
    Away(Option<Ifindex>),
}

/// What an ICMP error makes a TCP client and a UDP client see.
pub(super) type Icmp = (TheySee, TheySee);

impl Walk<'_> {
    /// The stage: gaps, the checks before routing, then routing itself, and the forward hook.
    pub(super) fn route_stage(&mut self, link: Ifindex) -> Result<Arrived, Stop> {
        self.route_gaps();
        let arrived = self.before_routing(link);
        let stolen = self.current.as_ref().is_some_and(|skb| skb.stolen.is_some());
        match self.route_decision(link)? {
            Onward::Here(arrived) => Ok(arrived),
            // `ip_forward` drops what has a socket.
            Onward::Away(_) if stolen => Err(self.stopped(self.silent(DropReason::NotLocal))),
            Onward::Away(way_out) => {
                if let Some(mut skb) = self.current.clone() {
                    let passed =
                        self.ip_hook(NfHook::Forward, &mut skb, Some(arrived.seen_on()), way_out);
                    if let Err(stop) = passed {
                        return Err(self.nf_stopped(stop, &skb, &arrived));
                    }
                }
                Err(self.stopped(Stop { reason: DropReason::Forwarded, they_see: None }))
            }
        }
    }

    /// A packet that routing has not seen yet.
    pub(super) fn before_routing(&self, link: Ifindex) -> Arrived {
        let vrf = self.l3mdev_master(link).filter(|vrf| *vrf != link);
        Arrived {
            source: self.packet.source,
            destination: self.packet.destination,
            link: Some(link),
            dif: vrf.unwrap_or(link),
            sdif: vrf.map(|_| link),
            broadcast: false,
        }
    }

    /// Input routing.
    pub(super) fn route_decision(&mut self, link: Ifindex) -> Result<Onward, Stop> {
        let (source, destination) = (self.packet.source, self.packet.destination);
        let vrf = self.l3mdev_master(link).filter(|vrf| *vrf != link);
        let arrived = |broadcast| Arrived { broadcast, ..self.before_routing(link) };
        let (here, to_all) = (arrived(false), arrived(true));
        if destination.is_multicast() {
            return self.multicast_destination(&to_all).map(Onward::Here);
        }
        let decision = match self.family() {
            Family::Ipv4 => {
                let (protocol, ports) = (self.packet.proto.number(), self.ports());
                self.ip_route_input(vrf.unwrap_or(link), source, protocol, ports)
            }
            Family::Ipv6 => self.ip6_input(link, vrf),
        };
        let tcp = self.packet.proto == Proto::Tcp;
        match decision {
            RouteInput::Local => Ok(Onward::Here(here)),
            RouteInput::Anycast if !tcp => Ok(Onward::Here(here)),
            RouteInput::Broadcast if !tcp => Ok(Onward::Here(to_all)),
            RouteInput::Anycast => Err(self.stopped(self.silent(DropReason::AnycastDestination))),
            // `tcp_v4_rcv` takes nothing that came as broadcast.
            RouteInput::Broadcast => {
                Err(self.stopped(self.silent(DropReason::BroadcastDestination)))
            }
            RouteInput::Forward(way_out) => Ok(Onward::Away(way_out)),
            RouteInput::Refused(reason, None) => Err(self.stopped(self.silent(reason))),
            RouteInput::Refused(reason, Some((tcp_sees, udp_sees))) => {
                let they_see = if tcp { tcp_sees } else { udp_sees };
                let back = self.answered(Answering::RouteError, &here, they_see);
                Err(self.stopped(Stop { reason, they_see: back }))
            }
        }
    }

    /// A stop of this stage. If nobody answers for the address, the packet is never even sent.
    pub(super) fn stopped(&self, stop: Stop) -> Stop {
        if self.unheard {
            return Stop { they_see: Some(self.neighbor_fails()), ..stop };
        }
        stop
    }

    /// Gaps in what routing reads, and rules with selectors or actions nobody knows. A packet from a link has met
    /// the gap about links already.
    pub(super) fn route_gaps(&mut self) {
        let family = self.family();
        for gap in &self.netns.gaps {
            let concerns = match &gap.subject {
                GapSubject::Links => matches!(self.packet.arrival, Arrival::Local { .. }),
                GapSubject::Addresses(of)
                | GapSubject::Routes(of)
                | GapSubject::PolicyRules(of) => *of == family,
                GapSubject::Nexthops
                | GapSubject::Neighbors
                | GapSubject::Sysctl(_)
                | GapSubject::Sockets(..)
                | GapSubject::SocketDetails(..)
                | GapSubject::SocketMarks
                | GapSubject::Owners
                | GapSubject::FibLayout
                | GapSubject::NftRuleset
                | GapSubject::LegacyTables(_)
                | GapSubject::Ipsets
                | GapSubject::Xdp
                | GapSubject::Tc
                | GapSubject::CgroupBpf
                | GapSubject::SkLookup
                | GapSubject::NetfilterBpf
                | GapSubject::Netns(_) => false,
            };
            if concerns {
                self.doubt(gap_reason(gap), DoubtEffect::MayRedirect);
            }
        }
        let unknown = |rule: &PolicyRule| {
            rule.family == family
                && (!rule.unrecognized.is_empty() || matches!(rule.action, PolicyAction::Other(_)))
        };
        if self.netns.policy_rules.iter().any(unknown) {
            self.doubt(UnknownReason::Unread, DoubtEffect::MayRedirect);
        }
    }

    /// TCP knows no groups; for UDP the membership decides, which is not read.
    pub(super) fn multicast_destination(&mut self, arrived: &Arrived) -> Result<Arrived, Stop> {
        let reason = DropReason::MulticastDestination;
        if self.packet.proto == Proto::Tcp {
            // The client's own kernel refuses.
            return Err(Stop { reason, they_see: Some(TheySee::NetworkUnreachable) });
        }
        if !self.port_is_taken() {
            return Err(self.silent(reason));
        }
        self.doubt(UnknownReason::MulticastMembership, DoubtEffect::MayRedirect);
        Ok(arrived.clone())
    }

    const fn ports(&self) -> (u16, u16) {
        (self.packet.source_port.0, self.packet.destination_port.0)
    }

    /// `ip_route_input_slow`, on `device`. ARP asks the same question with protocol 0 and its own
    /// source (`arp_process`).
    pub(super) fn ip_route_input(
        &mut self,
        device: Ifindex,
        source: IpAddr,
        ip_protocol: u8,
        ports: (u16, u16),
    ) -> RouteInput {
        let destination = self.packet.destination;
        let is_arp = ip_protocol == 0;
        let martian = RouteInput::Refused(DropReason::Martian, None);
        if source.is_multicast() || is_limited_broadcast(source) {
            return martian;
        }
        let flow = self.input_flow(device, source, ip_protocol, ports);
        let both_unspecified = source.is_unspecified() && destination.is_unspecified();
        if is_limited_broadcast(destination) || both_unspecified {
            return if is_arp { martian } else { self.broadcast_input(&flow, device) };
        }
        // `ipv4_is_zeronet`: 0.0.0.0 alone; the rest of 0.0.0.0/8 is ordinary since Linux 5.3.
        if source.is_unspecified() || destination.is_unspecified() {
            return martian;
        }
        // A pair with 127.0.0.0/8 in it is allowed by route_localnet alone.
        if (destination.is_loopback() || source.is_loopback())
            && self.link_sysctl(LinkSysctl::RouteLocalnet, device) == 0
        {
            return martian;
        }
        let found = match self.fib_lookup(&flow) {
            Ok(found) => found,
            Err(error) if self.forwards(device) => return ip_error(error),
            // Without forwarding every error becomes "host unreachable", and that is silence.
            Err(_) => return RouteInput::Refused(DropReason::NotLocal, None),
        };
        let route = &self.netns.routes[found.route];
        let way_out = route.nexthops.get(found.nexthops[0]).and_then(|nexthop| nexthop.ifindex);
        let forwards_broadcast = route.kind == RouteType::Broadcast
            && self.link_sysctl(LinkSysctl::BcForwarding, device) != 0;
        if route.kind == RouteType::Broadcast && !forwards_broadcast {
            return if is_arp { martian } else { self.broadcast_input(&flow, device) };
        }
        if route.kind == RouteType::Local {
            return match self.fib_validate_source(&flow, Some(destination), device, None) {
                Ok(()) => RouteInput::Local,
                Err(reason) => RouteInput::Refused(reason, None),
            };
        }
        if !forwards_broadcast {
            if !self.forwards(device) {
                return RouteInput::Refused(DropReason::NotLocal, None);
            }
            if route.kind != RouteType::Unicast {
                return martian;
            }
        }
        // `__mkroute_input`: ARP is answered for others only if they are on another link.
        match self.fib_validate_source(&flow, Some(destination), device, way_out) {
            Err(reason) => RouteInput::Refused(reason, None),
            Ok(()) if is_arp && way_out == Some(device) => martian,
            Ok(()) => RouteInput::Forward(way_out),
        }
    }

    fn forwards(&mut self, device: Ifindex) -> bool {
        self.link_sysctl(LinkSysctl::Forwarding, device) != 0
    }

    /// The flow of a received packet. The kernel looks for ports only where some rule wants them; in
    /// IPv6 it knows the protocol without looking.
    fn input_flow(
        &self,
        device: Ifindex,
        source: IpAddr,
        ip_protocol: u8,
        ports: (u16, u16),
    ) -> Flow {
        let family = self.family();
        let dissected = ip_protocol != 0 && self.rules_require_dissection(family);
        Flow {
            destination: self.packet.destination,
            source: Some(source),
            iif: Some(device),
            oif: None,
            l3mdev: None,
            // ARP asks without a mark.
            mark: if ip_protocol == 0 { 0 } else { self.mark },
            uid: 0,
            ip_protocol: if dissected || family == Family::Ipv6 { ip_protocol } else { 0 },
            source_port: if dissected { ports.0 } else { 0 },
            destination_port: if dissected { ports.1 } else { 0 },
            input: true,
            strict: false,
        }
    }

    /// The label `brd_input`: the source is checked as if nothing had been dialled.
    fn broadcast_input(&mut self, flow: &Flow, device: Ifindex) -> RouteInput {
        // TCP takes nothing from a broadcast, whoever sent it.
        if self.packet.proto == Proto::Tcp
            || flow.source.is_some_and(|source| source.is_unspecified())
        {
            return RouteInput::Broadcast;
        }
        match self.fib_validate_source(flow, None, device, None) {
            Ok(()) => RouteInput::Broadcast,
            Err(reason) => RouteInput::Refused(reason, None),
        }
    }

    /// `ip6_rcv_core`, `ip6_route_input`, and the handler of the route found.
    fn ip6_input(&mut self, link: Ifindex, vrf: Option<Ifindex>) -> RouteInput {
        let (source, destination) = (self.packet.source, self.packet.destination);
        let takes_loopback =
            self.link(link).is_some_and(|link| link.flags.has(LinkFlags::LOOPBACK))
                || self.l3mdev_master(link) == Some(link);
        let has_loopback = source.is_loopback() || destination.is_loopback();
        if source.is_multicast() || (has_loopback && !takes_loopback) {
            return RouteInput::Refused(DropReason::Martian, None);
        }
        let device = vrf.unwrap_or(link);
        let needs_strict = rt6_need_strict(destination);
        let flow = Flow {
            strict: needs_strict,
            ..self.input_flow(device, source, self.packet.proto.number(), self.ports())
        };
        // Of a VRF, link-local addresses are looked up in its own table, on the member itself
        // (`vrf_ip6_input_dst`); only if that finds nothing are the rules asked.
        let table = vrf.and_then(|vrf| self.link(vrf)?.vrf_table).filter(|_| needs_strict);
        let in_vrf = table.and_then(|table| {
            let on_member = Flow { iif: Some(link), ..flow.clone() };
            match self.fib6_table_lookup(table, &on_member) {
                Err(FibError::Again) => None,
                answer => Some(answer),
            }
        });
        let answer = in_vrf.unwrap_or_else(|| self.fib_lookup(&flow));
        let found = match answer {
            Ok(found) => found,
            Err(error) => return ip6_error(error),
        };
        let route = &self.netns.routes[found.route];
        match route.kind {
            RouteType::Local => RouteInput::Local,
            RouteType::Anycast => RouteInput::Anycast,
            RouteType::Unicast
            | RouteType::Broadcast
            | RouteType::Multicast
            | RouteType::Blackhole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw
            | RouteType::Nat
            | RouteType::Other(_) => {
                let way_out =
                    route.nexthops.get(found.nexthops[0]).and_then(|nexthop| nexthop.ifindex);
                self.ip6_forward(link, way_out)
            }
        }
    }

    /// `ip6_forward`: only if forwarding is on for all links, or forced for this one.
    fn ip6_forward(&mut self, link: Ifindex, way_out: Option<Ifindex>) -> RouteInput {
        if self.all_sysctl(LinkSysctl::V6Forwarding) != 0
            || self.link_sysctl(LinkSysctl::V6ForceForwarding, link) != 0
        {
            return RouteInput::Forward(way_out);
        }
        RouteInput::Refused(DropReason::NotLocal, None)
    }
}

/// `ip_error`, on a link that forwards.
const fn ip_error(error: FibError) -> RouteInput {
    let (reason, icmp) = match error {
        FibError::NoRoute | FibError::Again => {
            (DropReason::NoRoute, Some((TheySee::NetworkUnreachable, TheySee::Silence)))
        }
        FibError::RuleUnreachable | FibError::Discarded(_) => {
            (DropReason::RouteUnreachable, Some((TheySee::NetworkUnreachable, TheySee::Silence)))
        }
        FibError::RouteUnreachable => {
            (DropReason::RouteUnreachable, Some((TheySee::HostUnreachable, TheySee::Silence)))
        }
        FibError::Prohibit => {
            (DropReason::RouteProhibit, Some((TheySee::HostUnreachable, TheySee::HostUnreachable)))
        }
        FibError::Blackhole => (DropReason::RouteBlackhole, None),
    };
    RouteInput::Refused(reason, icmp)
}

/// `ip6_pkt_discard`, `ip6_pkt_prohibit`, `dst_discard`: with and without forwarding alike.
const fn ip6_error(error: FibError) -> RouteInput {
    let no_route = Some((TheySee::NetworkUnreachable, TheySee::Silence));
    let (reason, icmp) = match error {
        FibError::NoRoute | FibError::Again => (DropReason::NoRoute, no_route),
        FibError::RuleUnreachable | FibError::RouteUnreachable | FibError::Discarded(_) => {
            (DropReason::RouteUnreachable, no_route)
        }
        FibError::Prohibit => (
            DropReason::RouteProhibit,
            Some((TheySee::PermissionDenied, TheySee::PermissionDenied)),
        ),
        FibError::Blackhole => (DropReason::RouteBlackhole, None),
    };
    RouteInput::Refused(reason, icmp)
}

/// `ipv4_is_lbcast`.
pub(super) fn is_limited_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

/// `rt6_need_strict`: addresses that mean something on one link only.
pub(super) fn rt6_need_strict(address: IpAddr) -> bool {
    is_link_local(address) || address.is_multicast() || address.is_loopback()
}

/// fe80::/10. IPv4's 169.254.0.0/16 is nothing special to the kernel.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
