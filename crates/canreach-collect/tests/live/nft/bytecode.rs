//! Every expression that this kernel and this `nft` can make, against libnftnl's own decoding.

use std::collections::{BTreeMap, BTreeSet};

use canreach_snapshot::nft::expr::Constant;
use canreach_snapshot::nft::{Element, Expr, Ruleset, Set, SetFlags};
use canreach_snapshot::{NfFamily, Snapshot};

use super::libnftnl::{print, print_verdict, shorten, words};
use super::{load, read};
use crate::namespace::Namespace;

/// The lines of each rule, and those of each set: by family, table, chain or set, and handle.
#[derive(Debug, Default)]
struct Listing {
    rules: BTreeMap<(String, String, String, u64), Vec<String>>,
    sets: BTreeMap<(String, String, String), Vec<String>>,
}

/// Reads the part of `nft --debug=netlink list ruleset` before the ruleset itself.
fn parse(text: &str) -> Listing {
    let mut listing = Listing::default();
    let mut lines: Option<&mut Vec<String>> = None;
    for line in text.lines().take_while(|line| !line.starts_with("table ")) {
        if let Some(line) = line.strip_prefix("  [ ") {
            let line = line.strip_suffix(" ]").expect("it closes what it opens");
            lines.as_mut().expect("a rule came before").push(shorten(line));
        } else if let Some(line) = line.strip_prefix("\telement ") {
            lines.as_mut().expect("a set came before").push(line.to_owned());
        } else {
            let mut parts = line.split(' ').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            let (family, table, name, handle) = (next(), next(), next(), next());
            if let Some(set) = name.strip_prefix('@') {
                lines = Some(listing.sets.entry((family, table, set.to_owned())).or_default());
            } else if let Ok(handle) = handle.parse() {
                lines = Some(listing.rules.entry((family, table, name, handle)).or_default());
            } else {
                assert!(line.trim().is_empty() || line.starts_with("  userdata"), "{line:?}");
            }
        }
    }
    listing
}

fn family(family: NfFamily) -> String {
    format!("{family:?}").to_lowercase()
}

/// What a rule or set of ours should look like in its output.
fn listing(ruleset: &Ruleset) -> Listing {
    let mut listing = Listing::default();
    for table in &ruleset.tables {
        let (family, name) = (family(table.family), table.name.clone());
        for chain in &table.chains {
            for rule in &chain.rules {
                let place = (family.clone(), name.clone(), chain.name.clone(), rule.handle.0);
                listing.rules.insert(place, rule.exprs.iter().map(print).collect());
            }
        }
        for set in &table.sets {
            let lines = set.elements.iter().map(|element| print_element(set, element));
            listing.sets.insert((family.clone(), name.clone(), set.name.clone()), lines.collect());
        }
    }
    listing
}

/// `element 0000000a 0000e803  - ffffff0a 0000d007  : 0 [end]`.
fn print_element(set: &Set, element: &Element) -> String {
    let plain = |bytes| words(bytes).replace("0x", "");
    let key = if element.catch_all { String::new() } else { format!("{} ", plain(&element.key)) };
    let end = element.key_end.as_ref().map_or(String::new(), |end| format!(" - {} ", plain(end)));
    let data = match &element.data {
        None => String::new(),
        Some(Constant::Value(value)) => format!("{} ", plain(value)),
        Some(Constant::Verdict(verdict)) => format!("{} ", print_verdict(verdict)),
    };
    let flags = u8::from(element.interval_end) | u8::from(element.catch_all) << 1;
    assert!(element.data.is_none() || set.flags.has(SetFlags::MAP));
    format!("{key}{end} : {data}{flags} [end]")
}

/// Compares what is read with what libnftnl makes of it.
#[track_caller]
pub(super) fn check(namespace: &Namespace) -> Option<Ruleset> {
    let text = namespace.output(&["nft", "--debug=netlink", "list", "ruleset"], "")?;
    let (expected, ruleset) = (parse(&text), read(namespace));
    let ours = listing(&ruleset);
    let differing: Vec<_> = expected
        .rules
        .iter()
        .filter(|(place, lines)| ours.rules.get(*place) != Some(*lines))
        .map(|(place, lines)| (place, lines, ours.rules.get(place)))
        .collect();
    assert!(differing.is_empty(), "place, libnftnl, ours: {differing:#?}");
    assert_eq!(ours.rules.len(), expected.rules.len(), "as many rules");
    for (place, lines) in &expected.sets {
        let cut = |line: &String| {
            line.split("  userdata").next().unwrap_or_default().trim_end().to_owned()
        };
        let lines: Vec<_> = lines.iter().map(cut).collect();
        assert_eq!(ours.sets.get(place), Some(&lines), "{place:?}");
    }
    assert_eq!(ours.sets.len(), expected.sets.len(), "as many sets");
    round_trip(&namespace.snapshot());
    Some(ruleset)
}

/// What was read can be written down, redacted too, and is the same when read.
fn round_trip(snapshot: &Snapshot) {
    for snapshot in [snapshot.clone(), snapshot.redact()] {
        let again = Snapshot::from_bytes(&snapshot.to_bytes()).expect("it was just written");
        assert_eq!(again, snapshot);
    }
}

#[test]
fn every_expression_is_what_libnftnl_makes_of_it() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip("link set lo up\n");
    let rules = include_str!("../rulesets/expressions.nft");
    if load(&namespace, rules).is_none() {
        return;
    }
    let Some(ruleset) = check(&namespace) else { return };
    let exprs = ruleset
        .tables
        .iter()
        .flat_map(|table| &table.chains)
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.exprs);
    let opaque: BTreeSet<_> =
        exprs.filter(|expr| matches!(expr, Expr::Opaque(_))).map(print).collect();
    assert!(opaque.is_empty(), "{opaque:?}");
    assert!(ruleset.tables.iter().any(|table| table.dormant));
}
