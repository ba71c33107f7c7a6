//! What is registered at a hook, in the order in which packets meet it.
//!
//! Kernel counterparts: `nf_hook_entries_grow`, `nf_hook_slow` (net/netfilter/core.c): smaller
//! priorities first, of equal ones the newest. In one table the handles tell which chain is newer;
//! across tables only the kernel's list of hooks does. Without it there are two orders, one of the
//! tables as they are listed and one the other way round, where that can make a difference. Left out:
//! more than two owners in any other order.

use std::cmp::Reverse;

use canreach_snapshot::nft::expr::{MetaKey, NfVerdict};
use canreach_snapshot::nft::{self, Expr};
use canreach_snapshot::xt::{self, MatchKind, TargetKind};
use canreach_snapshot::{HookEntry, HookOwner, NfFamily, NfHook};

/// Something registered at a hook, with what its place among the others follows from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<T> {
    pub(crate) priority: i32,
    /// Those of one owner are ordered among themselves by `newest`.
    pub(crate) owner: usize,
    /// Larger for what was registered later.
    pub(crate) newest: u64,
    /// The position in the list of hooks.
    pub(crate) listed: Option<usize>,
    /// It changes something that others may read.
    pub(crate) acts: bool,
    pub(crate) what: T,
}

impl<T> Entry<T> {
    /// The same place, of something else.
    pub(crate) fn with<U>(self, what: U) -> Entry<U> {
        let Self { priority, owner, newest, listed, acts, .. } = self;
        Entry { priority, owner, newest, listed, acts, what }
    }
}

/// What is at a hook, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ordered<T> {
    /// The order; where it is not known, one of two.
    pub(crate) first: Vec<T>,
    /// The other, where it may make a difference.
    pub(crate) other: Option<Vec<T>>,
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self { first: Vec::new(), other: None }
    }
}

impl<T> Ordered<T> {
    /// One of the orders.
    pub(crate) fn way(&self, other: bool) -> &[T] {
        match &self.other {
            Some(list) if other => list,
            Some(_) | None => &self.first,
        }
    }
}

impl<T: Clone> Ordered<T> {
    pub(crate) fn new(entries: &[Entry<T>]) -> Self {
        let unsure = entries.iter().enumerate().any(|(at, one)| {
            entries[..at].iter().any(|two| {
                let listed = one.listed.is_some() && two.listed.is_some();
                one.priority == two.priority
                    && one.owner != two.owner
                    && !listed
                    && (one.acts || two.acts)
            })
        });
        let sorted = |forward: bool| {
            let mut order: Vec<&Entry<T>> = entries.iter().collect();
            order.sort_by_key(|entry| {
                let owner = if forward { entry.owner } else { usize::MAX - entry.owner };
                (entry.priority, entry.listed.unwrap_or(0), owner, Reverse(entry.newest))
            });
            order.into_iter().map(|entry| entry.what.clone()).collect()
        };
        Self { first: sorted(false), other: unsure.then(|| sorted(true)) }
    }
}

/// The list of hooks at one place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub(crate) list: &'a [HookEntry],
    pub(crate) family: NfFamily,
    pub(crate) hook: NfHook,
    pub(crate) device: Option<&'a str>,
}

impl Listed<'_> {
    fn position(&self, is_it: impl Fn(&HookEntry) -> bool) -> Option<usize> {
        self.list.iter().position(|entry| {
            entry.family == self.family
                && entry.hook == self.hook
                && (self.device.is_none() || entry.device.as_deref() == self.device)
                && is_it(entry)
        })
    }

    /// A chain of nftables.
    pub(crate) fn chain(&self, table: &nft::Table, chain: &nft::Chain) -> Option<usize> {
        self.position(|entry| match &entry.owner {
            HookOwner::Chain(family, in_table, name) => {
                *family == table.family && *in_table == table.name && *name == chain.name
            }
            HookOwner::Flowtable(..) | HookOwner::Bpf(_) | HookOwner::Function => false,
        })
    }

    /// A function of the kernel whose name has this part.
    pub(crate) fn function(&self, priority: i32, part: &str) -> Option<usize> {
        self.position(|entry| {
            entry.owner == HookOwner::Function
                && entry.priority == priority
                && entry.function.contains(part)
        })
    }
}

