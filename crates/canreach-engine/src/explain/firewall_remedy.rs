//! Fixes of rules: letting in, past the rule that stops it, in the words of whoever keeps the rules.
//!
//! Kernel counterpart: what ufw, firewall-cmd, nft and iptables write. A fix is a rule for exactly
//! the sources, link and port asked about. It is put into a copy of the snapshot first, where its
//! program would put it: one that leaves as much in the way as before is not offered. Left out: rules
//! of programs that write theirs anew (Docker, Podman, libvirt, Kubernetes), forwarded packets, and
//! making hand-written rules survive a restart.

use canreach_snapshot::nft::expr::{
    BitwiseOp, CmpOp, Expr, MetaKey, NfVerdict, PayloadBase, Register,
};
use canreach_snapshot::nft::{Bytes, Handle};
use canreach_snapshot::xt::{HeaderMatch, MaskedAddress, Match, MatchKind, Target, TargetKind};
use canreach_snapshot::{Family, Netns, NfFamily, Prefix, Proto, nft, xt};

use super::command_line::{shell_word, shell_words};
use super::fix::{Fix, FixId, FixNote, FixStep, NoteKind, Undo};
use super::remedy::Case;
use super::rule_owner::{Placed, RuleOwner, rule_owner};
use crate::{Arrival, Blocker, NfSubject, Stage, Subject};

/// What is to be let through.
#[derive(Debug, Clone)]
struct Opening {
    family: Family,
    proto: Proto,
    port: u16,
    /// The link; `None` where this machine asks itself.
    link: Option<String>,
    /// The sources; empty for every source.
    sources: Vec<Prefix>,
    /// It is the answer that is stopped: its source is the server.
    answer: bool,
}

/// Where in a chain a rule is put.
#[derive(Debug, Clone, Copy)]
enum At {
    Before(usize),
    First,
    Last,
}

/// Lets in what a rule or policy stops.
pub(super) fn let_in(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let Some(Subject::Netfilter(subject)) = blocker.subject else { return Vec::new() };
    let Some(placed) = Placed::of(&case.netns.firewall, subject) else { return Vec::new() };
    let answer = blocker.stage == Stage::Output;
    let link = match case.question.via {
        Arrival::Link(index) => {
            case.netns.links.iter().find(|link| link.ifindex == index).map(|link| link.name.clone())
        }
        // A local client passes output on its way in: which of the two is stopped is not said.
        Arrival::Local { .. } if answer => return Vec::new(),
        Arrival::Local { .. } => None,
    };
    if blocker.stage == Stage::Forward {
        return Vec::new();
    }
    let opening = Opening {
        family: case.question.family(),
        proto: case.question.proto,
        port: case.question.port.0,
        link,
        sources: case.scope.clone(),
        answer,
    };
    let attempt = Attempt { case, blocker, subject, placed, opening };
    let fix = match rule_owner(&case.netns.firewall, subject) {
        Some(RuleOwner::UfwRule(number)) => attempt.ufw(number),
        Some(RuleOwner::UfwPolicy(_) | RuleOwner::UfwFrame) => attempt.ufw(None),
        Some(RuleOwner::Firewalld(zone)) => attempt.firewalld(zone.as_deref()),
        Some(RuleOwner::Fail2ban(Some(jail))) => attempt.unban(&jail),
        Some(
            RuleOwner::Docker
            | RuleOwner::Podman
            | RuleOwner::Libvirt
            | RuleOwner::KubeProxy(_)
            | RuleOwner::Fail2ban(None)
            | RuleOwner::Tailscale
            | RuleOwner::Systemd
            | RuleOwner::WgQuick,
        ) => None,
        None => attempt.by_hand(),
    };
    fix.into_iter().collect()
}

struct Attempt<'a> {
    case: &'a Case<'a>,
    blocker: &'a Blocker,
    subject: NfSubject,
    placed: Placed<'a>,
    opening: Opening,
}

