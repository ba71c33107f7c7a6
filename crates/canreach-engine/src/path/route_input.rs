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
use canreach_snapshot::{Family, GapSubject, Ifindex, Link, LinkKind, LinkSysctl, Prefix, Proto};

use crate::AddressSet;
use crate::host::Host;
use crate::host::flow::{Flow, Found, PortTerm, Refusal, Term, WayKind};
use crate::host::resolve::Setting;
use crate::packet::diagram::Diagram;
use crate::packet::packet_set::PacketSet;
use crate::path::forward::forward;
use crate::path::hook::gap_doubts;
use crate::path::reply::{AnswerKey, seen_refusals};
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
    /// Packets that are sent on.
    pub(crate) forwarded: PacketSet,
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

    fn is_in(self, sets: &mut Diagram, addresses: &AddressSet) -> PacketSet {
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
    sets: &mut Diagram,
    asked: &Asked<'_>,
    origin: Origin,
) -> RouteInput {
    let gaps = vec![(PacketSet::ALL, table_gaps(host, asked.family))];
    let martian = martian(host, sets, asked, origin);
    let mut routed = look_up(host, sets, asked, origin);
    if asked.family == Family::Ipv4 && !asked.to.is_multicast() {
        let mut validated = validate_source(host, sets, asked, origin);
        // A broadcast from nowhere is not checked (DHCP).
        let zero = origin.is_in(sets, &prefixes(&["0.0.0.0/8"]));
        let unchecked = sets.and(zero, routed.broadcast);
        for (set, _) in &mut validated {
            *set = sets.difference(*set, unchecked);
        }
        routed.partitions.push(validated);
    }
    // Sent on only if the source is acceptable.
    routed.partitions.splice(0..0, [gaps, martian]);
    let forwards = routed.partitions.len() > 3;
    if forwards {
        let last = routed.partitions.len() - 1;
        let (ends, stays): (Partition, Partition) = routed.partitions[2]
            .drain(..)
            .partition(|(_, finding)| finding.stage == Stage::Forward);
        routed.partitions[2] = stays;
        routed.partitions.insert(last + 1, ends);
    }
    routed
}

/// Doubts about what lookups are made in.
pub(crate) fn table_gaps(host: &Host<'_>, family: Family) -> Finding {
    let stage = Stage::Route;
    let doubts = gap_doubts(host, stage, DoubtEffect::MayRedirect, |subject| match subject {
        GapSubject::Addresses(of) | GapSubject::Routes(of) | GapSubject::PolicyRules(of) => {
            *of == family
        }
        subject => *subject == GapSubject::Links,
    });
    Finding::doubtful(stage, doubts)
}

