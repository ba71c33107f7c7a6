//! Lookups in sets and maps, for all keys at once; and sets that packets fill.
//!
//! *Kernel:* `nft_lookup_eval`, `nft_dynset_eval`, `nft_set_elem_update_expr`. What packets add counts as
//! not known once this packet or one before it may have added it; before that, a set holds what it held
//! when it was read.

use canreach_snapshot::nft::expr::{Constant, DynsetOp, NfVerdict, Register};
use canreach_snapshot::nft::{Element, Expr, Set};

use crate::UnknownReason;
use crate::host::set_index::{Ranges, SetIndex, Shape};
use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{At, Sink};
use crate::netfilter::register::Byte;
use crate::netfilter::sweep::{Piece, partition};
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;

/// The most elements that are compared one by one, where a key is no plain address or port.
const MAX_COMPARED: usize = 1 << 12;
/// The most different things that one lookup may give.
const MAX_OUTCOMES: usize = 1 << 10;

/// A partition of all packets by the element that is found for them; `None` for no element.
pub(crate) type Hits = Vec<(PacketSet, Option<u32>)>;

/// A part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// Known bytes.
    Known,
    /// The whole of a field.
    Whole(Field),
    /// Anything else.
    Other,
}

impl<'a> Evaluation<'_, '_, 'a> {
    /// `nft_lookup_eval`.
    pub(crate) fn lookup(
        &mut self,
        at: At,
        name: &str,
        (from, to, verdict, invert): (Register, Option<Register>, bool, bool),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let Some((index, set)) = self.host.ruleset().nft_set_named(at.0, name) else {
            return sink.decide(state, Decision::Lost(UnknownReason::Unread));
        };
        let key = state.registers.bytes(from, set.key_len as usize).to_vec();
        let filled = state.view.filled_sets.contains(&(Some(at.0), index));
        if filled {
            let is_map = to.is_some() || verdict;
            if is_map {
                return sink.decide(state, Decision::Lost(UnknownReason::EarlierPackets));
            }
            let chance = self.chance(UnknownReason::EarlierPackets, at.1);
            return self.test(state, chance, sink);
        }
        for (hits, element) in self.find(at, (index, set), &key) {
            let here = self.sets.and(state.set, hits);
            if here.is_empty() {
                continue;
            }
            let state = State { set: here, ..state.clone() };
            match element.and_then(|element| set.elements.get(element as usize)) {
                None if invert => sink.go_on(state),
                None => sink.leave(state),
                Some(_) if invert => sink.leave(state),
                Some(element) => self.found(at, element, (to, verdict), state, sink),
            }
        }
    }

    /// An element was found: its value goes into the register, and what it carries runs.
    fn found(
        &mut self,
        at: At,
        element: &'a Element,
        (to, verdict): (Option<Register>, bool),
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        if let (Some(Constant::Value(bytes)), Some(register)) = (&element.data, to) {
            state.registers.write_known(register, bytes.as_slice());
        }
        let mut open = vec![state];
        for expr in element.extra.iter().flat_map(|extra| &extra.exprs) {
            let mut next = Vec::new();
            for state in open {
                self.step(at, expr, state, &mut next, sink.result);
            }
            open = next;
        }
        for state in open {
            match &element.data {
                Some(Constant::Verdict(said)) if verdict => match said {
                    NfVerdict::Continue => sink.go_on(state),
                    NfVerdict::Break => sink.leave(state),
                    said => sink.decide(state, Decision::Verdict(said.clone())),
                },
                Some(Constant::Value(_) | Constant::Verdict(_)) | None => sink.go_on(state),
            }
        }
    }

