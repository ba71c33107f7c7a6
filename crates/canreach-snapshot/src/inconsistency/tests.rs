use super::*;
use crate::nft::expr::{NfVerdict, Register};
use crate::nft::{BaseChain, Chain, Expr, Handle, Rule, Ruleset, Table};
use crate::{
    AddressFlags, ChainKind, ChainPolicy, Cookie, Gap, GapReason, LinkFlags, LinkKind, NextHop,
    NextHopFlags, NfFamily, NfHook, OperState, Port, RouteProtocol, RouteType, Scope, TableId,
};

fn link(ifindex: u32, name: &str, master: Option<u32>) -> Link {
    Link {
        ifindex: Ifindex(ifindex),
        name: name.to_owned(),
        kind: LinkKind::Ethernet,
        flags: LinkFlags::UP,
        operstate: OperState::Up,
        mtu: 1500,
        group: 0,
        mac: None,
        master: master.map(Ifindex),
        lower: Some(Ifindex(77)),
        lower_nsid: None,
        vrf_table: None,
        physical: None,
        wireless: None,
    }
}

fn address(ifindex: u32, prefix: &str) -> Address {
    Address {
        ifindex: Ifindex(ifindex),
        prefix: prefix.parse().expect("the test's own prefix"),
        peer: None,
        broadcast: None,
        scope: Scope::UNIVERSE,
        flags: AddressFlags::default(),
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    }
}

fn nexthop(ifindex: u32, gateway: Option<&str>, weight: u16) -> NextHop {
    NextHop {
        ifindex: Some(Ifindex(ifindex)),
        gateway: gateway.map(|gateway| gateway.parse().expect("the test's own address")),
        weight,
        flags: NextHopFlags::default(),
        encapsulated: false,
    }
}

fn route(destination: &str, nexthops: Vec<NextHop>) -> Route {
    Route {
        table: TableId::MAIN,
        kind: RouteType::Unicast,
        destination: destination.parse().expect("the test's own prefix"),
        source: None,
        tos: 0,
        scope: Scope::UNIVERSE,
        protocol: RouteProtocol::BOOT,
        metric: 0,
        preferred_source: None,
        preference: None,
        flags: 0,
        nexthops,
        nexthop_id: None,
        realm: None,
    }
}

fn rule(priority: u32, action: PolicyAction) -> PolicyRule {
    PolicyRule {
        iif: Some("never-was".to_owned()),
        ..PolicyRule::new(Family::Ipv4, priority, action)
    }
}

fn socket(proto: Proto, family: Family, state: SocketState, address: &str) -> Socket {
    Socket {
        proto,
        mptcp: false,
        family,
        state,
        address: address.parse().expect("the test's own address"),
        port: Port(80),
        peer: None,
        device: Some(Ifindex(99)),
        v6only: None,
        mark: None,
        transparent: None,
        freebind: None,
        uid: 0,
        inode: 1,
        cookie: Cookie(1),
        cgroup: None,
        backlog: None,
    }
}

fn valid() -> Netns {
    let lookup = PolicyAction::Lookup(TableId::MAIN);
    Netns {
        links: vec![link(1, "lo", None), link(2, "eth0", Some(3)), link(3, "br0", None)],
        addresses: vec![address(2, "192.0.2.1/24"), address(1, "::1/128")],
        routes: vec![
            route("0.0.0.0/0", vec![nexthop(2, Some("192.0.2.254"), 1)]),
            route("10.0.0.0/8", vec![nexthop(2, Some("fe80::1"), 1)]),
            route("::/0", Vec::new()),
        ],
        policy_rules: vec![rule(0, lookup), rule(5, PolicyAction::Goto(9)), rule(5, lookup)],
        sockets: vec![
            socket(Proto::Tcp, Family::Ipv6, SocketState::Listen, "::ffff:192.0.2.1"),
            socket(Proto::Udp, Family::Ipv4, SocketState::Unconnected, "0.0.0.0"),
        ],
        ..Default::default()
    }
}

fn check(list: &'static str, position: usize, expect: Contradiction, edit: impl Fn(&mut Netns)) {
    let mut netns = valid();
    edit(&mut netns);
    let snapshot = Snapshot {
        machine: crate::Machine::default(),
        namespaces: vec![valid(), netns],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    };
    let found = Inconsistency { namespace: 1, list, position, contradiction: expect };
    assert_eq!(snapshot.validate(), Err(found));
}

