//! The link, and whether neighbours can find the address on it.
//!
//! *Kernel:* `arp_process`, `arp_ignore`, `arp_filter` (net/ipv4/arp.c), `ndisc_recv_ns`
//! (net/ipv6/ndisc.c).
//! *Decides:* link down, IPv6 off, tentative address, silence towards neighbours.
//! *Reads:* flags of the link, its addresses and prefixes, routes, sysctls, proxy entries.
//! *Not modelled:* ARP and ND through rules (a doubt says so); private VLAN proxies; hardware.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::nft::expr::{MetaKey, NfVerdict, PayloadBase};
use canreach_snapshot::nft::{Expr, Rule, Ruleset};
use canreach_snapshot::{
    Address, ChainPolicy, Family, GapSubject, Ifindex, Link, LinkFlags, LinkSysctl, NfFamily,
    Prefix, Proto, RouteType, Scope,
};

use crate::AddressSet;
use crate::host::Host;
use crate::host::flow::{Flow, Found, Term, WayKind};
use crate::netfilter::view::Part;
use crate::packet::packet_set::PacketSet;
use crate::path::discovery::discovery;
use crate::path::hook::gap_doubts;
use crate::path::reply::{AnswerKey, flows, is_source, link_local_sources};
use crate::path::route_input::{Origin, RouteInput, is_broadcast_of, route_input};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Finding, Partition};
use crate::{Doubt, DoubtEffect, DropReason, NfSubject, Stage, Subject, TheySee, UnknownReason};

/// What the link stage found, and who resolves the address in vain.
#[derive(Debug, Clone)]
pub(crate) struct LinkInput {
    /// What it found.
    pub(crate) partition: Partition,
    /// Sources that resolve the address themselves, or through a neighbour, and get no answer if
    /// input routing stops them: they see an unreachable host instead of silence.
    pub(crate) unresolved_if_stopped: PacketSet,
}

/// The link stage. `routed` is what input routing says of the packets asked about.
pub(crate) fn link_input(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    routed: &RouteInput,
) -> LinkInput {
    let stage = Stage::Link;
    let link = asked.link;
    let unreachable = Some(TheySee::HostUnreachable);
    let subject = Some(Subject::Link(link.ifindex));
    let near = prefixes_around(host, asked);
    let gaps = gap_doubts(host, stage, DoubtEffect::MayRedirect, |gap| *gap == GapSubject::Links);
    let partition = vec![(PacketSet::ALL, Finding::doubtful(stage, gaps))];
    let mut found = LinkInput { partition, unresolved_if_stopped: PacketSet::NONE };
    let client = (asked.proto, asked.to);
    if !link.is_up() || !link.has_carrier() {
        for (set, seen) in seen_cut_off(host, sets, client, link.ifindex) {
            let stop = Finding::stop(stage, DropReason::LinkDown, subject.clone(), Some(seen));
            found.partition.push((set, stop));
        }
    }
    let refused = refused_by_client(host, sets, client, link.ifindex);
    let reason = if asked.to.is_multicast() {
        DropReason::MulticastDestination
    } else {
        DropReason::BroadcastDestination
    };
    let end = Finding::end(stage, reason, None, Some(TheySee::NetworkUnreachable));
    found.partition.push((refused, end));
    if asked.family == Family::Ipv6 {
        let off = host.link_sysctl(LinkSysctl::V6DisableIpv6, link);
        if let Some(gap) = off.gap {
            let reason = host.gap_reason(gap);
            let subject = Some(Subject::Gap(gap));
            let doubt = Finding::doubt(stage, reason, DoubtEffect::MayStop, subject);
            found.partition.push((PacketSet::ALL, doubt));
        }
        if off.is_set() {
            let sysctl = LinkSysctl::V6DisableIpv6;
            let subject =
                Some(Subject::LinkSysctl { sysctl, link: Some(link.ifindex), value: off.value });
            // Nobody answers the solicitation; through a router, silence.
            let mut prefixes = host.on_link(link.ifindex).iter();
            let on_link = prefixes.any(|prefix| prefix.contains(asked.to));
            let seen = if on_link { unreachable } else { Some(asked.silence()) };
            let stop = Finding::stop(stage, DropReason::Ipv6Disabled, subject, seen);
            found.partition.push((PacketSet::ALL, stop));
            return found;
        }
    }
    let unresolved = link.flags.has(LinkFlags::NO_ARP)
        || link.flags.has(LinkFlags::POINT_TO_POINT)
        || link.is_loopback();
    let mut around = host.on_link(link.ifindex).iter();
    let to_many = asked.to.is_multicast()
        || asked.to == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
        || around.any(|prefix| is_broadcast_of(*prefix, asked.to));
    // Who hands it over from another namespace of this machine knows where the address is.
    if !near.is_empty() && !unresolved && !to_many && !asked.handed_over {
        match asked.family {
            Family::Ipv4 => arp(host, sets, asked, (&near, routed), &mut found),
            Family::Ipv6 => {
                neighbor_solicitation(host, sets, asked, (&near, routed), &mut found);
            }
        }
    }
    found.partition.push((PacketSet::ALL, Finding::pass(stage, subject)));
    found
}

