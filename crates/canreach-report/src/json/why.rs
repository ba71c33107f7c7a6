//! `canreach.why/1`.

use canreach_engine::{Outcome, StepResult};
use schemars::JsonSchema;
use serde::Serialize;

use super::object::prefixes;
use super::process::resolved_by;
use super::subject::Subject;
use super::unknown::Unknown;
use crate::phrase;
use crate::report::why::{AlsoAnswer, Asked, NamedBlocker, NamedStep, SourceGroup, Who, WhyReport};
use crate::rule_phrase::{self, DOCKER_BYPASS};

/// Can they connect, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Why {
    /// `canreach.why/1`.
    pub schema: String,
    /// Nothing that is not known touched the answer.
    pub complete: bool,
    /// What is not known and touched the answer.
    pub unknown: Vec<Unknown>,
    /// What was asked.
    pub question: QuestionAsked,
    /// `yes`, `no`, `partly` or `unknown`.
    pub verdict: String,
    /// Which way an unknown verdict leans: `yes`, `no`, or null.
    pub probably: Option<String>,
    /// What they see; null where it differs over the sources, or is not known.
    pub they_see: Option<String>,
    /// The first step that stops them; null on yes.
    pub stop: Option<Blocker>,
    /// Every step that would stop them, in path order.
    pub blockers: Vec<Blocker>,
    /// The steps of the path.
    pub steps: Vec<Step>,
    /// The sources asked about, by what becomes of them.
    pub sources: Sources,
    /// The socket that gets it, would get it, or is the nearest miss.
    pub listener: Option<Listener>,
    /// What would help.
    pub fixes: Vec<Fix>,
    /// The same question for other interfaces and the other family.
    pub also: Vec<Also>,
    /// What cannot be checked from this computer.
    pub not_checked: Vec<String>,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct QuestionAsked {
    /// `tcp` or `udp`.
    pub proto: String,
    /// The port.
    pub port: u16,
    /// The sources: prefixes, separated by a comma and a space; or `self`.
    pub from: String,
    /// The address dialled; null where this computer has none to dial.
    pub to: Option<String>,
    /// The interface it comes in by; null where there is none.
    pub via: Option<String>,
}

/// Something that stops them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Blocker {
    /// The part of the path.
    pub stage: String,
    /// Why: a code that `canreach explain` explains.
    pub code: String,
    /// What decides; null where the absence of something does.
    pub subject: Option<Subject>,
}

/// One step of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Step {
    /// The part of the path.
    pub stage: String,
    /// `ok`, `stop` or `unknown`.
    pub result: String,
    /// Why it stops, or cannot be told; on `ok` null, or `docker-bypass` where a published port is
    /// past the host's own firewall.
    pub code: Option<String>,
    /// What decides.
    pub subject: Option<Subject>,
    /// The same for people. No script may need it.
    pub text: String,
}

/// The sources asked about: together exactly what was asked, and disjoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Sources {
    /// Those that get through, as the fewest prefixes.
    pub yes: Vec<String>,
    /// Those that do not.
    pub no: Vec<Refused>,
    /// Those for which it cannot be told.
    pub unknown: Vec<Undecided>,
}

/// Sources that are stopped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refused {
    /// The sources, as the fewest prefixes.
    pub set: Vec<String>,
    /// The source ports this holds for, where it does not hold for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<(u16, u16)>>,
    /// Why.
    pub code: String,
    /// What they see.
    pub they_see: Option<String>,
    /// What decides.
    pub subject: Option<Subject>,
}

/// Sources for which it cannot be told, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Undecided {
    /// The sources, as the fewest prefixes.
    pub set: Vec<String>,
    /// The source ports this holds for, where it does not hold for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<(u16, u16)>>,
    /// Why.
    pub reason: String,
    /// What decides.
    pub subject: Option<Subject>,
}

/// A socket and its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Listener {
    /// The address it is bound to.
    pub address: String,
    /// The port it is bound to.
    pub port: u16,
    /// The interface it is bound to.
    pub device: Option<String>,
    /// The process.
    pub pid: Option<u32>,
    /// Its name as the kernel keeps it.
    pub comm: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// How it was found: `fd`, `cgroup` or `none`.
    pub resolved_by: String,
    /// Why it is not known, or not confirmed.
    pub reason: Option<String>,
}

/// Something to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Fix {
    /// A stable name.
    pub id: String,
    /// What to type or to write, line by line; empty where there is nothing to type.
    pub command: String,
    /// How to take it back, line by line.
    pub undo: Option<String>,
    /// Needs root.
    pub needs_root: bool,
    /// Does the same as the one before it; otherwise both are needed.
    pub alternative: bool,
    /// What it does, for people.
    pub text: String,
    /// What else to know, for people.
    pub notes: Vec<String>,
}

/// The same question for another interface or the other family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Also {
    /// What was asked.
    pub question: QuestionAsked,
    /// `yes`, `no`, `partly` or `unknown`.
    pub verdict: String,
    /// The first step that stops them; null on yes.
    pub stop: Option<Blocker>,
    /// The sources asked about, by what becomes of them.
    pub sources: Sources,
}

