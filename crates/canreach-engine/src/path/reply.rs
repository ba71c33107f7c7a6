//! The way back: the SYN-ACK, the reset, the ICMP error, a UDP server's answer.
//!
//! *Kernel:* `inet_csk_route_req`, `inet6_csk_route_req`, `ip_route_output_key_hash_rcu`,
//! `ip6_route_output_flags`, `inet_select_addr`.
//! *Decides:* [`WayBack`]: whether an answer leaves by the link the packet came in by.
//! *Reads:* routes, policy rules, the socket's device, mark and user, addresses.
//! *Not modelled:* what routers and peers do with an answer that leaves by another link; neighbour
//! resolution of the next router; XFRM.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{
    CgroupId, Family, GapSubject, GlobalSysctl, Ifindex, LinkKind, LinkSysctl, NfHook, Port, Proto,
    RouteProtocol, TableId,
};

use crate::AddressSet;
use crate::host::Host;
use crate::host::flow::{Flow, Found, PortTerm, Refusal, Term, Way, WayKind};
use crate::host::table::{Hit, Selector};
use crate::netfilter::hook::Strand;
use crate::netfilter::view::View;
use crate::packet::packet_set::PacketSet;
use crate::path::appearance::{Message, Reply, refusing, replying, strand};
use crate::path::hook::{Seen, gap_doubts, has_rules, merge};
use crate::path::ipv6_source::sources_by_destination;
use crate::path::output::{Sender, leave, leave_by, leave_links, output};
use crate::path::rejection::icmp_number;
use crate::path::sets::Sets;
use crate::path::socket_gate::mapped_sources;
use crate::path::socket_lookup::l3mdev_accept;
use crate::path::source_choice::source_choice;
use crate::path::stage::{Asked, Finding, Partition};
use crate::{Doubt, DoubtEffect, DropReason, SocketIndex, Stage, Subject, TheySee, UnknownReason};

/// What the route of an answer is looked up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AnswerKey {
    /// Its source; `None` where the route chooses it.
    pub(crate) source: Option<IpAddr>,
    /// The link its socket is bound to.
    pub(crate) device: Option<Ifindex>,
    pub(crate) mark: u32,
    pub(crate) uid: u32,
    /// The protocol number in its header; 0 for ARP.
    pub(crate) protocol: u8,
    /// Its source port, where it has ports.
    pub(crate) port: Option<Port>,
    /// Its source need not be an address of this machine (IP_TRANSPARENT).
    pub(crate) transparent: bool,
    /// The kernel itself sends it: a reset, an ICMP error.
    pub(crate) by_kernel: bool,
    /// Who sends it, where rules may ask.
    pub(crate) socket: Option<SocketIndex>,
}

impl AnswerKey {
    /// A reset, or an ICMP error: sent by the kernel itself, for the address dialled.
    pub(crate) fn refusal(asked: &Asked<'_>) -> Self {
        let (protocol, port) = match (asked.proto, asked.family) {
            (Proto::Tcp, _) => (Proto::Tcp.number(), Some(asked.port)),
            (Proto::Udp, family) => (icmp_number(family), None),
        };
        Self { source: Some(asked.to), protocol, port, ..Self::icmp_error(asked.family) }
    }

    /// An ICMP error from a machine that does not have the address dialled.
    pub(crate) const fn icmp_error(family: Family) -> Self {
        Self {
            source: None,
            device: None,
            mark: 0,
            uid: 0,
            protocol: icmp_number(family),
            port: None,
            transparent: false,
            by_kernel: true,
            socket: None,
        }
    }
}

/// Where an answer goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WayBack {
    /// Out by the link the packet came in by; by this way, unless the kernel just assumes that the
    /// peer is there.
    Back { way: Option<u32> },
    /// Nowhere; what said so, by its place among routes or rules; and whether that was the lookup,
    /// rather than what it found.
    None { route: Option<usize>, rule: Option<usize>, refused: bool },
    /// The address dialled may not be a source.
    SourceNotLocal,
    /// Out by a link behind which the sender is not, or is hidden.
    By { link: Ifindex, vpn: bool },
    /// By one of several links.
    Multipath { route: usize },
}

