//! What is asked: from whom, to which address and port, by which way in.

use std::net::IpAddr;

use canreach_snapshot::{Family, Port, Proto};

use crate::{AddressSet, Arrival};

/// One question, with nothing left open: every source of a set, one destination, one way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// TCP or UDP.
    pub proto: Proto,
    /// The port dialled.
    pub port: Port,
    /// The sources asked about, all of the destination's family. For [`Arrival::Local`] it is
    /// ignored: the kernel chooses the source.
    pub from: AddressSet,
    /// The address dialled.
    pub to: IpAddr,
    /// Where the packet comes in.
    pub via: Arrival,
}

impl Question {
    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.to)
    }
}
