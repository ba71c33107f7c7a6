//! Which address is handed out, what a question leaves open, and who counts as whom: tables of hosts
//! written as text close to what `ip` prints.
//!
//! ```text
//! eth0 ethernet physical up via 192.168.1.1 metric 100
//!   192.168.1.20/24
//! ```

use std::net::IpAddr;

use canreach_engine::address_choice::{AddressChoice, choose};
use canreach_engine::ask::{Ask, From};
use canreach_engine::link_role::{LinkRole, lan_links, link_roles, receiving_link};
use canreach_engine::{Arrival, Question};
use canreach_snapshot::{
    Address, AddressFlags, Family, FibLayout, Ifindex, Link, LinkFlags, LinkKind, Machine, Netns,
    NextHop, NextHopFlags, OperState, Port, Prefix, Proto, Route, RouteProtocol, RouteType, Scope,
    TableId, Wireless,
};

/// Reads a host: a line for each link, indented lines for its addresses.
fn host(text: &str) -> Netns {
    let mut netns = Netns { fib_layout: FibLayout::Merged, own: true, ..Netns::default() };
    let mut masters: Vec<(usize, String)> = Vec::new();
    let mut lowers: Vec<(usize, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        if line.starts_with("    ") {
            let ifindex = netns.links.last().expect("an address stands below its link").ifindex;
            add_address(&mut netns, ifindex, words);
            continue;
        }
        let name = words.next().expect("a name").to_owned();
        let kind = words.next().expect("a kind");
        let ifindex = Ifindex(netns.links.len() as u32 + 1);
        let mut link = link(ifindex, name, kind);
        while let Some(word) = words.next() {
            match word {
                "physical" => link.physical = Some(true),
                "up" => link.flags.0 |= LinkFlags::UP.0 | LinkFlags::LOWER_UP.0,
                "no-carrier" => link.flags.0 |= LinkFlags::UP.0,
                "down" => {}
                "p2p" => link.flags.0 |= LinkFlags::POINT_TO_POINT.0 | LinkFlags::NO_ARP.0,
                "elsewhere" => (link.lower, link.lower_nsid) = (Some(Ifindex(9)), Some(0)),
                "master" => {
                    masters.push((netns.links.len(), words.next().expect("one").to_owned()))
                }
                "on" => lowers.push((netns.links.len(), words.next().expect("one").to_owned())),
                "via" => {
                    let gateway: IpAddr = words.next().expect("a gateway").parse().expect("one");
                    let all = Prefix::all(Family::of(gateway));
                    netns.routes.push(route(all, ifindex, Some(gateway)));
                }
                "metric" => {
                    let route = netns.routes.last_mut().expect("behind via");
                    route.metric = words.next().expect("one").parse().expect("a number");
                }
                "dev" => {
                    let prefix = words.next().expect("a prefix").parse().expect("a prefix");
                    netns.routes.push(route(prefix, ifindex, None));
                }
                other => panic!("{other} in {line}"),
            }
        }
        netns.links.push(link);
    }
    for (index, name) in masters {
        netns.links[index].master = netns.link_named(&name).map(|link| link.ifindex);
    }
    for (index, name) in lowers {
        netns.links[index].lower = netns.link_named(&name).map(|link| link.ifindex);
    }
    netns
}

fn link(ifindex: Ifindex, name: String, kind: &str) -> Link {
    let kind = match kind {
        "loopback" => LinkKind::Loopback,
        "ethernet" => LinkKind::Ethernet,
        "wifi" => LinkKind::Wifi,
        "bridge" => LinkKind::Bridge,
        "veth" => LinkKind::Veth,
        "tun" => LinkKind::Tun,
        "wireguard" => LinkKind::Wireguard,
        "vlan" => LinkKind::Vlan,
        "macvlan" => LinkKind::Macvlan,
        "bond" => LinkKind::Bond,
        "vrf" => LinkKind::Vrf,
        "dummy" => LinkKind::Dummy,
        other => LinkKind::Other(other.to_owned()),
    };
    let loopback = kind == LinkKind::Loopback;
    Link {
        ifindex,
        name,
        wireless: (kind == LinkKind::Wifi).then(Wireless::default),
        kind,
        flags: LinkFlags(if loopback { LinkFlags::LOOPBACK.0 } else { 0 }),
        operstate: OperState::Unknown,
        mtu: 1500,
        group: 0,
        mac: None,
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: Some(false),
    }
}

