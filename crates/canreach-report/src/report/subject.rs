//! The object that decided, with its own name: what the kernel's tools would print.

use std::net::IpAddr;

use canreach_engine::explain::rule_owner::{RuleOwner, rule_destination, rule_owner};
use canreach_engine::{NetnsIndex, NfSubject, SocketIndex, Subject};
use canreach_snapshot::{
    AttachPoint, ChainPolicy, Ifindex, Netns, NfFamily, NfHook, PolicyAction, PolicyRule, Proto,
    Route, RouteType, Snapshot, Socket, TableId,
};

use crate::rule_text;

/// An object of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedSubject {
    /// A link.
    Link {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
    },
    /// An address of a link.
    Address {
        /// With its prefix length.
        address: String,
        /// Its link.
        link: String,
    },
    /// A route.
    Route {
        /// As `ip route` would print it.
        text: String,
        /// Its table.
        table: u32,
    },
    /// A policy rule.
    PolicyRule {
        /// As `ip rule` would print it.
        text: String,
        /// Its priority.
        priority: u32,
    },
    /// A sysctl, with its effective value.
    Sysctl {
        /// Its full name.
        name: String,
        /// The value.
        value: i64,
    },
    /// A socket.
    Socket {
        /// TCP or UDP.
        proto: Proto,
        /// The address it is bound to.
        address: IpAddr,
        /// The port it is bound to.
        port: u16,
        /// The link it is bound to.
        device: Option<String>,
        /// The kernel's identity for it.
        cookie: u64,
    },
    /// A base chain of nftables.
    Chain {
        /// The family of its table.
        family: &'static str,
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
        /// Its handle.
        handle: u64,
        /// How many rules it holds.
        rules: u32,
    },
    /// A rule of a packet filter, or the policy of one of its chains.
    Rule(NamedRule),
    /// A table of iptables-legacy.
    LegacyTable {
        /// `ip` or `ip6`.
        family: &'static str,
        /// Its name.
        table: String,
    },
    /// An object of another namespace.
    In {
        /// The namespace.
        netns: String,
        /// The object there.
        subject: Box<Self>,
    },
    /// A BPF program or tc filter.
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

/// A rule of a packet filter, or the policy of a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRule {
    /// Whose it is.
    pub generation: RuleGeneration,
    /// The family of its table.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// nftables: its handle, or that of the chain.
    pub handle: Option<u64>,
    /// Its number in the chain, from 1; `None` for the policy.
    pub number: Option<usize>,
    /// The rule as its tool would print it.
    pub text: String,
    /// Whose it is.
    pub owner: Option<RuleOwner>,
    /// Where it sends packets: the address it writes into them.
    pub destination: Option<(IpAddr, Option<u16>)>,
}

/// Which packet filter a rule belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleGeneration {
    /// nftables, and iptables-nft.
    Nft,
    /// iptables-legacy.
    Xt,
}

