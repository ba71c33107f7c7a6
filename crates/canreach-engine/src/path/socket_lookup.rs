//! Which socket gets the packet, and which one nearly did.
//!
//! *Kernel:* `__inet_lookup_listener`, `inet6_lookup_listener`, `__udp4_lib_lookup`,
//! `__udp6_lib_lookup`, `__udp4_lib_mcast_deliver`, `bound_dev_eq`.
//! *Decides:* the sockets, or why none: bound elsewhere, to another link, for IPv6 only, connected.
//! *Reads:* sockets in the order of their chains, VRFs, `*_l3mdev_accept`.
//! *Not modelled:* SO_INCOMING_CPU; which member of a SO_REUSEPORT group gets it (all are named);
//! established connections; programs that choose (a doubt says so).

use std::net::IpAddr;

use canreach_snapshot::{
    AttachPoint, Family, GapSubject, GlobalSysctl, Ifindex, Port, Proto, Socket, SocketState,
};

use crate::AddressSet;
use crate::host::Host;
use crate::host::sockets::receive_address;
use crate::packet::diagram::Diagram;
use crate::packet::packet_set::PacketSet;
use crate::path::hook::gap_doubts;
use crate::{Doubt, DoubtEffect, DropReason, SocketIndex, Stage, Subject, UnknownReason};

/// What a lookup is asked beside the packet's source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketQuery {
    pub(crate) family: Family,
    pub(crate) proto: Proto,
    pub(crate) port: Port,
    pub(crate) to: IpAddr,
    /// The link of the packet, as sockets see it.
    pub(crate) device: Option<Ifindex>,
    /// The part of a VRF that it came in by.
    pub(crate) slave: Option<Ifindex>,
    /// A datagram to everyone is copied to each socket that matches.
    pub(crate) to_everyone: bool,
    /// For a client on this machine: its address. For others every source is asked about.
    pub(crate) source: Option<IpAddr>,
}

/// Who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Lookup {
    /// These: several where a group shares the port, or where each gets a copy.
    Sockets(Vec<SocketIndex>),
    /// None; the reason, and the socket that came nearest.
    Missed(DropReason, Option<SocketIndex>),
}

/// A partition of all packets by who gets them.
pub(crate) type SocketPartition = Vec<(PacketSet, Lookup)>;

/// A peer that connected sockets ask for: its address, and its port unless any will do.
type Peer = (IpAddr, Option<Port>);

/// Looks up the sockets for every source and source port.
pub(crate) fn look_up_sockets(
    host: &Host<'_>,
    sets: &mut Diagram,
    query: &SocketQuery,
) -> SocketPartition {
    let sockets = &host.netns().sockets;
    let of_port: Vec<SocketIndex> = host.sockets().of_port(query.proto, query.port).collect();
    let mut peers: Vec<Peer> = of_port
        .iter()
        .filter_map(|index| peer_of(&sockets[index.0], query.family))
        .filter(|(address, _)| query.source.is_none_or(|source| source == *address))
        .collect();
    // Peers with a port come first: what is left of their address is then the rest.
    peers.sort_unstable_by_key(|(address, port)| (port.is_none(), *address, *port));
    peers.dedup();
    let mut cells = SocketPartition::new();
    let mut rest = PacketSet::ALL;
    for (address, port) in peers {
        let address_set = if query.source.is_some() {
            PacketSet::ALL
        } else {
            let value = canreach_snapshot::address::address_value(address);
            sets.from_sources(&AddressSet::from_ranges(query.family, [(value, value)]))
        };
        let port_set = port.map_or(PacketSet::ALL, |port| sets.from_ports(port, port));
        let cell = sets.and(address_set, port_set);
        let cell = sets.and(cell, rest);
        rest = sets.difference(rest, cell);
        if !cell.is_empty() {
            cells.push((cell, choose(host, query, &of_port, Some((address, port)))));
        }
    }
    if !rest.is_empty() {
        cells.push((rest, choose(host, query, &of_port, None)));
    }
    let mut united = SocketPartition::new();
    for (set, lookup) in cells {
        match united.iter_mut().find(|(_, known)| *known == lookup) {
            Some((known, _)) => *known = sets.or(*known, set),
            None => united.push((set, lookup)),
        }
    }
    united
}

