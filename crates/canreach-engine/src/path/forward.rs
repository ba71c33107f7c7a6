//! Packets for others: the end of this machine's part.
//!
//! *Kernel:* `ip_forward`, `ip6_forward` (NF_INET_FORWARD).
//! *Decides:* that the packet is sent on, with doubts about the forward hook.
//! *Reads:* hooked chains, legacy tables, the route.
//! *Not modelled:* rules; the namespace behind the other end of a veth; hop limits.

use canreach_snapshot::{Family, NfHook};

use crate::host::Host;
use crate::path::hook::hook_doubts;
use crate::path::stage::Finding;
use crate::{DoubtEffect, DropReason, Stage, Subject};

/// The packet is sent on by this route.
pub(crate) fn forward(host: &Host<'_>, family: Family, route: usize) -> Finding {
    let hooks = [NfHook::Forward];
    let subject = Some(Subject::Route(route));
    let end = Finding::end(Stage::Forward, DropReason::Forwarded, subject, None);
    let doubts = hook_doubts(host, family, &hooks, Stage::Forward, DoubtEffect::MayStop);
    Finding { doubts, ..end }
}
