//! What is registered at a hook, and in which order a packet meets it.
//!
//! Mirrors `nf_hook_slow` and `nf_hook_entries_grow` (net/netfilter/core.c): smaller priorities first,
//! of equal ones the newest. In one table the handles tell which is newer, across tables the list of
//! hooks; where the kernel does not give that list, both orders are tried. Left out: BPF programs,
//! IPVS, security modules, flowtables.

use std::cmp::Reverse;

use canreach_snapshot::nft::{BaseChain, Chain, Table};
use canreach_snapshot::{
    ChainKind, ChainPolicy, HookEntry, HookOwner, Ifindex, NfFamily, NfHook, xt,
};

use super::exchange::Rejection;
use super::skb::{Place, Skb};
use crate::reference::walk::Walk;
use crate::{DropReason, TheySee, UnknownReason};

/// A packet ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) struct NfStop {
    pub(in crate::reference) reason: DropReason,
    /// What is sent back to its sender.
    pub(in crate::reference) answer: Option<Rejection>,
    /// The error that a local sender gets, where it is not EPERM.
    pub(in crate::reference) sees: Option<TheySee>,
}

impl NfStop {
    pub(super) const DROP: Self = Self { reason: DropReason::FwDrop, answer: None, sees: None };
    pub(super) const NAT: Self = Self { reason: DropReason::NatFailed, answer: None, sees: None };
}

/// Where a connection is, and what it is translated to: the fixed priorities.
const CONNTRACK: i32 = -200;
const CONFIRM: i32 = i32::MAX;
const NAT_DESTINATION: i32 = -100;
const NAT_SOURCE: i32 = 100;

/// Something registered at a hook.
#[derive(Debug, Clone, Copy)]
pub(super) enum Registered<'a> {
    Chain(&'a Table, &'a Chain, &'a BaseChain),
    Legacy(&'a xt::Table, &'a xt::Chain, ChainPolicy),
    Conntrack,
    Confirm,
    Nat,
}

/// One of them, with what its place among the others follows from.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    priority: i32,
    /// Those of one owner are ordered among themselves by `newest`.
    owner: usize,
    /// Larger for what was registered later.
    newest: u64,
    /// The position in the list of hooks.
    listed: Option<usize>,
    what: Registered<'a>,
}

impl<'a> Walk<'a> {
    /// `nf_hook_slow`: the packet past everything registered at one hook.
    pub(in crate::reference) fn nf_hook(
        &mut self,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<(), NfStop> {
        for registered in self.registered(place) {
            match registered {
                Registered::Chain(table, chain, base) => {
                    self.base_chain(table, chain, base, skb, place)?;
                }
                Registered::Legacy(table, chain, policy) => {
                    self.legacy_table(table, chain, policy, skb, place)?;
                }
                Registered::Conntrack => self.conntrack_in(skb),
                Registered::Confirm => self.conntrack_confirm(skb),
                Registered::Nat => self.nat_hook(skb, place)?,
            }
        }
        Ok(())
    }

    /// Everything at a hook, in order.
    fn registered(&self, place: &Place) -> Vec<Registered<'a>> {
        let mut entries = self.entries(place, &|kind| kind != ChainKind::Nat);
        let tracks = self.tracks(place.family);
        let translates = self.translates(place.family);
        let mut fixed = |priority, what, function: &str| {
            let listed = self.listed_function(place, priority, function);
            entries.push(Entry { priority, owner: usize::MAX, newest: 0, listed, what });
        };
        match place.hook {
            NfHook::Prerouting | NfHook::Output => {
                if tracks {
                    fixed(CONNTRACK, Registered::Conntrack, "conntrack");
                }
                if translates {
                    fixed(NAT_DESTINATION, Registered::Nat, "nat");
                }
            }
            NfHook::Input | NfHook::Postrouting => {
                if translates {
                    fixed(NAT_SOURCE, Registered::Nat, "nat");
                }
                if tracks {
                    fixed(CONFIRM, Registered::Confirm, "confirm");
                }
            }
            NfHook::Forward | NfHook::Ingress | NfHook::Egress => {}
        }
        self.in_order(entries)
    }

