//! What a host's lines say about who is on its links, worked out without the kernel and without the
//! model: which prefixes are on which link, which routers the host sends to, who is behind a port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{Family, Prefix, RouteType};

use crate::step::{LinkChange, LinkShape, Step};

/// The links of a host and what is configured on them, after all lines.
#[derive(Debug, Default)]
pub struct Wiring {
    shapes: BTreeMap<String, LinkShape>,
    masters: BTreeMap<String, String>,
    addresses: Vec<(String, Prefix)>,
    connected: Vec<(String, Prefix)>,
    gateways: Vec<(Option<String>, IpAddr)>,
    broadcasts: Vec<Prefix>,
    down: BTreeSet<String>,
    unplugged: BTreeSet<String>,
    without_ipv6: BTreeSet<String>,
}

impl Wiring {
    /// Reads the lines of a host.
    #[must_use]
    pub fn of(steps: &[Step]) -> Self {
        let mut wiring = Self::default();
        for step in steps {
            match step {
                Step::Link { name, shape } => {
                    wiring.shapes.insert(name.clone(), shape.clone());
                }
                Step::Set { name, change } => wiring.read_change(name, change),
                Step::Sysctl { name, value } => wiring.read_sysctl(name, value),
                Step::Address(address) if address.add => {
                    wiring.addresses.push((address.link.clone(), address.prefix));
                    if let Some(peer) = address.peer {
                        wiring.connected.push((address.link.clone(), Prefix::host(peer)));
                    }
                }
                Step::Address(address) => {
                    let gone = (address.link.clone(), address.prefix);
                    wiring.addresses.retain(|entry| *entry != gone);
                }
                Step::Route(route) if route.add && route.kind == RouteType::Unicast => {
                    for hop in &route.hops {
                        match (hop.gateway, &hop.link) {
                            (Some(gateway), link) => wiring.gateways.push((link.clone(), gateway)),
                            (None, Some(link)) => {
                                wiring.connected.push((link.clone(), route.destination.network()));
                            }
                            (None, None) => {}
                        }
                    }
                }
                Step::Route(route) if route.add && route.kind == RouteType::Broadcast => {
                    wiring.broadcasts.push(route.destination);
                }
                _ => {}
            }
        }
        wiring
    }

    fn read_change(&mut self, name: &str, change: &LinkChange) {
        let name = name.to_owned();
        match change {
            LinkChange::Master(master) => {
                self.masters.insert(name, master.clone());
            }
            LinkChange::Down => {
                // Routes go, and IPv6 addresses with them; IPv4 addresses stay
                // (net/ipv6/addrconf.c, addrconf_ifdown).
                self.connected.retain(|(link, _)| *link != name);
                self.forget_ipv6(&name);
                self.down.insert(name);
            }
            LinkChange::Up => {
                self.down.remove(&name);
            }
            LinkChange::Carrier(false) => {
                self.unplugged.insert(name);
            }
            LinkChange::Carrier(true) => {
                self.unplugged.remove(&name);
            }
            LinkChange::Group(_) | LinkChange::AddressGenerationNone => {}
        }
    }

    fn read_sysctl(&mut self, name: &str, value: &str) {
        let Some(set) = name.strip_prefix("net.ipv6.conf.") else { return };
        let Some(set) = set.strip_suffix(".disable_ipv6") else { return };
        let links: Vec<String> = self.shapes.keys().cloned().collect();
        for link in links.iter().filter(|link| set == "all" || *link == set) {
            if value == "0" {
                self.without_ipv6.remove(link);
            } else {
                self.forget_ipv6(link);
                self.without_ipv6.insert(link.clone());
            }
        }
    }

    fn forget_ipv6(&mut self, link: &str) {
        let gone =
            |(name, prefix): &(String, Prefix)| name == link && prefix.family() == Family::Ipv6;
        self.addresses.retain(|entry| !gone(entry));
        self.connected.retain(|entry| !gone(entry));
    }

    /// The link was set down: whoever looks for it on the wire gets no answer.
    #[must_use]
    pub fn is_down(&self, link: &str) -> bool {
        self.down.contains(link)
    }