/// Where the answers to all sources go.
pub(crate) fn way_back(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
) -> Vec<(PacketSet, WayBack)> {
    let none = WayBack::None { route: None, rule: None, refused: false };
    let source_fails = key.source.is_some_and(|source| {
        Family::of(source) == Family::Ipv4
            && !key.transparent
            && !is_source(host, source, asked.split)
    });
    if source_fails {
        return vec![(PacketSet::ALL, WayBack::SourceNotLocal)];
    }
    if key.device.is_some_and(|device| !host.link(device).is_some_and(|link| link.is_up())) {
        return vec![(PacketSet::ALL, none)];
    }
    let mut parts = Vec::new();
    for (within, flow) in flows(host, sets, asked, key) {
        // A VRF's own link has no link-local neighbours (`vrf_link_scope_lookup`).
        if asked.link.kind == LinkKind::Vrf && flow.strict && key.device.is_none() {
            parts.push((within, none.clone()));
            continue;
        }
        let assumed =
            key.device.filter(|_| asked.family == Family::Ipv4 && flow.vrf_table.is_none());
        for (set, found) in host.look_up(sets, &flow, within) {
            let refused = matches!(found, Found::Refused { .. });
            let Some(device) = assumed.filter(|_| refused) else {
                parts.push((set, judge(host, asked, (key, flow.oif), found)));
                continue;
            };
            // "Apparently, routing tables are wrong": the kernel asks for the peer on the device.
            let prefixes = host.on_link(device).iter().copied();
            let near = asked.from(sets, &AddressSet::from_prefixes(asked.family, prefixes));
            let there = sets.and(set, near);
            let elsewhere = sets.difference(set, near);
            let back = if is_loopback(host, device) {
                WayBack::None { route: None, rule: None, refused: false }
            } else if is_arrival(host, asked, device) {
                WayBack::Back { way: None }
            } else {
                WayBack::By { link: device, vpn: is_vpn(host, device) }
            };
            parts.push((there, back));
            parts.push((elsewhere, judge(host, asked, (key, flow.oif), found)));
        }
    }
    parts.retain(|(set, _)| !set.is_empty());
    parts
}

/// The lookups an answer needs: IPv6 ties answers to link-local peers to the link.
pub(crate) fn flows(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
) -> Vec<(PacketSet, Flow)> {
    let port = |port: Option<Port>| port.map_or(PortTerm::Absent, |port| PortTerm::Is(port.0));
    // Resets leave through the VRF the packet came in by, accepted ones if the sysctl says so.
    // `udp_l3mdev_accept` is for receiving only.
    let is_tcp = asked.proto == Proto::Tcp;
    let accept = l3mdev_accept(asked.proto);
    let vrf = match key.device.and_then(|device| host.link(device)) {
        Some(device) => host.vrf_of(device),
        None => asked.vrf.filter(|_| key.by_kernel || (is_tcp && host.sysctl(accept).is_set())),
    };
    // A VRF's own link directs the lookup to its table, and is no nexthop (`l3mdev_update_flow`).
    let is_master = |device: Ifindex| vrf.is_some_and(|(master, _)| master == device);
    let flow = Flow {
        family: asked.family,
        destination: asked.client,
        source: Term::Is(key.source.map_or(0, address_value)),
        iif: LOOPBACK_IFINDEX,
        oif: key.device.filter(|device| !is_master(*device)),
        mark: key.mark,
        uid: key.uid,
        vrf_table: vrf.map(|(_, table)| table),
        protocol: key.protocol,
        source_port: port(key.port),
        destination_port: if key.port.is_some() {
            PortTerm::AnySourcePort
        } else {
            PortTerm::Absent
        },
        strict: asked.family == Family::Ipv6 && key.device.is_some(),
        split: asked.split,
    };
    match asked.family {
        Family::Ipv4 => vec![(sets.universe(), flow)],
        Family::Ipv6 => {
            let universe = sets.universe();
            let near = link_local_clients(sets, asked);
            let near = sets.and(near, universe);
            let far = sets.difference(universe, near);
            let oif = Some(asked.link.ifindex);
            let vrf_table = asked.vrf.map(|(_, table)| table);
            vec![(near, Flow { oif, strict: true, vrf_table, ..flow }), (far, flow)]
        }
    }
}

