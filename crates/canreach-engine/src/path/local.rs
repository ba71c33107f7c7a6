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
use canreach_snapshot::{Family, Ifindex, LinkKind, NfHook, Port, Proto};

use crate::host::Host;
use crate::host::flow::{Flow, Found, PortTerm, Refusal, Term, WayKind};
use crate::host::others::Leads;
use crate::host::policy::Lookup;
use crate::netfilter::hook::{HookPlace, NfStop, RejectAnswer, Strand};
use crate::netfilter::view::{PacketType, Part, View};
use crate::packet::packet_set::PacketSet;
use crate::path::acknowledgement::{ROUND_TRIP, place_of, walk_hooks};
use crate::path::appearance::{
    Ends, LOOPBACK, Message, Reply, between, first, refusing, replying, strand,
};
use crate::path::hook::{Seen, has_rules, walk_hook};
use crate::path::ingress::ingress;
use crate::path::input::input;
use crate::path::ipv6_source::first_source;
use crate::path::output::{Sender, connect, output};
use crate::path::prerouting::prerouting;
use crate::path::rejection::error_of;
use crate::path::reply::{AnswerKey, bars_loopback, is_source, stays_inside};
use crate::path::route_input::{group, table_doubts};
use crate::path::sets::Sets;
use crate::path::source_choice::select_address;
use crate::path::stage::{Finding, Partition, needs_strict, silence};
use crate::{DoubtEffect, DropReason, Stage, Subject, TheySee, UnknownReason};

/// A client's packet on its way to a socket.
#[derive(Debug, Clone)]
struct Path {
    /// The stages so far, in order.
    partitions: Vec<Partition>,
    /// The source the kernel chooses.
    source: IpAddr,
    /// The link that sockets see: the one the address belongs to, not `lo`.
    device: Option<Ifindex>,
    /// Packets whose route leads off this machine, unless rules turn them back at output.
    away: Partition,
}

/// Packets that look alike when they get to the sockets.
#[derive(Debug, Clone)]
pub(crate) struct LocalBranch {
    /// The packets.
    pub(crate) within: PacketSet,
    /// The stages before the socket, in order.
    pub(crate) partitions: Vec<Partition>,
    /// Where they go.
    pub(crate) to: IpAddr,
    /// Where they go.
    pub(crate) port: Port,
    /// The source the kernel chooses.
    pub(crate) source: IpAddr,
    /// The link that sockets see: the one the address belongs to, not `lo`.
    pub(crate) device: Option<Ifindex>,
    /// What rules left of them.
    pub(crate) view: View,
}

/// What a client on this machine asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAsked {
    pub(crate) proto: Proto,
    pub(crate) port: Port,
    pub(crate) to: IpAddr,
    pub(crate) uid: u32,
    /// IPv4: policy rules are walked, instead of the merged trie.
    pub(crate) split: bool,
}

/// Walks a client's packet up to the input hook: a branch for each way that rules made it look.
pub(crate) fn local_input(host: &Host<'_>, sets: &mut Sets, asked: LocalAsked) -> Vec<LocalBranch> {
    let family = Family::of(asked.to);
    let to = resolved(asked.to);
    let asked = LocalAsked { to, ..asked };
    let mut path = Path {
        partitions: vec![
            vec![(PacketSet::ALL, connect(host))],
            vec![(PacketSet::ALL, table_doubts(host, family, true))],
        ],
        source: to,
        device: owner(host, to),
        away: Partition::new(),
    };
    route_output(host, sets, asked, &mut path);
    path.hold_back();
    path.partitions.push(vec![(PacketSet::ALL, output(host, family, Sender::Client))]);
    let ends = Ends { source: Part::Is(address_value(path.source)), to, port: asked.port.0 };
    let view = View { sender_uid: Some(asked.uid), ..first(asked.proto, ends, PacketType::Host) };
    let mut strands = between(vec![strand(sets.universe(), view)], (None, LOOPBACK));
    let place = (Stage::Output, HookPlace::at(NfHook::Output));
    let seen = |sets: &mut Sets, strand: &Strand, stop: &NfStop| {
        seen_by_client(host, sets, asked, (strand, stop), Stage::Output)
    };
    let walked = walk_hook(host, sets, place, strands, &mut { seen });
    path.partitions.push(walked.partition);
    strands = walked.strands;
    let mut branches = Vec::new();
    for strand in strands {
        branches.extend(come_in(host, sets, asked, strand, path.clone()));
    }
    branches
}

