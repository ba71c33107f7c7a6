//! Whose a rule is: the program that wrote it, by the names of tables and chains that it uses.
//!
//! Kernel counterpart: none; names are a convention of each program, given beside each test. A rule
//! keeps its table, chain and handle: a program's name stands next to them. Left out: rules that
//! people wrote themselves, which are nobody's.

use std::net::IpAddr;

use canreach_snapshot::nft::expr::Register;
use canreach_snapshot::nft::{Expr, Table};
use canreach_snapshot::xt::{MatchKind, TargetKind};
use canreach_snapshot::{ChainPolicy, Firewall, NfFamily, NfHook};

use crate::NfSubject;

/// The program that wrote a rule, and what the rule is to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleOwner {
    /// ufw: a rule of its user, by its number in `ufw status numbered` where that is certain.
    UfwRule(Option<u32>),
    /// ufw: what becomes of packets that no rule of its user decides.
    UfwPolicy(NfHook),
    /// ufw: what it does on every machine (before.rules, after.rules).
    UfwFrame,
    /// firewalld, in a zone if the chain says which.
    Firewalld(Option<String>),
    /// Docker Engine.
    Docker,
    /// Podman, by netavark or CNI.
    Podman,
    /// libvirt.
    Libvirt,
    /// kube-proxy, and the service where the rule says which.
    KubeProxy(Option<String>),
    /// fail2ban, and the jail where the chain or set says which.
    Fail2ban(Option<String>),
    /// Tailscale.
    Tailscale,
    /// systemd.
    Systemd,
    /// wg-quick.
    WgQuick,
}

impl RuleOwner {
    /// What the program is called.
    #[must_use]
    pub const fn program(&self) -> &'static str {
        match self {
            Self::UfwRule(_) | Self::UfwPolicy(_) | Self::UfwFrame => "ufw",
            Self::Firewalld(_) => "firewalld",
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Libvirt => "libvirt",
            Self::KubeProxy(_) => "kube-proxy",
            Self::Fail2ban(_) => "fail2ban",
            Self::Tailscale => "Tailscale",
            Self::Systemd => "systemd",
            Self::WgQuick => "wg-quick",
        }
    }
}

