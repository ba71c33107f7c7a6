//! Trails: what befell some packets, stage by stage, and the fate that makes.
//!
//! *Kernel:* none.
//! *Decides:* the [`Fate`] of packets from what the stages found, stop by stop and doubt by doubt.
//! *Reads:* findings only.
//! *Not modelled:* nothing; what cannot be judged has become a doubt by now.

use crate::packet::diagram::FixedMap;
use crate::packet::packet_set::PacketSet;
use crate::path::sets::Sets;
use crate::path::stage::{Beyond, Finding, Partition};
use crate::{
    Blocker, Doubt, DoubtEffect, DropReason, Fate, NetnsIndex, Outcome, SocketIndex, Stage, Step,
    StepResult, Subject, TheySee,
};

/// Number of a finding in a [`Findings`].
pub(crate) type FindingId = u32;

/// Findings, each kept once.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    numbers: FixedMap<Finding, FindingId>,
}

impl Findings {
    fn number(&mut self, finding: &Finding) -> FindingId {
        if let Some(number) = self.numbers.get(finding) {
            return *number;
        }
        let number = self.list.len() as FindingId;
        self.list.push(finding.clone());
        self.numbers.insert(finding.clone(), number);
        number
    }

    fn of<'f>(&'f self, trail: &'f Trail) -> impl Iterator<Item = &'f Finding> {
        trail.findings.iter().map(|number| &self.list[*number as usize])
    }
}

/// Packets that everything so far happened to alike.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    /// The packets.
    pub(crate) set: PacketSet,
    findings: Vec<FindingId>,
    /// Nothing comes after.
    ended: bool,
}

impl Trail {
    /// The start: all packets asked about, nothing happened.
    pub(crate) fn start(sets: &Sets) -> Vec<Self> {
        vec![Self { set: sets.universe(), findings: Vec::new(), ended: false }]
    }
}

/// The most trails of one question. Each is a group of sources that differs from all others.
pub(crate) const MAX_TRAILS: usize = 4096;

/// Walks all trails through one stage. `None` if that makes too many of them.
pub(crate) fn overlay(
    sets: &mut Sets,
    findings: &mut Findings,
    trails: Vec<Trail>,
    partition: &Partition,
) -> Option<Vec<Trail>> {
    let mut trails = trails;
    for (cell, finding) in partition {
        if cell.is_empty() {
            continue;
        }
        let number = findings.number(finding);
        let mut next = Vec::with_capacity(trails.len() + 1);
        for trail in trails {
            let known = finding.is_silent()
                && findings.of(&trail).any(|known| known.stage == finding.stage);
            let inside = sets.and(trail.set, *cell);
            if trail.ended || known || inside.is_empty() {
                next.push(trail);
                continue;
            }
            let outside = sets.difference(trail.set, *cell);
            if !outside.is_empty() {
                next.push(Trail { set: outside, ..trail.clone() });
            }
            let mut passed = trail.findings;
            passed.push(number);
            next.push(Trail { set: inside, findings: passed, ended: finding.ends });
        }
        if next.len() > MAX_TRAILS {
            return None;
        }
        trails = next;
    }
    Some(trails)
}

/// The same for a partition whose parts are disjoint, where each packet is in one part at the most.
pub(crate) fn divide(
    sets: &mut Sets,
    findings: &mut Findings,
    trails: Vec<Trail>,
    partition: &Partition,
) -> Option<Vec<Trail>> {
    let cells = partition.iter().filter(|(cell, _)| !cell.is_empty());
    let cells: Vec<_> =
        cells.map(|(cell, finding)| (*cell, findings.number(finding), finding.ends)).collect();
    let mut next = Vec::with_capacity(trails.len());
    for trail in trails {
        if trail.ended {
            next.push(trail);
            continue;
        }
        let mut rest = trail.set;
        for (cell, number, ends) in &cells {
            let inside = sets.and(rest, *cell);
            if inside.is_empty() {
                continue;
            }
            rest = sets.difference(rest, inside);
            let mut passed = trail.findings.clone();
            passed.push(*number);
            next.push(Trail { set: inside, findings: passed, ended: *ends });
            if next.len() > MAX_TRAILS {
                return None;
            }
        }
        if !rest.is_empty() {
            next.push(Trail { set: rest, ..trail });
        }
    }
    Some(next)
}

/// The part of trails that lies in a set.
pub(crate) fn restricted(sets: &mut Sets, trails: &[Trail], within: PacketSet) -> Vec<Trail> {
    let mut inside = Vec::with_capacity(trails.len());
    for trail in trails {
        let set = sets.and(trail.set, within);
        if !set.is_empty() {
            inside.push(Trail { set, ..trail.clone() });
        }
    }
    inside
}

/// What a trail comes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Result {
    pub(crate) fate: Fate,
    pub(crate) steps: Vec<Step>,
    pub(crate) blockers: Vec<Blocker>,
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) sockets: Vec<SocketIndex>,
    /// The namespace these are in, if it is another one.
    pub(crate) netns: Option<NetnsIndex>,
}