/// The peer of a connected socket, as packets of a family see it.
fn peer_of(socket: &Socket, family: Family) -> Option<Peer> {
    let (address, port) = socket.peer.filter(|_| socket.state == SocketState::Connected)?;
    let address = match (family, address) {
        (Family::Ipv4, IpAddr::V6(mapped)) => IpAddr::V4(mapped.to_ipv4_mapped()?),
        (Family::Ipv4, IpAddr::V4(_)) | (Family::Ipv6, IpAddr::V6(_)) => address,
        (Family::Ipv6, IpAddr::V4(_)) => return None,
    };
    Some((address, (port.0 != 0).then_some(port)))
}

/// One lookup, for the sources that are this peer, or for all that are no socket's peer.
fn choose(
    host: &Host<'_>,
    query: &SocketQuery,
    of_port: &[SocketIndex],
    peer: Option<Peer>,
) -> Lookup {
    let sockets = &host.netns().sockets;
    let fits = |index: &&SocketIndex| {
        let socket = &sockets[index.0];
        takes_device(host, query, socket) && takes_peer(socket, query.family, peer)
    };
    let at = |address: IpAddr| {
        let in_bucket = move |index: &&SocketIndex| {
            receive_address(&sockets[index.0], query.family) == Some(address)
        };
        of_port.iter().filter(in_bucket).filter(fits).copied()
    };
    let anywhere = query.family.unspecified();
    if query.to_everyone {
        let mut all: Vec<_> = at(query.to).chain(at(anywhere)).collect();
        all.sort_unstable();
        all.dedup();
        if !all.is_empty() {
            return Lookup::Sockets(all);
        }
    } else {
        for address in [query.to, anywhere] {
            let candidates: Vec<_> = at(address).collect();
            if !candidates.is_empty() {
                return Lookup::Sockets(winners(sockets, query, of_port, &candidates));
            }
        }
    }
    missed(host, query, of_port, peer)
}

/// The winners in one bucket: every socket that the kernel could give the packet to.
///
/// A socket with SO_REUSEPORT is taken as soon as it is met, with its group, whatever comes after it;
/// otherwise the best score wins, and among equals the first of the chain. Nothing shows the flag.
/// UDP sockets that both take it may have SO_REUSEADDR instead. TCP listeners could only be bound with
/// SO_REUSEPORT, but the cache of their bind bucket lets one in without it (net/ipv4/
/// inet_connection_sock.c, `inet_csk_update_fastreuse`). So both winners are named.
fn winners(
    sockets: &[Socket],
    query: &SocketQuery,
    of_port: &[SocketIndex],
    candidates: &[SocketIndex],
) -> Vec<SocketIndex> {
    // The 4-tuple hash comes first: several with one peer, and the latest to connect gets it, which
    // the dump does not show.
    let exact = |index: &SocketIndex| {
        let socket = &sockets[index.0];
        socket.state == SocketState::Connected && socket.peer.is_some_and(|(_, port)| port.0 != 0)
    };
    if candidates.iter().any(exact) {
        let mut all: Vec<_> = candidates.iter().copied().filter(exact).collect();
        all.sort_unstable();
        return all;
    }
    let best = |ends_search: &dyn Fn(SocketIndex) -> bool| {
        let mut best: Option<(u8, SocketIndex)> = None;
        for index in candidates {
            let score = match query.proto {
                Proto::Tcp => listener_score(&sockets[index.0], query.family),
                Proto::Udp => score(&sockets[index.0], query.family),
            };
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, *index));
                if ends_search(*index) {
                    break;
                }
            }
        }
        best.map(|(_, index)| index)
    };
    let shares = |index: SocketIndex| {
        let socket = &sockets[index.0];
        socket.state != SocketState::Connected
            && of_port.iter().any(|other| {
                *other != index
                    && (query.proto == Proto::Tcp || sockets[other.0].uid == socket.uid)
                    && overlap(socket, &sockets[other.0])
            })
    };
    let by_group = best(&shares);
    let by_score = best(&|_| false);
    let mut all: Vec<_> = [by_group, by_score]
        .into_iter()
        .flatten()
        .flat_map(|winner| group_of(sockets, candidates, winner))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether two sockets of one port could not both be bound without sharing it