fn add_address<'w>(netns: &mut Netns, ifindex: Ifindex, mut words: impl Iterator<Item = &'w str>) {
    let prefix: Prefix = words.next().expect("an address").parse().expect("an address");
    let mut flags = 0;
    for word in words {
        flags |= match word {
            "temporary" | "secondary" => AddressFlags::TEMPORARY_OR_SECONDARY.0,
            "deprecated" => AddressFlags::DEPRECATED.0,
            "tentative" => AddressFlags::TENTATIVE.0,
            "dadfailed" => AddressFlags::DAD_FAILED.0,
            other => panic!("{other} is no flag"),
        };
    }
    netns.addresses.push(Address {
        ifindex,
        prefix,
        peer: None,
        broadcast: None,
        scope: Scope::UNIVERSE,
        flags: AddressFlags(flags),
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    });
    netns.routes.push(route(prefix.network(), ifindex, None));
}

fn route(destination: Prefix, ifindex: Ifindex, gateway: Option<IpAddr>) -> Route {
    let hop = NextHop {
        ifindex: Some(ifindex),
        gateway,
        weight: 1,
        flags: NextHopFlags(0),
        encapsulated: false,
    };
    Route {
        table: TableId::MAIN,
        kind: RouteType::Unicast,
        destination,
        source: None,
        tos: 0,
        scope: if gateway.is_some() { Scope::UNIVERSE } else { Scope::LINK },
        protocol: RouteProtocol::KERNEL,
        metric: 0,
        preferred_source: None,
        preference: None,
        flags: 0,
        nexthops: vec![hop],
        nexthop_id: None,
        realm: None,
    }
}

fn choice(netns: &Netns) -> AddressChoice {
    choose(netns, &Machine::default())
}

/// A host, and every address as `address audience why`, the one handed out first with a star.
#[test]
fn which_address_to_hand_out() {
    let check = |host_text: &str, expected: &str| {
        let netns = host(host_text);
        let choice = choice(&netns);
        let lines: Vec<String> = choice
            .addresses
            .iter()
            .enumerate()
            .map(|(position, judged)| {
                let star = if position == 0 && choice.has_best { "* " } else { "" };
                let address = netns.addresses[judged.index].address();
                format!("{star}{address} {} {}", judged.audience.slug(), judged.why.slug())
            })
            .collect();
        let expected: Vec<&str> = expected.lines().map(str::trim).collect();
        let expected: Vec<&str> = expected.into_iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, expected, "{host_text}");
    };
    // A laptop with Docker, a VPN, and IPv6 with privacy addresses.
    check(
        "lo loopback up
    127.0.0.1/8
    ::1/128
docker0 bridge up
    172.17.0.1/16
veth1 veth up master docker0 elsewhere
tailscale0 tun up p2p
    100.101.7.3/32
wlan0 wifi physical up via 192.168.1.1 metric 600
    192.168.1.20/24
    2001:db8::7c/64 temporary
    2001:db8::20/64
    fe80::20/64",
        "* 192.168.1.20 lan physical-default-route
        2001:db8::20 internet also-ipv6
        2001:db8::7c internet temporary
        100.101.7.3 vpn vpn
        172.17.0.1 containers containers
        127.0.0.1 self loopback
        fe80::20 lan link-local
        ::1 self loopback",
    );
    // A cable and Wi-Fi: the one with the better route; never "the first one".
    check(
        "wlan0 wifi physical up via 192.168.1.1 metric 600
    192.168.1.21/24
eth0 ethernet physical up via 192.168.1.1 metric 100
    192.168.1.20/24",
        "* 192.168.1.20 lan physical-default-route
        192.168.1.21 lan other-network",
    );
    // A VPN takes all traffic by two halves; the network card keeps its own subnet.
    check(
        "tun0 tun up p2p dev 0.0.0.0/1 dev 128.0.0.0/1
    10.8.0.6/24
eth0 ethernet physical up
    192.168.7.40/24",
        "* 192.168.7.40 lan physical-subnet
        10.8.0.6 vpn vpn",
    );
    // A card without a cable hands out nothing, and what is left is not for other people.
    check(
        "eth0 ethernet physical no-carrier
    192.168.1.20/24
br-1a2b3c bridge up
    172.18.0.1/16
virbr0 bridge up
    192.168.122.1/24",
        "192.168.1.20 lan no-carrier
        172.18.0.1 containers containers
        192.168.122.1 containers containers",
    );
    // Inside a container the only way out is a veth.
    check(
        "eth0 veth up elsewhere via 172.17.0.1
    172.17.0.2/16",
        "* 172.17.0.2 lan virtual-default-route",
    );
    check("eth0 veth up elsewhere\n    10.0.0.2/24", "* 10.0.0.2 lan virtual-subnet");
    // A hypervisor: the bridge has the card as a port, so the bridge is the LAN.
    check(
        "eno1 ethernet physical up master vmbr0
vmbr0 bridge up via 10.0.0.1
    10.0.0.5/24
tap1 tun up master vmbr0",
        "* 10.0.0.5 lan physical-default-route",
    );
    // A bond of two cards, with a VLAN on top.
    check(
        "eth0 ethernet physical up master bond0
eth1 ethernet physical up master bond0
bond0 bond up
    10.0.0.5/24
bond0.7 vlan up on bond0 via 10.7.0.1
    10.7.0.5/24",
        "* 10.7.0.5 lan physical-default-route
        10.0.0.5 lan other-network",
    );
    // No router gave an address: better than none, worse than anything else.
    check(
        "eth0 ethernet physical up
    169.254.3.4/16",
        "* 169.254.3.4 lan physical-subnet",
    );
    check(
        "eth0 ethernet physical up
    169.254.3.4/16
    2001:db8::1/64",
        "* 2001:db8::1 internet physical-subnet
        169.254.3.4 lan autoconfigured",
    );
    // IPv6 only: the stable address before the temporary one, the fading one last.
    check(
        "eth0 ethernet physical up
    2001:db8::a/64 deprecated
    2001:db8::b/64 temporary
    2001:db8::c/64 tentative
    2001:db8::d/64
    2001:db8::e/64 dadfailed",
        "* 2001:db8::d internet physical-subnet
        2001:db8::b internet temporary
        2001:db8::a internet deprecated
        2001:db8::c internet tentative
        2001:db8::e internet duplicate",
    );
    // A public address; nobody behind a dummy or a VRF.
    check(
        "eth0 ethernet physical up via 203.0.113.1
    203.0.113.10/24
dummy0 dummy up
    10.99.0.1/32
red vrf up
    10.98.0.1/32",
        "* 203.0.113.10 internet physical-default-route
        10.99.0.1 self nobody-there
        10.98.0.1 self nobody-there",
    );
    check("lo loopback up\n    127.0.0.1/8", "127.0.0.1 self loopback");
    check("", "");
}

