//! One concrete packet: the first of its flow, as a client put it on the wire.

use std::net::IpAddr;

use canreach_snapshot::{Family, Ifindex, Port, Proto};

/// The first packet of a flow: a TCP SYN, or a UDP datagram. Everything not named here has the value
/// that an ordinary client sends: no options, no marks, no fragments, the frame addressed to the
/// link's own hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// TCP or UDP.
    pub proto: Proto,
    /// Where it comes from. For [`Arrival::Local`] the unspecified address stands for "whatever the
    /// kernel chooses", which is what a client that does not bind(2) gets.
    pub source: IpAddr,
    /// The client's port.
    pub source_port: Port,
    /// The address dialled.
    pub destination: IpAddr,
    /// The port dialled.
    pub destination_port: Port,
    /// How it gets here.
    pub arrival: Arrival,
}

impl Packet {
    /// IPv4 or IPv6, by the address dialled.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

/// How a packet reaches the network stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// From the wire, on this link.
    Link(Ifindex),
    /// From a client program on this machine, run by this user, whose socket is bound to no link.
    Local {
        /// The client's user id, which policy rules can select by.
        uid: u32,
    },
}
