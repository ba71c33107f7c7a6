//! What changed between two states of a machine: who gets through to what, and because of what.
//!
//! Servers are matched by protocol, port and program, links by name, addresses dialled by
//! themselves. Every way in of either state is asked in both, and the sources are compared exactly.
//! Each difference names its causes: where on the path something else decides than before, and the
//! object that decided then and decides now. Left out: servers of other namespaces.

mod cause;
mod pairing;

use std::net::IpAddr;

use canreach_snapshot::{Family, GapSubject, Prefix};

pub use cause::{Cause, Deciding, Reason};

use crate::access::{
    Access, Part, ProgramName, Server, WayAccess, added_by_nobody, blind_spots, carries_as_far,
    servers, unsettled, way_to, ways_here,
};
use crate::audience::{How, Inquiry, Reach, WayIn};
use crate::link_role::LinkRole;
use crate::{AddressSet, Blocker, Doubt, DropReason, Host, SocketIndex, Stage, UnknownReason};

/// Two values, of the state before and of the one after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Two<T> {
    /// Before.
    pub before: T,
    /// After.
    pub after: T,
}

/// Everything that differs between two states in who gets through to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The servers for which something differs, by port.
    pub servers: Vec<ServerDifference>,
    /// How many servers were compared.
    pub compared: usize,
    /// What could not be seen of a state, and may hide a difference.
    pub doubts: Two<Vec<Doubt>>,
    /// What could not be read, without which servers or ways in may be missing: positions in
    /// `Netns::gaps`.
    pub blind_spots: Two<Vec<usize>>,
    /// There are more ways in than were compared.
    pub cut_short: bool,
}

/// One server, and who gets through to it in one state only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDifference {
    /// The server as it is in each state; `None` where it is not there.
    pub server: Two<Option<Server>>,
    /// What differs, in the order of the ways.
    pub changes: Vec<Change>,
}

/// Sources on one way that have more or less access than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The name of the link; `None` for this machine itself.
    pub via: Option<String>,
    /// What is behind it.
    pub role: LinkRole,
    /// The address dialled.
    pub to: IpAddr,
    /// How the address leads here.
    pub how: How,
    /// Who, filled up with addresses that nobody has.
    pub sources: AddressSet,
    /// How wide a circle that is.
    pub circle: Reach,
    /// Whether they get through.
    pub access: Two<Access>,
    /// In the other state they have the wider access as well, by the same link at another address.
    pub elsewhere: bool,
    /// Where on the path something else decides.
    pub causes: Vec<Cause>,
}

impl Change {
    /// They have more access than before.
    #[must_use]
    pub fn is_wider(&self) -> bool {
        self.access.after > self.access.before
    }
}

impl Difference {
    /// Something may be hidden: equal answers are not known to be equal.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        let Two { before, after } = &self.doubts;
        let Two { before: blind_before, after: blind_after } = &self.blind_spots;
        self.cut_short
            || !(before.is_empty()
                && after.is_empty()
                && blind_before.is_empty()
                && blind_after.is_empty())
    }
}

/// Names the program that holds a socket; `None` where it is not known.
pub type Namer<'f> = dyn Fn(SocketIndex) -> Option<ProgramName> + 'f;

/// Compares two states.
#[must_use]
pub fn difference(hosts: Two<&Host<'_>>, names: Two<&Namer<'_>>) -> Difference {
    let mut inquiries =
        Two { before: Inquiry::new(hosts.before), after: Inquiry::new(hosts.after) };
    let Two { before, after } = hosts;
    let pairs =
        pairing::pair(servers(before.netns(), names.before), servers(after.netns(), names.after));
    let mut difference = Difference {
        servers: Vec::new(),
        compared: pairs.len(),
        doubts: Two { before: Vec::new(), after: Vec::new() },
        blind_spots: Two { before: blind_spots(before.netns()), after: blind_spots(after.netns()) },
        cut_short: inquiries.before.is_cut_short() || inquiries.after.is_cut_short(),
    };
    let keys = ways(&inquiries);
    for server in pairs {
        let outside = of_ways(&mut inquiries, &keys, &server);
        let here = here(&mut inquiries, &server);
        let all = Two {
            before: outside.iter().map(|way| &way.access.before).collect::<Vec<_>>(),
            after: outside.iter().map(|way| &way.access.after).collect::<Vec<_>>(),
        };
        add_doubts(&mut difference.doubts.before, &all.before);
        add_doubts(&mut difference.doubts.after, &all.after);
        let setting =
            Setting { inquiries: &inquiries, hosts, server: &server, outside: &outside, all: &all };
        let changes: Vec<Change> =
            outside.iter().chain(&here).flat_map(|way| setting.changes(way)).collect();
        if !changes.is_empty() {
            difference.servers.push(ServerDifference { server, changes });
        }
    }
    difference
}

fn add_doubts(doubts: &mut Vec<Doubt>, ways: &[&WayAccess]) {
    for doubt in unsettled(ways).into_iter().flat_map(|(_, part)| part.doubts) {
        if hides_state(doubt.reason) && !doubts.contains(&doubt) {
            doubts.push(doubt);
        }
    }
}

