//! Rules as text, beside what nft and iptables print of the same rules.
//!
//! Each file of `tests/rules/` is loaded into a namespace of its own and listed by its tool; what
//! canreach says of each rule must be the same.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};
use canreach_report::rule_text::{in_own_words, xt_rule};
use canreach_snapshot::{Netns, NfFamily, Pid};

/// A namespace that lives as long as its holder, which ends with its standard input.
struct Namespace(Child);

impl Namespace {
    /// `None`, and the reason printed, where none may be made.
    fn new() -> Option<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; echo ready; read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let output = holder.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("a pipe can be read");
        if line == "ready\n" {
            return Some(Self(holder));
        }
        let result = holder.wait_with_output().expect("it was started");
        skip(String::from_utf8_lossy(&result.stderr).trim());
        None
    }

    /// Runs a tool inside. `None`, and the reason printed, where it fails.
    fn run(&self, program: &[&str], input: &str) -> Option<String> {
        let mut child = Command::new("nsenter")
            .args(["--net", "--target", &self.0.id().to_string()])
            .args(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter comes with unshare");
        let mut stdin = child.stdin.take().expect("it was piped");
        // A program that cannot be started does not read.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it was started");
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            skip(&format!("{program:?}: {}", reason.trim()));
            return None;
        }
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn read(&self) -> Netns {
        let scope = Scope {
            netns: NetnsChoice::Process(Pid(self.0.id())),
            all_namespaces: false,
            beyond: false,
            sockets: SocketScope::None,
            owners: false,
            filters: true,
        };
        collect(&scope).expect("it can be read").namespaces.remove(0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // An error means that it is gone already.
        let _ = self.0.wait();
    }
}

/// Says that the test did not happen.
#[allow(clippy::print_stderr, reason = "a skipped test must say why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Each rule in listing order, after its family, table and chain.
fn listed_by_nft(listing: &str) -> Vec<String> {
    let (mut table, mut chain) = (String::new(), None);
    let mut rules = Vec::new();
    for line in listing.lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("table ") {
            name.trim_end_matches(" {").clone_into(&mut table);
        } else if let Some(name) = text.strip_prefix("chain ") {
            chain = Some(name.trim_end_matches(" {").to_owned());
        } else if text == "}" {
            chain = None;
        } else if let Some(chain) = chain.as_ref().filter(|_| !text.starts_with("type ")) {
            // Newer versions say the default, too.
            let text = text.replace(" burst 5 packets", "");
            rules.push(format!("{table} {chain}: {text}"));
        }
    }
    rules
}

/// What canreach says of nftables' rules, with the same in front.
fn said_of_nft(netns: &Netns, family: impl Fn(NfFamily) -> bool) -> Vec<String> {
    let tables = netns.firewall.nft.iter().flat_map(|nft| &nft.tables);
    let mut rules = Vec::new();
    for table in tables.filter(|table| family(table.family)) {
        let word = format!("{:?}", table.family).to_lowercase();
        for chain in &table.chains {
            rules.extend(chain.rules.iter().map(|rule| {
                let text = in_own_words(netns, &chain.name, table, rule);
                format!("{word} {} {}: {text}", table.name, chain.name)
            }));
        }
    }
    rules
}

#[track_caller]
fn check_same(listed: &[String], said: &[String]) {
    let differing: Vec<String> = listed
        .iter()
        .zip(said)
        .filter(|(listed, said)| listed != said)
        .map(|(listed, said)| format!("listed {listed}\nsaid   {said}\n"))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert_eq!(listed.len(), said.len());
    assert!(!listed.is_empty());
}

#[test]
fn rules_of_nftables() {
    let Some(namespace) = Namespace::new() else { return };
    let rules = include_str!("rules/rules.nft");
    // Every rule is shorter than the least that is cut.
    if namespace.run(&["nft", "-f", "-"], rules).is_none() {
        return;
    }
    let Some(listing) = namespace.run(&["nft", "-s", "list", "ruleset"], "") else { return };
    check_same(&listed_by_nft(&listing), &said_of_nft(&namespace.read(), |_| true));
}

/// Rules of one family's tables, table by table, as `iptables -S` lists them.
fn listed_by_iptables(
    namespace: &Namespace,
    program: &str,
    tables: &[&str],
) -> Option<Vec<String>> {
    let mut rules = Vec::new();
    for table in tables {
        let listing = namespace.run(&[program, "-t", table, "-S"], "")?;
        let added = listing.lines().filter(|line| line.starts_with("-A "));
        rules.extend(added.map(|line| format!("{table} {line}")));
    }
    rules.sort();
    Some(rules)
}

#[test]
fn rules_of_iptables() {
    let both = [
        ("", include_str!("rules/v4.iptables"), &["filter", "nat", "mangle", "raw"][..]),
        ("6", include_str!("rules/v6.iptables"), &["filter"][..]),
    ];
    for (six, rules, tables) in both {
        let family = if six.is_empty() { NfFamily::Ip } else { NfFamily::Ip6 };
        for variant in ["nft", "legacy"] {
            let Some(namespace) = Namespace::new() else { return };
            let restore = format!("ip{six}tables-{variant}-restore");
            if namespace.run(&[&restore], rules).is_none() {
                continue;
            }
            let program = format!("ip{six}tables-{variant}");
            let Some(listed) = listed_by_iptables(&namespace, &program, tables) else { continue };
            let netns = namespace.read();
            let mut said = Vec::new();
            for table in netns.firewall.nft.iter().flat_map(|nft| &nft.tables) {
                for chain in table.chains.iter().filter(|_| table.family == family) {
                    said.extend(chain.rules.iter().map(|rule| {
                        let text = in_own_words(&netns, &chain.name, table, rule);
                        format!("{} {text}", table.name)
                    }));
                }
            }
            for table in netns.firewall.xt_tables.iter().filter(|table| table.family == family) {
                for chain in &table.chains {
                    let texts = chain.rules.iter().map(|rule| xt_rule(&chain.name, rule));
                    said.extend(texts.map(|text| format!("{} {text}", table.name)));
                }
            }
            said.sort();
            check_same(&listed, &said);
        }
    }
}