impl NamedSubject {
    /// Names the object; `None` if the snapshot does not hold it.
    #[must_use]
    pub fn of(netns: &Netns, subject: &Subject) -> Option<Self> {
        Some(match subject {
            Subject::Link(index) => Self::Link { name: link_name(netns, *index), index: index.0 },
            Subject::Address(index) => {
                let address = netns.addresses.get(*index)?;
                Self::Address {
                    address: address.prefix.to_string(),
                    link: link_name(netns, address.ifindex),
                }
            }
            Subject::Route(index) => {
                let route = netns.routes.get(*index)?;
                Self::Route { text: route_text(netns, route), table: route.table.0 }
            }
            Subject::PolicyRule(index) => {
                let rule = netns.policy_rules.get(*index)?;
                Self::PolicyRule { text: policy_rule_text(rule), priority: rule.priority }
            }
            Subject::LinkSysctl { sysctl, link, value } => {
                let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
                let link = link.map_or_else(|| "all".to_owned(), |link| link_name(netns, link));
                Self::Sysctl {
                    name: format!("net.{family}.conf.{link}.{}", sysctl.name()),
                    value: *value,
                }
            }
            Subject::Socket(SocketIndex(index)) => {
                Self::of_socket(netns, netns.sockets.get(*index)?)
            }
            Subject::Chain(index) => {
                let chain = netns.firewall.chains.get(*index)?;
                Self::Chain {
                    family: nf_family(chain.family),
                    table: chain.table.clone(),
                    chain: chain.name.clone(),
                    handle: chain.handle,
                    rules: chain.rules,
                }
            }
            Subject::LegacyTable(index) => {
                let table = netns.firewall.legacy_tables.get(*index)?;
                Self::LegacyTable { family: nf_family(table.family), table: table.name.clone() }
            }
            // Only the snapshot has the others.
            Subject::In(..) => return None,
            Subject::Netfilter(subject) => Self::Rule(named_rule(netns, *subject)?),
            Subject::Bpf(index) => {
                let attachment = netns.bpf.get(*index)?;
                Self::Bpf {
                    point: attach_point(netns, attachment.point),
                    program_id: attachment.program_id,
                    name: attachment.name.clone(),
                }
            }
            Subject::Gap(index) => {
                let gap = netns.gaps.get(*index)?;
                Self::Gap {
                    what: crate::report::unknown::what(&gap.subject),
                    detail: gap.detail.clone(),
                }
            }
        })
    }

    /// Names an object of a namespace, or of another one of the machine.
    #[must_use]
    pub fn among(snapshot: &Snapshot, netns: &Netns, subject: &Subject) -> Option<Self> {
        let Subject::In(NetnsIndex(index), inner) = subject else {
            return Self::of(netns, subject);
        };
        let other = snapshot.namespaces.get(*index)?;
        let subject = Box::new(Self::of(other, inner)?);
        Some(Self::In { netns: netns_name(other), subject })
    }

    /// A socket.
    #[must_use]
    pub fn of_socket(netns: &Netns, socket: &Socket) -> Self {
        Self::Socket {
            proto: socket.proto,
            address: socket.address,
            port: socket.port.0,
            device: socket.device.map(|device| link_name(netns, device)),
            cookie: socket.cookie.0,
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Link { name, .. } => format!("interface {name}"),
            Self::Address { address, link } => format!("address {address} on {link}"),
            Self::Route { text, .. } => format!("route: {text}"),
            Self::PolicyRule { text, .. } => format!("policy rule: {text}"),
            Self::Sysctl { name, value } => format!("{name} = {value}"),
            Self::Socket { proto, address, port, device, .. } => {
                let on = device.as_ref().map(|device| format!(" on {device}")).unwrap_or_default();
                format!(
                    "{} socket {}{on}",
                    proto.name(),
                    std::net::SocketAddr::new(*address, *port)
                )
            }
            Self::Chain { family, table, chain, rules, .. } => {
                let rules =
                    if *rules == 1 { "1 rule".to_owned() } else { format!("{rules} rules") };
                format!("table {family} {table}, chain {chain}: {rules}")
            }
            Self::LegacyTable { family, table } => {
                let command = if *family == "ip6" { "ip6tables-legacy" } else { "iptables-legacy" };
                format!("{command}, table {table}")
            }
            Self::Rule(rule) => rule.line(),
            Self::In { netns, subject } => format!("in {netns}: {}", subject.line()),
            Self::Bpf { point, program_id, name } => {
                let name = name.as_deref().unwrap_or("without a name");
                let id = program_id.map(|id| format!(" (id {id})")).unwrap_or_default();
                format!("BPF program {name}{id}, {point}")
            }
            Self::Gap { detail, .. } => detail.clone(),
        }
    }
}

impl NamedRule {
    /// Where it stands, and what it says.
    fn line(&self) -> String {
        let Self { family, table, chain, text, .. } = self;
        let place = match self.generation {
            RuleGeneration::Nft => format!("table {family} {table}"),
            RuleGeneration::Xt if *family == "ip6" => format!("ip6tables-legacy, table {table}"),
            RuleGeneration::Xt => format!("iptables-legacy, table {table}"),
        };
        match (self.number, self.handle) {
            (None, _) => format!("{place}, chain {chain}, {text}"),
            // iptables names the chain itself, and knows no handles.
            (Some(_), _) if text.starts_with("-A ") => format!("{place}: {text}"),
            (Some(_), Some(handle)) => format!("{place}, chain {chain}: {text} # handle {handle}"),
            (Some(_), None) => format!("{place}, chain {chain}: {text}"),
        }
    }
}

