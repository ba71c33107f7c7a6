//! Rules of iptables with each match and target that it has, as they are read back.

use std::collections::BTreeMap;

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::Expr;
use canreach_snapshot::xt::TargetKind;
use canreach_snapshot::xt::{Match, Rule, Target};
use serde_json::Value;

use crate::namespace::Namespace;

/// Rules, and what they are to be read as. See there.
const CASES: &str = include_str!("xt.txt");

/// A rule, and what is expected of it.
struct Case {
    table: &'static str,
    chain: &'static str,
    family: NfFamily,
    options: &'static str,
    expected: Vec<&'static str>,
}

/// The cases of a family, in the order of the file.
fn cases(family: NfFamily) -> Vec<Case> {
    let digit = if family == NfFamily::Ip { '4' } else { '6' };
    let mut cases: Vec<(bool, Case)> = Vec::new();
    for line in CASES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(expected) = line.strip_prefix("  ") {
            let (_, case) = cases.last_mut().expect("a rule comes first");
            match expected.split_once(": ") {
                Some((families, expected)) if families.len() == 1 => {
                    case.expected.extend(families.starts_with(digit).then_some(expected));
                }
                _ => case.expected.push(expected),
            }
            continue;
        }
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (table, chain, families, options) = (word(), word(), word(), word());
        let case = Case { table, chain, family, options, expected: Vec::new() };
        cases.push((families.contains(digit), case));
    }
    cases.into_iter().filter_map(|(asked, case)| asked.then_some(case)).collect()
}

impl Case {
    /// A text of the case, with what stands for something put in.
    fn fill(&self, text: &str) -> String {
        let (digit, gateway) = match self.family {
            NfFamily::Ip => ("4", "192.0.2.1"),
            _ => ("6", "2001:db8::1"),
        };
        let text = text.replace("{set}", &format!("cr-{digit}")).replace("{gateway}", gateway);
        text.replace("{map}", &format!("cr-map-{digit}"))
    }

    /// The options, one a word; what stands in quotes is one.
    fn arguments(&self) -> Vec<String> {
        let options = self.fill(self.options);
        let quoted = options.split('"').enumerate();
        let words = quoted.flat_map(|(part, text)| {
            if part % 2 == 1 { vec![text] } else { text.split_whitespace().collect() }
        });
        words.map(str::to_owned).collect()
    }

    /// How it should be read.
    fn expected(&self) -> Vec<String> {
        self.expected.iter().map(|line| self.fill(line)).collect()
    }
}

/// Makes the sets and the rules; which of the cases were taken.
fn load(namespace: &Namespace, program: &str, family: NfFamily) -> Vec<Case> {
    let (digit, inet) = if family == NfFamily::Ip { ("4", "inet") } else { ("6", "inet6") };
    for (set, extension) in [("cr", "counters"), ("cr-map", "skbinfo")] {
        let name = format!("{set}-{digit}");
        let create =
            ["ipset", "create", &name, "hash:ip", "family", inet, extension, "timeout", "100"];
        let _ = namespace.output(&create, "");
    }
    let mut taken = Vec::new();
    for case in cases(family) {
        // It is there already where a case came before.
        let _ = namespace.run(&[program, "-t", case.table, "-N", "OTHER"], "");
        let arguments = case.arguments();
        let mut command = vec![program, "-t", case.table, "-A", case.chain];
        command.extend(arguments.iter().map(String::as_str));
        if namespace.output(&command, "").is_some() {
            taken.push(case);
        }
    }
    taken
}