impl Path {
    /// Takes back what the route said of packets that leave: the output hook comes before they do.
    fn hold_back(&mut self) {
        let Some(routed) = self.partitions.last_mut() else { return };
        let leaves = |finding: &Finding| {
            finding.stop.as_ref().is_some_and(|stop| stop.reason == DropReason::NotLocal)
        };
        let (away, stays) =
            std::mem::take(routed).into_iter().partition(|(_, finding)| leaves(finding));
        (*routed, self.away) = (stays, away);
    }
}

/// 0.0.0.0 and `::` stand for the loopback address.
pub(crate) const fn resolved(to: IpAddr) -> IpAddr {
    if to.is_unspecified() { loopback(Family::of(to)) } else { to }
}

/// The second half, from behind the output hook to the input hook.
fn come_in(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: LocalAsked,
    strand: Strand,
    mut path: Path,
) -> Vec<LocalBranch> {
    let family = Family::of(asked.to);
    let mut now = asked;
    if let Part::Is(to) = strand.view.destination {
        now.to = family.address(to);
    }
    if let Part::Is(port) = strand.view.destination_port {
        now.port = Port(port as u16);
    }
    if strand.view.reroute {
        reroute(host, sets, (now, strand.view.mark), &mut path);
    } else {
        let away = std::mem::take(&mut path.away);
        path.partitions.push(away);
    }
    let mut strands = vec![Strand { view: View { reroute: false, ..strand.view }, ..strand }];
    let stages = [
        (Stage::Output, NfHook::Postrouting, (None, LOOPBACK)),
        (Stage::Output, NfHook::Egress, (None, LOOPBACK)),
        (Stage::Ingress, NfHook::Ingress, (LOOPBACK, None)),
        (Stage::Prerouting, NfHook::Prerouting, (LOOPBACK, None)),
        (Stage::Input, NfHook::Input, (LOOPBACK, None)),
    ];
    for (stage, hook, links) in stages {
        let mut meets = |finding| path.partitions.push(vec![(PacketSet::ALL, finding)]);
        if stage == Stage::Ingress {
            meets(loopback_link(host, asked.proto));
            if let Some(link) = host.link(LOOPBACK_IFINDEX) {
                meets(ingress(host, link));
            }
        } else if stage == Stage::Prerouting {
            meets(prerouting(host, family));
        } else if stage == Stage::Input {
            meets(input(host, family));
        }
        let mut seen = |sets: &mut Sets, strand: &Strand, stop: &NfStop| {
            seen_by_client(host, sets, asked, (strand, stop), stage)
        };
        let place = (stage, place_of(hook, links));
        let walked = walk_hook(host, sets, place, between(strands, links), &mut seen);
        path.partitions.push(walked.partition);
        strands = walked.strands;
    }
    let branch = |strand: Strand| LocalBranch {
        within: strand.set,
        partitions: path.partitions.clone(),
        to: now.to,
        port: now.port,
        source: match strand.view.source {
            Part::Is(source) => family.address(source),
            Part::Client | Part::Chosen(_) => path.source,
        },
        device: path.device,
        view: strand.view,
    };
    strands.into_iter().map(branch).collect()
}

