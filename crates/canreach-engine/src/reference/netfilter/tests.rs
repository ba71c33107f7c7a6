//! Small rulesets with known fates. Real rules, against the kernel, are in `lab/cases/firewall_*.toml`.

use canreach_snapshot::nft::expr::{
    CmpOp, CtKey, MetaKey, NatRange, NfVerdict, PayloadBase, Register, RejectType,
};
use canreach_snapshot::nft::{
    BaseChain, Chain, Element, Expr, Handle, Rule, Ruleset, Set, SetFlags, Table,
};
use canreach_snapshot::{ChainKind, ChainPolicy, Family, Netns, NfFamily, NfHook, Port, Proto};

use crate::reference::tests::{host, listener, packet};
use crate::reference::walk;
use crate::{Arrival, DropReason, Fate, Outcome, Packet, SocketIndex, TheySee, UnknownReason};

const REG: Register = Register(0);

fn cmp(bytes: &[u8]) -> Expr {
    Expr::Cmp { sreg: REG, op: CmpOp::Eq, value: bytes.into() }
}

fn dport(port: u16) -> Vec<Expr> {
    let protocol = Expr::Meta { dreg: REG, key: MetaKey::L4proto };
    let not_icmp = Expr::Cmp { sreg: REG, op: CmpOp::Neq, value: [58].into() };
    let load = Expr::Payload { dreg: REG, base: PayloadBase::Transport, offset: 2, len: 2 };
    vec![protocol, not_icmp, load, cmp(&port.to_be_bytes())]
}

fn sport(port: u16) -> Vec<Expr> {
    let load = Expr::Payload { dreg: REG, base: PayloadBase::Transport, offset: 0, len: 2 };
    vec![load, cmp(&port.to_be_bytes())]
}

fn ct_state(bit: u32) -> Vec<Expr> {
    let mask = Expr::Bitwise {
        sreg: REG,
        dreg: REG,
        len: 4,
        op: canreach_snapshot::nft::expr::BitwiseOp::MaskXor {
            mask: bit.to_le_bytes().into(),
            xor: [0; 4].into(),
        },
    };
    let is_not_0 = Expr::Cmp { sreg: REG, op: CmpOp::Neq, value: [0; 4].into() };
    vec![Expr::Ct { dreg: REG, key: CtKey::State, direction: None }, mask, is_not_0]
}

const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;

fn limit() -> Vec<Expr> {
    vec![Expr::Limit { rate: 5, unit_s: 60, burst: 5, bytes: false, invert: false }]
}

fn ttl_is(value: u8) -> Vec<Expr> {
    let load = Expr::Payload { dreg: REG, base: PayloadBase::Network, offset: 8, len: 1 };
    vec![load, cmp(&[value])]
}

fn verdict(verdict: NfVerdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}

fn accept() -> Vec<Expr> {
    verdict(NfVerdict::Accept)
}

fn drop_it() -> Vec<Expr> {
    verdict(NfVerdict::Drop)
}

fn port_to(port: u16) -> Vec<Expr> {
    let range = NatRange { proto_min: Some(REG), ..NatRange::default() };
    vec![Expr::Immediate { dreg: REG, value: port.to_be_bytes().into() }, Expr::Redir { range }]
}

fn rule(parts: &[Vec<Expr>]) -> Rule {
    Rule { handle: Handle(1), exprs: parts.concat(), comment: None }
}

struct Base(NfHook, i32, ChainKind, ChainPolicy);

const fn filter(hook: NfHook, policy: ChainPolicy) -> Base {
    Base(hook, 0, ChainKind::Filter, policy)
}

fn chain(name: &str, handle: u64, base: Option<Base>, rules: Vec<Rule>) -> Chain {
    let base = base.map(|Base(hook, priority, kind, policy)| BaseChain {
        hook,
        priority,
        kind,
        policy,
        devices: Vec::new(),
    });
    Chain { name: name.to_owned(), handle: Handle(handle), base, rules }
}

fn table(family: NfFamily, name: &str, chains: Vec<Chain>) -> Table {
    Table {
        family,
        name: name.to_owned(),
        handle: Handle(1),
        dormant: false,
        chains,
        sets: Vec::new(),
        objects: Vec::new(),
        flowtables: Vec::new(),
    }
}

