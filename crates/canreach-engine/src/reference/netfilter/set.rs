//! Sets, maps, and what packets put into them.
//!
//! Mirrors `nft_lookup_eval`, `nft_dynset_eval`, `nft_objref_map_eval` and the lookups of
//! net/netfilter/nft_set_*.c. A set is taken with what it holds in the snapshot. Once this very packet,
//! or one before it in the exchange, has changed it, what it holds of that key cannot be told.

use canreach_snapshot::nft::expr::{Constant, DynsetOp};
use canreach_snapshot::nft::{Element, Expr, Set, SetFlags, Table};

use super::chain::Step;
use super::value::{Registers, Tri, Value};
use crate::reference::walk::Walk;
use crate::{DoubtEffect, UnknownReason};

/// The most elements of a map that may be the one, before it is given up.
const MAX_CANDIDATES: usize = 16;

/// A change that packets made to a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::reference) struct Change {
    table: u64,
    set: String,
    /// `None` where the key is not known.
    key: Option<Vec<u8>>,
    removed: bool,
}

impl<'a> Walk<'a> {
    /// `nft_lookup_eval` and `nft_dynset_eval`.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
    pub(super) fn set_expr(
        &mut self,
        table: &'a Table,
        expr: &'a Expr,
        registers: &mut Registers,
    ) -> Step {
        match expr {
            Expr::Lookup { set, sreg, dreg, verdict, invert } => {
                let Some(set) = table.set(set) else { return self.no_such_set() };
                let key = registers.load(sreg.0, set.key_len as usize);
                if dreg.is_none() && !verdict {
                    return self.membership(table, set, &key, *invert);
                }
                let Some(element) = self.element(table, set, &key) else { return Step::Break };
                let step = self.element_exprs(element);
                match (&element.data, dreg) {
                    (_, _) if matches!(step, Step::Break) => Step::Break,
                    (Some(Constant::Verdict(verdict)), _) => Step::Verdict(verdict.clone()),
                    (Some(Constant::Value(value)), Some(dreg)) => {
                        registers.store(dreg.0, &Value::of(value.as_slice()));
                        step
                    }
                    (Some(Constant::Value(_)) | None, _) => step,
                }
            }
            Expr::Dynset { set, op, sreg_key, invert, exprs, .. } => {
                let Some(set) = table.set(set) else { return self.no_such_set() };
                let key = registers.load(sreg_key.0, set.key_len as usize);
                self.dynset(table, set, *op, &key, *invert, exprs)
            }
            _others => Step::Break,
        }
    }

    /// Only a damaged snapshot has no such set.
    fn no_such_set(&mut self) -> Step {
        self.doubt(UnknownReason::Unread, DoubtEffect::MayStop);
        Step::Break
    }

    /// Whether a key is in a set.
    fn membership(&mut self, table: &Table, set: &'a Set, key: &Value, invert: bool) -> Step {
        let mut found = Tri::No;
        let mut hit = None;
        for (holds, element) in candidates(set, key) {
            if holds == Tri::Yes {
                hit = Some(element);
            }
            found = found.or(holds);
        }
        if let Tri::Maybe(_, Some(content)) = &mut found {
            *content = format!("{} has {content}", set.name);
        }
        let found = self.after_changes(table, set, key, found).inverted_if(invert);
        let catch_all = set.elements.iter().any(|element| element.catch_all);
        if found == Tri::No && catch_all {
            return Step::Next;
        }
        match (found, hit) {
            (Tri::Yes, Some(element)) => self.element_exprs(element),
            (found, _) => found.into(),
        }
    }

