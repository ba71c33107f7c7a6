//! The kernel's object that decided, on the wire.

use schemars::JsonSchema;
use serde::Serialize;

use crate::report::subject::{NamedSubject, RuleGeneration};
use crate::rule_phrase;

/// An object of the kernel, by its own names and handles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Subject {
    /// A network interface.
    Link {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
    },
    /// An address of an interface.
    Address {
        /// With its prefix length.
        address: String,
        /// The interface.
        link: String,
    },
    /// A route.
    Route {
        /// As `ip route` prints it.
        text: String,
        /// The number of its table.
        table: u32,
    },
    /// A policy rule.
    PolicyRule {
        /// As `ip rule` prints it.
        text: String,
        /// Its priority.
        priority: u32,
    },
    /// A sysctl.
    Sysctl {
        /// Its full name.
        name: String,
        /// The value in effect.
        value: i64,
    },
    /// A socket.
    Socket {
        /// `tcp` or `udp`.
        proto: String,
        /// The address it is bound to.
        address: String,
        /// The port it is bound to.
        port: u16,
        /// The interface it is bound to.
        device: Option<String>,
        /// The kernel's identity for it.
        cookie: u64,
    },
    /// A base chain of nftables.
    NftChain {
        /// The family of its table.
        family: String,
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
        /// Its handle.
        handle: u64,
        /// How many rules it holds.
        rules: u32,
    },
    /// A rule of nftables (iptables-nft's among them), or the policy of one of its chains.
    NftRule {
        /// The family of its table.
        family: String,
        /// Its table.
        table: String,
        /// Its chain.
        chain: String,
        /// Its handle, or that of the chain whose policy it is.
        handle: Option<u64>,
        /// Its number in the chain, from 1; `null` for the policy.
        number: Option<usize>,
        /// As nft prints it, or iptables where the table is one of iptables'.
        text: String,
        /// What it is called by the program that keeps it: `ufw rule 3`, `firewalld zone public`.
        owner: Option<String>,
    },
    /// A rule of iptables-legacy or ip6tables-legacy, or the policy of one of its chains.
    XtRule {
        /// `ip` or `ip6`.
        family: String,
        /// Its table.
        table: String,
        /// Its chain.
        chain: String,
        /// Its number in the chain, from 1; `null` for the policy.
        number: Option<usize>,
        /// As iptables prints it.
        text: String,
        /// What it is called by the program that keeps it.
        owner: Option<String>,
    },
    /// A table of iptables-legacy or ip6tables-legacy.
    XtTable {
        /// `ip` or `ip6`.
        family: String,
        /// Its name.
        table: String,
    },
    /// An object of another network namespace.
    InNamespace {
        /// The namespace.
        netns: String,
        /// The object there.
        subject: Box<Self>,
    },
    /// A BPF program, or a tc filter.
    Bpf {
        /// Where it is attached.
        point: String,
        /// The kernel's number for it.
        program_id: Option<u32>,
        /// The name it was loaded under.
        name: Option<String>,
    },
    /// Something that could not be read.
    Gap {
        /// What.
        what: String,
        /// The operation and the error.
        detail: String,
    },
}

impl Subject {
    pub(super) fn of(subject: &NamedSubject) -> Self {
        match subject.clone() {
            NamedSubject::Link { name, index } => Self::Link { name, index },
            NamedSubject::Address { address, link } => Self::Address { address, link },
            NamedSubject::Route { text, table } => Self::Route { text, table },
            NamedSubject::PolicyRule { text, priority } => Self::PolicyRule { text, priority },
            NamedSubject::Sysctl { name, value } => Self::Sysctl { name, value },
            NamedSubject::Socket { proto, address, port, device, cookie } => Self::Socket {
                proto: proto.name().to_owned(),
                address: address.to_string(),
                port,
                device,
                cookie,
            },
            NamedSubject::Chain { family, table, chain, handle, rules } => {
                Self::NftChain { family: family.to_owned(), table, chain, handle, rules }
            }
            NamedSubject::Rule(rule) => {
                let (family, table) = (rule.family.to_owned(), rule.table);
                let (chain, number, text) = (rule.chain, rule.number, rule.text);
                let owner = rule.owner.as_ref().map(rule_phrase::owner);
                match rule.generation {
                    RuleGeneration::Nft => {
                        let handle = rule.handle;
                        Self::NftRule { family, table, chain, handle, number, text, owner }
                    }
                    RuleGeneration::Xt => {
                        Self::XtRule { family, table, chain, number, text, owner }
                    }
                }
            }
            NamedSubject::LegacyTable { family, table } => {
                Self::XtTable { family: family.to_owned(), table }
            }
            NamedSubject::In { netns, subject } => {
                Self::InNamespace { netns, subject: Box::new(Self::of(&subject)) }
            }
            NamedSubject::Bpf { point, program_id, name } => Self::Bpf { point, program_id, name },
            NamedSubject::Gap { what, detail } => Self::Gap { what, detail },
        }
    }

    pub(super) fn option(subject: Option<&NamedSubject>) -> Option<Self> {
        subject.map(Self::of)
    }
}
