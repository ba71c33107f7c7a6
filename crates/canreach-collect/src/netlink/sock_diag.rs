//! Sockets over `NETLINK_SOCK_DIAG` (net/ipv4/inet_diag.c): listing them, and the exact query.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::{
    Backlog, CgroupId, Cookie, Family, Ifindex, Mark, Port, Proto, Socket, SocketState,
};

use super::attr::{Attributes, Malformed, family_of, number_of, push, split_header};
use super::message::Message;
use super::socket::{NetlinkFamily, NetlinkSocket};
use crate::error::ReadError;

/// `SOCK_DIAG_BY_FAMILY`.
pub(crate) const BY_FAMILY: u16 = 20;

/// States of include/net/tcp_states.h, which UDP borrows.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

const V6_ONLY: u16 = 11;
const MARK: u16 = 15;
const CGROUP_ID: u16 = 21;
const SOCKET_OPTIONS: u16 = 22;
/// `INET_DIAG_REQ_PROTOCOL`: a protocol number that needs more than a byte.
const REQUEST_PROTOCOL: u16 = 3;
/// `IPPROTO_MPTCP`.
const MPTCP: u32 = 262;

/// `INET_DIAG_NOCOOKIE`, in both words: any socket. Zero would look for a socket that has it.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Length of `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const REQUEST_LENGTH: usize = 56;
const ROW_LENGTH: usize = 72;

