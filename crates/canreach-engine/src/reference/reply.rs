//! The way back: the SYN-ACK, a datagram sent in answer, a reset, an ICMP error.
//!
//! Mirrors `inet_csk_route_req`, `inet6_csk_route_req`, `udp_sendmsg`, `ip_send_unicast_reply`,
//! `icmp_route_lookup` and `icmp6_send`. Left out: neighbour resolution of the answer, IPsec, ICMP
//! rate limits.

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{
    Family, GapSubject, GlobalSysctl, Ifindex, Link, LinkKind, NextHop, NfHook, Prefix, Proto,
    RouteProtocol, RouteType, Scope, Socket,
};

use super::netfilter::skb::{Owner, PACKET_HOST, Skb, Tuple};
use super::netfilter::{NfStop, Rejection};
use super::output::{NoWayOut, WayOut};
use super::route::{Arrived, Onward, is_link_local};
use super::table::{FibError, Flow};
use super::walk::{Stop, Walk};
use crate::{Arrival, DoubtEffect, DropReason, SocketIndex, TheySee, UnknownReason};

/// An answer of the kernel itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answering {
    /// TCP reset.
    Reset,
    /// ICMP port unreachable, from the address dialled.
    PortUnreachable,
    /// ICMP error of routing, from whatever address suits.
    RouteError,
    /// What a rule sends back; `local` where routing found the packet to be for this machine.
    Rule { rejection: Rejection, local: bool },
}

/// Where an answer leaves, seen from where the packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    ByArrival,
    ByVpn,
    Elsewhere,
    BySeveral,
}