/// Pairs of addresses that may not be on a wire (RFC 1812 5.3.7, RFC 4291 2.5.3).
fn martian(host: &Host<'_>, sets: &mut Diagram, asked: &Asked<'_>, origin: Origin) -> Partition {
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
            if !to.is_broadcast() {
                let nowhere = origin.is_in(sets, &prefixes(&["0.0.0.0/8"]));
                bad = sets.or(bad, nowhere);
            }
            parts.push((bad, stop(None)));
            let rest = sets.not(bad);
            if to.octets()[0] == 0 {
                parts.push((rest, stop(None)));
            } else if !localnet.is_set() && !to.is_broadcast() {
                let loopback = if to.is_loopback() {
                    PacketSet::ALL
                } else {
                    origin.is_in(sets, &prefixes(&["127.0.0.0/8"]))
                };
                let loopback = sets.and(loopback, rest);
                parts.push((loopback, doubted(host, localnet, stop(blames))));
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

/// The lookup of the address dialled.
fn look_up(host: &Host<'_>, sets: &mut Diagram, asked: &Asked<'_>, origin: Origin) -> RouteInput {
    let mut routed = RouteInput {
        partitions: Vec::new(),
        local: PacketSet::NONE,
        broadcast: PacketSet::NONE,
        forwarded: PacketSet::NONE,
    };
    let is_group = asked.to.is_multicast();
    let limited = matches!(asked.to, IpAddr::V4(to) if to.is_broadcast());
    if is_group || limited {
        let finding = if is_group { group(asked) } else { broadcast(host, asked, None) };
        routed.local = PacketSet::ALL;
        routed.broadcast = if limited { PacketSet::ALL } else { PacketSet::NONE };
        routed.partitions.push(vec![(PacketSet::ALL, finding)]);
        return routed;
    }
    let flow = flow(host, asked, origin);
    let mut parts = Partition::new();
    for (set, found) in host.look_up(sets, &flow, PacketSet::ALL) {
        let kind = match found {
            Found::Route { way, .. } => Some(host.fib(asked.family).way(way).kind),
            Found::Refused { .. } | Found::Unjudged { .. } | Found::LayoutMatters => None,
        };
        match kind {
            Some(WayKind::Local) => routed.local = sets.or(routed.local, set),
            Some(WayKind::Anycast) if asked.family == Family::Ipv6 => {
                routed.local = sets.or(routed.local, set);
            }
            Some(WayKind::Broadcast) => routed.broadcast = sets.or(routed.broadcast, set),
            Some(WayKind::Unicast | WayKind::Anycast | WayKind::Multicast) | None => {}
        }
        let (subject, finding) = dispatch(host, asked, found);
        if finding.stage == Stage::Forward {
            routed.forwarded = sets.or(routed.forwarded, set);
        }
        let answer = finding.stop.as_ref().and_then(|stop| answer(asked, stop));
        let Some(refusal) = answer else {
            parts.push((set, Finding { subject, ..finding }));
            continue;
        };
        let key = AnswerKey::icmp_error(asked.family);
        for (back, they_see) in seen_refusals(host, sets, asked, &key, refusal) {
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

/// What a stop tells the sender by an ICMP error, which has to find its way.
fn answer(asked: &Asked<'_>, stop: &Stop) -> Option<TheySee> {
    let sends = matches!(
        stop.reason,
        DropReason::NoRoute | DropReason::RouteUnreachable | DropReason::RouteProhibit
    );
    stop.they_see.filter(|seen| sends && *seen != asked.silence())
}

/// The key of the lookup for what came in by a link.
fn flow(host: &Host<'_>, asked: &Asked<'_>, origin: Origin) -> Flow {
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
        mark: 0,
        uid: 0,
        vrf_table: asked.vrf.map(|(_, table)| table),
        protocol: if knows_protocol { asked.proto.number() } else { 0 },
        source_port: if dissects { PortTerm::AnySourcePort } else { PortTerm::Absent },
        destination_port: if dissects { PortTerm::Is(asked.port.0) } else { PortTerm::Absent },
        strict: needs_strict(asked.to),
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
    let unknown =
        |reason, subject| (None, Finding::doubt(stage, reason, DoubtEffect::MayRedirect, subject));
    match found {
        Found::Unjudged { rule } => unknown(UnknownReason::Unread, Some(Subject::PolicyRule(rule))),
        Found::LayoutMatters => unknown(UnknownReason::FibLayout, None),
        Found::Refused { refusal, route, rule } => {
            let subject = route.map(Subject::Route).or_else(|| rule.map(Subject::PolicyRule));
            (None, refused(host, asked, refusal, subject))
        }
        Found::Route { route, way } => {
            let subject = Some(Subject::Route(route));
            match host.fib(asked.family).way(way).kind {
                WayKind::Local => (subject.clone(), Finding::pass(stage, subject)),
                WayKind::Broadcast => (None, broadcast(host, asked, Some(route))),
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
                    let silence = Some(asked.silence());
                    (None, Finding::stop(stage, DropReason::NotLocal, subject, silence))
                }
            }
        }
    }
}

/// A unicast route: sent on, if this machine forwards.
fn not_local(host: &Host<'_>, asked: &Asked<'_>, route: usize) -> Finding {
    let forwarding = forwarding(host, asked);
    if forwarding.is_set() {
        return forward(host, asked.family, route);
    }
    let subject = Some(Subject::Route(route));
    let silence = Some(asked.silence());
    doubted(host, forwarding, Finding::stop(Stage::Route, DropReason::NotLocal, subject, silence))
}

/// IPv4 asks the link itself; IPv6 asks `all`, or the link's `force_forwarding`.
pub(crate) fn forwarding(host: &Host<'_>, asked: &Asked<'_>) -> Setting {
    match asked.family {
        Family::Ipv4 => host.link_sysctl(LinkSysctl::Forwarding, asked.routed_link),
        Family::Ipv6 => {
            let all = host.sysctl_of_all(LinkSysctl::V6Forwarding);
            let forced = host.link_sysctl(LinkSysctl::V6ForceForwarding, asked.routed_link);
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
        Refusal::RuleUnreachable | Refusal::RouteUnreachable => DropReason::RouteUnreachable,
        Refusal::Prohibit => DropReason::RouteProhibit,
        Refusal::Blackhole => DropReason::RouteBlackhole,
    };
    let seen = match (asked.family, refusal) {
        (_, Refusal::Blackhole) => asked.silence(),
        (Family::Ipv4, Refusal::Prohibit) => TheySee::HostUnreachable,
        (Family::Ipv6, Refusal::Prohibit) => TheySee::PermissionDenied,
        (Family::Ipv4, Refusal::RouteUnreachable) => unless_udp(TheySee::HostUnreachable),
        (_, Refusal::NoRoute | Refusal::RuleUnreachable | Refusal::RouteUnreachable) => {
            unless_udp(TheySee::NetworkUnreachable)
        }
    };
    let forwarding = forwarding(host, asked);
    if asked.family == Family::Ipv4 && !forwarding.is_set() {
        // Without forwarding every error is a drop in silence.
        let reason = if refusal == Refusal::NoRoute { DropReason::NotLocal } else { reason };
        let stop = Finding::stop(stage, reason, subject, Some(asked.silence()));
        return doubted(host, forwarding, stop);
    }
    Finding::stop(stage, reason, subject, Some(seen))
}

/// To everyone: TCP has no use for it.
fn broadcast(host: &Host<'_>, asked: &Asked<'_>, route: Option<usize>) -> Finding {
    let subject = route.map(Subject::Route);
    if asked.proto == Proto::Udp {
        return Finding::pass(Stage::Route, subject);
    }
    // A client on the same network knows that this is a broadcast address, and refuses by itself.
    let mut near = host.on_link(asked.link.ifindex).iter();
    let known = asked.to == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
        || near.any(|prefix| is_broadcast_of(*prefix, asked.to));
    let seen = if known { TheySee::NetworkUnreachable } else { TheySee::Timeout };
    Finding::end(Stage::Route, DropReason::BroadcastDestination, subject, Some(seen))
}

/// Whether an address is the last one of an IPv4 prefix that has a broadcast address.
pub(crate) fn is_broadcast_of(prefix: Prefix, address: IpAddr) -> bool {
    prefix.family() == Family::Ipv4
        && prefix.length() < 31
        && Family::of(address) == Family::Ipv4
        && prefix.range().1 == canreach_snapshot::address::address_value(address)
}

fn group(asked: &Asked<'_>) -> Finding {
    match asked.proto {
        Proto::Tcp => {
            let seen = Some(TheySee::NetworkUnreachable);
            Finding::end(Stage::Route, DropReason::MulticastDestination, None, seen)
        }
        // Who is in the group is a matter of sockets.
        Proto::Udp => Finding::pass(Stage::Route, None),
    }
}

/// `fib_validate_source`.
fn validate_source(
    host: &Host<'_>,
    sets: &mut Diagram,
    asked: &Asked<'_>,
    origin: Origin,
) -> Partition {
    let link = asked.routed_link;
    let filter = host.link_sysctl(LinkSysctl::RpFilter, link);
    let accept_local = host.link_sysctl(LinkSysctl::AcceptLocal, link);
    let fib = host.fib(Family::Ipv4);
    let mut parts = Partition::new();
    for gap in [filter.gap, accept_local.gap].into_iter().flatten() {
        let reason = host.gap_reason(gap);
        let doubt =
            Finding::doubt(Stage::Route, reason, DoubtEffect::MayStop, Some(Subject::Gap(gap)));
        parts.push((PacketSet::ALL, doubt));
    }
    if filter.is_set() || fib.has_realms {
        parts.extend(full_check(host, sets, asked, origin, filter, accept_local));
        return parts;
    }
    if accept_local.is_set() {
        return parts;
    }
    let full = full_check(host, sets, asked, origin, filter, accept_local);
    if fib.has_foreign_local || host.is_split() == Some(true) {
        parts.extend(full);
        return parts;
    }
    // The short check looks at own addresses only. Whether the kernel makes the full one also
    // depends on routes that may be gone by now: where the two differ, nothing here tells.
    let own = origin.is_in(sets, &host.own_addresses(Family::Ipv4));
    let mut stopped = PacketSet::NONE;
    for (set, finding) in &full {
        if finding.stop.is_some() {
            stopped = sets.or(stopped, *set);
        }
    }
    let both = sets.and(own, stopped);
    let only_full = sets.difference(stopped, own);
    let only_short = sets.difference(own, stopped);
    let doubt = |effect| Finding::doubt(Stage::Route, UnknownReason::FibHistory, effect, None);
    parts.push((both, own_source(asked, accept_local)));
    parts.push((only_full, doubt(DoubtEffect::MayStop)));
    // Not even "may stop" is right here: the short check does stop them.
    parts.push((only_short, doubt(DoubtEffect::MayRedirect)));
    parts
}

fn own_source(asked: &Asked<'_>, accept_local: Setting) -> Finding {
    let subject = Some(Subject::LinkSysctl {
        sysctl: LinkSysctl::AcceptLocal,
        link: Some(asked.routed_link.ifindex),
        value: accept_local.value,
    });
    Finding::stop(Stage::Route, DropReason::OwnSource, subject, Some(asked.silence()))
}

/// `__fib_validate_source`: the route back to the source.
fn full_check(
    host: &Host<'_>,
    sets: &mut Diagram,
    asked: &Asked<'_>,
    origin: Origin,
    filter: Setting,
    accept_local: Setting,
) -> Partition {
    let forth = flow(host, asked, origin);
    let back = Flow {
        destination: forth.source,
        source: forth.destination,
        iif: LOOPBACK_IFINDEX,
        source_port: forth.destination_port,
        destination_port: forth.source_port,
        ..forth
    };
    let knobs = SourceKnobs { filter, accept_local };
    let mut parts = Partition::new();
    for (set, found) in host.look_up(sets, &back, PacketSet::ALL) {
        parts.push((set, judge_source(host, asked, knobs, found)));
    }
    parts
}

/// The sysctls of source validation.
#[derive(Debug, Clone, Copy)]
struct SourceKnobs {
    filter: Setting,
    accept_local: Setting,
}

/// What a route back to the source says of a packet.
fn judge_source(
    host: &Host<'_>,
    asked: &Asked<'_>,
    SourceKnobs { filter, accept_local }: SourceKnobs,
    found: Found,
) -> Finding {
    let stage = Stage::Route;
    let link = asked.routed_link;
    let stop = |reason, subject| Finding::stop(stage, reason, subject, Some(asked.silence()));
    let unknown = |reason, subject| Finding::doubt(stage, reason, DoubtEffect::MayStop, subject);
    let filtered = || {
        let (sysctl, value) = (LinkSysctl::RpFilter, filter.value);
        let subject = Subject::LinkSysctl { sysctl, link: Some(link.ifindex), value };
        stop(DropReason::RpFilter, Some(subject))
    };
    let pass = || Finding::pass(stage, None);
    let way = match found {
        Found::Refused { .. } if filter.is_set() => return filtered(),
        Found::Refused { .. } => return pass(),
        Found::Unjudged { rule } => {
            return unknown(UnknownReason::Unread, Some(Subject::PolicyRule(rule)));
        }
        Found::LayoutMatters => return unknown(UnknownReason::FibLayout, None),
        Found::Route { way, .. } => host.fib(Family::Ipv4).way(way),
    };
    let is_local = way.kind == WayKind::Local;
    if !is_local && way.kind != WayKind::Unicast {
        return stop(DropReason::Martian, None);
    }
    if is_local && !accept_local.is_set() {
        return own_source(asked, accept_local);
    }
    let is_link = |other: &Ifindex| {
        let vrf = host.link(*other).and_then(|other| host.vrf_of(other));
        *other == link.ifindex || vrf.is_some_and(|(master, _)| master == link.ifindex)
    };
    let comes_here = way.links.iter().any(is_link) || (is_local && link.is_loopback());
    // Loose mode lets any route do, unless the link has no address to be asked by.
    let strict = filter.value == 1 || !has_address(host, link);
    if !comes_here && filter.is_set() && strict { filtered() } else { pass() }
}

fn has_address(host: &Host<'_>, link: &Link) -> bool {
    let mut positions = host.addresses_of(link.ifindex).iter();
    positions.any(|index| host.netns().addresses[*index].prefix.family() == Family::Ipv4)
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