    /// The element that a map has for a key.
    fn element(&mut self, table: &Table, set: &'a Set, key: &Value) -> Option<&'a Element> {
        let catch_all = set.elements.iter().find(|element| element.catch_all);
        let candidates = candidates(set, key);
        if candidates.len() > MAX_CANDIDATES {
            self.doubt(UnknownReason::LimitReached, DoubtEffect::MayRedirect);
            return None;
        }
        for (holds, element) in candidates {
            let holds = self.after_changes(table, set, key, holds);
            if self.holds(holds) {
                return Some(element);
            }
        }
        if catch_all.is_none() && self.after_changes(table, set, key, Tri::No) != Tri::No {
            // Packets put something in; what, is not worked out.
            self.doubt(UnknownReason::EarlierPackets, DoubtEffect::MayRedirect);
        }
        catch_all
    }

    /// What an answer of a set is once packets have changed it.
    fn after_changes(&self, table: &Table, set: &Set, key: &Value, found: Tri) -> Tri {
        let key = key.bytes();
        let concerned = self.changes.iter().any(|change| {
            let same_key = change.key.is_none() || key.is_none() || change.key == key;
            change.table == table.handle.0
                && change.set == set.name
                && same_key
                && (change.removed || found != Tri::Yes)
        });
        if concerned {
            let content = format!("{} holds {key:02x?} by now", set.name);
            return Tri::Maybe(UnknownReason::EarlierPackets, Some(content));
        }
        found
    }

    /// `nft_set_elem_update_expr`: what hangs on the element that was found.
    fn element_exprs(&self, element: &Element) -> Step {
        let exprs = element.extra.iter().flat_map(|extra| &extra.exprs);
        limits(exprs)
    }

    /// `nft_dynset_eval`.
    fn dynset(
        &mut self,
        table: &Table,
        set: &'a Set,
        op: DynsetOp,
        key: &Value,
        invert: bool,
        exprs: &[Expr],
    ) -> Step {
        let found = candidates(set, key).into_iter().map(|(holds, _)| holds).fold(Tri::No, Tri::or);
        let removed = op == DynsetOp::Delete;
        let key_bytes = key.bytes();
        self.changes.push(Change {
            table: table.handle.0,
            set: set.name.clone(),
            key: key_bytes,
            removed,
        });
        if removed {
            return Step::Next;
        }
        let is_full = set.size.is_some_and(|size| set.elements.len() as u64 >= u64::from(size));
        let added = match found {
            Tri::Yes => Tri::Yes,
            Tri::No | Tri::Maybe(..) if !is_full => Tri::Yes,
            Tri::No => Tri::No,
            maybe @ Tri::Maybe(..) => maybe,
        };
        let step = match (added, invert) {
            (Tri::Yes, true) => return Step::Break,
            (Tri::No, true) => return Step::Next,
            (added, false) => Step::from(added),
            (maybe @ Tri::Maybe(..), true) => return maybe.inverted_if(true).into(),
        };
        match (step, limits(exprs.iter())) {
            // Nothing behind it may be asked before it.
            (Step::Next, Step::Maybe(reason, content)) => {
                if self.forks.decide(reason, content) {
                    Step::Next
                } else {
                    Step::Break
                }
            }
            (step, _) => step,
        }
    }

    /// The name of the object that a map has for a register.
    pub(super) fn object_in_map(
        &mut self,
        table: &'a Table,
        set: &str,
        slot: u8,
        registers: &Registers,
    ) -> Option<String> {
        let Some(set) = table.set(set) else {
            self.no_such_set();
            return None;
        };
        let key = registers.load(slot, set.key_len as usize);
        let element = self.element(table, set, &key)?;
        element.extra.as_ref()?.object.clone()
    }
}

/// Whether stateful expressions let a packet pass.
fn limits<'e>(exprs: impl IntoIterator<Item = &'e Expr>) -> Step {
    let limits = |expr: &&Expr| {
        matches!(expr, Expr::Limit { .. } | Expr::Quota { .. } | Expr::Connlimit { .. })
    };
    match exprs.into_iter().find(limits) {
        Some(_) => Step::Maybe(UnknownReason::RateLimit, None),
        None => Step::Next,
    }
}

/// The elements that are, or may be, what a key is looked up as.
fn candidates<'a>(set: &'a Set, key: &Value) -> Vec<(Tri, &'a Element)> {
    let plain = set.elements.iter().filter(|element| !element.catch_all);
    let paired =
        set.flags.has(SetFlags::INTERVAL) && plain.clone().all(|one| one.key_end.is_none());
    let mut found: Vec<(Tri, &Element)> = if paired {
        intervals(plain.collect(), key)
    } else {
        plain.map(|element| (is_key(set, element, key), element)).collect()
    };
    found.retain(|(holds, _)| *holds != Tri::No);
    if let Some(at) = found.iter().position(|(holds, _)| *holds == Tri::Yes) {
        found = vec![found.swap_remove(at)];
    }
    found
}

/// Pairs of a start and an end that is no longer inside.
fn intervals<'a>(mut elements: Vec<&'a Element>, key: &Value) -> Vec<(Tri, &'a Element)> {
    // Where one interval ends and the next begins at the same key, the end comes first.
    elements.sort_by(|one, other| {
        (one.key.as_slice(), !one.interval_end).cmp(&(other.key.as_slice(), !other.interval_end))
    });
    let mut found = Vec::new();
    for (at, element) in elements.iter().enumerate().filter(|(_, element)| !element.interval_end) {
        let from = key.is_below(element.key.as_slice()).inverted_if(true);
        let holds = match elements.get(at + 1) {
            Some(next) => from.and(key.is_below(next.key.as_slice())),
            None => from,
        };
        found.push((holds, *element));
    }
    found
}

/// Whether a key is the element's, or within its fields.
fn is_key(set: &Set, element: &Element, key: &Value) -> Tri {
    let Some(end) = &element.key_end else { return key.is(element.key.as_slice()) };
    let (from, to) = (element.key.as_slice(), end.as_slice());
    let whole = [set.key_len];
    let fields = if set.field_lens.is_empty() { &whole[..] } else { &set.field_lens[..] };
    let mut at = 0;
    let mut holds = Tri::Yes;
    for len in fields {
        let len = *len as usize;
        let part = |bytes: &[u8]| bytes.get(at..at + len).map(<[u8]>::to_vec);
        let own = Value(key.0.get(at..at + len).unwrap_or(&[]).to_vec());
        let (Some(from), Some(to)) = (part(from), part(to)) else { return Tri::No };
        holds = holds.and(own.is_within(&from, &to));
        at += len.div_ceil(4) * 4;
    }
    holds
}
