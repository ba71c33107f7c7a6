//! Sockets as the kernel keeps them: by protocol and port, in chain order.
//!
//! Kernel counterparts: `inet_lhash2` (net/ipv4/inet_hashtables.c), `udp_table`
//! (net/ipv4/udp.c). A bucket (address, port) is the run of sockets of one port that have the
//! address; the order of the dump is the order of its chain. Left out: established TCP connections,
//! which no first packet reaches.

use std::net::IpAddr;

use canreach_snapshot::{Family, Netns, Port, Proto, Socket};

use crate::SocketIndex;

/// Sockets by protocol and port.
#[derive(Debug)]
pub struct SocketTable {
    sorted: Vec<(Proto, Port, usize)>,
}

impl SocketTable {
    /// Indexes the sockets of a namespace.
    pub(crate) fn new(netns: &Netns) -> Self {
        let keys = netns
            .sockets
            .iter()
            .enumerate()
            .map(|(index, socket)| (socket.proto, socket.port, index));
        let mut sorted: Vec<_> = keys.collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The sockets of a protocol and port, in the order of the dump.
    pub fn of_port(&self, proto: Proto, port: Port) -> impl Iterator<Item = SocketIndex> + '_ {
        let start = self.sorted.partition_point(|(p, q, _)| (*p, *q) < (proto, port));
        self.sorted[start..]
            .iter()
            .take_while(move |(p, q, _)| (*p, *q) == (proto, port))
            .map(|(_, _, index)| SocketIndex(*index))
    }
}

/// The address a socket receives at, as packets of one family see it: `None` if it takes none of
/// them. An AF_INET6 socket that is not IPv6 only takes IPv4 too: bound to `::` at every address,
/// bound to a mapped address at that one.
#[must_use]
pub fn receive_address(socket: &Socket, family: Family) -> Option<IpAddr> {
    match (family, socket.family, socket.address) {
        (Family::Ipv4, Family::Ipv4, IpAddr::V4(_)) => Some(socket.address),
        // Bound to a mapped address, it speaks IPv4 alone.
        (Family::Ipv6, Family::Ipv6, IpAddr::V6(address)) => {
            if address.to_ipv4_mapped().is_none() {
                Some(socket.address)
            } else {
                None
            }
        }
        (Family::Ipv4, Family::Ipv6, IpAddr::V6(address)) => {
            // Not told (text files of /proc): a doubt of its own says so, where it matters.
            if socket.v6only == Some(true) {
                None
            } else if address.is_unspecified() {
                Some(Family::Ipv4.unspecified())
            } else {
                address.to_ipv4_mapped().map(IpAddr::V4)
            }
        }
        (Family::Ipv6, Family::Ipv4, _)
        | (Family::Ipv4, Family::Ipv4, IpAddr::V6(_))
        | (_, Family::Ipv6, IpAddr::V4(_)) => None,
    }
}
