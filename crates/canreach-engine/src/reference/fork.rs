//! Forks: where something cannot be told, the walk is taken once for each way it may go.
//!
//! A walk is a function of the answers to the questions it puts to [`Forks::decide`]. [`every_way`]
//! takes it with the answer *true* to each question first, then again from the last question on with
//! *false*, until every way was taken, and merges what came out, the last question first:
//!
//! 1. Two fates with the same outcome are that outcome; what the sender sees is told if both say the
//!    same.
//! 2. Two stops are a stop, for the reason that comes first in [`DropReason::ALL`].
//! 3. Otherwise, if one of them is unknown by a doubt that lay before the question, that.
//! 4. Otherwise the question matters: unknown, for its reason.
//!
//! So an unknown is told by the first thing on the path that makes a difference.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::{DropReason, Fate, Outcome, TheySee, UnknownReason};

/// The most ways one packet is taken; more make its fate unknown.
const MAX_WAYS: u32 = 512;

/// The answers of one walk.
#[derive(Debug)]
pub(super) struct Forks {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What to answer to the first questions; then *true*.
    planned: Vec<bool>,
    /// The questions put so far, with the answers given.
    asked: Vec<(UnknownReason, bool)>,
    /// Answers that hold for every question of the same content.
    settled: BTreeMap<String, bool>,
}

impl Forks {
    fn new(planned: &[bool]) -> Self {
        Self { state: RefCell::new(State { planned: planned.to_vec(), ..State::default() }) }
    }

    /// Whether something holds that cannot be told. The same content gets the same answer for the
    /// whole walk; without a content each question is a new one.
    pub(super) fn decide(&self, reason: UnknownReason, content: Option<String>) -> bool {
        let mut state = self.state.borrow_mut();
        let settled = content.as_ref().and_then(|content| state.settled.get(content).copied());
        if let Some(answer) = settled {
            return answer;
        }
        let answer = state.planned.get(state.asked.len()).copied().unwrap_or(true);
        state.asked.push((reason, answer));
        if let Some(content) = content {
            state.settled.insert(content, answer);
        }
        answer
    }

    /// How many questions have been put.
    pub(super) fn count(&self) -> usize {
        self.state.borrow().asked.len()
    }
}

/// What one walk came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) outcome: Outcome,
    pub(super) they_see: Option<TheySee>,
    /// Of an unknown outcome: how many questions lay before what makes it so.
    pub(super) met: usize,
}

impl Leaf {
    pub(super) fn known(outcome: Outcome, they_see: Option<TheySee>) -> Self {
        Self { outcome, they_see, met: usize::MAX }
    }

    pub(super) const fn unknown(reason: UnknownReason, met: usize) -> Self {
        Self { outcome: Outcome::Unknown(reason), they_see: None, met }
    }
}

/// Takes a walk every way it may go.
pub(super) fn every_way(walk: &dyn Fn(&Forks) -> Leaf) -> Fate {
    let mut ways = 0;
    let leaf = explore(walk, &[], &mut ways);
    if ways > MAX_WAYS {
        let outcome = Outcome::Unknown(UnknownReason::LimitReached);
        return Fate { outcome, they_see: None };
    }
    Fate { outcome: leaf.outcome, they_see: leaf.they_see }
}

/// All ways that begin with these answers.
fn explore(walk: &dyn Fn(&Forks) -> Leaf, planned: &[bool], ways: &mut u32) -> Leaf {
    *ways += 1;
    if *ways > MAX_WAYS {
        return Leaf::unknown(UnknownReason::LimitReached, 0);
    }
    let forks = Forks::new(planned);
    let mut merged = walk(&forks);
    let asked = forks.state.into_inner().asked;
    for depth in (planned.len()..asked.len()).rev() {
        let mut other: Vec<bool> = asked[..depth].iter().map(|(_, answer)| *answer).collect();
        other.push(false);
        let other = explore(walk, &other, ways);
        merged = merge(merged, other, asked[depth].0, depth);
    }
    merged
}

