//! Everything registered at one hook, in the order in which packets meet it, for all packets at once.
//!
//! *Kernel:* `nf_hook_slow` (net/netfilter/core.c). A packet passes a hook if each chain there lets it
//! pass; the first that does not decides what becomes of it.

use std::collections::BTreeSet;
use std::rc::Rc;

use canreach_snapshot::{Family, Ifindex, NfHook};

use crate::host::Host;
use crate::host::ruleset::Hooked;
use crate::netfilter::chain::{Evaluation, Removed};
use crate::netfilter::conntrack::confirm;
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::netfilter::view::View;
use crate::packet::diagram::{Diagram, FixedMap};
use crate::packet::packet_set::PacketSet;
use crate::{DropReason, NfSubject, UnknownReason};

/// Packets that look the same to rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strand {
    /// The packets, as they were sent.
    pub(crate) set: PacketSet,
    /// How they look here.
    pub(crate) view: View,
    /// The last rule that said accept to them at this hook, or at an earlier one.
    pub(crate) by: Option<NfSubject>,
}

/// Where packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HookPlace {
    /// The hook.
    pub(crate) hook: NfHook,
    /// The link, at ingress and egress.
    pub(crate) link: Option<Ifindex>,
}

impl HookPlace {
    /// A hook of IPv4 and IPv6.
    pub(crate) const fn at(hook: NfHook) -> Self {
        Self { hook, link: None }
    }
}

/// Rules to skip, and policies to take for accept: what if these were not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Neutral(pub(crate) BTreeSet<NfSubject>);

impl Neutral {
    /// Whether a rule is skipped.
    pub(crate) fn has(&self, subject: NfSubject) -> bool {
        !self.0.is_empty() && self.0.contains(&subject)
    }
}

/// An error that is sent to whoever sent the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RejectAnswer {
    /// A TCP reset.
    TcpReset,
    /// ICMP destination unreachable, with this code.
    Icmp(u8),
    /// ICMPv6 destination unreachable, with this code.
    Icmpv6(u8),
}

/// What stops packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NfStop {
    /// The rule, or the policy.
    pub(crate) subject: NfSubject,
    /// `FwDrop`, `FwReject` or `NatFailed`.
    pub(crate) reason: DropReason,
    /// The error that is sent, if one is. The packet is gone either way.
    pub(crate) answer: Option<RejectAnswer>,
}

/// What cannot be followed any further: anything may become of these packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NfLost {
    /// The rule.
    pub(crate) subject: NfSubject,
    /// Why.
    pub(crate) reason: UnknownReason,
}

/// What becomes of the packets that entered a hook: disjoint sets, together what entered. Sets may
/// depend on unknowns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HookResult {
    /// They go on.
    pub(crate) passed: Vec<Strand>,
    /// They are stopped.
    pub(crate) stopped: Vec<(Strand, NfStop)>,
    /// A rule may send them anywhere: neither a *yes* nor a *no* may rest on them.
    pub(crate) lost: Vec<(Strand, NfLost)>,
}

/// Takes packets through a hook. Strands that look alike are evaluated together, however many rules let
/// them pass before.
///
/// Where [`Diagram::is_breached`] or [`Unknowns::is_breached`] is set afterwards, a limit was reached, and
/// no answer may rest on the result.
pub(crate) fn pass_hook(
    host: &Host<'_>,
    sets: &mut Diagram,
    unknowns: &mut Unknowns,
    place: HookPlace,
    entering: Vec<Strand>,
    neutral: &Neutral,
) -> HookResult {
    let mut earlier: Vec<(PacketSet, NfSubject)> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for strand in entering {
        earlier.extend(strand.by.map(|by| (strand.set, by)));
        // Where a link's own hooks are, that link is the packet's.
        let iif = if place.hook == NfHook::Ingress { place.link } else { strand.view.iif };
        let view = View { reroute: false, iif, ..strand.view };
        push_open(sets, &mut open, strand.set, Rc::new(view));
    }
    let mut evaluation = Evaluation::new(host, sets, unknowns, place, neutral);
    evaluation.accepted = earlier;
    if let Some(first) = open.first() {
        let family = first.view.family;
        let other = evaluation.take_other_order(family, &mut open);
        open = evaluation.run_all(family, open);
        if !other.is_empty() {
            evaluation.other_order = true;
            let other = evaluation.run_all(family, other);
            open.extend(other);
            open = merge_open(evaluation.sets, open);
        }
    }
    evaluation.finish(open)
}

/// Packets that look alike, on their way.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) set: PacketSet,
    pub(crate) view: Rc<View>,
}

