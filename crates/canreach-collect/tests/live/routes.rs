//! Routes, nexthop objects, neighbours, and the layout of IPv4's tables.

use std::net::IpAddr;

use canreach_snapshot::{
    FibLayout, MacAddress, Netns, NextHopFlags, NudState, Route, RouteType, TableId,
};

use crate::namespace::{Namespace, gaps};

const LAN: &str = "link set lo up
link add left type veth peer name right
link set left up
link set right up
address add 192.0.2.1/24 dev left
address add 2001:db8::1/64 dev left nodad
";

fn route<'a>(netns: &'a Netns, destination: &str) -> &'a Route {
    let prefix = destination.parse().expect("it is a prefix");
    let mut routes = netns.routes.iter().filter(|route| route.destination == prefix);
    routes.next().unwrap_or_else(|| panic!("a route to {destination} is there"))
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("it is an address"))
}

#[test]
fn routes_are_read_with_all_that_selects_and_steers() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(LAN);
    namespace.ip(
        "route add 10.1.0.0/16 via 192.0.2.2 metric 50 src 192.0.2.1 tos 0x10 table 1000 realm 5
route add blackhole 10.2.0.0/16
route add unreachable 10.3.0.0/16
route add prohibit 2001:db8:3::/48
route add throw 10.4.0.0/16
route add 10.5.0.0/16 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.2.3 dev left onlink
route add 10.6.0.0/16 via inet6 2001:db8::9 dev left
route add local 10.7.0.0/16 dev lo
route add 2001:db8:5::/48 from 2001:db8:6::/48 via 2001:db8::2
route add 2001:db8:7::/48 nexthop via 2001:db8::2 nexthop via 2001:db8::3
route add default via 2001:db8::2 pref high
",
    );
    let netns = namespace.read_settled();
    assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);
    let left = netns.link_named("left").map(|link| link.ifindex);

    let full = route(&netns, "10.1.0.0/16");
    assert_eq!((full.table, full.metric, full.tos), (TableId(1000), 50, 0x10));
    assert_eq!((full.preferred_source, full.realm), (address("192.0.2.1"), Some(5)));
    assert_eq!((full.nexthops[0].gateway, full.nexthops[0].ifindex), (address("192.0.2.2"), left));

    for (destination, kind) in [
        ("10.2.0.0/16", RouteType::Blackhole),
        ("10.3.0.0/16", RouteType::Unreachable),
        ("2001:db8:3::/48", RouteType::Prohibit),
        ("10.4.0.0/16", RouteType::Throw),
    ] {
        let route = route(&netns, destination);
        assert_eq!((route.kind, route.nexthops.len()), (kind, 0), "{destination}");
    }

    let ways = &route(&netns, "10.5.0.0/16").nexthops;
    assert_eq!(ways.iter().map(|way| way.weight).collect::<Vec<_>>(), [3, 1]);
    assert_eq!((ways[1].gateway, ways[1].ifindex), (address("192.0.2.3"), left));
    assert!(ways[1].flags.has(NextHopFlags::ON_LINK) && !ways[0].flags.has(NextHopFlags::ON_LINK));
    assert_eq!(route(&netns, "10.6.0.0/16").nexthops[0].gateway, address("2001:db8::9"));
    let own = route(&netns, "10.7.0.0/16");
    assert_eq!((own.kind, own.table), (RouteType::Local, TableId::LOCAL));

    let from = route(&netns, "2001:db8:5::/48");
    assert_eq!(from.source, "2001:db8:6::/48".parse().ok());
    assert_eq!(route(&netns, "2001:db8:7::/48").nexthops.len(), 2);
    assert_eq!(route(&netns, "::/0").preference, Some(1));
    assert_eq!(route(&netns, "2001:db8::1/128").kind, RouteType::Local);
    assert_eq!(route(&netns, "192.0.2.255/32").kind, RouteType::Broadcast);
}