fn named_rule(netns: &Netns, subject: NfSubject) -> Option<NamedRule> {
    let firewall = &netns.firewall;
    let nft = |table: usize, chain: usize| {
        let table = firewall.nft.as_ref()?.tables.get(table)?;
        Some((table, table.chains.get(chain)?))
    };
    let xt = |table: usize, chain: usize| {
        let table = firewall.xt_tables.get(table)?;
        Some((table, table.chains.get(chain)?))
    };
    let named = |generation, family, table: &str, chain: &str| NamedRule {
        generation,
        family: nf_family(family),
        table: table.to_owned(),
        chain: chain.to_owned(),
        handle: None,
        number: None,
        text: String::new(),
        owner: rule_owner(firewall, subject),
        destination: rule_destination(firewall, subject),
    };
    Some(match subject {
        NfSubject::NftRule { table, chain, rule } => {
            let (table, chain) = nft(table, chain)?;
            let held = chain.rules.get(rule)?;
            NamedRule {
                handle: Some(held.handle.0),
                number: Some(rule + 1),
                text: rule_text::in_own_words(netns, &chain.name, table, held),
                ..named(RuleGeneration::Nft, table.family, &table.name, &chain.name)
            }
        }
        NfSubject::NftPolicy { table, chain } => {
            let (table, chain) = nft(table, chain)?;
            NamedRule {
                handle: Some(chain.handle.0),
                text: policy_text(chain.base.as_ref()?.policy),
                ..named(RuleGeneration::Nft, table.family, &table.name, &chain.name)
            }
        }
        NfSubject::XtRule { table, chain, rule } => {
            let (table, chain) = xt(table, chain)?;
            let held = chain.rules.get(rule)?;
            NamedRule {
                number: Some(rule + 1),
                text: rule_text::xt_rule(&chain.name, held),
                ..named(RuleGeneration::Xt, table.family, &table.name, &chain.name)
            }
        }
        NfSubject::XtPolicy { table, chain } => {
            let (table, chain) = xt(table, chain)?;
            NamedRule {
                text: policy_text(chain.base?.1),
                ..named(RuleGeneration::Xt, table.family, &table.name, &chain.name)
            }
        }
    })
}

fn policy_text(policy: ChainPolicy) -> String {
    match policy {
        ChainPolicy::Accept => "policy accept".to_owned(),
        ChainPolicy::Drop => "policy drop".to_owned(),
    }
}

/// What a namespace is called: by its name, or by its identity.
#[must_use]
pub fn netns_name(netns: &Netns) -> String {
    netns.name.clone().unwrap_or_else(|| format!("namespace {}", netns.id.0))
}

/// The name of a link, or its number where the snapshot does not have it.
#[must_use]
pub fn link_name(netns: &Netns, index: Ifindex) -> String {
    netns.link(index).map_or_else(|| format!("if{}", index.0), |link| link.name.clone())
}

fn route_text(netns: &Netns, route: &Route) -> String {
    let mut text = String::new();
    let kind = match route.kind {
        RouteType::Unicast => None,
        RouteType::Local => Some("local"),
        RouteType::Broadcast => Some("broadcast"),
        RouteType::Anycast => Some("anycast"),
        RouteType::Multicast => Some("multicast"),
        RouteType::Blackhole => Some("blackhole"),
        RouteType::Unreachable => Some("unreachable"),
        RouteType::Prohibit => Some("prohibit"),
        RouteType::Throw => Some("throw"),
        RouteType::Nat => Some("nat"),
        RouteType::Other(_) => Some("(a type canreach does not know)"),
    };
    if let Some(kind) = kind {
        text.push_str(kind);
        text.push(' ');
    }
    let destination = route.destination;
    if destination.length() == 0 {
        text.push_str("default");
    } else if destination.length() == destination.family().bits() {
        text.push_str(&destination.address().to_string());
    } else {
        text.push_str(&destination.to_string());
    }
    for hop in &route.nexthops {
        if let Some(gateway) = hop.gateway {
            text.push_str(&format!(" via {gateway}"));
        }
        if let Some(index) = hop.ifindex {
            text.push_str(&format!(" dev {}", link_name(netns, index)));
        }
    }
    text.push_str(&format!(" table {}", table_name(route.table)));
    text
}

