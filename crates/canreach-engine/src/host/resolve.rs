//! [`Host`]: a namespace with everything the walk looks up, sorted once.
//!
//! Resolving takes time in proportion to the namespace, whatever is asked later. It never fails: what
//! is missing becomes a doubt at the stage that misses it. Left out: judging anything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{
    Combinator, Family, FibLayout, GapReason, GapSubject, GlobalSysctl, Ifindex, Link, LinkKind,
    LinkSysctl, Netns, PolicyRule, Prefix, RouteType, Scope, Snapshot, TableId,
};

use crate::host::fib::Fib;
use crate::host::others::Others;
use crate::host::ruleset::Rules;
use crate::host::sockets::SocketTable;
use crate::packet::diagram::FixedMap;
use crate::path::group::never_sources;
use crate::{AddressSet, UnknownReason};

/// A namespace, ready to be asked.
#[derive(Debug)]
pub struct Host<'a> {
    netns: &'a Netns,
    links: FixedMap<Ifindex, usize>,
    names: BTreeMap<&'a str, usize>,
    addresses: FixedMap<Ifindex, Vec<usize>>,
    own: [Vec<(u128, usize)>; 2],
    on_link: FixedMap<Ifindex, Vec<Prefix>>,
    fibs: [Fib; 2],
    rules: [Vec<(usize, &'a PolicyRule)>; 2],
    sockets: SocketTable,
    ruleset: Rules<'a>,
    unsendable: [AddressSet; 2],
    sysctl_gaps: BTreeMap<&'a str, usize>,
    others: Others<'a>,
}

/// The value of a sysctl, with the gap that hides it if it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The effective value; 0, the kernel's own default for each of them, where it was not read.
    pub value: i64,
    /// The position of the gap in `Netns::gaps`.
    pub gap: Option<usize>,
}

impl Setting {
    /// Switched on.
    #[must_use]
    pub const fn is_set(self) -> bool {
        self.value != 0
    }
}

