//! Sockets that wait for a first packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use canreach_collect::sock_diag::SocketQuery;
use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};
use canreach_snapshot::{
    Backlog, Family, Ifindex, Mark, Netns, Port, Proto, Socket, SocketState, link::LOOPBACK_IFINDEX,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use crate::namespace::{Namespace, everything, gaps};

fn find(netns: &Netns, proto: Proto, port: u16) -> &Socket {
    let mut sockets = netns.sockets.iter();
    sockets
        .find(|socket| socket.proto == proto && socket.port == Port(port))
        .unwrap_or_else(|| panic!("{} {port} is there", proto.name()))
}

#[test]
fn listeners_and_udp_sockets_are_read_and_connections_are_not() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip("link set lo up");
    let made = namespace.inside(|| {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 1000)).expect("it is free");
        let dual = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 2000)).expect("it is free");
        let udp = UdpSocket::bind((Ipv6Addr::LOCALHOST, 3000)).expect("it is free");
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 4000)).expect("it is free");
        client.connect((Ipv4Addr::LOCALHOST, 53)).expect("UDP connects to anything");
        let one = TcpStream::connect((Ipv4Addr::LOCALHOST, 1000)).expect("it listens");
        (v4, dual, udp, client, one)
    });
    let netns = namespace.read();
    assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);
    assert_eq!(netns.sockets.len(), 4, "{:?}", netns.sockets);

    let v4 = find(&netns, Proto::Tcp, 1000);
    assert_eq!((v4.family, v4.state), (Family::Ipv4, SocketState::Listen));
    assert_eq!((v4.address, v4.v6only), (IpAddr::V4(Ipv4Addr::LOCALHOST), None));
    assert_eq!(v4.backlog.map(|backlog| backlog.used), Some(1), "nobody accepted it yet");
    assert!(v4.backlog.is_some_and(|backlog| backlog.limit >= 128 && !backlog.is_full()));
    assert_eq!((v4.mark, v4.transparent, v4.freebind), (Some(Mark(0)), Some(false), Some(false)));
    assert!(v4.inode != 0 && v4.cgroup.is_some());
    assert!(!v4.mptcp);

    let dual = find(&netns, Proto::Tcp, 2000);
    assert_eq!((dual.family, dual.v6only), (Family::Ipv6, Some(false)));
    assert!(dual.is_wildcard());
    let udp = find(&netns, Proto::Udp, 3000);
    assert_eq!((udp.state, udp.peer, udp.backlog), (SocketState::Unconnected, None, None));
    let client = find(&netns, Proto::Udp, 4000);
    let peer = Some((IpAddr::V4(Ipv4Addr::LOCALHOST), Port(53)));
    assert_eq!((client.state, client.peer), (SocketState::Connected, peer));
    drop(made);
}

#[test]
fn options_of_sockets_are_read() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip("link set lo up");
    let made = namespace.inside(|| {
        let make = |family, protocol| {
            let flags = SocketFlags::CLOEXEC;
            socket_with(family, SocketType::STREAM, flags, protocol).expect("it can be made")
        };
        let listen = |fd: &std::os::fd::OwnedFd, address: SocketAddr, backlog| {
            rustix::net::bind(fd.as_fd(), &address).expect("it is free");
            rustix::net::listen(fd.as_fd(), backlog).expect("it can listen");
        };
        let only = make(AddressFamily::INET6, None);
        sockopt::set_ipv6_v6only(&only, true).expect("it is not bound yet");
        listen(&only, (Ipv6Addr::UNSPECIFIED, 1000).into(), 3);
        // The scope of a link-local bind is its device; `lo` takes any.
        let free = make(AddressFamily::INET, None);
        sockopt::set_ip_freebind(&free, true).expect("anybody may");
        listen(&free, (Ipv4Addr::new(203, 0, 113, 9), 2000).into(), 7);
        let multipath = rustix::net::Protocol::from_raw(262.try_into().expect("it is not 0"));
        let mptcp = make(AddressFamily::INET, Some(multipath));
        listen(&mptcp, (Ipv4Addr::LOCALHOST, 3000).into(), 1);
        let plain = make(AddressFamily::INET, Some(ipproto::TCP));
        listen(&plain, (Ipv4Addr::LOCALHOST, 4000).into(), 1);
        (only, free, mptcp, plain)
    });
    let netns = namespace.read();
    assert_eq!(find(&netns, Proto::Tcp, 1000).v6only, Some(true));
    assert_eq!(find(&netns, Proto::Tcp, 1000).backlog, Some(Backlog { used: 0, limit: 3 }));
    assert_eq!(find(&netns, Proto::Tcp, 2000).freebind, Some(true));
    assert!(find(&netns, Proto::Tcp, 3000).mptcp);
    assert!(!find(&netns, Proto::Tcp, 4000).mptcp);
    assert_eq!(find(&netns, Proto::Tcp, 4000).device, None);
    drop(made);
}