/// TCP to a group, or to the broadcast address of the sender's own network: its kernel refuses before
/// anything is sent (`tcp_v4_connect`).
fn refused_by_client(
    host: &Host<'_>,
    sets: &mut Sets,
    (proto, to): (Proto, IpAddr),
    link: Ifindex,
) -> PacketSet {
    if proto != Proto::Tcp {
        return PacketSet::NONE;
    }
    if to == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) || to.is_multicast() {
        return PacketSet::ALL;
    }
    let around = host.on_link(link).iter().copied();
    let known = around.filter(|prefix| is_broadcast_of(*prefix, to));
    sets.from_sources(&AddressSet::from_prefixes(Family::of(to), known))
}

/// What senders see when the link does not carry what they send.
pub(crate) fn seen_cut_off(
    host: &Host<'_>,
    sets: &mut Sets,
    (proto, to): (Proto, IpAddr),
    link: Ifindex,
) -> Vec<(PacketSet, TheySee)> {
    let refused = refused_by_client(host, sets, (proto, to), link);
    let mut seen = vec![(refused, TheySee::NetworkUnreachable)];
    for (set, they_see) in seen_unresolved(sets, proto, to) {
        seen.push((sets.difference(set, refused), they_see));
    }
    seen
}

/// What senders see when nobody on the link answers for the address: their own kernel says so, or
/// that of the router before us.
pub(crate) fn seen_unresolved(
    sets: &mut Sets,
    proto: Proto,
    to: IpAddr,
) -> Vec<(PacketSet, TheySee)> {
    match (proto, Family::of(to)) {
        // A UDP socket hears of fatal ICMP errors only, and this is none (`icmp_err_convert`).
        (Proto::Udp, _) => vec![(PacketSet::ALL, TheySee::Silence)],
        (Proto::Tcp, Family::Ipv4) => vec![(PacketSet::ALL, TheySee::HostUnreachable)],
        (Proto::Tcp, Family::Ipv6) => {
            // A client of a link-local address is bound to its link, and the error its own kernel
            // makes comes in by `lo` (`tcp_v6_err`): it does not find the socket.
            let near = if matches!(to, IpAddr::V6(to) if to.is_unicast_link_local()) {
                PacketSet::ALL
            } else {
                link_local_sources(sets)
            };
            let far = sets.not(near);
            vec![(near, TheySee::Timeout), (far, TheySee::HostUnreachable)]
        }
    }
}

/// The prefixes of the link that hold the address dialled, longest first: neighbours resolve it.
fn prefixes_around(host: &Host<'_>, asked: &Asked<'_>) -> Vec<Prefix> {
    let prefixes = host.on_link(asked.link.ifindex).iter().copied();
    let mut around: Vec<_> = prefixes.filter(|prefix| prefix.contains(asked.to)).collect();
    around.sort_by_key(|prefix| std::cmp::Reverse(prefix.length()));
    around
}

