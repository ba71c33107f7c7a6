//! The output and postrouting hooks, for answers and for what a client on this machine sends.
//!
//! *Kernel:* `__ip_local_out`, `ip_output` and their IPv6 twins; tc and egress hooks of the link.
//! *Decides:* a list of doubts: rules may stop an answer; for a client's packet they may redirect it.
//! *Reads:* hooked chains, legacy tables, BPF attachments, the gaps about them.
//! *Not modelled:* rules; XFRM policies.

use canreach_snapshot::{AttachPoint, Family, Ifindex, NfHook};

use crate::host::Host;
use crate::path::hook::hook_doubts;
use crate::path::stage::Finding;
use crate::{Doubt, DoubtEffect, Stage, Subject, UnknownReason};

/// Whose packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sender {
    /// The answer of a server, leaving by this link.
    Server(Ifindex),
    /// The first packet of a client on this machine.
    Client,
}

/// Doubts about the hooks a packet passes on its way out.
pub(crate) fn output(host: &Host<'_>, family: Family, sender: Sender) -> Finding {
    let stage = Stage::Output;
    let effect = match sender {
        Sender::Server(_) => DoubtEffect::MayStop,
        Sender::Client => DoubtEffect::MayRedirect,
    };
    let hooks = [NfHook::Output, NfHook::Postrouting];
    let mut doubts = hook_doubts(host, family, &hooks, stage, effect);
    for (index, program) in host.netns().bpf.iter().enumerate() {
        let effect = match (program.point, sender) {
            (AttachPoint::TcEgress(link), Sender::Server(by)) if link == by => {
                Some(DoubtEffect::MayStop)
            }
            (AttachPoint::CgroupEgress(_), _) => Some(DoubtEffect::MayStop),
            (AttachPoint::CgroupConnect(_), Sender::Client) => Some(DoubtEffect::MayRedirect),
            (
                AttachPoint::TcEgress(_)
                | AttachPoint::CgroupConnect(_)
                | AttachPoint::Xdp(_)
                | AttachPoint::TcIngress(_)
                | AttachPoint::CgroupIngress(_)
                | AttachPoint::SkLookup
                | AttachPoint::Netfilter(_),
                _,
            ) => None,
        };
        if let Some(effect) = effect {
            let subject = Some(Subject::Bpf(index));
            doubts.push(Doubt { stage, reason: UnknownReason::OpaqueProgram, effect, subject });
        }
    }
    let Sender::Server(by) = sender else { return Finding::doubtful(stage, doubts) };
    for (index, chain) in host.netns().firewall.chains.iter().enumerate() {
        let leaves = |name: &String| host.link_named(name).is_some_and(|link| link.ifindex == by);
        if chain.hook == NfHook::Egress && !chain.is_idle() && chain.devices.iter().any(leaves) {
            let subject = Some(Subject::Chain(index));
            let (reason, effect) = (UnknownReason::NotModelled, DoubtEffect::MayStop);
            doubts.push(Doubt { stage, reason, effect, subject });
        }
    }
    Finding::doubtful(stage, doubts)
}
