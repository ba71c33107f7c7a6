//! Which of this machine's addresses to hand out, and why not the others (`ip`).
//!
//! "The first interface" is wrong, and "the source of the default route" is wrong under a VPN that
//! takes all traffic. So every address is judged: by what its link leads to ([`LinkRole`]), by its
//! own state, and by the routes. Not modelled: what a router outside does with the address.

use std::cmp::Reverse;
use std::net::IpAddr;

use canreach_snapshot::{
    Address, AddressFlags, Family, Ifindex, Link, Machine, Netns, NextHopFlags, RouteType,
    Virtualization,
};

use crate::link_role::{LinkRole, is_link_local, is_public, link_roles};

/// Every address of a namespace, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressChoice {
    /// All of them, those to hand out first.
    pub addresses: Vec<JudgedAddress>,
    /// The first of `addresses` is one to hand out.
    pub has_best: bool,
    /// A VPN that takes all traffic. It does not change what people nearby have to dial.
    pub full_tunnel: Option<Ifindex>,
    /// What this system runs inside: its address may be hidden behind that.
    pub inside: Option<Virtualization>,
}

/// One address, and who can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgedAddress {
    /// Its position in `Netns::addresses`.
    pub index: usize,
    /// Who can dial it.
    pub audience: AddressAudience,
    /// Why it is the one, or why it is not.
    pub why: ChoiceReason,
}

/// The widest circle of people who can dial an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressAudience {
    /// This computer itself.
    Itself,
    /// Containers and virtual machines on this computer.
    Containers,
    /// Devices in the same VPN.
    Vpn,
    /// People on the same network.
    Lan,
    /// Anyone whose packets a router lets come this far.
    Internet,
}

impl AddressAudience {
    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Itself => "self",
            Self::Containers => "containers",
            Self::Vpn => "vpn",
            Self::Lan => "lan",
            Self::Internet => "internet",
        }
    }
}

/// Why an address is the one to hand out, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChoiceReason {
    /// The one: on a network card that leads to a router.
    PhysicalDefaultRoute,
    /// The one: on a network card, in a network without a router.
    PhysicalSubnet,
    /// The one: no network card here, and this virtual link leads to a router.
    VirtualDefaultRoute,
    /// The one: no network card here, and this virtual link has a network.
    VirtualSubnet,
    /// Leads to another network than the one handed out.
    OtherNetwork,
    /// Another address on the network of the one handed out.
    SameNetwork,
    /// The same network over IPv6; IPv4 is easier to hand out.
    AlsoIpv6,
    /// Its link is the loopback.
    Loopback,
    /// Its link connects containers or virtual machines on this computer.
    Containers,
    /// Its link is a VPN or tunnel.
    Vpn,
    /// Nobody is behind its link.
    NobodyThere,
    /// Its link is switched off.
    LinkDown,
    /// Its link has no carrier.
    NoCarrier,
    /// IPv6: changes by itself.
    Temporary,
    /// About to be replaced.
    Deprecated,
    /// IPv6: still being checked for duplicates.
    Tentative,
    /// IPv6: another machine has it.
    Duplicate,
    /// Works on its own link only, and needs the link's name of the machine that dials.
    LinkLocal,
    /// IPv4 link-local: no router gave this machine an address.
    Autoconfigured,
}

impl ChoiceReason {
    /// Every one.
    pub const ALL: [Self; 19] = [
        Self::PhysicalDefaultRoute,
        Self::PhysicalSubnet,
        Self::VirtualDefaultRoute,
        Self::VirtualSubnet,
        Self::OtherNetwork,
        Self::SameNetwork,
        Self::AlsoIpv6,
        Self::Loopback,
        Self::Containers,
        Self::Vpn,
        Self::NobodyThere,
        Self::LinkDown,
        Self::NoCarrier,
        Self::Temporary,
        Self::Deprecated,
        Self::Tentative,
        Self::Duplicate,
        Self::LinkLocal,
        Self::Autoconfigured,
    ];

    /// The code of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::PhysicalDefaultRoute => "physical-default-route",
            Self::PhysicalSubnet => "physical-subnet",
            Self::VirtualDefaultRoute => "virtual-default-route",
            Self::VirtualSubnet => "virtual-subnet",
            Self::OtherNetwork => "other-network",
            Self::SameNetwork => "same-network",
            Self::AlsoIpv6 => "also-ipv6",
            Self::Loopback => "loopback",
            Self::Containers => "containers",
            Self::Vpn => "vpn",
            Self::NobodyThere => "nobody-there",
            Self::LinkDown => "link-down",
            Self::NoCarrier => "no-carrier",
            Self::Temporary => "temporary",
            Self::Deprecated => "deprecated",
            Self::Tentative => "tentative",
            Self::Duplicate => "duplicate",
            Self::LinkLocal => "link-local",
            Self::Autoconfigured => "autoconfigured",
        }
    }
}

