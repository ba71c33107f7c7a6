//! What is registered at each netfilter hook, in the order in which packets meet it (nfnetlink_hook).

use serde::{Deserialize, Serialize};

use crate::{NfFamily, NfHook};

/// One function registered at a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEntry {
    /// The family whose packets it sees: `Ip`, `Ip6`, `Bridge`, `Arp` or `Netdev`.
    pub family: NfFamily,
    /// The hook.
    pub hook: NfHook,
    /// The link of an ingress or egress hook.
    pub device: Option<String>,
    /// When, among the others there.
    pub priority: i32,
    /// The kernel's function: `nft_do_chain_inet`, `ipv4_conntrack_in`.
    pub function: String,
    /// The module it is in, if any.
    pub module: Option<String>,
    /// What it stands for.
    pub owner: HookOwner,
}

/// What a registered function stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookOwner {
    /// A base chain of nftables: family of the table, its name, the chain's.
    Chain(NfFamily, String, String),
    /// A flowtable: family of the table, its name, the flowtable's.
    Flowtable(NfFamily, String, String),
    /// A BPF program.
    Bpf(u32),
    /// Part of the kernel: `function` says which.
    Function,
}
