//! What an answer could not take into account: the `unknown` of every JSON object.

use canreach_engine::{Doubt, Subject};
use canreach_snapshot::{Family, Gap, GapReason, GapSubject, Netns};

use crate::report::subject::NamedSubject;
use crate::rule_phrase;

/// One thing that is not known, why, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownThing {
    /// What.
    pub what: String,
    /// Why: a code.
    pub reason: &'static str,
    /// What to do about it, where something can be done.
    pub how: Option<String>,
}

/// What a gap is about, in a word.
#[must_use]
pub fn what(subject: &GapSubject) -> String {
    let word = match subject {
        GapSubject::Links => "links",
        GapSubject::Addresses(_) => "addresses",
        GapSubject::Routes(_) => "routes",
        GapSubject::PolicyRules(_) => "policy-rules",
        GapSubject::Nexthops => "nexthops",
        GapSubject::Neighbors => "neighbors",
        GapSubject::Sysctl(name) => return format!("sysctl {name}"),
        GapSubject::Sockets(..) => "sockets",
        GapSubject::SocketDetails(..) => "socket-details",
        GapSubject::SocketMarks => "socket-marks",
        GapSubject::Owners => "owners",
        GapSubject::FibLayout => "fib-layout",
        GapSubject::NftRuleset | GapSubject::LegacyTables(_) | GapSubject::Ipsets => "firewall",
        GapSubject::Xdp
        | GapSubject::Tc
        | GapSubject::CgroupBpf
        | GapSubject::SkLookup
        | GapSubject::NetfilterBpf => "bpf",
        GapSubject::Netns(name) => return format!("namespace {name}"),
    };
    word.to_owned()
}

/// The code of a gap's reason.
#[must_use]
pub const fn gap_reason(reason: &GapReason) -> &'static str {
    match reason {
        GapReason::NeedsRoot => "needs-root",
        GapReason::Unsupported => "unsupported",
        GapReason::ChangedWhileReading => "changed-while-reading",
        GapReason::Vanished => "vanished",
        GapReason::Malformed => "malformed",
        GapReason::Failed => "unread",
        GapReason::NotRead => "not-read",
    }
}

/// A gap as an unknown thing. `command` is what was typed, for the advice to run it as root.
#[must_use]
pub fn of_gap(gap: &Gap, command: &str) -> UnknownThing {
    let how = match gap.reason {
        GapReason::NeedsRoot => Some(format!("sudo {command}")),
        GapReason::ChangedWhileReading => Some("ask again".to_owned()),
        GapReason::Unsupported
        | GapReason::Vanished
        | GapReason::Malformed
        | GapReason::Failed
        | GapReason::NotRead => None,
    };
    UnknownThing { what: what(&gap.subject), reason: gap_reason(&gap.reason), how }
}

/// A doubt of an answer as an unknown thing.
#[must_use]
pub fn of_doubt(netns: &Netns, doubt: &Doubt, command: &str) -> UnknownThing {
    if let Some(Subject::Gap(index)) = doubt.subject
        && let Some(gap) = netns.gaps.get(index)
    {
        return of_gap(gap, command);
    }
    let what = match doubt.subject {
        Some(Subject::Netfilter(_) | Subject::In(..)) => "firewall-rule",
        Some(Subject::Chain(_) | Subject::LegacyTable(_)) => "firewall",
        Some(Subject::Bpf(_)) => "bpf",
        Some(
            Subject::Link(_)
            | Subject::Address(_)
            | Subject::Route(_)
            | Subject::PolicyRule(_)
            | Subject::LinkSysctl { .. }
            | Subject::Socket(_)
            | Subject::Gap(_),
        )
        | None => doubt.stage.slug(),
    };
    let named = doubt.subject.as_ref().and_then(|subject| NamedSubject::of(netns, subject));
    let how = rule_phrase::rule_of(named.as_ref()).map(rule_phrase::show_command);
    UnknownThing { what: what.to_owned(), reason: doubt.reason.slug(), how }
}

/// Whether a gap bears on a list of servers by itself, without an answer that touched it.
#[must_use]
pub const fn bears_on_a_list(subject: &GapSubject) -> bool {
    match subject {
        GapSubject::Links
        | GapSubject::Addresses(Family::Ipv4 | Family::Ipv6)
        | GapSubject::Routes(_)
        | GapSubject::PolicyRules(_)
        | GapSubject::Sockets(..)
        | GapSubject::SocketDetails(..)
        | GapSubject::Owners
        | GapSubject::NftRuleset
        | GapSubject::LegacyTables(_)
        | GapSubject::Xdp
        | GapSubject::Tc
        | GapSubject::CgroupBpf
        | GapSubject::SkLookup
        | GapSubject::NetfilterBpf
        | GapSubject::Netns(_) => true,
        GapSubject::Nexthops
        | GapSubject::Ipsets
        | GapSubject::Neighbors
        | GapSubject::Sysctl(_)
        | GapSubject::SocketMarks
        | GapSubject::FibLayout => false,
    }
}

/// Sorts, and leaves each thing in once. The firewall comes first: it is what people ask about.
pub fn tidy(things: &mut Vec<UnknownThing>) {
    things.sort_by(|a, b| {
        let rank = |thing: &UnknownThing| !thing.what.starts_with("firewall");
        rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
    });
    things.dedup();
}