fn judge(
    host: &Host<'_>,
    asked: &Asked<'_>,
    (key, oif): (&AnswerKey, Option<Ifindex>),
    found: Found,
) -> WayBack {
    let (route, number) = match found {
        Found::Route { route, way } => (route, way),
        Found::Refused { route, rule, refusal } => {
            let refused = refusal != Refusal::Discarded;
            return WayBack::None { route, rule, refused };
        }
    };
    let way = host.fib(asked.family).way(number);
    // To an address of this machine, or to everyone: no way to the sender.
    let nowhere = match way.kind {
        WayKind::Local | WayKind::Broadcast => true,
        WayKind::Anycast => asked.family == Family::Ipv6,
        WayKind::Unicast | WayKind::Multicast => false,
    };
    let inside = stays_inside(host, way);
    if nowhere || inside {
        return WayBack::None { route: Some(route), rule: None, refused: false };
    }
    let exits = || way.exits.iter().filter(|exit| oif.is_none_or(|oif| oif == exit.link));
    // A nexthop that may not carry the source is lost like one that leads inside.
    let barred = |link: Ifindex| from_loopback(host, key, link);
    let arrives = |link: Ifindex| is_arrival(host, asked, link) && !barred(link);
    let back = exits().filter(|exit| arrives(exit.link)).count();
    let Some(first) = exits().next() else {
        return WayBack::None { route: Some(route), rule: None, refused: false };
    };
    if exits().all(|exit| barred(exit.link)) {
        return WayBack::None { route: Some(route), rule: None, refused: false };
    }
    if back > 0 && back < exits().count() {
        return WayBack::Multipath { route };
    }
    if back == 0 {
        let is_lost = |link: Ifindex| is_vpn(host, link) || is_loopback(host, link) || barred(link);
        let vpn = exits().all(|exit| is_lost(exit.link));
        return WayBack::By { link: first.link, vpn };
    }
    WayBack::Back { way: Some(number) }
}

/// What leaves by the loopback link comes back in, whatever the type of its route (`RTCF_LOCAL` in
/// `__mkroute_output`).
pub(crate) fn stays_inside(host: &Host<'_>, way: &Way) -> bool {
    !way.exits.is_empty() && way.exits.iter().all(|exit| is_loopback(host, exit.link))
}

fn is_loopback(host: &Host<'_>, link: Ifindex) -> bool {
    host.link(link).is_some_and(|link| link.is_loopback())
}

/// A source in 127.0.0.0/8 does not leave by a link that is no loopback (`__mkroute_output`).
fn from_loopback(host: &Host<'_>, key: &AnswerKey, link: Ifindex) -> bool {
    bars_loopback(host, key.source, link)
}

/// The same, for any sender.
pub(crate) fn bars_loopback(host: &Host<'_>, source: Option<IpAddr>, link: Ifindex) -> bool {
    let is_loopback = matches!(source, Some(IpAddr::V4(source)) if source.is_loopback());
    is_loopback
        && host.link(link).is_some_and(|link| {
            !link.is_loopback()
                && link.kind != LinkKind::Vrf
                && !host.link_sysctl(LinkSysctl::RouteLocalnet, link).is_set()
        })
}

fn is_arrival(host: &Host<'_>, asked: &Asked<'_>, link: Ifindex) -> bool {
    let vrf = host.link(link).and_then(|link| host.vrf_of(link));
    link == asked.link.ifindex
        || link == asked.routed_link.ifindex
        || (vrf.is_some() && vrf == asked.vrf)
}

fn is_vpn(host: &Host<'_>, link: Ifindex) -> bool {
    host.link(link).is_some_and(|link| {
        matches!(link.kind, LinkKind::Tun | LinkKind::Wireguard | LinkKind::Ppp)
    })
}

