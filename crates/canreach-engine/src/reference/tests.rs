//! Hand-picked packets with known fates. Random hosts are in `tests/agreement.rs`.

use std::net::IpAddr;

use canreach_snapshot::{
    Address, AddressFlags, Family, FibLayout, Ifindex, Link, LinkFlags, LinkKind, Netns, NextHop,
    NextHopFlags, OperState, Port, Prefix, Proto, Route, RouteProtocol, RouteType, Scope, Socket,
    SocketState, TableId,
};

use super::walk;
use crate::{Arrival, DropReason, Fate, Outcome, Packet, SocketIndex, TheySee, UnknownReason};

const ETH0: Ifindex = Ifindex(2);

fn link(index: u32, name: &str, kind: LinkKind, flags: u32) -> Link {
    Link {
        ifindex: Ifindex(index),
        name: name.to_owned(),
        kind,
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

fn route(table: TableId, kind: RouteType, to: &str, via: Option<&str>, device: Ifindex) -> Route {
    Route {
        table,
        kind,
        destination: to.parse().expect(to),
        source: None,
        tos: 0,
        scope: match (kind, via) {
            (RouteType::Local, _) => Scope::HOST,
            (RouteType::Unicast, Some(_)) => Scope::UNIVERSE,
            (_, _) => Scope::LINK,
        },
        protocol: RouteProtocol::KERNEL,
        metric: 0,
        preferred_source: None,
        preference: None,
        flags: 0,
        nexthops: vec![NextHop {
            ifindex: Some(device),
            gateway: via.map(|via| via.parse().expect(via)),
            weight: 1,
            flags: NextHopFlags::default(),
            encapsulated: false,
        }],
        nexthop_id: None,
        realm: None,
    }
}

fn address(device: Ifindex, text: &str) -> Address {
    let prefix: Prefix = text.parse().expect(text);
    let scope = if prefix.address().is_loopback() { Scope::HOST } else { Scope::UNIVERSE };
    Address {
        ifindex: device,
        prefix,
        peer: None,
        broadcast: None,
        scope,
        flags: AddressFlags::PERMANENT,
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    }
}

/// `lo` and `eth0` with an address and a default route of each family.
pub(super) fn host() -> Netns {
    let lo = Ifindex(1);
    let (local, main) = (TableId::LOCAL, TableId::MAIN);
    Netns {
        links: vec![
            link(1, "lo", LinkKind::Loopback, LinkFlags::LOOPBACK.0),
            link(2, "eth0", LinkKind::Ethernet, LinkFlags::BROADCAST.0),
            link(3, "tun0", LinkKind::Tun, LinkFlags::POINT_TO_POINT.0),
            link(4, "eth1", LinkKind::Ethernet, LinkFlags::BROADCAST.0),
        ],
        addresses: vec![
            address(lo, "127.0.0.1/8"),
            address(lo, "::1/128"),
            address(ETH0, "192.168.1.20/24"),
            address(ETH0, "2001:db8::20/64"),
        ],
        routes: vec![
            route(local, RouteType::Local, "127.0.0.0/8", None, lo),
            route(local, RouteType::Local, "127.0.0.1", None, lo),
            route(local, RouteType::Local, "192.168.1.20", None, ETH0),
            route(local, RouteType::Broadcast, "192.168.1.255", None, ETH0),
            route(local, RouteType::Local, "::1", None, lo),
            route(local, RouteType::Local, "2001:db8::20", None, ETH0),
            route(main, RouteType::Unicast, "192.168.1.0/24", None, ETH0),
            route(main, RouteType::Unicast, "0.0.0.0/0", Some("192.168.1.1"), ETH0),
            route(main, RouteType::Unicast, "2001:db8::/64", None, ETH0),
            route(main, RouteType::Unicast, "::/0", Some("fe80::1"), ETH0),
        ],
        policy_rules: Family::BOTH.into_iter().flat_map(default_rules).collect(),
        fib_layout: FibLayout::Merged,
        ..Netns::default()
    }
}

fn default_rules(family: Family) -> Vec<canreach_snapshot::PolicyRule> {
    let rule = |priority, table| {
        canreach_snapshot::PolicyRule::new(
            family,
            priority,
            canreach_snapshot::PolicyAction::Lookup(table),
        )
    };
    vec![rule(0, TableId::LOCAL), rule(32766, TableId::MAIN)]
}

pub(super) fn listener(proto: Proto, text: &str) -> Socket {
    let address: IpAddr = text.parse().expect(text);
    Socket {
        proto,
        mptcp: false,
        family: Family::of(address),
        state: match proto {
            Proto::Tcp => SocketState::Listen,
            Proto::Udp => SocketState::Unconnected,
        },
        address,
        port: Port(80),
        peer: None,
        device: None,
        v6only: None,
        mark: None,
        transparent: None,
        freebind: None,
        uid: 0,
        inode: 1,
        cookie: canreach_snapshot::Cookie(1),
        cgroup: None,
        backlog: None,
    }
}

pub(super) fn packet(proto: Proto, from: &str, to: &str) -> Packet {
    Packet {
        proto,
        source: from.parse().expect(from),
        source_port: Port(40000),
        destination: to.parse().expect(to),
        destination_port: Port(80),
        arrival: Arrival::Link(ETH0),
    }
}

fn stopped(reason: DropReason, they_see: TheySee) -> Fate {
    Fate { outcome: Outcome::Stopped(reason), they_see: Some(they_see) }
}

fn delivered(they_see: TheySee) -> Fate {
    Fate { outcome: Outcome::Delivered(vec![SocketIndex(0)]), they_see: Some(they_see) }
}

const fn unknown(reason: UnknownReason) -> Fate {
    Fate { outcome: Outcome::Unknown(reason), they_see: None }
}

#[test]
fn where_a_server_is_bound_decides() {
    let check = |bound: &str, from: &str, to: &str, expected: Fate| {
        let netns = Netns { sockets: vec![listener(Proto::Tcp, bound)], ..host() };
        assert_eq!(walk(&netns, &packet(Proto::Tcp, from, to)), expected, "{bound} {from} {to}");
    };
    let (lan4, lan6) = ("192.168.1.66", "2001:db8::66");
    let (own4, own6) = ("192.168.1.20", "2001:db8::20");
    let connected = || delivered(TheySee::Connected);
    check("0.0.0.0", lan4, own4, connected());
    check("::", lan4, own4, connected());
    check("::", lan6, own6, connected());
    check("192.168.1.20", lan4, own4, connected());
    check("0.0.0.0", "203.0.113.5", own4, connected());
    check("127.0.0.1", lan4, own4, stopped(DropReason::BindLoopback, TheySee::Refused));
    check("::1", lan6, own6, stopped(DropReason::BindLoopback, TheySee::Refused));
    check("10.0.0.1", lan4, own4, stopped(DropReason::BindAddress, TheySee::Refused));
    check("0.0.0.0", lan6, own6, stopped(DropReason::BindAddress, TheySee::Refused));
}

#[test]
fn what_routing_refuses() {
    let check = |from: &str, to: &str, expected: Fate| {
        let netns = Netns { sockets: vec![listener(Proto::Tcp, "::")], ..host() };
        assert_eq!(walk(&netns, &packet(Proto::Tcp, from, to)), expected, "{from} {to}");
    };
    let unreachable = TheySee::HostUnreachable;
    check("127.0.0.1", "192.168.1.20", stopped(DropReason::Martian, TheySee::Timeout));
    check("192.168.1.20", "192.168.1.20", stopped(DropReason::OwnSource, unreachable));
    check("203.0.113.5", "127.0.0.1", stopped(DropReason::Martian, TheySee::Timeout));
    check("192.168.1.66", "192.168.1.21", stopped(DropReason::NotLocal, unreachable));
    check("203.0.113.5", "10.0.0.1", stopped(DropReason::NotLocal, TheySee::Timeout));
    check("2001:db8::66", "2001:db8::21", stopped(DropReason::NotLocal, unreachable));
    check("2001:db8:1::1", "::1", stopped(DropReason::Martian, TheySee::Timeout));
    check(
        "192.168.1.66",
        "192.168.1.255",
        stopped(DropReason::BroadcastDestination, TheySee::NetworkUnreachable),
    );
}

#[test]
fn the_answer_needs_a_way_back() {
    let reply = |from: &str, extra: Route| {
        let mut netns = Netns { sockets: vec![listener(Proto::Tcp, "0.0.0.0")], ..host() };
        netns.routes.push(extra);
        walk(&netns, &packet(Proto::Tcp, from, "192.168.1.20"))
    };
    let tun = Ifindex(3);
    let over = |to: &str, device| route(TableId::MAIN, RouteType::Unicast, to, None, device);
    assert_eq!(
        reply("203.0.113.5", over("203.0.113.0/24", tun)),
        stopped(DropReason::VpnReply, TheySee::Timeout)
    );
    assert_eq!(
        reply("203.0.113.5", over("203.0.113.0/24", Ifindex(4))),
        unknown(UnknownReason::ReplyElsewhere)
    );
    let lost = stopped(DropReason::NoReplyRoute, TheySee::Timeout);
    assert_eq!(reply("203.0.113.5", over("203.0.113.0/24", Ifindex(1))), lost);
    let blackhole = route(TableId::MAIN, RouteType::Blackhole, "203.0.113.0/24", None, tun);
    assert_eq!(
        reply("203.0.113.5", blackhole),
        stopped(DropReason::NoReplyRoute, TheySee::Timeout)
    );
}

/// A datagram from a wildcard socket leaves with the link's primary address.
#[test]
fn a_datagram_is_answered_from_the_address_the_kernel_chooses() {
    let mut netns = Netns { sockets: vec![listener(Proto::Udp, "0.0.0.0")], ..host() };
    let ask = |netns: &Netns, to| walk(netns, &packet(Proto::Udp, "192.168.1.66", to));
    assert_eq!(ask(&netns, "192.168.1.20"), delivered(TheySee::Delivered));
    netns.addresses.push(address(ETH0, "192.168.1.30/24"));
    netns.routes.push(route(TableId::LOCAL, RouteType::Local, "192.168.1.30", None, ETH0));
    assert_eq!(ask(&netns, "192.168.1.30"), unknown(UnknownReason::ReplyAddress));
    netns.sockets[0].address = "192.168.1.30".parse().expect("an address");
    assert_eq!(ask(&netns, "192.168.1.30"), delivered(TheySee::Delivered));
}

/// While nobody touched the policy rules, a more specific route in main hides a local prefix.
#[test]
fn merged_tables_search_local_and_main_as_one() {
    let mut netns = Netns { sockets: vec![listener(Proto::Tcp, "0.0.0.0")], ..host() };
    netns.routes.push(route(TableId::LOCAL, RouteType::Local, "10.9.0.0/16", None, Ifindex(1)));
    netns.routes.push(route(
        TableId::MAIN,
        RouteType::Unicast,
        "10.9.1.0/24",
        Some("192.168.1.1"),
        ETH0,
    ));
    let ask = |netns: &Netns| walk(netns, &packet(Proto::Tcp, "192.168.1.66", "10.9.1.1"));
    assert_eq!(ask(&netns), stopped(DropReason::NotLocal, TheySee::Timeout));
    netns.fib_layout = FibLayout::Split;
    assert_eq!(ask(&netns), delivered(TheySee::Connected));
    netns.fib_layout = FibLayout::Unknown;
    assert_eq!(ask(&netns), unknown(UnknownReason::FibLayout));
}

/// A node of the IPv6 tree with source routes that do not match hides its own other routes, but not
/// those of shorter prefixes. Observed on Linux 6.18.
#[test]
fn source_routes_hide_the_others_of_their_destination() {
    let mut netns = Netns { sockets: vec![listener(Proto::Tcp, "::")], ..host() };
    let to = "2001:db8:7::/48";
    netns.routes.push(route(TableId::MAIN, RouteType::Blackhole, to, None, ETH0));
    let mut from = route(TableId::MAIN, RouteType::Unicast, to, None, Ifindex(3));
    from.source = Some("2001:db8:9::/48".parse().expect("a prefix"));
    let ask = |netns: &Netns| walk(netns, &packet(Proto::Tcp, "2001:db8:7::1", "2001:db8::20"));
    assert_eq!(ask(&netns), stopped(DropReason::NoReplyRoute, TheySee::Timeout));
    netns.routes.push(from);
    assert_eq!(ask(&netns), delivered(TheySee::Connected));
}

#[test]
fn a_client_of_this_machine_comes_back_in_by_lo() {
    let check = |bound: &str, to: &str, expected: Fate| {
        let netns = Netns { sockets: vec![listener(Proto::Tcp, bound)], ..host() };
        let family = Family::of(to.parse().expect(to));
        let packet = Packet {
            source: family.unspecified(),
            arrival: Arrival::Local { uid: 0 },
            ..packet(Proto::Tcp, to, to)
        };
        assert_eq!(walk(&netns, &packet), expected, "{bound} {to}");
    };
    let connected = || delivered(TheySee::Connected);
    let refused = |reason| stopped(reason, TheySee::Refused);
    check("127.0.0.1", "127.0.0.1", connected());
    check("127.0.0.1", "0.0.0.0", connected());
    check("::1", "::", connected());
    check("0.0.0.0", "127.9.8.7", connected());
    check("127.0.0.1", "127.9.8.7", refused(DropReason::BindLoopback));
    check("192.168.1.20", "192.168.1.20", connected());
    check("192.168.1.20", "127.0.0.1", refused(DropReason::BindAddress));
    check(
        "0.0.0.0",
        "203.0.113.5",
        Fate { outcome: Outcome::Stopped(DropReason::NotLocal), they_see: None },
    );
    check(
        "0.0.0.0",
        "192.168.1.255",
        stopped(DropReason::BroadcastDestination, TheySee::NetworkUnreachable),
    );
}

/// Observed on Linux 6.18: `ip route get 10.5.0.1 oif eth1` passes over the inline route of the same
/// network as well.
#[test]
fn a_nexthop_object_without_a_way_out_hides_its_network() {
    let mut netns = Netns { sockets: vec![listener(Proto::Tcp, "0.0.0.0")], ..host() };
    netns.sockets[0].device = Some(ETH0);
    let to = "203.0.113.0/24";
    let mut object = route(TableId::MAIN, RouteType::Unicast, to, None, Ifindex(4));
    object.nexthop_id = Some(1);
    let mut inline = route(TableId::MAIN, RouteType::Blackhole, to, None, ETH0);
    inline.metric = 100;
    netns.routes.extend([object, inline]);
    let ask = |netns: &Netns| walk(netns, &packet(Proto::Tcp, "203.0.113.5", "192.168.1.20"));
    assert_eq!(ask(&netns), delivered(TheySee::Connected));
    for route in &mut netns.routes {
        route.nexthop_id = None;
    }
    // The blackhole counts now, and the device makes up for it; but nobody is there.
    assert_eq!(ask(&netns), stopped(DropReason::NoReplyRoute, TheySee::Timeout));
}

/// Observed on Linux 6.18: the datagram arrives, its answer comes from 127.0.0.1.
#[test]
fn an_answer_inside_this_machine_needs_the_right_source_too() {
    let netns = Netns {
        sockets: vec![listener(Proto::Udp, "0.0.0.0"), listener(Proto::Tcp, "0.0.0.0")],
        ..host()
    };
    let mut with_source = netns.clone();
    with_source.routes[0].preferred_source = Some("127.0.0.1".parse().expect("an address"));
    let ask = |netns: &Netns, proto, to: &str| {
        let packet = Packet {
            source: Family::Ipv4.unspecified(),
            arrival: Arrival::Local { uid: 0 },
            ..packet(proto, to, to)
        };
        walk(netns, &packet)
    };
    assert_eq!(ask(&with_source, Proto::Udp, "127.0.0.1"), delivered(TheySee::Delivered));
    let other = ask(&with_source, Proto::Udp, "127.9.8.7");
    assert_eq!(other, unknown(UnknownReason::ReplyAddress));
    let tcp = ask(&with_source, Proto::Tcp, "127.9.8.7");
    assert_eq!(tcp.they_see, Some(TheySee::Connected));
}

/// The plain socket wins with SO_REUSEPORT, the one bound to the link with SO_REUSEADDR (both
/// observed on Linux 6.18); nothing shows which it is.
#[test]
fn sockets_that_share_a_udp_port_are_both_named() {
    let plain = listener(Proto::Udp, "192.168.1.20");
    let bound = Socket { device: Some(ETH0), ..plain.clone() };
    let ask = |sockets: [&Socket; 2]| {
        let netns = Netns { sockets: sockets.map(Clone::clone).to_vec(), ..host() };
        walk(&netns, &packet(Proto::Udp, "192.168.1.66", "192.168.1.20")).outcome
    };
    let both = Outcome::Delivered(vec![SocketIndex(0), SocketIndex(1)]);
    assert_eq!(ask([&plain, &bound]), both);
    assert_eq!(ask([&bound, &plain]), Outcome::Delivered(vec![SocketIndex(0)]));
    let other_user = Socket { uid: 1000, ..bound };
    assert_eq!(ask([&plain, &other_user]), Outcome::Delivered(vec![SocketIndex(1)]));
}
