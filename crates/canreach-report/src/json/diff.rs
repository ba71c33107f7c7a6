//! `canreach.diff/1`.

use canreach_engine::access::Access;
use schemars::JsonSchema;
use serde::Serialize;

use super::list::Bind;
use super::object::prefixes;
use super::process::Process;
use super::subject::Subject;
use super::unknown::Unknown;
use crate::report::diff::{CauseRow, ChangeRow, DiffReport, NamedDeciding, ServerRow};
use crate::report::server::NamedServer;

/// Who can reach what that could not before, and the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Diff {
    /// `canreach.diff/1`.
    pub schema: String,
    /// Nothing that is not known may hide a difference.
    pub complete: bool,
    /// What is not known of either state.
    pub unknown: Vec<Unknown>,
    /// `same`, `different`, or `unknown`: nothing is known to differ, and not everything is known.
    pub verdict: String,
    /// Somebody can reach something that they could not before, for certain.
    pub wider: bool,
    /// Somebody can no longer reach something, for certain.
    pub narrower: bool,
    /// The earlier state.
    pub before: State,
    /// The later state.
    pub after: State,
    /// How many servers were compared.
    pub servers: usize,
    /// The servers for which something differs.
    pub differences: Vec<ServerDifference>,
}

/// Where a state comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct State {
    /// The file; null for this computer now.
    pub file: Option<String>,
    /// Milliseconds since 1970-01-01 UTC when it was read.
    pub collected_at_ms: u64,
    /// The machine's name.
    pub hostname: Option<String>,
}

/// One server for which something differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServerDifference {
    /// `tcp` or `udp`.
    pub proto: String,
    /// The port.
    pub port: u16,
    /// The server before; null where it was not there.
    pub before: Option<Server>,
    /// The server after; null where it is not there.
    pub after: Option<Server>,
    /// What differs.
    pub changes: Vec<Change>,
}

/// A server in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Server {
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// The program.
    pub process: Process,
}

/// Sources on one way that have more or less access than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Change {
    /// The interface they come by; `lo` for this computer itself.
    pub via: String,
    /// The address they dial.
    pub to: String,
    /// How the address leads here: `direct`.
    pub how: String,
    /// Who, filled up with addresses that nobody can send from.
    pub sources: Vec<String>,
    /// How wide that is: `self`, `containers`, `network`, `internet`.
    pub reach: String,
    /// Whether they got in.
    pub before: Passing,
    /// Whether they get in.
    pub after: Passing,
    /// In the other state they have the wider access as well, by the same interface at another
    /// address.
    pub elsewhere: bool,
    /// Where on the path something else decides, in path order.
    pub causes: Vec<Cause>,
}

/// Whether packets get through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Passing {
    /// `yes`, `no` or `unknown`.
    pub verdict: String,
    /// Which way an unknown verdict leans: `yes` or `no`; else null.
    pub probably: Option<String>,
}

/// A stage where something else decides than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cause {
    /// The stage.
    pub stage: String,
    /// What decided before.
    pub before: Deciding,
    /// What decides after.
    pub after: Deciding,
}

/// What decides at a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Deciding {
    /// Why it does not pass for certain: a code; null where it passes.
    pub code: Option<String>,
    /// The object; null where the absence of one decides.
    pub subject: Option<Subject>,
}

impl Diff {
    /// The wire form of a report.
    #[must_use]
    pub fn new(report: &DiffReport) -> Self {
        let state = |state: &crate::report::diff::State| State {
            file: state.file.clone(),
            collected_at_ms: state.collected_at_ms,
            hostname: state.hostname.clone(),
        };
        let verdict = match (report.rows.is_empty(), report.uncertain) {
            (false, _) => "different",
            (true, true) => "unknown",
            (true, false) => "same",
        };
        let certain =
            |change: &ChangeRow, access| change.access.after == access && !change.elsewhere;
        Self {
            schema: "canreach.diff/1".to_owned(),
            complete: report.unknown.is_empty(),
            unknown: Unknown::all(&report.unknown),
            verdict: verdict.to_owned(),
            wider: report.changes().any(|change| certain(change, Access::Yes)),
            narrower: report.changes().any(|change| certain(change, Access::No)),
            before: state(&report.states.before),
            after: state(&report.states.after),
            servers: report.compared,
            differences: report.rows.iter().filter_map(ServerDifference::of).collect(),
        }
    }
}

impl ServerDifference {
    fn of(row: &ServerRow) -> Option<Self> {
        let shown = row.shown()?;
        let server = |server: &NamedServer| Server {
            binds: server.binds.iter().map(Bind::of).collect(),
            process: Process::of(&server.program),
        };
        Some(Self {
            proto: shown.proto.name().to_owned(),
            port: shown.port,
            before: row.server.before.as_ref().map(server),
            after: row.server.after.as_ref().map(server),
            changes: row.changes.iter().map(Change::of).collect(),
        })
    }
}

impl Change {
    fn of(row: &ChangeRow) -> Self {
        Self {
            via: row.via.clone().unwrap_or_else(|| "lo".to_owned()),
            to: row.to.to_string(),
            how: row.how.slug().to_owned(),
            sources: prefixes(&row.sources),
            reach: row.circle.slug().to_owned(),
            before: Passing::of(row.access.before),
            after: Passing::of(row.access.after),
            elsewhere: row.elsewhere,
            causes: row.causes.iter().map(Cause::of).collect(),
        }
    }
}

impl Passing {
    fn of(access: Access) -> Self {
        let (verdict, probably) = match access {
            Access::No => ("no", None),
            Access::Improbable => ("unknown", Some("no")),
            Access::Probable => ("unknown", Some("yes")),
            Access::Yes => ("yes", None),
        };
        Self { verdict: verdict.to_owned(), probably: probably.map(str::to_owned) }
    }
}

impl Cause {
    fn of(row: &CauseRow) -> Self {
        let deciding = |deciding: &NamedDeciding| Deciding {
            code: deciding.reason.map(|reason| reason.slug().to_owned()),
            subject: Subject::option(deciding.subject.as_ref()),
        };
        Self {
            stage: row.stage.slug().to_owned(),
            before: deciding(&row.deciding.before),
            after: deciding(&row.deciding.after),
        }
    }
}
