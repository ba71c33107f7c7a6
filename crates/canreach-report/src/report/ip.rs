//! `ip`: which address to hand out, and every interface.

use std::net::IpAddr;

use canreach_engine::address_choice::{AddressAudience, ChoiceReason, JudgedAddress, choose};
use canreach_engine::link_role::{LinkRole, link_roles};
use canreach_snapshot::{Link, LinkKind, Netns, OperState, Snapshot, Virtualization};

use crate::report::subject::link_name;
use crate::report::unknown::{self, UnknownThing};

/// Every address, judged, and every link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpReport {
    /// The addresses, the one to hand out first.
    pub addresses: Vec<AddressEntry>,
    /// Whether the first is one to hand out.
    pub has_best: bool,
    /// Every link.
    pub links: Vec<LinkEntry>,
    /// The name of a VPN link that takes all traffic.
    pub full_tunnel: Option<String>,
    /// What this system runs inside.
    pub inside: Option<Virtualization>,
    /// What is not known.
    pub unknown: Vec<UnknownThing>,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressEntry {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix: u8,
    /// Its link.
    pub link: String,
    /// What the link is made of.
    pub kind: &'static str,
    /// The name of the Wi-Fi network it is joined to.
    pub ssid: Option<String>,
    /// Who can dial it.
    pub audience: AddressAudience,
    /// Why it is the one, or why not.
    pub why: ChoiceReason,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEntry {
    /// Its name.
    pub name: String,
    /// What it is made of, in the words of the JSON.
    pub kind: &'static str,
    /// The kernel's own word for that.
    pub kernel_kind: String,
    /// A device of this machine is behind it.
    pub physical: Option<bool>,
    /// `up`, `no-carrier` or `down`.
    pub state: &'static str,
    /// The bridge, bond or VRF it is part of.
    pub master: Option<String>,
    /// Its other end, or the link below it; in another namespace if that is set.
    pub lower: Option<Lower>,
    /// Its addresses, with prefix length.
    pub addresses: Vec<String>,
    /// Who is on the other side; `None` for a part of another link.
    pub audience: Option<AddressAudience>,
    /// The name of the Wi-Fi network it is joined to.
    pub ssid: Option<String>,
    /// What it is for.
    pub role: LinkRole,
}

/// What is below a link, or at the other end of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lower {
    /// In this namespace: its name.
    Here(String),
    /// In another namespace.
    OtherNamespace,
}

impl IpReport {
    /// Judges the addresses of a namespace.
    #[must_use]
    pub fn new(snapshot: &Snapshot, netns: &Netns) -> Self {
        let choice = choose(netns, &snapshot.machine);
        let addresses =
            choice.addresses.iter().filter_map(|judged| AddressEntry::of(netns, judged)).collect();
        let mut unknown: Vec<UnknownThing> = netns
            .gaps
            .iter()
            .map(|gap| unknown::of_gap(gap, "canreach ip"))
            .filter(|thing| ["links", "addresses", "routes"].contains(&thing.what.as_str()))
            .collect();
        unknown::tidy(&mut unknown);
        Self {
            addresses,
            has_best: choice.has_best,
            links: link_entries(netns),
            full_tunnel: choice.full_tunnel.map(|link| link_name(netns, link)),
            inside: choice.inside,
            unknown,
        }
    }

    /// The address to hand out.
    #[must_use]
    pub fn best(&self) -> Option<&AddressEntry> {
        self.addresses.first().filter(|_| self.has_best)
    }
}

impl AddressEntry {
    fn of(netns: &Netns, judged: &JudgedAddress) -> Option<Self> {
        let address = netns.addresses.get(judged.index)?;
        let link = netns.link(address.ifindex)?;
        Some(Self {
            address: address.address(),
            prefix: address.prefix.length(),
            link: link.name.clone(),
            kind: kind(link),
            ssid: ssid(link),
            audience: judged.audience,
            why: judged.why,
        })
    }
}

/// The address that `list` shows at its top.
#[must_use]
pub fn best_entry(snapshot: &Snapshot, netns: &Netns) -> Option<AddressEntry> {
    let choice = choose(netns, &snapshot.machine);
    choice.best().and_then(|judged| AddressEntry::of(netns, judged))
}

/// The word of the JSON for what a link is made of.
#[must_use]
pub const fn kind(link: &Link) -> &'static str {
    match link.kind {
        LinkKind::Loopback => "loopback",
        LinkKind::Ethernet => "ethernet",
        LinkKind::Wifi => "wifi",
        LinkKind::Bridge => "bridge",
        LinkKind::Veth => "veth",
        LinkKind::Tun => "tun",
        LinkKind::Wireguard => "wireguard",
        LinkKind::Vlan => "vlan",
        LinkKind::Macvlan => "macvlan",
        LinkKind::Bond => "bond",
        LinkKind::Vrf => "vrf",
        LinkKind::Ipvlan
        | LinkKind::Team
        | LinkKind::Dummy
        | LinkKind::Ppp
        | LinkKind::Other(_) => "other",
    }
}

fn kernel_kind(link: &Link) -> String {
    match &link.kind {
        LinkKind::Ipvlan => "ipvlan".to_owned(),
        LinkKind::Team => "team".to_owned(),
        LinkKind::Dummy => "dummy".to_owned(),
        LinkKind::Ppp => "ppp".to_owned(),
        LinkKind::Other(kind) => kind.clone(),
        LinkKind::Loopback
        | LinkKind::Ethernet
        | LinkKind::Wifi
        | LinkKind::Bridge
        | LinkKind::Veth
        | LinkKind::Tun
        | LinkKind::Wireguard
        | LinkKind::Vlan
        | LinkKind::Macvlan
        | LinkKind::Bond
        | LinkKind::Vrf => kind(link).to_owned(),
    }
}

fn ssid(link: &Link) -> Option<String> {
    link.wireless.as_ref().and_then(|wireless| wireless.ssid.clone())
}

fn state(link: &Link) -> &'static str {
    match (link.is_up(), link.has_carrier(), link.operstate) {
        (false, ..) => "down",
        (true, false, _) | (true, true, OperState::LowerLayerDown | OperState::NotPresent) => {
            "no-carrier"
        }
        (true, true, _) => "up",
    }
}

fn link_entries(netns: &Netns) -> Vec<LinkEntry> {
    let entry = |(link, role): (&Link, LinkRole)| {
        let audience = match role {
            LinkRole::Lan | LinkRole::VirtualLan => Some(AddressAudience::Lan),
            LinkRole::Vpn => Some(AddressAudience::Vpn),
            LinkRole::Containers => Some(AddressAudience::Containers),
            LinkRole::Loopback | LinkRole::Nobody => Some(AddressAudience::Itself),
            LinkRole::Member(_) => None,
        };
        let lower = match (link.lower, link.lower_nsid) {
            (_, Some(_)) => Some(Lower::OtherNamespace),
            (Some(lower), None) => Some(Lower::Here(link_name(netns, lower))),
            (None, None) => None,
        };
        LinkEntry {
            name: link.name.clone(),
            kind: kind(link),
            kernel_kind: kernel_kind(link),
            physical: link.physical,
            state: state(link),
            master: link.master.map(|master| link_name(netns, master)),
            lower,
            addresses: netns
                .addresses
                .iter()
                .filter(|address| address.ifindex == link.ifindex)
                .map(|address| address.prefix.to_string())
                .collect(),
            audience,
            ssid: ssid(link),
            role,
        }
    };
    netns.links.iter().zip(link_roles(netns)).map(entry).collect()
}
