//! What a route lookup is asked, and what it finds.
//!
//! Kernel counterparts: `struct flowi4`, `struct flowi6`, `struct fib_result`. One field may be left
//! open, the question's source address, and its source port with it: the lookup then answers for
//! every source at once. Left out: TOS (a first packet has none), tunnel ids.

use canreach_snapshot::{Family, Ifindex, RouteType, Scope, TableId};

/// An address of a lookup key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Term {
    /// This address, as a number.
    Is(u128),
    /// The source of the question: every address at once.
    AnySource,
}

/// A port of a lookup key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortTerm {
    /// This port.
    Is(u16),
    /// The source port of the question: every port at once.
    AnySourcePort,
    /// Not known to the lookup (ports are not dissected): no port selector matches.
    Absent,
}

/// The key of a route lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The address looked up.
    pub destination: Term,
    /// The other address, for rules with `from` and IPv6 source-specific routes.
    pub source: Term,
    /// The incoming link; `lo` for what this machine sends.
    pub iif: Ifindex,
    /// The outgoing link that is asked for.
    pub oif: Option<Ifindex>,
    /// The mark.
    pub mark: u32,
    /// The user.
    pub uid: u32,
    /// The table of the VRF that the packet belongs to.
    pub vrf_table: Option<TableId>,
    /// The protocol number, 0 where the lookup does not know it.
    pub protocol: u8,
    /// The source port.
    pub source_port: PortTerm,
    /// The destination port.
    pub destination_port: PortTerm,
    /// IPv6: only nexthops on `oif` (or on `iif` where no `oif` is given) count
    /// (`RT6_LOOKUP_F_IFACE`).
    pub strict: bool,
    /// IPv4: rules are walked table by table, instead of one merged trie.
    pub split: bool,
}

/// Why a lookup found no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No route (ENETUNREACH).
    NoRoute,
    /// A policy rule says unreachable (ENETUNREACH).
    RuleUnreachable,
    /// A route says unreachable (EHOSTUNREACH).
    RouteUnreachable,
    /// A route or rule says prohibit (EACCES).
    Prohibit,
    /// A route or rule says blackhole (EINVAL).
    Blackhole,
    /// An IPv6 route through `lo`: the lookup succeeds, and every packet is dropped with the ICMPv6
    /// error of "no route".
    Discarded,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Found {
    /// A route: its position in `Netns::routes`, one of several that lead the same way; and the
    /// number of that way (see [`crate::host::fib::Fib::way`]).
    Route {
        /// The route.
        route: usize,
        /// Where it leads.
        way: u32,
    },
    /// No way, and what said so.
    Refused {
        /// How it was refused.
        refusal: Refusal,
        /// The route that refused.
        route: Option<usize>,
        /// The policy rule that refused.
        rule: Option<usize>,
    },
}

/// Where routes lead: what the stages ask of a route, shared by all routes that agree in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// What becomes of the packet.
    pub kind: WayKind,
    /// The links it may leave by: one, or several of a multipath route.
    pub exits: Vec<Exit>,
    /// The links of all its nexthops, usable or not (`fib_info_nh_uses_dev` looks at all).
    pub links: Vec<Ifindex>,
    /// The source that local senders use by default.
    pub preferred_source: Option<std::net::IpAddr>,
    /// How far the destinations are: a local sender's address must reach as far.
    pub scope: Scope,
}

/// The types of route that are no refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WayKind {
    /// Sent on.
    Unicast,
    /// Delivered here.
    Local,
    /// Delivered here as broadcast.
    Broadcast,
    /// Shared with other machines.
    Anycast,
    /// To a group.
    Multicast,
}

impl WayKind {
    /// The type of route it stands for; `None` for types that refuse or pass on.
    #[must_use]
    pub const fn of(kind: RouteType) -> Option<Self> {
        match kind {
            RouteType::Unicast => Some(Self::Unicast),
            RouteType::Local => Some(Self::Local),
            RouteType::Broadcast => Some(Self::Broadcast),
            RouteType::Anycast => Some(Self::Anycast),
            RouteType::Multicast => Some(Self::Multicast),
            RouteType::Blackhole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw
            | RouteType::Nat
            | RouteType::Other(_) => None,
        }
    }
}

/// One way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exit {
    /// The link.
    pub link: Ifindex,
    /// The router that is next; `None` if the destination itself is.
    pub gateway: Option<std::net::IpAddr>,
}
