//! Rulesets: references lead somewhere, and jumps come to an end.
//!
//! The kernel checks both when a ruleset changes (net/netfilter/nf_tables_api.c, `nft_table_validate`).
//! What it does not check is allowed: rules that nothing jumps to, and may jump in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{Contradiction, Inconsistency, each};
use crate::nft::expr::{Constant, NfVerdict, Register};
use crate::nft::{Chain, Expr, Ruleset, Set, Table};

/// `NFT_JUMP_STACK_SIZE`.
const MAX_DEPTH: usize = 16;

/// Registers have this many slots.
const SLOTS: u8 = 16;

/// Checks a ruleset. Positions are those of tables.
pub(super) fn check(ruleset: &Ruleset) -> Result<(), Inconsistency> {
    let mut names = BTreeSet::new();
    each("firewall.nft.tables", &ruleset.tables, |table| {
        if !names.insert((table.family, table.name.as_str())) {
            return Err(Contradiction::DuplicateRulesName(table.name.clone()));
        }
        TableCheck::new(table)?.check()
    })
}

/// What a table holds, by name.
struct TableCheck<'a> {
    chains: BTreeMap<&'a str, &'a Chain>,
    sets: BTreeMap<&'a str, &'a Set>,
    /// The deepest level at which a chain has been found to come to an end.
    ends: BTreeMap<&'a str, usize>,
}

impl<'a> TableCheck<'a> {
    fn new(table: &'a Table) -> Result<Self, Contradiction> {
        let mut check =
            Self { chains: BTreeMap::new(), sets: BTreeMap::new(), ends: BTreeMap::new() };
        for chain in &table.chains {
            if check.chains.insert(&chain.name, chain).is_some() {
                return Err(Contradiction::DuplicateRulesName(chain.name.clone()));
            }
        }
        for set in &table.sets {
            if check.sets.insert(&set.name, set).is_some() {
                return Err(Contradiction::DuplicateRulesName(set.name.clone()));
            }
        }
        Ok(check)
    }

    fn check(mut self) -> Result<(), Contradiction> {
        let chains: Vec<&'a Chain> = self.chains.values().copied().collect();
        for chain in &chains {
            for expr in chain.rules.iter().flat_map(|rule| &rule.exprs) {
                self.check_expr(expr)?;
            }
        }
        for element in self.sets.values().flat_map(|set| &set.elements) {
            if let Some(Constant::Verdict(verdict)) = &element.data {
                self.check_verdict(verdict)?;
            }
        }
        chains.iter().filter(|chain| chain.base.is_some()).try_for_each(|base| self.follow(base, 0))
    }

    fn check_expr(&self, expr: &Expr) -> Result<(), Contradiction> {
        for register in registers(expr) {
            if register.0 >= SLOTS {
                return Err(Contradiction::NoSuchRegister(register.0));
            }
        }
        match expr {
            Expr::Verdict(verdict) => self.check_verdict(verdict),
            Expr::Lookup { set, .. } | Expr::Dynset { set, .. } | Expr::ObjrefMap { set, .. } => {
                if self.sets.contains_key(set.as_str()) {
                    Ok(())
                } else {
                    Err(Contradiction::NoSuchSet(set.clone()))
                }
            }
            _ => Ok(()),
        }
    }

