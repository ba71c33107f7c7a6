//! `canreach.ip/1`.

use schemars::JsonSchema;
use serde::Serialize;

use super::unknown::Unknown;
use crate::report::ip::{AddressEntry, IpReport, LinkEntry};

/// Which address to hand out, and why not the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Ip {
    /// `canreach.ip/1`.
    pub schema: String,
    /// Everything that bears on the choice was read.
    pub complete: bool,
    /// What was not.
    pub unknown: Vec<Unknown>,
    /// The address to hand out; null where there is none.
    pub best: Option<Best>,
    /// Every address.
    pub addresses: Vec<Address>,
    /// Every interface, with `--all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
    /// A VPN interface that takes all of this computer's traffic.
    pub full_tunnel: Option<String>,
    /// What this system runs inside: `wsl1`, `wsl2`, `container`, `virtual-machine`, or null.
    pub inside: Option<String>,
}

/// The address to hand out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Best {
    /// The address.
    pub address: String,
    /// Its interface.
    pub link: String,
    /// Why it is the one: a code.
    pub why: String,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub address: String,
    /// The length of its prefix.
    pub prefix: u8,
    /// Its interface.
    pub link: String,
    /// What the interface is made of: `loopback`, `ethernet`, `wifi`, `bridge`, `veth`, `tun`,
    /// `wireguard`, `vlan`, `macvlan`, `bond`, `vrf` or `other`.
    pub kind: String,
    /// Who can dial it: `lan`, `vpn`, `containers`, `self` or `internet`.
    pub audience: String,
    /// Why it is the one, or is not: a code.
    pub why: String,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// What it is made of, in the words of `addresses[].kind`.
    pub kind: String,
    /// The kernel's own word for that.
    pub kernel_kind: String,
    /// Whether a device of the machine is behind it; null where that could not be read.
    pub physical: Option<bool>,
    /// `up`, `no-carrier` or `down`.
    pub state: String,
    /// The bridge, bond or VRF it is part of.
    pub master: Option<String>,
    /// Its other end, or the interface below it, where that is in this namespace.
    pub lower: Option<String>,
    /// Its other end, or the interface below it, is in another network namespace.
    pub lower_elsewhere: bool,
    /// Its addresses, with prefix length.
    pub addresses: Vec<String>,
    /// Who is on the other side: `lan`, `vpn`, `containers`, `self`; null for a part of another.
    pub audience: Option<String>,
}

impl Ip {
    /// The wire form of a report; `all` adds the interfaces.
    #[must_use]
    pub fn new(report: &IpReport, all: bool) -> Self {
        let best = report.best().map(|best| Best {
            address: best.address.to_string(),
            link: best.link.clone(),
            why: best.why.slug().to_owned(),
        });
        Self {
            schema: "canreach.ip/1".to_owned(),
            complete: report.unknown.is_empty(),
            unknown: Unknown::all(&report.unknown),
            best,
            addresses: report.addresses.iter().map(Address::of).collect(),
            links: all.then(|| report.links.iter().map(Link::of).collect()),
            full_tunnel: report.full_tunnel.clone(),
            inside: report.inside.map(|inside| {
                use canreach_snapshot::Virtualization as V;
                let word = match inside {
                    V::Wsl1 => "wsl1",
                    V::Wsl2 => "wsl2",
                    V::Container => "container",
                    V::VirtualMachine => "virtual-machine",
                };
                word.to_owned()
            }),
        }
    }
}

impl Address {
    fn of(entry: &AddressEntry) -> Self {
        Self {
            address: entry.address.to_string(),
            prefix: entry.prefix,
            link: entry.link.clone(),
            kind: entry.kind.to_owned(),
            audience: entry.audience.slug().to_owned(),
            why: entry.why.slug().to_owned(),
        }
    }
}

impl Link {
    fn of(entry: &LinkEntry) -> Self {
        use crate::report::ip::Lower;
        let (lower, lower_elsewhere) = match &entry.lower {
            Some(Lower::Here(name)) => (Some(name.clone()), false),
            Some(Lower::OtherNamespace) => (None, true),
            None => (None, false),
        };
        Self {
            name: entry.name.clone(),
            kind: entry.kind.to_owned(),
            kernel_kind: entry.kernel_kind.clone(),
            physical: entry.physical,
            state: entry.state.to_owned(),
            master: entry.master.clone(),
            lower,
            lower_elsewhere,
            addresses: entry.addresses.clone(),
            audience: entry.audience.map(|audience| audience.slug().to_owned()),
        }
    }
}