/// What a client on this machine sees when rules stop its packet. Before it leaves, UDP is told so;
/// errors reach it unless rules stop those as well.
fn seen_by_client(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: LocalAsked,
    (stopped, stop): (&Strand, &NfStop),
    stage: Stage,
) -> Seen {
    let silence = silence(asked.proto);
    if stage == Stage::Output && asked.proto == Proto::Udp {
        return vec![(PacketSet::ALL, Some(TheySee::OperationNotPermitted))];
    }
    let Some(answer) = stop.answer else { return vec![(PacketSet::ALL, Some(silence))] };
    let seen = error_of(answer, asked.proto);
    let message = match answer {
        RejectAnswer::TcpReset => Message::Reset { rejected: true },
        RejectAnswer::Icmp(code) | RejectAnswer::Icmpv6(code) => Message::Unreachable { code },
    };
    let (Part::Is(from), Part::Is(port)) =
        (stopped.view.destination, stopped.view.destination_port)
    else {
        return vec![(PacketSet::ALL, Some(silence))];
    };
    let reply = Reply {
        proto: asked.proto,
        from: Family::of(asked.to).address(from),
        port: port as u16,
        oif: LOOPBACK_IFINDEX,
        mark: 0,
        socket: None,
        uid: 0,
        to: &stopped.view,
    };
    let sent = strand(stopped.set, refusing(&reply, message));
    let mut lost = PacketSet::NONE;
    for (set, finding) in walk_hooks(host, sets, silence, sent, &ROUND_TRIP).iter().flatten() {
        if finding.stop.is_some() {
            lost = sets.or(lost, *set);
        }
    }
    vec![(lost, Some(silence)), (sets.not(lost), Some(seen))]
}

