//! What is known of packet filters: that they are loaded, and where they hook in.
//!
//! Rules themselves are not read yet. A chain that holds rules, or whose policy is not accept, makes
//! the packets that pass its hook undecided.

use serde::{Deserialize, Serialize};

/// Packet filters of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// nftables' generation number, where readable: it changes with each change of the ruleset.
    pub nft_generation: Option<u32>,
    /// nftables base chains (iptables-nft's among them). Chains of dormant tables are left out.
    pub chains: Vec<HookedChain>,
    /// Tables of iptables-legacy and ip6tables-legacy that are registered.
    pub legacy_tables: Vec<LegacyTable>,
    /// The nftables ruleset with its rules; `None` where it was not read.
    #[serde(default)]
    pub nft: Option<crate::nft::Ruleset>,
    /// The tables of iptables-legacy and ip6tables-legacy with their rules; of those that could not be
    /// read there is only [`Self::legacy_tables`].
    #[serde(default)]
    pub xt_tables: Vec<crate::xt::Table>,
    /// Sets of ipset; `None` where they were not read.
    #[serde(default)]
    pub ipsets: Option<Vec<crate::Ipset>>,
    /// What is registered at the hooks, in order; `None` where the kernel does not say
    /// (CONFIG_NETFILTER_NETLINK_HOOK).
    #[serde(default)]
    pub hook_list: Option<Vec<crate::HookEntry>>,
    /// What is known without privileges.
    pub hints: Vec<FirewallHint>,
    /// The rules of ufw's own list, in the order of `ufw status numbered`; `None` where the list was
    /// not read.
    #[serde(default)]
    pub ufw_rules: Option<Vec<UfwRule>>,
    /// `true` where no rule can send a packet elsewhere: the kernel has no nftables, NAT, TPROXY or
    /// mark module, built in or loaded. Known without privileges.
    pub cannot_redirect: bool,
}

impl Firewall {
    /// Whether a rule could send a packet to another port than the one it is for.
    #[must_use]
    pub fn may_translate(&self) -> bool {
        use crate::nft::Expr;
        use crate::xt::TargetKind;
        let target = |target: &crate::xt::Target| {
            matches!(
                target.kind,
                TargetKind::Dnat(_)
                    | TargetKind::Redirect(_)
                    | TargetKind::Netmap(_)
                    | TargetKind::Tproxy { .. }
                    | TargetKind::Opaque(_)
            )
        };
        let expr = |expr: &Expr| match expr {
            Expr::Nat { .. }
            | Expr::Redir { .. }
            | Expr::Tproxy { .. }
            | Expr::PayloadSet { .. }
            | Expr::Opaque(_) => true,
            Expr::Target(of_xt) => target(of_xt),
            _ => false,
        };
        let tables = self.nft.iter().flat_map(|ruleset| &ruleset.tables);
        let rules = tables.flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
        let xt_chains = self.xt_tables.iter().flat_map(|table| &table.chains);
        rules.flat_map(|rule| &rule.exprs).any(expr)
            || xt_chains.flat_map(|chain| &chain.rules).any(|rule| target(&rule.target))
    }
}

/// An address family of netfilter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NfFamily {
    /// IPv4 and IPv6 (`inet`).
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// ARP.
    Arp,
    /// Bridged frames.
    Bridge,
    /// Frames of one link (`netdev`).
    Netdev,
}

/// A place where netfilter looks at packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NfHook {
    /// On a link, before anything else.
    Ingress,
    /// On a link, after everything else.
    Egress,
    /// Before routing.
    Prerouting,
    /// For this machine.
    Input,
    /// For others.
    Forward,
    /// From this machine.
    Output,
    /// After routing.
    Postrouting,
}

/// What a base chain does with packets that no rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainPolicy {
    /// Lets them pass.
    Accept,
    /// Drops them.
    Drop,
}

/// What a base chain is for (`NFTA_CHAIN_TYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainKind {
    /// Decides.
    Filter,
    /// Rewrites addresses of new connections.
    Nat,
    /// Decides, and routes again when it changed the packet.
    Route,
}

/// An nftables base chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookedChain {
    /// The family of its table.
    pub family: NfFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its handle.
    pub handle: u64,
    /// Where it hooks in.
    pub hook: NfHook,
    /// When, among the others there: smaller is earlier.
    pub priority: i32,
    /// What it is for.
    pub kind: ChainKind,
    /// What it does with packets that no rule decided.
    pub policy: ChainPolicy,
    /// The links of an ingress or egress chain.
    pub devices: Vec<String>,
    /// How many rules it holds.
    pub rules: u32,
}

impl HookedChain {
    /// Lets every packet pass unchanged: no rules, and policy accept.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.rules == 0 && matches!(self.policy, ChainPolicy::Accept)
    }
}

/// A table of iptables-legacy or ip6tables-legacy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyTable {
    /// `Ip` or `Ip6`.
    pub family: NfFamily,
    /// `raw`, `mangle`, `nat`, `filter`, `security`.
    pub name: String,
    /// The chains it has, each with whether it lets every packet pass unchanged; `None` where the
    /// rules could not be read.
    pub idle: Option<bool>,
}

/// Something about the firewall that needs no privileges to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallHint {
    /// Where it was read: `/etc/ufw/ufw.conf`.
    pub source: String,
    /// What program it belongs to: `ufw`.
    pub program: String,
    /// Whether it says the firewall is on.
    pub enabled: Option<bool>,
}

/// A rule of ufw, and the rules of a chain that it became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UfwRule {
    /// Its number in `ufw status numbered`. Rules of one application profile share theirs.
    pub number: u32,
    /// The chain: `ufw-user-input`, `ufw6-user-forward`.
    pub chain: String,
    /// How many rules of that chain it is, behind those of the ufw rules before it.
    pub lines: u32,
}