impl Walk<'_> {
    /// What the sender of a refused packet sees: the answer itself if it gets back, nothing if it has
    /// no way, `None` if that cannot be told.
    pub(super) fn answered(
        &mut self,
        kind: Answering,
        arrived: &Arrived,
        they_see: TheySee,
    ) -> Option<TheySee> {
        if they_see == self.nothing_comes_back() {
            // UDP is not told of this error, whether it gets back or not.
            return Some(they_see);
        }
        let (leaves, unsure, passes) = self.attempt(|walk| {
            let way = walk.answer_way(kind, arrived);
            let passes =
                way.as_ref().is_none_or(|(_, way)| walk.refusal_passes(kind, arrived, way));
            let leaves = way.map(|(leaves, _)| leaves);
            (leaves, !walk.doubts.is_empty(), passes)
        });
        let may_be_stopped = self.attempt(|walk| {
            if let Some(link) = arrived.link {
                walk.output_hooks(&[link], &[]);
            }
            !walk.doubts.is_empty()
        });
        match leaves {
            Some(Leaves::ByVpn) | None if !unsure => Some(self.nothing_comes_back()),
            Some(_) if !passes => Some(self.nothing_comes_back()),
            _ if unsure => None,
            Some(Leaves::ByArrival) => Some(they_see).filter(|_| !may_be_stopped),
            Some(Leaves::ByVpn) | None => Some(self.nothing_comes_back()),
            Some(Leaves::Elsewhere | Leaves::BySeveral) => None,
        }
    }

    /// Whether a refusal passes the hooks on its way out; to a client of this machine, on its way in
    /// again too.
    fn refusal_passes(&mut self, kind: Answering, arrived: &Arrived, way: &WayOut) -> bool {
        let Some(current) = self.current.clone() else { return true };
        let tuple = Tuple {
            source: arrived.destination,
            source_port: self.packet.destination_port.0,
            destination: arrived.source,
            destination_port: self.packet.source_port.0,
        };
        let unreachable =
            |walk: &Self, code| walk.unreachable_skb(arrived.destination, arrived.source, code);
        let mut skb = match kind {
            Answering::Reset => self.reset_skb(tuple, Owner::Kernel),
            Answering::PortUnreachable | Answering::RouteError => {
                let port = if kind == Answering::PortUnreachable { [3, 4] } else { [0, 0] };
                unreachable(self, port[usize::from(self.family() == Family::Ipv6)])
            }
            Answering::Rule { rejection: Rejection::Reset, .. } => {
                self.reset_skb(tuple, Owner::Nobody)
            }
            Answering::Rule { rejection: Rejection::Unreachable(code), .. } => {
                unreachable(self, code)
            }
        };
        if matches!(kind, Answering::Rule { .. }) {
            self.attach(&mut skb, &current);
        }
        skb.mark = self.reflected_mark();
        skb.port = current.port;
        self.answer_passes(&mut skb, arrived, way).is_ok()
    }

    /// An answer past the hooks on its way to the client.
    fn answer_passes(
        &mut self,
        skb: &mut Skb,
        arrived: &Arrived,
        way: &WayOut,
    ) -> Result<(), NfStop> {
        if arrived.link.is_none() {
            let out = self.go_out(skb, LOOPBACK_IFINDEX)?;
            if skb.rerouted.as_ref().is_some_and(|way| !self.stays(way)) {
                // Sent away, past the client.
                let reason = DropReason::NoReplyRoute;
                return Err(NfStop { reason, answer: None, sees: None });
            }
            return self.loop_back(skb, out);
        }
        let Some((first, others)) = way.links.split_first() else { return Ok(()) };
        let before = self.clone();
        let untouched = skb.clone();
        let passed = self.go_out(skb, *first).map(|_| ());
        let agree = others.iter().all(|link| {
            let other = before.attempt(|walk| walk.go_out(&mut untouched.clone(), *link));
            other.is_ok() == passed.is_ok()
        });
        if !agree {
            self.doubt(UnknownReason::Multipath, DoubtEffect::MayStop);
        }
        passed
    }

    /// `ip_send_unicast_reply`, `tcp_v6_send_response`, `icmp_route_lookup`, `icmp6_send`: the way of
    /// an answer of the kernel; `None` if it has none.
    fn answer_way(&mut self, kind: Answering, arrived: &Arrived) -> Option<(Leaves, WayOut)> {
        let family = self.family();
        let vrf = arrived.link.and_then(|link| self.l3mdev_master(link));
        let own_link = arrived.link.unwrap_or(arrived.dif);
        let oif = if is_link_local(arrived.source) { Some(own_link) } else { vrf };
        let base = Flow { oif, mark: self.reflected_mark(), ..self.output_flow(arrived.source) };
        let mut icmp = Flow { ip_protocol: 1, ..base.clone() };
        let local = match kind {
            Answering::Reset | Answering::PortUnreachable => true,
            Answering::RouteError => false,
            Answering::Rule { local, .. } => local,
        };
        let is_reset = match kind {
            Answering::Reset => true,
            Answering::PortUnreachable | Answering::RouteError => false,
            Answering::Rule { rejection, .. } => rejection == Rejection::Reset,
        };
        let sources = match family {
            Family::Ipv4 | Family::Ipv6 if is_reset => {
                let flow = Flow {
                    source: Some(arrived.destination),
                    ip_protocol: Proto::Tcp.number(),
                    source_port: self.packet.destination_port.0,
                    destination_port: self.packet.source_port.0,
                    ..base
                };
                // A rule's reset is routed like a packet that was changed (`ip_route_me_harder`).
                let any_source = matches!(kind, Answering::Rule { .. });
                let way = self.ip_route_output(&flow, any_source).ok()?;
                return Some((self.leaves(&way, arrived)?, way));
            }
            Family::Ipv4 if local => vec![arrived.destination],
            Family::Ipv4 => Vec::new(),
            Family::Ipv6 => {
                icmp.ip_protocol = 58;
                self.icmp6_sources(&icmp, arrived, own_link)
            }
        };
        let first = sources.first().copied();
        let mut answer = |source| {
            let way = self.ip_route_output(&Flow { source, ..icmp.clone() }, false).ok()?;
            Some((self.leaves(&way, arrived)?, way))
        };
        let found = answer(first);
        // Which of several addresses it is sent from is not worked out (RFC 6724).
        let leaves = found.as_ref().map(|(leaves, _)| *leaves);
        let agree = sources
            .into_iter()
            .all(|source| answer(Some(source)).map(|(leaves, _)| leaves) == leaves);
        match found {
            Some((_, way)) if !agree => Some((Leaves::BySeveral, way)),
            None if !agree => {
                self.doubt(UnknownReason::Multipath, DoubtEffect::MayStop);
                None
            }
            found => found,
        }
    }

    /// The sources `icmp6_send` may choose from: the address dialled if it is this machine's, none yet
    /// if the route names one, otherwise the best of the link the packet came in by.
    fn icmp6_sources(&mut self, flow: &Flow, arrived: &Arrived, link: Ifindex) -> Vec<IpAddr> {
        let dialled = arrived.destination;
        let is_own = self.netns.addresses.iter().any(|address| {
            address.address() == dialled
                && !address.is_tentative()
                && (address.ifindex == link || !is_link_local(dialled))
        });
        // `ipv6_chk_acast_addr_src`: the kernel makes a route for each anycast address it keeps itself.
        let is_anycast = self.netns.routes.iter().any(|route| {
            route.kind == RouteType::Anycast
                && route.protocol == RouteProtocol::KERNEL
                && route.destination == Prefix::host(dialled)
                && (!is_link_local(dialled)
                    || route.nexthops.iter().any(|nexthop| nexthop.ifindex == Some(link)))
        });
        if is_own || is_anycast {
            return vec![dialled];
        }
        let way = self.ip_route_output(flow, false).ok();
        let named = way.and_then(|way| self.netns.routes[way.route?].preferred_source);
        if named.is_some() {
            return Vec::new();
        }
        self.ipv6_dev_get_saddr(Some(link), arrived.source)
    }

    /// Where an answer leaves; `None` if it does not get anywhere. To a client of this machine it must
    /// stay inside, to any other it must leave.
    fn leaves(&self, way: &WayOut, arrived: &Arrived) -> Option<Leaves> {
        let family = self.family();
        let Some(arrival) = arrived.link else {
            return self.stays(way).then_some(Leaves::ByArrival);
        };
        if !sends(way.kind, family) || self.stays(way) {
            return None;
        }
        let vrf = self.l3mdev_master(arrival);
        let back = |link: &Ifindex| {
            *link == arrival || (vrf.is_some() && self.l3mdev_master(*link) == vrf)
        };
        let vpn = |link: &Ifindex| {
            self.link(*link).is_some_and(|link| {
                matches!(link.kind, LinkKind::Tun | LinkKind::Wireguard | LinkKind::Ppp)
            })
        };
        let lost = |link: &Ifindex| self.link(*link).is_some_and(Link::is_loopback);
        Some(if way.links.iter().all(back) && way.barred == 0 {
            Leaves::ByArrival
        } else if way.links.iter().any(back) {
            Leaves::BySeveral
        } else if way.links.iter().all(lost) {
            return None;
        } else if way.links.iter().all(|link| vpn(link) || lost(link)) {
            Leaves::ByVpn
        } else {
            Leaves::Elsewhere
        })
    }

    /// The stage: for each socket that may get the packet, its answer. Gives the links they leave by.
    pub(super) fn reply_stage(
        &mut self,
        arrived: &Arrived,
        sockets: &[SocketIndex],
    ) -> Result<Vec<Ifindex>, Stop> {
        let family = self.family();
        let rules = self.netns.policy_rules.iter();
        let by_mark = rules.clone().any(|rule| rule.family == family && rule.mark_mask != 0);
        let marks = sockets.iter().map(|index| self.netns.sockets[index.0].mark);
        if by_mark && marks.clone().any(|mark| mark.is_none()) {
            self.gaps(DoubtEffect::MayStop, |subject| *subject == GapSubject::SocketMarks);
        }
        let mut results = Vec::new();
        for index in sockets {
            let socket = &self.netns.sockets[index.0];
            let one = self.attempt(|walk| {
                let result = walk.socket_reply(arrived, *index, socket);
                (result, walk.doubts.clone())
            });
            results.push(one);
        }
        let stops = results.iter().filter(|(result, _)| result.is_err()).count();
        let mut links = Vec::new();
        for (result, doubts) in &results {
            if result.is_ok() || stops == results.len() {
                self.doubts.extend(doubts);
            }
            match result {
                Ok(by) => links.extend(by),
                Err(stop) if stops == results.len() => return Err(*stop),
                Err(_) => {}
            }
        }
        if stops > 0 {
            // Which member of the group answers cannot be told.
            self.doubt(UnknownReason::Multipath, DoubtEffect::MayStop);
        }
        Ok(links)
    }

    /// The answer of one socket.
    fn socket_reply(
        &mut self,
        arrived: &Arrived,
        index: SocketIndex,
        socket: &Socket,
    ) -> Result<Vec<Ifindex>, Stop> {
        if self.is_stolen_datagram(arrived, socket) {
            self.doubt(UnknownReason::ReplyAddress, DoubtEffect::MayStop);
            return Ok(Vec::new());
        }
        if matches!(arrived.source, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            // `udpv6_sendmsg` makes an IPv4 datagram of it.
            return Err(self.silent(DropReason::NoReplyRoute));
        }
        let flow = self.reply_flow(arrived, socket);
        let transparent = socket.transparent == Some(true);
        let (way, sources) = match self.reply_way(&flow, transparent) {
            Ok(found) => found,
            Err(NoWayOut::Source) if flow.source.is_some_and(|from| !self.ip_dev_find(from)) => {
                return Err(self.silent(DropReason::ReplySourceNotLocal));
            }
            Err(NoWayOut::Source | NoWayOut::Fib(_)) => {
                return Err(self.silent(DropReason::NoReplyRoute));
            }
        };
        self.exchange(arrived, index, (&flow, way), &sources)
    }

    /// Where an answer leaves, as it concerns whether it gets back. `met` is how many questions had
    /// been put when it was routed.
    fn leaves_stage(&mut self, arrived: &Arrived, way: &WayOut, met: usize) -> Result<(), Stop> {
        // Taken to be on the link that the socket is bound to. On `lo` everybody is.
        if way.route.is_none() && !self.stays(way) {
            let prefixes = self.on_link_prefixes(way.links[0]);
            if !prefixes.iter().any(|prefix| prefix.contains(arrived.source)) {
                return Err(self.silent(DropReason::NoReplyRoute));
            }
        }
        let may_stop = DoubtEffect::MayStop;
        match self.leaves(way, arrived) {
            None => return Err(self.silent(DropReason::NoReplyRoute)),
            Some(Leaves::ByArrival) => {}
            Some(Leaves::ByVpn) => return Err(self.silent(DropReason::VpnReply)),
            Some(Leaves::Elsewhere) => self.doubt_at(met, UnknownReason::ReplyElsewhere, may_stop),
            Some(Leaves::BySeveral) => self.doubt_at(met, UnknownReason::Multipath, may_stop),
        }
        Ok(())
    }

    /// A datagram that TPROXY gave to a socket bound elsewhere: whether its program answers from the
    /// address dialled cannot be told.
    fn is_stolen_datagram(&self, arrived: &Arrived, socket: &Socket) -> bool {
        let stolen = self.current.as_ref().is_some_and(|skb| skb.stolen.is_some());
        let address = socket.address.to_canonical();
        let elsewhere = (!address.is_unspecified() && address != arrived.destination)
            || socket.port != self.packet.destination_port;
        self.packet.proto == Proto::Udp && stolen && elsewhere
    }

    /// The answer past the hooks, and of TCP the client's ACK. Rules on the way out may give it another
    /// route; only where it leaves in the end counts.
    fn exchange(
        &mut self,
        arrived: &Arrived,
        index: SocketIndex,
        (flow, way): (&Flow, WayOut),
        sources: &[Option<IpAddr>],
    ) -> Result<Vec<Ifindex>, Stop> {
        let tuple = Tuple {
            source: arrived.destination,
            source_port: self.packet.destination_port.0,
            destination: arrived.source,
            destination_port: self.packet.source_port.0,
        };
        let mut skb = self.answer_skb(tuple, index, flow.mark);
        skb.port = self.current.as_ref().and_then(|skb| skb.port);
        let (met, before) = (self.forks.count(), self.doubts.len());
        let passed = self.answer_passes(&mut skb, arrived, &way);
        let of_rules = self.doubts.split_off(before);
        let way = skb.rerouted.take().unwrap_or(way);
        self.leaves_stage(arrived, &way, met)?;
        if sources.iter().any(|source| *source != Some(arrived.destination)) {
            self.doubt_at(met, UnknownReason::ReplyAddress, DoubtEffect::MayStop);
        }
        self.doubts.extend(of_rules);
        if let Err(stop) = passed {
            return Err(self.silent(stop.reason));
        }
        if skb.tuple() != self.client.inverted() {
            // Its addresses were not, or not rightly, translated back: the client does not take it.
            return Err(self.silent(DropReason::NatFailed));
        }
        if self.packet.proto == Proto::Tcp {
            self.third_packet(arrived, index).map_err(|reason| {
                // The client has its SYN-ACK, and takes itself to be connected.
                Stop { reason, they_see: Some(TheySee::Connected) }
            })?;
        }
        Ok(way.links)
    }

    /// The client's ACK: it takes the way of the SYN once more, as part of a connection by now.
    fn third_packet(&mut self, arrived: &Arrived, index: SocketIndex) -> Result<(), DropReason> {
        let mut skb = self.third_skb(self.client);
        let link = match (self.packet.arrival, arrived.link) {
            (Arrival::Local { uid }, _) => {
                skb.owner = Owner::Client(uid);
                let out = self.go_out(&mut skb, LOOPBACK_IFINDEX).map_err(|stop| stop.reason)?;
                self.loop_back(&mut skb, out).map_err(|stop| stop.reason)?;
                None
            }
            (Arrival::Link(_), link) => link,
        };
        if let Some(link) = link {
            skb.port = self.current.as_ref().and_then(|skb| skb.port);
            skb.stolen = self.current.as_ref().and_then(|skb| skb.stolen.clone());
            let port = self.port.unwrap_or(link);
            self.come_in(&mut skb, port, link).map_err(|stop| stop.reason)?;
            if skb.mark != self.mark {
                // Another mark may mean another route.
                let onward = self.attempt(|walk| {
                    walk.mark = skb.mark;
                    walk.route_decision(link)
                });
                match onward {
                    Ok(Onward::Here(_)) => {}
                    Ok(Onward::Away(_)) => return Err(DropReason::Forwarded),
                    Err(stop) => return Err(stop.reason),
                }
            }
            // Early demux has found the handshake that it belongs to.
            skb.owner = Owner::Socket(index);
            let iif = Some(arrived.seen_on());
            self.ip_hook(NfHook::Input, &mut skb, iif, None).map_err(|stop| stop.reason)?;
        }
        let expected = (arrived.destination, self.packet.destination_port.0);
        if (skb.destination, skb.destination_port) == expected {
            Ok(())
        } else {
            Err(DropReason::NatFailed)
        }
    }

    /// The end of a packet at a hook, and what its sender gets of it.
    pub(super) fn nf_stopped(&mut self, stop: NfStop, skb: &Skb, arrived: &Arrived) -> Stop {
        let silence = self.nothing_comes_back();
        let answers = skb.packet_type == PACKET_HOST && !arrived.broadcast;
        let they_see = match stop.answer.filter(|_| answers) {
            None => Some(silence),
            Some(Rejection::Reset) if self.packet.proto == Proto::Udp => Some(silence),
            Some(rejection) => {
                self.adopt(skb);
                let (source, destination) = (skb.source, skb.destination);
                let arrived = &Arrived { source, destination, ..arrived.clone() };
                let local = arrived.link.is_none() || self.is_for_here(arrived);
                match rejection_sees(rejection, self.family(), self.packet.proto) {
                    None => None,
                    Some(sees) if sees == silence => Some(silence),
                    Some(sees) => {
                        self.answered(Answering::Rule { rejection, local }, arrived, sees)
                    }
                }
            }
        };
        self.stopped(Stop { reason: stop.reason, they_see })
    }

    /// Whether the address is this machine's, as far as an error about it is concerned.
    fn is_for_here(&self, arrived: &Arrived) -> bool {
        let link = arrived.link.unwrap_or(arrived.dif);
        let onward = self.attempt(|walk| walk.route_decision(link));
        matches!(onward, Ok(Onward::Here(_)))
    }

    /// The flow of a SYN-ACK, or of a datagram sent back from the socket.
    fn reply_flow(&mut self, arrived: &Arrived, socket: &Socket) -> Flow {
        let tcp = self.packet.proto == Proto::Tcp;
        let mut oif = socket.device;
        let vrf = arrived.link.and_then(|link| self.l3mdev_master(link));
        if tcp
            && oif.is_none()
            && vrf.is_some()
            && self.global_sysctl(GlobalSysctl::TcpL3mdevAccept) != 0
        {
            // `inet_request_bound_dev_if`.
            oif = vrf;
        }
        // Link-local addresses mean something on one link only (`tcp_v6_init_req`).
        let in_vrf = arrived.sdif.is_some();
        if is_link_local(arrived.source) && (socket.device.is_none() || in_vrf) {
            oif = Some(arrived.link.unwrap_or(arrived.dif));
        }
        let wildcard = socket.address.to_canonical().is_unspecified();
        Flow {
            source: if tcp {
                Some(arrived.destination)
            } else {
                Some(socket.address.to_canonical()).filter(|_| !wildcard)
            },
            oif,
            mark: self.request_mark(socket),
            uid: socket.uid,
            ip_protocol: self.packet.proto.number(),
            source_port: self.packet.destination_port.0,
            destination_port: self.packet.source_port.0,
            strict: socket.device.is_some(),
            ..self.output_flow(arrived.source)
        }
    }

    /// `inet_request_mark`: the listener's own mark, or that of the SYN.
    fn request_mark(&mut self, socket: &Socket) -> u32 {
        let own = socket.mark.map_or(0, |mark| mark.0);
        let inherits = own == 0 && self.mark != 0 && self.packet.proto == Proto::Tcp;
        if inherits && self.global_sysctl(GlobalSysctl::TcpFwmarkAccept) != 0 {
            return self.mark;
        }
        own
    }

    /// The route of an answer, and the sources the kernel may choose for it.
    fn reply_way(
        &mut self,
        flow: &Flow,
        transparent: bool,
    ) -> Result<(WayOut, Vec<Option<IpAddr>>), NoWayOut> {
        let first = self.ip_route_output(flow, transparent);
        if flow.source.is_some() {
            return first.map(|way| (way, vec![flow.source]));
        }
        match (first, self.family()) {
            (Ok(way), _) => {
                let sources = self.chosen_sources(&way, flow.destination);
                Ok((way, sources))
            }
            (Err(error), Family::Ipv4) => Err(error),
            (Err(error @ NoWayOut::Fib(FibError::Discarded(_))), Family::Ipv6) => Err(error),
            (Err(error), Family::Ipv6) => {
                // `ip6_dst_lookup_tail`: an error without a source is forgotten, and the route looked
                // up again with one.
                let candidates = self.ipv6_dev_get_saddr(None, flow.destination);
                let mut ways = Vec::new();
                for source in &candidates {
                    let flow = Flow { source: Some(*source), ..flow.clone() };
                    ways.push(self.ip_route_output(&flow, transparent).ok());
                }
                if ways.iter().any(|way| *way != ways[0]) {
                    self.doubt(UnknownReason::Multipath, DoubtEffect::MayStop);
                }
                let way = ways.into_iter().flatten().next().ok_or(error)?;
                Ok((way, candidates.into_iter().map(Some).collect()))
            }
        }
    }

    /// The source addresses the kernel may choose for what leaves by a route.
    fn chosen_sources(&mut self, way: &WayOut, destination: IpAddr) -> Vec<Option<IpAddr>> {
        let route = way.route.map(|route| &self.netns.routes[route]);
        if let Some(preferred) = route.and_then(|route| route.preferred_source) {
            return vec![Some(preferred)];
        }
        match self.family() {
            Family::Ipv4 if way.kind == RouteType::Local => vec![Some(destination)],
            Family::Ipv4 => {
                let scope = route.map_or(Scope::LINK, |route| route.scope);
                let by_nexthop = |hop: &NextHop| hop.ifindex.map(|link| (link, hop.gateway));
                let mut by: Vec<_> = way.nexthops.iter().filter_map(by_nexthop).collect();
                if by.is_empty() {
                    by = way.links.iter().map(|link| (*link, None)).collect();
                }
                by.into_iter()
                    .flat_map(|(link, gateway)| {
                        let own = self.inet_select_addr(link, gateway, scope);
                        let none = own.is_empty().then_some(None);
                        own.into_iter().map(Some).chain(none)
                    })
                    .collect()
            }
            Family::Ipv6 => {
                let mut sources = Vec::new();
                for link in &way.links {
                    let candidates = self.ipv6_dev_get_saddr(Some(*link), destination);
                    sources.extend(candidates.into_iter().map(Some));
                }
                if sources.is_empty() { vec![None] } else { sources }
            }
        }
    }
}