impl AddressChoice {
    /// The address to hand out; `None` where nobody else could use any.
    #[must_use]
    pub fn best(&self) -> Option<&JudgedAddress> {
        self.addresses.first().filter(|_| self.has_best)
    }

    /// The first that people on a LAN can use, among those of a family and, if given, a link.
    #[must_use]
    pub fn best_of<'a>(
        &self,
        netns: &'a Netns,
        family: Family,
        link: Option<Ifindex>,
    ) -> Option<&'a Address> {
        self.addresses
            .iter()
            .filter(|judged| judged.why.is_usable() && self.has_best)
            .filter_map(|judged| netns.addresses.get(judged.index))
            .find(|address| {
                address.prefix.family() == family && link.is_none_or(|link| link == address.ifindex)
            })
    }
}

impl ChoiceReason {
    /// People on a LAN can use it.
    const fn is_usable(self) -> bool {
        match self {
            Self::PhysicalDefaultRoute
            | Self::PhysicalSubnet
            | Self::VirtualDefaultRoute
            | Self::VirtualSubnet
            | Self::OtherNetwork
            | Self::SameNetwork
            | Self::AlsoIpv6
            | Self::Temporary
            | Self::Deprecated
            | Self::Autoconfigured => true,
            Self::Loopback
            | Self::Containers
            | Self::Vpn
            | Self::NobodyThere
            | Self::LinkDown
            | Self::NoCarrier
            | Self::Tentative
            | Self::Duplicate
            | Self::LinkLocal => false,
        }
    }
}

/// Judges every address.
#[must_use]
pub fn choose(netns: &Netns, machine: &Machine) -> AddressChoice {
    let roles = link_roles(netns);
    let mut candidates: Vec<Candidate<'_>> = netns
        .addresses
        .iter()
        .enumerate()
        .filter_map(|(index, address)| {
            let position = netns.links.iter().position(|link| link.ifindex == address.ifindex)?;
            Some(Candidate::new(netns, index, address, &netns.links[position], roles[position]))
        })
        .collect();
    candidates.sort_by_key(|candidate| candidate.rank);
    let best =
        candidates.first().filter(|first| first.obstacle.is_none_or(ChoiceReason::is_usable));
    let best = best.map(|first| (first.index, first.link.ifindex, first.prefix_family()));
    let addresses = candidates.iter().map(|candidate| candidate.judge(best)).collect();
    AddressChoice {
        addresses,
        has_best: best.is_some(),
        full_tunnel: full_tunnel(netns, &roles),
        inside: machine.virtualization,
    }
}

/// Smaller is handed out first. The order of the fields is the order of what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Nobody on a LAN can use it.
    unusable: bool,
    /// 169.254.0.0/16: only where there is nothing else.
    autoconfigured: bool,
    family: Family,
    virtual_link: bool,
    /// Deprecated, then temporary: IPv6 only.
    fading: u8,
    /// 0: its subnet holds the default gateway; 1: its link leads to one; 2: none.
    gateway: u8,
    metric: u32,
    private: Reverse<bool>,
    wireless: bool,
    secondary: bool,
    /// Among those that are not handed out: the widest audience first.
    audience: Reverse<AddressAudience>,
    ifindex: Ifindex,
    index: usize,
}

struct Candidate<'a> {
    index: usize,
    address: &'a Address,
    link: &'a Link,
    role: LinkRole,
    audience: AddressAudience,
    /// What speaks against it.
    obstacle: Option<ChoiceReason>,
    has_gateway: bool,
    rank: Rank,
}

impl<'a> Candidate<'a> {
    fn new(
        netns: &Netns,
        index: usize,
        address: &'a Address,
        link: &'a Link,
        role: LinkRole,
    ) -> Self {
        let audience = audience(address.address(), role);
        let obstacle = obstacle(address, link, role);
        let (gateway, metric) = default_gateway(netns, address);
        let fading = match obstacle {
            Some(ChoiceReason::Temporary) => 1,
            Some(ChoiceReason::Deprecated) => 2,
            _ => 0,
        };
        let rank = Rank {
            unusable: obstacle.is_some_and(|reason| !reason.is_usable()),
            autoconfigured: obstacle == Some(ChoiceReason::Autoconfigured),
            family: address.prefix.family(),
            virtual_link: role != LinkRole::Lan || link.physical == Some(false),
            fading,
            gateway,
            metric,
            private: Reverse(!is_public(address.address())),
            wireless: link.wireless.is_some(),
            secondary: address.is_secondary(),
            audience: Reverse(audience),
            ifindex: address.ifindex,
            index,
        };
        Self { index, address, link, role, audience, obstacle, has_gateway: gateway < 2, rank }
    }

    const fn prefix_family(&self) -> Family {
        self.address.prefix.family()
    }

