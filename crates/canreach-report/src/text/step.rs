//! The steps of a path, each with the line that decides it.

use canreach_engine::link_role::LinkRole;
use canreach_engine::{DropReason, Stage, StepResult, UnknownReason, Verdict};
use canreach_snapshot::{OwnerReason, ResolvedBy};
use unicode_width::UnicodeWidthStr;

use crate::phrase;
use crate::report::firewall::Loaded;
use crate::report::program::Program;
use crate::report::subject::NamedSubject;
use crate::report::why::{Listener, NamedStep, StopCode, Who, WhyReport};
use crate::rule_phrase;
use crate::text::line::{DIM, GOOD, Line, Look, PLAIN, STOP, UNKNOWN, printable, shorten, wrap};

/// Where the text of a step starts: behind its number and mark.
const STEP_TEXT_AT: usize = 11;

/// One step as it is shown: several stages of the path may share it.
struct Shown {
    mark: Mark,
    text: String,
    code: Option<&'static str>,
    details: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Mark {
    Ok,
    Stop,
    Unknown,
}

/// The steps, numbered, with exactly one STOP at the most.
pub(super) fn steps(report: &WhyReport, look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, step) in shown_steps(report, look).iter().enumerate() {
        let (style, mark) = match step.mark {
            Mark::Ok => (GOOD, "ok"),
            Mark::Stop => (STOP, "STOP"),
            Mark::Unknown => (UNKNOWN, "?"),
        };
        let line = Line::plain(&format!("{:>3}  ", index + 1))
            .add(style, mark)
            .pad_to(STEP_TEXT_AT)
            .add(PLAIN, &step.text);
        match step.code {
            Some(code) => lines.extend(line.with_right(DIM, &format!("[{code}]"), look)),
            None => {
                let mut parts = wrap(&step.text, look.columns() - STEP_TEXT_AT).into_iter();
                let first = parts.next().unwrap_or_default();
                lines.push(
                    Line::plain(&format!("{:>3}  ", index + 1))
                        .add(style, mark)
                        .pad_to(STEP_TEXT_AT)
                        .add(PLAIN, &first),
                );
                lines.extend(parts.map(|part| Line::new().pad_to(STEP_TEXT_AT).add(PLAIN, &part)));
            }
        }
        for detail in &step.details {
            let detail = shorten(detail, look.columns() - STEP_TEXT_AT);
            lines.push(Line::new().pad_to(STEP_TEXT_AT).add(PLAIN, &detail));
        }
    }
    lines
}

fn shown_steps(report: &WhyReport, look: Look) -> Vec<Shown> {
    let mut shown = Vec::new();
    if report.asked.to.is_none() && report.verdict == Verdict::Unknown {
        shown.push(Shown {
            mark: Mark::Unknown,
            text: "the addresses of this computer: could not be read".to_owned(),
            code: report.unknown.first().map(|thing| thing.reason),
            details: Vec::new(),
        });
        return shown;
    }
    if report.asked.to.is_none() {
        shown.push(Shown {
            mark: Mark::Stop,
            text: "no interface is up with an address for other people".to_owned(),
            code: Some(StopCode::NoLanAddress.slug()),
            details: vec!["every interface: canreach ip --all".to_owned()],
        });
        return shown;
    }
    shown.push(part(report, look, &[Stage::Link], true).unwrap_or_else(|| arrival(report)));
    if shown[0].mark == Mark::Ok
        && let Some(step) = part(report, look, &[Stage::Route], false)
    {
        // What stops it at the route is about the address: the line before says no more.
        shown[0] = step;
    } else {
        shown.extend(part(report, look, &[Stage::Route], false));
    }
    let rules = rules_in_doubt(report, look);
    if rules.is_empty() {
        shown.extend(sent_on(report));
        match part(report, look, &FILTERS, false) {
            Some(stop) => shown.push(stop),
            None => shown.extend(let_in(report, look)),
        }
    } else {
        shown.extend(rules);
    }
    shown.extend(socket_step(report, look));
    let gate = part(report, look, &[Stage::Gate], false);
    shown.extend(gate.filter(|step| step.mark == Mark::Stop));
    shown.extend(part(report, look, &[Stage::Reply], false));
    shown
}

