//! The stages of the path, and the walk through them.

use canreach_snapshot::Family;

use crate::{AddressSet, Answer, Fate, Group, Host, Outcome, Question, UnknownReason, Verdict};

/// Answers a question about a host.
#[must_use]
pub fn answer(_host: &Host<'_>, question: &Question) -> Answer {
    let fate = Fate { outcome: Outcome::Unknown(UnknownReason::NotModelled), they_see: None };
    Answer {
        question: question.clone(),
        verdict: Verdict::Unknown,
        unsendable: AddressSet::empty(Family::of(question.to)),
        groups: vec![Group {
            sources: question.from.clone(),
            ports: None,
            fate,
            steps: Vec::new(),
            blockers: Vec::new(),
            doubts: Vec::new(),
        }],
    }
}
