//! Input routing: is the address this machine's, and is the source acceptable.
//!
//! *Kernel:* `ip_route_input_slow`, `fib_validate_source` (net/ipv4), `ip6_rcv_core`,
//! `ip6_route_input` (net/ipv6).
//! *Decides:* local, forwarded, broadcast, or one of the stops; martian sources, own sources, the
//! reverse-path filter.
//! *Reads:* routes of every table, policy rules, addresses, sysctls of the link, the table layout.
//! *Not modelled:* IPsec (decrypted packets skip the reverse-path filter), source routing, multicast
//! routing.

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{
    Family, GapSubject, Ifindex, LinkKind, LinkSysctl, Port, Prefix, Proto, TableId,
};

use crate::AddressSet;
use crate::host::Host;
use crate::host::flow::{Flow, Found, PortTerm, Refusal, Term, WayKind};
use crate::host::policy::{Lookup, is_unjudged};
use crate::host::resolve::Setting;
use crate::netfilter::hook::Strand;
use crate::packet::packet_set::PacketSet;
use crate::path::appearance::Message;
use crate::path::forward::forward;
use crate::path::hook::gap_doubts;
use crate::path::reply::{AnswerKey, seen_refusals};
use crate::path::sets::Sets;
use crate::path::source::{Checked, validate_source};
use crate::path::stage::{Asked, Finding, Partition, Stop, needs_strict};
use crate::{Doubt, DoubtEffect, DropReason, Stage, Subject, TheySee, UnknownReason};

/// What input routing says of all sources, or of one.
#[derive(Debug, Clone)]
pub(crate) struct RouteInput {
    /// Checks of the addresses, the lookup, the check of the source: in this order.
    pub(crate) partitions: Vec<Partition>,
    /// Packets whose lookup says "this machine".
    pub(crate) local: PacketSet,
    /// Packets that are delivered as broadcast.
    pub(crate) broadcast: PacketSet,
    /// Packets that are sent on, by the link they leave by.
    pub(crate) forwards: Vec<(PacketSet, Ifindex)>,
    /// The same as rules left them, behind the postrouting hook.
    pub(crate) sent_on: Vec<Strand>,
}

/// Who routes: the packet itself, or the ARP request that precedes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The source.
    pub(crate) source: Term,
    /// Whether it is TCP or UDP with ports, for rules that ask.
    pub(crate) has_ports: bool,
}

impl Origin {
    /// The packet asked about, from every source.
    pub(crate) const PACKET: Self = Self { source: Term::AnySource, has_ports: true };

    pub(crate) fn is_in(self, sets: &mut Sets, addresses: &AddressSet) -> PacketSet {
        match self.source {
            Term::AnySource => sets.from_sources(addresses),
            Term::Is(value) if addresses.contains(addresses.family().address(value)) => {
                PacketSet::ALL
            }
            Term::Is(_) => PacketSet::NONE,
        }
    }
}

/// Routes packets that came in by a link.
pub(crate) fn route_input(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    origin: Origin,
) -> RouteInput {
    let doubts = vec![(PacketSet::ALL, table_doubts(host, asked.family, false))];
    let mut routed = look_up(host, sets, asked, origin);
    if asked.to.is_multicast() {
        // TCP: the client's own kernel refuses, whatever address it has. UDP: membership decides.
        routed.partitions.insert(0, doubts);
        return routed;
    }
    let martian = martian(host, sets, asked, origin);
    let looked_up = std::mem::take(&mut routed.partitions).into_iter().flatten();
    let (ends, stays): (Partition, Partition) =
        looked_up.partition(|(_, finding)| finding.stage == Stage::Forward);
    routed.partitions = vec![doubts, martian, stays];
    if asked.family == Family::Ipv4 {
        routed.partitions.push(validate(host, sets, asked, origin, &routed));
    }
    routed.partitions.push(ends);
    routed
}

/// Source validation of what is accepted, and of what is sent on, link by link.
fn validate(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    origin: Origin,
    routed: &RouteInput,
) -> Partition {
    // A broadcast from nowhere is not checked (DHCP).
    let zero = origin.is_in(sets, &prefixes(&["0.0.0.0/32"]));
    let unchecked = sets.and(zero, routed.broadcast);
    let mut kept = sets.not(unchecked);
    let mut validated = Partition::new();
    for (set, link) in &routed.forwards {
        let sent_on = Checked { destination: asked.value(), forwarded_by: Some(*link) };
        for (part, finding) in validate_source(host, sets, asked, origin, sent_on) {
            validated.push((sets.and(part, *set), finding));
        }
        kept = sets.difference(kept, *set);
    }
    // Broadcasts are checked as if sent to 0.0.0.0 (`brd_input`).
    let to_all = sets.and(kept, routed.broadcast);
    let to_one = sets.difference(kept, routed.broadcast);
    for (kept, destination) in [(to_one, asked.value()), (to_all, 0)] {
        if !kept.is_empty() {
            let checked = Checked { destination, forwarded_by: None };
            for (part, finding) in validate_source(host, sets, asked, origin, checked) {
                validated.push((sets.and(part, kept), finding));
            }
        }
    }
    validated
}

