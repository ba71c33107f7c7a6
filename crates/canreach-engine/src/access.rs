//! Who gets through to one server, exactly: by way in, with what decides.
//!
//! A server is every socket of one program on one port. Its answers are those of the
//! [`Inquiry`]; here they are read from the server's point of view: a packet
//! that another program takes does not reach it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use canreach_snapshot::{Family, GapSubject, Netns, Port, Proto, SocketState};

use crate::audience::{Inquiry, WayIn};
use crate::link_role::is_link_local;
use crate::{
    AddressSet, Answer, Blocker, Doubt, DoubtEffect, DropReason, Group, Outcome, SocketIndex,
    Stage, Step, Subject, UnknownReason,
};

/// The sockets of one program on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// TCP or UDP.
    pub proto: Proto,
    /// The port.
    pub port: Port,
    /// Its name, where one is known.
    pub program: Option<ProgramName>,
    /// Its sockets, in their order.
    pub sockets: Vec<SocketIndex>,
}

/// What a program is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramName {
    /// The name.
    pub name: String,
    /// Its descriptor was seen; otherwise the name is an inference.
    pub certain: bool,
}

/// Whether packets get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// They are stopped, or another program takes them.
    No,
    /// Cannot be told, and something would stop them unless they are led past it.
    Improbable,
    /// Cannot be told, and nothing that is known stops them.
    Probable,
    /// They get through.
    Yes,
}

impl Access {
    /// It cannot be told.
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        match self {
            Self::No | Self::Yes => false,
            Self::Improbable | Self::Probable => true,
        }
    }
}

/// Sources on one way that share a fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The sources. Those that nobody can send from are left out.
    pub sources: AddressSet,
    /// Whether they get through, from some source port at least.
    pub access: Access,
    /// Why it cannot be told, where it cannot.
    pub reason: Option<UnknownReason>,
    /// What they pass.
    pub steps: Vec<Step>,
    /// What stops them.
    pub blockers: Vec<Blocker>,
    /// What cannot be judged.
    pub doubts: Vec<Doubt>,
}

/// One way in to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayAccess {
    /// The way.
    pub way: WayIn,
    /// Its sources: disjoint, and together everybody who can send.
    pub parts: Vec<Part>,
    /// Sources that nobody can send from.
    pub unsendable: AddressSet,
}

impl WayAccess {
    /// The sources with at least this much access.
    #[must_use]
    pub fn at_least(&self, access: Access) -> AddressSet {
        let none = AddressSet::empty(Family::of(self.way.to));
        let parts = self.parts.iter().filter(|part| part.access >= access);
        parts.fold(none, |sum, part| sum.union(&part.sources))
    }
}

/// The servers of a namespace, by port and protocol: TCP listeners, and UDP sockets that take
/// datagrams from anyone.
#[must_use]
pub fn servers(netns: &Netns, program: &dyn Fn(SocketIndex) -> Option<ProgramName>) -> Vec<Server> {
    let mut found: BTreeMap<(Port, Proto, Option<ProgramName>), Vec<SocketIndex>> = BTreeMap::new();
    for (index, socket) in netns.sockets.iter().enumerate() {
        if socket.state != SocketState::Connected {
            let key = (socket.port, socket.proto, program(SocketIndex(index)));
            found.entry(key).or_default().push(SocketIndex(index));
        }
    }
    let server = |((port, proto, program), sockets)| Server { proto, port, program, sockets };
    found.into_iter().map(server).collect()
}

/// Who gets through to a server by each way in from outside.
pub fn ways_to(inquiry: &mut Inquiry<'_, '_>, server: &Server) -> Vec<WayAccess> {
    let ways = inquiry.ways();
    ways.iter().map(|way| way_to(inquiry, server, *way)).collect()
}

/// Who gets through to a server by one way in.
pub fn way_to(inquiry: &mut Inquiry<'_, '_>, server: &Server, way: WayIn) -> WayAccess {
    let answer = inquiry.ask(server.proto, server.port, &way, 0);
    let host = inquiry.host();
    let unsendable = match way.via {
        Some(_) => host.unsendable(Family::of(way.to)).clone(),
        None => AddressSet::empty(Family::of(way.to)),
    };
    let parts = parts(host.netns(), &answer, server, &unsendable);
    WayAccess { way, parts, unsendable }
}

/// Whether this machine itself reaches a server, at each address that it would dial.
pub fn ways_here(inquiry: &mut Inquiry<'_, '_>, server: &Server) -> Vec<WayAccess> {
    let sockets = &inquiry.host().netns().sockets;
    let mut found: Vec<WayAccess> = Vec::new();
    for SocketIndex(index) in &server.sockets {
        let way = inquiry.way_here(&sockets[*index]);
        if found.iter().any(|known| known.way == way) {
            continue;
        }
        let answer = inquiry.ask(server.proto, server.port, &way, sockets[*index].uid);
        let unsendable = AddressSet::empty(Family::of(way.to));
        let parts = parts(inquiry.host().netns(), &answer, server, &unsendable);
        found.push(WayAccess { way, parts, unsendable });
    }
    found
}

/// What cannot be told about a server, by way: the positions in `ways`, and the parts. Sources about
/// which the doubt [adds nobody](added_by_nobody) are left out.
#[must_use]
pub fn unsettled(ways: &[&WayAccess]) -> Vec<(usize, Part)> {
    let mut found = Vec::new();
    for (position, access) in ways.iter().enumerate() {
        for part in access.parts.iter().filter(|part| part.access.is_unknown()) {
            let mut part = part.clone();
            part.sources = part.sources.difference(&added_by_nobody(&part, &access.way, ways));
            if !part.sources.is_empty() {
                found.push((position, part));
            }
        }
    }
    found
}