#[test]
fn a_vpn_that_takes_everything_is_named() {
    let netns = host(
        "wg0 wireguard up p2p dev 0.0.0.0/0
    10.8.0.6/32
eth0 ethernet physical up via 192.168.7.1
    192.168.7.40/24",
    );
    assert_eq!(choice(&netns).full_tunnel, Some(Ifindex(1)));
    let netns = host("wg0 wireguard up p2p dev 10.8.0.0/24\n    10.8.0.6/32");
    assert_eq!(choice(&netns).full_tunnel, None);
}

#[test]
fn what_a_link_is_for() {
    let check = |host_text: &str, expected: &[LinkRole]| {
        assert_eq!(link_roles(&host(host_text)), expected, "{host_text}");
    };
    use LinkRole as R;
    check("lo loopback up\neth0 ethernet physical up", &[R::Loopback, R::Lan]);
    check("eth0 veth up\ndocker0 bridge up", &[R::VirtualLan, R::Containers]);
    check("eth0 ethernet physical down\nveth1 veth up", &[R::Lan, R::Containers]);
    check("eth0 macvlan up elsewhere", &[R::Lan]);
    check("eth0 macvlan up on veth9\nveth9 veth up", &[R::VirtualLan, R::VirtualLan]);
    check("zt0 ethernet up\nwg1 ethernet up", &[R::Vpn, R::Vpn]);
    check("gre1 gre up\nvx1 vxlan up\nifb0 ifb up", &[R::Vpn, R::VirtualLan, R::Nobody]);
    // A ring of links that no kernel makes must end.
    check("a vlan up on b\nb vlan up on a", &[R::Lan, R::Lan]);
}

#[test]
fn bridge_ports_hand_their_packets_to_the_bridge() {
    let netns = host(
        "eth0 ethernet physical up master br0
br0 bridge up
red vrf up
eth1 ethernet physical up master red",
    );
    assert_eq!(receiving_link(&netns, Ifindex(1)), Ifindex(2));
    assert_eq!(receiving_link(&netns, Ifindex(4)), Ifindex(4), "a VRF takes no packets over");
    assert_eq!(lan_links(&netns), [Ifindex(2), Ifindex(4)]);
}

