//! The source of what this machine sends, where nothing fixes it.
//!
//! *Kernel:* `inet_select_addr` (net/ipv4/devinet.c), `ip6_route_get_saddr` (include/net/ip6_route.h).
//! *Decides:* the addresses the kernel could choose; a doubt for answers that may get another one
//! than was dialled.
//! *Reads:* addresses, their scopes and flags; preferred sources of routes.
//! *Not modelled:* the order in which links were made, which decides where the link of the route has
//! no address: all that could be chosen then are.

use std::net::IpAddr;

use canreach_snapshot::{Address, Family, Ifindex, Link, LinkSysctl, Prefix, Proto, Scope};

use crate::host::Host;
use crate::host::flow::{Found, Way};
use crate::packet::packet_set::PacketSet;
use crate::path::ipv6_source::destinations_of;
use crate::path::reply::{AnswerKey, flows};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Finding, Partition};
use crate::{DoubtEffect, Stage, UnknownReason};

/// Where the route chooses the source of an answer: a doubt for the senders who could get it from
/// another address than the one they dialled.
pub(crate) fn source_choice(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    key: &AnswerKey,
) -> Partition {
    if key.source.is_some() || asked.proto != Proto::Udp {
        return Partition::new();
    }
    let mut differs = PacketSet::NONE;
    for (within, flow) in flows(host, sets, asked, key) {
        for (set, found) in host.look_up(sets, &flow, within) {
            let way = match found {
                Found::Route { way, .. } => Some(host.fib(asked.family).way(way)),
                Found::Refused { .. } => None,
            };
            let known = match asked.family {
                Family::Ipv4 => {
                    let chosen = chosen_ipv4(host, asked.link.ifindex, (way, flow.oif));
                    let same = chosen.iter().all(|source| *source == Some(asked.to));
                    if same && !chosen.is_empty() { set } else { PacketSet::NONE }
                }
                Family::Ipv6 => known_ipv6(host, sets, asked, (way, flow.oif)),
            };
            let wrong = sets.difference(set, known);
            differs = sets.or(differs, wrong);
        }
    }
    let effect = DoubtEffect::MayStop;
    let doubt = Finding::doubt(Stage::Reply, UnknownReason::ReplyAddress, effect, None);
    if differs.is_empty() { Partition::new() } else { vec![(differs, doubt)] }
}

/// The destinations to which IPv6 is known to send from an address: by the preferred source of the
/// route, else by what is chosen for each of its links.
fn known_ipv6(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (way, oif): (Option<&Way>, Option<Ifindex>),
) -> PacketSet {
    let source = asked.to;
    if let Some(preferred) = way.and_then(|way| way.preferred_source) {
        return if preferred == source { PacketSet::ALL } else { PacketSet::NONE };
    }
    let links: Vec<Option<Ifindex>> = match way {
        None => vec![None],
        Some(way) => {
            let taken = way.exits.iter().filter(|exit| oif.is_none_or(|oif| oif == exit.link));
            taken.map(|exit| Some(exit.link)).collect()
        }
    };
    let mut known = if links.is_empty() { PacketSet::NONE } else { PacketSet::ALL };
    for link in links {
        let by_link = asked.from(sets, &destinations_of(host, link, source));
        known = sets.and(known, by_link);
    }
    known
}

/// The source of the route, else what `inet_select_addr` may find for each nexthop. A socket bound to a
/// link takes those on that link only (net/ipv4/fib_semantics.c, `fib_select_path`).
fn chosen_ipv4(
    host: &Host<'_>,
    link: Ifindex,
    (way, oif): (Option<&Way>, Option<Ifindex>),
) -> Vec<Option<IpAddr>> {
    let select = |link, gateway, scope| {
        let own = select_addresses(host, link, gateway, scope);
        let none = own.is_empty().then_some(None);
        own.into_iter().map(Some).chain(none)
    };
    match way {
        Some(way) if way.preferred_source.is_some() => vec![way.preferred_source],
        Some(way) => {
            let exits = way.exits.iter().filter(|exit| oif.is_none_or(|oif| oif == exit.link));
            exits.flat_map(|exit| select(exit.link, exit.gateway, way.scope)).collect()
        }
        None => select(link, None, Scope::LINK).collect(),
    }
}

/// `inet_select_addr`, for a sender that has to have one source: the first of several.
pub(crate) fn select_address(
    host: &Host<'_>,
    link: Ifindex,
    gateway: Option<IpAddr>,
    scope: Scope,
) -> Option<IpAddr> {
    select_addresses(host, link, gateway, scope).into_iter().next()
}

/// `inet_select_addr`: the first primary address of the link that reaches far enough, one of the
/// router's subnet before others; without one there, the first of any link. Links are asked in the
/// order in which they were made, which nothing shows.
fn select_addresses(
    host: &Host<'_>,
    link: Ifindex,
    gateway: Option<IpAddr>,
    scope: Scope,
) -> Vec<IpAddr> {
    let addresses = &host.netns().addresses;
    let primary = |link: &Link| {
        let own = host.addresses_of(link.ifindex).iter().map(|index| &addresses[*index]);
        own.filter(|own| own.prefix.family() == Family::Ipv4 && !own.is_secondary())
    };
    let of_link = |link: &Link| {
        let localnet = host.link_sysctl(LinkSysctl::RouteLocalnet, link).is_set();
        let narrowest = if localnet { Scope::LINK } else { Scope::HOST };
        primary(link).filter(move |own| own.scope.min(narrowest) <= scope)
    };
    // Links beside the one asked for give no address of link scope (`in_dev_select_addr`).
    let of_other =
        |link: &Link| primary(link).find(|own| own.scope != Scope::LINK && own.scope <= scope);
    let subnet =
        |own: &Address| Prefix::new(own.peer.unwrap_or_else(|| own.address()), own.prefix.length());
    let near = |own: &&Address| {
        gateway.is_some_and(|gateway| subnet(own).is_some_and(|prefix| prefix.contains(gateway)))
    };
    let Some(out) = host.link(link) else { return Vec::new() };
    let first = of_link(out).find(near).or_else(|| of_link(out).next());
    let vrf = host.vrf_of(out).map(|(master, _)| master);
    let master = || vrf.and_then(|master| host.link(master)).and_then(of_other);
    if let Some(own) = first.or_else(master) {
        return vec![own.address()];
    }
    let links = host.netns().links.iter();
    let same = links.filter(|link| host.vrf_of(link).map(|(master, _)| master) == vrf);
    // `lo` is always the first.
    let mut rest: Vec<IpAddr> = Vec::new();
    for link in same {
        let own = of_other(link).map(Address::address);
        match own {
            Some(own) if link.is_loopback() => return vec![own],
            own => rest.extend(own),
        }
    }
    rest
}
