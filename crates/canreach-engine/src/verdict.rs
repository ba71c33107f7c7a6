//! Answers: the fate of one packet, and the verdict on a question.

use crate::{AddressSet, Blocker, Doubt, NetnsIndex, Question, SocketIndex, Step, TheySee};

/// What becomes of one packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A socket gets it, and its answer gets back. Several, where the kernel picks one member of a
    /// SO_REUSEPORT group by a secret hash, or where a datagram is copied to each.
    Delivered(Vec<SocketIndex>),
    /// It is sent on to another namespace of this machine, a socket there gets it, and its answer gets
    /// back.
    DeliveredIn(NetnsIndex, Vec<SocketIndex>),
    /// It, or the answer to it, is stopped.
    Stopped(DropReason),
    /// Cannot be told.
    Unknown(UnknownReason),
}

/// The fate of one packet: what becomes of it, and what its sender sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fate {
    /// What becomes of it.
    pub outcome: Outcome,
    /// What its sender sees; `None` where that cannot be told.
    pub they_see: Option<TheySee>,
}

/// The verdict on a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Every source asked about gets through.
    Yes,
    /// None does.
    No,
    /// Some do.
    Partly,
    /// Cannot be told for at least one source, and none is known to differ.
    Unknown,
}

impl Verdict {
    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Partly => "partly",
            Self::Unknown => "unknown",
        }
    }
}

/// The answer to a question: a partition of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// The verdict, over the sources that somebody else can have.
    pub verdict: Verdict,
    /// Sources asked about that no neighbour can send from: this machine's own addresses, broadcast
    /// addresses, addresses that are invalid as a source. They are in a group like all others, and
    /// do not count for the verdict unless nothing else was asked about.
    pub unsendable: AddressSet,
    /// Disjoint groups of sources that share one fate; together they are the sources asked about.
    /// The largest that counts comes first.
    pub groups: Vec<Group>,
}

/// Sources that share one fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The sources.
    pub sources: AddressSet,
    /// The source ports this holds for; `None` for every port.
    pub ports: Option<Vec<(u16, u16)>>,
    /// What becomes of their packets.
    pub fate: Fate,
    /// The stages passed, up to the end of the path: also those behind the first stop.
    pub steps: Vec<Step>,
    /// Everything that would stop them, in path order. The first is the stop.
    pub blockers: Vec<Blocker>,
    /// Everything on the path that cannot be judged.
    pub doubts: Vec<Doubt>,
    /// The sockets that the lookup gives them to, whatever else stops them or is in doubt.
    pub sockets: Vec<SocketIndex>,
    /// The same where they are sent on to another namespace.
    pub sockets_in: Option<(NetnsIndex, Vec<SocketIndex>)>,
}

/// Why a packet is stopped. Each names one cause, and has one fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The link it would come in by is down or has no carrier; for a local client, `lo` is down.
    LinkDown,
    /// This machine does not answer neighbours who ask for the address on that link (ARP, ND).
    NeighborSilent,
    /// The address is still being checked for duplicates.
    Tentative,
    /// IPv6 is switched off on the link (`disable_ipv6`).
    Ipv6Disabled,
    /// The pair of addresses is not allowed on a wire (RFC 1812, 5.3.7).
    Martian,
    /// The source is an address of this machine (`accept_local` is off).
    OwnSource,
    /// The reverse-path filter does not accept the source on that link.
    RpFilter,
    /// The address is not this machine's, and it does not forward.
    NotLocal,
    /// The address is not this machine's, and there is no route to it.
    NoRoute,
    /// A route or policy rule says unreachable.
    RouteUnreachable,
    /// A route or policy rule says prohibited.
    RouteProhibit,
    /// A route or policy rule drops in silence.
    RouteBlackhole,
    /// The address is not this machine's: the packet is sent on.
    Forwarded,
    /// TCP to a broadcast address.
    BroadcastDestination,
    /// TCP to an IPv6 anycast address.
    AnycastDestination,
    /// To a multicast group.
    MulticastDestination,
    /// No socket has the port.
    NotListening,
    /// Sockets have the port, all on loopback addresses.
    BindLoopback,
    /// Sockets have the port, on other addresses.
    BindAddress,
    /// Sockets have the port and address, bound to another link.
    BindDevice,
    /// Sockets have the port, for IPv6 only.
    V6Only,
    /// UDP: the socket takes datagrams from another peer only.
    ConnectedElsewhere,
    /// The packet comes in through a VRF, and the socket is bound to none.
    VrfUnbound,
    /// The accept queue is full.
    BacklogFull,
    /// The answer has no route back.
    NoReplyRoute,
    /// IPv4: the address dialled is local by a route outside table local, so no answer may use it
    /// as its source.
    ReplySourceNotLocal,
    /// The answer leaves through a VPN or tunnel that the sender is not behind.
    VpnReply,
    /// A rule or the policy of a chain drops it, or the answer to it (`NF_DROP`).
    FwDrop,
    /// A rule rejects it, or the answer to it.
    FwReject,
    /// `redirect` or `masquerade` finds no address on the link, or a translation fails: dropped.
    NatFailed,
}

