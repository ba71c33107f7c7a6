//! The chain interpreter of nftables: rules in order, jumps and returns, for all packets at once.
//!
//! *Kernel:* `nft_do_chain` (net/netfilter/nf_tables_core.c).

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::rc::Rc;

use canreach_snapshot::ChainKind;
use canreach_snapshot::nft::{self, expr::NfVerdict};
use canreach_snapshot::xt;

use crate::host::Host;
use crate::netfilter::hook::{
    HookPlace, Neutral, NfLost, NfStop, Open, Strand, merge_open, push_open,
};
use crate::netfilter::register::{Registers, Tester};
use crate::netfilter::unknown::{Cause, Unknowns};
use crate::netfilter::view::View;
use crate::packet::diagram::{Diagram, FixedHasher};
use crate::packet::packet_set::PacketSet;
use crate::{DropReason, NfSubject, UnknownReason};

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`; the kernel refuses deeper ones).
const MAX_DEPTH: usize = 16;
/// The most rules that are evaluated at one hook.
const MAX_STEPS: u32 = 1 << 22;
/// The most ways packets may look at once.
const MAX_STRANDS: usize = 1 << 10;

/// What one walk through a hook needs and gathers.
pub(crate) struct Evaluation<'e, 'h, 'a> {
    pub(crate) host: &'h Host<'a>,
    pub(crate) sets: &'e mut Diagram,
    pub(crate) unknowns: &'e mut Unknowns,
    pub(crate) place: HookPlace,
    pub(crate) neutral: &'e Neutral,
    pub(crate) stopped: Vec<(Strand, NfStop)>,
    pub(crate) lost: Vec<(Strand, NfLost)>,
    /// In order: packets that a rule accepted.
    pub(crate) accepted: Vec<(PacketSet, NfSubject)>,
    /// The type of the base chain that runs.
    pub(crate) kind: ChainKind,
    /// Of the two orders of equal priorities, the other.
    pub(crate) other_order: bool,
    /// Chains that are known to do nothing to some packets.
    idle: HashSet<(ChainId, PacketSet, Rc<View>), BuildHasherDefault<FixedHasher>>,
    steps: u32,
}

/// A chain, by its place in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ChainId {
    /// Of nftables: table and chain.
    Nft(usize, usize),
    /// Of iptables-legacy.
    Xt(usize, usize),
}

/// The rules of a chain.
#[derive(Debug, Clone, Copy)]
enum Rules<'a> {
    Nft(&'a [nft::Rule]),
    Xt(&'a [xt::Rule]),
}

impl Rules<'_> {
    const fn len(self) -> usize {
        match self {
            Self::Nft(rules) => rules.len(),
            Self::Xt(rules) => rules.len(),
        }
    }
}

impl ChainId {
    const fn table(self) -> usize {
        match self {
            Self::Nft(table, _) | Self::Xt(table, _) => table,
        }
    }

    /// The policy of a base chain.
    pub(crate) const fn policy(self) -> NfSubject {
        match self {
            Self::Nft(table, chain) => NfSubject::NftPolicy { table, chain },
            Self::Xt(table, chain) => NfSubject::XtPolicy { table, chain },
        }
    }

    const fn rule(self, rule: usize) -> NfSubject {
        match self {
            Self::Nft(table, chain) => NfSubject::NftRule { table, chain, rule },
            Self::Xt(table, chain) => NfSubject::XtRule { table, chain, rule },
        }
    }
}

/// What came out of a chain, beside what was stopped.
#[derive(Debug, Default)]
pub(crate) struct ChainResult {
    /// Accepted: they leave the base chain.
    pub(crate) accepted: Vec<Open>,
    /// They reached the end, or returned.
    pub(crate) ended: Vec<Open>,
}

/// Packets on their way through one rule.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) set: PacketSet,
    pub(crate) view: Rc<View>,
    pub(crate) registers: Registers,
    /// They look different from how they entered the rule.
    pub(crate) changed: bool,
}

/// What a rule makes of packets. What is in none of the lists goes to the next rule as it was.
#[derive(Debug, Default)]
pub(crate) struct RuleResult {
    /// They go to the next rule, and look different.
    pub(crate) changed: Vec<Open>,
    /// They leave the rule with a verdict.
    pub(crate) decided: Vec<(Open, Decision)>,
}

/// How packets leave a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// By this verdict.
    Verdict(NfVerdict),
    /// Stopped, with this reason and answer.
    Stop(DropReason, Option<crate::netfilter::hook::RejectAnswer>),
    /// Nobody knows.
    Lost(UnknownReason),
}

/// Packets that are to be taken off a large set, by and by: small sets at first, then larger ones, so
/// that the large set is rarely copied.
#[derive(Debug, Default)]
pub(crate) struct Removed([Option<PacketSet>; LEVELS]);

/// How many sizes there are.
const LEVELS: usize = 3;
/// How many intervals the smallest size has, and how many times more the next.
const GROWTH: usize = 64;

impl Removed {
    /// Takes packets off.
    pub(crate) fn add(&mut self, sets: &mut Diagram, set: PacketSet) {
        let mut carried = set;
        let mut most = GROWTH;
        for (index, level) in self.0.iter_mut().enumerate() {
            let sum = level.map_or(carried, |known| sets.or(known, carried));
            if sets.width(sum) <= most || index + 1 == LEVELS {
                *level = Some(sum);
                return;
            }
            *level = None;
            carried = sum;
            most *= GROWTH;
        }
    }

    /// What is left of a set.
    pub(crate) fn strip(&self, sets: &mut Diagram, set: PacketSet) -> PacketSet {
        self.0.iter().flatten().fold(set, |set, gone| sets.difference(set, *gone))
    }

    /// Whether so much is gone that the set is better made anew.
    fn is_large(&self, sets: &Diagram, base: PacketSet) -> bool {
        let largest = self.0[LEVELS - 1].map_or(0, |set| sets.width(set));
        largest > GROWTH * GROWTH && largest > sets.width(base) / 2
    }

    const fn is_empty(&self) -> bool {
        matches!(self.0, [None, None, None])
    }
}

/// Packets in a chain that look alike: what entered, less what left since.
struct Waiting {
    base: PacketSet,
    gone: Removed,
    view: Rc<View>,
}

impl Waiting {
    fn new(open: Open) -> Self {
        Self { base: open.set, gone: Removed([None; LEVELS]), view: open.view }
    }

    /// What is left, as one set.
    fn settle(&mut self, sets: &mut Diagram) -> PacketSet {
        if !self.gone.is_empty() {
            self.base = self.gone.strip(sets, self.base);
            self.gone = Removed::default();
        }
        self.base
    }

    /// Takes packets off.
    fn take(&mut self, sets: &mut Diagram, set: PacketSet) {
        if set == self.base {
            self.base = PacketSet::NONE;
            self.gone = Removed::default();
        } else if !set.is_empty() {
            self.gone.add(sets, set);
            if self.gone.is_large(sets, self.base) {
                self.settle(sets);
            }
        }
    }
}

impl<'e, 'h, 'a> Evaluation<'e, 'h, 'a> {
    pub(crate) fn new(
        host: &'h Host<'a>,
        sets: &'e mut Diagram,
        unknowns: &'e mut Unknowns,
        place: HookPlace,
        neutral: &'e Neutral,
    ) -> Self {
        Self {
            host,
            sets,
            unknowns,
            place,
            neutral,
            stopped: Vec::new(),
            lost: Vec::new(),
            accepted: Vec::new(),
            kind: ChainKind::Filter,
            other_order: false,
            idle: HashSet::default(),
            steps: 0,
        }
    }

    /// Records that packets are stopped.
    pub(crate) fn stop(&mut self, set: PacketSet, view: &Rc<View>, stop: NfStop) {
        if !set.is_empty() {
            let strand = Strand { set, view: View::clone(view), by: None };
            self.stopped.push((strand, stop));
        }
    }

    /// Something with two outcomes that may differ each time it is asked.
    pub(crate) fn chance(&mut self, reason: UnknownReason, subject: NfSubject) -> PacketSet {
        let cause = Cause { reason, subject: Some(subject) };
        let variable = self.unknowns.fresh(cause, 0, 1);
        Unknowns::happens(self.sets, variable)
    }

    /// For tests of registers.
    pub(crate) const fn tester(&mut self, subject: NfSubject) -> Tester<'_, 'a> {
        Tester { host: self.host, sets: self.sets, unknowns: self.unknowns, subject }
    }

    /// A base chain: packets that are accepted, and those its policy decides on.
    pub(crate) fn run_base(&mut self, chain: ChainId, open: Open) -> (Vec<Open>, Vec<Open>) {
        let mut result = ChainResult::default();
        let ended = self.run_chain(chain, open, 0, &mut result.accepted);
        (merge_open(self.sets, result.accepted), ended)
    }

    /// Runs a chain. Returns what reaches its end or returns from it.
    fn run_chain(
        &mut self,
        chain: ChainId,
        open: Open,
        depth: usize,
        accepted: &mut Vec<Open>,
    ) -> Vec<Open> {
        let ruleset = self.host.ruleset();
        let rules = match chain {
            ChainId::Nft(table, chain) => {
                ruleset.nft_chain(table, chain).map(|chain| Rules::Nft(&chain.rules))
            }
            ChainId::Xt(table, chain) => {
                ruleset.xt_chain(table, chain).map(|chain| Rules::Xt(&chain.rules))
            }
        };
        let Some(rules) = rules.filter(|rules| rules.len() > 0) else { return vec![open] };
        let key = (chain, open.set, Rc::clone(&open.view));
        if self.idle.contains(&key) {
            return vec![open];
        }
        if depth > MAX_DEPTH {
            self.unknowns.breach();
            return vec![open];
        }
        let marks = (accepted.len(), self.stopped.len(), self.lost.len());
        let ended = self.run_rules(chain, rules, open, depth, accepted);
        let unmoved = marks == (accepted.len(), self.stopped.len(), self.lost.len());
        if let ([only], true) = (ended.as_slice(), unmoved)
            && only.set == key.1
            && only.view == key.2
        {
            self.idle.insert(key);
        }
        ended
    }

    fn run_rules(
        &mut self,
        chain: ChainId,
        rules: Rules<'a>,
        open: Open,
        depth: usize,
        accepted: &mut Vec<Open>,
    ) -> Vec<Open> {
        let mut waiting = vec![Waiting::new(open)];
        let mut ended: Vec<Open> = Vec::new();
        for index in 0..rules.len() {
            let subject = chain.rule(index);
            if self.neutral.has(subject) {
                continue;
            }
            let mut added: Vec<Open> = Vec::new();
            for strand in &mut waiting {
                self.steps += 1;
                if strand.base.is_empty() {
                    continue;
                }
                let result = self.run_rule((chain.table(), subject), rules, index, strand);
                for open in result.changed {
                    strand.take(self.sets, open.set);
                    push_open(self.sets, &mut added, open.set, open.view);
                }
                for (open, decision) in result.decided {
                    let back =
                        self.decide((chain, subject), open.clone(), decision, depth, accepted);
                    let mut left = open.set;
                    for open in back.on {
                        if open.view == strand.view {
                            left = self.sets.difference(left, open.set);
                        } else {
                            push_open(self.sets, &mut added, open.set, open.view);
                        }
                    }
                    strand.take(self.sets, left);
                    ended.extend(back.ended);
                }
            }
            self.join(&mut waiting, added);
            if self.steps > MAX_STEPS || waiting.len() > MAX_STRANDS {
                self.unknowns.breach();
                return Vec::new();
            }
        }
        for mut strand in waiting {
            let set = strand.settle(self.sets);
            ended.push(Open { set, view: strand.view });
        }
        merge_open(self.sets, ended)
    }

    /// Puts packets that look different now among those that wait for the next rule.
    fn join(&mut self, waiting: &mut Vec<Waiting>, added: Vec<Open>) {
        if added.is_empty() {
            return;
        }
        for open in added {
            match waiting.iter_mut().find(|strand| strand.view == open.view) {
                Some(strand) => {
                    strand.settle(self.sets);
                    strand.base = self.sets.or(strand.base, open.set);
                }
                None => waiting.push(Waiting::new(open)),
            }
        }
        for strand in waiting.iter_mut() {
            strand.settle(self.sets);
        }
        waiting.retain(|strand| !strand.base.is_empty());
    }

    fn run_rule(
        &mut self,
        at: (usize, NfSubject),
        rules: Rules<'a>,
        index: usize,
        strand: &Waiting,
    ) -> RuleResult {
        let mut result = RuleResult::default();
        let state = State {
            set: strand.base,
            view: Rc::clone(&strand.view),
            registers: Registers::default(),
            changed: false,
        };
        let open = match rules {
            Rules::Nft(rules) => self.run_exprs(at, &rules[index].exprs, state, &mut result),
            Rules::Xt(rules) => self.xt_rule(at, &rules[index], state, &mut result),
        };
        for state in open {
            if state.changed {
                result.changed.push(Open { set: state.set, view: state.view });
            }
        }
        // Packets that left before are still in the base.
        if !strand.gone.is_empty() {
            for open in
                result.changed.iter_mut().chain(result.decided.iter_mut().map(|(open, _)| open))
            {
                open.set = strand.gone.strip(self.sets, open.set);
            }
        }
        result.changed.retain(|open| !open.set.is_empty());
        result.decided.retain(|(open, _)| !open.set.is_empty());
        result
    }

    fn run_exprs(
        &mut self,
        at: (usize, NfSubject),
        exprs: &'a [nft::Expr],
        state: State,
        result: &mut RuleResult,
    ) -> Vec<State> {
        let mut open = vec![state];
        for expr in exprs {
            let mut next = Vec::with_capacity(1);
            for state in open {
                self.step(at, expr, state, &mut next, result);
            }
            open = next;
            if open.is_empty() {
                break;
            }
        }
        open
    }

    /// A chain of the same table.
    fn named(&self, chain: ChainId, name: &str) -> Option<ChainId> {
        let ruleset = self.host.ruleset();
        match chain {
            ChainId::Nft(table, _) => {
                ruleset.nft_chain_named(table, name).map(|chain| ChainId::Nft(table, chain))
            }
            ChainId::Xt(table, _) => {
                ruleset.xt_chain_named(table, name).map(|chain| ChainId::Xt(table, chain))
            }
        }
    }

    /// Carries out how packets left a rule.
    fn decide(
        &mut self,
        (chain, subject): (ChainId, NfSubject),
        open: Open,
        decision: Decision,
        depth: usize,
        accepted: &mut Vec<Open>,
    ) -> Back {
        let mut back = Back::default();
        let verdict = match decision {
            Decision::Verdict(verdict) => verdict,
            Decision::Stop(reason, answer) => {
                self.stop(open.set, &open.view, NfStop { subject, reason, answer });
                return back;
            }
            Decision::Lost(reason) => {
                let strand = Strand { set: open.set, view: View::clone(&open.view), by: None };
                self.lost.push((strand, NfLost { subject, reason }));
                return back;
            }
        };
        match verdict {
            NfVerdict::Accept => {
                self.accepted.push((open.set, subject));
                accepted.push(open);
            }
            NfVerdict::Drop | NfVerdict::Stolen => {
                let reason = DropReason::FwDrop;
                self.stop(open.set, &open.view, NfStop { subject, reason, answer: None });
            }
            NfVerdict::Queue { .. } => {
                // A program says accept or drop; where none listens, the kernel does.
                let chance = self.chance(UnknownReason::UserSpace, subject);
                let pass = self.sets.and(open.set, chance);
                let drop = self.sets.difference(open.set, pass);
                let reason = DropReason::FwDrop;
                self.stop(drop, &open.view, NfStop { subject, reason, answer: None });
                self.accepted.push((pass, subject));
                accepted.push(Open { set: pass, view: open.view });
            }
            NfVerdict::Continue | NfVerdict::Break => back.on.push(open),
            NfVerdict::Return => back.ended.push(open),
            NfVerdict::Jump(name) => match self.named(chain, &name) {
                Some(chain) => back.on = self.run_chain(chain, open, depth + 1, accepted),
                None => self.lose(open, subject),
            },
            NfVerdict::Goto(name) => match self.named(chain, &name) {
                Some(chain) => back.ended = self.run_chain(chain, open, depth + 1, accepted),
                None => self.lose(open, subject),
            },
            NfVerdict::Other(_) => self.lose(open, subject),
        }
        back
    }

    /// A chain that was not read, or a number that has no meaning here.
    fn lose(&mut self, open: Open, subject: NfSubject) {
        let strand = Strand { set: open.set, view: View::clone(&open.view), by: None };
        self.lost.push((strand, NfLost { subject, reason: UnknownReason::NotModelled }));
    }
}

/// Where packets go on after a verdict.
#[derive(Debug, Default)]
struct Back {
    /// At the next rule.
    on: Vec<Open>,
    /// Behind the end of the chain.
    ended: Vec<Open>,
}
