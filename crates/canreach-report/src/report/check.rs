//! `check`: whether anything is reachable from wider than a policy says.

use std::net::IpAddr;

use canreach_engine::audience::{How, Reach};
use canreach_engine::expectation::{
    Expectation, Finding, Holds, Judgement, Origin, Outside, Policy, PortRange, Undecided, doubts,
    judge,
};
use canreach_engine::link_role::{LinkRole, is_public, link_networks};
use canreach_engine::{AddressSet, Host, UnknownReason, access};
use canreach_snapshot::{Family, Netns, Port, Snapshot};

use crate::phrase;
use crate::report::server::{NamedServer, ServerNames};
use crate::report::subject::link_name;
use crate::report::unknown::{self, UnknownThing};

/// How a machine compares with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Whether the policy holds.
    pub holds: Holds,
    /// How many servers were looked at.
    pub servers: usize,
    /// The rules, in their order.
    pub rules: Vec<RuleRow>,
    /// The servers that do not hold, or of which it cannot be told, by port.
    pub rows: Vec<FindingRow>,
    /// The policy lets pass what cannot be told.
    pub allow_unknown: bool,
    /// What touched the answer and is not known.
    pub unknown: Vec<UnknownThing>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRow {
    /// As a one-liner.
    pub text: String,
    /// The line of the file it begins in.
    pub line: Option<usize>,
    /// How many servers it is about.
    pub servers: usize,
    /// The interface it names, where there is none of that name.
    pub missing_link: Option<String>,
}

/// One server that can be reached from wider than the policy says, or perhaps can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingRow {
    /// The server.
    pub server: NamedServer,
    /// Whom the policy lets in: who, and by which interface alone.
    pub allowed: Vec<(Origin, Option<String>)>,
    /// Positions of the rules that say so.
    pub rules: Vec<usize>,
    /// Who else gets in.
    pub outside: Vec<OutsideRow>,
    /// Who else might.
    pub undecided: Vec<OutsideRow>,
}

/// Sources that are not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideRow {
    /// The interface.
    pub via: String,
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
    /// Why it cannot be told: a code.
    pub reason: Option<&'static str>,
}

impl CheckReport {
    /// Compares a namespace with a policy. `ports` are the servers to look at; all, if it is empty.
    /// `command` is what was typed, for the advice to run it as root.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        netns: &Netns,
        policy: &Policy,
        ports: &[PortRange],
        command: &str,
    ) -> Self {
        let host = Host::resolve(netns);
        let names = ServerNames::new(snapshot, netns);
        let mut servers = access::servers(netns, &|socket| names.program(socket));
        servers.retain(|server| {
            let port: Port = server.port;
            ports.is_empty() || ports.iter().any(|range| range.holds(server.proto, port))
        });
        let judgement =
            judge(&host, &servers, policy, &|server, name| names.is_called(server, name));
        let rows = judgement
            .findings
            .iter()
            .filter_map(|finding| FindingRow::new(netns, &names, policy, finding))
            .collect();
        Self {
            holds: judgement.holds(),
            servers: judgement.servers,
            rules: rule_rows(netns, policy, &judgement),
            rows,
            allow_unknown: policy.allow_unknown,
            unknown: unknown_things(snapshot, netns, &judgement, command),
        }
    }

    /// The servers that others get in to than the policy says.
    pub fn violated(&self) -> impl Iterator<Item = &FindingRow> {
        self.rows.iter().filter(|row| !row.outside.is_empty())
    }

    /// The servers of which it cannot be told.
    pub fn undecided(&self) -> impl Iterator<Item = &FindingRow> {
        self.rows.iter().filter(|row| row.outside.is_empty())
    }
}

impl FindingRow {
    fn new(
        netns: &Netns,
        names: &ServerNames<'_>,
        policy: &Policy,
        finding: &Finding,
    ) -> Option<Self> {
        let server = names.named(&finding.server)?;
        let rules = || finding.rules.iter().filter_map(|rule| policy.rules.get(*rule));
        let mut allowed: Vec<(Origin, Option<String>)> = Vec::new();
        for Expectation { from, via, .. } in rules() {
            for origin in from {
                let entry = (*origin, via.clone());
                if *origin != Origin::Itself && !allowed.contains(&entry) {
                    allowed.push(entry);
                }
            }
        }
        let row = |outside: &Outside| {
            let reason = outside.reason.map(|reason| match reason {
                Undecided::Access(reason) => reason.slug(),
                Undecided::Program => {
                    server.program.reason.map_or("resolved-by", phrase::owner_slug)
                }
            });
            OutsideRow::new(netns, outside, reason)
        };
        Some(Self {
            allowed,
            rules: finding.rules.clone(),
            outside: finding.outside.iter().map(row).collect(),
            undecided: finding.undecided.iter().map(row).collect(),
            server,
        })
    }
}

impl OutsideRow {
    fn new(netns: &Netns, outside: &Outside, reason: Option<&'static str>) -> Self {
        let way = &outside.way;
        let family = Family::of(way.to);
        let networks = way.via.map(|via| link_networks(netns, via, family)).unwrap_or_default();
        let networks = AddressSet::from_prefixes(family, networks);
        Self {
            via: way.via.map_or_else(|| "lo".to_owned(), |via| link_name(netns, via)),
            role: way.role,
            to: way.to,
            how: way.how,
            neighbors: !outside.sources.intersection(&networks).is_empty(),
            sources: outside.sources.clone(),
            circle: outside.circle,
            public: is_public(way.to),
            reason,
        }
    }
}

fn rule_rows(netns: &Netns, policy: &Policy, judgement: &Judgement) -> Vec<RuleRow> {
    let row = |(rule, servers): (&Expectation, &usize)| RuleRow {
        text: rule.to_string(),
        line: rule.line,
        servers: *servers,
        missing_link: rule.via.clone().filter(|via| netns.link_named(via).is_none()),
    };
    policy.rules.iter().zip(&judgement.matched).map(row).collect()
}

fn unknown_things(
    snapshot: &Snapshot,
    netns: &Netns,
    judgement: &Judgement,
    command: &str,
) -> Vec<UnknownThing> {
    let mut things: Vec<UnknownThing> =
        doubts(judgement).iter().map(|doubt| unknown::of_doubt(netns, doubt, command)).collect();
    let blind = judgement.blind_spots.iter().filter_map(|gap| netns.gaps.get(*gap));
    things.extend(blind.map(|gap| unknown::of_gap(gap, command)));
    let by_program = |outside: &Outside| outside.reason == Some(Undecided::Program);
    if judgement.findings.iter().flat_map(|finding| &finding.undecided).any(by_program) {
        let owners = netns.gaps.iter().chain(&snapshot.gaps);
        let owners = owners.filter(|gap| gap.subject == canreach_snapshot::GapSubject::Owners);
        let known: Vec<UnknownThing> = owners.map(|gap| unknown::of_gap(gap, command)).collect();
        if known.is_empty() {
            let (what, reason) = ("owners".to_owned(), "resolved-by");
            things.push(UnknownThing { what, reason, how: None });
        }
        things.extend(known);
    }
    if judgement.cut_short {
        let (what, reason) = ("links".to_owned(), UnknownReason::LimitReached.slug());
        things.push(UnknownThing { what, reason, how: None });
    }
    unknown::tidy(&mut things);
    things
}