/// Something on this machine may have changed unseen. Other doubts are about what is outside, or about
/// chance: while nothing here changes, neither do they.
const fn hides_state(reason: UnknownReason) -> bool {
    match reason {
        UnknownReason::NeedsRoot
        | UnknownReason::NotModelled
        | UnknownReason::OpaqueProgram
        | UnknownReason::ChangedWhileReading
        | UnknownReason::Unread
        | UnknownReason::FibLayout
        | UnknownReason::FibHistory
        | UnknownReason::MulticastMembership
        | UnknownReason::LimitReached
        | UnknownReason::EarlierPackets
        | UnknownReason::UserSpace
        | UnknownReason::OtherNamespace
        | UnknownReason::HookOrder => true,
        UnknownReason::ReplyElsewhere
        | UnknownReason::ReplyAddress
        | UnknownReason::Multipath
        | UnknownReason::RateLimit
        | UnknownReason::RandomChoice
        | UnknownReason::TimeOfDay
        | UnknownReason::PacketDetails => false,
    }
}

/// A way in, by what it is called in both states.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WayKey {
    via: Option<String>,
    to: IpAddr,
}

/// One way to one server in both states.
struct Compared {
    key: WayKey,
    /// The way in the state that has it, the later if both do.
    way: WayIn,
    access: Two<WayAccess>,
}

/// The ways in of either state, those of the later first.
fn ways(inquiries: &Two<Inquiry<'_, '_>>) -> Vec<WayKey> {
    let mut keys: Vec<WayKey> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for inquiry in [&inquiries.after, &inquiries.before] {
        let netns = inquiry.host().netns();
        for way in inquiry.ways() {
            let via = way.via.and_then(|via| netns.link(via)).map(|link| link.name.clone());
            if known.insert((via.clone(), way.to)) {
                keys.push(WayKey { via, to: way.to });
            }
        }
    }
    keys
}

fn of_ways(
    inquiries: &mut Two<Inquiry<'_, '_>>,
    keys: &[WayKey],
    server: &Two<Option<Server>>,
) -> Vec<Compared> {
    let mut found = Vec::new();
    for key in keys {
        let Some(link) = &key.via else { continue };
        let before = inquiries.before.way_by(link, key.to);
        let after = inquiries.after.way_by(link, key.to);
        let Some(way) = after.or(before) else { continue };
        let access = Two {
            before: one_side(&mut inquiries.before, before, way, server.before.as_ref(), server),
            after: one_side(&mut inquiries.after, after, way, server.after.as_ref(), server),
        };
        found.push(Compared { key: key.clone(), way, access });
    }
    found
}

/// A way to a server in one state, where both the server and the way may be missing.
fn one_side(
    inquiry: &mut Inquiry<'_, '_>,
    own: Option<WayIn>,
    other: WayIn,
    server: Option<&Server>,
    either: &Two<Option<Server>>,
) -> WayAccess {
    match (own, server) {
        (Some(way), Some(server)) => way_to(inquiry, server, way),
        (None, _) => absent(inquiry, other, Stage::Link, DropReason::LinkDown, false),
        (Some(way), None) => {
            let may_be_hidden = is_unread(inquiry.host(), either);
            absent(inquiry, way, Stage::Socket, DropReason::NotListening, may_be_hidden)
        }
    }
}

/// The sockets of a server's protocol could not be read: it may be there.
fn is_unread(host: &Host<'_>, server: &Two<Option<Server>>) -> bool {
    let proto = server.before.as_ref().or(server.after.as_ref()).map(|server| server.proto);
    host.netns()
        .gaps
        .iter()
        .any(|gap| matches!(gap.subject, GapSubject::Sockets(of, _) if Some(of) == proto))
}

/// A way on which nobody gets through, because something is not there.
fn absent(
    inquiry: &Inquiry<'_, '_>,
    way: WayIn,
    stage: Stage,
    reason: DropReason,
    may_be_hidden: bool,
) -> WayAccess {
    let family = Family::of(way.to);
    let unsendable = match way.via {
        Some(_) => inquiry.host().unsendable(family).clone(),
        None => AddressSet::empty(family),
    };
    let part = Part {
        sources: unsendable.complement(),
        access: if may_be_hidden { Access::Improbable } else { Access::No },
        reason: may_be_hidden.then_some(UnknownReason::Unread),
        steps: Vec::new(),
        blockers: vec![Blocker { stage, reason, subject: None }],
        doubts: Vec::new(),
    };
    WayAccess { way, parts: vec![part], unsendable }
}

