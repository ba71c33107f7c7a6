//! What a link is for: which of them lead to other people, and which to containers, VPNs or nowhere.
//!
//! Judged by what the link is made of, and by its name only where the kind says too little (a bridge
//! is a bridge, whether Docker or an administrator made it). Not modelled: what is behind a link of
//! a kind this file does not name; it counts as a network of its own.

use std::net::IpAddr;

use crate::AddressSet;
use canreach_snapshot::{Family, Ifindex, Link, LinkFlags, LinkKind, Netns, Prefix, RouteType};

/// Which other machines a link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkRole {
    /// A network other people are on, through a device of this machine.
    Lan,
    /// A virtual link with nothing better beside it: what a container or a test namespace has.
    VirtualLan,
    /// A program, a VPN or a tunnel is behind it.
    Vpn,
    /// Containers or virtual machines on this computer are behind it.
    Containers,
    /// This computer itself.
    Loopback,
    /// Part of another link, which has the addresses.
    Member(Ifindex),
    /// Nobody is behind it (dummy, VRF master).
    Nobody,
}

/// Stacked links (a VLAN of a bond of two cards) deeper than this are not followed.
const STACK_DEPTH_MAX: usize = 8;

/// Names that container engines and hypervisors give to their links.
const CONTAINER_NAMES: [&str; 13] = [
    "docker", "br-", "veth", "virbr", "vnet", "lxcbr", "lxdbr", "incusbr", "podman", "cni",
    "flannel", "cali", "kube",
];

/// Names that VPN programs give to links whose kind does not show them.
const VPN_NAMES: [&str; 6] = ["tun", "wg", "tailscale", "zt", "nordlynx", "utun"];

/// The role of each link of a namespace, in the order of `Netns::links`.
#[must_use]
pub fn link_roles(netns: &Netns) -> Vec<LinkRole> {
    let mut roles: Vec<LinkRole> = netns.links.iter().map(|link| role(netns, link, 0)).collect();
    // A container's only way out is a veth. It is nobody's LAN on a machine that has a network card,
    // even while that card is unplugged.
    if !roles.contains(&LinkRole::Lan) {
        for (link, role) in netns.links.iter().zip(&mut roles) {
            let engine_made = link.kind == LinkKind::Bridge && has_name_of(link, &CONTAINER_NAMES);
            if *role == LinkRole::Containers && !engine_made {
                *role = LinkRole::VirtualLan;
            }
        }
    }
    roles
}

/// The links whose networks `--from lan` stands for.
#[must_use]
pub fn lan_links(netns: &Netns) -> Vec<Ifindex> {
    let roles = link_roles(netns);
    let with_roles = netns.links.iter().zip(roles);
    with_roles
        .filter(|(_, role)| matches!(role, LinkRole::Lan | LinkRole::VirtualLan))
        .map(|(link, _)| link.ifindex)
        .collect()
}

/// The link that packets arrive at: a port of a bridge, bond or team hands them to its master.
#[must_use]
pub fn receiving_link(netns: &Netns, ifindex: Ifindex) -> Ifindex {
    let mut current = ifindex;
    for _ in 0..STACK_DEPTH_MAX {
        match netns.link(current).and_then(|link| aggregate_of(netns, link)) {
            Some(master) => current = master,
            None => break,
        }
    }
    current
}

/// The prefixes whose addresses neighbours on a link have: its connected networks, host bits clear,
/// sorted, none inside another.
#[must_use]
pub fn link_networks(netns: &Netns, ifindex: Ifindex, family: Family) -> Vec<Prefix> {
    let of_addresses =
        netns.addresses.iter().filter(|address| address.ifindex == ifindex).map(|address| {
            match address.peer {
                Some(peer) => Prefix::host(peer),
                None => address.prefix.network(),
            }
        });
    let of_routes = netns.routes.iter().filter(|route| {
        is_connected(route)
            && route.nexthops.iter().any(|hop| hop.ifindex == Some(ifindex))
            && (family == Family::Ipv6 || route.scope == canreach_snapshot::Scope::LINK)
    });
    let own = |prefix: &Prefix| {
        let is_own =
            |address: &canreach_snapshot::Address| *prefix == Prefix::host(address.address());
        netns.addresses.iter().any(is_own)
    };
    let mut prefixes: Vec<Prefix> = of_addresses
        .chain(of_routes.map(|route| route.destination))
        .filter(|prefix| prefix.family() == family && !own(prefix))
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let all = prefixes.clone();
    prefixes.retain(|prefix| !all.iter().any(|wider| wider != prefix && wider.covers(*prefix)));
    prefixes
}

/// Every address that a neighbour on some link has: what is outside is behind routers.
#[must_use]
pub fn connected_networks(netns: &Netns, family: Family) -> AddressSet {
    let loopback = |ifindex: Ifindex| ifindex == canreach_snapshot::link::LOOPBACK_IFINDEX;
    let of_addresses = netns
        .addresses
        .iter()
        .filter(|address| !loopback(address.ifindex))
        .map(|address| address.peer.map_or_else(|| address.prefix.network(), Prefix::host));
    let of_routes = netns.routes.iter().filter(|route| {
        is_connected(route)
            && (family == Family::Ipv6 || route.scope == canreach_snapshot::Scope::LINK)
            && !route.nexthops.iter().any(|hop| hop.ifindex.is_some_and(loopback))
    });
    let networks = of_addresses.chain(of_routes.map(|route| route.destination));
    AddressSet::from_prefixes(family, networks)
}

