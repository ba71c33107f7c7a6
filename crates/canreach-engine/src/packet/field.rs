//! The fields of a packet that a set can depend on, and the order in which a diagram tests them.
//!
//! The source comes late on purpose: with the fields before it fixed by a question, the set of
//! sources *is* one node, a list of intervals ready to print. Left out: fields that nothing on the
//! modelled path tests yet (marks, connection state, TCP flags, hardware addresses).

use canreach_snapshot::Family;

/// A field. The derived order is the order of the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The transport protocol number.
    L4proto,
    /// The index of the link it comes in by.
    Iif,
    /// The port dialled.
    DestinationPort,
    /// The address dialled.
    Destination,
    /// The source address.
    Source,
    /// The source port.
    SourcePort,
    /// Something that cannot be judged: 0 for "does not happen", anything else for "happens"; or a
    /// number that is not known.
    Unknown(u16),
}

impl Field {
    /// Its highest value; the lowest is 0.
    #[must_use]
    pub const fn last(self, family: Family) -> u128 {
        match self {
            Self::L4proto => 0xff,
            Self::Iif => 0xffff_ffff,
            Self::DestinationPort | Self::SourcePort => 0xffff,
            Self::Destination | Self::Source => match family {
                Family::Ipv4 => 0xffff_ffff,
                Family::Ipv6 => u128::MAX,
            },
            Self::Unknown(_) => u128::MAX,
        }
    }
}
