//! `why` as text: the verdict, the steps, what they see, the fix, what is not checked.

use canreach_engine::{DropReason, Outcome, Stage, UnknownReason, Verdict};
use canreach_snapshot::Family;

use crate::phrase;
use crate::report::subject::NamedSubject;
use crate::report::why::{AlsoAnswer, Leaning, StopCode, Who, WhyReport};
use crate::rule_phrase;
use crate::text::fix::fixes;
use crate::text::line::{DIM, Line, Look, PLAIN, STRONG, print, printable, wrap};
use crate::text::source::{GROUPS_SHOWN_MAX, groups, source_words};
use crate::text::step::{listens, steps, subject_details, who_holds};
use crate::text::verdict::verdict;

/// The answer for a terminal. `command` is what was typed, for the advice to run it as root.
#[must_use]
pub fn why(report: &WhyReport, command: &str, look: Look) -> String {
    let mut lines = Vec::new();
    if report.stop_reason() == Some(DropReason::NotListening) && report.verdict == Verdict::No {
        lines.extend(not_listening(report, look));
    } else {
        lines.extend(verdict(report, look));
        lines.push(Line::new());
        if report.verdict == Verdict::Partly || several_stops(report) {
            lines.extend(groups(report, look));
        } else {
            lines.extend(steps(report, look));
            lines.extend(also_in_the_way(report, look));
        }
        lines.extend(what_they_see(report));
    }
    lines.extend(what_to_do(report, command, look));
    lines.extend(also(report, look));
    lines.extend(not_checked(report, look));
    print(&lines, look)
}

fn you(report: &WhyReport) -> bool {
    report.asked.who == Who::Itself
}

/// Sources are stopped for different reasons: one path would not show them.
fn several_stops(report: &WhyReport) -> bool {
    let mut outcomes: Vec<&Outcome> =
        report.groups.iter().filter(|group| group.counts).map(|group| &group.outcome).collect();
    outcomes.dedup();
    outcomes.len() > 1
}

/// Later stops, so that the first fix brings no second surprise.
fn also_in_the_way(report: &WhyReport, look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    // Where the address itself is the wrong one, what else stops it is of no use.
    let others = if report.instead.is_some() { &[][..] } else { &report.blockers[..] };
    for blocker in others.iter().skip(1) {
        let StopCode::Drop(reason) = blocker.code else { continue };
        let subject = blocker.subject.as_ref();
        let stop = rule_phrase::stop(reason, subject, blocker.stage, &report.asked);
        let text = format!("Also in the way: {stop}");
        if lines.is_empty() {
            lines.push(Line::new());
        }
        lines.extend(Line::plain(&text).with_right(DIM, &format!("[{}]", reason.slug()), look));
        if matches!(blocker.stage, Stage::Socket)
            && let Some(listener) = &report.listener
        {
            lines.push(Line::plain(&format!("    {}", listens(listener, look.columns() - 4))));
        } else {
            let details = subject_details(blocker.subject.as_ref(), look);
            lines.extend(details.iter().map(|text| Line::plain(&format!("    {text}"))));
        }
    }
    lines
}

fn what_they_see(report: &WhyReport) -> Vec<Line> {
    if report.verdict == Verdict::Yes || report.asked.to.is_none() {
        return Vec::new();
    }
    let subject = match (you(report), &report.asked.who) {
        (true, _) => "You see".to_owned(),
        (false, _) => "They see".to_owned(),
    };
    if let Some(seen) = report.they_see {
        return vec![Line::new(), Line::plain(&format!("{subject}: {}", phrase::they_see(seen)))];
    }
    let mut lines = Vec::new();
    for group in report.groups.iter().filter(|group| group.counts) {
        if let (Some(seen), Outcome::Stopped(_)) = (group.they_see, &group.outcome) {
            let who = source_words(group);
            lines.push(Line::plain(&format!("{who}: they see {}", phrase::they_see(seen))));
        }
    }
    lines.truncate(GROUPS_SHOWN_MAX);
    if !lines.is_empty() {
        lines.insert(0, Line::new());
    }
    lines
}

