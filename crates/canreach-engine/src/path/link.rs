//! The link, and whether neighbours can find the address on it.
//!
//! *Kernel:* `arp_process`, `arp_ignore`, `arp_filter` (net/ipv4/arp.c), `ndisc_recv_ns`
//! (net/ipv6/ndisc.c).
//! *Decides:* link down, IPv6 off, tentative address, silence towards neighbours.
//! *Reads:* flags of the link, its addresses and prefixes, routes, sysctls, proxy entries.
//! *Not modelled:* ARP and ND through rules (a doubt says so); private VLAN proxies; hardware.

use canreach_snapshot::address::address_value;
use canreach_snapshot::{
    Family, Ifindex, LinkFlags, LinkSysctl, NfFamily, Prefix, RouteType, Scope,
};

use crate::AddressSet;
use crate::host::Host;
use crate::host::flow::Term;
use crate::packet::diagram::Diagram;
use crate::packet::packet_set::PacketSet;
use crate::path::reply::{AnswerKey, WayBack, way_back};
use crate::path::route_input::{Origin, RouteInput, is_broadcast_of, route_input};
use crate::path::stage::{Asked, Finding, Partition};
use crate::{Doubt, DoubtEffect, DropReason, Stage, Subject, TheySee, UnknownReason};

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
    sets: &mut Diagram,
    asked: &Asked<'_>,
    routed: &RouteInput,
) -> LinkInput {
    let stage = Stage::Link;
    let link = asked.link;
    let unreachable = Some(TheySee::HostUnreachable);
    let subject = Some(Subject::Link(link.ifindex));
    let near = nearest_prefix(host, asked);
    let mut partition = Partition::new();
    if !link.is_up() || !link.has_carrier() {
        let stop = Finding::stop(stage, DropReason::LinkDown, subject.clone(), unreachable);
        partition.push((PacketSet::ALL, stop));
    }
    let mut found = LinkInput { partition, unresolved_if_stopped: PacketSet::NONE };
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
            let seen = if near.is_some() { unreachable } else { Some(asked.silence()) };
            let stop = Finding::stop(stage, DropReason::Ipv6Disabled, subject, seen);
            found.partition.push((PacketSet::ALL, stop));
            return found;
        }
    }
    let unresolved = link.flags.has(LinkFlags::NO_ARP)
        || link.flags.has(LinkFlags::POINT_TO_POINT)
        || link.is_loopback();
    let to_many = asked.to.is_multicast()
        || routed.broadcast == PacketSet::ALL
        || near.is_some_and(|prefix| is_broadcast_of(prefix, asked.to));
    if let Some(prefix) = near.filter(|_| !unresolved && !to_many) {
        match asked.family {
            Family::Ipv4 => arp(host, sets, asked, (prefix, routed), &mut found),
            Family::Ipv6 => neighbor_solicitation(host, asked, routed, &mut found),
        }
    }
    if found.partition.is_empty() {
        found.partition.push((PacketSet::ALL, Finding::pass(stage, subject)));
    }
    found
}

/// The longest prefix of the link that holds the address dialled: neighbours resolve it.
fn nearest_prefix(host: &Host<'_>, asked: &Asked<'_>) -> Option<Prefix> {
    let prefixes = host.on_link(asked.link.ifindex).iter().copied();
    prefixes.filter(|prefix| prefix.contains(asked.to)).max_by_key(|prefix| prefix.length())
}

fn silent(subject: Option<Subject>) -> Finding {
    let seen = Some(TheySee::HostUnreachable);
    Finding::stop(Stage::Link, DropReason::NeighborSilent, subject, seen)
}

/// Who has the address, tell the sender: asked by neighbours themselves, and by a router for others.
fn arp(
    host: &Host<'_>,
    sets: &mut Diagram,
    asked: &Asked<'_>,
    (prefix, routed): (Prefix, &RouteInput),
    found: &mut LinkInput,
) {
    let neighbors =
        sets.from_sources(&AddressSet::from_prefixes(Family::Ipv4, on_link_around(host, asked)));
    let strangers = sets.not(neighbors);
    found.unresolved_if_stopped = neighbors;
    found.partition.extend(arp_rules(host));
    // Neighbours: what input routing says of them is said there. Here, only what ARP adds.
    refuse(host, sets, asked, routed, (neighbors, None), found);
    // Others: the router that asks is a neighbour of an address we cannot know.
    let Some(router) = router_in(host, prefix) else { return };
    let by_router = Origin { source: Term::Is(router), has_ports: false };
    let asks = &route_input(host, sets, asked, by_router);
    let answers =
        asks.local == PacketSet::ALL || (asks.forwarded == PacketSet::ALL && proxies(host, asked));
    if answers && stopped_by(sets, asks, Stage::Route).is_empty() {
        refuse(host, sets, asked, asks, (strangers, Some(router)), found);
        return;
    }
    // Nobody tells the router. Where input routing stops the packet as well, that is the reason.
    found.unresolved_if_stopped = PacketSet::ALL;
    let at_route = stopped_by(sets, routed, Stage::Route);
    let at_forward = stopped_by(sets, routed, Stage::Forward);
    let stopped = sets.or(at_route, at_forward);
    let unheard = sets.difference(strangers, stopped);
    if !unheard.is_empty() {
        found.partition.push((unheard, silent(None)));
    }
}

