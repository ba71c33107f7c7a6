//! What happened to a packet on its way: steps, each with the kernel's own object that decided it.

use canreach_snapshot::{Ifindex, LinkSysctl};

use crate::{DropReason, UnknownReason};

/// A socket of the namespace: its position in `Netns::sockets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketIndex(pub usize);

/// A network namespace: its position in `Snapshot::namespaces`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsIndex(pub usize);

/// A part of the path, in the order a packet meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The link is up, and neighbours can find the address on it (ARP, ND).
    Link,
    /// XDP, tc and ingress hooks.
    Ingress,
    /// The prerouting hook.
    Prerouting,
    /// Input routing: is the address this machine's, is the source acceptable.
    Route,
    /// The input hook.
    Input,
    /// Sent on to another machine or namespace.
    Forward,
    /// Which socket gets it.
    Socket,
    /// What may still refuse it once the socket is found.
    Gate,
    /// The way back: route, source address, link.
    Reply,
    /// The output and postrouting hooks, for the answer.
    Output,
}

impl Stage {
    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Route => "route",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Socket => "socket",
            Self::Gate => "gate",
            Self::Reply => "reply",
            Self::Output => "output",
        }
    }
}

/// The object that decided, by its place in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A link.
    Link(Ifindex),
    /// An address: its position in `Netns::addresses`.
    Address(usize),
    /// A route: its position in `Netns::routes`.
    Route(usize),
    /// A policy rule: its position in `Netns::policy_rules`.
    PolicyRule(usize),
    /// A sysctl of a link, with its effective value.
    LinkSysctl {
        /// Which.
        sysctl: LinkSysctl,
        /// The link; `None` for `all`.
        link: Option<Ifindex>,
        /// The effective value.
        value: i64,
    },
    /// A socket.
    Socket(SocketIndex),
    /// A base chain: its position in `Firewall::chains`.
    Chain(usize),
    /// A legacy table: its position in `Firewall::legacy_tables`.
    LegacyTable(usize),
    /// A rule or the policy of a chain.
    Netfilter(NfSubject),
    /// An object of another namespace that the packet is sent on to.
    In(NetnsIndex, Box<Self>),
    /// A BPF program: its position in `Netns::bpf`.
    Bpf(usize),
    /// A gap: its position in `Netns::gaps`.
    Gap(usize),
}

/// A rule, or the policy of a base chain, by its place in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NfSubject {
    /// A rule of nftables: positions of its table in `Firewall::nft`, of its chain, and its own.
    NftRule {
        /// The table.
        table: usize,
        /// The chain.
        chain: usize,
        /// The rule.
        rule: usize,
    },
    /// The policy of a base chain of nftables.
    NftPolicy {
        /// The table.
        table: usize,
        /// The chain.
        chain: usize,
    },
    /// A rule of iptables-legacy: positions of its table in `Firewall::xt_tables`, of its chain, and
    /// its own.
    XtRule {
        /// The table.
        table: usize,
        /// The chain.
        chain: usize,
        /// The rule.
        rule: usize,
    },
    /// The policy of a built-in chain of iptables-legacy.
    XtPolicy {
        /// The table.
        table: usize,
        /// The chain.
        chain: usize,
    },
}

/// What a stage did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepResult {
    /// Let it pass.
    Ok,
    /// Stopped it.
    Stop(DropReason),
    /// Cannot be told.
    Unknown(UnknownReason),
}

/// One stage's part in a trace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Step {
    /// Which stage.
    pub stage: Stage,
    /// What it did.
    pub result: StepResult,
    /// The object that decided; `None` where the absence of one did.
    pub subject: Option<Subject>,
    /// The namespace it is in, if that is another one than the question is about.
    pub netns: Option<NetnsIndex>,
}

/// Something that would stop the packet, if it got that far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Blocker {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub reason: DropReason,
    /// The object that decides.
    pub subject: Option<Subject>,
}

/// Something on the path that cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Doubt {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub reason: UnknownReason,
    /// What it could do to the answer.
    pub effect: DoubtEffect,
    /// The object, or the gap.
    pub subject: Option<Subject>,
}

/// What a thing that cannot be judged could do to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DoubtEffect {
    /// Stop it. A *no* further on stays a *no*; a *yes* becomes unknown.
    MayStop,
    /// Send it elsewhere (NAT, TPROXY, sk_lookup), or stop it: nothing after it is certain.
    MayRedirect,
}
