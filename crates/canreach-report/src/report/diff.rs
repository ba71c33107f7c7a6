//! `diff`: who can reach what that could not before, and the other way round.

use std::net::IpAddr;

use canreach_engine::access::Access;
use canreach_engine::audience::{How, Reach};
use canreach_engine::difference::{
    Cause, Change, Deciding, Difference, Reason, ServerDifference, Two, difference,
};
use canreach_engine::link_role::{LinkRole, is_public, link_networks};
use canreach_engine::{AddressSet, Doubt, Host, Stage, UnknownReason};
use canreach_snapshot::{Family, Netns, Snapshot};

use crate::report::server::{NamedServer, ServerNames};
use crate::report::subject::NamedSubject;
use crate::report::unknown::{self, UnknownThing};

/// Two states of a machine, compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffReport {
    /// What the states are.
    pub states: Two<State>,
    /// How many servers were compared.
    pub compared: usize,
    /// The servers for which something differs, by port.
    pub rows: Vec<ServerRow>,
    /// What could not be judged may hide a difference.
    pub uncertain: bool,
    /// What is not known of either state.
    pub unknown: Vec<UnknownThing>,
}

/// Where a state comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The file; `None` for this computer now.
    pub file: Option<String>,
    /// Milliseconds since 1970-01-01 UTC when it was read.
    pub collected_at_ms: u64,
    /// The machine's name.
    pub hostname: Option<String>,
}

/// One server for which something differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// The server as it is in each state.
    pub server: Two<Option<NamedServer>>,
    /// What differs.
    pub changes: Vec<ChangeRow>,
}

/// Sources on one way that have more or less access than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// The interface; `None` for this computer itself.
    pub via: Option<String>,
    /// What is behind it.
    pub role: LinkRole,
    /// The address dialled.
    pub to: IpAddr,
    /// How it leads here.
    pub how: How,
    /// Who.
    pub sources: AddressSet,
    /// How wide a circle that is.
    pub circle: Reach,
    /// Some of them are neighbours, not behind a router.
    pub neighbors: bool,
    /// No router has to translate the address dialled.
    pub public: bool,
    /// Whether they get through.
    pub access: Two<Access>,
    /// They have the wider access in the other state as well, at another address.
    pub elsewhere: bool,
    /// Where on the path something else decides.
    pub causes: Vec<CauseRow>,
}

impl ChangeRow {
    /// They have more access than before.
    #[must_use]
    pub fn is_wider(&self) -> bool {
        self.access.after > self.access.before
    }
}

/// A stage where something else decides than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CauseRow {
    /// The stage.
    pub stage: Stage,
    /// What decides there.
    pub deciding: Two<NamedDeciding>,
}

/// What decides at a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedDeciding {
    /// Why it does not pass for certain.
    pub reason: Option<Reason>,
    /// The object.
    pub subject: Option<NamedSubject>,
}

/// One state, and the namespace of it that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The state.
    pub snapshot: &'a Snapshot,
    /// The namespace.
    pub netns: &'a Netns,
    /// The file it comes from; `None` for this computer now.
    pub file: Option<&'a str>,
}

impl DiffReport {
    /// Compares two states. `command` is what was typed, for the advice to run it as root.
    #[must_use]
    pub fn new(sides: Two<Side<'_>>, command: &str) -> Self {
        let Two { before, after } = sides;
        let names = Two {
            before: ServerNames::new(before.snapshot, before.netns),
            after: ServerNames::new(after.snapshot, after.netns),
        };
        let hosts =
            Two { before: &Host::resolve(before.netns), after: &Host::resolve(after.netns) };
        let found = difference(
            hosts,
            Two {
                before: &|socket| names.before.program(socket),
                after: &|socket| names.after.program(socket),
            },
        );
        let rows = found.servers.iter().map(|server| ServerRow::new(sides, &names, server));
        Self {
            states: Two { before: State::of(&before), after: State::of(&after) },
            compared: found.compared,
            rows: rows.collect(),
            uncertain: found.is_uncertain(),
            unknown: unknown_things(sides, &found, command),
        }
    }