fn silent(subject: Option<Subject>) -> Finding {
    let seen = Some(TheySee::HostUnreachable);
    Finding::stop(Stage::Link, DropReason::NeighborSilent, subject, seen)
}

/// Who has the address, tell the sender: asked by neighbours themselves, and by a router for others.
fn arp(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (around, routed): (&[Prefix], &RouteInput),
    found: &mut LinkInput,
) {
    let (neighbors, strangers) = askers(sets, asked.family, around);
    let router = router_in(host, around);
    let asking = if router.is_some() { sets.or(neighbors, strangers) } else { neighbors };
    found.partition.extend(arp_rules(host, asked.link, asking));
    // ARP is routed without ports, and as what came in by the link itself, not by its VRF.
    let asked = &Asked { routed_link: asked.link, ..*asked };
    let packet = Origin { source: Term::AnySource, has_ports: false };
    let own = route_input(host, sets, asked, packet);
    ask(host, sets, asked, (routed, &own), (neighbors, None), found);
    // Others: the router that asks is a neighbour of an address we cannot know.
    if let Some(router) = router {
        let by_router = Origin { source: Term::Is(router), has_ports: false };
        let by_router = route_input(host, sets, asked, by_router);
        ask(host, sets, asked, (routed, &by_router), (strangers, Some(router)), found);
    }
}

/// One kind of asker: the neighbours themselves, or a router. `asks` is what input routing says of the
/// question, `routed` what it says of the packets.
fn ask(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (routed, asks): (&RouteInput, &RouteInput),
    (within, sender): (PacketSet, Option<u128>),
    found: &mut LinkInput,
) {
    // The question meets the doubts of its own routing, up to where that stops it.
    // Broadcasts are for IP alone (`brd_input`).
    let mut open = sets.difference(within, asks.broadcast);
    for (set, finding) in asks.partitions.iter().skip(1).flatten() {
        let set = sets.and(*set, open);
        // The forward hook sees no ARP.
        let meets = finding.stage != Stage::Forward && !finding.doubts.is_empty();
        if !set.is_empty() && meets {
            let doubts = finding.doubts.iter().cloned();
            let doubts = doubts.map(|doubt| Doubt { stage: Stage::Link, ..doubt }).collect();
            found.partition.push((set, Finding::doubtful(Stage::Link, doubts)));
        }
        if finding.stop.is_some() {
            open = sets.difference(open, set);
        }
    }
    let at_route = stopped_at(sets, asks, Stage::Route);
    let local = sets.difference(asks.local, at_route);
    let mut answered = local;
    if proxies(host, asked) {
        for (set, link) in &asks.forwards {
            let proxied = sets.difference(*set, at_route);
            if *link != asked.link.ifindex {
                answered = sets.or(answered, proxied);
            }
        }
    }
    let unanswered = sets.difference(within, answered);
    found.unresolved_if_stopped = sets.or(found.unresolved_if_stopped, unanswered);
    // Where input routing stops the packet as well, that is the reason.
    let stopped = stopped(sets, routed);
    let unheard = sets.difference(unanswered, stopped);
    found.partition.push((unheard, silent(None)));
    let local = sets.and(local, within);
    if !local.is_empty() {
        refuse(host, sets, asked, (local, sender), found);
    }
}

/// The packets that input routing stops, or sends on.
fn stopped(sets: &mut Sets, routed: &RouteInput) -> PacketSet {
    let at_route = stopped_at(sets, routed, Stage::Route);
    let at_forward = stopped_at(sets, routed, Stage::Forward);
    sets.or(at_route, at_forward)
}