/// Doubts about what lookups are made in.
pub(crate) fn table_doubts(host: &Host<'_>, family: Family, starts_here: bool) -> Finding {
    let stage = Stage::Route;
    let about = [
        GapSubject::Addresses(family),
        GapSubject::Routes(family),
        GapSubject::PolicyRules(family),
    ];
    let effect = DoubtEffect::MayRedirect;
    let doubts = gap_doubts(host, stage, effect, |subject| {
        // From the wire, the link stage has spoken of links.
        about.contains(subject) || (starts_here && *subject == GapSubject::Links)
    });
    let rules = host.rules(family).iter().filter(|(_, rule)| is_unjudged(rule));
    let rules = rules.map(|(index, _)| Doubt {
        stage,
        reason: UnknownReason::Unread,
        effect: DoubtEffect::MayRedirect,
        subject: Some(Subject::PolicyRule(*index)),
    });
    Finding::doubtful(stage, doubts.into_iter().chain(rules).collect())
}

/// Pairs of addresses that may not be on a wire (RFC 1812 5.3.7, RFC 4291 2.5.3).
fn martian(host: &Host<'_>, sets: &mut Sets, asked: &Asked<'_>, origin: Origin) -> Partition {
    let stop = |subject| {
        let silence = Some(asked.silence());
        Finding::stop(Stage::Route, DropReason::Martian, subject, silence)
    };
    let mut parts = Partition::new();
    match asked.to {
        IpAddr::V4(to) => {
            let localnet = host.link_sysctl(LinkSysctl::RouteLocalnet, asked.routed_link);
            let blames = Some(Subject::LinkSysctl {
                sysctl: LinkSysctl::RouteLocalnet,
                link: Some(asked.routed_link.ifindex),
                value: localnet.value,
            });
            let mut bad = origin.is_in(sets, &prefixes(&["224.0.0.0/4", "255.255.255.255/32"]));
            let from_zero = from_zero_to_zero(sets, asked, origin);
            if !to.is_broadcast() {
                let nowhere = origin.is_in(sets, &prefixes(&["0.0.0.0/32"]));
                bad = sets.or(bad, nowhere);
            }
            bad = sets.difference(bad, from_zero);
            parts.push((bad, stop(None)));
            let good = sets.or(bad, from_zero);
            let rest = sets.not(good);
            if to.is_unspecified() {
                parts.push((rest, stop(None)));
            } else if !to.is_broadcast() {
                let loopback = if to.is_loopback() {
                    PacketSet::ALL
                } else {
                    origin.is_in(sets, &prefixes(&["127.0.0.0/8"]))
                };
                let loopback = sets.and(loopback, rest);
                let finding = if localnet.is_set() {
                    Finding::pass(Stage::Route, None)
                } else {
                    stop(blames)
                };
                parts.push((loopback, doubted(host, localnet, finding)));
            }
        }
        IpAddr::V6(to) => {
            // Only loopback and VRF links carry ::1 (`ip6_rcv_core`).
            let carries = asked.link.is_loopback() || asked.link.kind == LinkKind::Vrf;
            let groups = origin.is_in(sets, &prefixes(&["ff00::/8"]));
            let bad = if carries {
                groups
            } else if to.is_loopback() {
                PacketSet::ALL
            } else {
                let loopback = origin.is_in(sets, &prefixes(&["::1/128"]));
                sets.or(groups, loopback)
            };
            parts.push((bad, stop(None)));
        }
    }
    parts
}

/// From 0.0.0.0 to 0.0.0.0 is an old way to say "everyone" (`ip_route_input_slow`).
fn from_zero_to_zero(sets: &mut Sets, asked: &Asked<'_>, origin: Origin) -> PacketSet {
    if asked.to == IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED) {
        origin.is_in(sets, &prefixes(&["0.0.0.0/32"]))
    } else {
        PacketSet::NONE
    }
}

