//! Sockets from /proc/net/{tcp,tcp6,udp,udp6}, for systems where sock_diag cannot be asked.
//!
//! Each file is a table of every socket, connections included, so it is read line by line. It has no
//! bound device, no v6only, no control group, no limit of the backlog and no cookie.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::{Cookie, Family, Port, Proto, Socket, SocketState};

/// Reads the sockets of one table that can receive a first packet. A port of 0 asks for all.
pub(crate) fn read(proto: Proto, family: Family, port: Port) -> io::Result<Vec<Socket>> {
    read_lines(proto, family, port, |line| socket(proto, family, line))
}

/// Reads the TCP connections whose near end has a port.
pub(crate) fn read_connections(family: Family, port: Port) -> io::Result<Vec<Socket>> {
    read_lines(Proto::Tcp, family, port, |line| connection(family, line))
}

fn read_lines(
    proto: Proto,
    family: Family,
    port: Port,
    read_line: impl Fn(&str) -> Option<Socket>,
) -> io::Result<Vec<Socket>> {
    let suffix = match family {
        Family::Ipv4 => "",
        Family::Ipv6 => "6",
    };
    // Of the thread: /proc/net would show the namespace of the process.
    let file = File::open(format!("/proc/thread-self/net/{}{suffix}", proto.name()))?;
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut sockets = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let socket = str::from_utf8(&line).ok().and_then(&read_line);
        sockets.extend(socket.filter(|socket| port == Port(0) || socket.port == port));
        line.clear();
    }
    Ok(once(sockets))
}

/// The kernel finds its place in the table again by counting, so that a socket comes twice where
/// another was added before it meanwhile. Inode 0 stands for "none".
fn once(mut sockets: Vec<Socket>) -> Vec<Socket> {
    let mut seen = HashSet::new();
    sockets.retain(|socket| socket.inode == 0 || seen.insert(socket.inode));
    sockets
}

/// Reads a line; `None` for the heading and for states that cannot receive a first packet.
fn socket(proto: Proto, family: Family, line: &str) -> Option<Socket> {
    row(proto, family, line, |state| match (proto, state) {
        (Proto::Tcp, "0A") => Some(SocketState::Listen),
        (Proto::Udp, "07") => Some(SocketState::Unconnected),
        (Proto::Udp, "01") => Some(SocketState::Connected),
        _ => None,
    })
}

/// Reads a line; `None` for the heading and for what is no connection that a program still holds:
/// listeners, and those that wait out their time (inode 0).
fn connection(family: Family, line: &str) -> Option<Socket> {
    let state = |state: &str| (state != "0A").then_some(SocketState::Connected);
    row(Proto::Tcp, family, line, state).filter(|socket| socket.inode != 0)
}

/// Fields: number, local address, remote address, state, queues, timer, retransmissions, uid,
/// timeout, inode (net/ipv4/tcp_ipv4.c, `get_tcp4_sock`).
fn row(
    proto: Proto,
    family: Family,
    line: &str,
    state: impl Fn(&str) -> Option<SocketState>,
) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = endpoint(family, fields.next()?)?;
    let (peer, peer_port) = endpoint(family, fields.next()?)?;
    let state = state(fields.next()?)?;
    let mut fields = fields.skip(3);
    let uid = fields.next()?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Socket {
        proto,
        mptcp: false,
        family,
        state,
        address,
        port,
        peer: (state == SocketState::Connected).then_some((peer, peer_port)),
        device: None,
        v6only: None,
        mark: None,
        transparent: None,
        freebind: None,
        uid,
        inode,
        cookie: Cookie(0),
        cgroup: None,
        backlog: None,
    })
}

/// Reads `0100007F:1F90`: words of the address as the machine holds them, and the port.
fn endpoint(family: Family, text: &str) -> Option<(IpAddr, Port)> {
    let (address, port) = text.split_once(':')?;
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let (address, length) = match family {
        Family::Ipv4 => (IpAddr::V4(Ipv4Addr::from(word(0)?)), address.len() / 8),
        Family::Ipv6 => {
            let octets = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets = octets.as_flattened().first_chunk::<16>()?;
            (IpAddr::V6(Ipv6Addr::from(*octets)), address.len() / 32)
        }
    };
    (length == 1).then_some((address, Port(u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn lines_are_read_and_other_states_left_out() {
        let check = |proto, family, line: &str, expected: Option<(&str, u16, u32, u64)>| {
            let read = socket(proto, family, line);
            let read =
                read.map(|read| (read.address.to_string(), read.port.0, read.uid, read.inode));
            let expected =
                expected.map(|(address, port, uid, inode)| (address.to_owned(), port, uid, inode));
            assert_eq!(read, expected, "{line}");
        };
        let (tcp, udp) = (Proto::Tcp, Proto::Udp);
        let (v4, v6) = (Family::Ipv4, Family::Ipv6);
        let rest = "00000000:00000001 00:00000000 00000000  1000        0 4711 1 x";
        if cfg!(target_endian = "little") {
            let line = format!("0: 0100007F:1F90 00000000:0000 0A {rest}");
            check(tcp, v4, &line, Some(("127.0.0.1", 8080, 1000, 4711)));
            let line = format!("0: 00000000000000000000000001000000:0035 {:032}:0000 07 {rest}", 0);
            check(udp, v6, &line, Some(("::1", 53, 1000, 4711)));
        }
        let line = format!("0: 00000000:1F90 00000000:0000 0A {rest}");
        check(tcp, v4, &line, Some(("0.0.0.0", 8080, 1000, 4711)));
        check(tcp, v6, &line, None);
        check(udp, v4, &line, None);
        check(tcp, v4, &line.replace("0A", "01"), None);
        check(tcp, v4, "  sl  local_address rem_address   st tx_queue rx_queue", None);
        check(tcp, v4, "", None);
        check(tcp, v4, "0: 00000000:1F90 00000000:0000 0A", None);
        check(tcp, v4, "0: zz000000:1F90 00000000:0000 0A", None);
    }

    #[test]
    fn a_socket_that_comes_twice_is_one() {
        let line = |inode: u64| {
            let text = format!(
                "0: 00000000:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0 0 {inode} 1"
            );
            socket(Proto::Tcp, Family::Ipv4, &text).unwrap()
        };
        let inodes: Vec<u64> =
            once([7, 8, 7, 0, 0].map(line).to_vec()).iter().map(|socket| socket.inode).collect();
        assert_eq!(inodes, [7, 8, 0, 0]);
    }

    #[test]
    fn own_sockets_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        for (proto, address) in
            [(Proto::Tcp, tcp.local_addr().unwrap()), (Proto::Udp, udp.local_addr().unwrap())]
        {
            let family = Family::of(address.ip());
            let found = read(proto, family, Port(address.port())).unwrap();
            let found: Vec<_> = found.iter().map(|socket| (socket.address, socket.port)).collect();
            assert_eq!(found, [(address.ip(), Port(address.port()))]);
        }
    }
}
