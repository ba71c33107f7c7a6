//! What an answer says beside the fate, which random hosts check: every blocker, groups by source
//! port, the order of steps, the verdict, and that a walk which remembers answers like a fresh one.

use canreach_snapshot::{
    Address, AddressFlags, Backlog, Cookie, Family, FibLayout, Ifindex, Link, LinkFlags, LinkKind,
    LinkSysctl, Netns, NextHop, NextHopFlags, OperState, Port, Proto, Route, RouteProtocol,
    RouteType, Scope, Socket, SocketState, TableId,
};

use crate::path::{Walk, answer, answer_with};
use crate::{AddressSet, Answer, Arrival, Host, Outcome, Question, Verdict};

fn link(index: u32, name: &str, flags: u32) -> Link {
    Link {
        ifindex: Ifindex(index),
        name: name.to_owned(),
        kind: if index == 1 { LinkKind::Loopback } else { LinkKind::Ethernet },
        flags: LinkFlags(LinkFlags::UP.0 | LinkFlags::LOWER_UP.0 | flags),
        operstate: OperState::Up,
        mtu: 1500,
        group: 0,
        mac: None,
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: None,
        wireless: None,
    }
}

fn route(table: TableId, kind: RouteType, to: &str, gateway: Option<&str>, device: u32) -> Route {
    let nexthop = NextHop {
        ifindex: Some(Ifindex(device)),
        gateway: gateway.map(|gateway| gateway.parse().expect(gateway)),
        weight: 1,
        flags: NextHopFlags::default(),
        encapsulated: false,
    };
    Route {
        table,
        kind,
        destination: to.parse().expect(to),
        source: None,
        tos: 0,
        scope: if gateway.is_some() { Scope::UNIVERSE } else { Scope::LINK },
        protocol: RouteProtocol::KERNEL,
        metric: 0,
        preferred_source: None,
        preference: None,
        flags: 0,
        nexthops: vec![nexthop],
        nexthop_id: None,
        realm: None,
    }
}

fn socket(proto: Proto, address: &str, port: u16, peer: Option<(&str, u16)>) -> Socket {
    Socket {
        proto,
        mptcp: false,
        family: Family::Ipv4,
        state: match (proto, peer) {
            (Proto::Tcp, _) => SocketState::Listen,
            (Proto::Udp, None) => SocketState::Unconnected,
            (Proto::Udp, Some(_)) => SocketState::Connected,
        },
        address: address.parse().expect(address),
        port: Port(port),
        peer: peer.map(|(peer, port)| (peer.parse().expect(peer), Port(port))),
        device: None,
        v6only: None,
        mark: None,
        transparent: None,
        freebind: None,
        uid: 0,
        inode: 0,
        cookie: Cookie(0),
        cgroup: None,
        backlog: None,
    }
}

/// `lo`, and `eth0` with 10.0.0.1/24 and a default route.
fn host(sockets: Vec<Socket>) -> Netns {
    let prefix = "10.0.0.1/24".parse().expect("a prefix");
    Netns {
        links: vec![link(1, "lo", LinkFlags::LOOPBACK.0), link(2, "eth0", 0)],
        addresses: vec![Address {
            ifindex: Ifindex(2),
            prefix,
            peer: None,
            broadcast: None,
            scope: Scope::UNIVERSE,
            flags: AddressFlags::PERMANENT,
            label: None,
            preferred_lifetime_s: None,
            valid_lifetime_s: None,
        }],
        routes: vec![
            route(TableId::LOCAL, RouteType::Local, "127.0.0.0/8", None, 1),
            route(TableId::LOCAL, RouteType::Local, "10.0.0.1/32", None, 2),
            route(TableId::LOCAL, RouteType::Broadcast, "10.0.0.255/32", None, 2),
            route(TableId::MAIN, RouteType::Unicast, "10.0.0.0/24", None, 2),
            route(TableId::MAIN, RouteType::Unicast, "0.0.0.0/0", Some("10.0.0.254"), 2),
        ],
        fib_layout: FibLayout::Merged,
        sockets,
        ..Netns::default()
    }
}

fn question(proto: Proto, from: &str, to: &str) -> Question {
    Question {
        proto,
        port: Port(80),
        from: AddressSet::from_prefixes(Family::Ipv4, [from.parse().expect(from)]),
        to: to.parse().expect(to),
        via: Arrival::Link(Ifindex(2)),
    }
}

fn ask(netns: &Netns, proto: Proto, from: &str, to: &str) -> Answer {
    answer(&Host::resolve(netns), &question(proto, from, to))
}

fn blockers(answer: &Answer) -> Vec<&'static str> {
    answer.groups[0].blockers.iter().map(|blocker| blocker.reason.slug()).collect()
}