    fn judge(&self, best: Option<(usize, Ifindex, Family)>) -> JudgedAddress {
        let why = match (self.obstacle, best) {
            (None | Some(_), Some((index, ..))) if index == self.index => {
                match (self.role == LinkRole::Lan, self.has_gateway) {
                    (true, true) => ChoiceReason::PhysicalDefaultRoute,
                    (true, false) => ChoiceReason::PhysicalSubnet,
                    (false, true) => ChoiceReason::VirtualDefaultRoute,
                    (false, false) => ChoiceReason::VirtualSubnet,
                }
            }
            (Some(obstacle), _) => obstacle,
            (None, Some((_, link, family))) if link == self.link.ifindex => {
                if family == self.prefix_family() {
                    ChoiceReason::SameNetwork
                } else {
                    ChoiceReason::AlsoIpv6
                }
            }
            (None, _) => ChoiceReason::OtherNetwork,
        };
        JudgedAddress { index: self.index, audience: self.audience, why }
    }
}

fn audience(address: IpAddr, role: LinkRole) -> AddressAudience {
    match role {
        LinkRole::Loopback | LinkRole::Nobody => AddressAudience::Itself,
        LinkRole::Containers => AddressAudience::Containers,
        LinkRole::Vpn => AddressAudience::Vpn,
        LinkRole::Lan | LinkRole::VirtualLan | LinkRole::Member(_) => {
            if is_public(address) {
                AddressAudience::Internet
            } else {
                AddressAudience::Lan
            }
        }
    }
}

fn obstacle(address: &Address, link: &Link, role: LinkRole) -> Option<ChoiceReason> {
    let of_role = match role {
        LinkRole::Loopback => Some(ChoiceReason::Loopback),
        LinkRole::Nobody => Some(ChoiceReason::NobodyThere),
        LinkRole::Containers => Some(ChoiceReason::Containers),
        LinkRole::Vpn => Some(ChoiceReason::Vpn),
        LinkRole::Lan | LinkRole::VirtualLan | LinkRole::Member(_) => None,
    };
    let v4_link_local = address.prefix.family() == Family::Ipv4 && is_link_local(address.address());
    let conditions = [
        (of_role.is_some(), of_role),
        (address.address().is_loopback(), Some(ChoiceReason::Loopback)),
        (!link.is_up(), Some(ChoiceReason::LinkDown)),
        (!link.has_carrier(), Some(ChoiceReason::NoCarrier)),
        (address.flags.has(AddressFlags::DAD_FAILED), Some(ChoiceReason::Duplicate)),
        (address.is_tentative(), Some(ChoiceReason::Tentative)),
        (v4_link_local, Some(ChoiceReason::Autoconfigured)),
        (is_link_local(address.address()), Some(ChoiceReason::LinkLocal)),
        (address.flags.has(AddressFlags::DEPRECATED), Some(ChoiceReason::Deprecated)),
        (address.is_temporary(), Some(ChoiceReason::Temporary)),
    ];
    conditions.into_iter().find(|(holds, _)| *holds).and_then(|(_, reason)| reason)
}

/// Whether a default route leads through the address's link, and its metric. Every table counts: a
/// VPN that takes all traffic moves the ordinary default route to a table of its own.
fn default_gateway(netns: &Netns, address: &Address) -> (u8, u32) {
    let usable =
        |flags: NextHopFlags| !flags.has(NextHopFlags::DEAD) && !flags.has(NextHopFlags::LINK_DOWN);
    let of_link = netns.routes.iter().filter(|route| {
        route.kind == RouteType::Unicast
            && route.family() == address.prefix.family()
            && route.destination.length() == 0
    });
    let ranks = of_link.flat_map(|route| {
        route
            .nexthops
            .iter()
            .filter(|hop| hop.ifindex == Some(address.ifindex) && usable(hop.flags))
            .map(|hop| {
                // An IPv6 router is known by its link-local address, so its subnet says nothing.
                let inside = hop.gateway.is_some_and(|gateway| {
                    address.prefix.contains(gateway) || Family::of(gateway) == Family::Ipv6
                });
                (u8::from(!inside), route.metric)
            })
    });
    ranks.min().unwrap_or((2, 0))
}

/// A VPN link that every address is routed through: by a default route, or by two halves of one,
/// which is how VPN programs overrule the ordinary default route without removing it.
fn full_tunnel(netns: &Netns, roles: &[LinkRole]) -> Option<Ifindex> {
    let is_vpn =
        |ifindex: &Ifindex| {
            netns.links.iter().zip(roles).any(|(link, role)| {
                link.ifindex == *ifindex && *role == LinkRole::Vpn && link.is_up()
            })
        };
    netns
        .routes
        .iter()
        .filter(|route| route.kind == RouteType::Unicast && route.family() == Family::Ipv4)
        .filter(|route| route.destination.length() <= 1)
        .flat_map(|route| route.nexthops.iter().filter_map(|hop| hop.ifindex))
        .find(is_vpn)
}