const TWO_NETWORKS: &str = "lo loopback up
    127.0.0.1/8
    ::1/128
docker0 bridge up
    172.17.0.1/16
wlan0 wifi physical up via 192.168.1.1 metric 600
    192.168.1.20/24
    2001:db8::20/64
    fe80::20/64
eth0 ethernet physical up
    10.0.0.5/24
    fe80::5/64
wg0 wireguard up p2p dev 10.8.0.0/24
    10.8.0.6/32";

fn show(netns: &Netns, question: &Question) -> String {
    let via = match question.via {
        Arrival::Link(index) => netns.link(index).expect("it exists").name.clone(),
        Arrival::Local { .. } => "itself".to_owned(),
    };
    format!("{} -> {} via {via}", question.from, question.to)
}

/// What was typed behind the port, and the questions it makes; or the error.
fn check_questions(host_text: &str, typed: &str, expected: &[&str]) {
    let netns = host(host_text);
    let mut ask =
        Ask { proto: Proto::Tcp, port: Port(3000), from: None, to: None, via: None, uid: 1000 };
    let mut words = typed.split_whitespace();
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        match option {
            "--from" => ask.from = Some(value.parse::<From>().expect(value)),
            "--to" => ask.to = Some(value.parse().expect(value)),
            "--via" => ask.via = Some(value.to_owned()),
            other => panic!("{other} is no option"),
        }
    }
    let questions = match ask.questions(&netns, &choice(&netns)) {
        Ok(questions) => questions.iter().map(|question| show(&netns, question)).collect(),
        Err(error) => vec![error.to_string()],
    };
    assert_eq!(questions, expected, "{typed}");
}

#[test]
fn what_was_left_open_is_filled_in() {
    let check = |typed: &str, expected: &[&str]| check_questions(TWO_NETWORKS, typed, expected);
    let wifi = "192.168.1.0/24 -> 192.168.1.20 via wlan0";
    let cable = "10.0.0.0/24 -> 10.0.0.5 via eth0";
    let ipv6 = "2001:db8::/64 -> 2001:db8::20 via wlan0";
    check("", &[wifi, cable, ipv6]);
    check("--from lan", &[wifi, cable, ipv6]);
    check("--via wlan0", &[wifi, ipv6]);
    check("--via eth0", &[cable]);
    check("--via docker0", &["172.17.0.0/16 -> 172.17.0.1 via docker0"]);
    check(
        "--to 10.0.0.5",
        &["10.0.0.0/24 -> 10.0.0.5 via eth0", "192.168.1.0/24 -> 10.0.0.5 via wlan0"],
    );
    check("--to 2001:db8::20", &[ipv6]);
    check("--to ::ffff:10.0.0.5 --via eth0", &[cable]);
    check("--from any", &["0.0.0.0/0 -> 192.168.1.20 via wlan0"]);
    check("--from any --to 2001:db8::20", &["::/0 -> 2001:db8::20 via wlan0"]);
    check("--from any --to 10.0.0.5", &["0.0.0.0/0 -> 10.0.0.5 via eth0"]);
    check("--from any --to 127.0.0.1", &["0.0.0.0/0 -> 127.0.0.1 via wlan0"]);
    check("--from 192.168.1.50", &["192.168.1.50/32 -> 192.168.1.20 via wlan0"]);
    check("--from 10.0.0.128/25", &["10.0.0.128/25 -> 10.0.0.5 via eth0"]);
    check("--from 198.51.100.7", &["198.51.100.7/32 -> 192.168.1.20 via wlan0"]);
    check("--from 10.8.0.9", &["10.8.0.9/32 -> 10.8.0.6 via wg0"]);
    check("--from 192.168.1.50 --via eth0", &["192.168.1.50/32 -> 10.0.0.5 via eth0"]);
    check("--from self", &["192.168.1.20/32 -> 192.168.1.20 via itself"]);
    check("--from self --to 127.0.0.1", &["127.0.0.1/32 -> 127.0.0.1 via itself"]);
    check("--from self --to ::", &["::/128 -> :: via itself"]);
    check("--from 10.0.0.5", &["10.0.0.5/32 -> 192.168.1.20 via itself"]);
    check("--from fe80::9%eth0", &["fe80::9/128 -> fe80::5 via eth0"]);
    check("--to fe80::20", &["fe80::/64 -> fe80::20 via wlan0"]);
    check("--to fe80::20%wlan0", &["fe80::/64 -> fe80::20 via wlan0"]);
    // An address that is not here is a question: the answer is that it is not here.
    check(
        "--to 192.168.1.99",
        &["192.168.1.0/24 -> 192.168.1.99 via wlan0", "10.0.0.0/24 -> 192.168.1.99 via eth0"],
    );
}

