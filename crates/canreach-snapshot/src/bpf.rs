//! BPF programs attached where packets pass.

use serde::{Deserialize, Serialize};

use crate::{CgroupId, Ifindex, NfHook};

/// One attached program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfAttachment {
    /// Where it is attached.
    pub point: AttachPoint,
    /// The kernel's number for it; `None` for a tc action or filter that is no program.
    pub program_id: Option<u32>,
    /// The name it was loaded under, or the kind of a tc filter.
    pub name: Option<String>,
}

/// Where a program sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachPoint {
    /// Before anything else on a link.
    Xdp(Ifindex),
    /// tc or tcx, incoming.
    TcIngress(Ifindex),
    /// tc or tcx, outgoing.
    TcEgress(Ifindex),
    /// A control group's incoming packets (also for groups below it).
    CgroupIngress(CgroupId),
    /// A control group's outgoing packets.
    CgroupEgress(CgroupId),
    /// A control group's connect(2) or sendmsg(2).
    CgroupConnect(CgroupId),
    /// Chooses the socket before the ordinary lookup.
    SkLookup,
    /// A netfilter hook.
    Netfilter(NfHook),
}
