//! What packet filters are loaded.

use canreach_collect::{NetnsChoice, Scope, collect};
use canreach_snapshot::{
    ChainKind, ChainPolicy, Firewall, GapReason, GapSubject, HookedChain, NfFamily, NfHook,
};

use crate::namespace::{Namespace, everything, gaps};

/// Runs a program inside with some input. `false`, and the reason printed, where it cannot be run.
fn run(namespace: &Namespace, program: &[&str], input: &str) -> bool {
    namespace.output(program, input).is_some()
}

#[test]
fn a_fresh_namespace_filters_nothing() {
    let Some(namespace) = Namespace::new() else { return };
    let netns = namespace.read();
    assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);
    assert_eq!((netns.firewall.chains, netns.firewall.legacy_tables), (vec![], vec![]));
    assert_eq!(netns.bpf, []);
}

#[test]
fn base_chains_are_read_with_where_they_hook_in_and_how_much_they_hold() {
    let Some(namespace) = Namespace::new() else { return };
    let rules = "table inet filter {
  chain input { type filter hook input priority 10; policy drop; tcp dport 22 accept; ct state established accept; jump other; }
  chain other { tcp dport 80 accept; tcp dport 81 accept; }
  chain early { type filter hook prerouting priority raw; }
}
table ip nat { chain pre { type nat hook prerouting priority dstnat; tcp dport 8080 redirect to :80; }; }
table netdev guard { chain in { type filter hook ingress device lo priority 0; drop; }; }
table ip6 asleep { flags dormant; chain input { type filter hook input priority 0; policy drop; }; }
";
    if !run(&namespace, &["nft", "-f", "-"], rules) {
        return;
    }
    let Firewall { chains, nft_generation, .. } = namespace.read().firewall;
    assert!(nft_generation.is_some());
    let chain = |name: &str| -> &HookedChain {
        chains.iter().find(|chain| chain.name == name).unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!(chains.len(), 4, "{chains:?}");
    let input = chain("input");
    assert_eq!((input.family, input.table.as_str()), (NfFamily::Inet, "filter"));
    assert_eq!((input.hook, input.priority), (NfHook::Input, 10));
    assert_eq!((input.policy, input.rules), (ChainPolicy::Drop, 3));
    assert!(chain("early").is_idle() && !input.is_idle());
    assert_eq!((chain("early").hook, chain("early").priority), (NfHook::Prerouting, -300));
    assert_eq!((chain("pre").kind, chain("pre").rules), (ChainKind::Nat, 1));
    assert_eq!(
        (chain("in").hook, chain("in").devices.as_slice()),
        (NfHook::Ingress, &["lo".to_owned()][..])
    );
    let before = nft_generation;
    assert!(run(&namespace, &["nft", "-f", "-"], "flush chain inet filter input\n"));
    let after = namespace.read().firewall;
    assert_ne!(after.nft_generation, before);
    let input = after.chains.iter().find(|chain| chain.name == "input").expect("it stays");
    assert_eq!(input.rules, 0);
}

#[test]
fn legacy_tables_are_idle_until_they_hold_something() {
    for (program, family) in
        [("iptables-legacy", NfFamily::Ip), ("ip6tables-legacy", NfFamily::Ip6)]
    {
        let Some(namespace) = Namespace::new() else { return };
        // Listing a table makes it.
        if !run(&namespace, &[program, "-t", "filter", "-S"], "") {
            continue;
        }
        let idle = || {
            let tables = namespace.read().firewall.legacy_tables;
            let row = |name: &str| {
                tables
                    .iter()
                    .find(|table| table.name == name)
                    .map(|table| (table.family, table.idle))
            };
            row("filter")
        };
        assert_eq!(idle(), Some((family, Some(true))), "{program}");
        assert!(run(&namespace, &[program, "-N", "OWN"], ""));
        assert_eq!(idle(), Some((family, Some(true))), "{program}: nothing jumps there");
        assert!(run(&namespace, &[program, "-A", "INPUT", "-p", "tcp", "-j", "DROP"], ""));
        assert_eq!(idle(), Some((family, Some(false))), "{program}: a rule");
        assert!(run(&namespace, &[program, "-F", "INPUT"], ""));
        assert_eq!(idle(), Some((family, Some(true))), "{program}: gone again");
        assert!(run(&namespace, &[program, "-P", "FORWARD", "DROP"], ""));
        assert_eq!(idle(), Some((family, Some(false))), "{program}: a policy");
    }
}

#[test]
fn filters_that_were_not_asked_for_are_gaps() {
    let Some(namespace) = Namespace::new() else { return };
    let netns = NetnsChoice::Process(namespace.pid());
    let snapshot = collect(&Scope { netns, filters: false, ..everything() });
    let gaps = snapshot.expect("it can be read").namespaces.remove(0).gaps;
    assert!(gaps.iter().any(|gap| gap.subject == GapSubject::NftRuleset));
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::NotRead));
}
