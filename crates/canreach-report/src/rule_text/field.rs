//! Fields of headers: what bytes at an offset are called.

use canreach_snapshot::nft::expr::PayloadBase;

use super::value::Kind;

/// A field: nft's name for it, its place, and what its values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) kind: Kind,
}

const fn field(name: &'static str, offset: u32, len: u32, kind: Kind) -> Field {
    Field { name, offset, len, kind }
}

/// The header that a load reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// nft's name for it.
    pub(super) name: &'static str,
    fields: &'static [Field],
}

const ETHER: Header = Header {
    name: "ether",
    fields: &[
        field("daddr", 0, 6, Kind::Mac),
        field("saddr", 6, 6, Kind::Mac),
        field("type", 12, 2, Kind::EtherType),
    ],
};
const IP: Header = Header {
    name: "ip",
    fields: &[
        field("length", 2, 2, Kind::Decimal),
        field("id", 4, 2, Kind::Decimal),
        field("frag-off", 6, 2, Kind::Decimal),
        field("ttl", 8, 1, Kind::Decimal),
        field("protocol", 9, 1, Kind::Protocol),
        field("checksum", 10, 2, Kind::Decimal),
        field("saddr", 12, 4, Kind::Ipv4),
        field("daddr", 16, 4, Kind::Ipv4),
    ],
};
const IP6: Header = Header {
    name: "ip6",
    fields: &[
        field("length", 4, 2, Kind::Decimal),
        field("nexthdr", 6, 1, Kind::Protocol),
        field("hoplimit", 7, 1, Kind::Decimal),
        field("saddr", 8, 16, Kind::Ipv6),
        field("daddr", 24, 16, Kind::Ipv6),
    ],
};
const TCP: Header = Header {
    name: "tcp",
    fields: &[
        field("sport", 0, 2, Kind::Port),
        field("dport", 2, 2, Kind::Port),
        field("sequence", 4, 4, Kind::Decimal),
        field("ackseq", 8, 4, Kind::Decimal),
        field("flags", 13, 1, Kind::TcpFlags),
        field("window", 14, 2, Kind::Decimal),
        field("checksum", 16, 2, Kind::Decimal),
        field("urgptr", 18, 2, Kind::Decimal),
    ],
};
const PORTS: [Field; 2] = [field("sport", 0, 2, Kind::Port), field("dport", 2, 2, Kind::Port)];
const UDP: Header = Header {
    name: "udp",
    fields: &[
        PORTS[0],
        PORTS[1],
        field("length", 4, 2, Kind::Decimal),
        field("checksum", 6, 2, Kind::Decimal),
    ],
};
const ICMP: Header = Header {
    name: "icmp",
    fields: &[
        field("type", 0, 1, Kind::IcmpType),
        field("code", 1, 1, Kind::IcmpCode),
        field("checksum", 2, 2, Kind::Decimal),
        field("id", 4, 2, Kind::Decimal),
        field("sequence", 6, 2, Kind::Decimal),
    ],
};
const ICMPV6: Header = Header {
    name: "icmpv6",
    fields: &[
        field("type", 0, 1, Kind::Icmpv6Type),
        field("code", 1, 1, Kind::Icmpv6Code),
        field("checksum", 2, 2, Kind::Decimal),
        field("id", 4, 2, Kind::Decimal),
        field("sequence", 6, 2, Kind::Decimal),
    ],
};

/// `IPPROTO_ICMP`, `IPPROTO_TCP`, `IPPROTO_UDP`, `IPPROTO_ICMPV6`.
pub(super) const ICMP_NUMBER: u32 = 1;
/// See [`ICMP_NUMBER`].
pub(super) const ICMPV6_NUMBER: u32 = 58;

/// What the rule has found out about the packet so far, which gives offsets their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Protocols {
    /// `true` for IPv6.
    pub(super) ipv6: Option<bool>,
    /// The number of the transport protocol.
    pub(super) transport: Option<u32>,
}

impl Protocols {
    /// The header at a base, as far as it is known.
    pub(super) fn header(self, base: PayloadBase) -> Option<Header> {
        match base {
            PayloadBase::Link => Some(ETHER),
            PayloadBase::Network => Some(if self.ipv6? { IP6 } else { IP }),
            PayloadBase::Transport => Some(match self.transport {
                Some(6) => TCP,
                Some(17) => UDP,
                Some(ICMP_NUMBER) => ICMP,
                Some(ICMPV6_NUMBER) => ICMPV6,
                Some(33) => Header { name: "dccp", fields: &PORTS },
                Some(132) => Header { name: "sctp", fields: &PORTS },
                Some(136) => Header { name: "udplite", fields: &PORTS },
                Some(_) => return None,
                None => Header { name: "th", fields: &PORTS },
            }),
            PayloadBase::Inner | PayloadBase::Tunnel => None,
        }
    }
}

impl Header {
    /// The field that starts at an offset.
    pub(super) fn at(&self, offset: u32) -> Option<Field> {
        self.fields.iter().find(|field| field.offset == offset).copied()
    }
}

/// nft's letters for a base, in front of a bare offset.
pub(super) const fn base_letters(base: PayloadBase) -> &'static str {
    match base {
        PayloadBase::Link => "ll",
        PayloadBase::Network => "nh",
        PayloadBase::Transport => "th",
        PayloadBase::Inner | PayloadBase::Tunnel => "ih",
    }
}
