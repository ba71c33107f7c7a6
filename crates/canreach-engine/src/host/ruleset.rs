//! Rules as hooks meet them: chains in order, names of chains and sets resolved once.
//!
//! Kernel counterparts: `struct nf_hook_entries`, `struct nft_table`. Left out: hooks that are no rules,
//! where the kernel does not list them.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use canreach_snapshot::nft::expr::CtKey;
use canreach_snapshot::nft::{self, Expr};
use canreach_snapshot::xt::{self, MatchKind, TargetKind};
use canreach_snapshot::{
    ChainKind, ChainPolicy, Family, HookEntry, Ifindex, Netns, NfFamily, NfHook,
};

use crate::host::hook_order::{Entry, Listed, Ordered, device_is, nft_acts, xt_acts};
use crate::host::set_index::SetIndex;
use crate::netfilter::chain::ChainId;
use crate::netfilter::hook::HookPlace;
use crate::packet::diagram::FixedMap;

/// Something registered at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hooked {
    /// A base chain that is no NAT chain.
    Chain { chain: ChainId, kind: ChainKind, policy: ChainPolicy },
    /// `nf_conntrack_in`.
    Track,
    /// `nf_confirm`.
    Confirm,
    /// The NAT engine (`nf_nat_inet_fn`): of the source, or the destination.
    Translate { source: bool },
}

/// A NAT chain, which the NAT engine asks about new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NatChain {
    pub(crate) chain: ChainId,
    pub(crate) policy: ChainPolicy,
}

/// Priorities of the kernel's own hooks (include/uapi/linux/netfilter_ipv4.h).
mod priority {
    pub(super) const CONNTRACK: i32 = -200;
    pub(super) const NAT_DST: i32 = -100;
    pub(super) const NAT_SRC: i32 = 100;
    pub(super) const CONNTRACK_CONFIRM: i32 = i32::MAX;
}

/// What was found at each hook, in no order yet.
type HookMap<T> = FixedMap<NfHook, Vec<Entry<T>>>;

/// The rules of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Rules<'a> {
    ruleset: Option<&'a nft::Ruleset>,
    xt_tables: &'a [xt::Table],
    xt_chains: Vec<FixedMap<&'a str, usize>>,
    /// Sets of ipset that rules look something up in.
    read_ipsets: BTreeSet<u16>,
    /// Some set of ipset is a list of sets.
    lists_ipsets: bool,
    tables: Vec<TableNames<'a>>,
    hooks: FixedMap<(Family, NfHook), Ordered<Hooked>>,
    nat_chains: FixedMap<(Family, NfHook), Ordered<NatChain>>,
    /// Ingress and egress of links: both families meet the same there.
    link_hooks: FixedMap<(Ifindex, NfHook), Ordered<Hooked>>,
    /// Conntrack is hooked in, for IPv4 and IPv6.
    tracks: [bool; 2],
    sets_labels: bool,
}

#[derive(Debug, Default)]
struct TableNames<'a> {
    chains: FixedMap<&'a str, usize>,
    sets: FixedMap<&'a str, usize>,
    /// Sets that rules look something up in.
    read: BTreeSet<usize>,
    /// Sorted when they are first asked.
    indices: Vec<OnceLock<SetIndex>>,
}

