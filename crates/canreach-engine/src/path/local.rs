//! The machine talking to itself: out and in on the loopback link.
//!
//! *Kernel:* `ip_route_output_key_hash_rcu`, `tcp_v4_connect`, `tcp_v6_connect`,
//! `ip6_dst_lookup_tail`, `loopback_xmit`.
//! *Decides:* what connect(2) says at once, whether the loopback link carries it, the source.
//! *Reads:* routes, policy rules, addresses, the loopback link, hooks.
//! *Not modelled:* client sockets that are bound to a link or an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::address::address_value;
use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, Ifindex, Port, Proto};

use crate::host::Host;
use crate::host::flow::{Flow, Found, PortTerm, Refusal, Term, WayKind};
use crate::packet::diagram::Diagram;
use crate::packet::packet_set::PacketSet;
use crate::path::input::input;
use crate::path::output::{Sender, output};
use crate::path::prerouting::prerouting;
use crate::path::reply::is_source;
use crate::path::route_input::table_gaps;
use crate::path::stage::{Finding, Partition, needs_strict, silence};
use crate::{DoubtEffect, DropReason, Stage, Subject, TheySee, UnknownReason};

/// A client's packet on its way to a socket.
#[derive(Debug, Clone)]
pub(crate) struct LocalInput {
    /// The stages before the socket, in order.
    pub(crate) partitions: Vec<Partition>,
    /// The address dialled, once 0.0.0.0 and `::` are resolved.
    pub(crate) to: IpAddr,
    /// The source the kernel chooses.
    pub(crate) source: IpAddr,
    /// The link that sockets see: the one the address belongs to, not `lo`.
    pub(crate) device: Option<Ifindex>,
    /// To everyone on some network.
    pub(crate) broadcast: bool,
}

/// What a client on this machine asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAsked {
    pub(crate) proto: Proto,
    pub(crate) port: Port,
    pub(crate) to: IpAddr,
    pub(crate) uid: u32,
}

/// Walks a client's packet up to the input hook.
pub(crate) fn local_input(host: &Host<'_>, sets: &mut Diagram, asked: LocalAsked) -> LocalInput {
    let family = Family::of(asked.to);
    let to = if asked.to.is_unspecified() { loopback(family) } else { asked.to };
    let asked = LocalAsked { to, ..asked };
    let mut input_path = LocalInput {
        partitions: vec![vec![(PacketSet::ALL, table_gaps(host, family))]],
        to,
        source: to,
        device: owner(host, to),
        broadcast: false,
    };
    route_output(host, sets, asked, &mut input_path);
    let mut stage = |finding| input_path.partitions.push(vec![(PacketSet::ALL, finding)]);
    stage(output(host, family, Sender::Client));
    stage(loopback_link(host, asked.proto));
    stage(prerouting(host, family));
    stage(input(host, family));
    input_path
}

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// The link an address is configured on; the loopback link for its own range.
fn owner(host: &Host<'_>, address: IpAddr) -> Option<Ifindex> {
    let addresses = &host.netns().addresses;
    let entry = host.entries_of(address).next().map(|index| addresses[index].ifindex);
    entry.or_else(|| address.is_loopback().then_some(LOOPBACK_IFINDEX))
}

/// The route of the packet, and with it the source: first without one, then with it.
fn route_output(host: &Host<'_>, sets: &mut Diagram, asked: LocalAsked, path: &mut LocalInput) {
    let family = Family::of(asked.to);
    if asked.to.is_multicast() {
        path.partitions.push(vec![(PacketSet::ALL, multicast(asked.proto))]);
        return;
    }
    let near = needs_strict(asked.to);
    let flow = Flow {
        family,
        destination: Term::Is(address_value(asked.to)),
        source: Term::Is(0),
        iif: LOOPBACK_IFINDEX,
        // A link-local address is dialled with its zone, which binds the client to the link.
        oif: path.device.filter(|_| near),
        mark: 0,
        uid: asked.uid,
        vrf_table: None,
        protocol: asked.proto.number(),
        source_port: PortTerm::AnySourcePort,
        destination_port: PortTerm::Is(asked.port.0),
        strict: near,
    };
    let mut parts = Partition::new();
    for (set, found) in host.look_up(sets, &flow, PacketSet::ALL) {
        let source = source_for(host, family, asked.to, found);
        let again = Flow { source: Term::Is(address_value(source)), ..flow };
        for (set, found) in host.look_up(sets, &again, set) {
            let finding = if family == Family::Ipv4
                && matches!(found, Found::Route { .. })
                && source == asked.to
                && is_local(host, family, found)
                && !is_source(host, source)
            {
                // The address is local by a route outside table local: it may not be a source.
                let seen = Some(TheySee::NetworkUnreachable);
                Finding::stop(Stage::Route, DropReason::NoRoute, None, seen)
            } else {
                dispatch(host, asked, found, path)
            };
            path.source = source;
            parts.push((set, finding));
        }
    }
    path.partitions.push(parts);
}

