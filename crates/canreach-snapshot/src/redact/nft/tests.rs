use std::net::IpAddr;

use crate::nft::expr::{
    BitwiseOp, CmpOp, Constant, MetaKey, NatRange, NfVerdict, PayloadBase, Register,
};
use crate::nft::{Bytes, Chain, Element, Expr, Handle, Rule, Ruleset, Set, SetFlags, Table};
use crate::redact::AddressMap;
use crate::{
    Firewall, Ifindex, Link, LinkFlags, LinkKind, Machine, Netns, NfFamily, OperState, Snapshot,
};

const R1: Register = Register(0);
const R2: Register = Register(4);

fn load(offset: u32, len: u32) -> Expr {
    Expr::Payload { dreg: R1, base: PayloadBase::Network, offset, len }
}

fn cmp(op: CmpOp, value: &[u8]) -> Expr {
    Expr::Cmp { sreg: R1, op, value: Bytes::from(value) }
}

fn set(name: &str, key_type: u32, key_len: u32, flags: SetFlags) -> Set {
    Set {
        name: name.to_owned(),
        handle: Handle(9),
        flags,
        key_type,
        key_len,
        data_type: None,
        data_len: 0,
        object_type: None,
        field_lens: Vec::new(),
        timeout_ms: None,
        size: None,
        exprs: Vec::new(),
        elements: Vec::new(),
    }
}

fn key(bytes: &[u8]) -> Element {
    Element { key: Bytes::from(bytes), ..Element::default() }
}

fn link(name: &str, ifindex: u32) -> Link {
    Link {
        ifindex: Ifindex(ifindex),
        name: name.to_owned(),
        kind: LinkKind::Ethernet,
        flags: LinkFlags::UP,
        operstate: OperState::Up,
        mtu: 1500,
        group: 0,
        mac: None,
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: Some(true),
        wireless: None,
    }
}

/// A machine with some rules, each alone in the chain `acme`, and some sets.
fn snapshot(family: NfFamily, rules: Vec<Vec<Expr>>, sets: Vec<Set>) -> Snapshot {
    let rule = |exprs| Rule { handle: Handle(5), exprs, comment: Some("for acme".to_owned()) };
    let chain = Chain {
        name: "acme".to_owned(),
        handle: Handle(1),
        base: None,
        rules: rules.into_iter().map(rule).collect(),
    };
    let table = Table {
        family,
        name: "filter".to_owned(),
        handle: Handle(2),
        dormant: false,
        chains: vec![chain],
        sets,
        objects: Vec::new(),
        flowtables: Vec::new(),
    };
    let nft = Some(Ruleset { generation: Some(1), tables: vec![table] });
    let netns = Netns {
        links: vec![link("acme-lan", 2), link("wg-acme", 3), link("eth0", 4)],
        firewall: Firewall { nft, ..Firewall::default() },
        ..Netns::default()
    };
    Snapshot {
        machine: Machine::default(),
        namespaces: vec![netns],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    }
}

fn table(snapshot: &Snapshot) -> &Table {
    let ruleset = snapshot.namespaces[0].firewall.nft.as_ref().expect("it has one");
    &ruleset.tables[0]
}

fn exprs(snapshot: &Snapshot, rule: usize) -> &[Expr] {
    &table(snapshot).chains[0].rules[rule].exprs
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the test's own address")
}

