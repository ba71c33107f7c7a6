//! Gaps: what could not be read, and why.

use serde::{Deserialize, Serialize};

use crate::{Family, Proto};

/// One thing that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What.
    pub subject: GapSubject,
    /// Why.
    pub reason: GapReason,
    /// The operation and the error, for people: `dump nftables chains: EPERM`.
    pub detail: String,
}

/// What a gap is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapSubject {
    /// Links.
    Links,
    /// Addresses of links.
    Addresses(Family),
    /// Routes.
    Routes(Family),
    /// Policy rules.
    PolicyRules(Family),
    /// Nexthop objects.
    Nexthops,
    /// Neighbours.
    Neighbors,
    /// One sysctl, by its full name.
    Sysctl(String),
    /// Sockets of one protocol and family.
    Sockets(Proto, Family),
    /// Devices, v6only and control groups of sockets: the text files of /proc do not have them.
    SocketDetails(Proto, Family),
    /// SO_MARK of sockets.
    SocketMarks,
    /// Who holds sockets.
    Owners,
    /// Whether IPv4 tables local and main are merged.
    FibLayout,
    /// The nftables ruleset.
    NftRuleset,
    /// Tables of iptables-legacy of one family.
    LegacyTables(Family),
    /// Sets of ipset: what rules look up in them stays undecided.
    Ipsets,
    /// XDP programs.
    Xdp,
    /// tc and tcx programs.
    Tc,
    /// BPF programs of control groups.
    CgroupBpf,
    /// sk_lookup programs.
    SkLookup,
    /// BPF programs at netfilter hooks.
    NetfilterBpf,
    /// A network namespace, by the name or path it was asked for.
    Netns(String),
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// The kernel refused (EPERM or EACCES).
    NeedsRoot,
    /// This kernel does not have it, and something may hide behind that.
    Unsupported,
    /// It changed during each attempt.
    ChangedWhileReading,
    /// It went away while it was read.
    Vanished,
    /// The kernel's answer did not make sense.
    Malformed,
    /// Another error.
    Failed,
    /// It was left out on purpose, for a quick question or by redaction.
    NotRead,
}