const fn slot(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

impl<'a> Host<'a> {
    /// Indexes a namespace. Never fails: what is missing makes answers unknown.
    #[must_use]
    pub fn resolve(netns: &'a Netns) -> Self {
        let mut links = FixedMap::default();
        let mut names = BTreeMap::new();
        for (index, link) in netns.links.iter().enumerate() {
            // A file may name one link twice; the first counts, as for `Netns::link`.
            links.entry(link.ifindex).or_insert(index);
            names.entry(link.name.as_str()).or_insert(index);
        }
        let mut addresses: FixedMap<Ifindex, Vec<usize>> = FixedMap::default();
        let mut own = [Vec::new(), Vec::new()];
        for (index, address) in netns.addresses.iter().enumerate() {
            addresses.entry(address.ifindex).or_default().push(index);
            let family = address.prefix.family();
            own[slot(family)].push((address_value(address.address()), index));
        }
        for list in &mut own {
            list.sort_unstable();
        }
        let mut rules = [Vec::new(), Vec::new()];
        for (index, rule) in netns.policy_rules.iter().enumerate() {
            rules[slot(rule.family)].push((index, rule));
        }
        for list in &mut rules {
            // The kernel keeps them so; a stable sort keeps the order of equals.
            list.sort_by_key(|(_, rule)| rule.priority);
        }
        let sysctl_gaps = netns.gaps.iter().enumerate().filter_map(|(index, gap)| {
            if let GapSubject::Sysctl(name) = &gap.subject {
                Some((name.as_str(), index))
            } else {
                None
            }
        });
        Self {
            netns,
            links,
            names,
            addresses,
            own,
            on_link: on_link_prefixes(netns),
            fibs: Family::BOTH.map(|family| Fib::new(netns, family)),
            rules,
            sockets: SocketTable::new(netns),
            ruleset: Rules::new(netns),
            unsendable: Family::BOTH.map(|family| unsendable(netns, family)),
            sysctl_gaps: sysctl_gaps.collect(),
            others: Others::none(),
        }
    }

    /// The same, among the other namespaces of its machine, which packets may be sent on to.
    #[must_use]
    pub fn resolve_among(snapshot: &'a Snapshot, netns: &'a Netns) -> Self {
        Self { others: Others::of(snapshot, netns), ..Self::resolve(netns) }
    }

    /// The other namespaces of its machine.
    pub(crate) const fn others(&self) -> &Others<'a> {
        &self.others
    }

    /// What was resolved.
    #[must_use]
    pub const fn netns(&self) -> &'a Netns {
        self.netns
    }

    /// The link with this index.
    #[must_use]
    pub fn link(&self, ifindex: Ifindex) -> Option<&'a Link> {
        self.links.get(&ifindex).map(|index| &self.netns.links[*index])
    }

    /// The link with this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&'a Link> {
        self.names.get(name).map(|index| &self.netns.links[*index])
    }

    /// The bridge, bond or team that receives what comes in by this link; the link itself otherwise.
    #[must_use]
    pub fn receiving_link(&self, ifindex: Ifindex) -> Option<&'a Link> {
        let mut link = self.link(ifindex)?;
        // A bond may be a port of a bridge. Masters cannot form a ring in the kernel; a file could
        // say so, hence the bound.
        for _ in 0..MAX_MASTERS {
            let master = link.master.and_then(|master| self.link(master));
            match master {
                Some(master)
                    if matches!(
                        master.kind,
                        LinkKind::Bridge | LinkKind::Bond | LinkKind::Team
                    ) =>
                {
                    link = master;
                }
                Some(_) | None => break,
            }
        }
        Some(link)
    }

    /// The VRF a link belongs to, or is.
    #[must_use]
    pub fn vrf_of(&self, link: &Link) -> Option<(Ifindex, TableId)> {
        let is_vrf = |link: &Link| link.kind == LinkKind::Vrf;
        let vrf = if is_vrf(link) {
            Some(link)
        } else {
            link.master.and_then(|master| self.link(master)).filter(|master| is_vrf(master))
        };
        vrf.and_then(|vrf| vrf.vrf_table.map(|table| (vrf.ifindex, table)))
    }

    /// Positions in `Netns::addresses` of a link's addresses, in the kernel's order.
    #[must_use]
    pub fn addresses_of(&self, ifindex: Ifindex) -> &[usize] {
        self.addresses.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    /// Positions in `Netns::addresses` of every entry with this address.
    pub fn entries_of(&self, address: IpAddr) -> impl Iterator<Item = usize> + '_ {
        let list = &self.own[slot(Family::of(address))];
        let value = address_value(address);
        let start = list.partition_point(|(known, _)| *known < value);
        list[start..].iter().take_while(move |(known, _)| *known == value).map(|(_, index)| *index)
    }

    /// Every address of this machine, of one family.
    #[must_use]
    pub fn own_addresses(&self, family: Family) -> AddressSet {
        let list = &self.own[slot(family)];
        AddressSet::from_ranges(family, list.iter().map(|(value, _)| (*value, *value)))
    }

    /// Addresses that no neighbour can send from: own ones, broadcasts, invalid ones.
    #[must_use]
    pub const fn unsendable(&self, family: Family) -> &AddressSet {
        &self.unsendable[slot(family)]
    }

    /// Prefixes whose members are neighbours on a link, of both families.
    #[must_use]
    pub fn on_link(&self, ifindex: Ifindex) -> &[Prefix] {
        self.on_link.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    /// The routes of one family.
    #[must_use]
    pub const fn fib(&self, family: Family) -> &Fib {
        &self.fibs[slot(family)]
    }

    /// The policy rules of one family with their positions in `Netns::policy_rules`, in order.
    #[must_use]
    pub fn rules(&self, family: Family) -> &[(usize, &'a PolicyRule)] {
        &self.rules[slot(family)]
    }

    /// The sockets, by protocol and port.
    #[must_use]
    pub const fn sockets(&self) -> &SocketTable {
        &self.sockets
    }

    /// Packet filter rules, as hooks meet them.
    pub(crate) const fn ruleset(&self) -> &Rules<'a> {
        &self.ruleset
    }

    /// Whether IPv4 walks policy rules: `None` where that could not be read.
    #[must_use]
    pub const fn is_split(&self) -> Option<bool> {
        match self.netns.fib_layout {
            FibLayout::Merged => Some(false),
            FibLayout::Split => Some(true),
            FibLayout::Unknown => None,
        }
    }

    /// The effective value of a link's sysctl.
    #[must_use]
    pub fn link_sysctl(&self, sysctl: LinkSysctl, link: &Link) -> Setting {
        let own = self.netns.sysctls.of_link(sysctl, &link.name);
        let all = self.netns.sysctls.all.get(&sysctl).copied();
        let (own_value, all_value) = (own.unwrap_or(0), all.unwrap_or(0));
        let flag = i64::from;
        let value = match sysctl.combinator() {
            Combinator::Max => own_value.max(all_value),
            Combinator::Or => flag(own_value != 0 || all_value != 0),
            Combinator::And => flag(own_value != 0 && all_value != 0),
            Combinator::Link => own_value,
        };
        let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
        let gap = |who: &str| {
            let name = format!("net.{family}.conf.{who}.{}", sysctl.name());
            self.sysctl_gaps.get(name.as_str()).copied()
        };
        let needs_all = sysctl.combinator() != Combinator::Link;
        let of_all = || if needs_all { gap("all") } else { None };
        let known = self.sysctl_gaps.is_empty();
        let gap = if known { None } else { gap(&link.name).or_else(of_all) };
        Setting { value, gap }
    }

    /// The value of `net.*.conf.all`.
    #[must_use]
    pub fn sysctl_of_all(&self, sysctl: LinkSysctl) -> Setting {
        let value = self.netns.sysctls.all.get(&sysctl).copied();
        let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
        let name = format!("net.{family}.conf.all.{}", sysctl.name());
        let gap = self.sysctl_gaps.get(name.as_str()).copied();
        Setting { value: value.unwrap_or(0), gap }
    }

    /// A sysctl that the namespace has once.
    #[must_use]
    pub fn sysctl(&self, sysctl: GlobalSysctl) -> Setting {
        let value = self.netns.sysctls.global.get(&sysctl).copied();
        let gap = self.sysctl_gaps.get(sysctl.name()).copied();
        Setting { value: value.unwrap_or(0), gap }
    }

    /// Why a gap makes an answer unknown.
    #[must_use]
    pub fn gap_reason(&self, gap: usize) -> UnknownReason {
        self.netns.gaps.get(gap).map_or(UnknownReason::Unread, |gap| match gap.reason {
            GapReason::NeedsRoot => UnknownReason::NeedsRoot,
            GapReason::ChangedWhileReading => UnknownReason::ChangedWhileReading,
            GapReason::Unsupported
            | GapReason::Vanished
            | GapReason::Malformed
            | GapReason::Failed
            | GapReason::NotRead => UnknownReason::Unread,
        })
    }
}

