//! What looks at a frame before IP does.
//!
//! *Kernel:* `__netif_receive_skb_core` (net/core/dev.c): XDP, tc and tcx, the ingress hook, then the
//! bridge's own hooks.
//! *Decides:* a list of doubts: programs may drop, change or redirect anything.
//! *Reads:* BPF attachments, ingress and bridge chains, the gaps about them.
//! *Not modelled:* what the programs do.

use canreach_snapshot::{AttachPoint, GapSubject, Ifindex, LinkKind, NfFamily, NfHook};

use crate::host::Host;
use crate::path::hook::gap_doubts;
use crate::path::stage::{Asked, Finding};
use crate::{Doubt, DoubtEffect, Stage, Subject, UnknownReason};

/// Doubts about a link's ingress.
pub(crate) fn ingress(host: &Host<'_>, asked: &Asked<'_>) -> Finding {
    let netns = host.netns();
    let stage = Stage::Ingress;
    // Frames that come in by a port of a bridge or bond pass the port's own programs first.
    let passes = |ifindex: Ifindex| {
        ifindex == asked.link.ifindex
            || ifindex == asked.routed_link.ifindex
            || host.link(ifindex).is_some_and(|link| link.master == Some(asked.link.ifindex))
    };
    let mut doubts = Vec::new();
    let mut add = |reason, effect, subject| {
        doubts.push(Doubt { stage, reason, effect, subject: Some(subject) });
    };
    for (index, program) in netns.bpf.iter().enumerate() {
        let here = match program.point {
            AttachPoint::Xdp(link) | AttachPoint::TcIngress(link) => passes(link),
            AttachPoint::Netfilter(hook) => hook == NfHook::Ingress,
            AttachPoint::TcEgress(_)
            | AttachPoint::CgroupIngress(_)
            | AttachPoint::CgroupEgress(_)
            | AttachPoint::CgroupConnect(_)
            | AttachPoint::SkLookup => false,
        };
        if here {
            add(UnknownReason::OpaqueProgram, DoubtEffect::MayRedirect, Subject::Bpf(index));
        }
    }
    for (index, chain) in netns.firewall.chains.iter().enumerate() {
        let by_name =
            |name: &String| host.link_named(name).is_some_and(|link| passes(link.ifindex));
        let is_ingress = chain.hook == NfHook::Ingress && chain.devices.iter().any(by_name);
        let is_bridge =
            chain.family == NfFamily::Bridge && asked.link.kind == LinkKind::Bridge && !is_ingress;
        let bridged = matches!(chain.hook, NfHook::Prerouting | NfHook::Input);
        if chain.is_idle() {
            continue;
        }
        if is_ingress {
            add(UnknownReason::NotModelled, DoubtEffect::MayRedirect, Subject::Chain(index));
        } else if is_bridge && bridged {
            add(UnknownReason::NotModelled, DoubtEffect::MayStop, Subject::Chain(index));
        }
    }
    doubts.extend(gap_doubts(host, stage, DoubtEffect::MayRedirect, |subject| {
        matches!(subject, GapSubject::Xdp | GapSubject::Tc)
    }));
    Finding::doubtful(stage, doubts)
}