#[test]
fn every_blocker_is_found_in_path_order() {
    let check = |change: fn(&mut Netns), from: &str, expected: &[&str]| {
        let mut netns = host(vec![socket(Proto::Tcp, "127.0.0.1", 80, None)]);
        change(&mut netns);
        assert_eq!(blockers(&ask(&netns, Proto::Tcp, from, "10.0.0.1")), expected);
    };
    check(|_| {}, "10.0.0.7/32", &["bind-loopback"]);
    check(
        |netns| netns.links[1].flags.0 &= !LinkFlags::UP.0,
        "10.0.0.7/32",
        &["link-down", "bind-loopback"],
    );
    check(
        |netns| {
            netns.routes.truncate(3);
            netns.sysctls.all.insert(LinkSysctl::RpFilter, 1);
        },
        "8.8.8.8/32",
        &["rp-filter", "bind-loopback", "no-reply-route"],
    );
    check(
        |netns| {
            netns.sockets[0].address = "0.0.0.0".parse().expect("an address");
            netns.sockets[0].backlog = Some(Backlog { used: 2, limit: 1 });
            netns.routes.truncate(4);
        },
        "8.8.8.8/32",
        &["backlog-full", "no-reply-route"],
    );
}

#[test]
fn steps_follow_the_path_and_go_on_behind_a_stop() {
    let netns = host(vec![socket(Proto::Tcp, "127.0.0.1", 80, None)]);
    let answer = ask(&netns, Proto::Tcp, "10.0.0.7/32", "10.0.0.1");
    let stages: Vec<_> = answer.groups[0].steps.iter().map(|step| step.stage.slug()).collect();
    let expected = ["link", "ingress", "prerouting", "route", "input", "socket", "reply", "output"];
    assert_eq!(stages, expected);
}

#[test]
fn a_connected_socket_takes_one_port_of_one_source() {
    let netns = host(vec![
        socket(Proto::Udp, "10.0.0.1", 80, Some(("10.0.0.7", 5000))),
        socket(Proto::Udp, "10.0.0.1", 80, None),
    ]);
    let answer = ask(&netns, Proto::Udp, "10.0.0.6/31", "10.0.0.1");
    let groups: Vec<_> = answer
        .groups
        .iter()
        .map(|group| {
            let Outcome::Delivered(sockets) = &group.fate.outcome else { panic!("{group:?}") };
            (group.sources.to_string(), group.ports.clone(), sockets[0].0)
        })
        .collect();
    let text = |source: &str| source.to_owned();
    assert_eq!(
        groups,
        [
            (text("10.0.0.6/32"), None, 1),
            (text("10.0.0.7/32"), Some(vec![(0, 4999), (5001, 65535)]), 1),
            (text("10.0.0.7/32"), Some(vec![(5000, 5000)]), 0),
        ]
    );
}

#[test]
fn addresses_nobody_can_send_from_do_not_count() {
    let netns = host(vec![socket(Proto::Tcp, "0.0.0.0", 80, None)]);
    let check = |from: &str, verdict: Verdict, unsendable: &str| {
        let answer = ask(&netns, Proto::Tcp, from, "10.0.0.1");
        assert_eq!((answer.verdict, answer.unsendable.to_string().as_str()), (verdict, unsendable));
    };
    check("10.0.0.0/24", Verdict::Yes, "10.0.0.1/32, 10.0.0.255/32");
    // Asked about alone, it counts.
    check("10.0.0.1/32", Verdict::No, "10.0.0.1/32");
    check("10.0.0.2/32", Verdict::Yes, "");
}

#[test]
fn a_walk_that_remembers_answers_like_a_fresh_one() {
    let mut sockets = vec![socket(Proto::Tcp, "0.0.0.0", 80, None)];
    sockets.push(socket(Proto::Tcp, "127.0.0.1", 81, None));
    sockets.push(socket(Proto::Udp, "0.0.0.0", 80, None));
    let netns = host(sockets);
    let host = Host::resolve(&netns);
    let mut walk = Walk::new(&host, Family::Ipv4);
    for from in ["0.0.0.0/0", "10.0.0.0/24", "8.8.8.8/32"] {
        for to in ["10.0.0.1", "10.0.0.2", "127.0.0.1", "10.0.0.255"] {
            for (proto, port) in [(Proto::Tcp, 80), (Proto::Tcp, 81), (Proto::Udp, 80)] {
                let question = Question { port: Port(port), ..question(proto, from, to) };
                let fresh = answer(&host, &question);
                assert_eq!(answer_with(&mut walk, &host, &question), fresh, "{question:?}");
            }
        }
    }
}