fn is_local(host: &Host<'_>, family: Family, found: Found) -> bool {
    matches!(found, Found::Route { way, .. }
        if matches!(host.fib(family).way(way).kind, WayKind::Local | WayKind::Anycast))
}

/// The source of the matched route, else the address dialled itself.
fn source_for(host: &Host<'_>, family: Family, to: IpAddr, found: Found) -> IpAddr {
    let preferred = match found {
        Found::Route { way, .. } if is_local(host, family, found) => {
            host.fib(family).way(way).preferred_source
        }
        Found::Route { .. }
        | Found::Refused { .. }
        | Found::Unjudged { .. }
        | Found::LayoutMatters => None,
    };
    // An own IPv6 address is its own best source (RFC 6724, rule 1).
    preferred.filter(|_| family == Family::Ipv4).unwrap_or(to)
}

fn dispatch(host: &Host<'_>, asked: LocalAsked, found: Found, path: &mut LocalInput) -> Finding {
    let stage = Stage::Route;
    let family = Family::of(asked.to);
    match found {
        Found::Unjudged { rule } => {
            let subject = Some(Subject::PolicyRule(rule));
            Finding::doubt(stage, UnknownReason::Unread, DoubtEffect::MayRedirect, subject)
        }
        Found::LayoutMatters => {
            Finding::doubt(stage, UnknownReason::FibLayout, DoubtEffect::MayRedirect, None)
        }
        Found::Refused { refusal, route, rule } => {
            let subject = route.map(Subject::Route).or_else(|| rule.map(Subject::PolicyRule));
            let (reason, seen) = refused(host, family, refusal);
            Finding::stop(stage, reason, subject, Some(seen))
        }
        Found::Route { route, way } => {
            let way = host.fib(family).way(way);
            let subject = Some(Subject::Route(route));
            match way.kind {
                WayKind::Local => {
                    path.device = way.exits.first().map(|exit| exit.link).or(path.device);
                    Finding::pass(stage, subject)
                }
                WayKind::Anycast if family == Family::Ipv6 => {
                    path.device = way.exits.first().map(|exit| exit.link).or(path.device);
                    match asked.proto {
                        Proto::Udp => Finding::pass(stage, subject),
                        Proto::Tcp => Finding::end(
                            stage,
                            DropReason::AnycastDestination,
                            subject,
                            Some(TheySee::Timeout),
                        ),
                    }
                }
                WayKind::Broadcast => {
                    path.broadcast = true;
                    let seen = match asked.proto {
                        Proto::Tcp => TheySee::NetworkUnreachable,
                        // connect(2) wants SO_BROADCAST first (`ip4_datagram_connect`).
                        Proto::Udp => TheySee::PermissionDenied,
                    };
                    let reason = DropReason::BroadcastDestination;
                    Finding::end(stage, reason, subject, Some(seen))
                }
                WayKind::Unicast if is_zeronet(asked.to) => {
                    let seen = Some(TheySee::InvalidArgument);
                    Finding::end(stage, DropReason::Martian, subject, seen)
                }
                WayKind::Unicast | WayKind::Anycast | WayKind::Multicast => {
                    Finding::end(stage, DropReason::NotLocal, subject, None)
                }
            }
        }
    }
}

const fn is_zeronet(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 0)
}

/// What connect(2) says.
fn refused(host: &Host<'_>, family: Family, refusal: Refusal) -> (DropReason, TheySee) {
    // Without any IPv6 address there is no source, and that is noticed first.
    let sourceless = family == Family::Ipv6 && host.own_addresses(family).is_empty();
    let no_route =
        if sourceless { TheySee::AddressNotAvailable } else { TheySee::NetworkUnreachable };
    match refusal {
        Refusal::NoRoute => (DropReason::NoRoute, no_route),
        Refusal::RuleUnreachable => (DropReason::RouteUnreachable, TheySee::NetworkUnreachable),
        Refusal::RouteUnreachable => (DropReason::RouteUnreachable, TheySee::HostUnreachable),
        Refusal::Prohibit => (DropReason::RouteProhibit, TheySee::PermissionDenied),
        Refusal::Blackhole => (DropReason::RouteBlackhole, TheySee::InvalidArgument),
    }
}

fn multicast(proto: Proto) -> Finding {
    match proto {
        Proto::Tcp => {
            let seen = Some(TheySee::NetworkUnreachable);
            Finding::end(Stage::Route, DropReason::MulticastDestination, None, seen)
        }
        Proto::Udp => Finding::pass(Stage::Route, None),
    }
}

/// Whatever link owns the address, the packet goes over `lo`.
fn loopback_link(host: &Host<'_>, proto: Proto) -> Finding {
    let subject = Some(Subject::Link(LOOPBACK_IFINDEX));
    if host.link(LOOPBACK_IFINDEX).is_some_and(|link| link.is_up()) {
        Finding::pass(Stage::Link, subject)
    } else {
        Finding::stop(Stage::Link, DropReason::LinkDown, subject, Some(silence(proto)))
    }
}