impl Why {
    /// The wire form of a report.
    #[must_use]
    pub fn new(report: &WhyReport) -> Self {
        Self {
            schema: "canreach.why/1".to_owned(),
            complete: report.unknown.is_empty(),
            unknown: Unknown::all(&report.unknown),
            question: QuestionAsked::of(&report.asked),
            verdict: report.verdict.slug().to_owned(),
            probably: report.leaning.map(|leaning| leaning.slug().to_owned()),
            they_see: report.they_see.map(|seen| seen.slug().to_owned()),
            stop: report.stop.as_ref().map(Blocker::of),
            blockers: report.blockers.iter().map(Blocker::of).collect(),
            steps: report.steps.iter().map(|step| Step::of(step, &report.asked)).collect(),
            sources: Sources::of(&report.groups),
            listener: report.listener.as_ref().map(Listener::of),
            fixes: report.fixes.iter().map(Fix::of).collect(),
            also: report.also.iter().map(Also::of).collect(),
            not_checked: report.not_checked.iter().map(|slug| (*slug).to_owned()).collect(),
        }
    }
}

impl QuestionAsked {
    fn of(asked: &Asked) -> Self {
        let from = match asked.who {
            Who::Itself => "self".to_owned(),
            Who::Lan if asked.from.is_empty() => "lan".to_owned(),
            Who::Lan | Who::Any | Who::Address(_) | Who::Prefix(_) => asked.from.to_string(),
        };
        Self {
            proto: asked.proto.name().to_owned(),
            port: asked.port,
            from,
            to: asked.to.map(|to| to.to_string()),
            via: asked.via.clone(),
        }
    }
}

impl Blocker {
    fn of(blocker: &NamedBlocker) -> Self {
        Self {
            stage: blocker.stage.slug().to_owned(),
            code: blocker.code.slug().to_owned(),
            subject: Subject::option(blocker.subject.as_ref()),
        }
    }
}

impl Step {
    fn of(step: &NamedStep, asked: &Asked) -> Self {
        let subject = step.subject.as_ref();
        let (result, code, text) = match step.result {
            StepResult::Ok => match rule_phrase::rule_of(subject) {
                Some(rule) => {
                    let code = rule_phrase::is_published(rule).then_some(DOCKER_BYPASS);
                    ("ok", code.map(str::to_owned), rule_phrase::lets_in(rule, asked))
                }
                None => ("ok", None, phrase::passed(step.stage).to_owned()),
            },
            StepResult::Stop(reason) => {
                let text = rule_phrase::stop(reason, subject, step.stage, asked);
                ("stop", Some(reason.slug().to_owned()), text)
            }
            StepResult::Unknown(reason) => {
                let text = rule_phrase::unknown(step.stage, reason, subject);
                ("unknown", Some(reason.slug().to_owned()), text)
            }
        };
        Self {
            stage: step.stage.slug().to_owned(),
            result: result.to_owned(),
            code,
            subject: Subject::option(step.subject.as_ref()),
            text,
        }
    }
}

impl Sources {
    fn of(groups: &[SourceGroup]) -> Self {
        let mut sources = Self { yes: Vec::new(), no: Vec::new(), unknown: Vec::new() };
        let mut yes: Option<canreach_engine::AddressSet> = None;
        for group in groups {
            let subject = Subject::option(group.subject.as_ref());
            let ports = group.ports.clone();
            match &group.outcome {
                Outcome::Delivered(_) | Outcome::DeliveredIn(..) => {
                    yes = Some(match yes {
                        Some(others) => others.union(&group.sources),
                        None => group.sources.clone(),
                    });
                }
                Outcome::Stopped(reason) => sources.no.push(Refused {
                    set: prefixes(&group.sources),
                    ports,
                    code: reason.slug().to_owned(),
                    they_see: group.they_see.map(|seen| seen.slug().to_owned()),
                    subject,
                }),
                Outcome::Unknown(reason) => sources.unknown.push(Undecided {
                    set: prefixes(&group.sources),
                    ports,
                    reason: reason.slug().to_owned(),
                    subject,
                }),
            }
        }
        sources.yes = yes.as_ref().map(prefixes).unwrap_or_default();
        sources
    }
}

impl Listener {
    fn of(listener: &crate::report::why::Listener) -> Self {
        let program = &listener.program;
        Self {
            address: listener.address.to_string(),
            port: listener.port,
            device: listener.device.clone(),
            pid: program.pid,
            comm: program.comm.clone(),
            unit: program.unit.clone(),
            resolved_by: resolved_by(program).to_owned(),
            reason: program.reason.map(|reason| phrase::owner_slug(reason).to_owned()),
        }
    }
}

impl Fix {
    fn of(fix: &crate::report::why::Fix) -> Self {
        Self {
            id: fix.id.clone(),
            command: fix.command.clone(),
            undo: fix.undo.clone(),
            needs_root: fix.needs_root,
            alternative: fix.alternative,
            text: fix.text.clone(),
            notes: fix.notes.clone(),
        }
    }
}

impl Also {
    fn of(answer: &AlsoAnswer) -> Self {
        Self {
            question: QuestionAsked::of(&answer.asked),
            verdict: answer.verdict.slug().to_owned(),
            stop: answer.stop.as_ref().map(Blocker::of),
            sources: Sources::of(&answer.groups),
        }
    }
}