impl<'a> Rules<'a> {
    /// Resolves the rules of a namespace.
    pub(crate) fn new(netns: &'a Netns) -> Self {
        let ruleset = netns.firewall.nft.as_ref();
        let tables = ruleset.map_or(&[][..], |ruleset| &ruleset.tables);
        let names = tables.iter().map(|table| TableNames {
            chains: first_of(table.chains.iter().map(|chain| chain.name.as_str())),
            sets: first_of(table.sets.iter().map(|set| set.name.as_str())),
            read: BTreeSet::new(),
            indices: table.sets.iter().map(|_| OnceLock::new()).collect(),
        });
        let xt_tables = netns.firewall.xt_tables.as_slice();
        let xt_names = xt_tables
            .iter()
            .map(|table| first_of(table.chains.iter().map(|chain| chain.name.as_str())));
        let mut rules = Self {
            ruleset,
            xt_tables,
            xt_chains: xt_names.collect(),
            read_ipsets: BTreeSet::new(),
            lists_ipsets: netns
                .firewall
                .ipsets
                .iter()
                .flatten()
                .any(|set| set.type_name.starts_with("list")),
            tables: names.collect(),
            hooks: FixedMap::default(),
            nat_chains: FixedMap::default(),
            link_hooks: FixedMap::default(),
            tracks: [false; 2],
            sets_labels: false,
        };
        rules.note_uses();
        rules.note_xt_uses();
        rules.hook_all(netns);
        rules.hook_links(netns);
        rules
    }

    /// Which sets are read, and whether labels are written.
    fn note_uses(&mut self) {
        let Some(ruleset) = self.ruleset else { return };
        for (table, names) in ruleset.tables.iter().zip(&mut self.tables) {
            let rules = table.chains.iter().flat_map(|chain| &chain.rules);
            let of_rules = rules.flat_map(|rule| &rule.exprs);
            let elements = table.sets.iter().flat_map(|set| &set.elements);
            let of_elements = elements.flat_map(|element| element.extra.iter());
            let of_sets = table.sets.iter().flat_map(|set| &set.exprs);
            let of_objects = table.objects.iter().map(|object| &object.expr);
            let all = of_rules
                .chain(of_elements.flat_map(|extra| &extra.exprs))
                .chain(of_sets)
                .chain(of_objects);
            for expr in all {
                for family in Family::BOTH {
                    self.tracks[slot(family)] |=
                        sees(table.family, family) && needs_conntrack(expr, family);
                }
                {
                    if let Expr::Match(asked) = expr
                        && let MatchKind::Set(reference) = &asked.kind
                    {
                        self.read_ipsets.insert(reference.index);
                    }
                    if let Expr::Lookup { set, .. } | Expr::ObjrefMap { set, .. } = expr {
                        names.read.extend(names.sets.get(set.as_str()));
                    }
                    self.sets_labels |= matches!(expr, Expr::CtSet { key: CtKey::Labels, .. });
                }
            }
        }
    }

