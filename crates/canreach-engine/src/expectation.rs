//! Who is meant to reach what, and whether that is how it is.
//!
//! An [`Expectation`] lets some sources reach some ports; a [`Policy`] is a list of them. What the
//! policy does not let in is meant for this computer only. [`judge`] compares it with every way in:
//! whoever gets through and is not let in is a violation; where that cannot be told, and it would be
//! one, the server is undecided. Left out: what this computer does to itself, which any policy
//! allows.

mod document;
mod one_liner;

use canreach_snapshot::{Family, Netns, Prefix};

pub use document::{DocumentError, Fault};
pub use one_liner::{PortRange, RuleError};

use crate::access::{Access, Part, Server, WayAccess, blind_spots, unsettled, ways_to};
use crate::audience::{Inquiry, Reach, WayIn};
use crate::link_role::{LinkRole, is_link_local, lan_links, link_networks};
use crate::{AddressSet, Doubt, Host, UnknownReason};

/// More rules than this are refused: nobody wrote them by hand, and each is asked of each server.
pub const RULES_MAX: usize = 10_000;

/// A list of expectations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Who may reach what. Never empty.
    pub rules: Vec<Expectation>,
    /// What cannot be told counts as allowed.
    pub allow_unknown: bool,
}

/// Some sources may reach some ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// TCP or UDP, and which ports. Never empty.
    pub ports: Vec<PortRange>,
    /// Who. Never empty.
    pub from: Vec<Origin>,
    /// The name of the link their packets come in by.
    pub via: Option<String>,
    /// What the program must be called.
    pub program: Option<String>,
    /// The line of the file it begins in; `None` for one from the command line.
    pub line: Option<usize>,
}

/// Who may reach something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// This computer. Always allowed; by itself it says that nobody else is.
    Itself,
    /// The networks of the LAN links, by a LAN link.
    Lan,
    /// Whatever comes in by a link of containers or virtual machines on this computer.
    Containers,
    /// Whatever comes in by a VPN or tunnel.
    Vpn,
    /// Everybody.
    Any,
    /// The addresses of a prefix, by any link.
    Prefix(Prefix),
}

/// How a machine compares with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// How many servers were looked at.
    pub servers: usize,
    /// How many of them each rule is about, in the order of the rules.
    pub matched: Vec<usize>,
    /// The servers that do not hold, or of which it cannot be told, in their order.
    pub findings: Vec<Finding>,
    /// What could not be read without which servers or ways in may be missing: positions in
    /// `Netns::gaps`.
    pub blind_spots: Vec<usize>,
    /// There are more ways in than were looked at.
    pub cut_short: bool,
    /// The policy lets pass what cannot be told.
    pub allow_unknown: bool,
}

/// Whether a policy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holds {
    /// Nobody gets through whom it does not let in.
    Yes,
    /// Somebody does.
    No,
    /// Cannot be told.
    Unknown,
}

/// One server that can be reached from wider than the policy says, or perhaps can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The server.
    pub server: Server,
    /// Positions of the rules that are about it.
    pub rules: Vec<usize>,
    /// Who gets through and is not let in.
    pub outside: Vec<Outside>,
    /// Who might.
    pub undecided: Vec<Outside>,
}

/// Sources that are not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// How they come.
    pub way: WayIn,
    /// Who, filled up with addresses that nobody has.
    pub sources: AddressSet,
    /// How wide a circle that is.
    pub circle: Reach,
    /// Why it cannot be told; `None` where they get through.
    pub reason: Option<Undecided>,
    /// What cannot be judged.
    pub doubts: Vec<Doubt>,
}

/// Why it cannot be told whether somebody is outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undecided {
    /// Whether they get through.
    Access(UnknownReason),
    /// Whether a rule that names a program is about this server: who holds it is not certain.
    Program,
}

impl Judgement {
    /// Whether the policy holds. Servers that may not have been seen leave it open whatever the
    /// policy says about what cannot be told.
    #[must_use]
    pub fn holds(&self) -> Holds {
        let undecided = self.findings.iter().any(|finding| !finding.undecided.is_empty());
        if self.findings.iter().any(|finding| !finding.outside.is_empty()) {
            Holds::No
        } else if !self.blind_spots.is_empty()
            || ((undecided || self.cut_short) && !self.allow_unknown)
        {
            Holds::Unknown
        } else {
            Holds::Yes
        }
    }
}