/// The lookup of the address dialled.
fn look_up(host: &Host<'_>, sets: &mut Sets, asked: &Asked<'_>, origin: Origin) -> RouteInput {
    let mut routed = RouteInput {
        partitions: Vec::new(),
        local: PacketSet::NONE,
        broadcast: PacketSet::NONE,
        forwards: Vec::new(),
        sent_on: Vec::new(),
    };
    let is_group = asked.to.is_multicast();
    let limited = matches!(asked.to, IpAddr::V4(to) if to.is_broadcast());
    if is_group || limited {
        let finding =
            if is_group { group(host, asked.proto, asked.port) } else { broadcast(asked, None) };
        routed.local = PacketSet::ALL;
        routed.broadcast = if limited { PacketSet::ALL } else { PacketSet::NONE };
        routed.partitions.push(vec![(PacketSet::ALL, finding)]);
        return routed;
    }
    let flow = flow(host, asked, origin);
    let everyone = from_zero_to_zero(sets, asked, origin);
    routed.broadcast = everyone;
    let mut parts = vec![(everyone, broadcast(asked, None))];
    let universe = sets.universe();
    let others = sets.difference(universe, everyone);
    for (set, found) in look_up_link_scope(host, sets, asked, &flow, others) {
        let kind = match found {
            Found::Route { way, .. } => Some(host.fib(asked.family).way(way).kind),
            Found::Refused { .. } => None,
        };
        match kind {
            Some(WayKind::Local) => routed.local = sets.or(routed.local, set),
            Some(WayKind::Anycast) if asked.family == Family::Ipv6 => {
                routed.local = sets.or(routed.local, set);
            }
            Some(WayKind::Broadcast) if !forwards_broadcasts(host, asked) => {
                routed.broadcast = sets.or(routed.broadcast, set);
            }
            Some(_) | None => {}
        }
        let delivered = matches!(kind, Some(WayKind::Local | WayKind::Broadcast));
        if !delivered && (asked.family == Family::Ipv4 || kind == Some(WayKind::Unicast)) {
            let doubt = Finding::pass(Stage::Route, None);
            parts.push((set, doubted(host, forwarding(host, asked), doubt)));
        }
        let (subject, finding) = dispatch(host, asked, found);
        if finding.stage == Stage::Forward {
            routed.forwards.extend(first_exit(host, asked, found).map(|link| (set, link)));
        }
        let answer = finding.stop.as_ref().and_then(|stop| answer(asked, stop));
        let Some((refusal, message)) = answer else {
            parts.push((set, Finding { subject, ..finding }));
            continue;
        };
        let key = AnswerKey::icmp_error(asked.family);
        for (back, they_see) in seen_refusals(host, sets, asked, &key, (refusal, message)) {
            let set = sets.and(set, back);
            let mut finding = finding.clone();
            if let Some(stop) = &mut finding.stop {
                stop.they_see = they_see;
            }
            parts.push((set, finding));
        }
    }
    routed.partitions.push(parts);
    routed
}

/// Addresses that only mean something on one link are looked for in the table of its VRF first
/// (`vrf_ip6_input_dst`).
fn look_up_link_scope(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    flow: &Flow,
    within: PacketSet,
) -> Lookup {
    let is_member = |(master, _): &(Ifindex, TableId)| *master != asked.link.ifindex;
    let Some((master, table)) = asked.vrf.filter(is_member).filter(|_| flow.strict) else {
        return host.look_up(sets, flow, within);
    };
    let (mut found, missed) = host.look_up_in(sets, flow, table, within);
    // What is not there goes on as the VRF's own (`vrf_ip6_rcv`).
    found.extend(host.look_up(sets, &Flow { iif: master, ..*flow }, missed));
    found
}

fn first_exit(host: &Host<'_>, asked: &Asked<'_>, found: Found) -> Option<Ifindex> {
    let Found::Route { way, .. } = found else { return None };
    host.fib(asked.family).way(way).exits.first().map(|exit| exit.link)
}

/// What a stop tells the sender by an ICMP error, which has to find its way.
fn answer(asked: &Asked<'_>, stop: &Stop) -> Option<(TheySee, Message)> {
    // Codes of ICMP and of ICMPv6 (`ip_error`, `ip6_pkt_discard`, `ip6_pkt_prohibit`).
    let code = match (stop.reason, asked.family) {
        (DropReason::NoRoute, _) | (DropReason::RouteUnreachable, Family::Ipv6) => 0,
        (DropReason::RouteUnreachable, Family::Ipv4) => 1,
        (DropReason::RouteProhibit, Family::Ipv4) => 13,
        (DropReason::RouteProhibit, Family::Ipv6) => 1,
        (_, _) => return None,
    };
    let heard = stop.they_see.filter(|seen| *seen != asked.silence())?;
    Some((heard, Message::Unreachable { code }))
}