    fn note_xt_uses(&mut self) {
        for table in self.xt_tables {
            for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
                let needs = target_needs_conntrack(&rule.target)
                    || rule.matches.iter().any(|asked| match_needs_conntrack(&asked.kind));
                for family in Family::BOTH {
                    self.tracks[slot(family)] |= needs && sees(table.family, family);
                }
                for asked in &rule.matches {
                    if let MatchKind::Set(reference) = &asked.kind {
                        self.read_ipsets.insert(reference.index);
                    }
                }
            }
        }
    }

    fn hook_all(&mut self, netns: &Netns) {
        let list = netns.firewall.hook_list.as_deref().unwrap_or_default();
        for family in Family::BOTH {
            let of = match family {
                Family::Ipv4 => NfFamily::Ip,
                Family::Ipv6 => NfFamily::Ip6,
            };
            let mut found: HookMap<Hooked> = FixedMap::default();
            let mut nat: HookMap<NatChain> = FixedMap::default();
            self.nft_chains(family, of, list, (&mut found, &mut nat));
            self.xt_chains_of(family, of, list, (&mut found, &mut nat));
            let translates = !nat.is_empty();
            let mut fixed = |priority, hook, what: Hooked, function: &str| {
                let listed =
                    Listed { list, family: of, hook, device: None }.function(priority, function);
                let owner = usize::MAX;
                let entry = Entry { priority, owner, newest: 0, listed, acts: true, what };
                found.entry(hook).or_default().push(entry);
            };
            if self.tracks[slot(family)] {
                for hook in [NfHook::Prerouting, NfHook::Output] {
                    fixed(priority::CONNTRACK, hook, Hooked::Track, "conntrack");
                }
                for hook in [NfHook::Input, NfHook::Postrouting] {
                    fixed(priority::CONNTRACK_CONFIRM, hook, Hooked::Confirm, "confirm");
                }
            }
            if translates {
                for hook in [NfHook::Prerouting, NfHook::Output] {
                    fixed(priority::NAT_DST, hook, Hooked::Translate { source: false }, "nat");
                }
                for hook in [NfHook::Input, NfHook::Postrouting] {
                    fixed(priority::NAT_SRC, hook, Hooked::Translate { source: true }, "nat");
                }
            }
            for (hook, entries) in found {
                self.hooks.insert((family, hook), Ordered::new(&entries));
            }
            for (hook, entries) in nat {
                self.nat_chains.insert((family, hook), Ordered::new(&entries));
            }
        }
    }

    fn nft_chains(
        &self,
        family: Family,
        of: NfFamily,
        list: &[HookEntry],
        (found, nat): (&mut HookMap<Hooked>, &mut HookMap<NatChain>),
    ) {
        let hooked = self.ruleset.into_iter().flat_map(nft::Ruleset::hooked);
        for (owner, index, table, chain, base) in hooked {
            if !sees(table.family, family) || is_of_links(base.hook) {
                continue;
            }
            let (hook, kind, policy) = (base.hook, base.kind, base.policy);
            let entry = Entry {
                priority: base.priority,
                owner,
                newest: chain.handle.0,
                listed: Listed { list, family: of, hook, device: None }.chain(table, chain),
                acts: nft_acts(table),
                what: (),
            };
            let chain = ChainId::Nft(owner, index);
            if kind == ChainKind::Nat {
                nat.entry(hook).or_default().push(entry.with(NatChain { chain, policy }));
            } else {
                let hooked = Hooked::Chain { chain, kind, policy };
                found.entry(hook).or_default().push(entry.with(hooked));
            }
        }
    }

    fn xt_chains_of(
        &self,
        family: Family,
        of: NfFamily,
        list: &[HookEntry],
        (found, nat): (&mut HookMap<Hooked>, &mut HookMap<NatChain>),
    ) {
        let tables = self.xt_tables.iter().enumerate();
        for (table_index, table) in tables.filter(|(_, table)| sees(table.family, family)) {
            for (chain_index, chain) in table.chains.iter().enumerate() {
                let Some((hook, policy)) = chain.base else { continue };
                let priority = xt_priority(&table.name, hook);
                let listed = Listed { list, family: of, hook, device: None };
                let entry = Entry {
                    priority,
                    owner: usize::MAX - 1 - table_index,
                    newest: 0,
                    listed: listed.function(priority, "t_do_table"),
                    acts: xt_acts(table),
                    what: (),
                };
                let chain = ChainId::Xt(table_index, chain_index);
                if table.name == "nat" {
                    nat.entry(hook).or_default().push(entry.with(NatChain { chain, policy }));
                } else {
                    let routes = table.name == "mangle" && hook == NfHook::Output;
                    let kind = if routes { ChainKind::Route } else { ChainKind::Filter };
                    let hooked = Hooked::Chain { chain, kind, policy };
                    found.entry(hook).or_default().push(entry.with(hooked));
                }
            }
        }
    }

    /// Chains of netdev tables, and of inet tables at ingress, share the hooks of their links.
    fn hook_links(&mut self, netns: &Netns) {
        let list = netns.firewall.hook_list.as_deref().unwrap_or_default();
        for link in &netns.links {
            let mut found: HookMap<Hooked> = FixedMap::default();
            let hooked = self.ruleset.into_iter().flat_map(nft::Ruleset::hooked);
            for (owner, index, table, chain, base) in hooked {
                let named = base.devices.iter().any(|device| device_is(device, &link.name));
                if !named || !is_of_links(base.hook) {
                    continue;
                }
                let (hook, kind, policy) = (base.hook, base.kind, base.policy);
                let device = Some(link.name.as_str());
                let listed = Listed { list, family: NfFamily::Netdev, hook, device };
                let what = Hooked::Chain { chain: ChainId::Nft(owner, index), kind, policy };
                found.entry(hook).or_default().push(Entry {
                    priority: base.priority,
                    owner,
                    newest: chain.handle.0,
                    listed: listed.chain(table, chain),
                    acts: nft_acts(table),
                    what,
                });
            }
            for (hook, entries) in found {
                self.link_hooks.insert((link.ifindex, hook), Ordered::new(&entries));
            }
        }
    }

    fn at(&self, family: Family, place: HookPlace) -> Option<&Ordered<Hooked>> {
        if is_of_links(place.hook) {
            self.link_hooks.get(&(place.link?, place.hook))
        } else {
            self.hooks.get(&(family, place.hook))
        }
    }

    /// Whether there are two orders in which packets may meet what is at a hook.
    pub(crate) fn has_two_orders(&self, family: Family, place: HookPlace) -> bool {
        let nat = self.nat_chains.get(&(family, place.hook));
        self.at(family, place).is_some_and(|ordered| ordered.other.is_some())
            || nat.is_some_and(|ordered| ordered.other.is_some())
    }

    /// What packets meet at a hook, in one of the orders.
    pub(crate) fn hooked(&self, family: Family, place: HookPlace, other: bool) -> &[Hooked] {
        self.at(family, place).map_or(&[], |ordered| ordered.way(other))
    }

    /// The NAT chains of a hook, in one of the orders.
    pub(crate) fn nat_chains(&self, family: Family, hook: NfHook, other: bool) -> &[NatChain] {
        self.nat_chains.get(&(family, hook)).map_or(&[], |ordered| ordered.way(other))
    }

    /// A chain of nftables.
    pub(crate) fn nft_chain(&self, table: usize, chain: usize) -> Option<&'a nft::Chain> {
        self.ruleset?.tables.get(table)?.chains.get(chain)
    }

    /// A chain of iptables-legacy.
    pub(crate) fn xt_chain(&self, table: usize, chain: usize) -> Option<&'a xt::Chain> {
        self.xt_tables.get(table)?.chains.get(chain)
    }

    /// The chain of a legacy table with this name.
    pub(crate) fn xt_chain_named(&self, table: usize, name: &str) -> Option<usize> {
        self.xt_chains.get(table)?.get(name).copied()
    }

    /// Whether rules look something up in a set of ipset, itself or by a list that it is in.
    pub(crate) fn reads_ipset(&self, index: u16) -> bool {
        // Lists hold sets by name: any of them may.
        !self.read_ipsets.is_empty() && (self.read_ipsets.contains(&index) || self.lists_ipsets)
    }

    /// The chain of a table with this name.
    pub(crate) fn nft_chain_named(&self, table: usize, name: &str) -> Option<usize> {
        self.tables.get(table)?.chains.get(name).copied()
    }

    /// The set of a table with this name.
    pub(crate) fn nft_set_named(&self, table: usize, name: &str) -> Option<(usize, &'a nft::Set)> {
        let index = *self.tables.get(table)?.sets.get(name)?;
        Some((index, self.ruleset?.tables.get(table)?.sets.get(index)?))
    }

    /// A set, sorted.
    pub(crate) fn set_index(&self, table: usize, set: usize) -> Option<&SetIndex> {
        let index = self.tables.get(table)?.indices.get(set)?;
        let raw = self.ruleset?.tables.get(table)?.sets.get(set)?;
        Some(index.get_or_init(|| SetIndex::new(raw)))
    }

    /// Whether rules look something up in a set.
    pub(crate) fn reads_set(&self, table: usize, set: usize) -> bool {
        self.tables.get(table).is_some_and(|names| names.read.contains(&set))
    }

    /// The object of a table with this name and kind.
    pub(crate) fn nft_object(
        &self,
        table: usize,
        name: &str,
        kind: u32,
    ) -> Option<&'a nft::Object> {
        self.ruleset?.tables.get(table)?.object(name, kind)
    }

    /// Some rule writes labels of connections.
    pub(crate) const fn sets_labels(&self) -> bool {
        self.sets_labels
    }
}

