//! Hooks where programs and rules look at packets: which of them say something cannot be judged.
//!
//! *Kernel:* `nf_hook_slow` (net/netfilter/core.c), for each hook of both families.
//! *Decides:* a list of doubts; rules themselves are not read yet.
//! *Reads:* hooked chains, legacy tables, BPF attachments, gaps.
//! *Not modelled:* rules; conntrack; the order among chains.

use canreach_snapshot::{AttachPoint, Family, GapSubject, NfFamily, NfHook};

use crate::host::Host;
use crate::{Doubt, DoubtEffect, Stage, Subject, UnknownReason};

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

/// Doubts about the rules and programs that are known to be there.
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
    for (index, chain) in netns.firewall.chains.iter().enumerate() {
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
        if let Some(could) =
            legacy_effect(&table.name, stage, effect).filter(|_| sees && table.idle != Some(true))
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
