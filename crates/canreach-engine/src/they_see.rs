//! What a client program gets from connect(2), or from a connected UDP socket, on a machine with
//! default settings.

/// What they see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TheySee {
    /// TCP: it connects.
    Connected,
    /// ECONNREFUSED: a reset, or port unreachable.
    Refused,
    /// ETIMEDOUT: nothing comes back.
    Timeout,
    /// EHOSTUNREACH.
    HostUnreachable,
    /// ENETUNREACH.
    NetworkUnreachable,
    /// EACCES.
    PermissionDenied,
    /// ENOPROTOOPT.
    ProtocolUnavailable,
    /// EINVAL: a local client whose route is a blackhole.
    InvalidArgument,
    /// EADDRNOTAVAIL: a local client that has no source address to use.
    AddressNotAvailable,
    /// EPERM: rules stop a local client's datagram before it leaves its socket.
    OperationNotPermitted,
    /// UDP: it arrives, and an answer would get back.
    Delivered,
    /// UDP: nothing comes back.
    Silence,
}

impl TheySee {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::Connected,
        Self::Refused,
        Self::Timeout,
        Self::HostUnreachable,
        Self::NetworkUnreachable,
        Self::PermissionDenied,
        Self::ProtocolUnavailable,
        Self::InvalidArgument,
        Self::AddressNotAvailable,
        Self::OperationNotPermitted,
        Self::Delivered,
        Self::Silence,
    ];

    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::HostUnreachable => "host-unreachable",
            Self::NetworkUnreachable => "network-unreachable",
            Self::PermissionDenied => "permission-denied",
            Self::ProtocolUnavailable => "protocol-unavailable",
            Self::InvalidArgument => "invalid-argument",
            Self::AddressNotAvailable => "address-not-available",
            Self::OperationNotPermitted => "operation-not-permitted",
            Self::Delivered => "delivered",
            Self::Silence => "silence",
        }
    }
}