/// Where a table of iptables-legacy hooks in (`xt_hook_ops_alloc`).
fn xt_priority(table: &str, hook: NfHook) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", NfHook::Prerouting | NfHook::Output) => priority::NAT_DST,
        ("nat", _) => priority::NAT_SRC,
        ("security", _) => 50,
        (_, _) => 0,
    }
}

/// Whether a hook is a link's, not a family's.
const fn is_of_links(hook: NfHook) -> bool {
    matches!(hook, NfHook::Ingress | NfHook::Egress)
}

/// Whether a match of xtables makes conntrack hook in.
const fn match_needs_conntrack(kind: &MatchKind) -> bool {
    matches!(
        kind,
        MatchKind::Conntrack(_)
            | MatchKind::State { .. }
            | MatchKind::Connmark { .. }
            | MatchKind::Connbytes { .. }
            | MatchKind::Connlabel { .. }
            | MatchKind::Connlimit { .. }
            | MatchKind::Helper { .. }
    )
}

/// Whether a target of xtables does.
fn target_needs_conntrack(target: &xt::Target) -> bool {
    match &target.kind {
        TargetKind::Connmark { .. }
        | TargetKind::Dnat(_)
        | TargetKind::Snat(_)
        | TargetKind::Masquerade(_)
        | TargetKind::Redirect(_)
        | TargetKind::Netmap(_)
        | TargetKind::Ct { notrack: false, .. }
        | TargetKind::Synproxy => true,
        TargetKind::NoVerdict => target.name == "CONNSECMARK",
        TargetKind::Ct { .. }
        | TargetKind::Standard(_)
        | TargetKind::Continue
        | TargetKind::Error
        | TargetKind::Reject { .. }
        | TargetKind::Mark { .. }
        | TargetKind::Tproxy { .. }
        | TargetKind::Nfqueue { .. }
        | TargetKind::Set { .. }
        | TargetKind::Ttl { .. }
        | TargetKind::Tos { .. }
        | TargetKind::Opaque(_) => false,
    }
}