    /// The cable is out: nobody on the other side can send anything.
    #[must_use]
    pub fn is_unplugged(&self, port: &str) -> bool {
        self.unplugged.contains(port)
    }

    /// What a link is made of; `None` for `lo` and for links that are not there.
    #[must_use]
    pub fn shape(&self, link: &str) -> Option<&LinkShape> {
        self.shapes.get(link)
    }

    /// The link where packets that come in by this one are received: its bridge, or itself.
    #[must_use]
    pub fn receiver<'a>(&'a self, link: &'a str) -> &'a str {
        let master = self.masters.get(link).map(String::as_str);
        master.filter(|master| self.shape(master) == Some(&LinkShape::Bridge)).unwrap_or(link)
    }

    /// The link whose hardware address this one has: its own, or that of the link below.
    #[must_use]
    pub fn hardware<'a>(&'a self, link: &'a str) -> &'a str {
        match self.shape(link) {
            Some(LinkShape::Ipvlan { lower } | LinkShape::Vlan { lower, .. }) => {
                self.hardware(lower)
            }
            Some(
                LinkShape::Veth { .. }
                | LinkShape::Bridge
                | LinkShape::Macvlan { .. }
                | LinkShape::Dummy
                | LinkShape::Vrf { .. }
                | LinkShape::Tun,
            )
            | None => link,
        }
    }

    /// Packets that come in by this link are received by the VRF it is in.
    #[must_use]
    pub fn is_in_vrf(&self, link: &str) -> bool {
        let master = self.masters.get(link).and_then(|master| self.shape(master));
        matches!(master, Some(LinkShape::Vrf { .. }))
    }

    /// The ends of veth pairs that packets for this link come in by, if their cables are in.
    #[must_use]
    pub fn ports(&self, link: &str) -> Vec<&str> {
        match self.shape(link) {
            Some(LinkShape::Veth { .. }) if self.is_unplugged(link) => Vec::new(),
            Some(LinkShape::Veth { .. }) => {
                self.shapes.get_key_value(link).map(|(name, _)| name.as_str()).into_iter().collect()
            }
            Some(LinkShape::Bridge) => {
                let members = self.masters.iter().filter(|(_, master)| *master == link);
                members.flat_map(|(name, _)| self.ports(name)).collect()
            }
            Some(
                LinkShape::Macvlan { lower }
                | LinkShape::Ipvlan { lower }
                | LinkShape::Vlan { lower, .. },
            ) => self.ports(lower),
            Some(LinkShape::Vrf { .. } | LinkShape::Dummy | LinkShape::Tun) | None => Vec::new(),
        }
    }

    /// Own addresses of a family.
    pub fn own_addresses(&self, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses
            .iter()
            .map(|(_, prefix)| prefix.address())
            .filter(move |address| Family::of(*address) == family)
    }

    /// The prefixes whose addresses are on a link: neighbours there resolve them. Longest first.
    #[must_use]
    pub fn on_link(&self, link: &str, family: Family) -> Vec<Prefix> {
        let own = self.addresses.iter().filter(|(name, _)| name == link);
        let own = own.map(|(_, prefix)| prefix.network());
        let own = own.filter(|prefix| prefix.length() < prefix.family().bits());
        let connected = self.connected.iter().filter(|(name, _)| name == link);
        let mut prefixes: Vec<Prefix> = own.chain(connected.map(|(_, prefix)| *prefix)).collect();
        let has_ipv6 = self.shapes.contains_key(link)
            && !self.is_down(link)
            && !self.without_ipv6.contains(link);
        if family == Family::Ipv6 && has_ipv6 {
            prefixes.extend("fe80::/64".parse::<Prefix>());
        }
        prefixes.retain(|prefix| prefix.family() == family);
        prefixes.sort_by_key(|prefix| (u8::MAX - prefix.length(), *prefix));
        prefixes.dedup();
        prefixes
    }

    /// The longest on-link prefix that holds an address.
    #[must_use]
    pub fn on_link_prefix(&self, link: &str, address: IpAddr) -> Option<Prefix> {
        let mut prefixes = self.on_link(link, Family::of(address)).into_iter();
        prefixes.find(|prefix| prefix.contains(address))
    }

