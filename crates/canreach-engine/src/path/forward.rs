//! Packets for others: the end of this machine's part.
//!
//! *Kernel:* `ip_forward`, `ip6_forward` (NF_INET_FORWARD).
//! *Decides:* whom rules stop on the way, and that the others are sent on.
//! *Reads:* rules, the route.
//! *Not modelled:* hop limits. What becomes of it in another namespace: `sending`.

use canreach_snapshot::{Family, NfHook};

use crate::host::Host;
use crate::netfilter::hook::{HookPlace, NfStop, Strand};
use crate::path::hook::{hook_doubts, walk_hook};
use crate::path::rejection::seen_from_wire;
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Finding, Partition};
use crate::{DoubtEffect, DropReason, Stage, Subject};

/// The packet is sent on by this route.
pub(crate) fn forward(host: &Host<'_>, family: Family, route: usize) -> Finding {
    let hooks = [NfHook::Forward];
    let subject = Some(Subject::Route(route));
    let end = Finding::end(Stage::Forward, DropReason::Forwarded, subject, None);
    let doubts = hook_doubts(host, family, &hooks, Stage::Forward, DoubtEffect::MayStop);
    Finding { doubts, ..end }
}

/// Sends packets through the forward and postrouting hooks.
pub(crate) fn forward_hooks(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    strands: Vec<Strand>,
) -> (Vec<Partition>, Vec<Strand>) {
    let mut partitions = Vec::new();
    let mut strands = strands;
    for hook in [NfHook::Forward, NfHook::Postrouting] {
        let mut seen = |sets: &mut Sets, strand: &Strand, stop: &NfStop| {
            seen_from_wire(host, sets, &asked.as_seen(&strand.view), stop)
        };
        let place = (Stage::Forward, HookPlace::at(hook));
        let walked = walk_hook(host, sets, place, strands, &mut seen);
        partitions.push(walked.partition);
        strands = walked.strands;
    }
    (partitions, strands)
}