fn stopped_at(sets: &mut Sets, routed: &RouteInput, stage: Stage) -> PacketSet {
    let mut stopped = PacketSet::NONE;
    for (set, finding) in routed.partitions.iter().flatten() {
        if finding.stop.is_some() && finding.stage == stage {
            stopped = sets.or(stopped, *set);
        }
    }
    stopped
}

/// `arp_ignore`, `arp_filter`: reasons to keep silent about an address that is local.
fn refuse(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (local, sender): (PacketSet, Option<u128>),
    found: &mut LinkInput,
) {
    let of_link =
        |sysctl, value| Some(Subject::LinkSysctl { sysctl, link: Some(asked.link.ifindex), value });
    let ignore = host.link_sysctl(LinkSysctl::ArpIgnore, asked.link);
    let filter = host.link_sysctl(LinkSysctl::ArpFilter, asked.link);
    let unread = |gap: Option<usize>| {
        gap.map(|gap| {
            let (reason, subject) = (host.gap_reason(gap), Some(Subject::Gap(gap)));
            Finding::doubt(Stage::Link, reason, DoubtEffect::MayStop, subject)
        })
    };
    found.partition.extend(unread(ignore.gap).map(|doubt| (local, doubt)));
    let answered = match confirmed(host, asked, ignore.value) {
        Confirmed::Every => PacketSet::ALL,
        Confirmed::None => PacketSet::NONE,
        Confirmed::From(prefixes) => {
            let set = AddressSet::from_prefixes(Family::Ipv4, prefixes);
            match sender {
                None => sets.from_sources(&set),
                Some(router) if set.contains(Family::Ipv4.address(router)) => PacketSet::ALL,
                Some(_) => PacketSet::NONE,
            }
        }
    };
    let ignored = sets.difference(local, answered);
    if !ignored.is_empty() {
        found.partition.push((ignored, silent(of_link(LinkSysctl::ArpIgnore, ignore.value))));
    }
    let rest = sets.difference(local, ignored);
    found.partition.extend(unread(filter.gap).map(|doubt| (rest, doubt)));
    if filter.is_set() {
        let filtered = filtered(host, sets, asked, sender);
        let filtered = sets.and(rest, filtered);
        if !filtered.is_empty() {
            found.partition.push((filtered, silent(of_link(LinkSysctl::ArpFilter, filter.value))));
        }
    }
}

/// Who is told that an address is here.
enum Confirmed {
    Every,
    None,
    /// Those inside one of these.
    From(Vec<Prefix>),
}

/// `arp_ignore` and `inet_confirm_addr`.
fn confirmed(host: &Host<'_>, asked: &Asked<'_>, mode: i64) -> Confirmed {
    let link = asked.link;
    match mode {
        1 if confirming(host, link, asked.to, Scope::HOST).is_empty() => Confirmed::None,
        2 => Confirmed::From(confirming(host, link, asked.to, Scope::HOST)),
        3 => {
            let mut links = host.netns().links.iter();
            if links.any(|link| !confirming(host, link, asked.to, Scope::LINK).is_empty()) {
                Confirmed::Every
            } else {
                Confirmed::None
            }
        }
        8 => Confirmed::None,
        _ => Confirmed::Every,
    }
}

/// The subnets of a link that an address is in, if the link has the address in a scope as wide as
/// this (`confirm_addr_indev`).
fn confirming(host: &Host<'_>, link: &Link, address: IpAddr, scope: Scope) -> Vec<Prefix> {
    let localnet = host.link_sysctl(LinkSysctl::RouteLocalnet, link).is_set();
    let narrowest = if localnet { Scope::LINK } else { Scope::HOST };
    let addresses = &host.netns().addresses;
    let of_link = || host.addresses_of(link.ifindex).iter().map(|index| &addresses[*index]);
    let has_it = of_link().any(|own| own.address() == address && own.scope.min(narrowest) <= scope);
    if !has_it {
        return Vec::new();
    }
    // The subnet of an address with a peer is the peer's (`inet_ifa_match`).
    let subnet =
        |own: &Address| Prefix::new(own.peer.unwrap_or_else(|| own.address()), own.prefix.length());
    of_link().filter_map(subnet).filter(|prefix| prefix.contains(address)).collect()
}