/// The key of the lookup for what came in by a link.
pub(crate) fn flow(host: &Host<'_>, asked: &Asked<'_>, origin: Origin) -> Flow {
    // Ports are looked into only if some rule, other than for local senders, asks for them
    // (`fib_rule_requires_fldissect`). IPv6 always knows the protocol.
    let dissects = origin.has_ports && needs_ports(host, asked.family);
    let knows_protocol = dissects || (origin.has_ports && asked.family == Family::Ipv6);
    Flow {
        family: asked.family,
        destination: Term::Is(asked.value()),
        source: origin.source,
        iif: asked.routed_link.ifindex,
        oif: None,
        mark: asked.mark,
        uid: 0,
        vrf_table: asked.vrf.map(|(_, table)| table),
        protocol: if knows_protocol { asked.proto.number() } else { 0 },
        source_port: if dissects { PortTerm::AnySourcePort } else { PortTerm::Absent },
        destination_port: if dissects { PortTerm::Is(asked.port.0) } else { PortTerm::Absent },
        strict: needs_strict(asked.to),
        split: asked.split,
    }
}

fn needs_ports(host: &Host<'_>, family: Family) -> bool {
    host.rules(family).iter().any(|(_, rule)| {
        let asks = rule.ip_protocol.is_some()
            || rule.source_ports.is_some()
            || rule.destination_ports.is_some();
        let local = rule.iif.as_deref().and_then(|name| host.link_named(name));
        asks && local.is_none_or(|link| link.ifindex != LOOPBACK_IFINDEX)
    })
}

/// What a result of the lookup means for a packet: what lets it pass, and what was found.
fn dispatch(host: &Host<'_>, asked: &Asked<'_>, found: Found) -> (Option<Subject>, Finding) {
    let stage = Stage::Route;
    match found {
        Found::Refused { refusal, route, rule } => {
            let subject = route.map(Subject::Route).or_else(|| rule.map(Subject::PolicyRule));
            (None, refused(host, asked, refusal, subject))
        }
        Found::Route { route, way } => {
            let subject = Some(Subject::Route(route));
            match host.fib(asked.family).way(way).kind {
                WayKind::Local => (subject.clone(), Finding::pass(stage, subject)),
                WayKind::Broadcast if forwards_broadcasts(host, asked) => {
                    (None, forward(host, asked.family, route))
                }
                WayKind::Broadcast => (None, broadcast(asked, Some(route))),
                WayKind::Anycast if asked.family == Family::Ipv6 => match asked.proto {
                    Proto::Udp => (subject.clone(), Finding::pass(stage, subject)),
                    // `tcp_v6_conn_request` and resets both want a route of type local.
                    Proto::Tcp => {
                        let reason = DropReason::AnycastDestination;
                        (None, Finding::end(stage, reason, subject, Some(TheySee::Timeout)))
                    }
                },
                WayKind::Unicast => (None, not_local(host, asked, route)),
                // Nothing but unicast routes forward (`ip_route_input_slow`).
                WayKind::Anycast | WayKind::Multicast => {
                    let forwards = forwarding(host, asked).is_set();
                    let reason = if forwards { DropReason::Martian } else { DropReason::NotLocal };
                    (None, Finding::stop(stage, reason, subject, Some(asked.silence())))
                }
            }
        }
    }
}

/// `bc_forwarding`: broadcasts of other networks are sent on.
fn forwards_broadcasts(host: &Host<'_>, asked: &Asked<'_>) -> bool {
    host.link_sysctl(LinkSysctl::BcForwarding, asked.routed_link).is_set()
}

/// A unicast route: sent on, if this machine forwards.
fn not_local(host: &Host<'_>, asked: &Asked<'_>, route: usize) -> Finding {
    let forwarding = forwarding(host, asked);
    if forwarding.is_set() {
        return forward(host, asked.family, route);
    }
    let subject = Some(Subject::Route(route));
    let silence = Some(asked.silence());
    Finding::stop(Stage::Route, DropReason::NotLocal, subject, silence)
}

/// IPv4 asks the link itself; IPv6 asks `all`, or the link's `force_forwarding`.
pub(crate) fn forwarding(host: &Host<'_>, asked: &Asked<'_>) -> Setting {
    match asked.family {
        Family::Ipv4 => host.link_sysctl(LinkSysctl::Forwarding, asked.routed_link),
        Family::Ipv6 => {
            let all = host.sysctl_of_all(LinkSysctl::V6Forwarding);
            let forced = host.link_sysctl(LinkSysctl::V6ForceForwarding, asked.link);
            if all.is_set() { all } else { Setting { gap: all.gap.or(forced.gap), ..forced } }
        }
    }
}

