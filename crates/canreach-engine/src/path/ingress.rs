//! What looks at a frame before IP does.
//!
//! *Kernel:* `__netif_receive_skb_core` (net/core/dev.c): XDP, tc and tcx, the ingress hook, then the
//! bridge's own hooks.
//! *Decides:* a list of doubts: programs may drop, change or redirect anything.
//! *Reads:* BPF attachments, ingress and bridge chains, the gaps about them.
//! *Not modelled:* what the programs do.

use canreach_snapshot::{AttachPoint, GapSubject, Ifindex, Link, LinkKind, NfFamily, NfHook};

use crate::host::Host;
use crate::path::hook::gap_doubts;
use crate::path::stage::Finding;
use crate::{Doubt, DoubtEffect, Stage, Subject, UnknownReason};

/// Doubts about a link's ingress.
pub(crate) fn ingress(host: &Host<'_>, arrival: &Link) -> Finding {
    let netns = host.netns();
    let stage = Stage::Ingress;
    // Frames that come in by a port of a bridge or bond pass the port's own programs first.
    let passes = |ifindex: Ifindex| {
        ifindex == arrival.ifindex
            || host.link(ifindex).is_some_and(|link| link.master == Some(arrival.ifindex))
    };
    let mut doubts = Vec::new();
    let mut add = |reason, effect, subject| {
        doubts.push(Doubt { stage, reason, effect, subject: Some(subject) });
    };
    let unread = netns.firewall.nft.is_none();
    for (index, chain) in netns.firewall.chains.iter().enumerate().filter(|_| unread) {
        let by_name =
            |name: &String| host.link_named(name).is_some_and(|link| passes(link.ifindex));
        let effect = match (chain.family, chain.hook) {
            _ if chain.is_idle() => None,
            (_, NfHook::Ingress) => {
                chain.devices.iter().any(by_name).then_some(DoubtEffect::MayRedirect)
            }
            // Frames for the bridge itself pass its own hooks on their way up.
            (NfFamily::Bridge, NfHook::Prerouting | NfHook::Input) => {
                (arrival.kind == LinkKind::Bridge).then_some(DoubtEffect::MayStop)
            }
            _ => None,
        };
        if let Some(effect) = effect {
            add(UnknownReason::NotModelled, effect, Subject::Chain(index));
        }
    }
    for (index, program) in netns.bpf.iter().enumerate() {
        let here = matches!(program.point,
            AttachPoint::Xdp(link) | AttachPoint::TcIngress(link) if passes(link));
        if here || program.point == AttachPoint::Netfilter(NfHook::Ingress) {
            add(UnknownReason::OpaqueProgram, DoubtEffect::MayRedirect, Subject::Bpf(index));
        }
    }
    doubts.extend(gap_doubts(host, stage, DoubtEffect::MayRedirect, |subject| {
        matches!(subject, GapSubject::Xdp | GapSubject::Tc)
    }));
    Finding::doubtful(stage, doubts)
}
