//! Rules as hooks meet them: chains in order, names of chains and sets resolved once.
//!
//! Kernel counterparts: `struct nf_hook_entries`, `struct nft_table`. Left out: hooks that are no rules,
//! where the kernel does not list them.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use canreach_snapshot::nft::expr::CtKey;
use canreach_snapshot::nft::{self, Expr};
use canreach_snapshot::{ChainKind, ChainPolicy, Family, Netns, NfFamily, NfHook};

use crate::host::set_index::SetIndex;
use crate::netfilter::hook::HookPlace;
use crate::packet::diagram::FixedMap;

/// Something registered at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hooked {
    /// A base chain of nftables that is no NAT chain.
    Nft { table: usize, chain: usize, kind: ChainKind, policy: ChainPolicy },
    /// `nf_conntrack_in`.
    Track,
    /// `nf_confirm`.
    Confirm,
    /// The NAT engine (`nf_nat_inet_fn`): of the source, or the destination.
    Translate { source: bool },
}

/// A NAT chain, which the NAT engine asks about new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NatChain {
    /// Of nftables.
    Nft { table: usize, chain: usize, policy: ChainPolicy },
}

/// Priorities of the kernel's own hooks (include/uapi/linux/netfilter_ipv4.h).
mod priority {
    pub(super) const CONNTRACK: i32 = -200;
    pub(super) const NAT_DST: i32 = -100;
    pub(super) const NAT_SRC: i32 = 100;
    pub(super) const CONNTRACK_CONFIRM: i32 = i32::MAX;
}

/// The rules of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Rules<'a> {
    ruleset: Option<&'a nft::Ruleset>,
    tables: Vec<TableNames<'a>>,
    hooks: FixedMap<(Family, NfHook), Vec<Hooked>>,
    nat_chains: FixedMap<(Family, NfHook), Vec<NatChain>>,
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
        let mut rules = Self {
            ruleset,
            tables: names.collect(),
            hooks: FixedMap::default(),
            nat_chains: FixedMap::default(),
            tracks: [false; 2],
            sets_labels: false,
        };
        rules.note_uses();
        rules.hook_all();
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
                    if let Expr::Lookup { set, .. } | Expr::ObjrefMap { set, .. } = expr {
                        names.read.extend(names.sets.get(set.as_str()));
                    }
                    self.sets_labels |= matches!(expr, Expr::CtSet { key: CtKey::Labels, .. });
                }
            }
        }
    }

    fn hook_all(&mut self) {
        for family in Family::BOTH {
            let mut found: Vec<(i32, NfHook, Hooked)> = Vec::new();
            let mut nat: Vec<(i32, NfHook, NatChain)> = Vec::new();
            let mut translates = false;
            let hooked = self.ruleset.into_iter().flat_map(nft::Ruleset::hooked);
            for (table, chain, owner, _, base) in hooked {
                if !sees(owner.family, family) {
                    continue;
                }
                let (kind, policy) = (base.kind, base.policy);
                if kind == ChainKind::Nat {
                    translates = true;
                    nat.push((base.priority, base.hook, NatChain::Nft { table, chain, policy }));
                } else {
                    let hooked = Hooked::Nft { table, chain, kind, policy };
                    found.push((base.priority, base.hook, hooked));
                }
            }
            // Among equals the most recently registered runs first.
            found.reverse();
            nat.reverse();
            if self.tracks[slot(family)] {
                for hook in [NfHook::Prerouting, NfHook::Output] {
                    found.push((priority::CONNTRACK, hook, Hooked::Track));
                }
                for hook in [NfHook::Input, NfHook::Postrouting] {
                    found.push((priority::CONNTRACK_CONFIRM, hook, Hooked::Confirm));
                }
            }
            if translates {
                for hook in [NfHook::Prerouting, NfHook::Output] {
                    let hooked = Hooked::Translate { source: false };
                    found.push((priority::NAT_DST, hook, hooked));
                }
                for hook in [NfHook::Input, NfHook::Postrouting] {
                    let hooked = Hooked::Translate { source: true };
                    found.push((priority::NAT_SRC, hook, hooked));
                }
            }
            found.sort_by_key(|(priority, ..)| *priority);
            nat.sort_by_key(|(priority, ..)| *priority);
            for (_, hook, hooked) in found {
                self.hooks.entry((family, hook)).or_default().push(hooked);
            }
            for (_, hook, chain) in nat {
                self.nat_chains.entry((family, hook)).or_default().push(chain);
            }
        }
    }

    /// What packets meet at a hook, in order.
    pub(crate) fn hooked(&self, family: Family, place: HookPlace) -> &[Hooked] {
        self.hooks.get(&(family, place.hook)).map_or(&[], Vec::as_slice)
    }

    /// The NAT chains of a hook, in order.
    pub(crate) fn nat_chains(&self, family: Family, hook: NfHook) -> &[NatChain] {
        self.nat_chains.get(&(family, hook)).map_or(&[], Vec::as_slice)
    }

    /// A chain of nftables.
    pub(crate) fn nft_chain(&self, table: usize, chain: usize) -> Option<&'a nft::Chain> {
        self.ruleset?.tables.get(table)?.chains.get(chain)
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