/// `arp_filter`: those to whom the route back leaves by another link.
fn filtered(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    sender: Option<u128>,
) -> PacketSet {
    let key =
        AnswerKey { source: Some(asked.to), protocol: 0, ..AnswerKey::icmp_error(Family::Ipv4) };
    let fib = host.fib(Family::Ipv4);
    let mut wrong =
        if is_source(host, asked.to, asked.split) { PacketSet::NONE } else { PacketSet::ALL };
    for (within, flow) in flows(host, sets, asked, &key) {
        let flow = match sender {
            None => flow,
            Some(router) => Flow { destination: Term::Is(router), ..flow },
        };
        for (set, found) in host.look_up(sets, &flow, within) {
            let by = match found {
                Found::Route { way, .. } if fib.way(way).kind != WayKind::Local => {
                    fib.way(way).exits.first().map(|exit| exit.link)
                }
                Found::Route { .. } | Found::Refused { .. } => None,
            };
            if by != Some(asked.link.ifindex) {
                wrong = sets.or(wrong, set);
            }
        }
    }
    wrong
}

fn proxies(host: &Host<'_>, asked: &Asked<'_>) -> bool {
    let by_entry = host.netns().neighbors.iter().any(|neighbor| {
        neighbor.proxy && neighbor.ifindex == asked.link.ifindex && neighbor.address == asked.to
    });
    by_entry || host.link_sysctl(LinkSysctl::ProxyArp, asked.link).is_set()
}

/// Rules that see ARP: chains of its own family, and those of a link that see every frame.
fn arp_rules(host: &Host<'_>, link: &Link, asking: PacketSet) -> Partition {
    let doubt = |subject| Doubt {
        stage: Stage::Link,
        reason: UnknownReason::NotModelled,
        effect: DoubtEffect::MayStop,
        subject: Some(subject),
    };
    let chains = host.netns().firewall.chains.iter().enumerate();
    let mut doubts: Vec<_> = chains
        .filter(|(_, chain)| chain.family == NfFamily::Arp && !chain.is_idle())
        .map(|(index, _)| doubt(Subject::Chain(index)))
        .collect();
    let ruleset = host.netns().firewall.nft.iter();
    for (table, chain, in_table, rules, base) in ruleset.flat_map(Ruleset::hooked) {
        let device = |name: &String| match name.strip_suffix('*') {
            Some(start) => link.name.starts_with(start),
            None => *name == link.name,
        };
        let here = in_table.family == NfFamily::Netdev && base.devices.iter().any(device);
        if here && (base.policy == ChainPolicy::Drop || rules.rules.iter().any(may_stop_arp)) {
            doubts.push(doubt(Subject::Netfilter(NfSubject::NftPolicy { table, chain })));
        }
    }
    if doubts.is_empty() {
        return Partition::new();
    }
    vec![(asking, Finding::doubtful(Stage::Link, doubts))]
}

/// Whether a rule asks for nothing that ARP lacks: IP headers, or a protocol.
fn may_stop_arp(rule: &Rule) -> bool {
    let asks_for_ip = |expr: &Expr| {
        let of_protocol = matches!(
            expr,
            Expr::Meta { key: MetaKey::Protocol | MetaKey::L4proto | MetaKey::Nfproto, .. }
        );
        let of_header = matches!(expr, Expr::Payload { base, .. } if *base != PayloadBase::Link);
        of_protocol || of_header
    };
    let decides = |expr: &Expr| {
        !matches!(
            expr,
            Expr::Verdict(NfVerdict::Accept | NfVerdict::Continue) | Expr::Counter { .. }
        )
    };
    rule.exprs.iter().any(decides) && !rule.exprs.iter().any(asks_for_ip)
}

