//! Policy rules (`ip rule`, RTM_NEWRULE): which table a packet is looked up in.

use serde::{Deserialize, Serialize};

use crate::{Family, Prefix, TableId};

/// One rule. It matches when each selector that is set matches; `invert` turns the whole around
/// (net/core/fib_rules.c, `fib_rule_match`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Smaller is asked first (`FRA_PRIORITY`).
    pub priority: u32,
    /// `not`: the whole result is turned around.
    pub invert: bool,
    /// Source prefix.
    pub source: Option<Prefix>,
    /// Destination prefix.
    pub destination: Option<Prefix>,
    /// TOS byte, 0 for any.
    pub tos: u8,
    /// DSCP value (`FRA_DSCP`), where the kernel has it.
    pub dscp: Option<u8>,
    /// Name of the incoming link. A name that no link has never matches.
    pub iif: Option<String>,
    /// Name of the outgoing link that was asked for.
    pub oif: Option<String>,
    /// The mark wanted, after masking.
    pub mark: u32,
    /// The bits of the mark that count; 0 when the rule has no mark.
    pub mark_mask: u32,
    /// Tunnel id (`FRA_TUN_ID`).
    pub tunnel_id: Option<u64>,
    /// Matches packets of any VRF and looks in that VRF's table (`FRA_L3MDEV`).
    pub l3mdev: bool,
    /// Lowest and highest user id.
    pub uid_range: Option<(u32, u32)>,
    /// Transport protocol number.
    pub ip_protocol: Option<u8>,
    /// Lowest and highest source port.
    pub source_ports: Option<(u16, u16)>,
    /// Lowest and highest destination port.
    pub destination_ports: Option<(u16, u16)>,
    /// What it does.
    pub action: PolicyAction,
    /// Ignore a result whose prefix is this short or shorter (`suppress_prefixlength`).
    pub suppress_prefix_length: Option<u32>,
    /// Ignore a result that leaves by a link of this group (`suppress_ifgroup`).
    pub suppress_ifgroup: Option<u32>,
    /// Realms given to matching packets (`FRA_FLOW`).
    pub realm: Option<u32>,
    /// Numbers of attributes this version does not know: the rule cannot be judged.
    pub unrecognized: Vec<u16>,
}

impl PolicyRule {
    /// A rule that selects every packet of its family.
    #[must_use]
    pub const fn new(family: Family, priority: u32, action: PolicyAction) -> Self {
        Self {
            family,
            priority,
            invert: false,
            source: None,
            destination: None,
            tos: 0,
            dscp: None,
            iif: None,
            oif: None,
            mark: 0,
            mark_mask: 0,
            tunnel_id: None,
            l3mdev: false,
            uid_range: None,
            ip_protocol: None,
            source_ports: None,
            destination_ports: None,
            action,
            suppress_prefix_length: None,
            suppress_ifgroup: None,
            realm: None,
            unrecognized: Vec::new(),
        }
    }
}

/// What a policy rule does with a packet it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyAction {
    /// Look in this table. With `l3mdev`, in the VRF's table instead.
    Lookup(TableId),
    /// Continue at the rule of this priority; without one, with the next rule.
    Goto(u32),
    /// Nothing: the next rule.
    Nop,
    /// Drop in silence (EINVAL).
    Blackhole,
    /// Refuse: network unreachable (ENETUNREACH).
    Unreachable,
    /// Refuse: prohibited (EACCES).
    Prohibit,
    /// An action number this version does not know.
    Other(u8),
}