fn unsendable(netns: &Netns, family: Family) -> AddressSet {
    let own = netns.addresses.iter().map(|address| Prefix::host(address.address()));
    let broadcasts = netns.routes.iter().filter(|route| route.kind == RouteType::Broadcast);
    let prefixes = own.chain(broadcasts.map(|route| route.destination));
    let ranges = prefixes.filter(|prefix| prefix.family() == family).map(Prefix::range);
    AddressSet::from_ranges(family, ranges.chain(never_sources(family).iter().copied()))
}

/// The most links on top of each other.
const MAX_MASTERS: usize = 8;

/// For each link, the prefixes whose members resolve each other on it: those of its addresses, and
/// those of routes that lead to it without a router.
fn on_link_prefixes(netns: &Netns) -> FixedMap<Ifindex, Vec<Prefix>> {
    let mut prefixes: FixedMap<Ifindex, Vec<Prefix>> = FixedMap::default();
    for address in &netns.addresses {
        let list = prefixes.entry(address.ifindex).or_default();
        if address.prefix.length() < address.prefix.family().bits() {
            list.push(address.prefix.network());
        }
        let is_link_local =
            matches!(address.address(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        list.extend(is_link_local.then(link_local_prefix));
    }
    for route in &netns.routes {
        let near = route.family() == Family::Ipv6 || route.scope == Scope::LINK;
        if route.kind != RouteType::Unicast || !near {
            continue;
        }
        for nexthop in route.nexthops.iter().filter(|nexthop| nexthop.gateway.is_none()) {
            if let Some(link) = nexthop.ifindex {
                prefixes.entry(link).or_default().push(route.destination);
            }
        }
    }
    for list in prefixes.values_mut() {
        list.sort_unstable();
        list.dedup();
    }
    prefixes
}

fn link_local_prefix() -> Prefix {
    let address = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
    Prefix::new(address, 64).expect("64 is no more than 128")
}
