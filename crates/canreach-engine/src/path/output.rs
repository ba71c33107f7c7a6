//! The output and postrouting hooks, for answers and for what a client on this machine sends.
//!
//! *Kernel:* `__ip_local_out`, `ip_output` and their IPv6 twins; tc and egress hooks of the link.
//! *Decides:* whom rules stop, and doubts about programs and about what was not read.
//! *Reads:* rules, BPF attachments, the gaps about them.
//! *Not modelled:* XFRM policies.

use std::collections::BTreeMap;

use canreach_snapshot::{AttachPoint, CgroupId, Family, Ifindex, LinkKind, NfFamily, NfHook};

use crate::host::Host;
use crate::netfilter::hook::{HookPlace, NfStop, Strand};
use crate::packet::packet_set::PacketSet;
use crate::path::hook::{HookWalk, rule_doubts, rule_gap_doubts, walk_hook};
use crate::path::sets::Sets;
use crate::path::stage::{Finding, Partition};
use crate::{Doubt, DoubtEffect, Stage, Subject, TheySee, UnknownReason};

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
    let unread = host.netns().firewall.nft.is_none();
    for (index, chain) in host.netns().firewall.chains.iter().enumerate().filter(|_| unread) {
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

/// Sends an answer through a hook on its way out; what stops it there, the sender never hears.
pub(crate) fn leave_by(
    host: &Host<'_>,
    sets: &mut Sets,
    (hook, strands): (NfHook, Vec<Strand>),
    silence: TheySee,
) -> HookWalk {
    let mut unheard = |_: &mut Sets, _: &Strand, _: &NfStop| vec![(PacketSet::ALL, Some(silence))];
    walk_hook(host, sets, (Stage::Output, HookPlace::at(hook)), strands, &mut unheard)
}

/// Sends an answer through the egress hook of the link it leaves by.
pub(crate) fn leave_links(
    host: &Host<'_>,
    sets: &mut Sets,
    strands: Vec<Strand>,
    silence: TheySee,
) -> Vec<Partition> {
    let mut unheard = |_: &mut Sets, _: &Strand, _: &NfStop| vec![(PacketSet::ALL, Some(silence))];
    let mut by_link: BTreeMap<Ifindex, Vec<Strand>> = BTreeMap::new();
    for strand in strands {
        if let Some(link) = strand.view.oif {
            by_link.entry(link).or_default().push(strand);
        }
    }
    let mut partitions = Vec::new();
    for (link, strands) in by_link {
        let place = HookPlace { hook: NfHook::Egress, link: Some(link) };
        let walked = walk_hook(host, sets, (Stage::Output, place), strands, &mut unheard);
        partitions.push(walked.partition);
    }
    partitions
}

/// Sends a message of the kernel itself through both hooks on its way out.
pub(crate) fn leave(
    host: &Host<'_>,
    sets: &mut Sets,
    strands: Vec<Strand>,
    silence: TheySee,
) -> Vec<Partition> {
    let output = leave_by(host, sets, (NfHook::Output, strands), silence);
    let last = leave_by(host, sets, (NfHook::Postrouting, output.strands), silence);
    let mut partitions = vec![output.partition, last.partition];
    partitions.extend(leave_links(host, sets, last.strands, silence));
    partitions
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
