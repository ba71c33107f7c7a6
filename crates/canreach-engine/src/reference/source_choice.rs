//! The source address that the kernel gives to what starts here.
//!
//! Mirrors `inet_select_addr` (net/ipv4/devinet.c) and `ipv6_dev_get_saddr` (net/ipv6/addrconf.c).
//! Left out: tables of labels other than the one a machine starts with, home addresses, preferences of
//! sockets, `use_optimistic`. In which order links were made is not known: addresses between which it
//! would choose are all given.

use std::net::{IpAddr, Ipv6Addr};

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Address, AddressFlags, Family, Ifindex, LinkSysctl, Prefix, Scope};

use super::walk::Walk;

impl Walk<'_> {
    /// `inet_select_addr`: the first primary address of the link in the gateway's subnet, or the first
    /// at all; without one there, the first of any of the other links.
    pub(super) fn inet_select_addr(
        &self,
        device: Ifindex,
        gateway: Option<IpAddr>,
        scope: Scope,
    ) -> Vec<IpAddr> {
        let local_scope = self.widest_host_scope(device);
        let gateway = gateway.filter(|gateway| Family::of(*gateway) == Family::Ipv4);
        let primary =
            |address: &&Address| address.prefix.family() == Family::Ipv4 && !address.is_secondary();
        let addresses = || self.netns.addresses.iter().filter(primary);
        let mut suitable = addresses()
            .filter(|address| address.ifindex == device && address.scope.min(local_scope) <= scope);
        let beside = |address: &&Address| {
            gateway.is_none_or(|gateway| {
                let other_end = address.peer.unwrap_or_else(|| address.address());
                let subnet = Prefix::new(other_end, address.prefix.length());
                subnet.is_some_and(|subnet| subnet.contains(gateway))
            })
        };
        let chosen = suitable.clone().find(beside).or_else(|| suitable.next());
        if let Some(address) = chosen {
            return vec![address.address()];
        }
        let of_link = |link: Ifindex| {
            addresses()
                .find(|address| {
                    address.ifindex == link
                        && address.scope != Scope::LINK
                        && address.scope <= scope
                })
                .map(Address::address)
        };
        let vrf = self.l3mdev_master(device);
        // The loopback link is always the first of all.
        let first = if vrf.is_some() { vrf } else { Some(LOOPBACK_IFINDEX) };
        if let Some(address) = first.and_then(of_link) {
            return vec![address];
        }
        let links = self.netns.links.iter().map(|link| link.ifindex);
        links.filter(|link| self.l3mdev_master(*link) == vrf).filter_map(of_link).collect()
    }

    /// What the kernel takes addresses of scope host for on a link. No doubt is worth the sysctl here.
    pub(super) fn widest_host_scope(&self, device: Ifindex) -> Scope {
        let allows = self.attempt(|walk| walk.link_sysctl(LinkSysctl::RouteLocalnet, device)) != 0;
        if allows { Scope::LINK } else { Scope::HOST }
    }

    /// `ipv6_dev_get_saddr`: the address that suits a destination best, seen from a link. Several where
    /// links tie, as their order is not known; none if this machine has no usable IPv6 address there.
    pub(super) fn ipv6_dev_get_saddr(
        &self,
        link: Option<Ifindex>,
        destination: IpAddr,
    ) -> Vec<IpAddr> {
        let IpAddr::V6(to) = destination else { return Vec::new() };
        let vrf = link.and_then(|link| self.l3mdev_master(link));
        // A destination that means something on one link only is reached from that link's addresses.
        let narrow = link.is_some_and(|link| {
            source_scope(to) <= 2 || self.sysctl_of(LinkSysctl::V6UseOifAddrsOnly, link) != 0
        });
        let mut best: Vec<(Score, &Address)> = Vec::new();
        for address in &self.netns.addresses {
            let IpAddr::V6(own) = address.address() else { continue };
            let elsewhere = link.is_some_and(|link| link != address.ifindex);
            let usable = !address.is_tentative()
                && self.l3mdev_master(address.ifindex) == vrf
                && !(narrow && elsewhere);
            if !usable {
                continue;
            }
            let score = self.saddr_score(own, address, to, elsewhere);
            let held = best.first().map(|(held, _)| *held);
            if held.is_none_or(|held| score > held) {
                best = vec![(score, address)];
            } else if held == Some(score)
                && best.iter().all(|(_, other)| other.ifindex != address.ifindex)
            {
                best.push((score, address));
            }
        }
        let mut chosen: Vec<IpAddr> = best.iter().map(|(_, best)| best.address()).collect();
        chosen.dedup();
        chosen
    }

    /// `ipv6_get_saddr_eval`, rule by rule; the larger wins.
    fn saddr_score(
        &self,
        own: Ipv6Addr,
        address: &Address,
        to: Ipv6Addr,
        elsewhere: bool,
    ) -> Score {
        let flag = |flag| address.flags.has(flag);
        let (scope, wanted) = (i32::from(source_scope(own)), i32::from(source_scope(to)));
        let octets = own.octets();
        let always_preferred =
            octets[..10] == [0; 10] && matches!(octets[10..12], [0, 0] | [0xff, 0xff]);
        let temporary = flag(AddressFlags::TEMPORARY_OR_SECONDARY);
        let wants_temporary = self.sysctl_of(LinkSysctl::V6UseTempaddr, address.ifindex) >= 2;
        let mut common = 0;
        for (own, to) in octets.into_iter().zip(to.octets()) {
            common += (own ^ to).leading_zeros();
            if own != to {
                break;
            }
        }
        (
            own == to,
            if scope >= wanted { -scope } else { scope - 128 },
            always_preferred || !(flag(AddressFlags::DEPRECATED) || flag(AddressFlags::OPTIMISTIC)),
            !elsewhere,
            label(own) == label(to),
            temporary == wants_temporary,
            (label(own) == ORCHID_LABEL) == (label(to) == ORCHID_LABEL),
            common.min(u32::from(address.prefix.length())),
        )
    }

    fn sysctl_of(&self, sysctl: LinkSysctl, link: Ifindex) -> i64 {
        self.attempt(|walk| walk.link_sysctl(sysctl, link))
    }
}

/// Same address, scope, not deprecated, outgoing link, label, privacy, ORCHID, common prefix.
type Score = (bool, i32, bool, bool, bool, bool, bool, u32);

/// `__ipv6_addr_src_scope`: link-local (the loopback address too), site-local, global.
const fn source_scope(address: Ipv6Addr) -> u8 {
    match address.segments()[0] & 0xffc0 {
        0xfe80 => 2,
        0xfec0 => 5,
        _ if address.is_loopback() => 2,
        _ => 14,
    }
}

const ORCHID_LABEL: u32 = 7;

/// `ipv6_addr_label` with the table a machine starts with; the longest prefix counts.
fn label(address: Ipv6Addr) -> u32 {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => 0,
        [0, 0, 0, 0, 0, 0, ..] => 3,
        [0, 0, 0, 0, 0, 0xffff, ..] => 4,
        [0x2001, second, ..] if second & 0xfff0 == 0x10 => ORCHID_LABEL,
        [0x2001, 0, ..] => 6,
        [0x3ffe, ..] => 12,
        [0x2002, ..] => 2,
        [first, ..] if first & 0xffc0 == 0xfec0 => 11,
        [first, ..] if first & 0xfe00 == 0xfc00 => 5,
        _ => 1,
    }
}
