//! What holds whatever the predicates of rules turn out to be that cannot be judged.
//!
//! *Kernel:* none.
//! *Decides:* which fates are certain, and which predicate makes the others unknown: the first one met
//! that changes the outcome.
//! *Reads:* results only.
//! *Not modelled:* nothing.

use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::path::sets::Sets;
use crate::path::trail::Result;
use crate::{
    Doubt, DoubtEffect, Fate, NetnsIndex, Outcome, SocketIndex, Stage, Step, StepResult, Subject,
    UnknownReason,
};

/// Outcomes that count as the same, whatever else differs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Delivered(Option<NetnsIndex>, Vec<SocketIndex>),
    Stopped,
    Unknown,
}

impl Kind {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Delivered(sockets) => Self::Delivered(None, sockets.clone()),
            Outcome::DeliveredIn(netns, sockets) => Self::Delivered(Some(*netns), sockets.clone()),
            Outcome::Stopped(_) => Self::Stopped,
            Outcome::Unknown(_) => Self::Unknown,
        }
    }
}

/// All packets with one kind of outcome.
struct Union {
    kind: Kind,
    set: PacketSet,
    /// By their places among the results.
    members: Vec<usize>,
}

/// Results that depend on no unknown predicate.
pub(crate) fn settle(
    sets: &mut Sets,
    results: Vec<(PacketSet, Result)>,
) -> Vec<(PacketSet, Result)> {
    let unknowns = unknowns_of(sets, &results);
    if unknowns.is_empty() {
        return results;
    }
    let mut unions: Vec<Union> = Vec::new();
    for (number, (set, result)) in results.iter().enumerate() {
        let kind = Kind::of(&result.fate.outcome);
        match unions.iter_mut().find(|union| union.kind == kind) {
            Some(union) => {
                union.set = sets.or(union.set, *set);
                union.members.push(number);
            }
            None => unions.push(Union { kind, set: *set, members: vec![number] }),
        }
    }
    let mut settled = Vec::new();
    let mut rest = sets.universe();
    for union in &unions {
        let certain = sets.must(union.set);
        rest = sets.difference(rest, certain);
        settle_one(sets, &results, (union, certain), &mut settled);
    }
    unsettled(sets, &results, (&unions, &unknowns), rest, &mut settled);
    settled
}

fn unknowns_of(sets: &Sets, results: &[(PacketSet, Result)]) -> Vec<u16> {
    let mut unknowns = Vec::new();
    for (set, _) in results {
        for field in sets.support(*set) {
            if let Field::Unknown(number) = field {
                unknowns.push(number);
            }
        }
    }
    unknowns.sort_unstable();
    unknowns.dedup();
    unknowns
}

/// Packets whose kind of outcome is certain. Where it is open which of several results applies, the
/// first stands for all, and what the sender sees is told if they agree.
fn settle_one(
    sets: &mut Sets,
    results: &[(PacketSet, Result)],
    (union, certain): (&Union, PacketSet),
    settled: &mut Vec<(PacketSet, Result)>,
) {
    if certain.is_empty() {
        return;
    }
    let mut open: Vec<(PacketSet, Result)> = Vec::new();
    for number in &union.members {
        let (set, result) = &results[*number];
        let set = sets.and(*set, certain);
        let mut possible = sets.may(set);
        if possible == set {
            // It depends on nothing, so no other result has any of it.
            if !set.is_empty() {
                settled.push((set, result.clone()));
            }
            continue;
        }
        let mut next = Vec::with_capacity(open.len() + 1);
        for (known, mut first) in open {
            let both = sets.and(known, possible);
            let alone = sets.difference(known, both);
            possible = sets.difference(possible, both);
            if !alone.is_empty() {
                next.push((alone, first.clone()));
            }
            if !both.is_empty() {
                if first.fate.they_see != result.fate.they_see {
                    first.fate.they_see = None;
                }
                // Of several reasons, the one told is the first in the order of the path.
                if let (Outcome::Stopped(one), Outcome::Stopped(other)) =
                    (&first.fate.outcome, &result.fate.outcome)
                    && other < one
                {
                    first = Result {
                        fate: Fate { they_see: first.fate.they_see, ..result.fate.clone() },
                        ..result.clone()
                    };
                }
                next.push((both, first));
            }
        }
        if !possible.is_empty() {
            next.push((possible, result.clone()));
        }
        open = next;
    }
    settled.append(&mut open);
}