    /// The address that a router in a prefix asks its neighbours with: the lowest that is free.
    #[must_use]
    pub fn router_address(&self, prefix: Prefix) -> Option<IpAddr> {
        let family = prefix.family();
        let own: Vec<u128> = self.own_addresses(family).map(address_value).collect();
        let (low, high) = prefix.range();
        // The network address of IPv4 is no host's; that of IPv6 is every router's (RFC 4291, 2.6.1).
        let first = if prefix.length() < family.bits() - 1 { low + 1 } else { low };
        let free = (first..=high).find(|value| !own.contains(value))?;
        Some(family.address(free))
    }

    /// The routers that the host sends to through a link.
    #[must_use]
    pub fn routers(&self, link: &str) -> Vec<IpAddr> {
        let on_link = |address: IpAddr| self.on_link_prefix(link, address).is_some();
        let uses = |(named, gateway): &(Option<String>, IpAddr)| match named {
            Some(named) => named == link,
            None => on_link(*gateway),
        };
        self.gateways.iter().filter(|entry| uses(entry)).map(|(_, gateway)| *gateway).collect()
    }

    /// The address with which a neighbour resolves what is dialled; `None` where it does not have
    /// to, because it sends through an address of the host that it knows.
    #[must_use]
    pub fn resolver(&self, link: &str, source: IpAddr, destination: IpAddr) -> Option<IpAddr> {
        let around = self.on_link(link, Family::of(destination));
        let mut around = around.into_iter().filter(|prefix| prefix.contains(destination));
        let longest = around.next()?;
        let together = longest.contains(source) || around.any(|prefix| prefix.contains(source));
        if together { Some(source) } else { self.router_address(longest) }
    }

    /// Whether an address stands for everybody somewhere: what is sent there may be copied.
    #[must_use]
    pub fn is_shared(&self, address: IpAddr) -> bool {
        let of_subnet = |prefix: &Prefix| {
            prefix.family() == Family::Ipv4
                && prefix.length() < 31
                && prefix.range().1 == address_value(address)
                && Family::of(address) == Family::Ipv4
        };
        address.is_multicast()
            || address == IpAddr::from([255; 4])
            || self.broadcasts.iter().any(|prefix| prefix.contains(address))
            || self.addresses.iter().any(|(_, prefix)| of_subnet(prefix))
    }

    /// Draws the host's links and who is on them.
    #[must_use]
    pub fn drawing(&self) -> String {
        let mut lines = vec!["host".to_owned()];
        let top = self.shapes.iter().filter(|(name, _)| !self.masters.contains_key(*name));
        for (name, shape) in top {
            lines.push(format!("├ {}", self.label(name, shape)));
            let members = self.masters.iter().filter(|(_, master)| *master == name);
            for (member, _) in members {
                if let Some(shape) = self.shape(member) {
                    lines.push(format!("│ ├ {}", self.label(member, shape)));
                }
            }
        }
        lines.push(format!("└ {}", self.label("lo", &LinkShape::Tun)));
        lines.join("\n")
    }

    fn label(&self, name: &str, shape: &LinkShape) -> String {
        let own = self.addresses.iter().filter(|(link, _)| link == name);
        let own: Vec<String> = own.map(|(_, prefix)| prefix.to_string()).collect();
        let made_of = match shape {
            LinkShape::Veth { peer } => format!(" ─── {peer}"),
            LinkShape::Macvlan { lower } => format!(" (macvlan of {lower})"),
            LinkShape::Ipvlan { lower } => format!(" (ipvlan of {lower})"),
            LinkShape::Dummy => " (dummy)".to_owned(),
            LinkShape::Vlan { id, lower } => format!(" (VLAN {id} of {lower})"),
            LinkShape::Vrf { table } => format!(" (VRF, table {table})"),
            LinkShape::Bridge => " (bridge)".to_owned(),
            LinkShape::Tun => String::new(),
        };
        format!("{name} {}{made_of}", own.join(" "))
    }
}