    /// Which element is found, for all packets at once: those that give the same are one.
    pub(crate) fn find(&mut self, at: At, (index, set): (usize, &Set), key: &[Byte]) -> Hits {
        let found = self.host.ruleset().set_index(at.0, index);
        let Some(found) = found else { return vec![(PacketSet::ALL, None)] };
        let known: Option<Vec<u8>> = key.iter().map(|byte| byte.known()).collect();
        let (mut hits, opaque) = match known {
            Some(_) if matches!(found.shape, Shape::Opaque) => (Hits::new(), true),
            Some(key) => {
                let element = found.find(&key);
                (
                    element.map(|element| (PacketSet::ALL, Some(element))).into_iter().collect(),
                    false,
                )
            }
            None => match self.symbolic(at, set, found, key) {
                Some(hits) => (hits, false),
                None => (Hits::new(), true),
            },
        };
        if opaque {
            let cause = Cause { reason: UnknownReason::LimitReached, subject: Some(at.1) };
            let what = format!("set {} {index} {key:?}", at.0);
            let variable = self.unknowns.same(Sameness::Machine(what), cause, 0, 1);
            if set.data_type.is_some() || set.object_type.is_some() {
                // Which of its values is not known.
                self.unknowns.breach();
            }
            hits.push((Unknowns::happens(self.sets, variable), Some(0)));
        }
        let all = hits.iter().map(|(hit, _)| *hit).collect();
        let all = self.sets.union(all);
        hits.push((self.sets.not(all), found.catch_all));
        hits
    }

    fn symbolic(&mut self, at: At, set: &Set, index: &SetIndex, key: &[Byte]) -> Option<Hits> {
        match &index.shape {
            Shape::Points(points) => self
                .pieces(index, key, &[key.len()], points.len(), || {
                    points
                        .iter()
                        .map(|(value, element)| (Ranges::from([(*value, *value)]), *element))
                })
                .or_else(|| self.compared(at, set, index, key, points.iter().map(|(_, e)| *e))),
            Shape::LongPoints(points) => {
                self.compared(at, set, index, key, points.iter().map(|(_, element)| *element))
            }
            Shape::Intervals(intervals) => self
                .pieces(index, key, &[key.len()], intervals.len(), || {
                    intervals
                        .iter()
                        .map(|(low, high, element)| (Ranges::from([(*low, *high)]), *element))
                })
                .or_else(|| self.compared_intervals(at, index, key, intervals)),
            Shape::Boxes { fields, boxes } => {
                let lengths: Vec<_> = fields.iter().map(|length| *length as usize).collect();
                self.pieces(index, key, &lengths, boxes.len(), || boxes.iter().cloned())
                    .or_else(|| self.compared_boxes(at, index, key, (&lengths, boxes)))
            }
            Shape::Opaque => None,
        }
    }

    /// The fast way: every field of the key is known, or the whole of a field of the packet.
    fn pieces<I: Iterator<Item = (Ranges, u32)>>(
        &mut self,
        index: &SetIndex,
        key: &[Byte],
        lengths: &[usize],
        count: usize,
        elements: impl Fn() -> I,
    ) -> Option<Hits> {
        let mut segments: Vec<(usize, usize, Segment)> = Vec::new();
        let mut field_of: Vec<usize> = Vec::new();
        let mut start = 0;
        for (number, length) in lengths.iter().enumerate() {
            let bytes = key.get(start..start + length)?;
            for (from, to, segment) in segments_of(bytes, self.sets.family()) {
                segments.push((from, to, segment));
                field_of.push(number);
            }
            start += length.next_multiple_of(4);
        }
        if segments.iter().any(|(_, _, segment)| *segment == Segment::Other) {
            return None;
        }
        let known: Vec<u8> = key.iter().map(|byte| byte.known().unwrap_or(0)).collect();
        let mut pieces: Vec<Piece> = Vec::with_capacity(count);
        for (ranges, element) in elements() {
            let mut piece = Piece { outcome: index.outcome(element), ..Piece::default() };
            let mut holds = true;
            let mut base = 0;
            let mut last_field = 0;
            for ((from, to, segment), field) in segments.iter().zip(&field_of) {
                while last_field < *field {
                    base += lengths[last_field].next_multiple_of(4);
                    last_field += 1;
                }
                let (low, high) = ranges[*field];
                let length = lengths[*field];
                // A part of a field that is a range would not be a range of its parts.
                let whole = *from == 0 && *to == length;
                if !whole && low != high {
                    return None;
                }
                let cut = |value: u128| {
                    let below = 8 * (length - to) as u32;
                    let bits = 8 * (to - from) as u32;
                    let mask = if bits >= 128 { u128::MAX } else { (1 << bits) - 1 };
                    value.checked_shr(below).unwrap_or(0) & mask
                };
                let range = (cut(low), cut(high));
                match segment {
                    Segment::Known => {
                        let own = crate::host::set_index::number(
                            known.get(base + from..base + to).unwrap_or(&[]),
                        );
                        holds &= (range.0..=range.1).contains(&own);
                    }
                    Segment::Whole(Field::Source) => piece.narrow_source(range, &mut holds),
                    Segment::Whole(_) => piece.narrow_port(range, &mut holds),
                    Segment::Other => return None,
                }
            }
            if holds {
                pieces.push(piece);
            }
        }
        let hits = partition(self.sets, &pieces, MAX_OUTCOMES)?;
        Some(hits.into_iter().map(|(set, outcome)| (set, Some(outcome))).collect())
    }

