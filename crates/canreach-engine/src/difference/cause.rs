//! Why sources have another access than before: the stages where something else decides.

use std::collections::BTreeSet;
use std::net::IpAddr;

use canreach_snapshot::{Netns, Prefix, Route, RouteType, TableId};

use super::Two;
use crate::access::{Access, Part, Server};
use crate::{AddressSet, DropReason, Host, Stage, Subject, UnknownReason};

/// A stage where something else decides than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The stage.
    pub stage: Stage,
    /// What decides there.
    pub deciding: Two<Deciding>,
}

/// What decides at a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deciding {
    /// Why it does not pass for certain; `None` where it passes.
    pub reason: Option<Reason>,
    /// The object.
    pub subject: Option<Subject>,
}

/// Why a packet does not pass a stage for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is stopped.
    Stop(DropReason),
    /// It cannot be told.
    Unknown(UnknownReason),
}

impl Reason {
    /// The code people see.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Stop(reason) => reason.slug(),
            Self::Unknown(reason) => reason.slug(),
        }
    }
}

/// The stages, in path order.
const STAGES: [Stage; 10] = [
    Stage::Link,
    Stage::Ingress,
    Stage::Prerouting,
    Stage::Route,
    Stage::Input,
    Stage::Forward,
    Stage::Socket,
    Stage::Gate,
    Stage::Reply,
    Stage::Output,
];

/// The stages that decide otherwise. A stage that a path does not get to decides nothing there.
pub(super) fn causes(
    hosts: Two<&Host<'_>>,
    server: &Two<Option<Server>>,
    to: IpAddr,
    parts: Two<&Part>,
) -> Vec<Cause> {
    let mut found = Vec::new();
    for stage in STAGES {
        let before = at(parts.before, stage);
        let after = at(parts.after, stage);
        let (Some(before), Some(after)) = (before, after) else { continue };
        if before.reason == after.reason {
            continue;
        }
        let mut deciding = Two { before, after };
        if stage == Stage::Socket {
            own_socket(&mut deciding.before, server.before.as_ref());
            own_socket(&mut deciding.after, server.after.as_ref());
        }
        if stage == Stage::Route {
            own_address(&mut deciding, hosts, to);
        }
        if stage == Stage::Reply {
            let sources = parts.before.sources.intersection(&parts.after.sources);
            let Two { before, after } = hosts;
            own_route(&mut deciding.before, before.netns(), after.netns(), &sources);
            own_route(&mut deciding.after, after.netns(), before.netns(), &sources);
        }
        found.push(Cause { stage, deciding });
    }
    found
}

/// What decides at a stage; `None` where the path does not get there.
fn at(part: &Part, stage: Stage) -> Option<Deciding> {
    let blocker = part.blockers.iter().find(|blocker| blocker.stage == stage);
    if let Some(blocker) = blocker {
        let reason = Some(Reason::Stop(blocker.reason));
        return Some(Deciding { reason, subject: blocker.subject.clone() });
    }
    let doubt = part.doubts.iter().find(|doubt| doubt.stage == stage);
    if let Some(doubt) = doubt {
        let reason = Some(Reason::Unknown(doubt.reason));
        return Some(Deciding { reason, subject: doubt.subject.clone() });
    }
    let step = part.steps.iter().find(|step| step.stage == stage);
    // Who gets through passed every stage, also those that left no trace.
    let passes = Deciding { reason: None, subject: None };
    step.map(|step| Deciding { reason: None, subject: step.subject.clone() })
        .or_else(|| (part.access == Access::Yes).then_some(passes))
}

/// Names the server's own socket, not one that happens to be near.
fn own_socket(deciding: &mut Deciding, server: Option<&Server>) {
    let Some(server) = server else { return };
    let is_own = |subject: &Subject| match subject {
        Subject::Socket(socket) => server.sockets.contains(socket),
        Subject::Link(_)
        | Subject::Address(_)
        | Subject::Route(_)
        | Subject::PolicyRule(_)
        | Subject::LinkSysctl { .. }
        | Subject::Chain(_)
        | Subject::LegacyTable(_)
        | Subject::Netfilter(_)
        | Subject::In(..)
        | Subject::Bpf(_)
        | Subject::Gap(_) => true,
    };
    if !deciding.subject.as_ref().is_some_and(is_own) {
        deciding.subject = server.sockets.first().map(|socket| Subject::Socket(*socket));
    }
}

/// Names the address where having it or not is what decides, not the route that follows from it.
fn own_address(deciding: &mut Two<Deciding>, hosts: Two<&Host<'_>>, to: IpAddr) {
    let position = |netns: &Netns| netns.addresses.iter().position(|own| own.address() == to);
    let before = position(hosts.before.netns());
    let after = position(hosts.after.netns());
    match (before, after) {
        (Some(index), None) => {
            deciding.before.subject = Some(Subject::Address(index));
            deciding.after.subject = None;
        }
        (None, Some(index)) => {
            deciding.after.subject = Some(Subject::Address(index));
            deciding.before.subject = None;
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// Names the route to the sources by the link that answers leave by, if that route is in this state
/// only: then it is news, and the link is not.
fn own_route(deciding: &mut Deciding, own: &Netns, other: &Netns, sources: &AddressSet) {
    let Some(Subject::Link(link)) = deciding.subject else { return };
    let leads_there = |route: &Route| {
        route.kind == RouteType::Unicast
            && route.nexthops.iter().any(|hop| hop.ifindex == Some(link))
            && route.destination.family() == sources.family()
            && {
                let destination = AddressSet::from_prefixes(sources.family(), [route.destination]);
                !destination.intersection(sources).is_empty()
            }
    };
    let others: BTreeSet<RouteLikeness> =
        other.routes.iter().map(|route| likeness(other, route)).collect();
    let new = own
        .routes
        .iter()
        .enumerate()
        .filter(|(_, route)| leads_there(route) && !others.contains(&likeness(own, route)));
    if let Some((index, _)) = new.max_by_key(|(_, route)| route.destination.length()) {
        deciding.subject = Some(Subject::Route(index));
    }
}

/// What makes a route the same in two states, where links have other numbers.
type RouteLikeness = (TableId, Prefix, u32, Vec<(Option<String>, Option<IpAddr>)>);

fn likeness(netns: &Netns, route: &Route) -> RouteLikeness {
    let link = |index| netns.link(index).map(|link| link.name.clone());
    let hops = route.nexthops.iter().map(|hop| (hop.ifindex.and_then(link), hop.gateway)).collect();
    (route.table, route.destination, route.metric, hops)
}
