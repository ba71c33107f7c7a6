//! Every form of sets, maps and objects.

use canreach_snapshot::nft::expr::{Constant, NfVerdict};
use canreach_snapshot::nft::{Bytes, Element, Expr, Set, SetFlags, Table};

use super::{load, read, table};
use crate::namespace::Namespace;

const RULES: &str = r#"table inet t {
  counter named { packets 3 bytes 4 }
  quota plan { over 10 bytes used 5 bytes }
  limit slow { rate over 5/minute burst 9 packets }
  ct helper ftp { type "ftp" protocol tcp; }
  synproxy proxy { mss 1460; wscale 7; }
  set plain { type ipv4_addr; size 10; elements = { 1.2.3.4 comment "one", 5.6.7.8 } }
  set span { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 224.0.0.0-255.255.255.255 } }
  set cat { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 1000-2000 } }
  set timed { type ipv4_addr; timeout 1h; elements = { 1.1.1.1, 3.3.3.3 timeout 2h expires 30m } }
  set counted { type ipv4_addr; flags dynamic; counter; elements = { 9.9.9.9 counter packets 4 bytes 5 } }
  set both { type ipv4_addr; flags dynamic; counter; limit rate 5/second; elements = { 9.9.9.9 } }
  set names { type ifname; elements = { "eth0" } }
  map verdicts { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : jump other, * : drop } }
  map objects { type ipv4_addr : counter; elements = { 1.2.3.4 : "named" } }
  map pairs { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.1 . 8080 } }
  chain other { tcp dport { 22, 80 } accept comment "they may"; }
}
"#;

fn key(bytes: &[u8]) -> Element {
    Element { key: Bytes::from(bytes), ..Element::default() }
}

fn set<'a>(table: &'a Table, name: &str) -> &'a Set {
    table.set(name).unwrap_or_else(|| panic!("{name} is in {:?}", table.sets))
}

/// In a fixed order: a hash table's is its own.
fn elements(table: &Table, name: &str) -> Vec<Element> {
    let mut elements = set(table, name).elements.clone();
    elements.sort_by(|one, other| {
        (&one.key, !one.interval_end).cmp(&(&other.key, !other.interval_end))
    });
    elements
}

#[test]
fn sets_of_every_form() {
    let Some(namespace) = Namespace::new() else { return };
    if load(&namespace, RULES).is_none() {
        return;
    }
    let ruleset = read(&namespace);
    let table = table(&ruleset, "t");
    let plain = set(table, "plain");
    assert_eq!((plain.key_type, plain.key_len, plain.size), (7, 4, Some(10)));
    let comments = elements(table, "plain")
        .into_iter()
        .map(|element| (element.key, element.extra.and_then(|extra| extra.comment)));
    assert_eq!(
        comments.collect::<Vec<_>>(),
        [(Bytes::from([1, 2, 3, 4]), Some("one".to_owned())), (Bytes::from([5, 6, 7, 8]), None)]
    );

    assert!(set(table, "span").flags.has(SetFlags::INTERVAL));
    let end = |bytes: &[u8]| Element { interval_end: true, ..key(bytes) };
    // The last interval has no end: it reaches the highest address.
    let expected = [end(&[0; 4]), key(&[10, 0, 0, 0]), end(&[11, 0, 0, 0]), key(&[224, 0, 0, 0])];
    assert_eq!(without_extra(elements(table, "span")), expected);

    let cat = set(table, "cat");
    assert_eq!((cat.key_type, cat.key_len), (7 << 6 | 13, 8));
    assert_eq!(cat.field_lens, [4, 2]);
    assert!(cat.flags.has(SetFlags::CONCAT));
    let both_ends = Element {
        key_end: Some(Bytes::from([10, 255, 255, 255, 0x07, 0xd0, 0, 0])),
        ..key(&[10, 0, 0, 0, 0x03, 0xe8, 0, 0])
    };
    assert_eq!(elements(table, "cat"), [both_ends]);
    let names = elements(table, "names");
    assert_eq!(names, [key(b"eth0\0\0\0\0\0\0\0\0\0\0\0\0")]);
}