/// The packets that input routing stops at a stage.
fn stopped_by(sets: &mut Diagram, routed: &RouteInput, stage: Stage) -> PacketSet {
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
    sets: &mut Diagram,
    asked: &Asked<'_>,
    routed: &RouteInput,
    (within, sender): (PacketSet, Option<u128>),
    found: &mut LinkInput,
) {
    let local = sets.and(within, routed.local);
    let of_link =
        |sysctl, value| Some(Subject::LinkSysctl { sysctl, link: Some(asked.link.ifindex), value });
    let ignore = host.link_sysctl(LinkSysctl::ArpIgnore, asked.link);
    let filter = host.link_sysctl(LinkSysctl::ArpFilter, asked.link);
    for gap in [ignore.gap, filter.gap].into_iter().flatten() {
        let (reason, subject) = (host.gap_reason(gap), Some(Subject::Gap(gap)));
        let doubt = Finding::doubt(Stage::Link, reason, DoubtEffect::MayStop, subject);
        found.partition.push((local, doubt));
    }
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
    if filter.is_set() {
        let rest = sets.difference(local, ignored);
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
    let addresses = &host.netns().addresses;
    let on_this_link =
        host.entries_of(asked.to).any(|index| addresses[index].ifindex == asked.link.ifindex);
    let every_if = |answered| if answered { Confirmed::Every } else { Confirmed::None };
    match mode {
        1 => every_if(on_this_link),
        2 if on_this_link => {
            let own = host.addresses_of(asked.link.ifindex).iter();
            let around = own.map(|index| addresses[*index].prefix.network());
            Confirmed::From(around.filter(|prefix| prefix.contains(asked.to)).collect())
        }
        2 | 8 => Confirmed::None,
        3 => every_if(host.entries_of(asked.to).any(|index| addresses[index].scope <= Scope::LINK)),
        _ => Confirmed::Every,
    }
}

/// `arp_filter`: those to whom the route back leaves by another link.
fn filtered(
    host: &Host<'_>,
    sets: &mut Diagram,
    asked: &Asked<'_>,
    sender: Option<u128>,
) -> PacketSet {
    let key =
        AnswerKey { source: Some(asked.to), protocol: 0, ..AnswerKey::icmp_error(Family::Ipv4) };
    let mut wrong = PacketSet::NONE;
    for (set, way) in way_back(host, sets, asked, &key) {
        if !matches!(way, WayBack::Back { .. } | WayBack::Multipath { .. }) {
            wrong = sets.or(wrong, set);
        }
    }
    let Some(router) = sender else { return wrong };
    let router = Family::Ipv4.address(router);
    let router =
        sets.from_sources(&AddressSet::from_prefixes(Family::Ipv4, [Prefix::host(router)]));
    if sets.and(wrong, router).is_empty() { PacketSet::NONE } else { PacketSet::ALL }
}

fn proxies(host: &Host<'_>, asked: &Asked<'_>) -> bool {
    let by_entry = host.netns().neighbors.iter().any(|neighbor| {
        neighbor.proxy && neighbor.ifindex == asked.link.ifindex && neighbor.address == asked.to
    });
    by_entry || host.link_sysctl(LinkSysctl::ProxyArp, asked.link).is_set()
}

/// Rules that see ARP.
fn arp_rules(host: &Host<'_>) -> Partition {
    let chains = host.netns().firewall.chains.iter().enumerate();
    let doubts: Vec<_> = chains
        .filter(|(_, chain)| chain.family == NfFamily::Arp && !chain.is_idle())
        .map(|(index, _)| Doubt {
            stage: Stage::Link,
            reason: UnknownReason::NotModelled,
            effect: DoubtEffect::MayStop,
            subject: Some(Subject::Chain(index)),
        })
        .collect();
    if doubts.is_empty() {
        return Partition::new();
    }
    vec![(PacketSet::ALL, Finding::doubtful(Stage::Link, doubts))]
}

/// Prefixes of the link that hold the address dialled.
fn on_link_around(host: &Host<'_>, asked: &Asked<'_>) -> Vec<Prefix> {
    let prefixes = host.on_link(asked.link.ifindex).iter().copied();
    prefixes.filter(|prefix| prefix.contains(asked.to)).collect()
}

/// An address that a router of a prefix could have: the lowest that is not ours.
fn router_in(host: &Host<'_>, prefix: Prefix) -> Option<u128> {
    let (low, high) = prefix.range();
    let first = if prefix.length() < 31 { low + 1 } else { low };
    let inside = AddressSet::from_ranges(Family::Ipv4, [(first, high)]);
    let free = inside.difference(&host.own_addresses(Family::Ipv4));
    free.ranges().first().map(|(low, _)| *low)
}

/// Neighbour solicitation: IPv6 answers for addresses of the very link only.
fn neighbor_solicitation(
    host: &Host<'_>,
    asked: &Asked<'_>,
    routed: &RouteInput,
    found: &mut LinkInput,
) {
    let addresses = &host.netns().addresses;
    let master = asked.vrf.map(|(master, _)| master);
    let here = |ifindex: Ifindex| ifindex == asked.link.ifindex || Some(ifindex) == master;
    let mut entries = host.entries_of(asked.to).filter(|index| here(addresses[*index].ifindex));
    if let Some(index) = entries.next() {
        if addresses[index].is_tentative() {
            let seen = Some(TheySee::HostUnreachable);
            let subject = Some(Subject::Address(index));
            let stop = Finding::stop(Stage::Link, DropReason::Tentative, subject, seen);
            found.partition.push((PacketSet::ALL, stop));
        }
        return;
    }
    if is_anycast(host, asked) || is_proxied(host, asked) {
        return;
    }
    found.unresolved_if_stopped = PacketSet::ALL;
    if !routed.local.is_empty() {
        found.partition.push((routed.local, silent(None)));
    }
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