fn constant(expr: &Expr) -> Vec<u8> {
    match expr {
        Expr::Cmp { value, .. } | Expr::Immediate { value, .. } => value.as_slice().to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn constants_follow_the_address_they_are_compared_with() {
    let masked = Expr::Bitwise {
        sreg: R1,
        dreg: R1,
        len: 4,
        op: BitwiseOp::MaskXor {
            mask: Bytes::from([255, 255, 240, 0]),
            xor: Bytes::from([0, 0, 0, 0]),
        },
    };
    let rules = vec![
        vec![load(12, 4), cmp(CmpOp::Eq, &[93, 184, 216, 34])],
        // A shorter load is a prefix; a longer one is both addresses.
        vec![load(12, 2), cmp(CmpOp::Eq, &[93, 184])],
        vec![load(12, 8), cmp(CmpOp::Eq, &[93, 184, 216, 34, 8, 8, 4, 4])],
        vec![load(16, 4), masked, cmp(CmpOp::Neq, &[93, 184, 208, 0])],
        vec![load(24, 16), cmp(CmpOp::Eq, &octets(ip("2a02:8071:1::5")))],
        // No address: the TTL and the protocol. The same bytes are one where the rule says so.
        vec![load(8, 2), cmp(CmpOp::Eq, &[64, 6])],
        vec![
            Expr::Meta { dreg: R1, key: MetaKey::Nfproto },
            cmp(CmpOp::Eq, &[10]),
            load(8, 2),
            cmp(CmpOp::Eq, &[0x2a, 0x02]),
        ],
    ];
    let before = snapshot(NfFamily::Inet, rules, Vec::new());
    let map = AddressMap::new(&before);
    let after = before.redact_with(&map);
    let host = octets(map.address(ip("93.184.216.34")));
    assert_ne!(host[..3], [93, 184, 216]);
    assert_eq!(constant(&exprs(&after, 0)[1]), host);
    assert_eq!(constant(&exprs(&after, 1)[1]), host[..2]);
    let other = octets(map.address(ip("8.8.4.4")));
    assert_eq!(constant(&exprs(&after, 2)[1]), [host.clone(), other].concat());
    assert_eq!(constant(&exprs(&after, 3)[2]), [host[0], host[1], host[2] & 0xf0, 0]);
    let v6 = octets(map.address(ip("2a02:8071:1::5")));
    assert_eq!(constant(&exprs(&after, 4)[1]), v6);
    assert_eq!(constant(&exprs(&after, 5)[1]), [64, 6]);
    assert_eq!(constant(&exprs(&after, 6)[3]), v6[..2]);
    assert_eq!(table(&after).chains[0].rules[0].comment, None);
    assert_eq!(table(&after).chains[0].name, "rules1");
}

/// What is between two addresses still is, and nothing else.
#[test]
fn ranges_stay_ranges() {
    let (low, high) = ([93, 184, 216, 200], [93, 185, 3, 7]);
    let of = |last: [u8; 4]| IpAddr::from(last);
    let mut span = set("span", 7, 4, SetFlags::INTERVAL);
    span.elements = vec![
        Element { interval_end: true, ..key(&[93, 185, 3, 8]) },
        key(&low),
        Element { interval_end: true, ..key(&[8, 8, 5, 0]) },
        key(&[8, 8, 4, 0]),
        Element { interval_end: true, ..key(&[0, 0, 0, 0]) },
    ];
    let rules = vec![
        vec![load(12, 4), cmp(CmpOp::Gte, &low), cmp(CmpOp::Lte, &high)],
        vec![load(12, 4), cmp(CmpOp::Lt, &[151, 101, 3, 9])],
    ];
    let before = snapshot(NfFamily::Ip, rules, vec![span]);
    let map = AddressMap::new(&before);
    let after = before.redact_with(&map);
    let range = exprs(&after, 0);
    let (new_low, new_high) = (constant(&range[1]), constant(&range[2]));
    let edge = constant(&exprs(&after, 1)[1]);
    let elements = &table(&after).sets[0].elements;
    let inside = |address: &[u8]| {
        // The nearest element from above decides.
        let below = elements.iter().find(|element| element.key.as_slice() <= address);
        below.is_some_and(|element| !element.interval_end)
    };
    let mut asked = vec![low, high, [93, 184, 216, 199], [93, 185, 3, 8], [8, 8, 4, 255]];
    asked.extend([[8, 8, 5, 0], [8, 8, 3, 255], [93, 185, 0, 0], [93, 184, 255, 255]]);
    asked.extend([[1, 1, 1, 1], [151, 101, 3, 8], [151, 101, 3, 9], [151, 101, 4, 0]]);
    asked.extend((0..255).map(|byte| [byte, 184, 217, byte]));
    for address in asked {
        let mapped = octets(map.address(of(address)));
        let first = (low..=high).contains(&address);
        assert_eq!((new_low.clone()..=new_high.clone()).contains(&mapped), first, "{address:?}");
        let second = first || address[..3] == [8, 8, 4];
        assert_eq!(inside(&mapped), second, "{address:?}: {elements:?}");
        assert_eq!(mapped < edge, address < [151, 101, 3, 9], "{address:?}");
    }
    let descending = elements.windows(2).all(|pair| pair[0].key >= pair[1].key);
    assert!(descending, "{elements:?}");
}

#[test]
fn concatenations_and_maps_follow() {
    let mut pairs = set("acme-pairs", 7 << 6 | 13, 8, SetFlags(0x8c));
    pairs.field_lens = vec![4, 2];
    pairs.data_type = Some(7);
    pairs.data_len = 4;
    pairs.elements = vec![Element {
        key_end: Some(Bytes::from([93, 184, 219, 255, 0, 90, 0, 0])),
        data: Some(Constant::Value(Bytes::from([8, 8, 4, 4]))),
        ..key(&[93, 184, 216, 0, 0, 80, 0, 0])
    }];
    let mut verdicts = set("verdicts", 8, 16, SetFlags::MAP);
    verdicts.data_type = Some(0xffff_ff00);
    verdicts.elements = vec![Element {
        data: Some(Constant::Verdict(NfVerdict::Jump("acme".to_owned()))),
        ..key(&octets(ip("2a02:8071::1")))
    }];
    let lookup = Expr::Lookup {
        set: "acme-pairs".to_owned(),
        sreg: R1,
        dreg: Some(R2),
        verdict: false,
        invert: false,
    };
    let rules = vec![vec![load(12, 4), lookup, Expr::Verdict(NfVerdict::Goto("acme".to_owned()))]];
    let before = snapshot(NfFamily::Inet, rules, vec![pairs, verdicts]);
    let map = AddressMap::new(&before);
    let after = before.redact_with(&map);
    let [pairs, verdicts] = &table(&after).sets[..] else { panic!("two") };
    let element = &pairs.elements[0];
    let ports = |port| [0, port, 0, 0];
    let address = |text| octets(map.address(ip(text)));
    assert_eq!(element.key.as_slice(), [address("93.184.216.0"), ports(80).into()].concat());
    let end = element.key_end.as_ref().expect("it had one");
    assert_eq!(end.as_slice(), [address("93.184.219.255"), ports(90).into()].concat());
    assert_eq!(element.data, Some(Constant::Value(Bytes::from(address("8.8.4.4")))));
    assert_eq!(verdicts.elements[0].key.as_slice(), address("2a02:8071::1"));
    let chain = &table(&after).chains[0].name;
    let jump = Constant::Verdict(NfVerdict::Jump(chain.clone()));
    assert_eq!(verdicts.elements[0].data, Some(jump));
    let exprs = exprs(&after, 0);
    assert!(matches!(&exprs[1], Expr::Lookup { set, .. } if *set == pairs.name), "{exprs:?}");
    assert_eq!(exprs[2], Expr::Verdict(NfVerdict::Goto(chain.clone())));
    assert!(!pairs.name.contains("acme"));
}

#[test]
fn addresses_that_are_translated_to_follow() {
    let immediate = |dreg, value: [u8; 4]| Expr::Immediate { dreg, value: Bytes::from(value) };
    let nat = |addr_max| Expr::Nat {
        source: false,
        family: NfFamily::Ip,
        range: NatRange { addr_min: Some(R1), addr_max: Some(addr_max), ..NatRange::default() },
    };
    let rules = vec![
        vec![immediate(R1, [93, 184, 216, 34]), nat(R1)],
        vec![immediate(R1, [8, 8, 4, 1]), immediate(R2, [8, 8, 7, 9]), nat(R2)],
        vec![immediate(R1, [1, 2, 3, 4]), Expr::MetaSet { sreg: R1, key: MetaKey::Mark }],
        vec![immediate(R1, [93, 184, 216, 34]), Expr::Dup],
    ];
    let before = snapshot(NfFamily::Ip, rules, Vec::new());
    let map = AddressMap::new(&before);
    let after = before.redact_with(&map);
    let address = |text| octets(map.address(ip(text)));
    assert_eq!(constant(&exprs(&after, 0)[0]), address("93.184.216.34"));
    assert_eq!(constant(&exprs(&after, 1)[0]), address("8.8.4.1"));
    assert_eq!(constant(&exprs(&after, 1)[1]), address("8.8.7.9"));
    assert_eq!(constant(&exprs(&after, 2)[0]), [1, 2, 3, 4], "a mark");
    assert_eq!(constant(&exprs(&after, 3)[0]), [0; 4]);
}

#[test]
fn names_of_links_follow() {
    let padded = |name: &str| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes
    };
    let name =
        |value: &[u8]| vec![Expr::Meta { dreg: R1, key: MetaKey::Iifname }, cmp(CmpOp::Eq, value)];
    let mut names = set("names", 41, 16, SetFlags::default());
    names.elements = vec![key(&padded("acme-lan")), key(&padded("eth0"))];
    let rules = vec![name(&padded("acme-lan")), name(b"wg"), name(&padded("link1"))];
    let after = snapshot(NfFamily::Inet, rules.clone(), vec![names]).redact();
    let links = &after.namespaces[0].links;
    // `link1` is no link, but a rule speaks of one.
    assert_eq!(
        links.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["link2", "wg1", "eth0"]
    );
    assert_eq!(constant(&exprs(&after, 0)[1]), padded("link2"));
    assert_eq!(constant(&exprs(&after, 1)[1]), b"wg");
    assert_ne!(constant(&exprs(&after, 2)[1]), padded("link1"));
    let keys: Vec<_> = table(&after).sets[0].elements.iter().map(|it| it.key.clone()).collect();
    assert_eq!(keys, [Bytes::from(padded("link2")), Bytes::from(padded("eth0"))]);

    // How some names begin is asked for: they stay, and no other begins so.
    let rules = vec![name(b"acm"), name(b"li")];
    let after = snapshot(NfFamily::Inet, rules, Vec::new()).redact();
    let links = &after.namespaces[0].links;
    assert_eq!(links[0].name, "acme-lan");
    assert!(!links.iter().any(|link| link.name.starts_with("li")), "{links:?}");
}