impl DropReason {
    /// Every one, in path order.
    pub const ALL: [Self; 30] = [
        Self::LinkDown,
        Self::NeighborSilent,
        Self::Tentative,
        Self::Ipv6Disabled,
        Self::Martian,
        Self::OwnSource,
        Self::RpFilter,
        Self::NotLocal,
        Self::NoRoute,
        Self::RouteUnreachable,
        Self::RouteProhibit,
        Self::RouteBlackhole,
        Self::Forwarded,
        Self::BroadcastDestination,
        Self::AnycastDestination,
        Self::MulticastDestination,
        Self::NotListening,
        Self::BindLoopback,
        Self::BindAddress,
        Self::BindDevice,
        Self::V6Only,
        Self::ConnectedElsewhere,
        Self::VrfUnbound,
        Self::BacklogFull,
        Self::NoReplyRoute,
        Self::ReplySourceNotLocal,
        Self::VpnReply,
        Self::FwDrop,
        Self::FwReject,
        Self::NatFailed,
    ];

    /// The code people see and scripts read. Never renamed, never reused.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::LinkDown => "link-down",
            Self::NeighborSilent => "neighbor-silent",
            Self::Tentative => "tentative",
            Self::Ipv6Disabled => "ipv6-disabled",
            Self::Martian => "martian",
            Self::OwnSource => "own-source",
            Self::RpFilter => "rp-filter",
            Self::NotLocal => "not-local",
            Self::NoRoute => "no-route",
            Self::RouteUnreachable => "route-unreachable",
            Self::RouteProhibit => "route-prohibit",
            Self::RouteBlackhole => "route-blackhole",
            Self::Forwarded => "forwarded",
            Self::BroadcastDestination => "broadcast-destination",
            Self::AnycastDestination => "anycast-destination",
            Self::MulticastDestination => "multicast-destination",
            Self::NotListening => "not-listening",
            Self::BindLoopback => "bind-loopback",
            Self::BindAddress => "bind-address",
            Self::BindDevice => "bind-device",
            Self::V6Only => "v6only",
            Self::ConnectedElsewhere => "connected-elsewhere",
            Self::VrfUnbound => "vrf-unbound",
            Self::BacklogFull => "backlog-full",
            Self::NoReplyRoute => "no-reply-route",
            Self::ReplySourceNotLocal => "reply-source-not-local",
            Self::VpnReply => "vpn-reply",
            Self::FwDrop => "fw-drop",
            Self::FwReject => "fw-reject",
            Self::NatFailed => "nat-failed",
        }
    }
}

/// Why an answer cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnknownReason {
    /// The kernel shows it to root only.
    NeedsRoot,
    /// Packet filter rules are loaded, and this version does not judge rules yet.
    NotModelled,
    /// A BPF program or tc filter decides.
    OpaqueProgram,
    /// It changed during each attempt to read it.
    ChangedWhileReading,
    /// It could not be read, for another reason than privileges.
    Unread,
    /// Whether IPv4 tables local and main are searched as one could not be read, and it matters here.
    FibLayout,
    /// Depends on whether a local route was ever added by hand, which the kernel does not show.
    FibHistory,
    /// The answer leaves by another link than the packet came in by; whether the networks outside
    /// carry it to the sender cannot be seen from here.
    ReplyElsewhere,
    /// UDP: the kernel gives the answer another source address than the one dialled, unless the
    /// program asks for it (IP_PKTINFO).
    ReplyAddress,
    /// Depends on which of several nexthops the kernel picks for the flow.
    Multipath,
    /// Depends on multicast membership, which is not read.
    MulticastMembership,
    /// Something on the path was larger than a named limit.
    LimitReached,
    /// A rule lets only so much through (limit, hashlimit, quota, connlimit).
    RateLimit,
    /// A rule depends on earlier packets (recent, sets that packets fill while they are matched).
    EarlierPackets,
    /// A rule chooses at random (statistic, numgen, the CPU that handles the packet).
    RandomChoice,
    /// A rule depends on the time of day or the date.
    TimeOfDay,
    /// A rule depends on what only the sender decides (TTL, options, length, hardware address).
    PacketDetails,
    /// A program decides (NFQUEUE, synproxy).
    UserSpace,
    /// It is sent on to another network namespace, which was not read or cannot be told from others.
    OtherNamespace,
    /// Chains of equal priority: which of them is first is not shown by this kernel, and matters.
    HookOrder,
}

impl UnknownReason {
    /// Every one.
    pub const ALL: [Self; 20] = [
        Self::NeedsRoot,
        Self::NotModelled,
        Self::OpaqueProgram,
        Self::ChangedWhileReading,
        Self::Unread,
        Self::FibLayout,
        Self::FibHistory,
        Self::ReplyElsewhere,
        Self::ReplyAddress,
        Self::Multipath,
        Self::MulticastMembership,
        Self::LimitReached,
        Self::RateLimit,
        Self::EarlierPackets,
        Self::RandomChoice,
        Self::TimeOfDay,
        Self::PacketDetails,
        Self::UserSpace,
        Self::OtherNamespace,
        Self::HookOrder,
    ];

    /// The code people see and scripts read. Never renamed, never reused.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::NeedsRoot => "needs-root",
            Self::NotModelled => "not-modelled",
            Self::OpaqueProgram => "opaque-program",
            Self::ChangedWhileReading => "changed-while-reading",
            Self::Unread => "unread",
            Self::FibLayout => "fib-layout",
            Self::FibHistory => "fib-history",
            Self::ReplyElsewhere => "reply-elsewhere",
            Self::ReplyAddress => "reply-address",
            Self::Multipath => "multipath",
            Self::MulticastMembership => "multicast-membership",
            Self::LimitReached => "limit-reached",
            Self::RateLimit => "rate-limit",
            Self::EarlierPackets => "earlier-packets",
            Self::RandomChoice => "random-choice",
            Self::TimeOfDay => "time-of-day",
            Self::PacketDetails => "packet-details",
            Self::UserSpace => "user-space",
            Self::OtherNamespace => "other-namespace",
            Self::HookOrder => "hook-order",
        }
    }
}