/// What a rejection makes a client see (`icmp_err_convert`, `icmpv6_err_convert`); UDP is told of the
/// fatal ones only. `None` for an error that has no word here.
const fn rejection_sees(rejection: Rejection, family: Family, proto: Proto) -> Option<TheySee> {
    let Rejection::Unreachable(code) = rejection else { return Some(TheySee::Refused) };
    let (sees, fatal) = match (family, code) {
        (Family::Ipv4, 0) => (TheySee::NetworkUnreachable, false),
        (Family::Ipv4, 1) => (TheySee::HostUnreachable, false),
        (Family::Ipv4, 2) => (TheySee::ProtocolUnavailable, true),
        (Family::Ipv4, 3) => (TheySee::Refused, true),
        (Family::Ipv4, 6 | 9) => (TheySee::NetworkUnreachable, true),
        (Family::Ipv4, 10 | 13) => (TheySee::HostUnreachable, true),
        (Family::Ipv6, 0) => (TheySee::NetworkUnreachable, false),
        (Family::Ipv6, 1 | 5 | 6) => (TheySee::PermissionDenied, true),
        (Family::Ipv6, 2 | 3) => (TheySee::HostUnreachable, false),
        (Family::Ipv6, 4) => (TheySee::Refused, true),
        (_, _) => return None,
    };
    match proto {
        Proto::Udp if !fatal => Some(TheySee::Silence),
        Proto::Tcp | Proto::Udp => Some(sees),
    }
}

/// Whether a route of this kind sends a packet away. To this machine's own addresses, and to
/// broadcast addresses, no answer leaves.
const fn sends(kind: RouteType, family: Family) -> bool {
    match kind {
        RouteType::Local
        | RouteType::Blackhole
        | RouteType::Unreachable
        | RouteType::Prohibit
        | RouteType::Throw => false,
        // IPv6 knows no broadcast, IPv4 no anycast for sending.
        RouteType::Broadcast => matches!(family, Family::Ipv6),
        RouteType::Anycast => matches!(family, Family::Ipv4),
        RouteType::Unicast | RouteType::Multicast | RouteType::Nat | RouteType::Other(_) => true,
    }
}