/// Packets whose outcome hangs on an unknown predicate.
fn unsettled(
    sets: &mut Sets,
    results: &[(PacketSet, Result)],
    (unions, unknowns): (&[Union], &[u16]),
    rest: PacketSet,
    settled: &mut Vec<(PacketSet, Result)>,
) {
    let mut rest = rest;
    for (position, number) in unknowns.iter().enumerate() {
        if rest.is_empty() {
            return;
        }
        let mut matters = PacketSet::NONE;
        for union in unions {
            let field = Field::Unknown(*number);
            let (some, all) = (sets.exists(field, union.set), sets.forall(field, union.set));
            let changes = sets.difference(some, all);
            let changes = sets.may(changes);
            matters = sets.or(matters, changes);
        }
        // Whatever is left at the last one hangs on it.
        let is_last = position + 1 == unknowns.len();
        let mut region = if is_last { rest } else { sets.and(rest, matters) };
        rest = sets.difference(rest, region);
        for (set, result) in by_promise(results) {
            let possible = sets.may(*set);
            let here = sets.and(region, possible);
            if !here.is_empty() {
                region = sets.difference(region, here);
                settled.push((here, doubted(sets, result, *number)));
            }
        }
    }
}

/// Results with those first that get furthest: they say most about the path.
fn by_promise(results: &[(PacketSet, Result)]) -> impl Iterator<Item = &(PacketSet, Result)> {
    let of = |wanted: fn(&Outcome) -> bool| {
        results.iter().filter(move |(_, result)| wanted(&result.fate.outcome))
    };
    of(|outcome| matches!(outcome, Outcome::Delivered(_) | Outcome::DeliveredIn(..)))
        .chain(of(|outcome| matches!(outcome, Outcome::Unknown(_))))
        .chain(of(|outcome| matches!(outcome, Outcome::Stopped(_))))
}

/// A result that hangs on a predicate.
fn doubted(sets: &Sets, result: &Result, number: u16) -> Result {
    let mut result = result.clone();
    let cause = sets.unknowns.cause(number);
    let (reason, rule) = match cause {
        Some(cause) => (cause.reason, cause.subject),
        None => (UnknownReason::LimitReached, None),
    };
    let met_at = sets.met_at.get(usize::from(number)).copied();
    let (stage, netns) = met_at.unwrap_or((Stage::Input, sets.here));
    let elsewhere = Some(netns).filter(|netns| *netns != sets.here);
    let subject = rule.map(Subject::Netfilter).map(|subject| match elsewhere {
        Some(netns) => Subject::In(netns, Box::new(subject)),
        None => subject,
    });
    let doubt = Doubt { stage, reason, effect: DoubtEffect::MayStop, subject: subject.clone() };
    result.doubts.insert(0, doubt);
    result.fate = Fate { outcome: Outcome::Unknown(reason), they_see: None };
    let step = Step { stage, result: StepResult::Unknown(reason), subject, netns: elsewhere };
    let is_it = |known: &&mut Step| known.stage == stage && known.netns == elsewhere;
    match result.steps.iter_mut().find(is_it) {
        Some(known) if matches!(known.result, StepResult::Ok) => *known = step,
        Some(_) => {}
        None => {
            let before = |known: &Step| known.stage < stage || known.netns != elsewhere;
            let place = result.steps.iter().position(|known| !before(known));
            let place = place.unwrap_or(result.steps.len());
            result.steps.insert(place, step);
        }
    }
    result
}
