//! The sysctls the model reads: a closed list, each with the way its values combine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A sysctl that each link has, under `net.ipv4.conf` or `net.ipv6.conf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each variant is the sysctl of that name; `name` prints it")]
pub enum LinkSysctl {
    RpFilter,
    AcceptLocal,
    RouteLocalnet,
    SrcValidMark,
    Forwarding,
    BcForwarding,
    IgnoreRoutesWithLinkdown,
    DropUnicastInL2Multicast,
    ArpIgnore,
    ArpFilter,
    ProxyArp,
    V6DisableIpv6,
    V6Forwarding,
    V6ForceForwarding,
    V6IgnoreRoutesWithLinkdown,
    V6DropUnicastInL2Multicast,
    V6ProxyNdp,
    V6UseTempaddr,
    V6UseOifAddrsOnly,
}

/// How the value for `all` and the value of a link make the effective one
/// (include/linux/inetdevice.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combinator {
    /// The larger of the two.
    Max,
    /// Either is non-zero.
    Or,
    /// Both are non-zero.
    And,
    /// The link's own value alone.
    Link,
}

impl LinkSysctl {
    /// Every one.
    pub const ALL: [Self; 19] = [
        Self::RpFilter,
        Self::AcceptLocal,
        Self::RouteLocalnet,
        Self::SrcValidMark,
        Self::Forwarding,
        Self::BcForwarding,
        Self::IgnoreRoutesWithLinkdown,
        Self::DropUnicastInL2Multicast,
        Self::ArpIgnore,
        Self::ArpFilter,
        Self::ProxyArp,
        Self::V6DisableIpv6,
        Self::V6Forwarding,
        Self::V6ForceForwarding,
        Self::V6IgnoreRoutesWithLinkdown,
        Self::V6DropUnicastInL2Multicast,
        Self::V6ProxyNdp,
        Self::V6UseTempaddr,
        Self::V6UseOifAddrsOnly,
    ];

    /// `true` for those under `net.ipv6.conf`.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        matches!(
            self,
            Self::V6DisableIpv6
                | Self::V6Forwarding
                | Self::V6ForceForwarding
                | Self::V6IgnoreRoutesWithLinkdown
                | Self::V6DropUnicastInL2Multicast
                | Self::V6ProxyNdp
                | Self::V6UseTempaddr
                | Self::V6UseOifAddrsOnly
        )
    }

    /// The last part of its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RpFilter => "rp_filter",
            Self::AcceptLocal => "accept_local",
            Self::RouteLocalnet => "route_localnet",
            Self::SrcValidMark => "src_valid_mark",
            Self::Forwarding | Self::V6Forwarding => "forwarding",
            Self::BcForwarding => "bc_forwarding",
            Self::IgnoreRoutesWithLinkdown | Self::V6IgnoreRoutesWithLinkdown => {
                "ignore_routes_with_linkdown"
            }
            Self::DropUnicastInL2Multicast | Self::V6DropUnicastInL2Multicast => {
                "drop_unicast_in_l2_multicast"
            }
            Self::ArpIgnore => "arp_ignore",
            Self::ArpFilter => "arp_filter",
            Self::ProxyArp => "proxy_arp",
            Self::V6DisableIpv6 => "disable_ipv6",
            Self::V6ForceForwarding => "force_forwarding",
            Self::V6ProxyNdp => "proxy_ndp",
            Self::V6UseTempaddr => "use_tempaddr",
            Self::V6UseOifAddrsOnly => "use_oif_addrs_only",
        }
    }

    /// Its position in `IFLA_INET_CONF` (include/uapi/linux/ip.h, `IPV4_DEVCONF_*`, counted from 1)
    /// or in `IFLA_INET6_CONF` (include/uapi/linux/ipv6.h, `DEVCONF_*`, counted from 0).
    #[must_use]
    pub const fn devconf_index(self) -> usize {
        match self {
            Self::Forwarding => 1,
            Self::ProxyArp => 3,
            Self::RpFilter => 8,
            Self::ArpFilter => 13,
            Self::ArpIgnore => 19,
            Self::AcceptLocal => 23,
            Self::SrcValidMark => 24,
            Self::RouteLocalnet => 26,
            Self::IgnoreRoutesWithLinkdown => 29,
            Self::DropUnicastInL2Multicast => 30,
            Self::BcForwarding => 32,
            Self::V6Forwarding => 0,
            Self::V6DisableIpv6 => 26,
            Self::V6ProxyNdp => 22,
            Self::V6IgnoreRoutesWithLinkdown => 39,
            Self::V6DropUnicastInL2Multicast => 40,
            Self::V6ForceForwarding => 59,
            Self::V6UseTempaddr => 10,
            Self::V6UseOifAddrsOnly => 37,
        }
    }

    /// How it combines with `all`.
    #[must_use]
    pub const fn combinator(self) -> Combinator {
        match self {
            Self::RpFilter | Self::ArpIgnore => Combinator::Max,
            Self::AcceptLocal
            | Self::RouteLocalnet
            | Self::SrcValidMark
            | Self::IgnoreRoutesWithLinkdown
            | Self::DropUnicastInL2Multicast
            | Self::ArpFilter
            | Self::ProxyArp => Combinator::Or,
            Self::BcForwarding => Combinator::And,
            Self::Forwarding
            | Self::V6DisableIpv6
            | Self::V6Forwarding
            | Self::V6ForceForwarding
            | Self::V6IgnoreRoutesWithLinkdown
            | Self::V6DropUnicastInL2Multicast
            | Self::V6ProxyNdp
            | Self::V6UseTempaddr
            | Self::V6UseOifAddrsOnly => Combinator::Link,
        }
    }

    /// Whether the value of `all` means anything for packets: by itself, or with a link's.
    #[must_use]
    pub const fn asks_all(self) -> bool {
        !matches!(self.combinator(), Combinator::Link)
            || matches!(self, Self::V6Forwarding | Self::V6ProxyNdp)
    }
}