fn with(tables: Vec<Table>) -> Netns {
    let mut netns = Netns {
        sockets: vec![listener(Proto::Tcp, "0.0.0.0"), listener(Proto::Udp, "0.0.0.0")],
        ..host()
    };
    netns.firewall.nft = Some(Ruleset { generation: Some(1), tables });
    netns
}

fn input(policy: ChainPolicy, rules: Vec<Rule>) -> Netns {
    let chains = vec![chain("in", 1, Some(filter(NfHook::Input, policy)), rules)];
    with(vec![table(NfFamily::Inet, "t", chains)])
}

fn ask(netns: &Netns, proto: Proto) -> Fate {
    walk(netns, &packet(proto, "192.168.1.66", "192.168.1.20"))
}

fn ask_port(netns: &Netns, port: u16) -> Fate {
    let packet = packet(Proto::Tcp, "192.168.1.66", "192.168.1.20");
    walk(netns, &Packet { destination_port: Port(port), ..packet })
}

fn ask_self(netns: &Netns, proto: Proto, port: u16) -> Fate {
    let packet = packet(proto, "192.168.1.20", "192.168.1.20");
    let arrival = Arrival::Local { uid: 1000 };
    let source = Family::Ipv4.unspecified();
    walk(netns, &Packet { source, arrival, destination_port: Port(port), ..packet })
}

fn stopped(reason: DropReason, they_see: TheySee) -> Fate {
    Fate { outcome: Outcome::Stopped(reason), they_see: Some(they_see) }
}

fn connected() -> Fate {
    let outcome = Outcome::Delivered(vec![SocketIndex(0)]);
    Fate { outcome, they_see: Some(TheySee::Connected) }
}

const fn unknown(reason: UnknownReason) -> Fate {
    Fate { outcome: Outcome::Unknown(reason), they_see: None }
}

fn dropped() -> Fate {
    stopped(DropReason::FwDrop, TheySee::Timeout)
}

use ChainPolicy::{Accept, Drop};

#[test]
fn rules_and_the_policy_decide() {
    assert_eq!(ask(&input(Drop, vec![]), Proto::Tcp), dropped());
    let open = input(Drop, vec![rule(&[dport(80), accept()])]);
    assert_eq!(ask(&open, Proto::Tcp), connected());
    assert_eq!(ask_port(&open, 81), dropped());
    let silent = stopped(DropReason::FwDrop, TheySee::Silence);
    assert_eq!(ask(&input(Drop, vec![]), Proto::Udp), silent);
}

/// The client's ACK comes through the same chain, as part of a connection.
#[test]
fn the_third_packet_is_judged_as_well() {
    let only_new = input(Drop, vec![rule(&[ct_state(NEW), accept()])]);
    assert_eq!(ask(&only_new, Proto::Tcp), stopped(DropReason::FwDrop, TheySee::Connected));
    let both = input(Drop, vec![rule(&[ct_state(NEW | ESTABLISHED), accept()])]);
    assert_eq!(ask(&both, Proto::Tcp), connected());
    let only_established = input(Drop, vec![rule(&[ct_state(ESTABLISHED), accept()])]);
    assert_eq!(ask(&only_established, Proto::Tcp), dropped());
}

#[test]
fn the_answer_must_get_out() {
    let out = |rules| {
        let chains = vec![chain("out", 1, Some(filter(NfHook::Output, Accept)), rules)];
        with(vec![table(NfFamily::Ip, "t", chains)])
    };
    let blocked = out(vec![rule(&[sport(80), drop_it()])]);
    assert_eq!(ask(&blocked, Proto::Tcp), dropped());
    // Nobody has port 81, and the reset leaves from it.
    let no_reset = out(vec![rule(&[sport(81), drop_it()])]);
    let reset_lost = stopped(DropReason::NotListening, TheySee::Timeout);
    assert_eq!(ask_port(&no_reset, 81), reset_lost);
    assert_eq!(ask(&no_reset, Proto::Tcp), connected());
}