fn without_extra(elements: Vec<Element>) -> Vec<Element> {
    elements.into_iter().map(|element| Element { extra: None, ..element }).collect()
}

#[test]
fn maps_and_elements_that_carry_something() {
    let Some(namespace) = Namespace::new() else { return };
    if load(&namespace, RULES).is_none() {
        return;
    }
    let ruleset = read(&namespace);
    let table = table(&ruleset, "t");
    assert_eq!(set(table, "verdicts").data_type, Some(0xffff_ff00));
    let verdicts: Vec<_> = elements(table, "verdicts")
        .into_iter()
        .filter_map(|element| Some((element.catch_all, element.data?)))
        .collect();
    let verdict = |verdict| Constant::Verdict(verdict);
    assert_eq!(
        verdicts,
        [(true, verdict(NfVerdict::Drop)), (false, verdict(NfVerdict::Jump("other".to_owned())))]
    );
    let pairs = elements(table, "pairs");
    let data = Constant::Value(Bytes::from([10, 0, 0, 1, 0x1f, 0x90, 0, 0]));
    assert_eq!(pairs, [Element { data: Some(data), ..key(&[0, 80]) }]);
    assert_eq!(set(table, "pairs").data_len, 8);

    let extras = |name| -> Vec<_> {
        elements(table, name).into_iter().map(|it| it.extra.unwrap_or_default()).collect()
    };
    assert_eq!(set(table, "objects").object_type, Some(1));
    assert_eq!(extras("objects")[0].object.as_deref(), Some("named"));
    assert_eq!(set(table, "timed").timeout_ms, Some(3_600_000));
    let timed = extras("timed");
    assert_eq!(timed.iter().map(|it| it.timeout_ms).collect::<Vec<_>>(), [None, Some(7_200_000)]);
    let left = timed[1].expires_ms.expect("it has an end");
    assert!((1_700_000..=1_800_000).contains(&left), "{left}");
    assert_eq!(extras("counted")[0].exprs, [Expr::Counter { packets: 4, bytes: 5 }]);
    assert_eq!(set(table, "counted").exprs.len(), 1);
    let both = &extras("both")[0].exprs;
    assert!(matches!(both[..], [Expr::Counter { .. }, Expr::Limit { rate: 5, .. }]), "{both:?}");

    // A set inside a rule is one like any other.
    let rule = &table.chain("other").expect("it is there").rules[0];
    assert_eq!(rule.comment.as_deref(), Some("they may"));
    let lookup = rule.exprs.iter().find_map(|expr| match expr {
        Expr::Lookup { set, .. } => Some(set),
        _ => None,
    });
    let inside = set(table, lookup.expect("it looks something up"));
    assert!(inside.flags.has(SetFlags::ANONYMOUS));
    let ports: Vec<_> = elements(table, &inside.name).into_iter().map(|it| it.key).collect();
    assert_eq!(ports, [Bytes::from([0, 22]), Bytes::from([0, 80])]);
}

#[test]
fn objects_are_expressions_where_there_is_one() {
    let Some(namespace) = Namespace::new() else { return };
    if load(&namespace, RULES).is_none() {
        return;
    }
    let ruleset = read(&namespace);
    let table = table(&ruleset, "t");
    let expr = |name, kind| table.object(name, kind).map(|object| object.expr.clone());
    assert_eq!(expr("named", 1), Some(Expr::Counter { packets: 3, bytes: 4 }));
    assert_eq!(expr("plan", 2), Some(Expr::Quota { bytes: 10, consumed: 5, invert: true }));
    let slow = Expr::Limit { rate: 5, unit_s: 60, burst: 9, bytes: false, invert: true };
    assert_eq!(expr("slow", 4), Some(slow));
    // The last two may be missing from a kernel, and are then from the rules.
    for (name, kind, expected) in
        [("ftp", 3, Expr::Opaque("ct helper".to_owned())), ("proxy", 10, Expr::Synproxy)]
    {
        assert!(expr(name, kind).is_none_or(|expr| expr == expected), "{name}");
    }
}