/// No way, with the ICMP error that says so (`ip_error`, `ip6_pkt_discard`).
fn refused(
    host: &Host<'_>,
    asked: &Asked<'_>,
    refusal: Refusal,
    subject: Option<Subject>,
) -> Finding {
    let stage = Stage::Route;
    let udp = asked.proto == Proto::Udp;
    let unless_udp = |seen| if udp { TheySee::Silence } else { seen };
    let reason = match refusal {
        Refusal::NoRoute => DropReason::NoRoute,
        Refusal::RuleUnreachable | Refusal::RouteUnreachable | Refusal::Discarded => {
            DropReason::RouteUnreachable
        }
        Refusal::Prohibit => DropReason::RouteProhibit,
        Refusal::Blackhole => DropReason::RouteBlackhole,
    };
    let seen = match (asked.family, refusal) {
        (_, Refusal::Blackhole) => asked.silence(),
        (Family::Ipv4, Refusal::Prohibit) => TheySee::HostUnreachable,
        (Family::Ipv6, Refusal::Prohibit) => TheySee::PermissionDenied,
        (Family::Ipv4, Refusal::RouteUnreachable) => unless_udp(TheySee::HostUnreachable),
        (
            _,
            Refusal::NoRoute
            | Refusal::RuleUnreachable
            | Refusal::RouteUnreachable
            | Refusal::Discarded,
        ) => unless_udp(TheySee::NetworkUnreachable),
    };
    let forwarding = forwarding(host, asked);
    if asked.family == Family::Ipv4 && !forwarding.is_set() {
        // Without forwarding every error is the same: not for this machine (`ip_error`).
        let silence = Some(asked.silence());
        return Finding::stop(stage, DropReason::NotLocal, subject, silence);
    }
    Finding::stop(stage, reason, subject, Some(seen))
}

/// To everyone: TCP has no use for it.
fn broadcast(asked: &Asked<'_>, route: Option<usize>) -> Finding {
    let subject = route.map(Subject::Route);
    if asked.proto == Proto::Udp {
        return Finding::pass(Stage::Route, subject);
    }
    // Clients of the same network know that this is a broadcast address; the link stage says so.
    let limited = asked.to == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    let seen = if limited { TheySee::NetworkUnreachable } else { TheySee::Timeout };
    Finding::end(Stage::Route, DropReason::BroadcastDestination, subject, Some(seen))
}

/// Whether an address is the last one of an IPv4 prefix that has a broadcast address.
pub(crate) fn is_broadcast_of(prefix: Prefix, address: IpAddr) -> bool {
    prefix.family() == Family::Ipv4
        && prefix.length() < 31
        && Family::of(address) == Family::Ipv4
        && prefix.range().1 == canreach_snapshot::address::address_value(address)
}

/// To a group: TCP has no use for it, and who is in it is not read.
pub(crate) fn group(host: &Host<'_>, proto: Proto, port: Port) -> Finding {
    let stage = Stage::Route;
    let mut sockets = host.sockets().of_port(proto, port);
    let seen = match proto {
        Proto::Tcp => TheySee::NetworkUnreachable,
        Proto::Udp if sockets.next().is_some() => {
            let reason = UnknownReason::MulticastMembership;
            let doubt = Finding::doubt(stage, reason, DoubtEffect::MayStop, None);
            return Finding { ends: true, ..doubt };
        }
        Proto::Udp => TheySee::Silence,
    };
    Finding::end(stage, DropReason::MulticastDestination, None, Some(seen))
}

/// Adds the doubt of an unread sysctl to what was found by its default.
fn doubted(host: &Host<'_>, setting: Setting, finding: Finding) -> Finding {
    let Some(gap) = setting.gap else { return finding };
    let stage = finding.stage;
    let doubt = Doubt {
        stage,
        reason: host.gap_reason(gap),
        effect: DoubtEffect::MayStop,
        subject: Some(Subject::Gap(gap)),
    };
    Finding { doubts: vec![doubt], ..finding }
}

fn prefixes(texts: &[&str]) -> AddressSet {
    let prefixes: Vec<Prefix> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    let family = prefixes.first().map_or(Family::Ipv4, |prefix| prefix.family());
    AddressSet::from_prefixes(family, prefixes)
}
