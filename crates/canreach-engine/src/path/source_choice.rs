//! The source of what this machine sends, where nothing fixes it.
//!
//! *Kernel:* `inet_select_addr` (net/ipv4/devinet.c), `ipv6_dev_get_saddr` (net/ipv6/addrconf.c).
//! *Decides:* the addresses the kernel could choose; a doubt for answers that may get another one
//! than was dialled.
//! *Reads:* addresses, their scopes and flags; preferred sources of routes.
//! *Not modelled:* labels, privacy preferences and common prefixes among IPv6 candidates of one rank,
//! except for a client whose destination is known.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{
    Address, AddressFlags, Family, Ifindex, Link, LinkSysctl, Prefix, Proto, Scope,
};

use crate::host::Host;
use crate::host::flow::{Found, Way};
use crate::packet::packet_set::PacketSet;
use crate::path::reply::{AnswerKey, flows, link_local_sources};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Finding, Partition};
use crate::{DoubtEffect, Stage, UnknownReason};

/// What kind of IPv6 address a source should suit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// ::1.
    Loopback,
    /// fe80::/10.
    LinkLocal,
    /// Any other.
    Other,
}

impl Class {
    /// The class of an address.
    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(address) if address.is_loopback() => Self::Loopback,
            IpAddr::V6(address) if address.is_unicast_link_local() => Self::LinkLocal,
            IpAddr::V6(_) | IpAddr::V4(_) => Self::Other,
        }
    }
}

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
    let near = link_local_sources(sets);
    let mut differs = PacketSet::NONE;
    for (within, flow) in flows(host, sets, asked, key) {
        for (set, found) in host.look_up(sets, &flow, within) {
            let way = match found {
                Found::Route { way, .. } => Some(host.fib(asked.family).way(way)),
                Found::Refused { .. } => None,
            };
            let same = |sources: Vec<Option<IpAddr>>| {
                !sources.is_empty() && sources.iter().all(|source| *source == Some(asked.to))
            };
            let wrong = match asked.family {
                Family::Ipv4 if same(chosen_ipv4(host, asked.link.ifindex, (way, flow.oif))) => {
                    PacketSet::NONE
                }
                Family::Ipv4 => set,
                Family::Ipv6 => {
                    let mut wrong = PacketSet::NONE;
                    for (part, class) in [
                        (sets.and(set, near), Class::LinkLocal),
                        (sets.difference(set, near), Class::Other),
                    ] {
                        if !same(chosen_ipv6(host, (way, flow.oif), class)) {
                            wrong = sets.or(wrong, part);
                        }
                    }
                    wrong
                }
            };
            differs = sets.or(differs, wrong);
        }
    }
    let effect = DoubtEffect::MayStop;
    let doubt = Finding::doubt(Stage::Reply, UnknownReason::ReplyAddress, effect, None);
    if differs.is_empty() { Partition::new() } else { vec![(differs, doubt)] }
}

/// The preferred source of the route, else the candidates of each of its links.
fn chosen_ipv6(
    host: &Host<'_>,
    (way, oif): (Option<&Way>, Option<Ifindex>),
    class: Class,
) -> Vec<Option<IpAddr>> {
    let of = |link| candidates(host, link, (class, None)).into_iter().map(Some);
    match way {
        None => of(None).collect(),
        Some(way) if way.preferred_source.is_some() => vec![way.preferred_source],
        Some(way) => {
            let taken = way.exits.iter().filter(|exit| oif.is_none_or(|oif| oif == exit.link));
            taken.flat_map(|exit| of(Some(exit.link))).collect()
        }
    }
}

/// The IPv6 sources the kernel could choose for a destination of a class, on a link or on any: those
/// that are equally good, in the order of the snapshot.
pub(crate) fn candidates(
    host: &Host<'_>,
    link: Option<Ifindex>,
    (class, destination): (Class, Option<IpAddr>),
) -> Vec<IpAddr> {
    let vrf = |link: Option<Ifindex>| {
        let link = link.and_then(|link| host.link(link));
        link.and_then(|link| host.vrf_of(link)).map(|(master, _)| master)
    };
    let wanted = vrf(link);
    let suits = |own: &&Address| {
        matches!(own.address(), IpAddr::V6(_))
            && !own.is_tentative()
            && vrf(Some(own.ifindex)) == wanted
            && (class == Class::Other || link.is_none_or(|link| link == own.ifindex))
    };
    let rank = |own: &Address| {
        let elsewhere = link.is_some_and(|link| link != own.ifindex);
        let deprecated = own.flags.has(AddressFlags::DEPRECATED);
        let of_class = Class::of(own.address()) == class;
        (Some(own.address()) != destination, !of_class, deprecated, elsewhere)
    };
    let own = || host.netns().addresses.iter().filter(suits);
    let best = own().map(rank).min();
    own().filter(|own| Some(rank(own)) == best).map(Address::address).collect()
}

/// The source of a client whose destination is known: of equally good ones, the one that shares the
/// longest prefix with it.
pub(crate) fn client_source(
    host: &Host<'_>,
    link: Option<Ifindex>,
    destination: IpAddr,
) -> Option<IpAddr> {
    let common = |source: &IpAddr| {
        let differ = address_value(*source) ^ address_value(destination);
        let lengths =
            host.entries_of(*source).map(|index| host.netns().addresses[index].prefix.length());
        (differ.leading_zeros() as u8).min(lengths.max().unwrap_or(128))
    };
    let best = candidates(host, link, (Class::of(destination), Some(destination)));
    // `max_by_key` keeps the last of equals; the kernel keeps the first.
    best.into_iter().rev().max_by_key(common)
}

/// The source of the route, else what `inet_select_addr` finds for each nexthop. A socket bound to a
/// link takes those on that link only (net/ipv4/fib_semantics.c, `fib_select_path`).
fn chosen_ipv4(
    host: &Host<'_>,
    link: Ifindex,
    (way, oif): (Option<&Way>, Option<Ifindex>),
) -> Vec<Option<IpAddr>> {
    match way {
        Some(way) if way.preferred_source.is_some() => vec![way.preferred_source],
        Some(way) => {
            let exits = way.exits.iter().filter(|exit| oif.is_none_or(|oif| oif == exit.link));
            exits.map(|exit| select_address(host, exit.link, exit.gateway, way.scope)).collect()
        }
        None => vec![select_address(host, link, None, Scope::LINK)],
    }
}

/// `inet_select_addr`: the first primary address of the link that reaches far enough, one of the
/// router's subnet before others; without one there, the first of any link.
pub(crate) fn select_address(
    host: &Host<'_>,
    link: Ifindex,
    gateway: Option<IpAddr>,
    scope: Scope,
) -> Option<IpAddr> {
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
    let out = host.link(link)?;
    let first = of_link(out).find(near).or_else(|| of_link(out).next());
    let vrf = host.vrf_of(out).map(|(master, _)| master);
    let master = || vrf.and_then(|master| host.link(master)).and_then(of_other);
    let anywhere = || {
        let mut links = host.netns().links.iter();
        links.find_map(|link| {
            let same = host.vrf_of(link).map(|(master, _)| master) == vrf;
            if same { of_other(link) } else { None }
        })
    };
    first.or_else(master).or_else(anywhere).map(Address::address)
}
