//! Neighbours: what ARP and ND have learnt (RTM_NEWNEIGH).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Ifindex, MacAddress};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// The link it is on.
    pub ifindex: Ifindex,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, when known.
    pub mac: Option<MacAddress>,
    /// How sure the kernel is of it.
    pub state: NudState,
    /// It is a router (`NTF_ROUTER`).
    pub router: bool,
    /// An address this machine answers for on behalf of others (`NTF_PROXY`).
    pub proxy: bool,
}

/// `NUD_*` of include/uapi/linux/neighbour.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NudState {
    /// Being asked for.
    Incomplete,
    /// Heard from lately.
    Reachable,
    /// Known, not confirmed lately.
    Stale,
    /// About to be asked again.
    Delay,
    /// Being asked again.
    Probe,
    /// Did not answer.
    Failed,
    /// The link needs no resolution.
    NoArp,
    /// Set by hand.
    Permanent,
    /// None of these.
    None,
}
