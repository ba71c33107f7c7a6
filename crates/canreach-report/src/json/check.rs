//! `canreach.check/1`.

use canreach_engine::expectation::Holds;
use schemars::JsonSchema;
use serde::Serialize;

use super::list::Bind;
use super::object::prefixes;
use super::process::Process;
use super::unknown::Unknown;
use crate::report::check::{CheckReport, FindingRow, OutsideRow, RuleRow};

/// Whether anything is reachable from wider than a policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    /// `canreach.check/1`.
    pub schema: String,
    /// Nothing that is not known touched the answer.
    pub complete: bool,
    /// What is not known and touched the answer.
    pub unknown: Vec<Unknown>,
    /// `yes`: it holds; `no`: somebody gets in who is not let in; `unknown`.
    pub verdict: String,
    /// How many servers were looked at.
    pub servers: usize,
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// The servers that somebody gets in to who is not let in.
    pub violations: Vec<Finding>,
    /// The servers of which it cannot be told.
    pub undecided: Vec<Finding>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Rule {
    /// As `--only` takes it.
    pub text: String,
    /// The line of the file; null for one from the command line.
    pub line: Option<usize>,
    /// How many servers it is about.
    pub servers: usize,
    /// The interface it names, where there is none of that name; else null.
    pub missing_link: Option<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// `tcp` or `udp`.
    pub proto: String,
    /// The port.
    pub port: u16,
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// The program.
    pub process: Process,
    /// The rules that are about it: positions in `rules`.
    pub rules: Vec<usize>,
    /// Who gets in and is not let in.
    pub outside: Vec<Outside>,
    /// Who might.
    pub perhaps: Vec<Outside>,
}

/// Sources that are not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outside {
    /// The interface they come by.
    pub via: String,
    /// The address they dial.
    pub to: String,
    /// How the address leads here: `direct`.
    pub how: String,
    /// Who, filled up with addresses that nobody can send from.
    pub sources: Vec<String>,
    /// How wide that is: `containers`, `network`, `internet`.
    pub reach: String,
    /// Why it cannot be told: a code; null where they get in.
    pub reason: Option<String>,
}

impl Check {
    /// The wire form of a report.
    #[must_use]
    pub fn new(report: &CheckReport) -> Self {
        let verdict = match report.holds {
            Holds::Yes => "yes",
            Holds::No => "no",
            Holds::Unknown => "unknown",
        };
        Self {
            schema: "canreach.check/1".to_owned(),
            complete: report.unknown.is_empty(),
            unknown: Unknown::all(&report.unknown),
            verdict: verdict.to_owned(),
            servers: report.servers,
            rules: report.rules.iter().map(Rule::of).collect(),
            violations: report.violated().map(Finding::of).collect(),
            undecided: report.undecided().map(Finding::of).collect(),
        }
    }
}

impl Rule {
    fn of(row: &RuleRow) -> Self {
        let RuleRow { text, line, servers, missing_link } = row.clone();
        Self { text, line, servers, missing_link }
    }
}

impl Finding {
    fn of(row: &FindingRow) -> Self {
        let server = &row.server;
        Self {
            proto: server.proto.name().to_owned(),
            port: server.port,
            binds: server.binds.iter().map(Bind::of).collect(),
            process: Process::of(&server.program),
            rules: row.rules.clone(),
            outside: row.outside.iter().map(Outside::of).collect(),
            perhaps: row.undecided.iter().map(Outside::of).collect(),
        }
    }
}

impl Outside {
    fn of(row: &OutsideRow) -> Self {
        Self {
            via: row.via.clone(),
            to: row.to.to_string(),
            how: row.how.slug().to_owned(),
            sources: prefixes(&row.sources),
            reach: row.circle.slug().to_owned(),
            reason: row.reason.map(str::to_owned),
        }
    }
}