#[test]
fn a_question_about_one_port_reads_that_port() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip("link set lo up");
    let made = namespace.inside(|| {
        [1000, 2000].map(|port| {
            let any = (Ipv6Addr::UNSPECIFIED, port);
            (TcpListener::bind(any).expect("it is free"), UdpSocket::bind(any).expect("free"))
        })
    });
    for (scope, expected) in [
        (SocketScope::Port(Proto::Tcp, Port(1000)), vec![(Proto::Tcp, Port(1000))]),
        (SocketScope::Port(Proto::Udp, Port(2000)), vec![(Proto::Udp, Port(2000))]),
        (SocketScope::Port(Proto::Udp, Port(3000)), vec![]),
        (SocketScope::None, vec![]),
    ] {
        let netns = NetnsChoice::Process(namespace.pid());
        let scope = Scope { netns, sockets: scope, ..everything() };
        let netns = collect(&scope).expect("it can be read").namespaces.remove(0);
        let sockets: Vec<_> =
            netns.sockets.iter().map(|socket| (socket.proto, socket.port)).collect();
        assert_eq!(sockets, expected, "{scope:?}");
        assert_eq!(gaps(&netns).is_empty(), scope.sockets != SocketScope::None, "{:?}", netns.gaps);
    }
    drop(made);
}

#[test]
fn a_socket_bound_to_a_device_names_it() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip("link set lo up\naddress add fe80::1/64 dev lo nodad");
    let bound = namespace.inside(|| {
        let address = std::net::SocketAddrV6::new("fe80::1".parse().expect("it is"), 1000, 0, 1);
        TcpListener::bind(address).expect("the scope names lo")
    });
    let netns = namespace.read();
    assert_eq!(find(&netns, Proto::Tcp, 1000).device, Some(LOOPBACK_IFINDEX));
    drop(bound);
}

/// The kernel's own lookup, asked for packets that come in on a link: what it must and must not
/// find is that of the kernel, so this holds the request against it, not the kernel against us.
#[test]
fn the_exact_query_asks_for_the_packet_that_is_meant() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip("link set lo up
link add left type veth peer name right
link set left up
link set right up
address add 192.0.2.10/24 dev left
address add 2001:db8::10/64 dev left nodad
address add fe80::10/64 dev left nodad
");
    let netns = namespace.read_settled();
    let left = netns.link_named("left").expect("it was made").ifindex;
    let (lo, any) = (LOOPBACK_IFINDEX, Port(0));
    let ip = |text: &str| -> IpAddr { text.parse().expect("it is an address") };
    namespace.inside(|| {
        let mut query = SocketQuery::open().expect("sock_diag is there");
        let mut check = |proto, bound: &str, packets: &[(&str, &str, Ifindex, bool)]| {
            let bound: SocketAddr = bound.parse().expect("it is an address and a port");
            let (tcp, udp);
            match proto {
                Proto::Tcp => (tcp, udp) = (Some(TcpListener::bind(bound).expect("free")), None),
                Proto::Udp => (tcp, udp) = (None, Some(UdpSocket::bind(bound).expect("free"))),
            }
            for &(from, to, on, found) in packets {
                let (from, to) = ((ip(from), any), (ip(to), Port(bound.port())));
                let answer = query.lookup(proto, from, to, on).expect("it answers");
                assert_eq!(
                    answer.is_some(),
                    found,
                    "{proto:?} {bound}: {from:?} -> {to:?} on {on:?}"
                );
            }
            drop((tcp, udp));
        };
        for proto in Proto::BOTH {
            check(
                proto,
                "127.0.0.1:1000",
                &[("192.0.2.77", "192.0.2.10", left, false), ("127.0.0.1", "127.0.0.1", lo, true)],
            );
            check(
                proto,
                "0.0.0.0:1000",
                &[
                    ("192.0.2.77", "192.0.2.10", left, true),
                    ("2001:db8::7", "2001:db8::10", left, false),
                ],
            );
            check(
                proto,
                "[::]:1000",
                &[
                    ("192.0.2.77", "192.0.2.10", left, true),
                    ("2001:db8::7", "2001:db8::10", left, true),
                ],
            );
            check(
                proto,
                "192.0.2.10:1000",
                &[
                    ("192.0.2.77", "192.0.2.10", left, true),
                    ("192.0.2.77", "127.0.0.1", left, false),
                ],
            );
            let scoped = format!("[fe80::10%{}]:1000", left.0);
            check(
                proto,
                &scoped,
                &[("fe80::7", "fe80::10", left, true), ("fe80::7", "fe80::10", lo, false)],
            );
        }
    });
}