/// As the file of cases has it: what is not asked for, and what is false, is left out.
fn write<Kind: serde::Serialize>(name: &str, revision: u8, kind: &Kind) -> String {
    let mut kind = serde_json::to_value(kind).expect("it can be written");
    prune(&mut kind);
    if let Value::Object(named) = &kind
        && named.len() == 1
        && let Some(parts) = named.values().next()
    {
        kind = parts.clone();
    }
    let name = if name.is_empty() { "-" } else { name };
    format!("{name} {revision} {kind}")
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(parts) => {
            // What may be asked for either way is told when it is asked for.
            let either = |name: &str| matches!(name, "direction" | "socket");
            parts.retain(|name, part| {
                !part.is_null() && (either(name) || *part != Value::Bool(false))
            });
            for (name, part) in parts {
                match part {
                    // Bytes as they came.
                    Value::String(text) if matches!(name.as_str(), "raw" | "opaque") => {
                        *part = format!("{} bytes", text.len() / 2).into();
                    }
                    _ => prune(part),
                }
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn of_match(row: &Match) -> String {
    write(&row.name, row.revision, &row.kind)
}

fn of_target(row: &Target) -> String {
    format!("=> {}", write(&row.name, row.revision, &row.kind))
}

/// Every part of a rule that says something.
fn of_rule(rule: &Rule, with_header: bool) -> Vec<String> {
    let header = with_header.then(|| write("header", 0, &rule.header));
    let target = (rule.target.kind != TargetKind::Continue).then(|| of_target(&rule.target));
    header.into_iter().chain(rule.matches.iter().map(of_match)).chain(target).collect()
}

#[test]
fn legacy_rules_are_read_as_they_were_made() {
    let programs = [("iptables-legacy", NfFamily::Ip), ("ip6tables-legacy", NfFamily::Ip6)];
    let mut wrong = Vec::new();
    for (program, family) in programs {
        let Some(namespace) = Namespace::new() else { return };
        let cases = load(&namespace, program, family);
        let firewall = namespace.read().firewall;
        let mut rules = BTreeMap::new();
        for table in &firewall.xt_tables {
            assert_eq!(table.family, family);
            for chain in &table.chains {
                rules.insert((table.name.as_str(), chain.name.as_str()), chain.rules.iter());
            }
        }
        for case in &cases {
            let place = (case.table, case.chain);
            let rule = rules.get_mut(&place).and_then(Iterator::next);
            let rule = rule.unwrap_or_else(|| panic!("{place:?} has fewer rules than were made"));
            let with_header = case.expected.iter().any(|line| line.starts_with("header "));
            let read = of_rule(rule, with_header);
            if read != case.expected() {
                let Case { table, chain, options, .. } = case;
                let read = read.join("\n  ");
                wrong.push(format!("{program}: {table} {chain} {options}\n  {read}"));
            }
        }
        assert!(rules.into_values().all(|mut rest| rest.next().is_none()), "{program}: more rules");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// iptables-nft says what it can in nftables' own expressions, and the rest in these structures.
#[test]
fn nftables_rules_hold_the_same_structures() {
    let programs = [("iptables-nft", NfFamily::Ip), ("ip6tables-nft", NfFamily::Ip6)];
    let mut wrong = Vec::new();
    for (program, family) in programs {
        let Some(namespace) = Namespace::new() else { return };
        let cases = load(&namespace, program, family);
        let ruleset = namespace.read().firewall.nft.expect("it can be read");
        let mut rules = BTreeMap::new();
        for table in ruleset.tables.iter().filter(|table| table.family == family) {
            for chain in &table.chains {
                rules.insert((table.name.as_str(), chain.name.as_str()), chain.rules.iter());
            }
        }
        let mut same = 0;
        for case in &cases {
            let place = (case.table, case.chain);
            let rule = rules.get_mut(&place).and_then(Iterator::next);
            let rule = rule.unwrap_or_else(|| panic!("{place:?} has fewer rules than were made"));
            let read = rule.exprs.iter().filter_map(|expr| match expr {
                Expr::Match(row) => Some(of_match(row)),
                Expr::Target(row) => Some(of_target(row)),
                _ => None,
            });
            let (expected, read) = (case.expected(), read.collect::<Vec<_>>());
            same += usize::from(!read.is_empty() && read == expected);
            if let Some(other) = read.iter().find(|line| !expected.contains(line)) {
                wrong.push(format!("{program}: {}\n  {other}", case.options));
            }
        }
        assert!(rules.into_values().all(|mut rest| rest.next().is_none()), "{program}: more rules");
        assert!(same * 2 > cases.len(), "{program}: {same} of {}", cases.len());
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
