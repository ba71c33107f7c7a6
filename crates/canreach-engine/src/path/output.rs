//! The output and postrouting hooks, for answers and for what a client on this machine sends.
//!
//! *Kernel:* `__ip_local_out`, `ip_output` and their IPv6 twins; tc and egress hooks of the link.
//! *Decides:* a list of doubts: rules may stop an answer; for a client's packet they may redirect it.
//! *Reads:* hooked chains, legacy tables, BPF attachments, the gaps about them.
//! *Not modelled:* rules; XFRM policies.

use canreach_snapshot::{AttachPoint, CgroupId, Family, Ifindex, LinkKind, NfFamily, NfHook};

use crate::host::Host;
use crate::path::hook::{rule_doubts, rule_gap_doubts};
use crate::path::stage::Finding;
use crate::{Doubt, DoubtEffect, Stage, Subject, UnknownReason};

/// Whose packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sender {
    /// The answer of a socket created in this control group, leaving by this link.
    Server(Ifindex, Option<CgroupId>),
    /// A reset or an ICMP error of the kernel itself, leaving by this link.
    Kernel(Ifindex),
    /// The first packet of a client on this machine.
    Client,
}

/// Doubts about the hooks a packet passes on its way out.
pub(crate) fn output(host: &Host<'_>, family: Family, sender: Sender) -> Finding {
    let stage = Stage::Output;
    let (effect, by) = match sender {
        Sender::Server(by, _) | Sender::Kernel(by) => (DoubtEffect::MayStop, Some(by)),
        Sender::Client => (DoubtEffect::MayRedirect, None),
    };
    let hooks = [NfHook::Output, NfHook::Postrouting];
    let mut doubts = rule_doubts(host, family, &hooks, stage, effect);
    let mut add = |reason, subject| {
        let effect = DoubtEffect::MayStop;
        doubts.push(Doubt { stage, reason, effect, subject: Some(subject) });
    };
    for (index, chain) in host.netns().firewall.chains.iter().enumerate() {
        let leaves =
            |name: &String| host.link_named(name).is_some_and(|link| Some(link.ifindex) == by);
        let bridged =
            || by.and_then(|by| host.link(by)).is_some_and(|link| link.kind == LinkKind::Bridge);
        let here = match (chain.family, chain.hook) {
            (_, NfHook::Egress) => chain.devices.iter().any(leaves),
            (NfFamily::Bridge, NfHook::Output | NfHook::Postrouting) => bridged(),
            _ => false,
        };
        if here && !chain.is_idle() {
            add(UnknownReason::NotModelled, Subject::Chain(index));
        }
    }
    for (index, program) in host.netns().bpf.iter().enumerate() {
        let here = match (program.point, sender) {
            (AttachPoint::TcEgress(link), _) => Some(link) == by,
            (AttachPoint::CgroupEgress(id), Sender::Server(_, cgroup)) => {
                cgroup.is_none_or(|cgroup| cgroup == id)
            }
            _ => false,
        };
        if here {
            add(UnknownReason::OpaqueProgram, Subject::Bpf(index));
        }
    }
    doubts.extend(rule_gap_doubts(host, family, stage, effect));
    Finding::doubtful(stage, doubts)
}

/// Programs that see a client's connect(2) before anything else, and may change where it goes.
pub(crate) fn connect(host: &Host<'_>) -> Finding {
    let stage = Stage::Output;
    let programs = host.netns().bpf.iter().enumerate();
    let doubts = programs
        .filter(|(_, program)| matches!(program.point, AttachPoint::CgroupConnect(_)))
        .map(|(index, _)| Doubt {
            stage,
            reason: UnknownReason::OpaqueProgram,
            effect: DoubtEffect::MayRedirect,
            subject: Some(Subject::Bpf(index)),
        });
    Finding::doubtful(stage, doubts.collect())
}