    fn check_verdict(&self, verdict: &NfVerdict) -> Result<(), Contradiction> {
        match target(verdict) {
            Some(chain) if !self.chains.contains_key(chain) => {
                Err(Contradiction::NoSuchChain(chain.to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Follows the jumps of a chain, no deeper than the kernel allows.
    fn follow(&mut self, chain: &'a Chain, level: usize) -> Result<(), Contradiction> {
        if level == MAX_DEPTH || (level > 0 && chain.base.is_some()) {
            return Err(Contradiction::JumpLoop(chain.name.clone()));
        }
        if self.ends.get(chain.name.as_str()).is_some_and(|ended| *ended >= level) {
            return Ok(());
        }
        for expr in chain.rules.iter().flat_map(|rule| &rule.exprs) {
            match expr {
                Expr::Verdict(verdict) => self.follow_verdict(verdict, level)?,
                Expr::Lookup { set, .. } => {
                    let set = self.sets.get(set.as_str()).copied();
                    for element in set.into_iter().flat_map(|set| &set.elements) {
                        if let Some(Constant::Verdict(verdict)) = &element.data {
                            self.follow_verdict(verdict, level)?;
                        }
                    }
                }
                _ => {}
            }
        }
        self.ends.insert(&chain.name, level);
        Ok(())
    }

    fn follow_verdict(
        &mut self,
        verdict: &'a NfVerdict,
        level: usize,
    ) -> Result<(), Contradiction> {
        match target(verdict).and_then(|name| self.chains.get(name).copied()) {
            Some(chain) => self.follow(chain, level + 1),
            None => Ok(()),
        }
    }
}

fn target(verdict: &NfVerdict) -> Option<&str> {
    match verdict {
        NfVerdict::Jump(chain) | NfVerdict::Goto(chain) => Some(chain),
        _ => None,
    }
}

/// Every register that an expression names.
fn registers(expr: &Expr) -> Vec<Register> {
    match expr {
        Expr::Immediate { dreg, .. }
        | Expr::Payload { dreg, .. }
        | Expr::Exthdr { dreg, .. }
        | Expr::Meta { dreg, .. }
        | Expr::Ct { dreg, .. }
        | Expr::Rt { dreg, .. }
        | Expr::Socket { dreg, .. }
        | Expr::Fib { dreg, .. }
        | Expr::Numgen { dreg, .. }
        | Expr::Osf { dreg }
        | Expr::Tunnel { dreg, .. }
        | Expr::Xfrm { dreg, .. } => vec![*dreg],
        Expr::Cmp { sreg, .. }
        | Expr::Range { sreg, .. }
        | Expr::PayloadSet { sreg, .. }
        | Expr::MetaSet { sreg, .. }
        | Expr::CtSet { sreg, .. }
        | Expr::ObjrefMap { sreg, .. } => vec![*sreg],
        Expr::Bitwise { sreg, dreg, op, .. } => {
            use crate::nft::expr::{BitwiseOp, Operand};
            let second = match op {
                BitwiseOp::And(Operand::Register(second))
                | BitwiseOp::Or(Operand::Register(second))
                | BitwiseOp::Xor(Operand::Register(second)) => Some(*second),
                _ => None,
            };
            [*sreg, *dreg].into_iter().chain(second).collect()
        }
        Expr::Byteorder { sreg, dreg, .. } => vec![*sreg, *dreg],
        Expr::Lookup { sreg, dreg, .. } => [*sreg].into_iter().chain(*dreg).collect(),
        Expr::Dynset { sreg_key, sreg_data, .. } => {
            [*sreg_key].into_iter().chain(*sreg_data).collect()
        }
        Expr::Hash { dreg, sreg, .. } => [*dreg].into_iter().chain(*sreg).collect(),
        Expr::Nat { range, .. } | Expr::Masq { range } | Expr::Redir { range } => {
            let all = [range.addr_min, range.addr_max, range.proto_min, range.proto_max];
            all.into_iter().flatten().collect()
        }
        Expr::Tproxy { addr, port, .. } => addr.iter().chain(port).copied().collect(),
        Expr::Verdict(_)
        | Expr::ExthdrSet { .. }
        | Expr::Limit { .. }
        | Expr::Quota { .. }
        | Expr::Connlimit { .. }
        | Expr::Counter { .. }
        | Expr::Last
        | Expr::Log { .. }
        | Expr::Reject { .. }
        | Expr::Notrack
        | Expr::Objref { .. }
        | Expr::Synproxy
        | Expr::Dup
        | Expr::Fwd
        | Expr::Queue { .. }
        | Expr::FlowOffload { .. }
        | Expr::Match(_)
        | Expr::Target(_)
        | Expr::Opaque(_) => Vec::new(),
    }
}