#[test]
fn what_a_reject_makes_them_see() {
    let reject = |kind, code| input(Accept, vec![rule(&[vec![Expr::Reject { kind, code }]])]);
    let check = |kind, code, tcp, udp| {
        let netns = reject(kind, code);
        assert_eq!(ask(&netns, Proto::Tcp), stopped(DropReason::FwReject, tcp));
        assert_eq!(ask(&netns, Proto::Udp), stopped(DropReason::FwReject, udp));
    };
    use RejectType::{IcmpUnreach, IcmpxUnreach, TcpRst};
    check(TcpRst, 0, TheySee::Refused, TheySee::Silence);
    check(IcmpxUnreach, 1, TheySee::Refused, TheySee::Refused);
    check(IcmpxUnreach, 3, TheySee::HostUnreachable, TheySee::HostUnreachable);
    check(IcmpUnreach, 0, TheySee::NetworkUnreachable, TheySee::Silence);
    check(IcmpUnreach, 2, TheySee::ProtocolUnavailable, TheySee::ProtocolUnavailable);
}

/// A reject inherits the connection: an output chain that lets `related` pass lets it pass.
#[test]
fn a_rejects_answer_is_related() {
    let reject = Expr::Reject { kind: RejectType::TcpRst, code: 0 };
    let chains = |bits| {
        vec![
            chain(
                "in",
                1,
                Some(filter(NfHook::Input, Accept)),
                vec![rule(&[vec![reject.clone()]])],
            ),
            chain(
                "out",
                2,
                Some(filter(NfHook::Output, Drop)),
                vec![rule(&[ct_state(bits), accept()])],
            ),
        ]
    };
    let related = with(vec![table(NfFamily::Inet, "t", chains(4))]);
    assert_eq!(ask(&related, Proto::Tcp), stopped(DropReason::FwReject, TheySee::Refused));
    let established = with(vec![table(NfFamily::Inet, "t", chains(ESTABLISHED))]);
    assert_eq!(ask(&established, Proto::Tcp), stopped(DropReason::FwReject, TheySee::Timeout));
}

#[test]
fn only_unknowns_that_matter_count() {
    let limited = input(Drop, vec![rule(&[limit(), accept()]), rule(&[drop_it()])]);
    assert_eq!(ask(&limited, Proto::Tcp), unknown(UnknownReason::RateLimit));
    let moot = input(Accept, vec![rule(&[limit(), accept()])]);
    assert_eq!(ask(&moot, Proto::Tcp), connected());
    let logged = vec![Expr::Log { prefix: None, group: None }];
    let many: Vec<Rule> = (0..60).map(|_| rule(&[limit(), logged.clone()])).collect();
    assert_eq!(ask(&input(Accept, many), Proto::Tcp), connected());
    let ttl = input(Accept, vec![rule(&[ttl_is(64), drop_it()])]);
    assert_eq!(ask(&ttl, Proto::Tcp), unknown(UnknownReason::PacketDetails));
    // The same question twice has the same answer.
    let twice = input(Drop, vec![rule(&[ttl_is(64), drop_it()]), rule(&[ttl_is(64), accept()])]);
    assert_eq!(ask(&twice, Proto::Tcp), dropped());
    // Drop or reject: stopped in either case, but what they see hangs on it.
    let reject = Expr::Reject { kind: RejectType::TcpRst, code: 0 };
    let either = input(Drop, vec![rule(&[limit(), vec![reject]])]);
    let outcome = Outcome::Stopped(DropReason::FwDrop);
    assert_eq!(ask(&either, Proto::Tcp), Fate { outcome, they_see: None });
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let jump = |name: &str| verdict(NfVerdict::Jump(name.to_owned()));
    let goto = |name: &str| verdict(NfVerdict::Goto(name.to_owned()));
    let check = |first: Vec<Expr>, a: Vec<Rule>, expected: Fate| {
        let base = Some(filter(NfHook::Input, Drop));
        let chains = vec![
            chain("in", 1, base, vec![rule(&[first]), rule(&[accept()])]),
            chain("a", 2, None, a),
            chain("b", 3, None, vec![]),
        ];
        assert_eq!(ask(&with(vec![table(NfFamily::Ip, "t", chains)]), Proto::Tcp), expected);
    };
    check(jump("a"), vec![], connected());
    check(goto("a"), vec![], dropped());
    check(jump("a"), vec![rule(&[goto("b")]), rule(&[drop_it()])], connected());
    check(jump("a"), vec![rule(&[verdict(NfVerdict::Return)])], connected());
    check(verdict(NfVerdict::Return), vec![], dropped());
}