/// Adds packets, to those that look alike if there are any.
pub(crate) fn push_open(sets: &mut Diagram, open: &mut Vec<Open>, set: PacketSet, view: Rc<View>) {
    if set.is_empty() {
        return;
    }
    match open.iter_mut().find(|known| Rc::ptr_eq(&known.view, &view) || known.view == view) {
        Some(known) => known.set = sets.or(known.set, set),
        None => open.push(Open { set, view }),
    }
}

/// Unites packets that look alike.
pub(crate) fn merge_open(sets: &mut Diagram, open: Vec<Open>) -> Vec<Open> {
    if open.len() < 2 {
        return open.into_iter().filter(|open| !open.set.is_empty()).collect();
    }
    let mut groups: Vec<(Rc<View>, Vec<PacketSet>)> = Vec::new();
    for Open { set, view } in open {
        if set.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(known, _)| Rc::ptr_eq(known, &view) || *known == view) {
            Some((_, parts)) => parts.push(set),
            None => groups.push((view, vec![set])),
        }
    }
    groups.into_iter().map(|(view, parts)| Open { set: sets.union(parts), view }).collect()
}

impl Evaluation<'_, '_, '_> {
    /// Of packets that may meet what is at the hook in either of two orders, those that meet it in the
    /// other. It is the same at each hook.
    fn take_other_order(&mut self, family: Family, open: &mut [Open]) -> Vec<Open> {
        if !self.host.ruleset().has_two_orders(family, self.place) {
            return Vec::new();
        }
        let cause = Cause { reason: UnknownReason::HookOrder, subject: None };
        let same = Sameness::Machine("order of tables".to_owned());
        let variable = self.unknowns.same(same, cause, 0, 1);
        let is_other = Unknowns::happens(self.sets, variable);
        let mut other = Vec::with_capacity(open.len());
        for strand in open {
            let set = self.sets.and(strand.set, is_other);
            other.push(Open { set, view: Rc::clone(&strand.view) });
            strand.set = self.sets.difference(strand.set, is_other);
        }
        other
    }

    /// Everything registered at the hook.
    fn run_all(&mut self, family: Family, mut open: Vec<Open>) -> Vec<Open> {
        let host = self.host;
        for step in host.ruleset().hooked(family, self.place, self.other_order) {
            open = self.run_step(step, open);
        }
        open
    }

    /// One of the things registered at the hook.
    pub(crate) fn run_step(&mut self, step: &Hooked, open: Vec<Open>) -> Vec<Open> {
        match step {
            Hooked::Track => self.track_all(open),
            Hooked::Confirm => self.each(open, confirm),
            Hooked::Translate { source } => self.translate_all(*source, open),
            Hooked::Chain { chain, kind, policy } => {
                self.kind = *kind;
                let mut passed = Vec::new();
                for strand in open {
                    let (accepted, ended) = self.run_base(*chain, strand);
                    let kept = self.apply_policy(chain.policy(), *policy, ended);
                    for open in accepted.into_iter().chain(kept) {
                        push_open(self.sets, &mut passed, open.set, open.view);
                    }
                }
                passed
            }
        }
    }

    /// Changes how packets look, all alike.
    fn each(&mut self, open: Vec<Open>, change: impl Fn(&mut View)) -> Vec<Open> {
        let mut changed = Vec::with_capacity(open.len());
        for mut strand in open {
            change(Rc::make_mut(&mut strand.view));
            push_open(self.sets, &mut changed, strand.set, strand.view);
        }
        changed
    }

    /// What came of it. Packets that pass are told apart by the last rule that accepted them.
    fn finish(mut self, open: Vec<Open>) -> HookResult {
        let mut passed = Vec::new();
        let records = std::mem::take(&mut self.accepted);
        for Open { set, view } in open {
            let mut named = Removed::default();
            let mut by_rule: Vec<(NfSubject, Vec<PacketSet>)> = Vec::new();
            let mut numbers: FixedMap<NfSubject, usize> = FixedMap::default();
            for (accepted, subject) in records.iter().rev() {
                let hit = self.sets.and(set, *accepted);
                let hit = named.strip(self.sets, hit);
                if hit.is_empty() {
                    continue;
                }
                named.add(self.sets, hit);
                let number = *numbers.entry(*subject).or_insert(by_rule.len());
                match by_rule.get_mut(number) {
                    Some((_, parts)) => parts.push(hit),
                    None => by_rule.push((*subject, vec![hit])),
                }
            }
            let rest = named.strip(self.sets, set);
            let by_rule: Vec<_> = by_rule
                .into_iter()
                .map(|(subject, parts)| (subject, self.sets.union(parts)))
                .collect();
            let mut push = |set: PacketSet, by| {
                if !set.is_empty() {
                    passed.push(Strand { set, view: View::clone(&view), by });
                }
            };
            push(rest, None);
            for (subject, set) in by_rule {
                push(set, Some(subject));
            }
        }
        HookResult { passed, stopped: self.stopped, lost: self.lost }
    }
}