/// The first thing at these stages that stops it as the STOP, or cannot be told.
fn part(report: &WhyReport, look: Look, stages: &[Stage], first: bool) -> Option<Shown> {
    let of_stages = report.steps.iter().filter(|step| stages.contains(&step.stage));
    for step in of_stages {
        match step.result {
            StepResult::Stop(reason) if is_the_stop(report, step.stage, reason) => {
                let mut details = subject_details(step.subject.as_ref(), look);
                if first && reason == DropReason::LinkDown {
                    details.clear();
                }
                let subject = step.subject.as_ref();
                return Some(Shown {
                    mark: Mark::Stop,
                    text: rule_phrase::stop(reason, subject, step.stage, &report.asked),
                    code: Some(reason.slug()),
                    details,
                });
            }
            StepResult::Unknown(reason) => {
                return Some(Shown {
                    mark: Mark::Unknown,
                    text: rule_phrase::unknown(step.stage, reason, step.subject.as_ref()),
                    code: Some(reason.slug()),
                    details: subject_details(step.subject.as_ref(), look),
                });
            }
            StepResult::Stop(_) | StepResult::Ok => {}
        }
    }
    None
}

/// Where packet filters and programs may interfere.
const FILTERS: [Stage; 5] =
    [Stage::Ingress, Stage::Prerouting, Stage::Input, Stage::Forward, Stage::Output];

/// Whether a step that cannot be told is about rules or programs that may interfere, whatever part
/// of the path they sit at.
pub(super) fn is_about_rules(report: &WhyReport, step: &NamedStep) -> bool {
    matches!(step.result, StepResult::Unknown(_))
        && (FILTERS.contains(&step.stage)
            || step.stage == Stage::Gate
            || (step.stage == Stage::Socket && report.found))
}

/// One step for each reason why rules or programs cannot be judged.
fn rules_in_doubt(report: &WhyReport, look: Look) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    for step in report.steps.iter().filter(|step| is_about_rules(report, step)) {
        let StepResult::Unknown(reason) = step.result else { continue };
        if shown.iter().any(|other| other.code == Some(reason.slug())) {
            continue;
        }
        let needs_root = reason == UnknownReason::NeedsRoot;
        let mut details =
            if needs_root { Vec::new() } else { subject_details(step.subject.as_ref(), look) };
        let about_rules = needs_root || reason == UnknownReason::NotModelled;
        if let Some(hint) = report.firewall.hint.as_ref().filter(|_| about_rules) {
            let seen = if needs_root { "seen without root: " } else { "" };
            details.push(format!("{seen}{}", printable(&phrase::evidence(hint))));
        }
        if needs_root && report.firewall.docker_runs {
            details.push("Docker runs: ports it publishes pass by that".to_owned());
        }
        let stage = if needs_root { Stage::Input } else { step.stage };
        let text = rule_phrase::unknown(stage, reason, step.subject.as_ref());
        let code = Some(reason.slug());
        shown.push(Shown { mark: Mark::Unknown, text, code, details });
    }
    shown
}

fn is_the_stop(report: &WhyReport, stage: Stage, reason: DropReason) -> bool {
    report
        .stop
        .as_ref()
        .is_some_and(|stop| stop.stage == stage && stop.code == StopCode::Drop(reason))
}

/// The line of the object that decided.
pub(super) fn subject_details(subject: Option<&NamedSubject>, look: Look) -> Vec<String> {
    let subject = subject.filter(|subject| !is_socket(subject));
    subject
        .map(|subject| shorten(&printable(&subject.line()), look.columns() - STEP_TEXT_AT))
        .into_iter()
        .collect()
}

/// A socket is spoken of by its program.
pub(super) const fn is_socket(subject: &NamedSubject) -> bool {
    matches!(subject, NamedSubject::Socket { .. })
}

/// How it gets here.
fn arrival(report: &WhyReport) -> Shown {
    let asked = &report.asked;
    let to = asked.to.map(|to| to.to_string()).unwrap_or_default();
    let via = printable(asked.via.as_deref().unwrap_or_default());
    let text = match &asked.who {
        Who::Itself => format!("this computer dials {to}; that never leaves it ({via})"),
        Who::Lan if asked.own_address && asked.role == LinkRole::Containers => {
            format!("containers find this computer at {to} ({via})")
        }
        Who::Lan if asked.own_address => {
            format!("your address on this network is {to} ({via})")
        }
        Who::Address(address) => {
            let network = asked.networks.iter().find(|network| network.contains(*address));
            match network {
                Some(network) => format!("{address} is on your network ({via}, {network})"),
                None => format!("what {address} sends to {to} comes in by {via}"),
            }
        }
        Who::Lan | Who::Any | Who::Prefix(_) => {
            format!("what they send to {to} comes in by {via}")
        }
    };
    Shown { mark: Mark::Ok, text, code: None, details: Vec::new() }
}