    /// The chains and the table that the NAT engine asks at a hook (`nf_nat_lookup_hook_priv`).
    pub(super) fn nat_lookups(&self, place: &Place) -> Vec<Registered<'a>> {
        self.in_order(self.entries(place, &|kind| kind == ChainKind::Nat))
    }

    fn entries(&self, place: &Place, wanted: &dyn Fn(ChainKind) -> bool) -> Vec<Entry<'a>> {
        let mut entries = Vec::new();
        let ruleset = self.netns.firewall.nft.iter();
        for (owner, _, table, chain, base) in ruleset.flat_map(|ruleset| ruleset.hooked()) {
            if base.hook != place.hook || !wanted(base.kind) || !self.sees(table, base, place) {
                continue;
            }
            entries.push(Entry {
                priority: base.priority,
                owner,
                newest: chain.handle.0,
                listed: self.listed_chain(place, table, chain),
                what: Registered::Chain(table, chain, base),
            });
        }
        let tables = self.netns.firewall.xt_tables.iter().enumerate();
        for (index, table) in tables.filter(|(_, table)| table.family == place.family) {
            let kind = if table.name == "nat" { ChainKind::Nat } else { ChainKind::Filter };
            let here = |chain: &&xt::Chain| chain.base.is_some_and(|(hook, _)| hook == place.hook);
            let Some(chain) = table.chains.iter().find(here).filter(|_| wanted(kind)) else {
                continue;
            };
            let Some((_, policy)) = chain.base else { continue };
            let priority = legacy_priority(&table.name, place.hook);
            entries.push(Entry {
                priority,
                owner: usize::MAX - 1 - index,
                newest: 0,
                listed: self.listed_function(place, priority, "t_do_table"),
                what: Registered::Legacy(table, chain, policy),
            });
        }
        entries
    }

    /// Whether the chain is in the array of hooks of this place.
    fn sees(&self, table: &Table, base: &BaseChain, place: &Place) -> bool {
        let on = |link: Option<Ifindex>| {
            let name = link.and_then(|link| self.link(link)).map(|link| link.name.as_str());
            name.is_some_and(|name| base.devices.iter().any(|device| device_is(device, name)))
        };
        match (place.family, base.hook) {
            (NfFamily::Netdev, NfHook::Ingress) => on(place.iif),
            (NfFamily::Netdev, NfHook::Egress) => on(place.oif),
            (NfFamily::Netdev, _) | (_, NfHook::Ingress | NfHook::Egress) => false,
            (NfFamily::Ip | NfFamily::Ip6, _) => {
                table.family == place.family || table.family == NfFamily::Inet
            }
            (NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge, _) => table.family == place.family,
        }
    }

    /// By priority, then the newest first.
    fn in_order(&self, mut entries: Vec<Entry<'a>>) -> Vec<Registered<'a>> {
        let unsure = entries.iter().enumerate().any(|(at, one)| {
            entries[..at].iter().any(|other| {
                let listed = one.listed.is_some() && other.listed.is_some();
                one.priority == other.priority && one.owner != other.owner && !listed
            })
        });
        let forward = unsure
            && self.forks.decide(UnknownReason::HookOrder, Some("order of tables".to_owned()));
        entries.sort_by_key(|entry| {
            let owner = if forward { entry.owner } else { usize::MAX - entry.owner };
            (entry.priority, entry.listed.unwrap_or(0), owner, Reverse(entry.newest))
        });
        entries.into_iter().map(|entry| entry.what).collect()
    }

    fn hook_entries(&self, place: &Place) -> impl Iterator<Item = (usize, &'a HookEntry)> {
        let place = *place;
        let list = self.netns.firewall.hook_list.iter().flatten().enumerate();
        list.filter(move |(_, entry)| entry.family == place.family && entry.hook == place.hook)
    }

    fn listed_chain(&self, place: &Place, table: &Table, chain: &Chain) -> Option<usize> {
        let is_it = |entry: &HookEntry| match &entry.owner {
            HookOwner::Chain(family, in_table, name) => {
                *family == table.family && *in_table == table.name && *name == chain.name
            }
            HookOwner::Flowtable(..) | HookOwner::Bpf(_) | HookOwner::Function => false,
        };
        self.hook_entries(place).find(|(_, entry)| is_it(entry)).map(|(at, _)| at)
    }

    fn listed_function(&self, place: &Place, priority: i32, part: &str) -> Option<usize> {
        let is_it = |entry: &HookEntry| {
            entry.owner == HookOwner::Function
                && entry.priority == priority
                && entry.function.contains(part)
        };
        self.hook_entries(place).find(|(_, entry)| is_it(entry)).map(|(at, _)| at)
    }
}

/// Whether a device of a chain means a link; a trailing `*` stands for any ending.
fn device_is(device: &str, name: &str) -> bool {
    match device.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => device == name,
    }
}

/// `NF_IP_PRI_*`.
fn legacy_priority(table: &str, hook: NfHook) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", NfHook::Prerouting | NfHook::Output) => NAT_DESTINATION,
        ("nat", _) => NAT_SOURCE,
        ("security", _) => 50,
        _filter => 0,
    }
}
