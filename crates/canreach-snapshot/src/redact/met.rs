//! What rules of xtables and sets of ipset hold, before anything of it is exchanged.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::exchange::{self, Exchange};
use crate::nft::Expr;
use crate::{Firewall, Prefix};

/// Everything that one firewall names.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) prefixes: Vec<Prefix>,
    pub(super) ranges: Vec<(IpAddr, IpAddr)>,
    pub(super) links: BTreeSet<String>,
    /// How names of links start.
    pub(super) link_starts: BTreeSet<String>,
    pub(super) chains: BTreeSet<String>,
    pub(super) sets: BTreeSet<String>,
}

impl Met {
    pub(super) fn of(firewall: &Firewall) -> Self {
        let mut met = Self::default();
        for table in &firewall.xt_tables {
            exchange::table(&mut table.clone(), &mut met);
        }
        let tables = firewall.nft.iter().flat_map(|ruleset| &ruleset.tables);
        let rules = tables.flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
        for expr in rules.flat_map(|rule| &rule.exprs) {
            if let Expr::Match(row) = expr {
                exchange::one_match(&mut row.clone(), &mut met);
            } else if let Expr::Target(row) = expr {
                exchange::target(&mut row.clone(), &mut met);
            }
        }
        for set in firewall.ipsets.iter().flatten() {
            exchange::ipset(&mut set.clone(), &mut met);
        }
        met
    }
}

/// Exchanges each thing for itself.
impl Exchange for Met {
    fn prefix(&mut self, prefix: Prefix) -> Prefix {
        self.prefixes.push(prefix);
        prefix
    }

    fn range(&mut self, low: IpAddr, high: IpAddr) -> (IpAddr, IpAddr) {
        self.ranges.push((low, high));
        (low, high)
    }

    fn link(&mut self, name: &str) -> String {
        self.links.insert(name.to_owned());
        name.to_owned()
    }

    fn link_start(&mut self, start: &str) -> String {
        self.link_starts.insert(start.to_owned());
        start.to_owned()
    }

    fn chain(&mut self, name: &str) -> String {
        self.chains.insert(name.to_owned());
        name.to_owned()
    }

    fn set(&mut self, name: &str) -> String {
        self.sets.insert(name.to_owned());
        name.to_owned()
    }

    fn mac(&mut self, mac: [u8; 6]) -> [u8; 6] {
        mac
    }

    fn cgroup_path(&mut self, path: &str) -> String {
        path.to_owned()
    }
}
