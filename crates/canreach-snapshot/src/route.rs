//! Routes of every table, both families (RTM_NEWROUTE).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Family, Ifindex, Prefix, Scope};

/// The number of a routing table (`RTA_TABLE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl TableId {
    /// `RT_TABLE_DEFAULT`: searched last, empty as a rule.
    pub const DEFAULT: Self = Self(253);
    /// `RT_TABLE_MAIN`: what `ip route` shows.
    pub const MAIN: Self = Self(254);
    /// `RT_TABLE_LOCAL`: this machine's own addresses, kept by the kernel.
    pub const LOCAL: Self = Self(255);
}

/// What becomes of a packet that a route matches (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteType {
    /// Sent on, through a nexthop.
    Unicast,
    /// Delivered on this machine.
    Local,
    /// Delivered on this machine as broadcast.
    Broadcast,
    /// IPv4: as broadcast when received, as unicast when sent. IPv6: delivered here, shared with
    /// other machines.
    Anycast,
    /// To a group.
    Multicast,
    /// Dropped in silence.
    Blackhole,
    /// Refused: host unreachable.
    Unreachable,
    /// Refused: administratively prohibited.
    Prohibit,
    /// Not found in this table: the next policy rule decides.
    Throw,
    /// IPv4 address translation by routes; no longer implemented.
    Nat,
    /// A number this version does not know.
    Other(u8),
}

/// Who made a route (`rtm_protocol`).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// `RTPROT_KERNEL`: the kernel itself, from an address.
    pub const KERNEL: Self = Self(2);
    /// `RTPROT_BOOT`: `ip route` by hand.
    pub const BOOT: Self = Self(3);
    /// `RTPROT_STATIC`.
    pub const STATIC: Self = Self(4);
    /// `RTPROT_RA`: an IPv6 router advertisement.
    pub const ROUTER_ADVERTISEMENT: Self = Self(9);
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The table it is in.
    pub table: TableId,
    /// What it does.
    pub kind: RouteType,
    /// Destinations it matches. Host bits are clear.
    pub destination: Prefix,
    /// IPv6 only: sources it matches (`RTA_SRC`, subtrees).
    pub source: Option<Prefix>,
    /// IPv4 only: the TOS byte it matches, 0 for any.
    pub tos: u8,
    /// How far its destinations are.
    pub scope: Scope,
    /// Who made it.
    pub protocol: RouteProtocol,
    /// Smaller is preferred (`RTA_PRIORITY`).
    pub metric: u32,
    /// The source address that local senders use by default (`RTA_PREFSRC`).
    pub preferred_source: Option<IpAddr>,
    /// IPv6 router preference (RFC 4191): 0 medium, 1 high, 3 low.
    pub preference: Option<u8>,
    /// `RTM_F_*` of the whole route.
    pub flags: u32,
    /// Where it leads. Empty for blackhole, unreachable, prohibit, throw.
    pub nexthops: Vec<NextHop>,
    /// The nexthop object it uses (`RTA_NH_ID`); `nexthops` then holds what that object resolves to.
    pub nexthop_id: Option<u32>,
    /// Realms (`RTA_FLOW`), for which source validation always does its full check.
    pub realm: Option<u32>,
}

impl Route {
    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.destination.family()
    }
}

/// One way out of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The link it leaves by.
    pub ifindex: Option<Ifindex>,
    /// The router; `None` when destinations are on the link itself. May be of the other family.
    pub gateway: Option<IpAddr>,
    /// Share among several, 1 or more.
    pub weight: u16,
    /// `RTNH_F_*`.
    pub flags: NextHopFlags,
    /// Whether packets are wrapped (`RTA_ENCAP`: MPLS, SRv6, IP tunnels).
    pub encapsulated: bool,
}

/// `RTNH_F_*` of include/uapi/linux/rtnetlink.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NextHopFlags(pub u8);

impl NextHopFlags {
    /// Its link is down: never used.
    pub const DEAD: Self = Self(1);
    /// The gateway is taken to be on the link whatever the routes say.
    pub const ON_LINK: Self = Self(4);
    /// Its link has no carrier: used unless `ignore_routes_with_linkdown`.
    pub const LINK_DOWN: Self = Self(16);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
