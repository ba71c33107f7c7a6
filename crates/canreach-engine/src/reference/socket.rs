//! Which socket gets the packet, and may it?
//!
//! Mirrors `__inet_lookup_listener` and `inet6_lookup_listener` (net/ipv4/inet_hashtables.c,
//! net/ipv6/inet6_hashtables.c), `__udp4_lib_lookup` and `__udp6_lib_lookup`, and
//! `__udp4_lib_mcast_deliver`. Left out: SO_INCOMING_CPU, and programs attached to reuseport groups,
//! neither of which can be seen from outside.

use std::net::IpAddr;

use canreach_snapshot::{
    Family, Gap, GapSubject, GlobalSysctl, Ifindex, Proto, Socket, SocketState,
};

use super::reply::Answering;
use super::route::Arrived;
use super::walk::{Stop, Walk, gap_reason};
use crate::{DoubtEffect, DropReason, SocketIndex, TheySee, UnknownReason};

impl Walk<'_> {
    /// The stage: the sockets that get the packet, sorted.
    pub(super) fn socket_stage(&mut self, arrived: &Arrived) -> Result<Vec<SocketIndex>, Stop> {
        self.lookup_hooks();
        let (proto, family) = (self.packet.proto, self.family());
        // An AF_INET6 socket takes IPv4 as well, so IPv4 needs the list of both.
        let wanted = |of: Proto, holder: Family| {
            of == proto && (family == Family::Ipv4 || holder == Family::Ipv6)
        };
        self.gaps(DoubtEffect::MayRedirect, |subject| {
            *subject == GapSubject::SkLookup
                || matches!(subject, GapSubject::Sockets(of, holder) if wanted(*of, *holder))
        });
        let unbound_matches = self.unbound_matches(arrived);
        let matches = |socket: &Socket| {
            self.takes_address(socket, arrived.destination)
                && device_matches(socket, arrived, unbound_matches)
        };
        let stolen = self.current.as_ref().and_then(|skb| skb.stolen.clone());
        let mut found = match stolen {
            // What TPROXY attached comes before any lookup (`inet_steal_sock`).
            Some(stolen) => stolen,
            None if arrived.broadcast => self.mcast_deliver(arrived, &matches),
            None => self.lookup(arrived, &matches),
        };
        self.doubt_details(arrived);
        if found.is_empty() {
            let reason = self.nearest_miss(arrived, unbound_matches);
            if arrived.broadcast {
                return Err(self.silent(reason));
            }
            let kind = match self.packet.proto {
                Proto::Tcp => Answering::Reset,
                Proto::Udp => Answering::PortUnreachable,
            };
            let they_see = self.answered(kind, arrived, TheySee::Refused);
            return Err(Stop { reason, they_see });
        }
        found.sort_unstable();
        Ok(found)
    }

    /// What rules find that look for a socket (`nf_sk_lookup_slow_v4`): by the link of the hook, and
    /// without a VRF above it.
    pub(super) fn plain_lookup(
        &self,
        source: IpAddr,
        destination: IpAddr,
        dif: Ifindex,
    ) -> Vec<SocketIndex> {
        let broadcast = false;
        let arrived = Arrived { source, destination, link: None, dif, sdif: None, broadcast };
        let matches = |socket: &Socket| {
            self.takes_address(socket, destination) && device_matches(socket, &arrived, true)
        };
        self.lookup(&arrived, &matches)
    }

    /// `inet_bound_dev_eq`: whether a socket bound to no link matches.
    fn unbound_matches(&mut self, arrived: &Arrived) -> bool {
        let accepts = match self.packet.proto {
            Proto::Tcp => GlobalSysctl::TcpL3mdevAccept,
            Proto::Udp => GlobalSysctl::UdpL3mdevAccept,
        };
        if arrived.sdif.is_none() {
            return true;
        }
        let asks = |socket: &Socket| {
            socket.device.is_none() && self.takes_address(socket, arrived.destination)
        };
        if self.of_port().any(|(_, socket)| asks(socket)) {
            self.gaps(
                DoubtEffect::MayRedirect,
                |subject| matches!(subject, GapSubject::Sysctl(name) if name == accepts.name()),
            );
        }
        self.netns.sysctls.global.get(&accepts).is_some_and(|value| *value != 0)
    }

    /// Sockets of the packet's protocol and port.
    fn of_port(&self) -> impl Iterator<Item = (SocketIndex, &Socket)> {
        let packet = self.packet;
        let sockets = self.netns.sockets.iter().enumerate();
        sockets
            .filter(move |(_, socket)| {
                socket.proto == packet.proto && socket.port == packet.destination_port
            })
            .map(|(index, socket)| (SocketIndex(index), socket))
    }

    /// Whether any socket has the port.
    pub(super) fn port_is_taken(&self) -> bool {
        self.of_port().next().is_some()
    }

    /// The address a socket takes packets of this family at; `None` if it takes none.
    fn receive_address(&self, socket: &Socket) -> Option<IpAddr> {
        match (self.family(), socket.family, socket.address) {
            (Family::Ipv4, Family::Ipv4, address) => Some(address),
            (Family::Ipv4, Family::Ipv6, _) if socket.v6only == Some(true) => None,
            (Family::Ipv4, Family::Ipv6, IpAddr::V6(v6)) if v6.is_unspecified() => {
                Some(Family::Ipv4.unspecified())
            }
            (Family::Ipv4, Family::Ipv6, address) => match address.to_canonical() {
                mapped @ IpAddr::V4(_) => Some(mapped),
                IpAddr::V6(_) => None,
            },
            (Family::Ipv6, Family::Ipv6, address) => Some(address),
            (Family::Ipv6, Family::Ipv4, _) => None,
        }
    }

    fn takes_address(&self, socket: &Socket, destination: IpAddr) -> bool {
        self.receive_address(socket)
            .is_some_and(|address| address.is_unspecified() || address == destination)
    }

    /// UDP: whether a socket takes datagrams of this sender.
    fn takes_peer(&self, socket: &Socket, arrived: &Arrived) -> bool {
        socket.peer.is_none_or(|(address, port)| {
            let address = match self.family() {
                Family::Ipv4 => address.to_canonical(),
                Family::Ipv6 => address,
            };
            (address.is_unspecified() || address == arrived.source)
                && (port.0 == 0 || port == self.packet.source_port)
        })
    }

    /// First the bucket of the address, then the one of the wildcard.
    fn lookup(&self, arrived: &Arrived, matches: &dyn Fn(&Socket) -> bool) -> Vec<SocketIndex> {
        for wildcard in [false, true] {
            let bucket: Vec<_> = self
                .of_port()
                .filter(|(_, socket)| {
                    let address = self.receive_address(socket);
                    address.is_some_and(|address| address.is_unspecified()) == wildcard
                })
                .filter(|(_, socket)| matches(socket) && self.takes_peer(socket, arrived))
                .collect();
            let found = match self.packet.proto {
                Proto::Tcp => self.tcp_bucket(&bucket),
                Proto::Udp => self.udp_bucket(&bucket),
            };
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// `inet_lhash2_lookup`: the highest score, the first of equals; but a member of a reuseport group
    /// that beats what came before it ends the search. Listeners that overlap have SO_REUSEPORT as a
    /// rule, and one may have been let in without it (`inet_csk_update_fastreuse`): both count.
    fn tcp_bucket(&self, bucket: &[(SocketIndex, &Socket)]) -> Vec<SocketIndex> {
        let mut found = self.tcp_winner(bucket, false);
        found.extend(self.tcp_winner(bucket, true));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// One walk of the bucket, with or without reuseport groups.
    fn tcp_winner(&self, bucket: &[(SocketIndex, &Socket)], groups: bool) -> Vec<SocketIndex> {
        let mut best = (0, None);
        for (index, socket) in bucket {
            let by_family = match (self.family(), socket.family) {
                (Family::Ipv4, Family::Ipv4) => 1,
                (Family::Ipv4 | Family::Ipv6, Family::Ipv4 | Family::Ipv6) => 0,
            };
            let score = if socket.device.is_some() { 2 } else { 1 } + by_family;
            if score > best.0 {
                best = (score, Some((index, socket)));
                if groups && self.is_reuseport(*index, socket) {
                    break;
                }
            }
        }
        best.1.map_or_else(Vec::new, |(_, socket)| self.group_of(socket))
    }

    /// `udp4_lib_lookup2`, `udp6_lib_lookup2`. Sockets that share an address do so by SO_REUSEPORT,
    /// where the first that improves the score ends the search, or by SO_REUSEADDR, where the best
    /// of all wins. Nothing shows which, so both count.
    fn udp_bucket(&self, bucket: &[(SocketIndex, &Socket)]) -> Vec<SocketIndex> {
        // Since Linux 6.13 sockets connected to this very peer are asked first, the newest before
        // the others, which the dump does not show (`udp4_lib_lookup4`).
        let connected_to_both = |socket: &Socket| socket.peer.is_some_and(|(_, port)| port.0 != 0);
        let exact: Vec<SocketIndex> = bucket
            .iter()
            .filter(|(_, socket)| connected_to_both(socket))
            .map(|(index, _)| *index)
            .collect();
        if !exact.is_empty() {
            return exact;
        }
        let mut found = self.udp_winner(bucket, false);
        found.extend(self.udp_winner(bucket, true));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// One walk of the bucket, with or without reuseport groups.
    fn udp_winner(&self, bucket: &[(SocketIndex, &Socket)], groups: bool) -> Vec<SocketIndex> {
        let mut best: Option<(u32, &Socket, SocketIndex)> = None;
        for (index, socket) in bucket {
            let peer = socket
                .peer
                .map_or((false, false), |(address, port)| (!address.is_unspecified(), port.0 != 0));
            let (step, base) = match (self.family(), socket.family) {
                (Family::Ipv4, Family::Ipv4) => (4, 2),
                (Family::Ipv4, Family::Ipv6) => (4, 1),
                (Family::Ipv6, Family::Ipv4 | Family::Ipv6) => (1, 0),
            };
            let points = [peer.0, peer.1, socket.device.is_some()];
            let score = base + step * points.into_iter().filter(|point| *point).count() as u32;
            if best.is_none_or(|(other, ..)| score > other) {
                best = Some((score, socket, *index));
                let connected = socket.state == SocketState::Connected;
                if groups && !connected && self.may_be_reuseport(*index, socket) {
                    break;
                }
            }
        }
        match best {
            Some((_, socket, index)) if socket.state == SocketState::Connected => vec![index],
            Some((_, socket, _)) => self.group_of(socket),
            None => Vec::new(),
        }
    }

    /// Whether another socket of the same user overlaps this one.
    fn may_be_reuseport(&self, index: SocketIndex, socket: &Socket) -> bool {
        self.of_port().any(|(other_index, other)| {
            other_index != index && other.uid == socket.uid && overlap(socket, other)
        })
    }

    /// Sockets bound in the same way by the same user: they could only be so as a reuseport group, of
    /// which the kernel picks one by a secret hash.
    fn group_of(&self, socket: &Socket) -> Vec<SocketIndex> {
        self.of_port()
            .filter(|(_, other)| {
                other.family == socket.family
                    && other.state == socket.state
                    && other.address == socket.address
                    && other.device == socket.device
                    && other.v6only.unwrap_or(false) == socket.v6only.unwrap_or(false)
                    && other.uid == socket.uid
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// Two TCP listeners that overlap can only both be there with SO_REUSEPORT
    /// (`inet_csk_bind_conflict`).
    fn is_reuseport(&self, index: SocketIndex, socket: &Socket) -> bool {
        self.of_port().any(|(other_index, other)| other_index != index && overlap(socket, other))
    }

    /// `__udp4_lib_mcast_deliver`: a copy to each socket that matches.
    fn mcast_deliver(
        &self,
        arrived: &Arrived,
        matches: &dyn Fn(&Socket) -> bool,
    ) -> Vec<SocketIndex> {
        self.of_port()
            .filter(|(_, socket)| matches(socket) && self.takes_peer(socket, arrived))
            .map(|(index, _)| index)
            .collect()
    }

    /// Sockets whose device and v6only flag were not readable, where these would matter.
    fn doubt_details(&mut self, arrived: &Arrived) {
        let unsure = |gap: &&Gap| {
            let GapSubject::SocketDetails(proto, family) = gap.subject else { return false };
            proto == self.packet.proto
                && self.of_port().any(|(_, socket)| {
                    socket.family == family && self.takes_address(socket, arrived.destination)
                })
        };
        let reasons: Vec<_> = self.netns.gaps.iter().filter(unsure).map(gap_reason).collect();
        for reason in reasons {
            self.doubt(reason, DoubtEffect::MayStop);
        }
    }

    /// Why no socket was found: the nearest miss.
    fn nearest_miss(&self, arrived: &Arrived, unbound_matches: bool) -> DropReason {
        let servers =
            || self.of_port().filter(|(_, socket)| socket.state != SocketState::Connected);
        let right_address = |socket: &Socket| self.takes_address(socket, arrived.destination);
        if let Some((_, socket)) = servers().find(|(_, socket)| right_address(socket)) {
            let unbound = socket.device.is_none();
            return if unbound { DropReason::VrfUnbound } else { DropReason::BindDevice };
        }
        let refuses_ipv4 = |socket: &Socket| {
            self.family() == Family::Ipv4
                && socket.family == Family::Ipv6
                && socket.is_wildcard()
                && socket.v6only == Some(true)
        };
        if servers().any(|(_, socket)| refuses_ipv4(socket)) {
            return DropReason::V6Only;
        }
        let wrong_peer = |socket: &Socket| {
            socket.state == SocketState::Connected
                && right_address(socket)
                && device_matches(socket, arrived, unbound_matches)
        };
        if self.of_port().any(|(_, socket)| wrong_peer(socket)) {
            return DropReason::ConnectedElsewhere;
        }
        if servers().next().is_none() {
            return DropReason::NotListening;
        }
        let elsewhere = |socket: &Socket| !socket.address.to_canonical().is_loopback();
        if servers().any(|(_, socket)| elsewhere(socket)) {
            return DropReason::BindAddress;
        }
        DropReason::BindLoopback
    }

    /// The stage behind the lookup: programs of control groups, then the accept queue.
    pub(super) fn gate_stage(&mut self, sockets: &[SocketIndex]) -> Result<(), Stop> {
        self.cgroup_hooks(sockets);
        // `tcp_v6_conn_request`.
        let mapped = matches!(self.packet.source, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if mapped && self.packet.proto == Proto::Tcp {
            return Err(self.silent(DropReason::Martian));
        }
        let is_full = |index: &SocketIndex| {
            self.packet.proto == Proto::Tcp
                && self.netns.sockets[index.0].backlog.is_some_and(|backlog| backlog.is_full())
        };
        let full = sockets.iter().filter(|index| is_full(index)).count();
        if full == sockets.len() {
            return Err(self.silent(DropReason::BacklogFull));
        }
        if full > 0 {
            // Which member of the group gets it cannot be told.
            self.doubt(UnknownReason::Multipath, DoubtEffect::MayStop);
        }
        Ok(())
    }
}

/// `inet_bound_dev_eq` (include/net/inet_sock.h).
fn device_matches(socket: &Socket, arrived: &Arrived, unbound_matches: bool) -> bool {
    match socket.device {
        None => unbound_matches,
        Some(device) => device == arrived.dif || Some(device) == arrived.sdif,
    }
}

/// Whether two sockets could both take one packet (`inet_bind_conflict`).
fn overlap(one: &Socket, other: &Socket) -> bool {
    let same_device = one.device.is_none() || other.device.is_none() || one.device == other.device;
    same_device && addresses_overlap(one, other)
}

/// `inet_rcv_saddr_equal`: whether there is an address both would take packets at.
fn addresses_overlap(one: &Socket, other: &Socket) -> bool {
    let v6only = |socket: &Socket| socket.v6only.unwrap_or(false);
    match (one.address.to_canonical(), other.address.to_canonical()) {
        (a @ IpAddr::V4(_), b @ IpAddr::V4(_)) | (a @ IpAddr::V6(_), b @ IpAddr::V6(_)) => {
            a == b || a.is_unspecified() || b.is_unspecified()
        }
        (IpAddr::V4(_), v6 @ IpAddr::V6(_)) => v6.is_unspecified() && !v6only(other),
        (v6 @ IpAddr::V6(_), IpAddr::V4(_)) => v6.is_unspecified() && !v6only(one),
    }
}