/// The sources of a part that is in doubt of which it makes no difference: they get in anyway.
///
/// Either by the same link, at another address. Or by another link, where an answer would leave by
/// another one than the question came by (`reply-elsewhere`): such an answer reaches only who has the
/// same address behind that other link, too, and whoever is there gets in by it for certain.
#[must_use]
pub fn added_by_nobody(part: &Part, way: &WayIn, ways: &[&WayAccess]) -> AddressSet {
    let family = part.sources.family();
    let none = AddressSet::empty(family);
    if !part.access.is_unknown() || way.via.is_none() {
        return none;
    }
    let elsewhere = part.doubts.iter().any(|doubt| doubt.reason == UnknownReason::ReplyElsewhere);
    let others = ways.iter().filter(|other| {
        let counts = other.way.via == way.via || elsewhere;
        counts && other.way.via.is_some() && carries_as_far(other.way.to, way.to)
    });
    let certain = others.fold(none, |sum, other| sum.union(&other.at_least(Access::Yes)));
    part.sources.intersection(&certain)
}

/// Whether getting in at one address says that the same sources are in at another. No router sends on
/// what is for a link-local address: who gets in there is a neighbour, and with the same source
/// somebody else may be behind a router.
pub(crate) fn carries_as_far(one: IpAddr, other: IpAddr) -> bool {
    Family::of(one) == Family::of(other) && (!is_link_local(one) || is_link_local(other))
}

/// What could not be read without which servers or ways in may be missing: positions in
/// `Netns::gaps`.
#[must_use]
pub fn blind_spots(netns: &Netns) -> Vec<usize> {
    let hides = |subject: &GapSubject| {
        matches!(subject, GapSubject::Links | GapSubject::Addresses(_) | GapSubject::Sockets(..))
    };
    let gaps = netns.gaps.iter().enumerate();
    gaps.filter(|(_, gap)| hides(&gap.subject)).map(|(index, _)| index).collect()
}

/// An answer from the point of view of one server.
fn parts(netns: &Netns, answer: &Answer, server: &Server, unsendable: &AddressSet) -> Vec<Part> {
    let mut read: Vec<Part> = answer
        .groups
        .iter()
        .map(|group| {
            let sources = group.sources.difference(unsendable);
            part(netns, group, server, sources)
        })
        .collect();
    // A source that gets through from some port gets through: it can choose the port.
    read.sort_by_key(|part| std::cmp::Reverse(part.access));
    let mut covered = AddressSet::empty(unsendable.family());
    for part in &mut read {
        part.sources = part.sources.difference(&covered);
        covered = covered.union(&part.sources);
    }
    read.retain(|part| !part.sources.is_empty());
    read
}

fn part(netns: &Netns, group: &Group, server: &Server, sources: AddressSet) -> Part {
    let takes = group.sockets.iter().any(|socket| server.sockets.contains(socket));
    let redirects = group.doubts.iter().any(|doubt| doubt.effect == DoubtEffect::MayRedirect);
    let (access, reason) = match &group.fate.outcome {
        Outcome::Delivered(sockets) => {
            let ours = sockets.iter().any(|socket| server.sockets.contains(socket));
            (if ours { Access::Yes } else { Access::No }, None)
        }
        Outcome::DeliveredIn(..) | Outcome::Stopped(_) => (Access::No, None),
        Outcome::Unknown(reason) if takes || redirects || group.steps.is_empty() => {
            let passes = takes && group.blockers.is_empty();
            (if passes { Access::Probable } else { Access::Improbable }, Some(*reason))
        }
        Outcome::Unknown(_) => (Access::No, None),
    };
    let mut part = Part {
        sources,
        access,
        reason,
        steps: group.steps.clone(),
        blockers: group.blockers.clone(),
        doubts: group.doubts.clone(),
    };
    if access < Access::Probable && !takes {
        part.miss(netns, server);
    }
    part
}

impl Part {
    /// Says why the lookup passes the server over, in terms of its own socket.
    fn miss(&mut self, netns: &Netns, server: &Server) {
        let own = server.sockets.first();
        let subject = own.map(|own| Subject::Socket(*own));
        let reason = match own.and_then(|SocketIndex(index)| netns.sockets.get(*index)) {
            None => DropReason::NotListening,
            Some(socket) if socket.address.to_canonical().is_loopback() => DropReason::BindLoopback,
            Some(_) => DropReason::BindAddress,
        };
        let bound = |reason: DropReason| {
            matches!(
                reason,
                DropReason::NotListening | DropReason::BindLoopback | DropReason::BindAddress
            )
        };
        match self.blockers.iter_mut().find(|blocker| blocker.stage == Stage::Socket) {
            Some(blocker) if bound(blocker.reason) => {
                (blocker.reason, blocker.subject) = (reason, subject);
            }
            Some(blocker) => blocker.subject = subject.or_else(|| blocker.subject.take()),
            // Another program takes it, or the path ends before the lookup.
            None if self.steps.iter().any(|step| step.stage == Stage::Socket) => {
                self.blockers.push(Blocker { stage: Stage::Socket, reason, subject });
            }
            None => {}
        }
    }
}