/// Whether an expression makes conntrack hook in for a family (`nf_ct_netns_get`): also in chains that
/// nothing jumps to, and in tables that are dormant.
#[allow(clippy::wildcard_enum_match_arm, reason = "the kernel names those that do")]
fn needs_conntrack(expr: &Expr, family: Family) -> bool {
    match expr {
        // `ct zone set` and the like ask for it as well.
        Expr::Ct { .. }
        | Expr::CtSet { .. }
        | Expr::Masq { .. }
        | Expr::Redir { .. }
        | Expr::Connlimit { .. }
        | Expr::Synproxy
        | Expr::FlowOffload { .. } => true,
        Expr::Nat { family: own, .. } => sees(*own, family),
        Expr::Match(asked) => match_needs_conntrack(&asked.kind),
        Expr::Target(target) => target_needs_conntrack(target),
        Expr::Dynset { exprs, .. } => exprs.iter().any(|expr| needs_conntrack(expr, family)),
        _ => false,
    }
}

const fn slot(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

/// Whether a chain of a family sees packets of IPv4 or IPv6.
const fn sees(family: NfFamily, packets: Family) -> bool {
    match family {
        NfFamily::Inet => true,
        NfFamily::Ip => matches!(packets, Family::Ipv4),
        NfFamily::Ip6 => matches!(packets, Family::Ipv6),
        NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => false,
    }
}

fn first_of<'a>(names: impl Iterator<Item = &'a str>) -> FixedMap<&'a str, usize> {
    let mut map = FixedMap::default();
    for (index, name) in names.enumerate() {
        map.entry(name).or_insert(index);
    }
    map
}