/// A sysctl that a namespace has once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each variant is the sysctl of that name; `name` prints it")]
pub enum GlobalSysctl {
    TcpL3mdevAccept,
    UdpL3mdevAccept,
    TcpFwmarkAccept,
    FwmarkReflect,
    TcpSyncookies,
    IcmpEchoIgnoreAll,
    V6FwmarkReflect,
    BridgeNfCallIptables,
    BridgeNfCallIp6tables,
}

impl GlobalSysctl {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::TcpL3mdevAccept,
        Self::UdpL3mdevAccept,
        Self::TcpFwmarkAccept,
        Self::FwmarkReflect,
        Self::TcpSyncookies,
        Self::IcmpEchoIgnoreAll,
        Self::V6FwmarkReflect,
        Self::BridgeNfCallIptables,
        Self::BridgeNfCallIp6tables,
    ];

    /// Its full name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpL3mdevAccept => "net.ipv4.tcp_l3mdev_accept",
            Self::UdpL3mdevAccept => "net.ipv4.udp_l3mdev_accept",
            Self::TcpFwmarkAccept => "net.ipv4.tcp_fwmark_accept",
            Self::FwmarkReflect => "net.ipv4.fwmark_reflect",
            Self::TcpSyncookies => "net.ipv4.tcp_syncookies",
            Self::IcmpEchoIgnoreAll => "net.ipv4.icmp_echo_ignore_all",
            Self::V6FwmarkReflect => "net.ipv6.fwmark_reflect",
            Self::BridgeNfCallIptables => "net.bridge.bridge-nf-call-iptables",
            Self::BridgeNfCallIp6tables => "net.bridge.bridge-nf-call-ip6tables",
        }
    }
}

/// The values that were read. What is missing was not there or not readable (a gap says which).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctls {
    /// Values of `all`.
    pub all: BTreeMap<LinkSysctl, i64>,
    /// Values of each link, by its name.
    pub links: BTreeMap<String, BTreeMap<LinkSysctl, i64>>,
    /// Values the namespace has once.
    pub global: BTreeMap<GlobalSysctl, i64>,
}

impl Sysctls {
    /// The value a link has by itself.
    #[must_use]
    pub fn of_link(&self, sysctl: LinkSysctl, link: &str) -> Option<i64> {
        self.links.get(link)?.get(&sysctl).copied()
    }
}
