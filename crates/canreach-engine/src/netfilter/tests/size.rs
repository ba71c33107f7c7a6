//! Large rulesets: what they cost, and that no limit is in their way.

use std::time::Instant;

use canreach_snapshot::nft::{Bytes, Element, SetFlags};

use super::*;

/// A sequence of numbers that looks random and is the same everywhere.
fn numbers_from(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// A firewall of many rules on sources, in chains of their own, some of them nested.
fn large(rules: usize) -> String {
    let mut next = numbers_from(7);
    let mut text = "chain in input 0 drop \n ct 2 accept\n".to_owned();
    let chains = 40;
    for chain in 0..chains {
        text.push_str(&format!("saddr {} jump c{chain}\n", prefix(&mut next, 4, 12)));
        text.push_str(&format!("jump c{chain}\n"));
    }
    for chain in 0..chains {
        text.push_str(&format!("chain c{chain}\n"));
        for _ in 0..rules / chains {
            let port = if next().is_multiple_of(3) { "dport 22 " } else { "" };
            let verdict = if next().is_multiple_of(2) { "accept" } else { "drop" };
            text.push_str(&format!("saddr {} {port}{verdict}\n", prefix(&mut next, 12, 32)));
        }
    }
    text
}

fn prefix(next: &mut impl FnMut() -> u64, least: u64, most: u64) -> String {
    let length = least + next() % (most - least + 1);
    let address = (next() as u32) & (u32::MAX << (32 - length));
    format!("{}/{length}", std::net::Ipv4Addr::from(address))
}

fn many_addresses(count: usize) -> Set {
    let mut next = numbers_from(11);
    let mut set = addresses("big", &[]);
    set.flags = SetFlags(0);
    set.elements = (0..count)
        .map(|_| Element {
            key: Bytes::from((next() as u32 ^ (next() as u32) << 16).to_be_bytes()),
            ..Element::default()
        })
        .collect();
    set
}

fn timed(name: &str, text: &str, sets: Vec<Set>) -> Seen {
    let bench = Bench::new(text, sets);
    let start = Instant::now();
    let host = Host::resolve(&bench.netns);
    let mut sets = Diagram::new(Family::Ipv4);
    let mut unknowns = Unknowns::default();
    let mut view = Bench::syn();
    let strand = |view| vec![Strand { set: PacketSet::ALL, view, by: None }];
    view.iif = Some(Ifindex(2));
    let entering = strand(view);
    let place = HookPlace::at(NfHook::Input);
    let result = pass_hook(&host, &mut sets, &mut unknowns, place, entering, &bench.neutral);
    let passed = result.passed.iter().fold(PacketSet::NONE, |sum, s| sets.or(sum, s.set));
    let sources = sets.sources(passed).ranges().len();
    let spent = start.elapsed();
    println!("{name}: {spent:?}, {} nodes, {sources} intervals", sets.len());
    assert!(!sets.is_breached() && !unknowns.is_breached(), "{name}");
    Seen { sets, unknowns, result }
}

#[test]
fn thousands_of_rules() {
    timed("5,500 rules", &large(5_500), Vec::new());
}

#[test]
fn large_sets() {
    for count in [10_000, 100_000] {
        let text =
            "chain in input 0 drop \n load saddr in big drop \n saddr 10.0.0.0/8 accept \n accept";
        timed(&format!("{count} elements"), text, vec![many_addresses(count)]);
    }
}