/// A published port: a rule writes another address into packets for this one.
fn sent_on(report: &WhyReport) -> Option<Shown> {
    let sent = report.sent_on.as_ref()?;
    let asked = &report.asked;
    let to = asked.to.map(|to| std::net::SocketAddr::new(to, asked.port).to_string());
    let port = sent.port.unwrap_or(asked.port);
    let place = std::net::SocketAddr::new(sent.address, port).to_string();
    let place = match &sent.container {
        Some(name) => format!("container {} ({place})", printable(name)),
        None => place,
    };
    let host = report.firewall.program().filter(|_| sent.publisher.is_some());
    let before = host.map(|host| format!(" before {host} looks at them")).unwrap_or_default();
    Some(Shown {
        mark: Mark::Ok,
        text: format!("packets for {} are sent on to {place}{before}", to.unwrap_or_default()),
        code: sent.publisher.map(|_| rule_phrase::DOCKER_BYPASS),
        details: Vec::new(),
    })
}

/// What lets it pass. Said only where it is known.
fn let_in(report: &WhyReport, look: Look) -> Option<Shown> {
    let passed = |stage: Stage| {
        let steps = report.steps.iter().filter(move |step| step.stage == stage);
        steps
            .filter(|step| step.result == StepResult::Ok)
            .find_map(|step| rule_phrase::rule_of(step.subject.as_ref()).map(|rule| (rule, step)))
    };
    let decided = [Stage::Forward, Stage::Input, Stage::Ingress].into_iter().find_map(passed);
    let (text, details) = match decided {
        Some((rule, step)) => (
            rule_phrase::lets_in(rule, &report.asked),
            subject_details(step.subject.as_ref(), look),
        ),
        None => match report.firewall.loaded {
            Loaded::Nothing => ("no firewall rules are loaded".to_owned(), Vec::new()),
            Loaded::Rules => ("no rule of the firewall stops it".to_owned(), Vec::new()),
            Loaded::Unjudged | Loaded::NeedsRoot | Loaded::Unread => return None,
        },
    };
    Some(Shown { mark: Mark::Ok, text, code: None, details })
}

/// Which program gets it, or the nearest miss.
fn socket_step(report: &WhyReport, look: Look) -> Option<Shown> {
    let step = report.steps.iter().find(|step| step.stage == Stage::Socket)?;
    let width = look.columns() - STEP_TEXT_AT;
    let result = if is_about_rules(report, step) { StepResult::Ok } else { step.result };
    match result {
        StepResult::Ok => {
            let listener = report.listener.as_ref()?;
            let address = socket_address(listener);
            let confirmed = listener.program.resolved_by == ResolvedBy::Fd;
            let certain = report.verdict == Verdict::Yes;
            let (before, after) = match (confirmed, certain) {
                (true, true) => ("", " accepts it: it listens on "),
                (true, false) => ("", " would accept it: it listens on "),
                (false, _) if listener.program.reason == Some(OwnerReason::Kernel) => {
                    ("", " itself takes it, on ")
                }
                (false, _) => ("the kernel would hand it to ", ", on "),
            };
            let room = width.saturating_sub(before.len() + after.len() + address.width());
            let name = who_holds(&listener.program, room);
            let text = format!("{before}{name}{after}{address}");
            let mut details = Vec::new();
            if !confirmed {
                details.extend(owner_detail(&listener.program));
            } else if listener.address.is_unspecified() {
                details.push(format!("({})", every_address(listener)));
            }
            Some(Shown { mark: Mark::Ok, text, code: None, details })
        }
        StepResult::Stop(reason) => {
            let is_stop = is_the_stop(report, step.stage, reason);
            is_stop.then(|| Shown {
                mark: Mark::Stop,
                text: phrase::stop(reason, &report.asked),
                code: Some(reason.slug()),
                details: report
                    .listener
                    .as_ref()
                    .map(|listener| pointed_listens(listener, reason, width))
                    .unwrap_or_default(),
            })
        }
        StepResult::Unknown(reason) => Some(Shown {
            mark: Mark::Unknown,
            text: phrase::unknown(step.stage, reason),
            code: Some(reason.slug()),
            details: subject_details(step.subject.as_ref(), look),
        }),
    }
}