/// (`inet_bind_conflict`, `inet_rcv_saddr_equal`).
fn overlap(one: &Socket, other: &Socket) -> bool {
    let devices = one.device.is_none() || other.device.is_none() || one.device == other.device;
    let in_family = |family: Family| {
        let addresses = (receive_address(one, family), receive_address(other, family));
        let (Some(one), Some(other)) = addresses else { return false };
        one == other || one.is_unspecified() || other.is_unspecified()
    };
    devices && Family::BOTH.into_iter().any(in_family)
}

/// `compute_score` of TCP. Candidates match already, so what is set counts.
fn listener_score(socket: &Socket, family: Family) -> u8 {
    let by_device = if socket.device.is_some() { 2 } else { 1 };
    by_device + u8::from(family == Family::Ipv4 && socket.family == Family::Ipv4)
}

/// `compute_score` of UDP. Candidates match already, so what is set counts.
fn score(socket: &Socket, family: Family) -> u8 {
    let (address, port) = match socket.peer {
        Some((_, port)) if socket.state == SocketState::Connected => (true, port.0 != 0),
        Some(_) | None => (false, false),
    };
    let flags = u8::from(address) + u8::from(port) + u8::from(socket.device.is_some());
    match family {
        Family::Ipv4 => 4 * flags + if socket.family == Family::Ipv4 { 2 } else { 1 },
        Family::Ipv6 => flags,
    }
}

/// The members of the winner's SO_REUSEPORT group: everything that could tell them apart agrees.
/// Whether UDP sockets share a port by SO_REUSEPORT or by SO_REUSEADDR is not to be seen; with the
/// latter the first one gets it, and it is among those named.
fn group_of(
    sockets: &[Socket],
    candidates: &[SocketIndex],
    winner: SocketIndex,
) -> Vec<SocketIndex> {
    // A connected socket is in no group with others. Several with one peer: the latest to connect gets
    // it, which the dump does not show.
    if sockets[winner.0].state == SocketState::Connected {
        let alike = |index: &SocketIndex| {
            let (one, other) = (&sockets[index.0], &sockets[winner.0]);
            one.state == other.state && one.peer == other.peer && one.device == other.device
        };
        return candidates.iter().copied().filter(alike).collect();
    }
    let key = |index: SocketIndex| {
        let socket = &sockets[index.0];
        let v6only = socket.v6only.unwrap_or(false);
        (socket.family, socket.state, socket.address, socket.device, v6only, socket.uid)
    };
    let mut members: Vec<_> =
        candidates.iter().copied().filter(|index| key(*index) == key(winner)).collect();
    members.sort_unstable();
    members
}

/// `bound_dev_eq`: bound to the link, or to none where that is allowed.
fn takes_device(host: &Host<'_>, query: &SocketQuery, socket: &Socket) -> bool {
    match socket.device {
        None => query.slave.is_none() || accepts_vrf(host, query.proto),
        device => device == query.device || device == query.slave,
    }
}

fn accepts_vrf(host: &Host<'_>, proto: Proto) -> bool {
    host.sysctl(l3mdev_accept(proto)).is_set()
}

pub(crate) const fn l3mdev_accept(proto: Proto) -> GlobalSysctl {
    match proto {
        Proto::Tcp => GlobalSysctl::TcpL3mdevAccept,
        Proto::Udp => GlobalSysctl::UdpL3mdevAccept,
    }
}

fn takes_peer(socket: &Socket, family: Family, peer: Option<Peer>) -> bool {
    if socket.state != SocketState::Connected || socket.peer.is_none() {
        return true;
    }
    let (Some((wanted, wanted_port)), Some((address, port))) = (peer_of(socket, family), peer)
    else {
        return false;
    };
    wanted == address && (wanted_port.is_none() || wanted_port == port)
}