#[test]
fn routes_through_nexthop_objects_lead_where_the_objects_do() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(LAN);
    namespace.ip("nexthop add id 7 via 192.0.2.2 dev left
nexthop add id 8 via 192.0.2.3 dev left
nexthop add id 9 group 7,3/8
nexthop add id 10 blackhole
nexthop add id 11 via 2001:db8::2 dev left
route add 10.1.0.0/16 nhid 7
route add 10.2.0.0/16 nhid 9
route add 10.3.0.0/16 nhid 10
route add 2001:db8:9::/48 nhid 11
");
    // On: the kernel prints the ways itself. Off: they have to be looked up.
    for compat in ["1", "0"] {
        assert!(namespace.set("ipv4/nexthop_compat_mode", compat));
        let netns = namespace.read();
        assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);
        assert_eq!(netns.nexthops.len(), 5);
        assert_eq!(netns.nexthops[2].group, [(7, 3), (8, 1)]);
        let ways = |destination| {
            let route = route(&netns, destination);
            let ways = route.nexthops.iter().map(|way| (way.gateway, way.weight));
            (route.nexthop_id, route.kind, ways.collect::<Vec<_>>())
        };
        let unicast = RouteType::Unicast;
        let one = vec![(address("192.0.2.2"), 1)];
        assert_eq!(ways("10.1.0.0/16"), (Some(7), unicast, one), "compat {compat}");
        let two = vec![(address("192.0.2.2"), 3), (address("192.0.2.3"), 1)];
        assert_eq!(ways("10.2.0.0/16"), (Some(9), unicast, two), "compat {compat}");
        let none = (Some(10), RouteType::Blackhole, vec![]);
        assert_eq!(ways("10.3.0.0/16"), none, "compat {compat}");
        let v6 = vec![(address("2001:db8::2"), 1)];
        assert_eq!(ways("2001:db8:9::/48"), (Some(11), unicast, v6), "compat {compat}");
    }
}

#[test]
fn the_layout_of_the_ipv4_tables_is_seen() {
    let Some(namespace) = Namespace::new() else { return };
    assert_eq!(namespace.read().fib_layout, FibLayout::Unknown, "no IPv4 route at all");
    namespace.ip("link set lo up");
    assert_eq!(namespace.read().fib_layout, FibLayout::Merged);
    namespace.ip(LAN);
    assert_eq!(namespace.read().fib_layout, FibLayout::Merged);
    namespace.ip("rule add priority 100 lookup 100\nrule del priority 100");
    let netns = namespace.read();
    assert_eq!(netns.fib_layout, FibLayout::Split, "for ever");
    assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);

    let Some(other) = Namespace::new() else { return };
    other.ip("rule del priority 32767");
    other.ip(LAN);
    assert_eq!(other.read().fib_layout, FibLayout::Split);
}

#[test]
fn neighbours_are_read_with_state_and_proxies() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(LAN);
    namespace.ip("neighbor add 192.0.2.7 lladdr 02:00:00:00:00:07 dev left nud permanent
neighbor add 2001:db8::7 lladdr 02:00:00:00:00:08 dev left nud stale router
neighbor add proxy 192.0.2.8 dev left
neighbor add proxy 2001:db8::8 dev left
");
    let netns = namespace.read();
    let find = |text: &str| {
        let wanted = address(text);
        let mut rows = netns.neighbors.iter().filter(|row| Some(row.address) == wanted);
        rows.next().unwrap_or_else(|| panic!("{text} is there"))
    };
    assert_eq!(find("192.0.2.7").state, NudState::Permanent);
    assert_eq!(find("192.0.2.7").mac, Some(MacAddress([2, 0, 0, 0, 0, 7])));
    assert_eq!((find("2001:db8::7").state, find("2001:db8::7").router), (NudState::Stale, true));
    assert!(find("192.0.2.8").proxy && find("2001:db8::8").proxy);
    assert!(!find("192.0.2.7").proxy);
}