/// Whether this machine may use an IPv4 address as a source (`__ip_dev_find`): configured somewhere,
/// or local by table local, which is the merged trie as long as there is one.
pub(crate) fn is_source(host: &Host<'_>, address: IpAddr, split: bool) -> bool {
    let fib = host.fib(Family::Ipv4);
    let table = if split { fib.tables.get(&TableId::LOCAL) } else { fib.merged.as_ref() };
    let select = Selector { device: None, strict: false };
    let hit = table.and_then(|table| table.look_up(address_value(address), 0, select));
    let is_local =
        matches!(hit, Some(Hit::Route { way, .. }) if fib.way(way).kind == WayKind::Local);
    is_local || host.entries_of(address).next().is_some()
}

/// What senders see of a refusal that the kernel sends them: itself where it gets back, silence where
/// it does not, and no telling where the networks outside decide.
pub(crate) fn seen_refusals(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
    (refusal, message): (TheySee, Message),
) -> Seen {
    // The message takes over the mark, if it is told to (`IP4_REPLY_MARK`).
    let reflect = match asked.family {
        Family::Ipv4 => GlobalSysctl::FwmarkReflect,
        Family::Ipv6 => GlobalSysctl::V6FwmarkReflect,
    };
    let mark = if host.sysctl(reflect).is_set() { asked.mark } else { 0 };
    let key = &AnswerKey { mark, ..*key };
    // Programs at output could stop the message.
    let hooks = output(host, asked.family, Sender::Kernel(asked.link.ifindex));
    let heard = Some(refusal).filter(|_| hooks.doubts.is_empty());
    let silence = asked.silence();
    let stopped = refusals_stopped(host, sets, asked, key, message);
    let mut seen = Vec::new();
    for (within, sources) in error_sources(host, sets, asked, key) {
        let mut agreed: Option<Seen> = None;
        for source in sources {
            let key = AnswerKey { source, ..*key };
            let ways = way_back(host, sets, asked, &key).into_iter();
            let by_source: Vec<_> =
                ways.map(|(set, way)| (set, seen_by(&way, heard, silence))).collect();
            agreed = Some(match agreed {
                None => by_source,
                Some(known) => agreement(sets, &known, &by_source),
            });
        }
        for (set, they_see) in agreed.into_iter().flatten() {
            let set = sets.and(set, within);
            if they_see == Some(silence) {
                seen.push((set, they_see));
                continue;
            }
            let lost = sets.and(set, stopped);
            seen.push((lost, Some(silence)));
            seen.push((sets.difference(set, lost), they_see));
        }
    }
    seen.retain(|(set, _)| !set.is_empty());
    seen
}

/// Those whose refusal rules stop on its way out.
fn refusals_stopped(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
    message: Message,
) -> PacketSet {
    let Some(to) = asked.view.filter(|_| has_rules(host)) else { return PacketSet::NONE };
    // Where the route chooses the source, it is an address of the link.
    let of_link = || {
        let addresses = host.addresses_of(asked.link.ifindex).iter();
        let own = addresses.map(|index| host.netns().addresses[*index].address());
        own.into_iter().find(|own| Family::of(*own) == asked.family)
    };
    let from = key.source.or_else(of_link).unwrap_or(asked.to);
    let view = refusing(&reply_of(asked, key, to, (from, asked.link.ifindex)), message);
    let strands = vec![strand(sets.universe(), view)];
    let partitions = leave(host, sets, strands, asked.silence());
    let mut stopped = PacketSet::NONE;
    for (set, finding) in partitions.iter().flatten() {
        if finding.stop.is_some() {
            stopped = sets.or(stopped, *set);
        }
    }
    stopped
}

fn reply_of<'v>(
    asked: &Asked<'v>,
    key: &AnswerKey,
    to: &'v View,
    (from, oif): (IpAddr, Ifindex),
) -> Reply<'v> {
    Reply {
        proto: asked.proto,
        from,
        port: asked.port.0,
        oif,
        mark: key.mark,
        socket: key.socket,
        uid: key.uid,
        to,
    }
}