#[test]
fn translation_changes_where_a_packet_goes() {
    let nat = |hook, kind| {
        let rules = vec![rule(&[dport(8000), port_to(80)])];
        let chains = vec![chain("nat", 1, Some(Base(hook, -100, kind, Accept)), rules)];
        with(vec![table(NfFamily::Ip, "t", chains)])
    };
    let from_outside = nat(NfHook::Prerouting, ChainKind::Nat);
    assert_eq!(ask_port(&from_outside, 8000), connected());
    // Local clients do not meet it, and it does not meet them.
    let refused = stopped(DropReason::NotListening, TheySee::Refused);
    assert_eq!(ask_self(&from_outside, Proto::Tcp, 8000), refused);
    let from_inside = nat(NfHook::Output, ChainKind::Nat);
    assert_eq!(ask_self(&from_inside, Proto::Tcp, 8000), connected());
    assert_eq!(ask_port(&from_inside, 8000), refused);
}

/// No rule here needs conntrack, so the nat chain is never asked; V16.
#[test]
fn a_nat_chain_without_conntrack_does_nothing() {
    let nat = || {
        let base = Base(NfHook::Prerouting, -100, ChainKind::Nat, Drop);
        chain("nat", 1, Some(base), vec![])
    };
    let alone = with(vec![table(NfFamily::Ip, "t", vec![nat()])]);
    assert_eq!(ask(&alone, Proto::Tcp), connected());
    let other = chain("x", 2, None, vec![rule(&[ct_state(NEW)])]);
    let active = with(vec![table(NfFamily::Ip, "t", vec![nat(), other])]);
    assert_eq!(ask(&active, Proto::Tcp), dropped());
}

#[test]
fn intervals_and_the_rest() {
    let element = |port: u16, interval_end| Element {
        key: port.to_be_bytes().into(),
        interval_end,
        ..Element::default()
    };
    let set = Set {
        name: "s".to_owned(),
        handle: Handle(2),
        flags: SetFlags::INTERVAL,
        key_type: 0,
        key_len: 2,
        data_type: None,
        data_len: 0,
        object_type: None,
        field_lens: Vec::new(),
        timeout_ms: None,
        size: None,
        exprs: Vec::new(),
        elements: vec![
            element(0, true),
            element(80, false),
            element(82, true),
            element(82, false),
            element(90, true),
            element(60000, false),
        ],
    };
    let load = Expr::Payload { dreg: REG, base: PayloadBase::Transport, offset: 2, len: 2 };
    let lookup = |invert| Expr::Lookup {
        set: "s".to_owned(),
        sreg: REG,
        dreg: None,
        verdict: false,
        invert,
    };
    let check = |invert, port, expected: Fate| {
        let rules = vec![rule(&[vec![load.clone(), lookup(invert)], drop_it()])];
        let mut netns = input(Accept, rules);
        for table in netns.firewall.nft.iter_mut().flat_map(|ruleset| &mut ruleset.tables) {
            table.sets.push(set.clone());
        }
        assert_eq!(ask_port(&netns, port), expected, "{port}");
    };
    let refused = || stopped(DropReason::NotListening, TheySee::Refused);
    for port in [81, 82, 89, 60000, 65535] {
        check(false, port, dropped());
    }
    for port in [1, 79, 90, 59999] {
        check(false, port, refused());
        check(true, port, dropped());
    }
    check(true, 80, connected());
}

