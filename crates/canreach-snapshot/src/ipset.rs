//! Sets of ipset, which rules of iptables look packets up in.

use serde::{Deserialize, Serialize};

use crate::{Family, Port, Prefix};

/// A set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipset {
    /// Its number in this namespace (`ip_set_id_t`).
    pub index: u16,
    /// Its name.
    pub name: String,
    /// Its type: `hash:net,port`.
    pub type_name: String,
    /// The revision of its type.
    pub revision: u8,
    /// The family of its addresses; `None` for types without one.
    pub family: Option<Family>,
    /// How long entries live if they do not say so themselves, in seconds; `None` for ever.
    pub timeout_s: Option<u32>,
    /// `hash:ip` with `netmask`: addresses are cut to this before they are looked up.
    pub netmask: Option<u8>,
    /// With `bitmask` in place of `netmask`: which bits of an address count.
    #[serde(default)]
    pub bitmask: Option<std::net::IpAddr>,
    /// `hash:ip,mark`: which bits of a mark count.
    #[serde(default)]
    pub markmask: Option<u32>,
    /// Range of a bitmap: the first and the last value it can hold, as the kernel gives them.
    pub range: Option<(u32, u32)>,
    /// What is in it.
    pub entries: Vec<IpsetEntry>,
    /// The type, or something of it, is not decoded: nothing is known of what it holds.
    pub opaque: bool,
}

/// An entry. Which fields it has follows from the type of the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpsetEntry {
    /// The first address or network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Prefix>,
    /// The last address of a range that starts at `network`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_to: Option<std::net::IpAddr>,
    /// The second network (`hash:net,net`, `hash:ip,port,net`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Prefix>,
    /// Ports, first to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(Port, Port)>,
    /// The protocol that goes with the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// A hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<[u8; 6]>,
    /// A link (`hash:net,iface`), and whether it means a port of a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<(String, bool)>,
    /// The link's name stands for all that begin with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub iface_wildcard: bool,
    /// A packet mark (`hash:ip,mark`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Another set (`list:set`), by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// An exception: what it names is not in the set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nomatch: bool,
    /// Seconds until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u32>,
}