fn not_listening(report: &WhyReport, look: Look) -> Vec<Line> {
    let port = phrase::port(report.asked.proto, report.asked.port);
    let sentence = match &report.connection {
        Some(program) => {
            let who = who_holds(program, look.columns() / 2);
            format!("Nothing is listening on {port}; {who} uses it for a connection of its own.")
        }
        None => format!("Nothing is listening on {port}."),
    };
    let code = format!("[{}]", DropReason::NotListening.slug());
    let whole = wrap(&format!("No. {sentence}"), look.columns());
    let mut lines: Vec<Line> = whole.iter().map(|text| Line::new().add(STRONG, text)).collect();
    if let Some(last) = lines.pop() {
        lines.extend(last.with_right(DIM, &code, look));
    }
    lines.push(Line::new());
    // Who asks about the near end of a connection did not mistake a server's number.
    let recent = report.recent.as_ref().filter(|_| report.connection.is_none());
    if let Some(recent) = recent {
        let age = recent.program.age_ms.map(age).unwrap_or_default();
        let rest = format!(" started {age} ago and listens on {}. Did you mean", recent.port);
        let who = who_holds(&recent.program, look.columns().saturating_sub(rest.len() + 2));
        lines.push(Line::plain(&format!("  {who}{rest}")));
        let argument = phrase::port_argument(recent.proto, recent.port);
        lines.push(Line::plain("      ").add(STRONG, &format!("canreach why {argument}")));
    }
    lines.extend(what_they_see(report).into_iter().skip(1));
    lines.extend(also_in_the_way(report, look));
    lines
}