    /// The slow way: each key is compared with that of the packet.
    fn compared(
        &mut self,
        at: At,
        set: &Set,
        index: &SetIndex,
        key: &[Byte],
        elements: impl ExactSizeIterator<Item = u32>,
    ) -> Option<Hits> {
        let mut hits = Gathered::new(elements.len())?;
        for element in elements {
            let value = set.elements.get(element as usize)?.key.as_slice();
            let equal =
                self.tester(at.1).compare(key, canreach_snapshot::nft::expr::CmpOp::Eq, value);
            hits.add(self, equal, index.outcome(element));
        }
        Some(hits.hits)
    }

    fn compared_intervals(
        &mut self,
        at: At,
        index: &SetIndex,
        key: &[Byte],
        intervals: &[(u128, u128, u32)],
    ) -> Option<Hits> {
        let mut hits = Gathered::new(intervals.len())?;
        for (low, high, element) in intervals {
            let inside = self.inside(at, key, (*low, *high));
            hits.add(self, inside, index.outcome(*element));
        }
        Some(hits.hits)
    }

    fn compared_boxes(
        &mut self,
        at: At,
        index: &SetIndex,
        key: &[Byte],
        (lengths, boxes): (&[usize], &[(Ranges, u32)]),
    ) -> Option<Hits> {
        let mut hits = Gathered::new(boxes.len())?;
        for (ranges, element) in boxes {
            let mut inside = PacketSet::ALL;
            let mut start = 0;
            for (range, length) in ranges.iter().zip(lengths) {
                let part = self.inside(at, key.get(start..start + length)?, *range);
                inside = self.sets.and(inside, part);
                start += length.next_multiple_of(4);
            }
            hits.add(self, inside, index.outcome(*element));
        }
        Some(hits.hits)
    }

    fn inside(&mut self, at: At, key: &[Byte], (low, high): (u128, u128)) -> PacketSet {
        let bytes = |value: u128| -> Vec<u8> {
            value.to_be_bytes()[16_usize.saturating_sub(key.len())..].to_vec()
        };
        self.tester(at.1).between(key, &bytes(low), &bytes(high))
    }