fn owner_detail(program: &Program) -> Option<String> {
    match (program.resolved_by, program.reason) {
        (ResolvedBy::None, Some(OwnerReason::Kernel)) => None,
        (ResolvedBy::Cgroup, Some(OwnerReason::SocketActivated)) | (ResolvedBy::None, Some(_)) => {
            program.reason.map(|reason| phrase::owner(reason).to_owned())
        }
        (ResolvedBy::Cgroup, _) if program.unit.is_some() => {
            Some("name found through its systemd unit, not confirmed".to_owned())
        }
        (ResolvedBy::Cgroup, _) => {
            Some("name found through its control group, not confirmed".to_owned())
        }
        (ResolvedBy::Fd | ResolvedBy::None, _) => None,
    }
}

fn every_address(listener: &Listener) -> &'static str {
    match (listener.address.is_ipv4(), listener.v6only) {
        (true, _) => "every IPv4 address of this computer",
        (false, Some(true)) => "every IPv6 address of this computer",
        (false, _) => "every address of this computer",
    }
}

fn socket_address(listener: &Listener) -> String {
    let address = std::net::SocketAddr::new(listener.address, listener.port).to_string();
    match &listener.device {
        Some(device) => format!("{address} on {}", printable(device)),
        None => address,
    }
}

/// `node (pid 4182, ~/shop)`, shortened in the directory.
pub(super) fn who_holds(program: &Program, width: usize) -> String {
    let name = match &program.name {
        Some(name) => shorten(&printable(name), 32),
        None => "a program".to_owned(),
    };
    let place = match (program.resolved_by, program.pid, &program.unit) {
        (ResolvedBy::Fd, Some(pid), _) => {
            let directory = program.shown_directory().map(|directory| printable(&directory));
            let room = width.saturating_sub(name.width() + format!(" (pid {pid}, )").len());
            /// A directory shortened further than this says nothing.
            const DIRECTORY_WIDTH_MIN: usize = 8;
            match directory {
                Some(directory) if room >= DIRECTORY_WIDTH_MIN.min(directory.width()) => {
                    Some(format!("pid {pid}, {}", shorten(&directory, room)))
                }
                _ => Some(format!("pid {pid}")),
            }
        }
        (_, _, Some(unit)) if Some(unit) != program.name.as_ref() => Some(printable(unit)),
        _ => None,
    };
    match place {
        Some(place) => format!("{name} ({place})"),
        None => name,
    }
}

/// Who listens where.
pub(super) fn listens(listener: &Listener, width: usize) -> String {
    let address = socket_address(listener);
    let room = width.saturating_sub(" listens on  ".len() + address.width());
    format!("{} listens on  {address}", who_holds(&listener.program, room))
}

/// Where it listens, with a pointer at the part that keeps others out.
fn pointed_listens(listener: &Listener, reason: DropReason, width: usize) -> Vec<String> {
    let address = match listener.address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    };
    let remark = match reason {
        DropReason::BindLoopback => "this computer only",
        // The one way that a wildcard keeps people out is by its family.
        DropReason::BindAddress if listener.address.is_unspecified() => "IPv4 only",
        DropReason::BindAddress => "this address only",
        DropReason::BindDevice => "this interface only",
        DropReason::V6Only => "IPv6 only",
        _ => return vec![listens(listener, width)],
    };
    let pointed = match (&listener.device, reason) {
        (Some(device), DropReason::BindDevice) => printable(device),
        _ => address,
    };
    // The remark under the pointer needs room too.
    let behind =
        (pointed.width() + 1 + remark.len()).saturating_sub(socket_address(listener).width());
    let line = listens(listener, width.saturating_sub(behind));
    let Some(at) = line.rfind(&pointed) else { return vec![line] };
    let indent = line[..at].width();
    let carets = "^".repeat(pointed.width());
    if indent + carets.len() + 1 + remark.len() <= width {
        vec![line, format!("{}{carets} {remark}", " ".repeat(indent))]
    } else {
        vec![line, format!("({remark})")]
    }
}
