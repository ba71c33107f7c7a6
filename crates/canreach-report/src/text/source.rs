//! Which sources get through and which do not, where they differ.

use canreach_engine::{Outcome, Stage, UnknownReason};

use crate::report::why::{SourceGroup, WhyReport};
use crate::rule_phrase;
use crate::text::line::{DIM, GOOD, Line, Look, PLAIN, STOP, UNKNOWN, printable, shorten};
use crate::text::step::{is_socket, listens};

/// More groups of sources than this are counted, not listed.
pub(super) const GROUPS_SHOWN_MAX: usize = 6;
/// More prefixes than this are counted, not listed.
const PREFIXES_SHOWN_MAX: usize = 3;

/// Which sources get through and which do not.
pub(super) fn groups(report: &WhyReport, look: Look) -> Vec<Line> {
    let counted: Vec<&SourceGroup> = report.groups.iter().filter(|group| group.counts).collect();
    let mut lines = Vec::new();
    for group in counted.iter().take(GROUPS_SHOWN_MAX) {
        let (style, mark, code) = match &group.outcome {
            Outcome::Delivered(_) | Outcome::DeliveredIn(..) => (GOOD, "yes", None),
            Outcome::Stopped(reason) => (STOP, "no", Some(reason.slug())),
            Outcome::Unknown(reason) => (UNKNOWN, "?", Some(reason.slug())),
        };
        let line = Line::plain("  ")
            .add(style, mark)
            .pad_to(8)
            .add(PLAIN, &shorten(&words_among(group, &counted), look.columns() - 8));
        match code {
            Some(code) => lines.extend(line.with_right(DIM, &format!("[{code}]"), look)),
            None => lines.push(line),
        }
        let explained = match &group.outcome {
            Outcome::Delivered(_) | Outcome::DeliveredIn(..) => None,
            Outcome::Stopped(reason) => {
                let stage = group.stage.unwrap_or(Stage::Input);
                Some(rule_phrase::stop(*reason, group.subject.as_ref(), stage, &report.asked))
            }
            Outcome::Unknown(reason) => {
                let stage = unknown_stage(*reason);
                Some(rule_phrase::unknown(stage, *reason, group.subject.as_ref()))
            }
        };
        if let Some(text) = explained {
            lines.push(Line::new().pad_to(8).add(PLAIN, &shorten(&text, look.columns() - 8)));
        }
        if let Some(subject) = group.subject.as_ref().filter(|s| !is_socket(s)) {
            let text = shorten(&printable(&subject.line()), look.columns() - 8);
            lines.push(Line::new().pad_to(8).add(DIM, &text));
        }
    }
    if counted.len() > GROUPS_SHOWN_MAX {
        let more = counted.len() - GROUPS_SHOWN_MAX;
        lines.push(Line::plain(&format!("  and {more} more groups: --json lists them")));
    }
    if let Some(listener) = &report.listener {
        lines.push(Line::plain(&format!("  {}", listens(listener, look.columns() - 2))));
    }
    lines
}

/// A group's sources in a few words, beside the others: the largest, if it is long to say, is the
/// rest.
fn words_among(group: &SourceGroup, groups: &[&SourceGroup]) -> String {
    let largest = groups.first().is_some_and(|first| std::ptr::eq(*first, group));
    let many = group.shown.to_prefixes().len() > PREFIXES_SHOWN_MAX;
    if largest && many && group.ports.is_none() && groups.len() > 1 {
        return "everyone else who was asked about".to_owned();
    }
    source_words(group)
}

/// A group's sources in a few words.
pub(super) fn source_words(group: &SourceGroup) -> String {
    let prefixes = group.shown.to_prefixes();
    let mut text: Vec<String> = prefixes
        .iter()
        .take(PREFIXES_SHOWN_MAX)
        .map(|prefix| {
            if prefix.length() == prefix.family().bits() {
                prefix.address().to_string()
            } else {
                prefix.to_string()
            }
        })
        .collect();
    if prefixes.len() > PREFIXES_SHOWN_MAX {
        text.push(format!("and {} more", prefixes.len() - PREFIXES_SHOWN_MAX));
    }
    let mut text = text.join(", ");
    if let Some(ports) = &group.ports {
        let ports: Vec<String> = ports
            .iter()
            .map(|(low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") })
            .collect();
        text.push_str(&format!(" from port {}", ports.join(", ")));
    }
    text
}

/// Where a reason without a step is likely met, for its wording.
const fn unknown_stage(reason: UnknownReason) -> Stage {
    match reason {
        UnknownReason::NeedsRoot
        | UnknownReason::NotModelled
        | UnknownReason::RateLimit
        | UnknownReason::EarlierPackets
        | UnknownReason::RandomChoice
        | UnknownReason::TimeOfDay
        | UnknownReason::PacketDetails
        | UnknownReason::UserSpace
        | UnknownReason::OtherNamespace
        | UnknownReason::HookOrder => Stage::Input,
        UnknownReason::OpaqueProgram => Stage::Ingress,
        UnknownReason::ReplyElsewhere | UnknownReason::ReplyAddress | UnknownReason::Multipath => {
            Stage::Reply
        }
        UnknownReason::ChangedWhileReading
        | UnknownReason::Unread
        | UnknownReason::FibLayout
        | UnknownReason::FibHistory
        | UnknownReason::MulticastMembership
        | UnknownReason::LimitReached => Stage::Route,
    }
}
