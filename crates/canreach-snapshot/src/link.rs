//! Links: network interfaces, as `ip link` names them (RTM_NEWLINK).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::TableId;

/// The index of a link in its namespace; the kernel's identity for it. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ifindex(pub u32);

/// `lo` is created first in each namespace and gets this index (net/core/net_namespace.c).
pub const LOOPBACK_IFINDEX: Ifindex = Ifindex(1);

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its index.
    pub ifindex: Ifindex,
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: LinkKind,
    /// `IFF_*`.
    pub flags: LinkFlags,
    /// Operational state (RFC 2863).
    pub operstate: OperState,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// `ip link set group`, which policy rules can suppress by.
    pub group: u32,
    /// Hardware address, where it has one of six bytes.
    pub mac: Option<MacAddress>,
    /// The bridge, bond, team or VRF it is part of (`IFLA_MASTER`).
    pub master: Option<Ifindex>,
    /// The link below it, or the other end of a veth pair (`IFLA_LINK`).
    pub lower: Option<Ifindex>,
    /// If `lower` is in another namespace: this namespace's number for it (`IFLA_LINK_NETNSID`).
    pub lower_nsid: Option<i32>,
    /// The routing table of a VRF (`IFLA_VRF_TABLE`).
    pub vrf_table: Option<TableId>,
    /// Whether a device of the machine is behind it; `None` where /sys could not say.
    pub physical: Option<bool>,
    /// For Wi-Fi.
    pub wireless: Option<Wireless>,
}

impl Link {
    /// The loopback link of its namespace.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.flags.has(LinkFlags::LOOPBACK)
    }

    /// Administratively up (`ip link set up`).
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.flags.has(LinkFlags::UP)
    }

    /// Whether the cable is in, or the virtual counterpart is up (`IFF_LOWER_UP`).
    #[must_use]
    pub const fn has_carrier(&self) -> bool {
        self.flags.has(LinkFlags::LOWER_UP)
    }
}

/// A Wi-Fi link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wireless {
    /// The name of the network it is joined to, where that was readable.
    pub ssid: Option<String>,
}

/// `IFF_*` of include/uapi/linux/if.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkFlags(pub u32);

impl LinkFlags {
    /// Administratively up.
    pub const UP: Self = Self(0x1);
    /// Can send to everyone on its segment.
    pub const BROADCAST: Self = Self(0x2);
    /// Loopback.
    pub const LOOPBACK: Self = Self(0x8);
    /// Point to point: one neighbour only.
    pub const POINT_TO_POINT: Self = Self(0x10);
    /// Operational, as the driver says.
    pub const RUNNING: Self = Self(0x40);
    /// Does not resolve neighbours by ARP or ND.
    pub const NO_ARP: Self = Self(0x80);
    /// Can send to multicast groups.
    pub const MULTICAST: Self = Self(0x1000);
    /// Carrier.
    pub const LOWER_UP: Self = Self(0x10000);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a link is made of (`IFLA_INFO_KIND`; without one, from its hardware type and /sys).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// `lo`.
    Loopback,
    /// An Ethernet device, real or emulated, that is not Wi-Fi.
    Ethernet,
    /// Wi-Fi.
    Wifi,
    /// A switch inside this machine.
    Bridge,
    /// One end of a pair; the other is usually in another namespace.
    Veth,
    /// tun and tap: a program is behind it, a VPN as a rule.
    Tun,
    /// WireGuard.
    Wireguard,
    /// A tagged VLAN of another link.
    Vlan,
    /// Another hardware address on a link.
    Macvlan,
    /// Another set of IP addresses on a link.
    Ipvlan,
    /// Several links as one.
    Bond,
    /// Several links as one, by a program.
    Team,
    /// A routing domain of its own.
    Vrf,
    /// Goes nowhere.
    Dummy,
    /// Point to point over a modem or a DSL line.
    Ppp,
    /// Any other: the kernel's own word.
    Other(String),
}

/// Operational state (`IFLA_OPERSTATE`, RFC 2863).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperState {
    /// The driver does not say. Usual for `lo` and tunnels.
    #[default]
    Unknown,
    /// Part of it is missing.
    NotPresent,
    /// Down.
    Down,
    /// Waits for the link below.
    LowerLayerDown,
    /// Under test.
    Testing,
    /// Waits, for authentication for example.
    Dormant,
    /// Up.
    Up,
}

/// A hardware address of six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is not a hardware address of six bytes");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() { Err(malformed()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}