fn seen_by(way: &WayBack, heard: Option<TheySee>, silence: TheySee) -> Option<TheySee> {
    match way {
        WayBack::Back { .. } => heard,
        WayBack::None { .. } | WayBack::SourceNotLocal | WayBack::By { vpn: true, .. } => {
            Some(silence)
        }
        WayBack::By { vpn: false, .. } | WayBack::Multipath { .. } => None,
    }
}

/// Where two partitions say the same, that; elsewhere no telling.
fn agreement(
    sets: &mut Sets,
    one: &[(PacketSet, Option<TheySee>)],
    other: &[(PacketSet, Option<TheySee>)],
) -> Seen {
    let mut agreed = Vec::new();
    for (set, seen) in one {
        for (other_set, other_seen) in other {
            let both = sets.and(*set, *other_set);
            agreed.push((both, seen.filter(|_| seen == other_seen)));
        }
    }
    agreed.retain(|(set, _)| !set.is_empty());
    agreed
}

/// The reply stage and, for answers that get out, the output stage.
pub(crate) fn reply(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
    cgroup: Option<CgroupId>,
) -> Vec<Partition> {
    let ways = answer_ways(host, sets, asked, key);
    let mut outputs = Partition::new();
    let mut strands = Vec::new();
    for (set, way) in &ways {
        let leaves_by = leaves_by(asked, way);
        outputs.push((*set, output(host, asked.family, Sender::Server(leaves_by, cgroup))));
        if let Some(to) = asked.view {
            let from = key.source.unwrap_or(asked.to);
            strands.push(strand(*set, replying(&reply_of(asked, key, to, (from, leaves_by)))));
        }
    }
    let mut ruled = Vec::new();
    let mut again = Vec::new();
    if has_rules(host) {
        let entering = merge(sets, strands);
        let walked = leave_by(host, sets, (NfHook::Output, entering), asked.silence());
        ruled.push(walked.partition);
        let mut onward = Vec::new();
        for strand in walked.strands {
            if strand.view.reroute {
                onward.extend(rerouted(host, sets, asked, (key, &strand), &mut again));
            } else {
                onward.push(strand);
            }
        }
        let walked = leave_by(host, sets, (NfHook::Postrouting, onward), asked.silence());
        ruled.push(walked.partition);
        ruled.extend(leave_links(host, sets, walked.strands, asked.silence()));
    }
    let mut anew = PacketSet::NONE;
    for (set, _) in &again {
        anew = sets.or(anew, *set);
    }
    let mut replies = Partition::new();
    if asked.proto == Proto::Udp {
        let silence = Some(asked.silence());
        let stop = Finding::stop(Stage::Reply, DropReason::NoReplyRoute, None, silence);
        replies.push((mapped_sources(sets, asked.family), stop));
    }
    for (set, way) in ways {
        // What has no way at all is never sent; of the rest, the last route counts.
        let never_sent = matches!(way, WayBack::None { .. } | WayBack::SourceNotLocal);
        let set = if never_sent { set } else { sets.difference(set, anew) };
        replies.push((set, verdict(asked, way)));
    }
    replies.extend(again.into_iter().map(|(set, way)| (set, verdict(asked, way))));
    replies.extend(source_choice(host, sets, asked, key));
    replies.retain(|(set, _)| !set.is_empty());
    let mut stages = vec![replies, outputs];
    stages.extend(ruled);
    stages
}

const fn leaves_by(asked: &Asked<'_>, way: &WayBack) -> Ifindex {
    match way {
        WayBack::By { link, .. } => *link,
        WayBack::Back { .. }
        | WayBack::None { .. }
        | WayBack::SourceNotLocal
        | WayBack::Multipath { .. } => asked.link.ifindex,
    }
}