    /// `nft_dynset_eval`.
    pub(crate) fn dynset(&mut self, at: At, expr: &'a Expr, mut state: State, sink: &mut Sink<'_>) {
        let Expr::Dynset { set: name, op, invert, exprs, .. } = expr else {
            return sink.go_on(state);
        };
        let Some((index, set)) = self.host.ruleset().nft_set_named(at.0, name) else {
            return sink.decide(state, Decision::Lost(UnknownReason::Unread));
        };
        let place = (Some(at.0), index);
        if self.host.ruleset().reads_set(at.0, index) && !state.view.filled_sets.contains(&place) {
            state.change(|view| {
                view.filled_sets.push(place);
                view.filled_sets.sort_unstable();
            });
        }
        if *op == DynsetOp::Delete {
            return sink.go_on(state);
        }
        let limits = |expr: &Expr| {
            matches!(expr, Expr::Limit { .. } | Expr::Quota { .. } | Expr::Connlimit { .. })
        };
        let mut holds = PacketSet::ALL;
        if set.size.is_some_and(|size| size > 0 && set.elements.len() as u64 >= u64::from(size)) {
            // A full set takes only what it has already.
            holds = self.chance(UnknownReason::EarlierPackets, at.1);
        }
        if *invert {
            holds = self.sets.not(holds);
        }
        if exprs.iter().chain(&set.exprs).any(limits) {
            let chance = self.chance(UnknownReason::RateLimit, at.1);
            holds = self.sets.and(holds, chance);
        }
        self.test(state, holds, sink);
    }

    /// `nft_objref_map_eval`.
    pub(crate) fn objref_map(
        &mut self,
        at: At,
        name: &str,
        register: Register,
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let Some((index, set)) = self.host.ruleset().nft_set_named(at.0, name) else {
            return sink.decide(state, Decision::Lost(UnknownReason::Unread));
        };
        let key = state.registers.bytes(register, set.key_len as usize).to_vec();
        let kind = set.object_type.unwrap_or(0);
        for (hits, element) in self.find(at, (index, set), &key) {
            let here = self.sets.and(state.set, hits);
            if here.is_empty() {
                continue;
            }
            let state = State { set: here, ..state.clone() };
            let element = element.and_then(|element| set.elements.get(element as usize));
            let object = element.and_then(|element| element.extra.as_ref()?.object.as_ref());
            match object {
                Some(object) => self.objref(at, kind, object, state, sink),
                None => sink.leave(state),
            }
        }
    }
}

/// Hits that are gathered one by one; the first one counts.
struct Gathered {
    hits: Hits,
    taken: PacketSet,
}

impl Gathered {
    const fn new(count: usize) -> Option<Self> {
        if count > MAX_COMPARED {
            return None;
        }
        Some(Self { hits: Vec::new(), taken: PacketSet::NONE })
    }

    fn add(&mut self, evaluation: &mut Evaluation<'_, '_, '_>, set: PacketSet, outcome: u32) {
        let set = evaluation.sets.difference(set, self.taken);
        if set.is_empty() {
            return;
        }
        self.taken = evaluation.sets.or(self.taken, set);
        match self.hits.iter_mut().find(|(_, known)| *known == Some(outcome)) {
            Some((sum, _)) => *sum = evaluation.sets.or(*sum, set),
            None => self.hits.push((set, Some(outcome))),
        }
    }
}

/// Takes a field of a key apart: known bytes, whole fields of the packet, others.
fn segments_of(bytes: &[Byte], family: canreach_snapshot::Family) -> Vec<(usize, usize, Segment)> {
    let mut segments: Vec<(usize, usize, Segment)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (length, segment) = match bytes[at] {
            Byte::Is(_) => (1, Segment::Known),
            Byte::Of { field: field @ (Field::Source | Field::SourcePort), .. } => {
                let last = field.last(family);
                let width = (128 - last.leading_zeros() as usize).div_ceil(8);
                let whole = (0..width).all(|index| {
                    let shift = 8 * (width - 1 - index) as i8;
                    bytes.get(at + index) == Some(&Byte::Of { field, shift, mask: 0xff, flip: 0 })
                });
                if whole { (width, Segment::Whole(field)) } else { (1, Segment::Other) }
            }
            Byte::Of { .. } | Byte::Unknown => (1, Segment::Other),
        };
        match segments.last_mut() {
            Some((_, to, Segment::Known)) if segment == Segment::Known => *to += length,
            _ => segments.push((at, at + length, segment)),
        }
        at += length;
    }
    segments
}
