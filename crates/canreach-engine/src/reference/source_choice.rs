//! The source address that the kernel gives to what starts here.
//!
//! Mirrors `inet_select_addr` (net/ipv4/devinet.c) and the first rules of `ipv6_dev_get_saddr`
//! (net/ipv6/addrconf.c): same address, scope, deprecated, outgoing link. Left out: the later rules
//! of RFC 6724 (home addresses, labels, privacy, ORCHID); addresses between which they would choose
//! are all given.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{Address, AddressFlags, Family, Ifindex, LinkSysctl, Prefix, Scope};

use super::route::is_link_local;
use super::walk::Walk;

impl Walk<'_> {
    /// `inet_select_addr`: the first primary address of the link in the gateway's subnet, or the first
    /// at all, or one of another link.
    pub(super) fn inet_select_addr(
        &self,
        device: Ifindex,
        gateway: Option<IpAddr>,
        scope: Scope,
    ) -> Option<IpAddr> {
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
            return Some(address.address());
        }
        let vrf = self.l3mdev_master(device);
        let of_link = |link: Ifindex| {
            addresses()
                .find(|address| {
                    address.ifindex == link
                        && address.scope != Scope::LINK
                        && address.scope <= scope
                })
                .map(Address::address)
        };
        vrf.and_then(of_link).or_else(|| {
            let mut links = self.netns.links.iter().map(|link| link.ifindex);
            links
                .find_map(|link| if self.l3mdev_master(link) == vrf { of_link(link) } else { None })
        })
    }

    /// What the kernel takes addresses of scope host for on a link. No doubt is worth the sysctl here.
    pub(super) fn widest_host_scope(&self, device: Ifindex) -> Scope {
        let allows = self.attempt(|walk| walk.link_sysctl(LinkSysctl::RouteLocalnet, device)) != 0;
        if allows { Scope::LINK } else { Scope::HOST }
    }

    /// `ipv6_dev_get_saddr`: the addresses that suit a destination best, seen from a link; in the
    /// order of the snapshot. None if this machine has no usable IPv6 address there.
    pub(super) fn ipv6_dev_get_saddr(
        &self,
        link: Option<Ifindex>,
        destination: IpAddr,
    ) -> Vec<IpAddr> {
        let vrf = link.and_then(|link| self.l3mdev_master(link));
        // A destination that means something on one link only is reached from that link's addresses.
        let narrow = link.is_some() && class(destination) != Class::Wide;
        let mut best: Option<(_, Vec<IpAddr>)> = None;
        for address in &self.netns.addresses {
            let elsewhere = link != Some(address.ifindex);
            let usable = address.prefix.family() == Family::Ipv6
                && !address.is_tentative()
                && self.l3mdev_master(address.ifindex) == vrf
                && !(narrow && elsewhere);
            if !usable {
                continue;
            }
            let own = address.address();
            let rank = (
                own != destination,
                class(own) != class(destination),
                address.flags.has(AddressFlags::DEPRECATED),
                elsewhere,
            );
            match &mut best {
                Some((held, addresses)) if *held == rank => addresses.push(own),
                Some((held, _)) if *held < rank => {}
                Some(_) | None => best = Some((rank, vec![own])),
            }
        }
        best.map(|(_, addresses)| addresses).unwrap_or_default()
    }

    /// Of addresses that suit equally, the one that shares most leading bits with the destination
    /// (rule 8), the first of equals.
    pub(super) fn nearest(&self, candidates: &[IpAddr], destination: IpAddr) -> Option<IpAddr> {
        let shared = |candidate: &IpAddr| {
            let own = self.netns.addresses.iter().find(|own| own.address() == *candidate);
            let differ = address_value(*candidate) ^ address_value(destination);
            differ.leading_zeros().min(own.map_or(0, |own| u32::from(own.prefix.length())))
        };
        let most = candidates.iter().map(shared).max()?;
        candidates.iter().copied().find(|candidate| shared(candidate) == most)
    }
}

/// How far an IPv6 address reaches, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Loopback,
    LinkLocal,
    Wide,
}

fn class(address: IpAddr) -> Class {
    if address.is_loopback() {
        Class::Loopback
    } else if is_link_local(address) {
        Class::LinkLocal
    } else {
        Class::Wide
    }
}