/// Routes a packet again whose address or mark rules changed (`ip_route_me_harder`): with the source
/// it has by now. Where that fails, it is dropped.
fn reroute(host: &Host<'_>, sets: &mut Sets, (asked, mark): (LocalAsked, u32), path: &mut Path) {
    let family = Family::of(asked.to);
    let source = Term::Is(address_value(path.source));
    let flow = Flow { source, mark, ..client_flow(asked) };
    let silence = Some(silence(asked.proto));
    let mut parts = Partition::new();
    path.device = owner(host, asked.to);
    for (set, found) in look_up_output(host, sets, &flow, PacketSet::ALL) {
        let barred = family == Family::Ipv4 && is_barred(host, path.source, found);
        let finding = match found {
            Found::Refused { .. } => {
                Finding::stop(Stage::Output, DropReason::NatFailed, None, silence)
            }
            Found::Route { .. } if barred => {
                Finding::stop(Stage::Output, DropReason::NatFailed, None, silence)
            }
            Found::Route { .. } => sent_away(host, asked, dispatch(host, asked, found, path)),
        };
        parts.push((set, finding));
    }
    path.partitions.push(parts);
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
fn route_output(host: &Host<'_>, sets: &mut Sets, asked: LocalAsked, path: &mut Path) {
    let family = Family::of(asked.to);
    if asked.to.is_multicast() && family == Family::Ipv6 && asked.proto == Proto::Tcp {
        // Refused before a route is looked for (`tcp_v6_connect`).
        path.partitions.push(vec![(PacketSet::ALL, group(host, asked.proto, asked.port))]);
        return;
    }
    let near = matches!(asked.to, IpAddr::V6(to) if to.is_unicast_link_local());
    // A link-local address is dialled with its zone, which binds the client to the link.
    let flow = Flow { oif: path.device.filter(|_| near), ..client_flow(asked) };
    let mut parts = Partition::new();
    for (set, found) in look_up_output(host, sets, &flow, PacketSet::ALL) {
        let refused = matches!(found, Found::Refused { .. }) && discarding(found).is_none();
        if asked.to.is_multicast() && !refused {
            parts.push((set, group(host, asked.proto, asked.port)));
            continue;
        }
        if is_limited(asked.to) && !refused {
            // Sent by the link of its source, which has to be there (`__ip_dev_find`).
            let source = source_for(host, family, asked.to, found);
            let foreign =
                |source: IpAddr| source != asked.to && !is_source(host, source, asked.split);
            let finding = if source.is_some_and(foreign) {
                not_a_source()
            } else {
                dispatch(host, asked, found, path)
            };
            parts.push((set, finding));
            continue;
        }
        if refused && family == Family::Ipv4 {
            parts.push((set, dispatch(host, asked, found, path)));
            continue;
        }
        // IPv6 forgets an error here: a source is chosen all the same, and the second lookup decides
        // (`ip6_dst_lookup_tail`).
        let chosen = source_for(host, family, asked.to, found);
        if family == Family::Ipv6 && chosen.is_none() {
            let seen = Some(TheySee::AddressNotAvailable);
            parts.push((set, Finding::stop(Stage::Route, DropReason::NoRoute, None, seen)));
            continue;
        }
        let again = Flow { source: Term::Is(chosen.map_or(0, address_value)), ..flow };
        path.source = chosen.unwrap_or(asked.to);
        if family == Family::Ipv6 && !refused {
            let finding = match discarding(found) {
                Some(route) => discarded(host, sets, asked, (path.source, route)),
                None => dispatch(host, asked, found, path),
            };
            parts.push((set, finding));
            continue;
        }
        for (set, found) in look_up_output(host, sets, &again, set) {
            let foreign = family == Family::Ipv4
                && chosen.is_some_and(|source| {
                    !is_source(host, source, asked.split) || is_barred(host, source, found)
                });
            let finding = match discarding(found) {
                _ if foreign => not_a_source(),
                Some(route) => discarded(host, sets, asked, (path.source, route)),
                None => dispatch(host, asked, found, path),
            };
            parts.push((set, finding));
        }
    }
    path.partitions.push(parts);
}

/// What a client's packet is routed by: without a source, a mark and a link.
fn client_flow(asked: LocalAsked) -> Flow {
    Flow {
        family: Family::of(asked.to),
        destination: Term::Is(address_value(asked.to)),
        source: Term::Is(0),
        iif: LOOPBACK_IFINDEX,
        oif: None,
        mark: 0,
        uid: asked.uid,
        vrf_table: None,
        protocol: asked.proto.number(),
        source_port: PortTerm::AnySourcePort,
        destination_port: PortTerm::Is(asked.port.0),
        strict: needs_strict(asked.to),
        split: asked.split,
    }
}

/// The route that a lookup found, if it is one that discards.
const fn discarding(found: Found) -> Option<usize> {
    match found {
        Found::Refused { refusal: Refusal::Discarded, route, .. } => route,
        Found::Refused { .. } | Found::Route { .. } => None,
    }
}

/// A route through `lo` that is found and discards (`ip6_pkt_discard_out`). TCP takes the ICMPv6 error
/// for an answer, if that is not discarded in turn; UDP sockets are told of no such error.
fn discarded(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: LocalAsked,
    (source, route): (IpAddr, usize),
) -> Finding {
    let near = matches!(source, IpAddr::V6(source) if source.is_unicast_link_local());
    // From the address dialled, if this machine has it; else from that of the client.
    let own = host.entries_of(asked.to).next().is_some();
    let flow = Flow {
        family: Family::Ipv6,
        destination: Term::Is(address_value(source)),
        source: Term::Is(address_value(if own { asked.to } else { source })),
        iif: LOOPBACK_IFINDEX,
        oif: near.then_some(LOOPBACK_IFINDEX),
        mark: 0,
        uid: 0,
        vrf_table: None,
        protocol: 58,
        source_port: PortTerm::Absent,
        destination_port: PortTerm::Absent,
        strict: needs_strict(source),
        split: asked.split,
    };
    let ways = look_up_output(host, sets, &flow, PacketSet::ALL);
    let arrives = ways.iter().all(|(_, found)| is_local(host, Family::Ipv6, *found));
    let seen = if arrives && asked.proto == Proto::Tcp {
        TheySee::NetworkUnreachable
    } else {
        silence(asked.proto)
    };
    let subject = Some(Subject::Route(route));
    Finding::stop(Stage::Route, DropReason::RouteUnreachable, subject, Some(seen))
}

/// Whether no link of a route may carry a source of 127.0.0.0/8 (`__mkroute_output`).
fn is_barred(host: &Host<'_>, source: IpAddr, found: Found) -> bool {
    let Found::Route { way, .. } = found else { return false };
    let way = host.fib(Family::Ipv4).way(way);
    way.kind != WayKind::Local
        && way.exits.iter().all(|exit| bars_loopback(host, Some(source), exit.link))
}

/// The address is local by a route outside table local, or not at all: it may not be a source.
const fn not_a_source() -> Finding {
    let seen = Some(TheySee::NetworkUnreachable);
    Finding::stop(Stage::Route, DropReason::ReplySourceNotLocal, None, seen)
}

fn is_limited(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// The lookup of what this machine sends: by a link of a VRF, it belongs to the VRF.
fn look_up_output(host: &Host<'_>, sets: &mut Sets, flow: &Flow, within: PacketSet) -> Lookup {
    let link = flow.oif.and_then(|oif| host.link(oif));
    let vrf_table = link.and_then(|link| host.vrf_of(link)).map(|(_, table)| table);
    if flow.strict && link.is_some_and(|link| link.kind == LinkKind::Vrf) {
        // A VRF's own link has no link-local neighbours (`vrf_link_scope_lookup`).
        let none = Found::Refused { refusal: Refusal::NoRoute, route: None, rule: None };
        return vec![(within, none)];
    }
    host.look_up(sets, &Flow { vrf_table, ..*flow }, within)
}

fn is_local(host: &Host<'_>, family: Family, found: Found) -> bool {
    let Found::Route { way, .. } = found else { return false };
    let way = host.fib(family).way(way);
    match way.kind {
        WayKind::Local => true,
        WayKind::Anycast if family == Family::Ipv6 => true,
        WayKind::Unicast | WayKind::Anycast | WayKind::Multicast => stays_inside(host, way),
        WayKind::Broadcast => false,
    }
}

/// The source the kernel chooses. IPv4: that of the matched route; else, for a local route, the
/// address dialled itself, and for others an address of the link. `None` if there is none.
fn source_for(host: &Host<'_>, family: Family, to: IpAddr, found: Found) -> Option<IpAddr> {
    let way = match found {
        Found::Route { way, .. } => Some(host.fib(family).way(way)),
        Found::Refused { .. } => None,
    };
    let exit = way.and_then(|way| way.exits.first());
    match (family, way) {
        (Family::Ipv6, way) => {
            let discarding = discarding(found).map(|route| &host.netns().routes[route]);
            let preferred = way.and_then(|way| way.preferred_source);
            let preferred = preferred.or_else(|| discarding?.preferred_source);
            let link = exit.map(|exit| exit.link).or_else(|| discarding.map(|_| LOOPBACK_IFINDEX));
            preferred.or_else(|| first_source(host, link, to))
        }
        (Family::Ipv4, None) => None,
        (Family::Ipv4, Some(way)) if way.kind == WayKind::Local => {
            Some(way.preferred_source.unwrap_or(to))
        }
        (Family::Ipv4, Some(way)) => way.preferred_source.or_else(|| {
            let exit = exit?;
            select_address(host, exit.link, exit.gateway, way.scope)
        }),
    }
}

fn dispatch(host: &Host<'_>, asked: LocalAsked, found: Found, path: &mut Path) -> Finding {
    let stage = Stage::Route;
    let family = Family::of(asked.to);
    match found {
        Found::Refused { refusal, route, rule } => {
            let subject = route.map(Subject::Route).or_else(|| rule.map(Subject::PolicyRule));
            let (reason, seen) = refused(refusal);
            Finding::stop(stage, reason, subject, Some(seen))
        }
        Found::Route { route, way } => {
            let way = host.fib(family).way(way);
            let subject = Some(Subject::Route(route));
            match way.kind {
                _ if is_limited(asked.to) => to_everyone(asked, subject),
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
                WayKind::Broadcast => to_everyone(asked, subject),
                WayKind::Unicast | WayKind::Anycast | WayKind::Multicast
                    if stays_inside(host, way) =>
                {
                    path.device = Some(LOOPBACK_IFINDEX);
                    Finding::pass(stage, subject)
                }
                WayKind::Unicast | WayKind::Anycast | WayKind::Multicast => {
                    Finding::end(stage, DropReason::NotLocal, subject, None)
                }
            }
        }
    }
}

fn to_everyone(asked: LocalAsked, subject: Option<Subject>) -> Finding {
    let seen = match asked.proto {
        Proto::Tcp => TheySee::NetworkUnreachable,
        // connect(2) wants SO_BROADCAST first (`ip4_datagram_connect`).
        Proto::Udp => TheySee::PermissionDenied,
    };
    Finding::end(Stage::Route, DropReason::BroadcastDestination, subject, Some(seen))
}

/// What connect(2) says.
const fn refused(refusal: Refusal) -> (DropReason, TheySee) {
    match refusal {
        Refusal::NoRoute => (DropReason::NoRoute, TheySee::NetworkUnreachable),
        Refusal::RuleUnreachable | Refusal::Discarded => {
            (DropReason::RouteUnreachable, TheySee::NetworkUnreachable)
        }
        Refusal::RouteUnreachable => (DropReason::RouteUnreachable, TheySee::HostUnreachable),
        Refusal::Prohibit => (DropReason::RouteProhibit, TheySee::PermissionDenied),
        Refusal::Blackhole => (DropReason::RouteBlackhole, TheySee::InvalidArgument),
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

/// What rules send off this machine is forwarded; perhaps to another namespace of it.
fn sent_away(host: &Host<'_>, asked: LocalAsked, finding: Finding) -> Finding {
    let Some(stop) = finding.stop.as_ref().filter(|stop| stop.reason == DropReason::NotLocal)
    else {
        return finding;
    };
    let (stage, subject) = (Stage::Forward, stop.subject.clone());
    let route = match subject {
        Some(Subject::Route(index)) => host.netns().routes.get(index),
        _ => None,
    };
    let by = route.and_then(|route| route.nexthops.first()).and_then(|hop| hop.ifindex);
    let leads = by.map(|by| host.others().leads(host, by, asked.to));
    if leads.is_none_or(|leads| leads == Leads::Away) {
        return Finding::end(stage, DropReason::Forwarded, subject, None);
    }
    let (reason, effect) = (UnknownReason::OtherNamespace, DoubtEffect::MayRedirect);
    Finding { ends: true, ..Finding::doubt(stage, reason, effect, subject) }
}

/// A server's answer to a client on this machine, or the kernel's refusal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAnswer<'v> {
    pub(crate) proto: Proto,
    /// What it is routed by.
    pub(crate) key: AnswerKey,
    /// The client's address.
    pub(crate) to: IpAddr,
    /// The link of the address dialled.
    pub(crate) device: Option<Ifindex>,
    /// The address dialled, as the socket has it.
    pub(crate) dialled: IpAddr,
    /// The port dialled, as the socket has it.
    pub(crate) port: Port,
    /// The packet that is answered, as it was at its last hook.
    pub(crate) view: &'v View,
    /// IPv4: policy rules are walked, instead of the merged trie.
    pub(crate) split: bool,
}

/// The way back to a client on this machine: its address must be local for the answer as well. A
/// server bound to a link that the client's address is not on looks for the client out there
/// (section 14.1, step 4).
pub(crate) fn local_reply(
    host: &Host<'_>,
    sets: &mut Sets,
    answer: LocalAnswer<'_>,
    refusal: Option<Message>,
) -> Vec<Partition> {
    let mut stages = vec![way_back(host, sets, answer)];
    if has_rules(host) {
        let reply = Reply {
            proto: answer.proto,
            from: answer.key.source.unwrap_or(answer.dialled),
            port: answer.port.0,
            oif: LOOPBACK_IFINDEX,
            mark: answer.key.mark,
            socket: answer.key.socket,
            uid: answer.key.uid,
            to: answer.view,
        };
        let view = match refusal {
            None => replying(&reply),
            Some(message) => refusing(&reply, message),
        };
        let sent = strand(sets.universe(), view);
        stages.extend(walk_hooks(host, sets, silence(answer.proto), sent, &ROUND_TRIP));
    }
    stages
}

fn way_back(host: &Host<'_>, sets: &mut Sets, answer: LocalAnswer<'_>) -> Partition {
    let stage = Stage::Reply;
    let stop = |reason, subject| Finding::stop(stage, reason, subject, Some(silence(answer.proto)));
    let source_fails = answer.key.source.is_some_and(|source| {
        Family::of(source) == Family::Ipv4
            && !answer.key.transparent
            && !is_source(host, source, answer.split)
    });
    if source_fails {
        return vec![(PacketSet::ALL, stop(DropReason::ReplySourceNotLocal, None))];
    }
    let is_up = |device| host.link(device).is_some_and(|link| link.is_up());
    let asks_link = Family::of(answer.to) == Family::Ipv4;
    if let Some(device) = answer.key.device.filter(|device| asks_link && !is_up(*device)) {
        let subject = Some(Subject::Link(device));
        return vec![(PacketSet::ALL, stop(DropReason::NoReplyRoute, subject))];
    }
    let mut parts = Partition::new();
    for (set, found) in look_up_output(host, sets, &answer_flow(answer), PacketSet::ALL) {
        let family = Family::of(answer.to);
        let finding = match found {
            Found::Route { way, .. } if is_local(host, family, found) => {
                let preferred = host.fib(family).way(way).preferred_source;
                let source = answer.key.source.or(preferred).unwrap_or(answer.to);
                if source == answer.dialled {
                    Finding::pass(stage, None)
                } else {
                    let reason = UnknownReason::ReplyAddress;
                    Finding::doubt(stage, reason, DoubtEffect::MayStop, None)
                }
            }
            Found::Route { .. } => {
                let subject = answer.key.device.map(Subject::Link);
                stop(DropReason::NoReplyRoute, subject)
            }
            // Looked for on `lo`, where it is.
            Found::Refused { .. }
                if family == Family::Ipv4 && answer.key.device == Some(LOOPBACK_IFINDEX) =>
            {
                Finding::pass(stage, None)
            }
            Found::Refused { route, rule, .. } => {
                let subject = route.map(Subject::Route).or_else(|| rule.map(Subject::PolicyRule));
                stop(DropReason::NoReplyRoute, subject)
            }
        };
        parts.push((set, finding));
    }
    parts
}

fn answer_flow(answer: LocalAnswer<'_>) -> Flow {
    let family = Family::of(answer.to);
    let port = |port: Option<Port>| port.map_or(PortTerm::Absent, |port| PortTerm::Is(port.0));
    let near = matches!(answer.to, IpAddr::V6(to) if to.is_unicast_link_local());
    let device = answer.key.device.or_else(|| answer.device.filter(|_| near));
    Flow {
        family,
        destination: Term::Is(address_value(answer.to)),
        source: Term::Is(answer.key.source.map_or(0, address_value)),
        iif: LOOPBACK_IFINDEX,
        oif: device,
        mark: answer.key.mark,
        uid: answer.key.uid,
        vrf_table: None,
        protocol: answer.key.protocol,
        source_port: port(answer.key.port),
        destination_port: match answer.key.port {
            Some(_) => PortTerm::AnySourcePort,
            None => PortTerm::Absent,
        },
        strict: family == Family::Ipv6 && (answer.key.device.is_some() || needs_strict(answer.to)),
        split: answer.split,
    }
}