    /// Every change.
    pub fn changes(&self) -> impl Iterator<Item = &ChangeRow> {
        self.rows.iter().flat_map(|row| &row.changes)
    }
}

impl State {
    fn of(side: &Side<'_>) -> Self {
        Self {
            file: side.file.map(str::to_owned),
            collected_at_ms: side.snapshot.machine.collected_at_ms,
            hostname: side.snapshot.machine.hostname.clone(),
        }
    }
}

impl ServerRow {
    fn new(
        sides: Two<Side<'_>>,
        names: &Two<ServerNames<'_>>,
        difference: &ServerDifference,
    ) -> Self {
        let Two { before, after } = &difference.server;
        Self {
            server: Two {
                before: before.as_ref().and_then(|server| names.before.named(server)),
                after: after.as_ref().and_then(|server| names.after.named(server)),
            },
            changes: difference
                .changes
                .iter()
                .map(|change| ChangeRow::new(sides, change))
                .collect(),
        }
    }

    /// The server as it is now, or as it was.
    #[must_use]
    pub fn shown(&self) -> Option<&NamedServer> {
        self.server.after.as_ref().or(self.server.before.as_ref())
    }
}

impl ChangeRow {
    fn new(sides: Two<Side<'_>>, change: &Change) -> Self {
        let family = Family::of(change.to);
        let side = if change.is_wider() { sides.after } else { sides.before };
        let link = change.via.as_ref().and_then(|via| side.netns.link_named(via));
        let networks = link.map(|link| link_networks(side.netns, link.ifindex, family));
        let networks = AddressSet::from_prefixes(family, networks.unwrap_or_default());
        Self {
            via: change.via.clone(),
            role: change.role,
            to: change.to,
            how: change.how,
            neighbors: !change.sources.intersection(&networks).is_empty(),
            sources: change.sources.clone(),
            circle: change.circle,
            public: is_public(change.to),
            access: change.access,
            elsewhere: change.elsewhere,
            causes: change.causes.iter().map(|cause| CauseRow::new(sides, cause)).collect(),
        }
    }
}

impl CauseRow {
    fn new(sides: Two<Side<'_>>, cause: &Cause) -> Self {
        let named = |netns: &Netns, deciding: &Deciding| NamedDeciding {
            reason: deciding.reason,
            subject: deciding.subject.as_ref().and_then(|of| NamedSubject::of(netns, of)),
        };
        let Two { before, after } = &cause.deciding;
        Self {
            stage: cause.stage,
            deciding: Two {
                before: named(sides.before.netns, before),
                after: named(sides.after.netns, after),
            },
        }
    }
}

fn unknown_things(
    sides: Two<Side<'_>>,
    difference: &Difference,
    command: &str,
) -> Vec<UnknownThing> {
    let mut things = Vec::new();
    let Two { before, after } = &difference.doubts;
    let blind = &difference.blind_spots;
    for (side, doubts, blind) in
        [(sides.before, before, &blind.before), (sides.after, after, &blind.after)]
    {
        let of_doubt = |doubt: &Doubt| unknown::of_doubt(side.netns, doubt, command);
        let gaps = blind.iter().filter_map(|gap| side.netns.gaps.get(*gap));
        let gaps = gaps.map(|gap| unknown::of_gap(gap, command));
        let mut of_side: Vec<UnknownThing> = doubts.iter().map(of_doubt).chain(gaps).collect();
        if let Some(file) = side.file {
            for thing in &mut of_side {
                // What a file lacks can only be had where it was made.
                let how = thing.how.as_deref();
                let make = || format!("sudo canreach snapshot {file}");
                thing.how =
                    how.map(|how| if how.starts_with("sudo") { make() } else { how.into() });
            }
        }
        things.extend(of_side);
    }
    if difference.cut_short {
        let (what, reason) = ("links".to_owned(), UnknownReason::LimitReached.slug());
        things.push(UnknownThing { what, reason, how: None });
    }
    unknown::tidy(&mut things);
    things
}
