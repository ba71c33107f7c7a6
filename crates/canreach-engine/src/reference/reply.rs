//! The way back: the SYN-ACK, a datagram sent in answer, a reset, an ICMP error.
//!
//! Mirrors `inet_csk_route_req`, `inet6_csk_route_req`, `udp_sendmsg`, `ip_send_unicast_reply`,
//! `icmp_route_lookup` and `icmp6_send`. Left out: neighbour resolution of the answer, IPsec, ICMP
//! rate limits.

use std::net::IpAddr;

use canreach_snapshot::{
    Family, GapSubject, GlobalSysctl, Ifindex, Link, LinkKind, NextHop, Proto, RouteType, Scope,
    Socket,
};

use super::output::{NoWayOut, WayOut};
use super::route::{Arrived, is_link_local};
use super::table::Flow;
use super::walk::{Stop, Walk};
use crate::{DoubtEffect, DropReason, SocketIndex, TheySee, UnknownReason};

/// An answer of the kernel itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answering {
    /// TCP reset.
    Reset,
    /// ICMP port unreachable, from the address dialled.
    PortUnreachable,
    /// ICMP error of routing, from whatever address suits.
    RouteError,
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
        let (leaves, unsure) = self.attempt(|walk| {
            let leaves = walk.answer_leaves(kind, arrived);
            (leaves, !walk.doubts.is_empty())
        });
        let may_be_stopped = self.attempt(|walk| {
            if let Some(link) = arrived.link {
                walk.output_hooks(&[link], &[]);
            }
            !walk.doubts.is_empty()
        });
        match leaves {
            _ if unsure => None,
            Some(Leaves::ByArrival) => Some(they_see).filter(|_| !may_be_stopped),
            Some(Leaves::ByVpn) | None => Some(self.nothing_comes_back()),
            Some(Leaves::Elsewhere | Leaves::BySeveral) => None,
        }
    }

    /// `ip_send_unicast_reply`, `tcp_v6_send_response`, `icmp_route_lookup`, `icmp6_send`: where an
    /// answer of the kernel leaves; `None` if it has no way.
    fn answer_leaves(&mut self, kind: Answering, arrived: &Arrived) -> Option<Leaves> {
        let family = self.family();
        let vrf = arrived.link.and_then(|link| self.l3mdev_master(link));
        let own_link = arrived.link.unwrap_or(arrived.dif);
        let oif = if is_link_local(arrived.source) { Some(own_link) } else { vrf };
        let base = Flow { oif, ..self.output_flow(arrived.source) };
        let mut icmp = Flow { ip_protocol: 1, ..base.clone() };
        let sources = match (kind, family) {
            (Answering::Reset, Family::Ipv4 | Family::Ipv6) => {
                let flow = Flow {
                    source: Some(arrived.destination),
                    ip_protocol: Proto::Tcp.number(),
                    source_port: self.packet.destination_port.0,
                    destination_port: self.packet.source_port.0,
                    ..base
                };
                let way = self.ip_route_output(&flow, false).ok()?;
                return self.leaves(&way, arrived);
            }
            (Answering::PortUnreachable, Family::Ipv4) => vec![arrived.destination],
            (Answering::RouteError, Family::Ipv4) => Vec::new(),
            (Answering::PortUnreachable | Answering::RouteError, Family::Ipv6) => {
                icmp.ip_protocol = 58;
                self.icmp6_sources(&icmp, arrived, own_link)
            }
        };
        let first = sources.first().copied();
        let mut answer = |source| {
            let way = self.ip_route_output(&Flow { source, ..icmp.clone() }, false).ok()?;
            self.leaves(&way, arrived)
        };
        let leaves = answer(first);
        // Which of several addresses it is sent from is not worked out (RFC 6724).
        let agree = sources.into_iter().all(|source| answer(Some(source)) == leaves);
        if agree { leaves } else { Some(Leaves::BySeveral) }
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
        if is_own {
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
                let result = walk.socket_reply(arrived, socket);
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
    fn socket_reply(&mut self, arrived: &Arrived, socket: &Socket) -> Result<Vec<Ifindex>, Stop> {
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
        // Taken to be on the link that the socket is bound to. On `lo` everybody is.
        if way.route.is_none() && !self.stays(&way) {
            let prefixes = self.on_link_prefixes(way.links[0]);
            if !prefixes.iter().any(|prefix| prefix.contains(arrived.source)) {
                return Err(self.silent(DropReason::NoReplyRoute));
            }
        }
        match self.leaves(&way, arrived) {
            None => return Err(self.silent(DropReason::NoReplyRoute)),
            Some(Leaves::ByArrival) => {}
            Some(Leaves::ByVpn) => return Err(self.silent(DropReason::VpnReply)),
            Some(Leaves::Elsewhere) => {
                self.doubt(UnknownReason::ReplyElsewhere, DoubtEffect::MayStop);
            }
            Some(Leaves::BySeveral) => self.doubt(UnknownReason::Multipath, DoubtEffect::MayStop),
        }
        if sources.iter().any(|source| *source != Some(arrived.destination)) {
            self.doubt(UnknownReason::ReplyAddress, DoubtEffect::MayStop);
        }
        Ok(way.links)
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
            source: Some(arrived.destination).filter(|_| tcp || !wildcard),
            oif,
            // A packet from the wire has no mark to inherit (tcp_fwmark_accept).
            mark: socket.mark.map_or(0, |mark| mark.0),
            uid: socket.uid,
            ip_protocol: self.packet.proto.number(),
            source_port: self.packet.destination_port.0,
            destination_port: self.packet.source_port.0,
            strict: socket.device.is_some(),
            ..self.output_flow(arrived.source)
        }
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
                    .map(|(link, gateway)| self.inet_select_addr(link, gateway, scope))
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