#[test]
fn what_a_machine_can_show_is_valid() {
    assert_eq!(valid().validate(), Ok(()));
}

#[test]
fn links_have_an_index_and_a_name_of_their_own() {
    check("links", 1, Contradiction::ZeroIfindex, |netns| netns.links[1].ifindex = Ifindex(0));
    check("links", 2, Contradiction::DuplicateIfindex(1), |netns| {
        netns.links[2].ifindex = Ifindex(1);
    });
    check("links", 1, Contradiction::SecondLoopback, |netns| {
        netns.links[1].flags = LinkFlags::LOOPBACK;
    });
    check("links", 2, Contradiction::DuplicateName("lo".into()), |netns| {
        netns.links[2].name = "lo".into();
    });
}

#[test]
fn no_link_is_part_of_itself() {
    check("links", 1, Contradiction::MasterLoop, |netns| {
        netns.links[1].master = Some(Ifindex(2));
    });
    check("links", 1, Contradiction::MasterLoop, |netns| {
        netns.links[2].master = Some(Ifindex(2));
    });
}

#[test]
fn an_index_that_points_nowhere_is_refused_where_links_are_known() {
    let nowhere = Contradiction::NoSuchLink(9);
    type Edit = fn(&mut Netns);
    let strays: [(&str, Edit); 3] = [
        ("links", |netns| netns.links[0].master = Some(Ifindex(9))),
        ("addresses", |netns| netns.addresses[0].ifindex = Ifindex(9)),
        ("routes", |netns| netns.routes[0].nexthops[0].ifindex = Some(Ifindex(9))),
    ];
    for (list, stray) in strays {
        check(list, 0, nowhere.clone(), stray);
        let mut netns = valid();
        stray(&mut netns);
        netns.gaps.push(Gap {
            subject: GapSubject::Links,
            reason: GapReason::ChangedWhileReading,
            detail: "dump links: interrupted".into(),
        });
        assert_eq!(netns.validate(), Ok(()), "{list}");
    }
}

#[test]
fn addresses_are_specified() {
    for prefix in ["0.0.0.0/8", "::/0"] {
        check("addresses", 1, Contradiction::UnspecifiedAddress, |netns| {
            netns.addresses[1].prefix = prefix.parse().expect("a prefix");
        });
    }
}

#[test]
fn families_do_not_mix() {
    let v4 = "192.0.2.9".parse().expect("an address");
    let v6 = "2001:db8::9".parse().expect("an address");
    let mixed = Contradiction::MixedFamilies;
    check("addresses", 0, mixed.clone(), |netns| netns.addresses[0].peer = Some(v6));
    check("addresses", 1, mixed.clone(), |netns| netns.addresses[1].broadcast = Some(v4));
    check("routes", 0, mixed.clone(), |netns| netns.routes[0].preferred_source = Some(v6));
    check("routes", 0, mixed.clone(), |netns| netns.routes[0].source = Some(Prefix::host(v6)));
    check("routes", 2, mixed.clone(), |netns| {
        netns.routes[2].nexthops = vec![nexthop(2, Some("192.0.2.254"), 1)];
    });
    check("policy_rules", 1, mixed.clone(), |netns| {
        netns.policy_rules[1].source = Some(Prefix::host(v6));
    });
    check("sockets", 1, mixed, |netns| netns.sockets[1].address = v6);
}

#[test]
fn routes_are_as_the_kernel_keeps_them() {
    check("routes", 1, Contradiction::ZeroWeight, |netns| netns.routes[1].nexthops[0].weight = 0);
    let stray: Prefix = "10.0.0.1/8".parse().expect("a prefix");
    check("routes", 1, Contradiction::HostBits(stray), |netns| {
        netns.routes[1].destination = "10.0.0.1/8".parse().expect("a prefix");
    });
}

#[test]
fn routes_select_by_what_their_family_has() {
    check("routes", 1, Contradiction::ForeignSelector("source prefix"), |netns| {
        netns.routes[1].source = Some("10.0.0.0/8".parse().expect("a prefix"));
    });
    check("routes", 2, Contradiction::ForeignSelector("TOS"), |netns| netns.routes[2].tos = 16);
}