/// The request that lists sockets that can receive a first packet. A port of 0 asks for all.
///
/// TCP asks for listeners alone: with any other state the kernel walks its table of connections.
pub(crate) fn list_request(proto: Proto, family: Family, port: Port) -> Vec<u8> {
    let states: u32 = match proto {
        Proto::Tcp => 1 << LISTEN,
        Proto::Udp => 1 << CLOSE | 1 << ESTABLISHED,
    };
    let mut request = Vec::with_capacity(REQUEST_LENGTH);
    request.extend([number_of(family), proto.number(), 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(port.0.to_be_bytes());
    request.resize(REQUEST_LENGTH, 0);
    request
}

/// The request that lists listeners of Multipath TCP.
pub(crate) fn list_mptcp_request(family: Family, port: Port) -> Vec<u8> {
    let mut request = list_request(Proto::Tcp, family, port);
    push(&mut request, REQUEST_PROTOCOL, &MPTCP.to_ne_bytes());
    request
}

/// Decodes one row; `None` for states that cannot receive a first packet.
pub(crate) fn decode(proto: Proto, message: &Message<'_>) -> Result<Option<Socket>, Malformed> {
    let (header, attributes) = split_header::<ROW_LENGTH>(message.kind, message.payload)?;
    let (id, rest) = header.split_at(4);
    let &[family, state, ..] = id else { return Ok(None) };
    let state = match (proto, state) {
        (Proto::Tcp, LISTEN) => SocketState::Listen,
        (Proto::Udp, CLOSE) => SocketState::Unconnected,
        (Proto::Udp, ESTABLISHED) => SocketState::Connected,
        _ => return Ok(None),
    };
    let Some(family) = family_of(family) else { return Ok(None) };
    let fixed = Fixed::read(family, rest);
    let mut socket = Socket {
        proto,
        mptcp: false,
        family,
        state,
        address: fixed.source,
        port: fixed.source_port,
        peer: (state == SocketState::Connected)
            .then_some((fixed.destination, fixed.destination_port)),
        device: Some(fixed.ifindex).filter(|index| index.0 != 0),
        v6only: None,
        mark: None,
        transparent: None,
        freebind: None,
        uid: fixed.uid,
        inode: u64::from(fixed.inode),
        cookie: fixed.cookie,
        cgroup: None,
        backlog: (proto == Proto::Tcp)
            .then_some(Backlog { used: fixed.receive_queue, limit: fixed.send_queue }),
    };
    read_attributes(&mut socket, attributes)?;
    Ok(Some(socket))
}

fn read_attributes(socket: &mut Socket, attributes: Attributes<'_>) -> Result<(), Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            V6_ONLY if socket.family == Family::Ipv6 => socket.v6only = Some(attribute.u8()? != 0),
            MARK => socket.mark = Some(Mark(attribute.u32()?)),
            CGROUP_ID => socket.cgroup = Some(CgroupId(attribute.u64()?)),
            SOCKET_OPTIONS => {
                // Bit fields of `struct inet_diag_sockopt`, which follow the byte order.
                let bits = attribute.u8()?;
                let bits = if cfg!(target_endian = "big") { bits.reverse_bits() } else { bits };
                socket.freebind = Some(bits & 1 << 2 != 0);
                socket.transparent = Some(bits & 1 << 5 != 0);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The fixed part of a row, after family and state.
struct Fixed {
    source: IpAddr,
    source_port: Port,
    destination: IpAddr,
    destination_port: Port,
    ifindex: Ifindex,
    cookie: Cookie,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

impl Fixed {
    /// `bytes` are the 68 after family, state, timer and retransmissions.
    fn read(family: Family, bytes: &[u8]) -> Self {
        let word = |at: usize| {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
            bytes.copied().map_or(0, u32::from_ne_bytes)
        };
        let port = |at: usize| {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
            Port(bytes.copied().map_or(0, u16::from_be_bytes))
        };
        let address = |at: usize| {
            let rest = bytes.get(at..).unwrap_or_default();
            match family {
                Family::Ipv4 => rest
                    .first_chunk::<4>()
                    .copied()
                    .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |octets| {
                        IpAddr::V4(Ipv4Addr::from(octets))
                    }),
                Family::Ipv6 => rest
                    .first_chunk::<16>()
                    .copied()
                    .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |octets| {
                        IpAddr::V6(Ipv6Addr::from(octets))
                    }),
            }
        };
        Self {
            source_port: port(0),
            destination_port: port(2),
            source: address(4),
            destination: address(20),
            ifindex: Ifindex(word(36)),
            // Two words, the low one first (net/core/sock_diag.c, `sock_diag_save_cookie`).
            cookie: Cookie(u64::from(word(40)) | u64::from(word(44)) << 32),
            receive_queue: word(52),
            send_queue: word(56),
            uid: word(60),
            inode: word(64),
        }
    }
}

/// Asks the kernel which socket gets one packet.
///
/// The packet goes from `source` and `source_port` to `destination` and `destination_port`, both of
/// one family, and comes in on the link `ifindex`. The kernel runs its own lookup and nothing else:
/// whether the packet gets this far, and whether the socket takes it, is not asked. A `source_port`
/// of 0 finds the listener; with the port of a living TCP connection the kernel would find that
/// connection, which is no answer here. See [`list`](list_request) for the way to know that the kernel can be asked at
/// all: one without the module answers that nobody listens.
pub(crate) fn lookup_request(
    proto: Proto,
    source: (IpAddr, Port),
    destination: (IpAddr, Port),
    ifindex: Ifindex,
) -> Vec<u8> {
    // TCP puts this machine's side first (net/ipv4/inet_diag.c, `inet_diag_find_one_icsk`), UDP
    // the sender's (net/ipv4/udp_diag.c, `udp_dump_one`).
    let (first, second) = match proto {
        Proto::Tcp => (destination, source),
        Proto::Udp => (source, destination),
    };
    let mut request = Vec::with_capacity(REQUEST_LENGTH);
    request.extend([number_of(Family::of(destination.0)), proto.number(), 0, 0]);
    request.extend([0xff; 4]);
    request.extend(first.1.0.to_be_bytes());
    request.extend(second.1.0.to_be_bytes());
    request.extend(address_bytes(first.0));
    request.extend(address_bytes(second.0));
    request.extend(ifindex.0.to_ne_bytes());
    request.extend(NO_COOKIE);
    request
}

fn address_bytes(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [bytes[0], bytes[1], bytes[2], bytes[3]] = [a, b, c, d];
        }
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    bytes
}

/// Puts exact queries to the kernel, one packet each.
#[derive(Debug)]
pub struct SocketQuery {
    netlink: NetlinkSocket,
}

impl SocketQuery {
    /// Opens a query in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no sock_diag.
    pub fn open() -> io::Result<Self> {
        NetlinkSocket::open(NetlinkFamily::SockDiag).map(|netlink| Self { netlink })
    }

    /// The socket that gets a packet from `source` to `destination`, coming in on `ifindex`;
    /// `None` when the lookup finds none.
    ///
    /// The addresses must be of one family, and IPv4-mapped ones are IPv4: ask for those. A kernel
    /// without `tcp_diag` or `udp_diag` finds nothing, too.
    ///
    /// # Errors
    /// When the kernel refuses to answer.
    pub fn lookup(
        &mut self,
        proto: Proto,
        source: (IpAddr, Port),
        destination: (IpAddr, Port),
        ifindex: Ifindex,
    ) -> io::Result<Option<Socket>> {
        let request = lookup_request(proto, source, destination, ifindex);
        let answer = self
            .netlink
            .ask("look a socket up", BY_FAMILY, &request, |message| decode(proto, message));
        answer.map_err(|error| match error {
            ReadError::Os { source, .. } => source,
            other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
        })
    }
}

/// Asks once: see [`SocketQuery::lookup`].
///
/// # Errors
/// When the kernel has no sock_diag or refuses to answer.
pub fn lookup(
    proto: Proto,
    source: (IpAddr, Port),
    destination: (IpAddr, Port),
    ifindex: Ifindex,
) -> io::Result<Option<Socket>> {
    SocketQuery::open()?.lookup(proto, source, destination, ifindex)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

    use canreach_snapshot::link::LOOPBACK_IFINDEX;

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    /// The socket that a packet from `address` to `address` gets, by way of `lo`.
    fn asked(proto: Proto, address: IpAddr, port: u16) -> Option<Socket> {
        lookup(proto, (address, Port(0)), (address, Port(port)), LOOPBACK_IFINDEX).unwrap()
    }

    #[test]
    fn the_exact_query_finds_a_listener_by_each_family_it_takes() {
        let v4 = TcpListener::bind((V4, 0)).unwrap();
        let port = v4.local_addr().unwrap().port();
        let found = asked(Proto::Tcp, V4, port).expect("it listens");
        assert_eq!((found.address, found.port, found.state), (V4, Port(port), SocketState::Listen));
        assert_ne!(found.inode, 0);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(asked(Proto::Tcp, elsewhere, port), None);

        let dual = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = dual.local_addr().unwrap().port();
        for address in [V4, V6] {
            let found = asked(Proto::Tcp, address, port).expect("it takes both families");
            assert_eq!((found.family, found.v6only), (Family::Ipv6, Some(false)), "{address}");
        }
    }

    #[test]
    fn the_exact_query_finds_udp_sockets_unconnected_and_connected() {
        for address in [V4, V6] {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            let port = socket.local_addr().unwrap().port();
            let found = asked(Proto::Udp, address, port).expect("it is bound");
            assert_eq!((found.port, found.state), (Port(port), SocketState::Unconnected));

            socket.connect((address, 9)).unwrap();
            assert_eq!(asked(Proto::Udp, address, port), None, "the peer's port is not 0");
            let packet = ((address, Port(9)), (address, Port(port)));
            let found = lookup(Proto::Udp, packet.0, packet.1, LOOPBACK_IFINDEX).unwrap();
            let found = found.expect("from its peer");
            assert_eq!((found.state, found.peer), (SocketState::Connected, Some(packet.0)));
        }
    }

    #[test]
    fn a_query_opened_once_answers_many_times() {
        let socket = TcpListener::bind((V4, 0)).unwrap();
        let port = Port(socket.local_addr().unwrap().port());
        let mut query = SocketQuery::open().unwrap();
        for _ in 0..3 {
            let found = query.lookup(Proto::Tcp, (V4, Port(0)), (V4, port), LOOPBACK_IFINDEX);
            assert!(found.unwrap().is_some());
            let none = query.lookup(Proto::Tcp, (V4, Port(0)), (V4, Port(1)), LOOPBACK_IFINDEX);
            assert_eq!(none.unwrap(), None, "nobody has port 1 here");
        }
    }
}
