//! The other namespaces of a machine, and which link leads to which of them.
//!
//! A namespace is resolved when a packet first gets there. Left out: links whose other end the
//! snapshot does not hold.

use std::cell::OnceCell;
use std::net::IpAddr;

use canreach_snapshot::{Ifindex, Link, LinkKind, Netns, Snapshot};

use crate::NetnsIndex;
use crate::host::Host;

/// The other namespaces.
#[derive(Debug, Default)]
pub(crate) struct Others<'a> {
    snapshot: Option<&'a Snapshot>,
    /// The position of the namespace that these are the others of.
    here: usize,
    hosts: Vec<OnceCell<Box<Host<'a>>>>,
}

/// Where what leaves by a link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leads {
    /// Off this machine, as far as can be told.
    Away,
    /// Perhaps to another namespace: which one is not known, or it was not read.
    Somewhere,
    /// In by this link of that namespace.
    To(NetnsIndex, Ifindex),
    /// To nobody: no namespace behind the bridge has the address.
    Nobody,
}

impl<'a> Others<'a> {
    pub(crate) const fn none() -> Self {
        Self { snapshot: None, here: 0, hosts: Vec::new() }
    }

    pub(crate) fn of(snapshot: &'a Snapshot, netns: &'a Netns) -> Self {
        let here = snapshot.namespaces.iter().position(|known| std::ptr::eq(known, netns));
        let here = here.unwrap_or(usize::MAX);
        let hosts = snapshot.namespaces.iter().map(|_| OnceCell::new()).collect();
        Self { snapshot: Some(snapshot), here, hosts }
    }

    /// The position of the namespace these are the others of.
    pub(crate) const fn here(&self) -> NetnsIndex {
        NetnsIndex(self.here)
    }

    /// One of them.
    pub(crate) fn host(&self, NetnsIndex(index): NetnsIndex) -> Option<&Host<'a>> {
        let snapshot = self.snapshot?;
        let netns = snapshot.namespaces.get(index)?;
        let host = || Box::new(Host::resolve_among(snapshot, netns));
        Some(self.hosts.get(index)?.get_or_init(host))
    }

    /// Where a packet to an address goes that leaves by a link. `next` is the router it is handed to,
    /// or the address itself. A namespace that is asked by itself, without others, leads away.
    pub(crate) fn leads(&self, host: &Host<'_>, link: Ifindex, next: IpAddr) -> Leads {
        let Some(link) = host.link(link).filter(|_| self.snapshot.is_some()) else {
            return Leads::Away;
        };
        match link.kind {
            LinkKind::Veth => self.veth(link),
            LinkKind::Bridge => self.bridge(host.netns(), link, next),
            LinkKind::Macvlan | LinkKind::Ipvlan => Leads::Somewhere,
            LinkKind::Loopback
            | LinkKind::Ethernet
            | LinkKind::Wifi
            | LinkKind::Tun
            | LinkKind::Wireguard
            | LinkKind::Vlan
            | LinkKind::Bond
            | LinkKind::Team
            | LinkKind::Vrf
            | LinkKind::Dummy
            | LinkKind::Ppp
            | LinkKind::Other(_) => Leads::Away,
        }
    }

    /// The other end of a veth: the one link whose own other end is this one.
    fn veth(&self, link: &Link) -> Leads {
        let (Some(snapshot), Some(lower)) = (self.snapshot, link.lower) else {
            return Leads::Somewhere;
        };
        let is_end = |other: &&Link| {
            other.ifindex == lower
                && other.kind == LinkKind::Veth
                && other.lower == Some(link.ifindex)
        };
        let mut ends = snapshot.namespaces.iter().enumerate().filter(|(index, netns)| {
            let elsewhere = link.lower_nsid.is_some() == (*index != self.here);
            elsewhere && netns.links.iter().any(|other| is_end(&other))
        });
        match (ends.next(), ends.next()) {
            (Some((index, _)), None) => Leads::To(NetnsIndex(index), lower),
            // Indices are used again in each namespace: which of these it is cannot be told.
            (Some(_), Some(_)) | (None, _) => Leads::Somewhere,
        }
    }

    /// Who behind a bridge has an address.
    fn bridge(&self, netns: &Netns, bridge: &Link, next: IpAddr) -> Leads {
        let ports = netns.links.iter().filter(|port| port.master == Some(bridge.ifindex));
        let (mut found, mut hidden, mut wired) = (Leads::Nobody, false, false);
        for port in ports {
            let leads = match port.kind {
                LinkKind::Veth => self.veth(port),
                LinkKind::Ethernet | LinkKind::Wifi | LinkKind::Bond => Leads::Away,
                // A virtual machine, or something else that was not read.
                LinkKind::Loopback
                | LinkKind::Bridge
                | LinkKind::Tun
                | LinkKind::Wireguard
                | LinkKind::Vlan
                | LinkKind::Macvlan
                | LinkKind::Ipvlan
                | LinkKind::Team
                | LinkKind::Vrf
                | LinkKind::Dummy
                | LinkKind::Ppp
                | LinkKind::Other(_) => Leads::Somewhere,
            };
            match leads {
                Leads::To(index, link) => {
                    let behind = self.snapshot.and_then(|all| all.namespaces.get(index.0));
                    let has = |netns: &Netns| {
                        let mut own = netns.addresses.iter();
                        own.any(|own| own.ifindex == link && own.address() == next)
                    };
                    if behind.is_some_and(has) {
                        if found != Leads::Nobody {
                            return Leads::Somewhere;
                        }
                        found = leads;
                    }
                }
                Leads::Away => wired = true,
                Leads::Somewhere | Leads::Nobody => hidden = true,
            }
        }
        if found == Leads::Nobody && hidden {
            Leads::Somewhere
        } else if found == Leads::Nobody && wired {
            Leads::Away
        } else {
            found
        }
    }
}
