//! The prerouting hook.
//!
//! *Kernel:* `ip_rcv`, `ipv6_rcv` (NF_INET_PRE_ROUTING).
//! *Decides:* a list of doubts: rules here may send a packet elsewhere (DNAT, TPROXY, marks).
//! *Reads:* hooked chains, legacy tables, netfilter programs, the gaps about them.
//! *Not modelled:* rules; the second run of the hook for a VRF.

use canreach_snapshot::{Family, NfHook};

use crate::host::Host;
use crate::path::hook::hook_doubts;
use crate::path::stage::Finding;
use crate::{DoubtEffect, Stage};

/// Doubts about the prerouting hook.
pub(crate) fn prerouting(host: &Host<'_>, family: Family) -> Finding {
    let hooks = [NfHook::Prerouting];
    let doubts = hook_doubts(host, family, &hooks, Stage::Prerouting, DoubtEffect::MayRedirect);
    Finding::doubtful(Stage::Prerouting, doubts)
}
