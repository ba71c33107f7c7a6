//! The verdict as a sentence, answer word first. It never contains the fix.

use canreach_engine::{DropReason, Outcome, StepResult, Verdict};
use canreach_snapshot::Proto;

use crate::phrase;
use crate::report::why::{Leaning, StopCode, Who, WhyReport};
use crate::text::line::{GOOD, Line, Look, STRONG, UNKNOWN, wrap};
use crate::text::step::is_about_rules;

/// The verdict as a sentence, answer word first.
pub(super) fn verdict(report: &WhyReport, look: Look) -> Vec<Line> {
    let who = phrase::capitalized(&phrase::who(&report.asked));
    let port = phrase::port(report.asked.proto, report.asked.port);
    let lan = report.asked.who == Who::Lan;
    let connect = match report.asked.proto {
        Proto::Tcp => "connect to",
        Proto::Udp => "send to",
    };
    let (style, word, rest) = match (report.verdict, report.leaning) {
        (Verdict::Yes, _) if lan => (
            GOOD,
            "Yes.",
            format!(
                "{} can {connect} {port}.",
                phrase::capitalized(phrase::everyone(&report.asked))
            ),
        ),
        (Verdict::Yes, _) if report.asked.who == Who::Any => {
            (GOOD, "Yes.", format!("Anyone whose packets get this far can {connect} {port}."))
        }
        (Verdict::Yes, _) => (GOOD, "Yes.", format!("{who} can {connect} {port}.")),
        (Verdict::No, _) => (STRONG, "No.", no_sentence(report, &who, &port, connect)),
        (Verdict::Partly, _) => (STRONG, "Partly.", partly_sentence(report, &who, &port, connect)),
        (Verdict::Unknown, Some(leaning)) => {
            let doubts = doubt_count(report);
            let doubts = if doubts == 1 {
                "but one step could not be checked.".to_owned()
            } else {
                format!("but {doubts} steps could not be checked.")
            };
            let word = match leaning {
                Leaning::Yes => "Probably yes,",
                Leaning::No => "Probably no,",
            };
            (UNKNOWN, word, doubts)
        }
        (Verdict::Unknown, None) => (
            UNKNOWN,
            "Can't tell",
            format!("whether {} can {connect} {port}.", phrase::who(&report.asked)),
        ),
    };
    let text = wrap(&format!("{word} {rest}"), look.columns());
    text.iter()
        .enumerate()
        .map(|(index, text)| match text.strip_prefix(word) {
            Some(rest) if index == 0 => Line::new().add(style, word).add(STRONG, rest),
            _ => Line::new().add(STRONG, text),
        })
        .collect()
}

fn no_sentence(report: &WhyReport, who: &str, port: &str, connect: &str) -> String {
    if report.stop.as_ref().is_some_and(|stop| stop.code == StopCode::NoLanAddress) {
        return "This computer has no address that others could dial.".to_owned();
    }
    match report.stop_reason() {
        Some(DropReason::BindLoopback) if report.asked.who != Who::Itself => {
            format!("Only this computer can {connect} {port}.")
        }
        _ => format!("{who} cannot {connect} {port}."),
    }
}

/// Names the smaller side, if it is small.
fn partly_sentence(report: &WhyReport, who: &str, port: &str, connect: &str) -> String {
    let side = |wanted: bool| {
        let mut prefixes = Vec::new();
        for group in report.groups.iter().filter(|group| group.counts) {
            if matches!(group.outcome, Outcome::Delivered(_)) == wanted {
                prefixes.extend(group.sources.to_prefixes());
            }
        }
        prefixes
    };
    let one_host = |prefixes: &[canreach_snapshot::Prefix]| match prefixes {
        [one] if one.length() == one.family().bits() => Some(one.address()),
        _ => None,
    };
    if let Some(address) = one_host(&side(false)) {
        return format!("{who} can {connect} {port}, except {address}.");
    }
    if let Some(address) = one_host(&side(true)) {
        return format!("Only {address} can {connect} {port}.");
    }
    format!("Whether they can {connect} {port} depends on where they are.")
}

/// As many as there are `?` among the steps shown.
fn doubt_count(report: &WhyReport) -> usize {
    let unknown = report.steps.iter().filter_map(|step| match step.result {
        StepResult::Unknown(reason) if is_about_rules(report, step) => Some((None, reason)),
        StepResult::Unknown(reason) => Some((Some(step.stage), reason)),
        StepResult::Ok | StepResult::Stop(_) => None,
    });
    let mut shown: Vec<_> = unknown.collect();
    shown.sort_unstable();
    shown.dedup();
    shown.len().max(1)
}