impl Attempt<'_> {
    /// Whether rules put there leave less in the way.
    ///
    /// In front of other rules, a wider scope would overrule what those say of others.
    fn helps(&self, chain: &str, at: At) -> bool {
        (self.case.scope_is_exact || matches!(at, At::Last))
            && self.case.lessens(|netns| {
                // What is put first comes last: the order of the sources does not matter.
                for source in sources(&self.opening) {
                    insert(netns, self.subject, chain, at, &self.opening, source);
                }
            })
    }

    fn fix(&self, id: FixId, commands: Vec<(String, String)>) -> Fix {
        let (commands, mut undo): (Vec<String>, Vec<String>) = commands.into_iter().unzip();
        undo.reverse();
        let mut fix = Fix::new(self.blocker.reason, id);
        fix.steps = commands.into_iter().map(FixStep::Run).collect();
        fix.undo = Some(Undo { commands: undo, take_lines_out: false });
        fix.needs_root = true;
        fix
    }

    /// `ufw allow`, in front of the rule that says no, if it is one of its user's.
    fn ufw(&self, number: Option<u32>) -> Option<Fix> {
        if self.opening.answer {
            return None;
        }
        let prefix = if self.placed.family == NfFamily::Ip6 { "ufw6-" } else { "ufw-" };
        let chain = format!("{prefix}user-input");
        let in_user_rules = self.placed.chain == chain;
        let (verb, at) = match (number, in_user_rules, self.placed.rule) {
            (Some(number), true, Some(rule)) => (format!("insert {number} "), At::Before(rule)),
            (_, true, _) => ("prepend ".to_owned(), At::First),
            _ => (String::new(), At::Last),
        };
        let attempts = [(verb, at), ("prepend ".to_owned(), At::First)];
        let (verb, _) = attempts.into_iter().find(|(_, at)| self.helps(&chain, *at))?;
        let Opening { port, proto, link, .. } = &self.opening;
        let commands = sources(&self.opening)
            .map(|source| {
                let from = match (source, link) {
                    (Some(source), _) => format!("from {}", bare(source)),
                    (None, Some(link)) => format!("in on {}", shell_word(link)),
                    (None, None) => "in on lo".to_owned(),
                };
                let rule = format!("allow {from} to any port {port} proto {}", proto.name());
                (format!("sudo ufw {verb}{rule}"), format!("sudo ufw delete {rule}"))
            })
            .collect();
        Some(self.fix(FixId::UfwAllow, commands))
    }

    /// A rich rule of the zone, or a port of it; where the zone denies first, one that is earlier.
    fn firewalld(&self, zone: Option<&str>) -> Option<Fix> {
        if self.opening.answer {
            return None;
        }
        let zone = zone?;
        let chains = self.placed.chain.strip_suffix("_allow").unwrap_or(self.placed.chain);
        let base = ["_pre", "_log", "_deny", "_post"]
            .iter()
            .find_map(|end| chains.strip_suffix(end))
            .unwrap_or(chains);
        let allow = self.helps(&format!("{base}_allow"), At::Last);
        let early = !allow && self.helps(&format!("{base}_pre"), At::First);
        if !allow && !early {
            return None;
        }
        let Opening { family, port, proto, .. } = &self.opening;
        let family = match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let zone = shell_word(zone);
        let priority = if early { " priority=\"-1\"" } else { "" };
        let commands = sources(&self.opening)
            .map(|source| {
                let what = match source {
                    None if !early => format!("port={port}/{}", proto.name()),
                    source => {
                        let address = source
                            .map(|source| format!(" source address=\"{}\"", bare(source)))
                            .unwrap_or_default();
                        let rule = format!(
                            "rule{priority} family=\"{family}\"{address} port port=\"{port}\" \
                             protocol=\"{}\" accept",
                            proto.name()
                        );
                        format!("rich-rule={}", shell_word(&rule))
                    }
                };
                let command = |verb| format!("sudo firewall-cmd --zone={zone} --{verb}-{what}");
                (command("add"), command("remove"))
            })
            .collect();
        let mut fix = self.fix(FixId::FirewalldAllow, commands);
        fix.notes.push(note("it holds until firewalld restarts; with --permanent too, for good"));
        Some(fix)
    }

    /// Single addresses leave a jail.
    fn unban(&self, jail: &str) -> Option<Fix> {
        let Opening { sources, .. } = &self.opening;
        let single = |prefix: &Prefix| prefix.length() == prefix.family().bits();
        if sources.is_empty() || !sources.iter().all(single) {
            return None;
        }
        let freed = self.case.lessens(|netns| remove(netns, self.subject));
        freed.then(|| {
            let jail = shell_word(jail);
            let commands = sources.iter().map(|source| {
                let command =
                    |verb| format!("sudo fail2ban-client set {jail} {verb} {}", source.address());
                (command("unbanip"), command("banip"))
            });
            self.fix(FixId::Unban, commands.collect())
        })
    }

    /// A rule in front of the one that says no; behind all others where the policy does.
    fn by_hand(&self) -> Option<Fix> {
        let at = self.placed.rule.map_or(At::Last, At::Before);
        let at = [at, At::First].into_iter().find(|at| self.helps(self.placed.chain, *at))?;
        let is_nft =
            matches!(self.subject, NfSubject::NftRule { .. } | NfSubject::NftPolicy { .. });
        if is_nft && !self.placed.is_iptables() {
            return self.nft(at);
        }
        let legacy = match (is_nft, self.case.netns.firewall.xt_tables.is_empty()) {
            (false, _) => "-legacy",
            (true, false) => "-nft",
            (true, true) => "",
        };
        let six = if self.placed.family == NfFamily::Ip6 { "6" } else { "" };
        let program = format!("ip{six}tables{legacy}");
        let table = match self.placed.table {
            "filter" => String::new(),
            table => format!("-t {} ", shell_word(table)),
        };
        let chain = shell_word(self.placed.chain);
        let place = match at {
            At::Before(rule) => format!("-I {chain} {}", rule + 1),
            At::First => format!("-I {chain}"),
            At::Last => format!("-A {chain}"),
        };
        let commands = sources(&self.opening)
            .map(|source| {
                let rule = self.opening.iptables(source);
                (
                    format!("sudo {program} {table}{place} {rule}"),
                    format!("sudo {program} {table}-D {chain} {rule}"),
                )
            })
            .collect();
        Some(self.fix(FixId::IptablesAllow, commands))
    }

    fn nft(&self, at: At) -> Option<Fix> {
        let family = match self.placed.family {
            NfFamily::Inet => "inet",
            NfFamily::Ip => "ip",
            NfFamily::Ip6 => "ip6",
            // Neither sees addresses in the same way at every hook.
            NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => return None,
        };
        let place = shell_words(&[
            family.to_owned(),
            self.placed.table.to_owned(),
            self.placed.chain.to_owned(),
        ]);
        let verb = match at {
            At::Before(_) => {
                format!("insert rule {place} position {}", self.placed.handle()?)
            }
            At::First => format!("insert rule {place}"),
            At::Last => format!("add rule {place}"),
        };
        let commands = sources(&self.opening).map(|source| {
            let rule = self.opening.nft(source);
            (
                format!("sudo nft -ea {verb} {rule}"),
                format!("sudo nft delete rule {place} handle HANDLE"),
            )
        });
        let mut fix = self.fix(FixId::NftAllow, commands.collect());
        fix.notes.push(note("nft -ea prints the handle of the new rule, which the undo needs"));
        Some(fix)
    }
}