/// Reads a trail to its end. `success` is what a sender sees whom nothing stops.
pub(crate) fn conclude(findings: &Findings, trail: &Trail, success: TheySee) -> Result {
    let mut said = Said::default();
    for finding in findings.of(trail) {
        said.take(finding);
    }
    let Said { steps, blockers, doubts, sockets, netns, first_stop } = said;
    let fate = match first_stop {
        None => match doubts.first() {
            Some(first) => Fate { outcome: Outcome::Unknown(first.reason), they_see: None },
            None => {
                let sockets = sockets.clone();
                let outcome = match netns {
                    Some(netns) => Outcome::DeliveredIn(netns, sockets),
                    None => Outcome::Delivered(sockets),
                };
                Fate { outcome, they_see: Some(success) }
            }
        },
        Some((before, ..)) if doubts[..before].iter().any(redirects) => {
            Fate { outcome: Outcome::Unknown(doubts[0].reason), they_see: None }
        }
        Some((before, reason, they_see)) => {
            let they_see = they_see.filter(|_| before == 0);
            Fate { outcome: Outcome::Stopped(reason), they_see }
        }
    };
    Result { fate, steps, blockers, doubts, sockets, netns }
}

/// What the findings of a trail say, one after the other.
#[derive(Default)]
struct Said {
    steps: Vec<Step>,
    blockers: Vec<Blocker>,
    doubts: Vec<Doubt>,
    sockets: Vec<SocketIndex>,
    netns: Option<NetnsIndex>,
    /// How many doubts came before it, why, and what the sender sees.
    first_stop: Option<(usize, DropReason, Option<TheySee>)>,
}

impl Said {
    fn take(&mut self, finding: &Finding) {
        add_step(&mut self.steps, finding);
        self.doubts.extend(finding.doubts.iter().cloned());
        if let Some(stop) = &finding.stop {
            self.stop(stop.reason, stop.they_see);
            let (stage, reason, subject) = (finding.stage, stop.reason, stop.subject.clone());
            self.block(Blocker { stage, reason, subject });
        }
        if !finding.sockets.is_empty() {
            self.sockets.clone_from(&finding.sockets);
        }
        if let Some(beyond) = &finding.beyond {
            self.take_beyond(beyond);
        }
    }

    /// What befell the packet in another namespace comes behind what befell it here so far.
    fn take_beyond(&mut self, beyond: &Beyond) {
        let Beyond { netns, result } = beyond;
        let inside = |subject: &Option<Subject>| {
            subject.clone().map(|subject| {
                let is_further = matches!(subject, Subject::In(..));
                if is_further { subject } else { Subject::In(*netns, Box::new(subject)) }
            })
        };
        for step in &result.steps {
            let (subject, netns) = (inside(&step.subject), step.netns.or(Some(*netns)));
            self.steps.push(Step { subject, netns, ..step.clone() });
        }
        let doubts = result.doubts.iter();
        self.doubts
            .extend(doubts.map(|doubt| Doubt { subject: inside(&doubt.subject), ..doubt.clone() }));
        match &result.fate.outcome {
            Outcome::Stopped(reason) => self.stop(*reason, result.fate.they_see),
            Outcome::Unknown(reason) if result.doubts.is_empty() => self.doubts.push(Doubt {
                stage: Stage::Forward,
                reason: *reason,
                effect: DoubtEffect::MayRedirect,
                subject: None,
            }),
            Outcome::Unknown(_) | Outcome::Delivered(_) | Outcome::DeliveredIn(..) => {}
        }
        for blocker in &result.blockers {
            self.block(Blocker { subject: inside(&blocker.subject), ..blocker.clone() });
        }
        self.sockets.clone_from(&result.sockets);
        self.netns = result.netns.or(Some(*netns));
    }

    fn stop(&mut self, reason: DropReason, they_see: Option<TheySee>) {
        self.first_stop.get_or_insert((self.doubts.len(), reason, they_see));
    }

    fn block(&mut self, blocker: Blocker) {
        if !self.blockers.contains(&blocker) {
            self.blockers.push(blocker);
        }
    }
}

const fn redirects(doubt: &Doubt) -> bool {
    matches!(doubt.effect, DoubtEffect::MayRedirect)
}

/// One step for each stage: its first stop, else its first doubt, else what let the packet pass.
fn add_step(steps: &mut Vec<Step>, finding: &Finding) {
    let doubt = finding.doubts.first();
    let (result, subject) = match (&finding.stop, doubt) {
        (Some(stop), _) => (StepResult::Stop(stop.reason), stop.subject.clone()),
        (None, Some(doubt)) => (StepResult::Unknown(doubt.reason), doubt.subject.clone()),
        (None, None) => (StepResult::Ok, finding.subject.clone()),
    };
    let rank = |result: StepResult| match result {
        StepResult::Ok => 0,
        StepResult::Unknown(_) => 1,
        StepResult::Stop(_) => 2,
    };
    match steps.iter_mut().find(|step| step.stage == finding.stage && step.netns.is_none()) {
        None => steps.push(Step { stage: finding.stage, result, subject, netns: None }),
        Some(step) if rank(result) > rank(step.result) => {
            step.result = result;
            step.subject = subject;
        }
        Some(step) if rank(result) == rank(step.result) && step.subject.is_none() => {
            step.subject = subject;
        }
        Some(_) => {}
    }
}
