//! Rulesets as programs write them.

use canreach_snapshot::nft::Expr;

use super::bytecode::check;
use super::{load, table};
use crate::namespace::Namespace;

#[test]
fn firewalld_by_nft() {
    let Some(namespace) = Namespace::new() else { return };
    if load(&namespace, include_str!("../rulesets/firewalld.nft")).is_none() {
        return;
    }
    let Some(ruleset) = check(&namespace) else { return };
    let zones = table(&ruleset, "firewalld");
    assert!(zones.chain("filter_IN_public_allow").is_some_and(|chain| !chain.rules.is_empty()));
    let opaque = |expr: &Expr| matches!(expr, Expr::Opaque(_));
    let mut rules = zones.chains.iter().flat_map(|chain| &chain.rules);
    assert!(!rules.any(|rule| rule.exprs.iter().any(opaque)));
}

#[test]
fn rules_of_iptables_are_matches_and_targets() {
    for (program, rules, chain) in [
        ("iptables-nft-restore", include_str!("../rulesets/ufw.v4.rules"), "ufw-user-input"),
        ("ip6tables-nft-restore", include_str!("../rulesets/ufw.v6.rules"), "ufw6-user-input"),
        ("iptables-nft-restore", include_str!("../rulesets/docker.v4.rules"), "DOCKER"),
    ] {
        let Some(namespace) = Namespace::new() else { return };
        if namespace.output(&[program], rules).is_none() {
            continue;
        }
        let Some(ruleset) = check(&namespace) else { return };
        let chain = table(&ruleset, "filter").chain(chain).expect("it was restored");
        assert!(!chain.rules.is_empty());
        let exprs = ruleset
            .tables
            .iter()
            .flat_map(|table| &table.chains)
            .flat_map(|chain| &chain.rules)
            .flat_map(|rule| &rule.exprs);
        let count = |test: fn(&Expr) -> bool| exprs.clone().filter(|expr| test(expr)).count();
        assert!(count(|expr| matches!(expr, Expr::Match(_))) > 0, "{program}");
        assert!(count(|expr| matches!(expr, Expr::Target(_))) > 0, "{program}");
        assert_eq!(count(|expr| matches!(expr, Expr::Opaque(_))), 0, "{program}");
    }
}