/// Who asks for the address: neighbours themselves, and for all others a router.
fn askers(sets: &mut Sets, family: Family, around: &[Prefix]) -> (PacketSet, PacketSet) {
    let set = AddressSet::from_prefixes(family, around.iter().copied());
    let neighbors = sets.from_sources(&set);
    (neighbors, sets.not(neighbors))
}

/// An address that a router could have: the lowest that is not ours, of the longest prefix that has
/// one.
fn router_in(host: &Host<'_>, around: &[Prefix]) -> Option<u128> {
    // A prefix of one address holds no router.
    let wide = around.iter().filter(|prefix| prefix.length() < prefix.family().bits());
    wide.copied().find_map(|prefix| {
        let (low, high) = prefix.range();
        let family = prefix.family();
        let has_network_address = family == Family::Ipv4 && prefix.length() < 31;
        let first = if has_network_address { low + 1 } else { low };
        let inside = AddressSet::from_ranges(family, [(first, high)]);
        let free = inside.difference(&host.own_addresses(family));
        free.ranges().first().map(|(low, _)| *low)
    })
}

/// Neighbour solicitation: IPv6 answers for addresses of the very link only.
fn neighbor_solicitation(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (around, routed): (&[Prefix], &RouteInput),
    found: &mut LinkInput,
) {
    let (neighbors, strangers) = askers(sets, asked.family, around);
    // Without a router in the prefix, nobody asks for others.
    let router = router_in(host, around);
    let asking = if router.is_some() { sets.or(neighbors, strangers) } else { neighbors };
    // Link-local addresses do not cross routers.
    let link_local = link_local_sources(sets);
    let selves = sets.or(neighbors, link_local);
    let mut askers = vec![(selves, Part::Client)];
    let behind = sets.difference(strangers, link_local);
    askers.extend(router.map(|router| (behind, Part::Is(router))));
    let addresses = &host.netns().addresses;
    let on =
        |link: Ifindex| host.entries_of(asked.to).find(|index| addresses[*index].ifindex == link);
    let master = || asked.vrf.and_then(|(master, _)| on(master));
    if let Some(index) = on(asked.link.ifindex).or_else(master) {
        if addresses[index].is_tentative() {
            let seen = Some(TheySee::HostUnreachable);
            let subject = Some(Subject::Address(index));
            let stop = Finding::stop(Stage::Link, DropReason::Tentative, subject, seen);
            found.partition.push((asking, stop));
        }
        found.partition.extend(discovery(host, sets, asked, &askers).into_iter().flatten());
        return;
    }
    if is_anycast(host, asked) || is_proxied(host, asked) {
        found.partition.extend(discovery(host, sets, asked, &askers).into_iter().flatten());
        return;
    }
    found.unresolved_if_stopped = asking;
    let stopped = stopped(sets, routed);
    let accepted = sets.difference(asking, stopped);
    found.partition.push((accepted, silent(None)));
}

/// An anycast address joined on the link (`ipv6_chk_acast_addr`) shows as a route in table local.
fn is_anycast(host: &Host<'_>, asked: &Asked<'_>) -> bool {
    host.netns().routes.iter().any(|route| {
        route.kind == RouteType::Anycast
            && route.destination == Prefix::host(asked.to)
            && route.nexthops.iter().any(|hop| hop.ifindex == Some(asked.link.ifindex))
    })
}

fn is_proxied(host: &Host<'_>, asked: &Asked<'_>) -> bool {
    let forwards = host.link_sysctl(LinkSysctl::V6Forwarding, asked.link).is_set();
    let proxies = host.link_sysctl(LinkSysctl::V6ProxyNdp, asked.link).is_set()
        || host.sysctl_of_all(LinkSysctl::V6ProxyNdp).is_set();
    forwards
        && proxies
        && host.netns().neighbors.iter().any(|neighbor| {
            neighbor.proxy
                && neighbor.ifindex == asked.link.ifindex
                && address_value(neighbor.address) == asked.value()
        })
}