/// WireGuard's own way of taking all traffic: a rule for everything that it did not mark itself, and
/// one that keeps the longer routes of table main.
#[test]
fn the_link_that_routes_back_follows_the_rules() {
    let mut netns = host(
        "eth0 ethernet physical up via 192.168.7.1
    192.168.7.40/24
wg0 wireguard up p2p
    10.8.0.6/32",
    );
    let mut moved = route(Prefix::all(Family::Ipv4), Ifindex(2), None);
    moved.table = TableId(51820);
    netns.routes.push(moved);
    let rule =
        |priority, action| canreach_snapshot::PolicyRule::new(Family::Ipv4, priority, action);
    let lookup = canreach_snapshot::PolicyAction::Lookup;
    let mut keep = rule(32764, lookup(TableId::MAIN));
    keep.suppress_prefix_length = Some(0);
    let mut take = rule(32765, lookup(TableId(51820)));
    (take.invert, take.mark, take.mark_mask) = (true, 0xca6c, u32::MAX);
    netns.policy_rules = vec![keep, take, rule(32766, lookup(TableId::MAIN))];
    let via = |netns: &Netns, from: &str| {
        let from = Some(from.parse().expect("who"));
        let ask = Ask { proto: Proto::Tcp, port: Port(80), from, to: None, via: None, uid: 0 };
        ask.questions(netns, &choice(netns)).expect("a question")[0].via
    };
    assert_eq!(via(&netns, "192.168.7.50"), Arrival::Link(Ifindex(1)));
    assert_eq!(via(&netns, "198.51.100.7"), Arrival::Link(Ifindex(2)));
    netns.policy_rules.clear();
    assert_eq!(via(&netns, "198.51.100.7"), Arrival::Link(Ifindex(1)));
}

#[test]
fn what_makes_no_question_says_why() {
    let check = |typed: &str, expected: &str| check_questions(TWO_NETWORKS, typed, &[expected]);
    check(
        "--via eth9",
        "there is no interface eth9 here; there are: lo, docker0, wlan0, eth0, wg0",
    );
    check("--to fe80::99", "fe80::99 exists on every link: say which one, as in fe80::99%wlan0");
    check(
        "--to fe80::5%eth0 --via wlan0",
        "wlan0 and eth0: a packet comes in by one interface only, name one",
    );
    check(
        "--from 10.0.0.0/8 --to 2001:db8::20",
        "10.0.0.0/8 and 2001:db8::20 are of different families: nobody can send from one to the other",
    );
    let nobody = "this computer has no address on a network";
    check_questions("lo loopback up\n    127.0.0.1/8", "", &[nobody]);
    check_questions("eth0 ethernet physical down\n    10.0.0.5/24", "--from any", &[nobody]);
    check_questions(
        "lo loopback up\n    127.0.0.1/8",
        "--from self",
        &["127.0.0.1/32 -> 127.0.0.1 via itself"],
    );
}

#[test]
fn who_as_typed() {
    let check = |text: &str, expected: Result<From, &str>| {
        let found = text.parse::<From>().map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{text}");
    };
    check("lan", Ok(From::Lan));
    check("self", Ok(From::Itself));
    check("any", Ok(From::Any));
    check("10.1.2.3/8", Ok(From::Prefix("10.0.0.0/8".parse().expect("a prefix"))));
    let name = "`laptop` is a name, and canreach does not look names up: give its address instead";
    check("laptop", Err(name));
    check("10.0.0.256", Err("`10.0.0.256` is not an IPv4 or IPv6 address"));
    check("", Err("`` is not an IPv4 or IPv6 address"));
    check("10.0.0.1%eth0", Err("`10.0.0.1%eth0`: only IPv6 addresses take a link behind `%`"));
    check("10.0.0.0/33", Err("`33` is not a prefix length from 0 to 32"));
    check("lan/24", Err("`lan` is not an IPv4 or IPv6 address"));
}