#[test]
fn policy_rules_only_go_forward() {
    for target in [0, 5] {
        check("policy_rules", 1, Contradiction::GotoBackwards(target), |netns| {
            netns.policy_rules[1].action = PolicyAction::Goto(target);
        });
    }
    check("policy_rules", 2, Contradiction::Unordered(4), |netns| {
        netns.policy_rules[2].priority = 4;
    });
    check("policy_rules", 0, Contradiction::EmptyRange, |netns| {
        netns.policy_rules[0].uid_range = Some((1, 0));
    });
    check("policy_rules", 0, Contradiction::EmptyRange, |netns| {
        netns.policy_rules[0].destination_ports = Some((81, 80));
    });
}

#[test]
fn sockets_are_in_a_state_their_protocol_has() {
    check("sockets", 0, Contradiction::SocketState(Proto::Tcp, SocketState::Connected), |netns| {
        netns.sockets[0].state = SocketState::Connected;
    });
    check("sockets", 1, Contradiction::SocketState(Proto::Udp, SocketState::Listen), |netns| {
        netns.sockets[1].state = SocketState::Listen;
    });
    check("sockets", 1, Contradiction::SocketPeer, |netns| {
        netns.sockets[1].state = SocketState::Connected;
    });
}

/// A table with an empty base chain `in` and an empty chain `other`.
fn table() -> Table {
    let chain = |name: &str, base| Chain {
        name: name.to_owned(),
        handle: Handle(1),
        base,
        rules: Vec::new(),
    };
    let base = BaseChain {
        hook: NfHook::Input,
        priority: 0,
        kind: ChainKind::Filter,
        policy: ChainPolicy::Accept,
        devices: Vec::new(),
    };
    Table {
        family: NfFamily::Inet,
        name: "filter".to_owned(),
        handle: Handle(1),
        dormant: false,
        chains: vec![chain("in", Some(base)), chain("other", None)],
        sets: Vec::new(),
        objects: Vec::new(),
        flowtables: Vec::new(),
    }
}

#[track_caller]
fn check_table(contradiction: Contradiction, change: impl Fn(&mut Table)) {
    let expected = |table| {
        let mut netns = valid();
        netns.firewall.nft = Some(Ruleset { generation: None, tables: vec![table] });
        netns.validate()
    };
    let mut changed = table();
    assert_eq!(expected(changed.clone()), Ok(()));
    change(&mut changed);
    let list = "firewall.nft.tables";
    assert_eq!(
        expected(changed),
        Err(Inconsistency { namespace: 0, list, position: 0, contradiction })
    );
}

fn add(table: &mut Table, chain: usize, expr: Expr) {
    let rule = Rule { handle: Handle(2), exprs: vec![expr], comment: None };
    table.chains[chain].rules.push(rule);
}

#[test]
fn rules_lead_somewhere_and_come_to_an_end() {
    let jump = |chain: &str| Expr::Verdict(NfVerdict::Jump(chain.to_owned()));
    let goto = |chain: &str| Expr::Verdict(NfVerdict::Goto(chain.to_owned()));
    let name = |name: &str| name.to_owned();
    check_table(Contradiction::NoSuchChain(name("gone")), |it| add(it, 1, goto("gone")));
    let lookup = |sreg| Expr::Lookup {
        set: name("gone"),
        sreg: Register(sreg),
        dreg: None,
        verdict: false,
        invert: false,
    };
    check_table(Contradiction::NoSuchSet(name("gone")), |it| add(it, 1, lookup(0)));
    check_table(Contradiction::NoSuchRegister(16), |it| add(it, 1, lookup(16)));
    check_table(Contradiction::JumpLoop(name("in")), |it| add(it, 0, jump("in")));
    check_table(Contradiction::JumpLoop(name("other")), |it| {
        add(it, 1, goto("other"));
        add(it, 0, jump("other"));
    });
    check_table(Contradiction::DuplicateRulesName(name("other")), |it| {
        it.chains.push(it.chains[1].clone());
    });
    // A circle that nothing leads to is the kernel's business.
    let mut table = table();
    add(&mut table, 1, jump("other"));
    let mut netns = valid();
    netns.firewall.nft = Some(Ruleset { generation: None, tables: vec![table] });
    assert_eq!(netns.validate(), Ok(()));
}

#[test]
fn the_message_leads_to_the_place() {
    let mut netns = valid();
    netns.sockets[1].state = SocketState::Listen;
    let message = netns.validate().expect_err("a listening UDP socket").to_string();
    assert_eq!(message, "network namespace 0, sockets 1: a udp socket is never listening");
}