/// A mark set in front of routing counts for it, and for the answer only if a sysctl says so.
#[test]
fn marks_reach_rules_behind_them() {
    let mark = [7, 0, 0, 0];
    let set = vec![
        Expr::Immediate { dreg: REG, value: mark.into() },
        Expr::MetaSet { sreg: REG, key: MetaKey::Mark },
    ];
    let load = Expr::Meta { dreg: REG, key: MetaKey::Mark };
    let chains = vec![
        chain("pre", 1, Some(filter(NfHook::Prerouting, Accept)), vec![rule(&[dport(80), set])]),
        chain(
            "in",
            2,
            Some(filter(NfHook::Input, Drop)),
            vec![rule(&[vec![load, cmp(&mark)], accept()])],
        ),
    ];
    let mut netns = with(vec![table(NfFamily::Inet, "t", chains)]);
    // The third packet is marked like the first.
    assert_eq!(ask(&netns, Proto::Tcp), connected());
    assert_eq!(ask_port(&netns, 81), dropped());
    netns.firewall.nft = None;
    assert_eq!(ask(&netns, Proto::Tcp), connected());
}

/// Of two tables at one priority nothing tells which is newer.
#[test]
fn the_order_of_tables_matters_or_not() {
    let mark = [1, 0, 0, 0];
    let set = vec![
        Expr::Immediate { dreg: REG, value: mark.into() },
        Expr::MetaSet { sreg: REG, key: MetaKey::Mark },
    ];
    let load = Expr::Meta { dreg: REG, key: MetaKey::Mark };
    let one = |rules| {
        table(NfFamily::Ip, "a", vec![chain("in", 1, Some(filter(NfHook::Input, Accept)), rules)])
    };
    let two = |rules| {
        table(NfFamily::Inet, "b", vec![chain("in", 1, Some(filter(NfHook::Input, Accept)), rules)])
    };
    let sets = || vec![rule(std::slice::from_ref(&set))];
    let asks = || vec![rule(&[vec![load.clone(), cmp(&mark)], drop_it()])];
    let depends = with(vec![one(sets()), two(asks())]);
    assert_eq!(ask(&depends, Proto::Tcp), unknown(UnknownReason::HookOrder));
    let both_drop = with(vec![one(vec![rule(&[drop_it()])]), two(asks())]);
    assert_eq!(ask(&both_drop, Proto::Tcp), dropped());
}

/// What rules of its own machine stop, a datagram's sender learns at once.
#[test]
fn a_local_datagram_that_rules_stop_is_eperm() {
    let chains =
        |hook| vec![chain("c", 1, Some(filter(hook, Accept)), vec![rule(&[dport(80), drop_it()])])];
    let check = |hook, proto, they_see| {
        let netns = with(vec![table(NfFamily::Inet, "t", chains(hook))]);
        assert_eq!(ask_self(&netns, proto, 80), stopped(DropReason::FwDrop, they_see));
    };
    check(NfHook::Output, Proto::Udp, TheySee::OperationNotPermitted);
    check(NfHook::Postrouting, Proto::Udp, TheySee::OperationNotPermitted);
    check(NfHook::Input, Proto::Udp, TheySee::Silence);
    check(NfHook::Output, Proto::Tcp, TheySee::Timeout);
    check(NfHook::Prerouting, Proto::Tcp, TheySee::Timeout);
}

/// IPv6 neighbours are solicited through the input chain; V26.
#[test]
fn neighbour_discovery_passes_rules() {
    let closed = input(Drop, vec![rule(&[dport(80), accept()])]);
    let mut netns = closed;
    netns.sockets.push(listener(Proto::Tcp, "::"));
    let ask = |netns: &Netns, from: &str| walk(netns, &packet(Proto::Tcp, from, "2001:db8::20"));
    let unreachable = stopped(DropReason::FwDrop, TheySee::HostUnreachable);
    assert_eq!(ask(&netns, "2001:db8::66"), unreachable);
    let load = Expr::Payload { dreg: REG, base: PayloadBase::Transport, offset: 0, len: 1 };
    let solicited = rule(&[vec![load, cmp(&[135])], accept()]);
    for table in netns.firewall.nft.iter_mut().flat_map(|ruleset| &mut ruleset.tables) {
        table.chains[0].rules.push(solicited.clone());
    }
    let expected = Outcome::Delivered(vec![SocketIndex(2)]);
    assert_eq!(ask(&netns, "2001:db8::66").outcome, expected);
}