/// Compares servers with a policy. `is_called` says whether a server's program has a name; `None`
/// where that is not certain.
#[must_use]
pub fn judge(
    host: &Host<'_>,
    servers: &[Server],
    policy: &Policy,
    is_called: &dyn Fn(&Server, &str) -> Option<bool>,
) -> Judgement {
    let netns = host.netns();
    let mut inquiry = Inquiry::new(host);
    let lan = Family::BOTH.map(|family| lan_networks(netns, family));
    let mut matched = vec![0; policy.rules.len()];
    let mut findings = Vec::new();
    for server in servers {
        let mut rules: Vec<(usize, bool)> = Vec::new();
        for (position, rule) in policy.rules.iter().enumerate() {
            let about = match &rule.program {
                _ if !rule.is_about(server) => Some(false),
                None => Some(true),
                Some(name) => is_called(server, name),
            };
            if about != Some(false) {
                matched[position] += 1;
                rules.push((position, about == Some(true)));
            }
        }
        let allowed = |way: &WayIn, certain: bool| {
            let none = AddressSet::empty(Family::of(way.to));
            let of_rule = |(position, sure): &(usize, bool)| {
                let rule = &policy.rules[*position];
                (*sure || !certain).then(|| rule.lets_in(netns, way, &lan))
            };
            rules.iter().filter_map(of_rule).fold(none, |sum, set| sum.union(&set))
        };
        let ways = ways_to(&mut inquiry, server);
        let (outside, undecided) = compare(&inquiry, &ways, &allowed);
        if !outside.is_empty() || !undecided.is_empty() {
            let rules = rules.iter().map(|(position, _)| *position).collect();
            findings.push(Finding { server: server.clone(), rules, outside, undecided });
        }
    }
    Judgement {
        servers: servers.len(),
        matched,
        findings,
        blind_spots: blind_spots(netns),
        cut_short: inquiry.is_cut_short(),
        allow_unknown: policy.allow_unknown,
    }
}

/// Who gets through and is not let in, and who might.
fn compare(
    inquiry: &Inquiry<'_, '_>,
    ways: &[WayAccess],
    allowed: &dyn Fn(&WayIn, bool) -> AddressSet,
) -> (Vec<Outside>, Vec<Outside>) {
    let (mut outside, mut undecided) = (Vec::new(), Vec::new());
    let find = |access: &WayAccess, sources: AddressSet, reason, doubts: &[Doubt]| Outside {
        way: access.way,
        circle: inquiry.circle(&access.way, &sources),
        sources: sources.filled_up(&access.unsendable),
        reason,
        doubts: doubts.to_vec(),
    };
    for access in ways {
        let through = access.at_least(Access::Yes);
        let for_certain = through.difference(&allowed(&access.way, true));
        let by_any = for_certain.difference(&allowed(&access.way, false));
        let by_name = for_certain.difference(&by_any);
        if !by_any.is_empty() {
            outside.push(find(access, by_any, None, &[]));
        }
        if !by_name.is_empty() {
            undecided.push(find(access, by_name, Some(Undecided::Program), &[]));
        }
    }
    for (position, Part { sources, reason, doubts, .. }) in
        unsettled(&ways.iter().collect::<Vec<_>>())
    {
        let access = &ways[position];
        let sources = sources.difference(&allowed(&access.way, true));
        if let Some(reason) = reason.filter(|_| !sources.is_empty()) {
            undecided.push(find(access, sources, Some(Undecided::Access(reason)), &doubts));
        }
    }
    (outside, undecided)
}

impl Expectation {
    /// It is about a server's port.
    fn is_about(&self, server: &Server) -> bool {
        self.ports.iter().any(|ports| ports.holds(server.proto, server.port))
    }

    /// Whom it lets in by a way.
    fn lets_in(&self, netns: &Netns, way: &WayIn, lan: &[AddressSet; 2]) -> AddressSet {
        let family = Family::of(way.to);
        let none = AddressSet::empty(family);
        let link = way.via.and_then(|via| netns.link(via));
        let elsewhere = |name: &String| link.is_none_or(|link| link.name != *name);
        if self.via.as_ref().is_some_and(elsewhere) {
            return none;
        }
        let on_lan = matches!(way.role, LinkRole::Lan | LinkRole::VirtualLan);
        let all_if = |condition: bool| {
            if condition { AddressSet::all(family) } else { AddressSet::empty(family) }
        };
        let of_origin = |origin: &Origin| match origin {
            Origin::Itself => all_if(false),
            Origin::Any => all_if(true),
            Origin::Containers => all_if(way.role == LinkRole::Containers),
            Origin::Vpn => all_if(way.role == LinkRole::Vpn),
            Origin::Prefix(prefix) => AddressSet::from_prefixes(family, [*prefix]),
            // No router sends it on, so whoever dials it is on the link.
            Origin::Lan if is_link_local(way.to) => all_if(on_lan),
            Origin::Lan => {
                let networks = lan.iter().find(|set| set.family() == family && on_lan);
                networks.cloned().unwrap_or_else(|| all_if(false))
            }
        };
        self.from.iter().map(of_origin).fold(none, |sum, set| sum.union(&set))
    }
}

/// The networks of every LAN link.
fn lan_networks(netns: &Netns, family: Family) -> AddressSet {
    let links = lan_links(netns);
    let networks = links.iter().flat_map(|link| link_networks(netns, *link, family));
    AddressSet::from_prefixes(family, networks)
}

/// What decides that it cannot be told, each thing once.
#[must_use]
pub fn doubts(judgement: &Judgement) -> Vec<Doubt> {
    let mut found: Vec<Doubt> = Vec::new();
    for outside in judgement.findings.iter().flat_map(|finding| &finding.undecided) {
        for doubt in &outside.doubts {
            let decides = outside.reason == Some(Undecided::Access(doubt.reason));
            if decides && !found.contains(doubt) {
                found.push(doubt.clone());
            }
        }
    }
    found
}
