//! What the kernel makes by itself: secondary addresses, local and connected routes, default rules.

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{
    Address, AddressFlags, Family, Ifindex, LinkFlags, LinkKind, Netns, NextHop, NextHopFlags,
    PolicyAction, PolicyRule, Prefix, Route, RouteProtocol, RouteType, Scope, TableId,
};

use super::pool::{address_of, prefix_of};

/// The addresses of `lo`, then those given; the same address not twice on a link, and the second of a
/// subnet as a secondary one.
pub(crate) fn own_addresses(given: Vec<Address>) -> Vec<Address> {
    let of_lo = ["127.0.0.1/8", "::1/128"].map(|text| Address {
        ifindex: LOOPBACK_IFINDEX,
        prefix: prefix_of(text),
        peer: None,
        broadcast: None,
        scope: Scope::HOST,
        flags: AddressFlags::PERMANENT,
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    });
    let mut all: Vec<Address> = of_lo.to_vec();
    for mut address in given {
        let family = address.prefix.family();
        let beside = |other: &&Address| other.ifindex == address.ifindex;
        if all.iter().filter(beside).any(|other| other.address() == address.address()) {
            continue;
        }
        if family == Family::Ipv4 {
            let network = address.prefix.network();
            let second = all.iter().filter(beside).any(|other| other.prefix.network() == network);
            address.flags =
                if second { AddressFlags::TEMPORARY_OR_SECONDARY } else { AddressFlags::PERMANENT };
        }
        all.push(address);
    }
    all
}

/// Routes that follow from addresses.
pub(crate) fn derived_routes(netns: &Netns) -> Vec<Route> {
    let mut routes = Vec::new();
    for address in &netns.addresses {
        let Some(link) = netns.link(address.ifindex) else { continue };
        let vrf = link.master.and_then(|master| netns.link(master)?.vrf_table);
        let vrf = vrf.or(link.vrf_table);
        let local = vrf.unwrap_or(TableId::LOCAL);
        let main = vrf.unwrap_or(TableId::MAIN);
        let usable = link.flags.has(LinkFlags::UP);
        match address.prefix.family() {
            Family::Ipv4 => {
                ipv4_routes(
                    address,
                    link.kind == LinkKind::Loopback,
                    usable,
                    local,
                    main,
                    &mut routes,
                );
            }
            Family::Ipv6 => {
                if !address.is_tentative() {
                    let own = Prefix::host(address.address());
                    routes.push(made(local, RouteType::Local, own, address.ifindex));
                }
                if address.prefix.length() < 128 && usable {
                    let subnet = address.prefix.network();
                    routes.push(Route {
                        metric: 256,
                        ..made(main, RouteType::Unicast, subnet, address.ifindex)
                    });
                }
            }
        }
    }
    for link in netns.links.iter().filter(|link| link.flags.has(LinkFlags::MULTICAST)) {
        let groups = prefix_of("ff00::/8");
        routes.push(Route {
            metric: 256,
            ..made(TableId::LOCAL, RouteType::Multicast, groups, link.ifindex)
        });
    }
    routes
}

fn ipv4_routes(
    address: &Address,
    loopback: bool,
    usable: bool,
    local: TableId,
    main: TableId,
    routes: &mut Vec<Route>,
) {
    let own = Prefix::host(address.address());
    let subnet = address.prefix.network();
    let device = address.ifindex;
    routes.push(made(local, RouteType::Local, own, device));
    let last = Family::Ipv4.address(address.prefix.range().1);
    if address.prefix.length() < 31 {
        routes.push(made(local, RouteType::Broadcast, Prefix::host(last), device));
    }
    if loopback && address.address().is_loopback() {
        routes.push(made(local, RouteType::Local, subnet, device));
    } else if address.prefix.length() < 32 && !address.is_secondary() && usable {
        routes.push(Route {
            preferred_source: Some(address.address()),
            ..made(main, RouteType::Unicast, subnet, device)
        });
    }
}

/// Nothing refers to links that are not there, and no route prefers a source that is not an own
/// address.
pub(crate) fn remove_impossible(netns: &mut Netns) {
    let there: Vec<Ifindex> = netns.links.iter().map(|link| link.ifindex).collect();
    let own: Vec<IpAddr> = netns.addresses.iter().map(Address::address).collect();
    let exists = |ifindex: Option<Ifindex>| ifindex.filter(|ifindex| there.contains(ifindex));
    for route in &mut netns.routes {
        for nexthop in &mut route.nexthops {
            nexthop.ifindex = exists(nexthop.ifindex).or(Some(Ifindex(2)));
        }
        route.preferred_source = route.preferred_source.filter(|source| own.contains(source));
    }
    for socket in &mut netns.sockets {
        socket.device = exists(socket.device);
    }
}

/// A default route of each family.
pub(crate) fn default_routes(device: Ifindex) -> Vec<Route> {
    let with = |to: &str, gateway: &str, metric| {
        let mut route = made(TableId::MAIN, RouteType::Unicast, prefix_of(to), device);
        route.scope = Scope::UNIVERSE;
        route.metric = metric;
        route.nexthops[0].gateway = Some(address_of(gateway));
        route
    };
    vec![with("0.0.0.0/0", "10.0.0.254", 0), with("::/0", "fe80::fe", 1024)]
}

fn made(table: TableId, kind: RouteType, destination: Prefix, device: Ifindex) -> Route {
    let family = destination.family();
    Route {
        table,
        kind,
        destination,
        source: None,
        tos: 0,
        scope: match (family, kind) {
            (Family::Ipv6, _) => Scope::UNIVERSE,
            (Family::Ipv4, RouteType::Local) => Scope::HOST,
            (Family::Ipv4, _) => Scope::LINK,
        },
        protocol: RouteProtocol::KERNEL,
        metric: 0,
        preferred_source: None,
        preference: None,
        flags: 0,
        nexthops: vec![NextHop {
            ifindex: Some(device),
            gateway: None,
            weight: 1,
            flags: NextHopFlags::default(),
            encapsulated: false,
        }],
        nexthop_id: None,
        realm: None,
    }
}

/// The rules given among those every namespace starts with, sorted as the kernel keeps them.
pub(crate) fn with_default_rules(given: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        rules.push(lookup(family, 0, TableId::LOCAL));
        rules.push(lookup(family, 32766, TableId::MAIN));
        if family == Family::Ipv4 {
            rules.push(lookup(family, 32767, TableId::DEFAULT));
        }
    }
    if !given.is_empty() {
        rules.extend(
            Family::BOTH
                .map(|family| PolicyRule { l3mdev: true, ..lookup(family, 1000, TableId(0)) }),
        );
    }
    rules.extend(given);
    rules.sort_by_key(|rule| (rule.family, rule.priority));
    rules
}

fn lookup(family: Family, priority: u32, table: TableId) -> PolicyRule {
    PolicyRule::new(family, priority, PolicyAction::Lookup(table))
}
