//! Tables and what they hold.

use serde::{Deserialize, Serialize};

use super::{Expr, Set};
use crate::{ChainKind, ChainPolicy, NfFamily, NfHook};

/// The kernel's number for a table, chain, rule, set or object: unique within its table, and given in
/// ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(pub u64);

/// The nftables ruleset of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// `NFTA_GEN_ID`: it changes with each change of the ruleset.
    pub generation: Option<u32>,
    /// The tables, in dump order.
    pub tables: Vec<Table>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its family.
    pub family: NfFamily,
    /// Its name.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
    /// `NFT_TABLE_F_DORMANT`: its base chains are not hooked in.
    pub dormant: bool,
    /// Its chains, in dump order.
    pub chains: Vec<Chain>,
    /// Its sets and maps, anonymous ones included.
    pub sets: Vec<Set>,
    /// Its stateful objects.
    pub objects: Vec<Object>,
    /// Its flowtables.
    pub flowtables: Vec<Flowtable>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
    /// Where it hooks in; `None` for a chain that others jump to.
    pub base: Option<BaseChain>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseChain {
    /// The hook.
    pub hook: NfHook,
    /// When, among the others there: smaller is earlier.
    pub priority: i32,
    /// What it is for.
    pub kind: ChainKind,
    /// What it does with packets that no rule decided.
    pub policy: ChainPolicy,
    /// The links of an ingress or egress chain; a trailing `*` stands for any ending.
    pub devices: Vec<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its handle.
    pub handle: Handle,
    /// What it runs, left to right.
    pub exprs: Vec<Expr>,
    /// The comment its author gave it (`NFTA_RULE_USERDATA`).
    pub comment: Option<String>,
}

/// A stateful object that rules and set elements refer to by name and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
    /// `NFT_OBJECT_*`.
    pub kind: u32,
    /// What it is as an expression: a counter, a quota, a limit... [`Expr::Opaque`] for kinds that
    /// have no expression of the same name (ct helper, ct timeout, ct expectation, secmark, tunnel).
    pub expr: Expr,
}

/// A flowtable: established connections it holds pass by the forward hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flowtable {
    /// Its name.
    pub name: String,
    /// Its handle.
    pub handle: Handle,
    /// When, at ingress.
    pub priority: i32,
    /// Its links.
    pub devices: Vec<String>,
}

impl Ruleset {
    /// Base chains that are hooked in, with the position of their table and their own in it.
    pub fn hooked(&self) -> impl Iterator<Item = (usize, usize, &Table, &Chain, &BaseChain)> {
        let awake = self.tables.iter().enumerate().filter(|(_, table)| !table.dormant);
        awake.flat_map(|(table_index, table)| {
            table.chains.iter().enumerate().filter_map(move |(chain_index, chain)| {
                Some((table_index, chain_index, table, chain, chain.base.as_ref()?))
            })
        })
    }
}

impl Table {
    /// The chain with this name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// The set or map with this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The object with this name and kind.
    #[must_use]
    pub fn object(&self, name: &str, kind: u32) -> Option<&Object> {
        self.objects.iter().find(|object| object.name == name && object.kind == kind)
    }
}