/// A route to neighbours, not to a router.
fn is_connected(route: &canreach_snapshot::Route) -> bool {
    route.kind == RouteType::Unicast
        && route.nexthops.iter().all(|hop| hop.gateway.is_none())
        && route.destination.length() > 0
        && !route.destination.address().is_multicast()
}

/// fe80::/10: has a meaning on its own link only.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Not private, not shared, not link-local: an address that the whole internet could route to.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            // 100.64.0.0/10: shared by a provider's customers behind its NAT (RFC 6598).
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_private()
                || shared
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unique_local()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast())
        }
    }
}

fn role(netns: &Netns, link: &Link, depth: usize) -> LinkRole {
    if link.is_loopback() {
        return LinkRole::Loopback;
    }
    if let Some(master) = aggregate_of(netns, link) {
        return LinkRole::Member(master);
    }
    let below = || match link.lower.filter(|_| link.lower_nsid.is_none()) {
        // The link below is in another namespace: an address of its own on that network.
        None => LinkRole::Lan,
        Some(lower) => match netns.link(lower).filter(|_| depth < STACK_DEPTH_MAX) {
            Some(lower) => {
                let below = role(netns, lower, depth + 1);
                // A VLAN of a card that is also a bridge's port leads where the card leads.
                if matches!(below, LinkRole::Member(_)) { LinkRole::Lan } else { below }
            }
            None => LinkRole::Lan,
        },
    };
    let by_device = || {
        if link.flags.has(LinkFlags::POINT_TO_POINT) || has_name_of(link, &VPN_NAMES) {
            LinkRole::Vpn
        } else if link.physical == Some(false) && has_name_of(link, &CONTAINER_NAMES) {
            LinkRole::Containers
        } else {
            LinkRole::Lan
        }
    };
    match &link.kind {
        LinkKind::Loopback => LinkRole::Loopback,
        LinkKind::Ethernet | LinkKind::Wifi if link.physical == Some(true) => LinkRole::Lan,
        LinkKind::Ethernet | LinkKind::Wifi => by_device(),
        LinkKind::Bridge if has_device_port(netns, link, depth) => LinkRole::Lan,
        LinkKind::Bridge | LinkKind::Veth => LinkRole::Containers,
        LinkKind::Tun | LinkKind::Wireguard | LinkKind::Ppp => LinkRole::Vpn,
        LinkKind::Vlan | LinkKind::Macvlan | LinkKind::Ipvlan => below(),
        LinkKind::Bond | LinkKind::Team => LinkRole::Lan,
        LinkKind::Vrf | LinkKind::Dummy => LinkRole::Nobody,
        LinkKind::Other(kind) => match kind.as_str() {
            "macvtap" | "ipvtap" => below(),
            "netkit" | "vxlan" | "geneve" | "openvswitch" => LinkRole::Containers,
            "gre" | "gretap" | "ip6gre" | "ipip" | "ip6tnl" | "sit" | "vti" | "vti6" | "xfrm" => {
                LinkRole::Vpn
            }
            "ifb" | "nlmon" => LinkRole::Nobody,
            _ => by_device(),
        },
    }
}

/// The bridge, bond or team that takes this link's packets. A VRF does not: they stay the link's.
fn aggregate_of(netns: &Netns, link: &Link) -> Option<Ifindex> {
    let master = netns.link(link.master?)?;
    matches!(master.kind, LinkKind::Bridge | LinkKind::Bond | LinkKind::Team)
        .then_some(master.ifindex)
}

/// A bridge with a network card as a port is the machine's LAN link; one with virtual ports alone
/// connects what runs inside the machine.
fn has_device_port(netns: &Netns, bridge: &Link, depth: usize) -> bool {
    depth < STACK_DEPTH_MAX
        && netns.links.iter().any(|port| {
            port.master == Some(bridge.ifindex)
                && match &port.kind {
                    LinkKind::Ethernet | LinkKind::Wifi => port.physical != Some(false),
                    LinkKind::Bond | LinkKind::Team => true,
                    LinkKind::Vlan => port
                        .lower
                        .and_then(|lower| netns.link(lower))
                        .is_some_and(|lower| lower.physical == Some(true)),
                    LinkKind::Loopback
                    | LinkKind::Bridge
                    | LinkKind::Veth
                    | LinkKind::Tun
                    | LinkKind::Wireguard
                    | LinkKind::Macvlan
                    | LinkKind::Ipvlan
                    | LinkKind::Vrf
                    | LinkKind::Dummy
                    | LinkKind::Ppp
                    | LinkKind::Other(_) => false,
                }
        })
}

fn has_name_of(link: &Link, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| link.name.starts_with(prefix))
}
