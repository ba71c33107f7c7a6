//! One base chain of nftables.
//!
//! Mirrors `nft_do_chain` (net/netfilter/nf_tables_core.c). A rule that only counts and logs is passed
//! over. What cannot be told of a rule is asked only once everything else of it matches, and only
//! before it does something.

use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::nft::{BaseChain, Chain, Expr, Rule, Table};
use canreach_snapshot::xt::TargetKind;
use canreach_snapshot::{ChainKind, ChainPolicy};

use super::order::NfStop;
use super::skb::{Place, Skb};
use super::value::{Registers, Tri};
use crate::reference::walk::Walk;
use crate::{DoubtEffect, UnknownReason};

/// `NFT_JUMP_STACK_SIZE`.
const JUMPS: usize = 16;
/// The most rules of one chain that are looked at. The kernel refuses loops; a damaged snapshot may
/// hold one.
const MAX_RULES: usize = 1 << 20;

/// What an expression comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// The next expression.
    Next,
    /// The next rule.
    Break,
    /// One of both; which cannot be told.
    Maybe(UnknownReason, Option<String>),
    /// The rule decides.
    Verdict(NfVerdict),
}

impl From<Tri> for Step {
    fn from(holds: Tri) -> Self {
        match holds {
            Tri::Yes => Self::Next,
            Tri::No => Self::Break,
            Tri::Maybe(reason, content) => Self::Maybe(reason, content),
        }
    }
}

impl<'a> Walk<'a> {
    /// `nft_do_chain`, and what chains of type route do after it (`nf_route_table_hook4`).
    pub(super) fn base_chain(
        &mut self,
        table: &'a Table,
        chain: &'a Chain,
        base: &BaseChain,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<(), NfStop> {
        let before = (skb.mark, skb.source, skb.destination);
        self.nft_do_chain(table, chain, base.policy, skb, place)?;
        if base.kind == ChainKind::Route && before != (skb.mark, skb.source, skb.destination) {
            self.route_me_harder(skb)?;
        }
        Ok(())
    }

    fn nft_do_chain(
        &mut self,
        table: &'a Table,
        chain: &'a Chain,
        policy: ChainPolicy,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<(), NfStop> {
        let mut stack: Vec<(&Chain, usize)> = Vec::new();
        let (mut current, mut at) = (chain, 0);
        for _ in 0..MAX_RULES {
            let verdict = match current.rules.get(at) {
                Some(rule) => {
                    at += 1;
                    self.rule(table, rule, skb, place)?
                }
                None => NfVerdict::Return,
            };
            match verdict {
                NfVerdict::Accept => return Ok(()),
                NfVerdict::Drop | NfVerdict::Stolen => return Err(NfStop::DROP),
                NfVerdict::Queue { .. } => return self.queue(),
                NfVerdict::Continue | NfVerdict::Break => {}
                NfVerdict::Return => match stack.pop() {
                    Some(back) => (current, at) = back,
                    None if policy == ChainPolicy::Accept => return Ok(()),
                    None => return Err(NfStop::DROP),
                },
                NfVerdict::Jump(name) | NfVerdict::Goto(name) if table.chain(&name).is_none() => {
                    // Only a damaged snapshot has no such chain.
                    self.doubt(UnknownReason::Unread, DoubtEffect::MayStop);
                }
                NfVerdict::Jump(name) => {
                    if stack.len() >= JUMPS {
                        return Err(NfStop::DROP);
                    }
                    stack.push((current, at));
                    (current, at) = (table.chain(&name).unwrap_or(current), 0);
                }
                NfVerdict::Goto(name) => {
                    (current, at) = (table.chain(&name).unwrap_or(current), 0);
                }
                NfVerdict::Other(_) => {
                    self.doubt(UnknownReason::NotModelled, DoubtEffect::MayStop);
                    return Ok(());
                }
            }
        }
        self.doubt(UnknownReason::LimitReached, DoubtEffect::MayStop);
        Ok(())
    }

    /// A program decides, or none is there.
    pub(super) fn queue(&self) -> Result<(), NfStop> {
        if self.forks.decide(UnknownReason::UserSpace, None) { Ok(()) } else { Err(NfStop::DROP) }
    }

    /// The expressions of one rule, from left to right.
    fn rule(
        &mut self,
        table: &'a Table,
        rule: &'a Rule,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<NfVerdict, NfStop> {
        if !rule.exprs.iter().any(acts) {
            return self.inert_rule(rule);
        }
        let mut registers = Registers::new();
        let mut unsure: Vec<(UnknownReason, Option<String>)> = Vec::new();
        for expr in &rule.exprs {
            if acts(expr) {
                for (reason, content) in unsure.drain(..) {
                    if !self.forks.decide(reason, content) {
                        return Ok(NfVerdict::Continue);
                    }
                }
            }
            match self.expr(table, expr, &mut registers, skb, place)? {
                Step::Next | Step::Verdict(NfVerdict::Continue) => {}
                Step::Break | Step::Verdict(NfVerdict::Break) => return Ok(NfVerdict::Continue),
                Step::Maybe(reason, content) => unsure.push((reason, content)),
                Step::Verdict(verdict) => return Ok(verdict),
            }
        }
        Ok(NfVerdict::Continue)
    }

    /// A rule that decides nothing, unless it has an expression nobody knows.
    fn inert_rule(&self, rule: &Rule) -> Result<NfVerdict, NfStop> {
        let opaque = rule.exprs.iter().any(|expr| matches!(expr, Expr::Opaque(_)));
        if opaque && !self.forks.decide(UnknownReason::NotModelled, None) {
            return Err(NfStop::DROP);
        }
        Ok(NfVerdict::Continue)
    }
}

/// Whether an expression does something to the packet, to what is kept of it, or decides.
fn acts(expr: &Expr) -> bool {
    match expr {
        Expr::Immediate { .. }
        | Expr::Cmp { .. }
        | Expr::Range { .. }
        | Expr::Bitwise { .. }
        | Expr::Byteorder { .. }
        | Expr::Payload { .. }
        | Expr::Exthdr { .. }
        | Expr::Meta { .. }
        | Expr::Ct { .. }
        | Expr::Rt { .. }
        | Expr::Socket { .. }
        | Expr::Fib { .. }
        | Expr::Hash { .. }
        | Expr::Numgen { .. }
        | Expr::Osf { .. }
        | Expr::Tunnel { .. }
        | Expr::Xfrm { .. }
        | Expr::Limit { .. }
        | Expr::Quota { .. }
        | Expr::Connlimit { .. }
        | Expr::Counter { .. }
        | Expr::Last
        | Expr::Log { .. }
        | Expr::ExthdrSet { .. }
        | Expr::Dup
        | Expr::FlowOffload { .. }
        | Expr::Match(_)
        | Expr::Opaque(_) => false,
        Expr::Lookup { verdict, .. } => *verdict,
        Expr::Target(target) => {
            !matches!(target.kind, TargetKind::NoVerdict | TargetKind::Continue)
        }
        Expr::Verdict(_)
        | Expr::PayloadSet { .. }
        | Expr::MetaSet { .. }
        | Expr::CtSet { .. }
        | Expr::Dynset { .. }
        | Expr::Reject { .. }
        | Expr::Nat { .. }
        | Expr::Masq { .. }
        | Expr::Redir { .. }
        | Expr::Tproxy { .. }
        | Expr::Notrack
        | Expr::Objref { .. }
        | Expr::ObjrefMap { .. }
        | Expr::Synproxy
        | Expr::Fwd
        | Expr::Queue { .. } => true,
    }
}
