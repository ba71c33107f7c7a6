//! Hooks where rules look at packets: what they decide, and what of them could not be read.
//!
//! *Kernel:* `nf_hook_slow` (net/netfilter/core.c), for each hook of both families.
//! *Decides:* who is stopped, by which rule, and what the sender sees; what the others look like.
//! *Reads:* rules by way of `netfilter`, BPF attachments, gaps.
//! *Not modelled:* netfilter programs (a doubt says so).

use canreach_snapshot::{AttachPoint, Family, GapSubject, NfFamily, NfHook};

use crate::host::Host;
use crate::netfilter::hook::{HookPlace, HookResult, NfStop, Strand, pass_hook};
use crate::netfilter::view::View;
use crate::packet::diagram::FixedMap;
use crate::packet::packet_set::PacketSet;
use crate::path::sets::Sets;
use crate::path::stage::{Finding, Partition};
use crate::{Doubt, DoubtEffect, Stage, Subject, TheySee, UnknownReason};

/// What rules made of packets at a hook.
#[derive(Debug, Default)]
pub(crate) struct HookWalk {
    /// What they found: disjoint, so that each packet is in one part at the most.
    pub(crate) partition: Partition,
    /// The packets as they go on, also those that are stopped: as they were then.
    pub(crate) strands: Vec<Strand>,
}

/// What senders see of a stop.
pub(crate) type Seen = Vec<(PacketSet, Option<TheySee>)>;

/// Sends packets through a hook.
pub(crate) fn walk_hook(
    host: &Host<'_>,
    sets: &mut Sets,
    (stage, place): (Stage, HookPlace),
    entering: Vec<Strand>,
    seen: &mut dyn FnMut(&mut Sets, &Strand, &NfStop) -> Seen,
) -> HookWalk {
    let HookResult { passed, stopped, lost } = pass(host, sets, stage, place, entering);
    let mut partition = Gathered::default();
    for strand in &passed {
        if let Some(rule) = strand.by.filter(|_| sets.names_rules) {
            let finding = Finding::pass(stage, Some(Subject::Netfilter(rule)));
            partition.add(sets, strand.set, finding);
        }
    }
    for (strand, stop) in &stopped {
        let subject = sets.names_rules.then_some(Subject::Netfilter(stop.subject));
        for (set, they_see) in seen(sets, strand, stop) {
            let set = sets.and(set, strand.set);
            partition.add(sets, set, Finding::stop(stage, stop.reason, subject.clone(), they_see));
        }
    }
    for (strand, what) in &lost {
        let subject = Some(Subject::Netfilter(what.subject));
        let effect = DoubtEffect::MayRedirect;
        partition.add(sets, strand.set, Finding::doubt(stage, what.reason, effect, subject));
    }
    let stopped = stopped.into_iter().map(|(strand, _)| strand);
    let onward =
        passed.into_iter().chain(stopped).chain(lost.into_iter().map(|(strand, _)| strand));
    HookWalk { partition: partition.parts, strands: merge(sets, onward) }
}

fn pass(
    host: &Host<'_>,
    sets: &mut Sets,
    stage: Stage,
    place: HookPlace,
    entering: Vec<Strand>,
) -> HookResult {
    let mut unknowns = std::mem::take(&mut sets.unknowns);
    let neutral = sets.neutral.get(&sets.here).cloned().unwrap_or_default();
    let result = pass_hook(host, sets, &mut unknowns, place, entering, &neutral);
    let met_at = (stage, sets.here);
    sets.met_at.resize(unknowns.count().max(sets.met_at.len()), met_at);
    sets.unknowns = unknowns;
    result
}

/// Parts of a partition, those with one finding as one.
#[derive(Debug, Default)]
struct Gathered {
    parts: Partition,
    numbers: FixedMap<Finding, usize>,
}

impl Gathered {
    fn add(&mut self, sets: &mut Sets, set: PacketSet, finding: Finding) {
        if set.is_empty() {
            return;
        }
        if let Some(number) = self.numbers.get(&finding) {
            let known = &mut self.parts[*number].0;
            *known = sets.or(*known, set);
        } else {
            self.numbers.insert(finding.clone(), self.parts.len());
            self.parts.push((set, finding));
        }
    }
}

/// Packets that look alike are one strand, whatever let them pass.
pub(crate) fn merge(sets: &mut Sets, strands: impl IntoIterator<Item = Strand>) -> Vec<Strand> {
    let mut merged: Vec<Strand> = Vec::new();
    let mut numbers: FixedMap<View, usize> = FixedMap::default();
    for strand in strands {
        if strand.set.is_empty() {
            continue;
        }
        if let Some(number) = numbers.get(&strand.view) {
            let known = &mut merged[*number].set;
            *known = sets.or(*known, strand.set);
        } else {
            numbers.insert(strand.view.clone(), merged.len());
            merged.push(Strand { by: None, ..strand });
        }
    }
    merged
}

