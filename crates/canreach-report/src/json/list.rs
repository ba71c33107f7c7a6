//! `canreach.list/1`.

use schemars::JsonSchema;
use serde::Serialize;

use super::object::prefixes;
use super::process::Process;
use super::unknown::Unknown;
use crate::report::list::{ListReport, ListenerRow};
use crate::report::unknown;

/// Every server, and who can reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct List {
    /// `canreach.list/1`.
    pub schema: String,
    /// Everything that bears on the list was read and judged.
    pub complete: bool,
    /// What was not.
    pub unknown: Vec<Unknown>,
    /// The servers, by namespace and port.
    pub listeners: Vec<Listener>,
}

/// One program on one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Listener {
    /// `tcp` or `udp`.
    pub proto: String,
    /// The port.
    pub port: u16,
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// Its network namespace; null for the one that was asked about.
    pub netns: Option<String>,
    /// The program.
    pub process: Process,
    /// The widest audience with a yes: `self`, `containers`, `network`, `internet`; `blocked`;
    /// `unknown`.
    pub reach: String,
    /// What `reach` would be if everything that cannot be judged let packets pass.
    pub reach_if_passed: String,
    /// The ways in with a yes.
    pub audience: Vec<Audience>,
    /// What stops the others: a code.
    pub stop: Option<String>,
    /// Why the reach is unknown: a code.
    pub reason: Option<String>,
    /// Addresses to hand out.
    pub urls: Vec<String>,
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Bind {
    /// The address.
    pub address: String,
    /// The interface it is bound to.
    pub device: Option<String>,
    /// Takes no IPv4; null for IPv4 sockets, or where the kernel did not say.
    pub v6only: Option<bool>,
}

/// One way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Audience {
    /// The interface; `lo` for this computer itself.
    pub via: String,
    /// The address dialled.
    pub to: String,
    /// Who gets through, filled up with addresses that nobody can send from.
    pub sources: Vec<String>,
    /// How the address leads here: `direct`.
    pub how: String,
}

impl List {
    /// The wire form of the reports on one or more namespaces.
    #[must_use]
    pub fn new(reports: &[ListReport]) -> Self {
        let mut things: Vec<unknown::UnknownThing> =
            reports.iter().flat_map(|report| report.unknown.iter().cloned()).collect();
        unknown::tidy(&mut things);
        let of_report = |report: &ListReport| -> Vec<Listener> {
            report.rows.iter().map(|row| Listener::of(report, row)).collect()
        };
        Self {
            schema: "canreach.list/1".to_owned(),
            complete: things.is_empty(),
            unknown: Unknown::all(&things),
            listeners: reports.iter().flat_map(of_report).collect(),
        }
    }
}

impl Bind {
    pub(super) fn of(bind: &crate::report::list::Bind) -> Self {
        Self { address: bind.address.to_string(), device: bind.device.clone(), v6only: bind.v6only }
    }
}

impl Listener {
    fn of(report: &ListReport, row: &ListenerRow) -> Self {
        let audience = |way: &crate::report::list::WayIn| Audience {
            via: way.via.clone().unwrap_or_else(|| "lo".to_owned()),
            to: way.to.to_string(),
            sources: prefixes(&way.sources),
            how: way.how.to_owned(),
        };
        Self {
            proto: row.proto.name().to_owned(),
            port: row.port,
            binds: row.binds.iter().map(Bind::of).collect(),
            netns: report.netns.clone(),
            process: Process::of(&row.program),
            reach: row.reach.slug().to_owned(),
            reach_if_passed: row.apart_from_doubts.slug().to_owned(),
            audience: row.audience.iter().map(audience).collect(),
            stop: row.stop.map(|stop| stop.slug().to_owned()),
            reason: row.doubt.map(|reason| reason.slug().to_owned()),
            urls: row.urls.clone(),
        }
    }
}