/// Whether a device of a chain means a link; a trailing `*` stands for any ending.
pub(crate) fn device_is(device: &str, name: &str) -> bool {
    match device.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => device == name,
    }
}

/// Whether some rule of a table does more than to let packets pass or to stop them.
pub(crate) fn nft_acts(table: &nft::Table) -> bool {
    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
    rules.flat_map(|rule| &rule.exprs).any(does_something)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what only reads is named")]
fn does_something(expr: &Expr) -> bool {
    match expr {
        Expr::Immediate { .. }
        | Expr::Cmp { .. }
        | Expr::Range { .. }
        | Expr::Bitwise { .. }
        | Expr::Byteorder { .. }
        | Expr::Payload { .. }
        | Expr::Exthdr { .. }
        | Expr::Meta { .. }
        | Expr::Ct { .. }
        | Expr::Rt { .. }
        | Expr::Socket { .. }
        | Expr::Fib { .. }
        | Expr::Lookup { .. }
        | Expr::Hash { .. }
        | Expr::Numgen { .. }
        | Expr::Osf { .. }
        | Expr::Limit { .. }
        | Expr::Quota { .. }
        | Expr::Connlimit { .. }
        | Expr::Counter { .. }
        | Expr::Last
        | Expr::Log { .. }
        | Expr::MetaSet { key: MetaKey::Nftrace, .. }
        | Expr::Reject { .. } => false,
        Expr::Verdict(verdict) => matches!(verdict, NfVerdict::Queue { .. }),
        Expr::Match(asked) => match_acts(&asked.kind),
        Expr::Target(target) => target_acts(&target.kind),
        _ => true,
    }
}

/// Whether some rule of a table of iptables-legacy does more than to let packets pass or to stop them.
pub(crate) fn xt_acts(table: &xt::Table) -> bool {
    let mut rules = table.chains.iter().flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        target_acts(&rule.target.kind) || rule.matches.iter().any(|asked| match_acts(&asked.kind))
    })
}

const fn match_acts(kind: &MatchKind) -> bool {
    // XT_SOCKET_RESTORESKMARK sets the packet's mark.
    matches!(kind, MatchKind::Socket { .. } | MatchKind::Bpf { .. } | MatchKind::Opaque(_))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what decides only is named")]
const fn target_acts(kind: &TargetKind) -> bool {
    match kind {
        TargetKind::Standard(verdict) => matches!(verdict, NfVerdict::Queue { .. }),
        TargetKind::Continue
        | TargetKind::Error
        | TargetKind::Reject { .. }
        | TargetKind::NoVerdict => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(priority: i32, owner: usize, newest: u64, what: char) -> Entry<char> {
        Entry { priority, owner, newest, listed: None, acts: false, what }
    }

    #[test]
    fn two_orders_only_where_it_counts() {
        let plain = [entry(0, 0, 1, 'a'), entry(0, 0, 2, 'b'), entry(0, 1, 1, 'c')];
        let ordered = Ordered::new(&plain);
        assert_eq!(ordered, Ordered { first: vec!['c', 'b', 'a'], other: None });
        let acting = plain.map(|entry| Entry { acts: entry.what == 'a', ..entry });
        let ordered = Ordered::new(&acting);
        assert_eq!(ordered.way(false), ['c', 'b', 'a']);
        assert_eq!(ordered.way(true), ['b', 'a', 'c']);
        let mut listed = acting;
        for (at, entry) in listed.iter_mut().enumerate() {
            entry.listed = Some([1, 0, 2][at]);
        }
        let ordered = Ordered::new(&listed);
        assert_eq!(ordered, Ordered { first: vec!['b', 'a', 'c'], other: None });
        let apart = [Entry { acts: true, ..entry(-1, 0, 1, 'a') }, entry(0, 1, 1, 'b')];
        assert_eq!(Ordered::new(&apart), Ordered { first: vec!['a', 'b'], other: None });
    }

    #[test]
    fn devices_by_name() {
        assert!(device_is("eth0", "eth0") && device_is("eth*", "eth0"));
        assert!(!device_is("eth", "eth0") && !device_is("eth0*", "eth1"));
    }
}