/// Whether any rule is loaded that was read.
pub(crate) fn has_rules(host: &Host<'_>) -> bool {
    let firewall = &host.netns().firewall;
    !firewall.xt_tables.is_empty()
        || firewall.nft.as_ref().is_some_and(|ruleset| ruleset.hooked().next().is_some())
}

/// Doubts about one hook of one family. `effect` is what rules there could do to a packet.
pub(crate) fn hook_doubts(
    host: &Host<'_>,
    family: Family,
    hooks: &[NfHook],
    stage: Stage,
    effect: DoubtEffect,
) -> Vec<Doubt> {
    let mut doubts = rule_doubts(host, family, hooks, stage, effect);
    doubts.extend(rule_gap_doubts(host, family, stage, effect));
    doubts
}

/// Doubts about the rules and programs that are known to be there, and were not read.
pub(crate) fn rule_doubts(
    host: &Host<'_>,
    family: Family,
    hooks: &[NfHook],
    stage: Stage,
    effect: DoubtEffect,
) -> Vec<Doubt> {
    let netns = host.netns();
    let not_modelled = UnknownReason::NotModelled;
    let mut doubts = Vec::new();
    let mut add = |reason, effect, subject| {
        doubts.push(Doubt { stage, reason, effect, subject: Some(subject) });
    };
    let unread = netns.firewall.nft.is_none();
    for (index, chain) in netns.firewall.chains.iter().enumerate().filter(|_| unread) {
        let sees = match chain.family {
            NfFamily::Inet => true,
            NfFamily::Ip => family == Family::Ipv4,
            NfFamily::Ip6 => family == Family::Ipv6,
            NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => false,
        };
        if sees && hooks.contains(&chain.hook) && !chain.is_idle() {
            add(not_modelled, effect, Subject::Chain(index));
        }
    }
    for (index, table) in netns.firewall.legacy_tables.iter().enumerate() {
        let sees = match table.family {
            NfFamily::Ip => family == Family::Ipv4,
            NfFamily::Ip6 => family == Family::Ipv6,
            NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => false,
        };
        let same = |read: &canreach_snapshot::xt::Table| {
            read.family == table.family && read.name == table.name
        };
        let was_read = netns.firewall.xt_tables.iter().any(same);
        if let Some(could) = legacy_effect(&table.name, stage, effect)
            .filter(|_| sees && !was_read && table.idle != Some(true))
        {
            add(not_modelled, could, Subject::LegacyTable(index));
        }
    }
    for (index, program) in netns.bpf.iter().enumerate() {
        if matches!(program.point, AttachPoint::Netfilter(hook) if hooks.contains(&hook)) {
            add(UnknownReason::OpaqueProgram, effect, Subject::Bpf(index));
        }
    }
    doubts
}
/// Doubts about rules that could not be read.
pub(crate) fn rule_gap_doubts(
    host: &Host<'_>,
    family: Family,
    stage: Stage,
    effect: DoubtEffect,
) -> Vec<Doubt> {
    let cannot_redirect = host.netns().firewall.cannot_redirect;
    let effect = if cannot_redirect { DoubtEffect::MayStop } else { effect };
    let rules = [GapSubject::NftRuleset, GapSubject::LegacyTables(family)];
    gap_doubts(host, stage, effect, |subject| {
        (stage == Stage::Input && *subject == GapSubject::NetfilterBpf)
            || (stage != Stage::Forward && rules.contains(subject))
    })
}

/// A doubt for each gap about certain things.
pub(crate) fn gap_doubts(
    host: &Host<'_>,
    stage: Stage,
    effect: DoubtEffect,
    about: impl Fn(&GapSubject) -> bool,
) -> Vec<Doubt> {
    let gaps = host.netns().gaps.iter().enumerate();
    gaps.filter(|(_, gap)| about(&gap.subject))
        .map(|(index, _)| Doubt {
            stage,
            reason: host.gap_reason(index),
            effect,
            subject: Some(Subject::Gap(index)),
        })
        .collect()
}

/// What a table of iptables-legacy could do at a stage; `None` where it has no chain. Only mangle
/// and nat change packets (marks and addresses).
fn legacy_effect(table: &str, stage: Stage, effect: DoubtEffect) -> Option<DoubtEffect> {
    let stops = DoubtEffect::MayStop;
    let at_prerouting = stage == Stage::Prerouting;
    let at_output = stage == Stage::Output;
    match table {
        "raw" => (at_prerouting || at_output).then_some(stops),
        // At output of a client on this machine, `effect` says that the packet may be redirected.
        "mangle" if at_prerouting || at_output => Some(effect),
        "mangle" => Some(stops),
        "nat" => (at_prerouting || at_output).then_some(effect),
        "filter" | "security" => (!at_prerouting).then_some(stops),
        // A table of a name the kernel does not have today: nothing is known of its chains.
        _ => Some(effect),
    }
}
