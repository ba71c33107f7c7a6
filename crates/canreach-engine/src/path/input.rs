//! The input hook.
//!
//! *Kernel:* `ip_local_deliver`, `ip6_input` (NF_INET_LOCAL_IN).
//! *Decides:* a list of doubts: rules here may stop a packet.
//! *Reads:* hooked chains, legacy tables, netfilter programs, the gaps about them.
//! *Not modelled:* rules.

use canreach_snapshot::{Family, NfHook};

use crate::host::Host;
use crate::path::hook::hook_doubts;
use crate::path::stage::Finding;
use crate::{DoubtEffect, Stage};

/// Doubts about the input hook.
pub(crate) fn input(host: &Host<'_>, family: Family) -> Finding {
    let doubts = hook_doubts(host, family, &[NfHook::Input], Stage::Input, DoubtEffect::MayStop);
    Finding::doubtful(Stage::Input, doubts)
}