/// An answer that rules changed at output is routed again: by its new mark, and to its new destination
/// (`ip_route_me_harder`).
fn rerouted(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (key, strand): (&AnswerKey, &Strand),
    again: &mut Vec<(PacketSet, WayBack)>,
) -> Vec<Strand> {
    let asked = Asked { client: strand.view.destination.term(), ..*asked };
    let key = AnswerKey { mark: strand.view.mark, transparent: true, ..*key };
    let mut onward = Vec::new();
    for (set, way) in way_back(host, sets, &asked, &key) {
        let set = sets.and(set, strand.set);
        if set.is_empty() {
            continue;
        }
        let oif = Some(leaves_by(&asked, &way));
        let view = View { oif, reroute: false, ..strand.view.clone() };
        onward.push(Strand { set, view, by: strand.by });
        again.push((set, way));
    }
    onward
}

/// Where the answer of a socket goes. A wildcard UDP socket of IPv6 gets a source after the first
/// lookup, and with it a second one if the first failed (`ip6_dst_lookup_tail`).
fn answer_ways(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
) -> Vec<(PacketSet, WayBack)> {
    let ways = way_back(host, sets, asked, key);
    if key.source.is_some() || asked.family == Family::Ipv4 {
        return ways;
    }
    let (mut settled, mut failed) = (Vec::new(), PacketSet::NONE);
    for (set, way) in ways {
        match way {
            // Refused, not local.
            WayBack::None { refused: true, .. } => failed = sets.or(failed, set),
            WayBack::None { .. }
            | WayBack::Back { .. }
            | WayBack::SourceNotLocal
            | WayBack::By { .. }
            | WayBack::Multipath { .. } => settled.push((set, way)),
        }
    }
    if !failed.is_empty() {
        for (part, sources) in sources_by_destination(host, sets, asked, None) {
            let within = sets.and(failed, part);
            if !within.is_empty() {
                for (set, way) in second_ways(host, sets, asked, key, &sources) {
                    settled.push((sets.and(set, within), way));
                }
            }
        }
    }
    settled.retain(|(set, _)| !set.is_empty());
    settled
}

/// The lookups with each source the kernel could choose: where they differ, one of them.
fn second_ways(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
    sources: &[IpAddr],
) -> Vec<(PacketSet, WayBack)> {
    let none = WayBack::None { route: None, rule: None, refused: true };
    let mut agreed: Option<Vec<(PacketSet, WayBack)>> = None;
    for source in sources {
        let key = AnswerKey { source: Some(*source), ..*key };
        let ways = way_back(host, sets, asked, &key);
        agreed = Some(match agreed {
            None => ways,
            Some(known) => {
                let mut both = Vec::new();
                for (set, one) in &known {
                    for (other_set, other) in &ways {
                        let set = sets.and(*set, *other_set);
                        both.push((set, either(one, other)));
                    }
                }
                both.retain(|(set, _)| !set.is_empty());
                both
            }
        });
    }
    agreed.unwrap_or_else(|| vec![(PacketSet::ALL, none)])
}

fn either(one: &WayBack, other: &WayBack) -> WayBack {
    match (one, other) {
        (WayBack::None { .. }, WayBack::None { .. }) => one.clone(),
        (WayBack::Back { .. }, WayBack::Back { .. }) => one.clone(),
        (one, other) if one == other => one.clone(),
        (one, other) => {
            let route = |way: &WayBack| match way {
                WayBack::Multipath { route } => Some(*route),
                WayBack::None { route, .. } => *route,
                WayBack::Back { .. } | WayBack::SourceNotLocal | WayBack::By { .. } => None,
            };
            WayBack::Multipath { route: route(one).or_else(|| route(other)).unwrap_or(0) }
        }
    }
}

/// What a way back means for the answer.
fn verdict(asked: &Asked<'_>, way: WayBack) -> Finding {
    let stage = Stage::Reply;
    let silence = Some(asked.silence());
    let stop = |reason, subject| Finding::stop(stage, reason, subject, silence);
    let unknown = |reason, subject| Finding::doubt(stage, reason, DoubtEffect::MayStop, subject);
    match way {
        WayBack::Back { .. } => Finding::pass(stage, Some(Subject::Link(asked.link.ifindex))),
        WayBack::None { route, rule, .. } => {
            let subject = route.map(Subject::Route).or_else(|| rule.map(Subject::PolicyRule));
            stop(DropReason::NoReplyRoute, subject)
        }
        WayBack::SourceNotLocal => stop(DropReason::ReplySourceNotLocal, None),
        WayBack::By { link, vpn: true } => stop(DropReason::VpnReply, Some(Subject::Link(link))),
        WayBack::By { link, vpn: false } => {
            unknown(UnknownReason::ReplyElsewhere, Some(Subject::Link(link)))
        }
        WayBack::Multipath { route } => {
            unknown(UnknownReason::Multipath, Some(Subject::Route(route)))
        }
    }
}