/// What becomes of a packet whose fate hangs on one question, `depth` questions into the walk.
fn merge(yes: Leaf, no: Leaf, question: UnknownReason, depth: usize) -> Leaf {
    let they_see = yes.they_see.filter(|seen| no.they_see == Some(*seen));
    if yes.outcome == no.outcome {
        return Leaf { outcome: yes.outcome, they_see, met: yes.met.min(no.met) };
    }
    if let (Outcome::Stopped(one), Outcome::Stopped(other)) = (&yes.outcome, &no.outcome) {
        let first = DropReason::ALL.into_iter().find(|reason| reason == one || reason == other);
        return Leaf::known(Outcome::Stopped(first.unwrap_or(*one)), they_see);
    }
    let earlier = [&yes, &no].into_iter().find(|leaf| leaf.met <= depth);
    match earlier {
        Some(leaf) => Leaf { they_see: None, ..leaf.clone() },
        None => Leaf::unknown(question, depth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SocketIndex;

    use UnknownReason::{RateLimit, TimeOfDay};

    fn delivered() -> Leaf {
        Leaf::known(Outcome::Delivered(vec![SocketIndex(0)]), Some(TheySee::Connected))
    }

    fn stopped(reason: DropReason, they_see: TheySee) -> Leaf {
        Leaf::known(Outcome::Stopped(reason), Some(they_see))
    }

    fn check(walk: &dyn Fn(&Forks) -> Leaf, outcome: &Outcome, they_see: Option<TheySee>) {
        assert_eq!(every_way(walk), Fate { outcome: outcome.clone(), they_see });
    }

    #[test]
    fn only_what_makes_a_difference_counts() {
        let (drop, reject) = (DropReason::FwDrop, DropReason::FwReject);
        let limit = |forks: &Forks| forks.decide(RateLimit, None);
        let time = |forks: &Forks| forks.decide(TimeOfDay, Some("now".to_owned()));
        let connected = Some(TheySee::Connected);
        check(
            &|forks| {
                limit(forks);
                delivered()
            },
            &delivered().outcome,
            connected,
        );
        check(
            &|forks| {
                limit(forks);
                if time(forks) { delivered() } else { stopped(drop, TheySee::Timeout) }
            },
            &Outcome::Unknown(TimeOfDay),
            None,
        );
        check(
            &|forks| {
                if limit(forks) {
                    stopped(reject, TheySee::Refused)
                } else {
                    stopped(drop, TheySee::Timeout)
                }
            },
            &Outcome::Stopped(drop),
            None,
        );
        check(
            &|forks| {
                if time(forks) == time(forks) {
                    delivered()
                } else {
                    stopped(drop, TheySee::Timeout)
                }
            },
            &delivered().outcome,
            connected,
        );
        check(
            &|forks| {
                if limit(forks) == limit(forks) {
                    delivered()
                } else {
                    stopped(drop, TheySee::Timeout)
                }
            },
            &Outcome::Unknown(RateLimit),
            None,
        );
    }

    #[test]
    fn a_doubt_counts_where_it_was_met() {
        let opaque = UnknownReason::OpaqueProgram;
        let late = |forks: &Forks| {
            if forks.decide(RateLimit, None) {
                Leaf::unknown(opaque, forks.count())
            } else {
                delivered()
            }
        };
        check(&late, &Outcome::Unknown(RateLimit), None);
        let early = |forks: &Forks| {
            let met = forks.count();
            if forks.decide(RateLimit, None) {
                Leaf::unknown(opaque, met)
            } else {
                stopped(DropReason::FwDrop, TheySee::Timeout)
            }
        };
        check(&early, &Outcome::Unknown(opaque), None);
    }

    #[test]
    fn too_many_ways_are_unknown() {
        let walk = |forks: &Forks| {
            for _ in 0..40 {
                forks.decide(RateLimit, None);
            }
            delivered()
        };
        check(&walk, &Outcome::Unknown(UnknownReason::LimitReached), None);
    }
}