/// This machine talking to itself: the best of the addresses it would dial.
fn here(inquiries: &mut Two<Inquiry<'_, '_>>, server: &Two<Option<Server>>) -> Option<Compared> {
    let best = |inquiry: &mut Inquiry<'_, '_>, server: Option<&Server>| {
        let ways = ways_here(inquiry, server?);
        ways.into_iter().rev().max_by_key(|way| way.parts.iter().map(|part| part.access).max())
    };
    let before = best(&mut inquiries.before, server.before.as_ref());
    let after = best(&mut inquiries.after, server.after.as_ref());
    let way = after.as_ref().or(before.as_ref())?.way;
    let missing = |inquiry: &Inquiry<'_, '_>| {
        let hidden = is_unread(inquiry.host(), server);
        absent(inquiry, way, Stage::Socket, DropReason::NotListening, hidden)
    };
    let before = before.unwrap_or_else(|| missing(&inquiries.before));
    let after = after.unwrap_or_else(|| missing(&inquiries.after));
    let everyone = |access: WayAccess| WayAccess {
        // By whichever address: the source is this machine.
        parts: access
            .parts
            .into_iter()
            .take(1)
            .map(|part| Part { sources: AddressSet::all(Family::of(way.to)), ..part })
            .collect(),
        ..access
    };
    let access = Two { before: everyone(before), after: everyone(after) };
    Some(Compared { key: WayKey { via: None, to: way.to }, way, access })
}

/// What the ways to one server are compared in.
struct Setting<'s, 'h, 'n> {
    inquiries: &'s Two<Inquiry<'h, 'n>>,
    hosts: Two<&'s Host<'n>>,
    server: &'s Two<Option<Server>>,
    /// Every way in from outside.
    outside: &'s [Compared],
    /// The same, state by state.
    all: &'s Two<Vec<&'s WayAccess>>,
}

impl Setting<'_, '_, '_> {
    /// What differs on one way.
    fn changes(&self, compared: &Compared) -> Vec<Change> {
        let Compared { key, way, access } = compared;
        let nobodys = access.before.unsendable.union(&access.after.unsendable);
        let mut found: Vec<Change> = Vec::new();
        for before in &access.before.parts {
            for after in &access.after.parts {
                let both = before.sources.intersection(&after.sources).difference(&nobodys);
                let both = self.without_empty_doubts(way, Two { before, after }, both);
                if before.access == after.access || both.is_empty() {
                    continue;
                }
                let parts = Two { before, after };
                let causes = cause::causes(self.hosts, self.server, way.to, parts);
                let otherwise = self.otherwise(compared, parts);
                for (sources, elsewhere) in
                    [(both.difference(&otherwise), false), (both.intersection(&otherwise), true)]
                {
                    let change = Change {
                        via: key.via.clone(),
                        role: way.role,
                        to: way.to,
                        how: way.how,
                        sources,
                        circle: Reach::Itself,
                        access: Two { before: before.access, after: after.access },
                        elsewhere,
                        causes: causes.clone(),
                    };
                    add(&mut found, change);
                }
            }
        }
        for change in &mut found {
            self.finish(change, way, &nobodys);
        }
        found
    }

    /// Leaves out sources that do not get through in one state, and in the other only by a doubt that
    /// adds nobody.
    fn without_empty_doubts(&self, way: &WayIn, parts: Two<&Part>, both: AddressSet) -> AddressSet {
        let Two { before, after } = parts;
        match (before.access, after.access) {
            (Access::No, _) => both.difference(&added_by_nobody(after, way, &self.all.after)),
            (_, Access::No) => both.difference(&added_by_nobody(before, way, &self.all.before)),
            _ => both,
        }
    }

    /// The sources that have the wider access by the same link, in the state where this way has less:
    /// only the address that they dial differs.
    fn otherwise(&self, compared: &Compared, parts: Two<&Part>) -> AddressSet {
        let Two { before, after } = parts;
        let wider = after.access > before.access;
        let family = before.sources.family();
        let none = AddressSet::empty(family);
        let by_same_link = self.outside.iter().filter(|other| {
            compared.key.via.is_some()
                && other.key.via == compared.key.via
                && carries_as_far(other.key.to, compared.key.to)
        });
        by_same_link.fold(none, |sum, other| {
            let reached = if wider {
                other.access.before.at_least(after.access)
            } else {
                other.access.after.at_least(before.access)
            };
            sum.union(&reached)
        })
    }

    /// How wide it is, and the sources in few words.
    fn finish(&self, change: &mut Change, way: &WayIn, nobodys: &AddressSet) {
        // The state in which more get through knows how wide that is.
        let inquiry =
            if change.is_wider() { &self.inquiries.after } else { &self.inquiries.before };
        match &change.via {
            Some(link) => {
                let own = inquiry.way_by(link, way.to).unwrap_or(*way);
                change.circle = inquiry.circle(&own, &change.sources);
                change.sources = change.sources.filled_up(nobodys);
            }
            None => {
                let itself = [Prefix::host(way.to)];
                change.sources = AddressSet::from_prefixes(Family::of(way.to), itself);
            }
        }
    }
}

/// Adds a change, to one that differs from it in nothing but the sources if there is one.
fn add(found: &mut Vec<Change>, change: Change) {
    if change.sources.is_empty() {
        return;
    }
    let same = |known: &&mut Change| {
        known.access == change.access
            && known.elsewhere == change.elsewhere
            && known.causes == change.causes
    };
    match found.iter_mut().find(same) {
        Some(known) => known.sources = known.sources.union(&change.sources),
        None => found.push(change),
    }
}