/// `9 s`, `4 min`.
fn age(age_ms: u64) -> String {
    let seconds = age_ms / 1000;
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

fn what_to_do(report: &WhyReport, command: &str, look: Look) -> Vec<Line> {
    let mut lines = fixes(&report.fixes, look);
    if let Some(instead) = report.instead {
        lines.push(Line::new());
        let port = phrase::port(report.asked.proto, report.asked.port);
        lines.push(
            Line::plain("Use:  ")
                .add(STRONG, &instead.to_string())
                .add(PLAIN, &format!(", {port}")),
        );
    }
    let lan = matches!(report.asked.who, Who::Lan | Who::Any);
    let would = report.verdict == Verdict::Yes || !report.fixes.is_empty();
    if let (true, true, Some(to)) = (lan, would, report.asked.to) {
        let then = if report.fixes.is_empty() { "Give them: " } else { "Then give them: " };
        let place = report.url.clone().unwrap_or_else(|| {
            format!("{to}, {}", phrase::port(report.asked.proto, report.asked.port))
        });
        if report.fixes.is_empty() {
            lines.push(Line::new());
        }
        lines.push(Line::plain(then).add(STRONG, &place));
    }
    let only_root = !report.unknown.is_empty()
        && report.unknown.iter().all(|thing| thing.reason == UnknownReason::NeedsRoot.slug());
    if report.verdict == Verdict::Unknown && only_root {
        lines.push(Line::new());
        lines.push(Line::plain("Be sure:  ").add(STRONG, &format!("sudo {command}")));
    }
    lines
}

fn also(report: &WhyReport, look: Look) -> Vec<Line> {
    /// More than this are counted.
    const SHOWN_MAX: usize = 4;
    let mut lines = Vec::new();
    for answer in report.also.iter().take(SHOWN_MAX) {
        let text = format!("{}: {}", also_place(report, answer), also_verdict(report, answer));
        lines.extend(wrap(&text, look.columns()).iter().map(|text| Line::plain(text)));
    }
    if report.also.len() > SHOWN_MAX {
        let more = report.also.len() - SHOWN_MAX;
        lines.push(Line::plain(&format!("And {more} more ways in: --json lists them.")));
    }
    if !lines.is_empty() {
        lines.insert(0, Line::new());
    }
    lines
}

fn also_place(report: &WhyReport, answer: &AlsoAnswer) -> String {
    let to = answer.asked.to.map(|to| to.to_string()).unwrap_or_default();
    let family = answer.asked.to.map(Family::of);
    let over = match family {
        Some(Family::Ipv6) => "Over IPv6",
        Some(Family::Ipv4) | None => "Over IPv4",
    };
    let same_family = family == report.asked.to.map(Family::of);
    let link = printable(answer.asked.via.as_deref().unwrap_or_default());
    match (answer.asked.via == report.asked.via, same_family) {
        (true, _) => format!("{over} ({to})"),
        (false, true) => format!("On {link} ({to})"),
        (false, false) => format!("{over} on {link} ({to})"),
    }
}

fn also_verdict(report: &WhyReport, answer: &AlsoAnswer) -> String {
    let same_stop = answer.stop.as_ref().map(|stop| stop.code)
        == report.stop.as_ref().map(|stop| stop.code)
        && answer.stop.is_some();
    let code = answer.stop.as_ref().map(|stop| stop.code);
    match (answer.verdict, answer.leaning) {
        (Verdict::Yes, _) if report.verdict == Verdict::Yes => "yes, as well.".to_owned(),
        (Verdict::Yes, _) => "yes.".to_owned(),
        (Verdict::No, _) if same_stop => "no, for the same reason.".to_owned(),
        (Verdict::No, _) => match code {
            Some(StopCode::Drop(reason)) => {
                format!("no, {} [{}].", also_stop(answer, reason), reason.slug())
            }
            Some(StopCode::NoLanAddress) | None => "no.".to_owned(),
        },
        (Verdict::Partly, _) => "partly; it depends on where they are.".to_owned(),
        (Verdict::Unknown, Some(Leaning::Yes)) if report.leaning == Some(Leaning::Yes) => {
            "the same.".to_owned()
        }
        (Verdict::Unknown, Some(Leaning::No))
            if report.leaning == Some(Leaning::No) && same_stop =>
        {
            "the same.".to_owned()
        }
        (Verdict::Unknown, Some(Leaning::Yes)) => "probably yes.".to_owned(),
        (Verdict::Unknown, Some(Leaning::No)) => match code {
            Some(StopCode::Drop(reason)) => {
                format!("probably no, {} [{}].", also_stop(answer, reason), reason.slug())
            }
            Some(StopCode::NoLanAddress) | None => "probably no.".to_owned(),
        },
        (Verdict::Unknown, None) => "can't tell.".to_owned(),
    }
}

/// A stop in another family is often that the program speaks one family only.
fn also_stop(answer: &AlsoAnswer, reason: DropReason) -> String {
    let subject = answer.stop.as_ref().and_then(|stop| stop.subject.as_ref());
    match (reason, subject, answer.asked.to) {
        (DropReason::BindAddress, Some(NamedSubject::Socket { address, .. }), Some(to))
            if Family::of(*address) != Family::of(to) =>
        {
            format!("the program listens on {address} only")
        }
        _ => {
            let stage = answer.stop.as_ref().map_or(Stage::Input, |stop| stop.stage);
            rule_phrase::stop(reason, subject, stage, &answer.asked)
        }
    }
}

fn not_checked(report: &WhyReport, look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(sentence) = report.inside.filter(|_| !you(report)).and_then(phrase::inside) {
        lines.extend(wrap(sentence, look.columns()).iter().map(|text| Line::plain(text)));
    }
    if !report.not_checked.is_empty() && report.verdict != Verdict::No || stop_is_here(report) {
        let list: Vec<String> =
            report.not_checked.iter().map(|slug| phrase::not_checked(slug)).collect();
        if !list.is_empty() {
            let text = format!("Not checked: {}.", list.join("; "));
            lines.extend(wrap(&text, look.columns()).iter().map(|text| Line::plain(text)));
        }
    }
    if !lines.is_empty() && report.also.is_empty() {
        lines.insert(0, Line::new());
    }
    lines
}

/// The stop can be fixed here, after which the rest of the way matters.
fn stop_is_here(report: &WhyReport) -> bool {
    report.verdict == Verdict::No
        && !matches!(report.stop_reason(), Some(DropReason::NotListening) | None)
}