fn policy_rule_text(rule: &PolicyRule) -> String {
    let mut text = format!("{}:", rule.priority);
    if rule.invert {
        text.push_str(" not");
    }
    let source = rule.source.map_or_else(|| "all".to_owned(), |source| source.to_string());
    text.push_str(&format!(" from {source}"));
    let selectors = [
        rule.destination.map(|destination| format!("to {destination}")),
        (rule.mark_mask != 0).then(|| format!("fwmark {:#x}/{:#x}", rule.mark, rule.mark_mask)),
        rule.iif.as_ref().map(|name| format!("iif {name}")),
        rule.oif.as_ref().map(|name| format!("oif {name}")),
        rule.uid_range.map(|(low, high)| format!("uidrange {low}-{high}")),
    ];
    for selector in selectors.into_iter().flatten() {
        text.push(' ');
        text.push_str(&selector);
    }
    let action = match rule.action {
        PolicyAction::Lookup(_) if rule.l3mdev => "lookup [l3mdev-table]".to_owned(),
        PolicyAction::Lookup(table) => format!("lookup {}", table_name(table)),
        PolicyAction::Goto(priority) => format!("goto {priority}"),
        PolicyAction::Nop => "nop".to_owned(),
        PolicyAction::Blackhole => "blackhole".to_owned(),
        PolicyAction::Unreachable => "unreachable".to_owned(),
        PolicyAction::Prohibit => "prohibit".to_owned(),
        PolicyAction::Other(number) => format!("action {number}"),
    };
    format!("{text} {action}")
}

fn table_name(table: TableId) -> String {
    match table {
        TableId::LOCAL => "local".to_owned(),
        TableId::MAIN => "main".to_owned(),
        TableId::DEFAULT => "default".to_owned(),
        TableId(number) => number.to_string(),
    }
}

/// nft's word for a family.
#[must_use]
pub const fn nf_family(family: NfFamily) -> &'static str {
    match family {
        NfFamily::Inet => "inet",
        NfFamily::Ip => "ip",
        NfFamily::Ip6 => "ip6",
        NfFamily::Arp => "arp",
        NfFamily::Bridge => "bridge",
        NfFamily::Netdev => "netdev",
    }
}

fn attach_point(netns: &Netns, point: AttachPoint) -> String {
    match point {
        AttachPoint::Xdp(link) => format!("XDP on {}", link_name(netns, link)),
        AttachPoint::TcIngress(link) => format!("tc ingress on {}", link_name(netns, link)),
        AttachPoint::TcEgress(link) => format!("tc egress on {}", link_name(netns, link)),
        AttachPoint::CgroupIngress(_) => "incoming packets of a control group".to_owned(),
        AttachPoint::CgroupEgress(_) => "outgoing packets of a control group".to_owned(),
        AttachPoint::CgroupConnect(_) => "connections of a control group".to_owned(),
        AttachPoint::SkLookup => "socket lookup".to_owned(),
        AttachPoint::Netfilter(hook) => format!("netfilter {}", nf_hook(hook)),
    }
}

const fn nf_hook(hook: NfHook) -> &'static str {
    match hook {
        NfHook::Ingress => "ingress",
        NfHook::Egress => "egress",
        NfHook::Prerouting => "prerouting",
        NfHook::Input => "input",
        NfHook::Forward => "forward",
        NfHook::Output => "output",
        NfHook::Postrouting => "postrouting",
    }
}