fn note(text: &str) -> FixNote {
    FixNote { kind: NoteKind::Other, text: text.to_owned() }
}

/// Each source once; one `None` for all.
fn sources(opening: &Opening) -> impl Iterator<Item = Option<Prefix>> {
    let all = opening.sources.is_empty().then_some(None);
    all.into_iter().chain(opening.sources.iter().copied().map(Some))
}

/// A prefix, or the address where it is one.
fn bare(prefix: Prefix) -> String {
    if prefix.length() == prefix.family().bits() {
        prefix.address().to_string()
    } else {
        prefix.to_string()
    }
}

impl Opening {
    fn link(&self) -> &str {
        self.link.as_deref().unwrap_or("lo")
    }

    /// `iifname eth0 ip saddr 192.168.1.0/24 tcp dport 3000 accept`.
    fn nft(&self, source: Option<Prefix>) -> String {
        let (link, address, port) =
            if self.answer { ("oifname", "daddr", "sport") } else { ("iifname", "saddr", "dport") };
        let family = match self.family {
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
        };
        let source = source.map(|source| format!("{family} {address} {} ", bare(source)));
        format!(
            "{link} {} {}{} {port} {} accept",
            shell_word(self.link()),
            source.unwrap_or_default(),
            self.proto.name(),
            self.port
        )
    }

