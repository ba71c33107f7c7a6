//! Sockets that packets can arrive at: TCP listeners, and UDP sockets (inet_diag).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Family, Ifindex};

/// A transport protocol of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// IPPROTO_TCP.
    Tcp,
    /// IPPROTO_UDP.
    Udp,
}

impl Proto {
    /// Both, in the order they are listed.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// `tcp` or `udp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port number in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(pub u16);

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The kernel's identity for a socket while it lives (`idiag_cookie`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cookie(pub u64);

/// SO_MARK of a socket, or the mark of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub u32);

/// The id of a control group: the inode number of its directory (`INET_DIAG_CGROUP_ID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupId(pub u64);

/// What state a socket is in, of those that can receive a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketState {
    /// TCP: waits for connections (TCP_LISTEN).
    Listen,
    /// UDP: takes datagrams from anyone (TCP_CLOSE in inet_diag).
    Unconnected,
    /// UDP: takes datagrams from one peer only (TCP_ESTABLISHED in inet_diag).
    Connected,
}

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// TCP or UDP.
    pub proto: Proto,
    /// It speaks Multipath TCP as well (a dump of `IPPROTO_MPTCP` names it).
    pub mptcp: bool,
    /// AF_INET or AF_INET6: which kind of socket it is, not which packets it takes.
    pub family: Family,
    /// Listening, unconnected or connected.
    pub state: SocketState,
    /// The address it is bound to. An AF_INET6 socket bound to an IPv4-mapped address keeps it so.
    pub address: IpAddr,
    /// The port it is bound to.
    pub port: Port,
    /// UDP: the one peer it takes datagrams from. A port of 0 stands for any.
    pub peer: Option<(IpAddr, Port)>,
    /// The link it is bound to (SO_BINDTODEVICE, or the scope of a link-local bind).
    pub device: Option<Ifindex>,
    /// AF_INET6 only: takes no IPv4. `None` for AF_INET, and where the kernel did not say.
    pub v6only: Option<bool>,
    /// SO_MARK; `None` without CAP_NET_ADMIN.
    pub mark: Option<Mark>,
    /// IP_TRANSPARENT; `None` where the kernel did not say.
    pub transparent: Option<bool>,
    /// IP_FREEBIND; `None` where the kernel did not say.
    pub freebind: Option<bool>,
    /// The user that created it.
    pub uid: u32,
    /// The number `/proc/PID/fd` shows; 0 for sockets of the kernel itself.
    pub inode: u64,
    /// The kernel's identity for it.
    pub cookie: Cookie,
    /// The control group that created it; `None` where the kernel did not say.
    pub cgroup: Option<CgroupId>,
    /// TCP: connections that wait to be accepted.
    pub backlog: Option<Backlog>,
}

impl Socket {
    /// 0.0.0.0 or `::`; also ::ffff:0.0.0.0, which is an AF_INET6 socket's way to say 0.0.0.0.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.address.to_canonical().is_unspecified()
    }
}

/// The accept queue of a listener (`sk_ack_backlog`, `sk_max_ack_backlog`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Connections waiting now.
    pub used: u32,
    /// The most before new ones are dropped: the queue is full when `used > limit`.
    pub limit: u32,
}

impl Backlog {
    /// A new SYN is dropped (include/net/sock.h, `sk_acceptq_is_full`).
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.used > self.limit
    }
}