/// Why no socket gets it: the nearest miss.
fn missed(
    host: &Host<'_>,
    query: &SocketQuery,
    of_port: &[SocketIndex],
    peer: Option<Peer>,
) -> Lookup {
    let sockets = &host.netns().sockets;
    let takes_address = |socket: &Socket| {
        let address = receive_address(socket, query.family);
        address == Some(query.to) || address == Some(query.family.unspecified())
    };
    let first = |test: &dyn Fn(&Socket) -> bool| {
        of_port.iter().copied().find(|index| test(&sockets[index.0]))
    };
    let is_open = |socket: &Socket| socket.state != SocketState::Connected || socket.peer.is_none();
    let elsewhere = first(&|socket| {
        !is_open(socket)
            && !takes_peer(socket, query.family, peer)
            && takes_address(socket)
            && takes_device(host, query, socket)
    });
    let missed = |reason, index| Lookup::Missed(reason, Some(index));
    if first(&is_open).is_none() {
        return elsewhere.map_or(Lookup::Missed(DropReason::NotListening, None), |index| {
            missed(DropReason::ConnectedElsewhere, index)
        });
    }
    if let Some(index) = first(&|socket| is_open(socket) && takes_address(socket)) {
        let unbound = sockets[index.0].device.is_none();
        let reason = if unbound { DropReason::VrfUnbound } else { DropReason::BindDevice };
        return missed(reason, index);
    }
    let v6only = |socket: &Socket| {
        query.family == Family::Ipv4
            && socket.family == Family::Ipv6
            && socket.is_wildcard()
            && socket.v6only == Some(true)
    };
    if let Some(index) = first(&|socket| is_open(socket) && v6only(socket)) {
        return missed(DropReason::V6Only, index);
    }
    if let Some(index) = elsewhere {
        return missed(DropReason::ConnectedElsewhere, index);
    }
    let is_loopback = |socket: &Socket| match socket.address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
    };
    if let Some(index) = first(&|socket| is_open(socket) && !is_loopback(socket)) {
        return missed(DropReason::BindAddress, index);
    }
    first(&is_open).map_or(Lookup::Missed(DropReason::NotListening, None), |index| {
        missed(DropReason::BindLoopback, index)
    })
}

/// What makes the lookup itself uncertain: programs that choose sockets, sockets that were not read.
pub(crate) fn lookup_doubts(host: &Host<'_>, proto: Proto, family: Family) -> Vec<Doubt> {
    let stage = Stage::Socket;
    let effect = DoubtEffect::MayRedirect;
    let netns = host.netns();
    let mut doubts = Vec::new();
    for (index, program) in netns.bpf.iter().enumerate() {
        if program.point == AttachPoint::SkLookup {
            let subject = Some(Subject::Bpf(index));
            doubts.push(Doubt { stage, reason: UnknownReason::OpaqueProgram, effect, subject });
        }
    }
    doubts.extend(gap_doubts(host, stage, effect, |subject| {
        *subject == GapSubject::SkLookup
            || *subject == GapSubject::Sockets(proto, family)
            // IPv6 sockets take IPv4 packets as well, unless they say no.
            || *subject == GapSubject::Sockets(proto, Family::Ipv6)
    }));
    doubts
}

/// Doubts about sockets of the port whose device and v6only were not read, or of which it was not read
/// whether they take packets of a VRF: one of them might take the packet, or might not.
pub(crate) fn detail_doubts(host: &Host<'_>, query: &SocketQuery) -> Vec<Doubt> {
    let sockets = &host.netns().sockets;
    let any = query.family.unspecified();
    let matters = |proto: Proto, family: Family| {
        let of_port = host.sockets().of_port(query.proto, query.port);
        proto == query.proto
            && of_port.map(|index| &sockets[index.0]).any(|socket| {
                let address = receive_address(socket, query.family);
                socket.family == family && (address == Some(query.to) || address == Some(any))
            })
    };
    let unbound = |socket: &Socket| {
        let address = receive_address(socket, query.family);
        socket.device.is_none() && (address == Some(query.to) || address == Some(any))
    };
    let mut of_port = host.sockets().of_port(query.proto, query.port);
    let accept = l3mdev_accept(query.proto).name();
    let asks_vrf = query.slave.is_some() && of_port.any(|index| unbound(&sockets[index.0]));
    let mut doubts = gap_doubts(
        host,
        Stage::Socket,
        DoubtEffect::MayRedirect,
        |subject| matches!(subject, GapSubject::Sysctl(name) if asks_vrf && name == accept),
    );
    doubts.extend(gap_doubts(
        host,
        Stage::Socket,
        DoubtEffect::MayStop,
        |subject| matches!(subject, GapSubject::SocketDetails(proto, family) if matters(*proto, *family)),
    ));
    doubts
}