    /// `-i eth0 -s 192.168.1.0/24 -p tcp --dport 3000 -j ACCEPT`.
    fn iptables(&self, source: Option<Prefix>) -> String {
        let (link, address, port) =
            if self.answer { ("-o", "-d", "--sport") } else { ("-i", "-s", "--dport") };
        let source = source.map(|source| format!("{address} {} ", bare(source)));
        format!(
            "{link} {} {}-p {} {port} {} -j ACCEPT",
            shell_word(self.link()),
            source.unwrap_or_default(),
            self.proto.name(),
            self.port
        )
    }

    const fn protocol(&self) -> u8 {
        match self.proto {
            Proto::Tcp => 6,
            Proto::Udp => 17,
        }
    }

    /// The same as nftables' expressions.
    fn exprs(&self, source: Option<Prefix>) -> Vec<Expr> {
        const REGISTER: Register = Register(0);
        let equals = |value: Bytes| Expr::Cmp { sreg: REGISTER, op: CmpOp::Eq, value };
        let meta = |key| Expr::Meta { dreg: REGISTER, key };
        let mut name = self.link().as_bytes().to_vec();
        name.resize(16, 0);
        let link = if self.answer { MetaKey::Oifname } else { MetaKey::Iifname };
        let mut exprs = vec![meta(link), equals(Bytes::from(name))];
        let (nfproto, offsets, len) = match self.family {
            Family::Ipv4 => (2, (12, 16), 4),
            Family::Ipv6 => (10, (8, 24), 16),
        };
        exprs.extend([meta(MetaKey::Nfproto), equals(Bytes::from(vec![nfproto]))]);
        if let Some(source) = source {
            let offset = if self.answer { offsets.1 } else { offsets.0 };
            let mask = Bytes::from(octets(mask(source)));
            let op = BitwiseOp::MaskXor { mask, xor: Bytes::from(vec![0; len as usize]) };
            exprs.extend([
                Expr::Payload { dreg: REGISTER, base: PayloadBase::Network, offset, len },
                Expr::Bitwise { sreg: REGISTER, dreg: REGISTER, len, op },
                equals(Bytes::from(octets(source.address()))),
            ]);
        }
        exprs.extend([
            meta(MetaKey::L4proto),
            equals(Bytes::from(vec![self.protocol()])),
            Expr::Payload {
                dreg: REGISTER,
                base: PayloadBase::Transport,
                offset: if self.answer { 0 } else { 2 },
                len: 2,
            },
            equals(Bytes::from(self.port.to_be_bytes())),
            Expr::Verdict(NfVerdict::Accept),
        ]);
        exprs
    }