/// A rule or a policy, wherever it is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) family: NfFamily,
    pub(super) table: &'a str,
    pub(super) chain: &'a str,
    /// The rule; `None` for the policy.
    pub(super) rule: Option<usize>,
    /// The hook and policy of a base chain.
    pub(super) base: Option<(NfHook, ChainPolicy)>,
    kept: Kept<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Kept<'a> {
    Nft(&'a Table, usize),
    Xt(&'a canreach_snapshot::xt::Table, usize),
}

impl<'a> Placed<'a> {
    pub(super) fn of(firewall: &'a Firewall, subject: NfSubject) -> Option<Self> {
        let (table, chain, rule, is_nft) = match subject {
            NfSubject::NftRule { table, chain, rule } => (table, chain, Some(rule), true),
            NfSubject::NftPolicy { table, chain } => (table, chain, None, true),
            NfSubject::XtRule { table, chain, rule } => (table, chain, Some(rule), false),
            NfSubject::XtPolicy { table, chain } => (table, chain, None, false),
        };
        if is_nft {
            let table = firewall.nft.as_ref()?.tables.get(table)?;
            let held = table.chains.get(chain)?;
            return Some(Self {
                family: table.family,
                table: &table.name,
                chain: &held.name,
                rule,
                base: held.base.as_ref().map(|base| (base.hook, base.policy)),
                kept: Kept::Nft(table, chain),
            });
        }
        let table = firewall.xt_tables.get(table)?;
        let held = table.chains.get(chain)?;
        Some(Self {
            family: table.family,
            table: &table.name,
            chain: &held.name,
            rule,
            base: held.base,
            kept: Kept::Xt(table, chain),
        })
    }

    /// How many rules the chain has.
    fn rules(&self) -> usize {
        match self.kept {
            Kept::Nft(table, chain) => table.chains.get(chain).map_or(0, |chain| chain.rules.len()),
            Kept::Xt(table, chain) => table.chains.get(chain).map_or(0, |chain| chain.rules.len()),
        }
    }

    /// The handle of a rule of nftables.
    pub(super) fn handle(&self) -> Option<u64> {
        match self.kept {
            Kept::Nft(table, chain) => {
                Some(table.chains.get(chain)?.rules.get(self.rule?)?.handle.0)
            }
            Kept::Xt(..) => None,
        }
    }

    /// A table of iptables-legacy, or one that iptables-nft keeps.
    pub(super) fn is_iptables(&self) -> bool {
        const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
        const CHAINS: [&str; 5] = ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"];
        match self.kept {
            Kept::Xt(..) => true,
            Kept::Nft(table, _) => {
                let mut based = table.chains.iter().filter(|chain| chain.base.is_some()).peekable();
                matches!(table.family, NfFamily::Ip | NfFamily::Ip6)
                    && TABLES.contains(&self.table)
                    && based.peek().is_some()
                    && based.all(|chain| CHAINS.contains(&chain.name.as_str()))
            }
        }
    }

    fn has_chain(&self, wanted: impl Fn(&str) -> bool) -> bool {
        match self.kept {
            Kept::Nft(table, _) => table.chains.iter().any(|chain| wanted(&chain.name)),
            Kept::Xt(table, _) => table.chains.iter().any(|chain| wanted(&chain.name)),
        }
    }

    /// Comments, jumps and sets of the rule: where programs leave their names.
    fn marks(&self) -> Vec<String> {
        let Some(rule) = self.rule else { return Vec::new() };
        match self.kept {
            Kept::Nft(table, chain) => {
                let Some(rule) = table.chains.get(chain).and_then(|chain| chain.rules.get(rule))
                else {
                    return Vec::new();
                };
                let of_expr = |expr: &Expr| {
                    if let Expr::Lookup { set, .. } = expr {
                        return Some(set.clone());
                    }
                    if let Expr::Match(matched) = expr { comment(&matched.kind) } else { None }
                };
                rule.exprs.iter().filter_map(of_expr).chain(rule.comment.clone()).collect()
            }
            Kept::Xt(table, chain) => {
                let rule = table.chains.get(chain).and_then(|chain| chain.rules.get(rule));
                let matches = rule.map(|rule| rule.matches.as_slice()).unwrap_or_default();
                matches.iter().filter_map(|matched| comment(&matched.kind)).collect()
            }
        }
    }
}

fn comment(kind: &MatchKind) -> Option<String> {
    if let MatchKind::Comment(text) = kind { Some(text.clone()) } else { None }
}

/// Whose a rule or policy is; `None` for what people wrote themselves, or where no name says.
#[must_use]
pub fn rule_owner(firewall: &Firewall, subject: NfSubject) -> Option<RuleOwner> {
    let placed = Placed::of(firewall, subject)?;
    if is_ufw_chain(placed.chain) {
        return Some(ufw(firewall, &placed));
    }
    if placed.rule.is_none() {
        return policy_owner(&placed);
    }
    by_table(&placed).or_else(|| by_chain(&placed))
}

/// The one address, and the port if it names one, that a rule translates destinations to.
#[must_use]
pub fn rule_destination(firewall: &Firewall, subject: NfSubject) -> Option<(IpAddr, Option<u16>)> {
    let placed = Placed::of(firewall, subject)?;
    let rule = placed.rule?;
    match placed.kept {
        Kept::Nft(table, chain) => {
            let exprs = &table.chains.get(chain)?.rules.get(rule)?.exprs;
            exprs.iter().find_map(|expr| {
                if let Expr::Target(target) = expr {
                    return one_destination(&target.kind);
                }
                let Expr::Nat { source: false, range, .. } = expr else { return None };
                let address = constant(exprs, range.addr_min?)?;
                let address = match address.len() {
                    4 => IpAddr::from(*address.first_chunk::<4>()?),
                    16 => IpAddr::from(*address.first_chunk::<16>()?),
                    _ => return None,
                };
                let port = range.proto_min.and_then(|port| constant(exprs, port));
                let port = port.and_then(|port| port.first_chunk().copied());
                Some((address, port.map(u16::from_be_bytes)))
            })
        }
        Kept::Xt(table, chain) => {
            one_destination(&table.chains.get(chain)?.rules.get(rule)?.target.kind)
        }
    }
}

/// What a rule puts into a register as it stands.
fn constant(exprs: &[Expr], register: Register) -> Option<&[u8]> {
    exprs.iter().find_map(|expr| {
        let Expr::Immediate { dreg, value } = expr else { return None };
        (*dreg == register).then_some(value.as_slice())
    })
}

fn one_destination(kind: &TargetKind) -> Option<(IpAddr, Option<u16>)> {
    let TargetKind::Dnat(range) = kind else { return None };
    let (low, high) = range.addresses?;
    let port = range.ports.filter(|(low, high)| low == high).map(|(port, _)| port);
    (low == high && (port.is_some() || range.ports.is_none())).then_some((low, port))
}

/// The programs that keep rules here, each once, in the order of their names.
#[must_use]
pub fn programs(firewall: &Firewall) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut note = |subject: NfSubject| {
        found.extend(rule_owner(firewall, subject).map(|owner| owner.program()));
    };
    for (table, held) in firewall.nft.iter().flat_map(|nft| &nft.tables).enumerate() {
        for (chain, held) in held.chains.iter().enumerate() {
            (0..held.rules.len().min(1))
                .for_each(|rule| note(NfSubject::NftRule { table, chain, rule }));
        }
    }
    for (table, held) in firewall.xt_tables.iter().enumerate() {
        for (chain, held) in held.chains.iter().enumerate() {
            (0..held.rules.len().min(1))
                .for_each(|rule| note(NfSubject::XtRule { table, chain, rule }));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn is_ufw_chain(name: &str) -> bool {
    name.starts_with("ufw-") || name.starts_with("ufw6-")
}

/// ufw: `ufw-user-input` has its user's rules; `ufw-reject-input` and `ufw-skip-to-policy-input` stand
/// for its default policy.
fn ufw(firewall: &Firewall, placed: &Placed<'_>) -> RuleOwner {
    let chain = placed.chain.trim_start_matches("ufw6-").trim_start_matches("ufw-");
    let hook = if chain.ends_with("-output") {
        NfHook::Output
    } else if chain.ends_with("-forward") {
        NfHook::Forward
    } else {
        NfHook::Input
    };
    match chain {
        "user-input" | "user-output" | "user-forward" => {
            RuleOwner::UfwRule(ufw_number(firewall, placed))
        }
        "user-limit" | "user-limit-accept" => RuleOwner::UfwRule(None),
        _ if chain.starts_with("reject-")
            || chain.starts_with("skip-to-policy-")
            || chain.starts_with("track-") =>
        {
            RuleOwner::UfwPolicy(hook)
        }
        _ => RuleOwner::UfwFrame,
    }
}

/// The number of the rule in ufw's own list. The list may have been changed without being loaded: then
/// it has another number of lines than the chain.
fn ufw_number(firewall: &Firewall, placed: &Placed<'_>) -> Option<u32> {
    let rule = placed.rule?;
    let of_chain = || firewall.ufw_rules.iter().flatten().filter(|rule| rule.chain == placed.chain);
    let lines: usize = of_chain().map(|rule| rule.lines as usize).sum();
    if lines != placed.rules() {
        return None;
    }
    let mut before = 0;
    for listed in of_chain() {
        before += listed.lines as usize;
        if rule < before {
            return Some(listed.number);
        }
    }
    None
}

/// The policy of a built-in chain is ufw's where ufw's chains hang in it.
fn policy_owner(placed: &Placed<'_>) -> Option<RuleOwner> {
    let (hook, _) = placed.base?;
    if placed.has_chain(is_ufw_chain) {
        return Some(RuleOwner::UfwPolicy(hook));
    }
    by_table(placed)
}

/// Programs that keep a table of their own.
fn by_table(placed: &Placed<'_>) -> Option<RuleOwner> {
    if !matches!(placed.kept, Kept::Nft(..)) {
        return None;
    }
    match placed.table {
        // Firewalld 0.6 and later.
        "firewalld" => Some(RuleOwner::Firewalld(firewalld_zone(placed.chain))),
        // fail2ban's action nftables: `addr-set-sshd`.
        "f2b-table" => {
            let jail = |mark: String| {
                let rest =
                    mark.strip_prefix("addr6-set-").or_else(|| mark.strip_prefix("addr-set-"));
                rest.map(str::to_owned)
            };
            Some(RuleOwner::Fail2ban(placed.marks().into_iter().find_map(jail)))
        }
        // Docker Engine 29 with its nftables backend.
        "docker-bridges" => Some(RuleOwner::Docker),
        "netavark" => Some(RuleOwner::Podman),
        // libvirt 10.4 and later.
        "libvirt_network" => Some(RuleOwner::Libvirt),
        "kube-proxy" => Some(RuleOwner::KubeProxy(kube_chain(placed.chain))),
        // systemd-networkd and systemd-nspawn.
        "io.systemd.nat" => Some(RuleOwner::Systemd),
        name if name.starts_with("wg-quick-") => Some(RuleOwner::WgQuick),
        _ => None,
    }
}

/// Programs that keep chains of their own among those of iptables.
fn by_chain(placed: &Placed<'_>) -> Option<RuleOwner> {
    let chain = placed.chain;
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| chain.starts_with(prefix));
    if let Some(jail) = chain.strip_prefix("f2b-") {
        return Some(RuleOwner::Fail2ban(Some(jail.to_owned())));
    }
    if chain == "DOCKER" || starts(&["DOCKER-"]) {
        // DOCKER-USER holds what people put there.
        return (chain != "DOCKER-USER").then_some(RuleOwner::Docker);
    }
    if starts(&["NETAVARK", "CNI-"]) {
        return Some(RuleOwner::Podman);
    }
    if starts(&["LIBVIRT_"]) {
        return Some(RuleOwner::Libvirt);
    }
    if starts(&["KUBE-"]) {
        return Some(RuleOwner::KubeProxy(
            placed.marks().iter().find_map(|mark| kube_comment(mark)),
        ));
    }
    if starts(&["ts-"]) {
        return Some(RuleOwner::Tailscale);
    }
    // firewalld's iptables backend.
    if starts(&["IN_", "FWD_", "FWDI_", "FWDO_", "PRE_", "POST_"])
        && placed.has_chain(|name| name.ends_with("_ZONES"))
    {
        return Some(RuleOwner::Firewalld(firewalld_zone(chain)));
    }
    None
}

/// The zone of `filter_IN_public_allow`; policies and the frame have none.
fn firewalld_zone(chain: &str) -> Option<String> {
    let chain = ["filter_", "nat_", "mangle_", "raw_"]
        .iter()
        .find_map(|prefix| chain.strip_prefix(prefix))
        .unwrap_or(chain);
    let rest = ["IN_", "FWDI_", "FWDO_", "FWD_", "PRE_", "POST_"]
        .iter()
        .find_map(|prefix| chain.strip_prefix(prefix))?;
    let zone = ["_pre", "_log", "_deny", "_allow", "_post"]
        .iter()
        .find_map(|suffix| rest.strip_suffix(suffix))
        .unwrap_or(rest);
    let is_zone = !zone.is_empty() && !zone.starts_with("policy_");
    is_zone.then(|| zone.to_owned())
}

/// `service-2QRHZV4L-default/web/tcp/http`.
fn kube_chain(chain: &str) -> Option<String> {
    let rest = chain.strip_prefix("service-").or_else(|| chain.strip_prefix("external-"))?;
    kube_service(rest.split_once('-')?.1)
}

/// `default/web:http cluster IP`.
fn kube_comment(comment: &str) -> Option<String> {
    let first = comment.split([' ', ':']).next()?;
    kube_service(first)
}

/// A namespace and a name, and nothing else.
fn kube_service(text: &str) -> Option<String> {
    let mut parts = text.split('/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    (!namespace.is_empty() && !name.is_empty()).then(|| format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::nft::expr::NfVerdict;
    use canreach_snapshot::nft::{BaseChain, Chain, Handle, Rule, Ruleset};
    use canreach_snapshot::{ChainKind, UfwRule};

    use super::*;

    fn rule() -> Rule {
        Rule { handle: Handle(1), exprs: vec![Expr::Verdict(NfVerdict::Accept)], comment: None }
    }

    fn firewall(table: &str, chains: &[(&str, usize)]) -> Firewall {
        let chains = chains.iter().map(|(name, rules)| Chain {
            name: (*name).to_owned(),
            handle: Handle(1),
            base: name.chars().all(char::is_uppercase).then(|| BaseChain {
                hook: NfHook::Input,
                priority: 0,
                kind: ChainKind::Filter,
                policy: ChainPolicy::Drop,
                devices: Vec::new(),
            }),
            rules: vec![rule(); *rules],
        });
        let table = Table {
            family: NfFamily::Ip,
            name: table.to_owned(),
            handle: Handle(1),
            dormant: false,
            chains: chains.collect(),
            sets: Vec::new(),
            objects: Vec::new(),
            flowtables: Vec::new(),
        };
        let nft = Ruleset { generation: None, tables: vec![table] };
        Firewall { nft: Some(nft), ..Firewall::default() }
    }

    #[test]
    fn chains_and_tables_say_whose_they_are() {
        let zone = |name: &str| Some(RuleOwner::Firewalld(Some(name.to_owned())));
        for (table, chain, expected) in [
            ("filter", "ufw-user-input", Some(RuleOwner::UfwRule(None))),
            ("filter", "ufw6-reject-forward", Some(RuleOwner::UfwPolicy(NfHook::Forward))),
            ("filter", "ufw-before-input", Some(RuleOwner::UfwFrame)),
            ("firewalld", "filter_IN_public_allow", zone("public")),
            ("firewalld", "filter_IN_my_zone_post", zone("my_zone")),
            ("firewalld", "filter_IN_policy_allow-host-ipv6", Some(RuleOwner::Firewalld(None))),
            ("firewalld", "filter_INPUT", Some(RuleOwner::Firewalld(None))),
            ("nat", "DOCKER", Some(RuleOwner::Docker)),
            ("filter", "DOCKER-USER", None),
            ("filter", "DOCKER-ISOLATION-STAGE-2", Some(RuleOwner::Docker)),
            ("filter", "f2b-sshd", Some(RuleOwner::Fail2ban(Some("sshd".to_owned())))),
            ("filter", "LIBVIRT_INP", Some(RuleOwner::Libvirt)),
            ("filter", "NETAVARK_FORWARD", Some(RuleOwner::Podman)),
            (
                "kube-proxy",
                "service-2QRHZV4L-default/web/tcp/http",
                Some(RuleOwner::KubeProxy(Some("default/web".to_owned()))),
            ),
            ("filter", "INPUT", None),
            ("mine", "input", None),
        ] {
            let subject = NfSubject::NftRule { table: 0, chain: 0, rule: 0 };
            assert_eq!(rule_owner(&firewall(table, &[(chain, 1)]), subject), expected, "{chain}");
        }
    }

    #[test]
    fn a_policy_is_that_of_who_hangs_in_the_chain() {
        let policy = NfSubject::NftPolicy { table: 0, chain: 0 };
        let with = |chain| rule_owner(&firewall("filter", &[("INPUT", 1), (chain, 1)]), policy);
        assert_eq!(with("ufw-before-input"), Some(RuleOwner::UfwPolicy(NfHook::Input)));
        assert_eq!(with("mine"), None);
    }

    #[test]
    fn numbers_are_told_only_where_list_and_chain_agree() {
        let mut firewall = firewall("filter", &[("ufw-user-input", 3)]);
        let listed = |number, lines| UfwRule { number, chain: "ufw-user-input".to_owned(), lines };
        let number = |firewall: &Firewall, rule| {
            rule_owner(firewall, NfSubject::NftRule { table: 0, chain: 0, rule })
        };
        firewall.ufw_rules = Some(vec![listed(1, 1), listed(4, 2)]);
        assert_eq!(number(&firewall, 0), Some(RuleOwner::UfwRule(Some(1))));
        assert_eq!(number(&firewall, 2), Some(RuleOwner::UfwRule(Some(4))));
        firewall.ufw_rules = Some(vec![listed(1, 1), listed(4, 1)]);
        assert_eq!(number(&firewall, 0), Some(RuleOwner::UfwRule(None)));
    }
}