/// Doubts about the marks of sockets, where some rule asks for a mark.
pub(crate) fn mark_doubts(host: &Host<'_>, family: Family) -> Vec<Doubt> {
    let asks = host.rules(family).iter().any(|(_, rule)| rule.mark_mask != 0);
    gap_doubts(host, Stage::Reply, DoubtEffect::MayStop, |subject| {
        asks && *subject == GapSubject::SocketMarks
    })
}

/// The sources an error could have. For ICMPv6 the kernel chooses one before it looks for a route
/// (`icmp6_send`), and the route may depend on it.
fn error_sources(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
) -> Vec<(PacketSet, Vec<Option<IpAddr>>)> {
    if key.protocol != icmp_number(Family::Ipv6) {
        return vec![(PacketSet::ALL, vec![key.source])];
    }
    let addresses = &host.netns().addresses;
    let near_link =
        |index: usize| !is_link_local(asked.to) || addresses[index].ifindex == asked.link.ifindex;
    let is_own =
        host.entries_of(asked.to).any(|index| !addresses[index].is_tentative() && near_link(index));
    if is_own || is_own_anycast(host, asked) {
        return vec![(PacketSet::ALL, vec![Some(asked.to)])];
    }
    let unsourced = AnswerKey { source: None, ..*key };
    let mut parts = Vec::new();
    let mut preferred = PacketSet::NONE;
    for (within, flow) in flows(host, sets, asked, &unsourced) {
        for (set, found) in host.look_up(sets, &flow, within) {
            let Found::Route { way, .. } = found else { continue };
            if host.fib(asked.family).way(way).preferred_source.is_some() {
                preferred = sets.or(preferred, set);
            }
        }
    }
    parts.push((preferred, vec![None]));
    for (set, sources) in sources_by_destination(host, sets, asked, Some(asked.link.ifindex)) {
        let own: Vec<_> = sources.into_iter().map(Some).collect();
        let set = sets.difference(set, preferred);
        parts.push((set, if own.is_empty() { vec![None] } else { own }));
    }
    parts.retain(|(set, _)| !set.is_empty());
    parts
}

/// An anycast address that the kernel itself made for a prefix of a link (`ipv6_chk_acast_addr_src`):
/// its route says so. One added by hand has a route only.
fn is_own_anycast(host: &Host<'_>, asked: &Asked<'_>) -> bool {
    let fib = host.fib(Family::Ipv6);
    let select = Selector { device: Some(asked.link.ifindex), strict: is_link_local(asked.to) };
    let table = fib.tables.get(&TableId::LOCAL);
    let hit = table.and_then(|table| table.look_up(address_value(asked.to), 0, select));
    let Some(Hit::Route { route, way, length: 128 }) = hit else { return false };
    fib.way(way).kind == WayKind::Anycast
        && host.netns().routes[route].protocol == RouteProtocol::KERNEL
}

const fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Packets whose client is in fe80::/10.
fn link_local_clients(sets: &mut Sets, asked: &Asked<'_>) -> PacketSet {
    let low = 0xfe80_u128 << 112;
    let range = (low, low | (u128::MAX >> 10));
    asked.from(sets, &AddressSet::from_ranges(Family::Ipv6, [range]))
}

/// Packets from fe80::/10.
pub(crate) fn link_local_sources(sets: &mut Sets) -> PacketSet {
    let low = 0xfe80_u128 << 112;
    let range = (low, low | (u128::MAX >> 10));
    sets.from_sources(&AddressSet::from_ranges(Family::Ipv6, [range]))
}