    /// The same as a rule of a legacy table.
    fn xt_rule(&self, source: Option<Prefix>) -> xt::Rule {
        let any =
            MaskedAddress { address: self.family.unspecified(), mask: self.family.unspecified() };
        let source = source
            .map_or(any, |source| MaskedAddress { address: source.address(), mask: mask(source) });
        let (from, to) = if self.answer { (any, source) } else { (source, any) };
        let link = self.link().to_owned();
        let (iniface, outiface) =
            if self.answer { (String::new(), link) } else { (link, String::new()) };
        let (every, port) = ((0, u16::MAX), (self.port, self.port));
        let (source_ports, destination_ports) =
            if self.answer { (port, every) } else { (every, port) };
        let kind = match self.proto {
            Proto::Tcp => MatchKind::Tcp {
                source_ports,
                source_ports_inverted: false,
                destination_ports,
                destination_ports_inverted: false,
                flag_mask: 0,
                flag_value: 0,
                flags_inverted: false,
                option: 0,
                option_inverted: false,
            },
            Proto::Udp => MatchKind::Udp {
                source_ports,
                source_ports_inverted: false,
                destination_ports,
                destination_ports_inverted: false,
            },
        };
        xt::Rule {
            header: HeaderMatch {
                source: from,
                source_inverted: false,
                destination: to,
                destination_inverted: false,
                iniface,
                iniface_inverted: false,
                outiface,
                outiface_inverted: false,
                protocol: u16::from(self.protocol()),
                protocol_inverted: false,
                fragment: false,
                fragment_inverted: false,
            },
            matches: vec![Match { name: self.proto.name().to_owned(), revision: 0, kind }],
            target: Target {
                name: String::new(),
                revision: 0,
                kind: TargetKind::Standard(NfVerdict::Accept),
            },
        }
    }
}

/// The bits of a prefix that count.
fn mask(prefix: Prefix) -> std::net::IpAddr {
    let free = u32::from(prefix.family().bits() - prefix.length());
    match prefix.family() {
        Family::Ipv4 => {
            let bits = u32::MAX.checked_shl(free).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(bits).into()
        }
        Family::Ipv6 => {
            let bits = u128::MAX.checked_shl(free).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(bits).into()
        }
    }
}

fn octets(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Puts a rule into a chain of the table that a subject is in.
fn insert(
    netns: &mut Netns,
    subject: NfSubject,
    chain: &str,
    at: At,
    opening: &Opening,
    source: Option<Prefix>,
) {
    let place = |rules: usize| match at {
        At::Before(rule) => rule.min(rules),
        At::First => 0,
        At::Last => rules,
    };
    match subject {
        NfSubject::NftRule { table, .. } | NfSubject::NftPolicy { table, .. } => {
            let tables = netns.firewall.nft.as_mut().map(|nft| &mut nft.tables);
            let table = tables.and_then(|tables| tables.get_mut(table));
            let chains = table.map(|table| table.chains.iter_mut()).into_iter().flatten();
            for chain in chains.filter(|held| held.name == chain) {
                let exprs = opening.exprs(source);
                let rule = nft::Rule { handle: Handle(u64::MAX), exprs, comment: None };
                chain.rules.insert(place(chain.rules.len()), rule);
            }
        }
        NfSubject::XtRule { table, .. } | NfSubject::XtPolicy { table, .. } => {
            let table = netns.firewall.xt_tables.get_mut(table);
            let chains = table.map(|table| table.chains.iter_mut()).into_iter().flatten();
            for chain in chains.filter(|held| held.name == chain) {
                chain.rules.insert(place(chain.rules.len()), opening.xt_rule(source));
            }
        }
    }
}

/// Takes a rule out.
fn remove(netns: &mut Netns, subject: NfSubject) {
    match subject {
        NfSubject::NftRule { table, chain, rule } => {
            let tables = netns.firewall.nft.as_mut().map(|nft| &mut nft.tables);
            let table = tables.and_then(|tables| tables.get_mut(table));
            let chain = table.and_then(|table| table.chains.get_mut(chain));
            if let Some(chain) = chain.filter(|chain| rule < chain.rules.len()) {
                chain.rules.remove(rule);
            }
        }
        NfSubject::XtRule { table, chain, rule } => {
            let table = netns.firewall.xt_tables.get_mut(table);
            let chain = table.and_then(|table| table.chains.get_mut(chain));
            if let Some(chain) = chain.filter(|chain| rule < chain.rules.len()) {
                chain.rules.remove(rule);
            }
        }
        NfSubject::NftPolicy { .. } | NfSubject::XtPolicy { .. } => {}
    }
}
