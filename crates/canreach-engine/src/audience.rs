//! Who can reach each listener: the one classifier, for `list` and `why` alike.
//!
//! Every listener is asked about over every way in: each link, each family, each address of this
//! machine, from everyone. The widest circle that gets a *yes* is its reach. Listeners that differ in
//! nothing but their port share their answers, so ten thousand of them cost as much as a few.
//! Not modelled: ways in to addresses that are not this machine's (DNAT, routed container networks,
//! crafted frames).

mod inquiry;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::{CgroupId, Family, Ifindex, Mark, Netns, Port, Proto, Socket, SocketState};

use crate::link_role::{LinkRole, connected_networks, is_link_local, link_roles};
use crate::path::hook::has_rules;
use crate::path::{Walk, answer_with};
use crate::{
    AddressSet, Answer, Arrival, Blocker, DoubtEffect, DropReason, Host, Outcome, Question,
    SocketIndex, Stage, Subject, UnknownReason,
};

pub use inquiry::{Inquiry, WayIn};

/// More ways in than this are not asked about one by one; listeners that none of those asked about
/// leads to are then unknown.
pub const WAYS_MAX: usize = 256;

/// Each way costs about as much as there are links and routes: the most of these looked at in all.
const WORK_MAX: usize = 500_000;

/// How far a listener can be reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Its address would let others in, and something else stops them all.
    Blocked,
    /// This computer only.
    Itself,
    /// Containers and virtual machines on this computer.
    Containers,
    /// Some address of a connected network.
    Network,
    /// Sources outside every connected network: whether routers let them come this far is not known.
    Internet,
    /// Cannot be told.
    Unknown,
}

impl Reach {
    /// Every one, narrowest first.
    pub const ALL: [Self; 6] = [
        Self::Blocked,
        Self::Itself,
        Self::Containers,
        Self::Network,
        Self::Internet,
        Self::Unknown,
    ];

    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Itself => "self",
            Self::Containers => "containers",
            Self::Network => "network",
            Self::Internet => "internet",
            Self::Unknown => "unknown",
        }
    }
}

/// One way in that leads to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// The link; `None` for this machine itself.
    pub via: Option<Ifindex>,
    /// What is behind that link.
    pub role: LinkRole,
    /// The address dialled.
    pub to: IpAddr,
    /// The sources that get through, filled up with addresses that nobody has.
    pub sources: AddressSet,
    /// How the address leads here.
    pub how: How,
}

/// How the address dialled leads to the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// It is an address of this machine.
    Direct,
    /// Rules send it on, to a server in another namespace.
    Dnat,
}

impl How {
    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dnat => "dnat",
        }
    }
}

/// One listener, and who can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerReach {
    /// The listener.
    pub socket: SocketIndex,
    /// The widest circle with a *yes*.
    pub reach: Reach,
    /// What `reach` would be if everything that cannot be judged let packets pass unchanged. Never
    /// `Unknown`.
    pub apart_from_doubts: Reach,
    /// The ways in with a *yes*, in link order.
    pub audience: Vec<Audience>,
    /// What stops the others: the first stop on the first way in that is stopped.
    pub stop: Option<DropReason>,
    /// The object that does, where the server would take the packet and something else stops it.
    pub stop_subject: Option<Subject>,
    /// Why it cannot be told, where it cannot.
    pub doubt: Option<UnknownReason>,
}

/// Classifies every listener: TCP listeners, and UDP sockets that take datagrams from anyone.
#[must_use]
pub fn classify(host: &Host<'_>) -> Vec<ListenerReach> {
    let sockets = &host.netns().sockets;
    let mut ports: BTreeMap<(Proto, Port), Vec<usize>> = BTreeMap::new();
    for (index, socket) in sockets.iter().enumerate() {
        ports.entry((socket.proto, socket.port)).or_default().push(index);
    }
    let mut classifier = Classifier::new(host);
    let mut answered: BTreeMap<Likeness, Vec<ListenerReach>> = BTreeMap::new();
    let mut listeners = Vec::new();
    for ((proto, port), indices) in ports {
        let likeness = classifier.likeness(proto, port, &indices);
        let of_likeness = answered
            .entry(likeness)
            .or_insert_with(|| classifier.classify_port(proto, port, &indices));
        // Positions within the port are alike, so they carry over from the port that was asked.
        for (reach, index) in of_likeness.iter().zip(&indices) {
            if sockets[*index].state != SocketState::Connected {
                listeners.push(ListenerReach { socket: SocketIndex(*index), ..reach.clone() });
            }
        }
    }
    listeners.sort_by_key(|listener| listener.socket);
    listeners
}

/// What decides about the sockets of one port, the port itself left out: equal likenesses get equal
/// answers.
type Likeness = (Proto, Option<Port>, Vec<SocketLikeness>);

/// What decides about one socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SocketLikeness {
    family: Family,
    connected: bool,
    address: IpAddr,
    peer: Option<(IpAddr, Port)>,
    device: Option<Ifindex>,
    v6only: Option<bool>,
    mark: Option<u32>,
    transparent: Option<bool>,
    freebind: Option<bool>,
    uid: u32,
    cgroup: Option<CgroupId>,
    full: bool,
}

struct Classifier<'h, 'n> {
    host: &'h Host<'n>,
    /// One for each family: what does not depend on the listener is walked once.
    walks: BTreeMap<Family, Walk<'h, 'n>>,
    ways: Vec<Way>,
    /// Every connected network, by family: what is outside is the internet.
    connected: BTreeMap<Family, AddressSet>,
    /// A policy rule selects by port, or a program by control group.
    ports_matter: bool,
    cgroups_matter: bool,
    too_many_ways: bool,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    link: Ifindex,
    role: LinkRole,
    to: IpAddr,
}

/// What is known of one socket while its ways are asked.
struct Findings {
    audience: Vec<Audience>,
    widest_yes: Option<Reach>,
    /// The widest circle that would get through if the doubts did no harm.
    widest_maybe: Option<Reach>,
    /// The widest circle for which something cannot be told.
    widest_unknown: Option<Reach>,
    doubt: Option<UnknownReason>,
    /// It would take the packet, and something else stops it.
    blocked: Option<DropReason>,
    /// What does.
    blocked_by: Option<Subject>,
    /// The lookup passes it over.
    missed: Option<DropReason>,
    /// The first stop of all.
    stop: Option<DropReason>,
}

impl<'h, 'n> Classifier<'h, 'n> {
    fn new(host: &'h Host<'n>) -> Self {
        let netns = host.netns();
        let roles: BTreeMap<Ifindex, LinkRole> =
            netns.links.iter().map(|link| link.ifindex).zip(link_roles(netns)).collect();
        /// The widest links come first, and some of them are asked about on any machine.
        const WAYS_MIN: usize = 8;
        let size = netns.links.len() + netns.routes.len() + 1;
        let most = (WORK_MAX / size).clamp(WAYS_MIN, WAYS_MAX);
        let mut ways = ways_in(netns, &roles, most + 1);
        let too_many_ways = ways.len() > most;
        ways.truncate(most);
        let connected = Family::BOTH.map(|family| (family, connected_networks(netns, family)));
        let connected = connected.into();
        let by_port = |rule: &canreach_snapshot::PolicyRule| {
            rule.source_ports.is_some() || rule.destination_ports.is_some()
        };
        let ports_matter = has_rules(host) || netns.policy_rules.iter().any(by_port);
        let cgroups_matter = !netns.bpf.is_empty();
        let walks = Family::BOTH.map(|family| (family, Walk::new(host, family))).into();
        Self { host, walks, ways, connected, ports_matter, cgroups_matter, too_many_ways }
    }

    fn likeness(&self, proto: Proto, port: Port, indices: &[usize]) -> Likeness {
        let sockets = &self.host.netns().sockets;
        let of_socket = |socket: &Socket| SocketLikeness {
            family: socket.family,
            connected: socket.state == SocketState::Connected,
            address: socket.address,
            peer: socket.peer,
            device: socket.device,
            v6only: socket.v6only,
            mark: socket.mark.map(|Mark(mark)| mark),
            transparent: socket.transparent,
            freebind: socket.freebind,
            uid: socket.uid,
            cgroup: socket.cgroup.filter(|_| self.cgroups_matter),
            full: socket.backlog.is_some_and(canreach_snapshot::Backlog::is_full),
        };
        let sockets = indices.iter().map(|index| of_socket(&sockets[*index])).collect();
        (proto, Some(port).filter(|_| self.ports_matter), sockets)
    }

    fn answer(&mut self, question: &Question) -> Answer {
        let walk = self.walks.get_mut(&question.family()).expect("one for each family");
        answer_with(walk, self.host, question)
    }

    /// One entry for each socket of the port, in their order.
    fn classify_port(&mut self, proto: Proto, port: Port, indices: &[usize]) -> Vec<ListenerReach> {
        let mut findings: Vec<Findings> = indices.iter().map(|_| Findings::none()).collect();
        for position in 0..self.ways.len() {
            let way = self.ways[position];
            let question = Question {
                proto,
                port,
                from: AddressSet::all(Family::of(way.to)),
                to: way.to,
                via: Arrival::Link(way.link),
            };
            let answer = self.answer(&question);
            for (index, findings) in indices.iter().zip(&mut findings) {
                self.take(&answer, &way, SocketIndex(*index), findings);
            }
        }
        let sockets = &self.host.netns().sockets;
        indices
            .iter()
            .zip(findings)
            .map(|(index, findings)| {
                let local = self.ask_locally(&sockets[*index], SocketIndex(*index));
                self.conclude(SocketIndex(*index), findings, local)
            })
            .collect()
    }

    /// Takes over what an answer says about one socket.
    fn take(&self, answer: &Answer, way: &Way, socket: SocketIndex, findings: &mut Findings) {
        for group in &answer.groups {
            let sources = group.sources.difference(&answer.unsendable);
            if sources.is_empty() {
                continue;
            }
            let circle = self.circle(way, &sources);
            let takes = group.sockets.contains(&socket);
            let at_lookup = |blocker: &&Blocker| blocker.stage == Stage::Socket;
            if let Some(missed) = group.blockers.iter().find(at_lookup).filter(|_| !takes) {
                findings.missed.get_or_insert(missed.reason);
            }
            match &group.fate.outcome {
                Outcome::Delivered(sockets) if sockets.contains(&socket) => {
                    findings.widest_yes = findings.widest_yes.max(Some(circle));
                    findings.add_audience(way, sources, How::Direct);
                }
                // Rules send on what is sent to the port: who gets in there gets through here.
                Outcome::DeliveredIn(..) => {
                    findings.widest_yes = findings.widest_yes.max(Some(circle));
                    findings.add_audience(way, sources, How::Dnat);
                }
                Outcome::Delivered(_) => {}
                Outcome::Stopped(reason) => {
                    findings.stop.get_or_insert(*reason);
                    if takes {
                        findings.note_blocked(*reason, group.blockers.first());
                    }
                }
                Outcome::Unknown(reason) => {
                    let redirects =
                        group.doubts.iter().any(|doubt| doubt.effect == DoubtEffect::MayRedirect);

                    if !(takes || redirects || group.steps.is_empty()) {
                        continue;
                    }
                    findings.widest_unknown = findings.widest_unknown.max(Some(circle));
                    findings.doubt.get_or_insert(*reason);
                    match group.blockers.first() {
                        None if takes => {
                            findings.widest_maybe = findings.widest_maybe.max(Some(circle));
                        }
                        None => {}
                        Some(blocker) => {
                            findings.stop.get_or_insert(blocker.reason);
                            if takes {
                                findings.note_blocked(blocker.reason, Some(blocker));
                            }
                        }
                    }
                }
            }
        }
        let of_way = |entry: &&mut Audience| entry.via == Some(way.link) && entry.to == way.to;
        if let Some(entry) = findings.audience.iter_mut().find(of_way) {
            entry.sources = entry.sources.filled_up(&answer.unsendable);
        }
    }

    /// How wide a circle sources on a way are.
    fn circle(&self, way: &Way, sources: &AddressSet) -> Reach {
        match way.role {
            LinkRole::Containers => Reach::Containers,
            LinkRole::Lan | LinkRole::VirtualLan => {
                let connected = &self.connected[&sources.family()];
                let outside = sources.difference(connected);
                if outside.is_empty() || !crosses_routers(way.to) {
                    Reach::Network
                } else {
                    Reach::Internet
                }
            }
            LinkRole::Vpn | LinkRole::Loopback | LinkRole::Member(_) | LinkRole::Nobody => {
                Reach::Network
            }
        }
    }

    /// Whether this machine reaches its own listener.
    fn ask_locally(&mut self, socket: &Socket, index: SocketIndex) -> LocalFinding {
        let to = dialled_here(socket);
        let question = Question {
            proto: socket.proto,
            port: socket.port,
            from: AddressSet::from_prefixes(Family::of(to), [canreach_snapshot::Prefix::host(to)]),
            to,
            via: Arrival::Local { uid: socket.uid },
        };
        let answer = self.answer(&question);
        let delivered = answer.groups.iter().any(|group| match &group.fate.outcome {
            Outcome::Delivered(sockets) => sockets.contains(&index),
            Outcome::DeliveredIn(..) => true,
            Outcome::Stopped(_) | Outcome::Unknown(_) => false,
        });
        let unknown = answer.groups.iter().find_map(|group| match group.fate.outcome {
            Outcome::Unknown(reason) => Some((reason, group.blockers.is_empty())),
            Outcome::Delivered(_) | Outcome::DeliveredIn(..) | Outcome::Stopped(_) => None,
        });
        let sources = answer.groups.first().map(|group| group.sources.clone());
        match (delivered, unknown) {
            (true, _) => LocalFinding::Yes(Audience {
                via: None,
                role: LinkRole::Loopback,
                to,
                sources: sources.unwrap_or_else(|| AddressSet::empty(Family::of(to))),
                how: How::Direct,
            }),
            (false, Some((reason, apart_from_doubts))) => {
                LocalFinding::Unknown(reason, apart_from_doubts)
            }
            (false, None) => LocalFinding::No,
        }
    }

    /// The reason as it is for one socket, where a port has several.
    fn own_reason(&self, stop: DropReason, SocketIndex(index): SocketIndex) -> DropReason {
        let of_address = matches!(stop, DropReason::BindLoopback | DropReason::BindAddress);
        let socket = &self.host.netns().sockets[index];
        match (of_address, socket.address.to_canonical().is_loopback()) {
            (true, true) => DropReason::BindLoopback,
            (true, false) => DropReason::BindAddress,
            (false, _) => stop,
        }
    }

    fn conclude(
        &self,
        socket: SocketIndex,
        findings: Findings,
        local: LocalFinding,
    ) -> ListenerReach {
        let Findings { mut audience, widest_yes, widest_maybe, widest_unknown, .. } = findings;
        let mut doubt = findings.doubt.filter(|_| widest_unknown > widest_yes);
        if self.too_many_ways && doubt.is_none() && widest_yes < Some(Reach::Network) {
            doubt = Some(UnknownReason::LimitReached);
        }
        let at_home = match (&local, findings.blocked) {
            (_, Some(_)) => Reach::Blocked,
            (LocalFinding::Yes(_) | LocalFinding::Unknown(_, true), None) => Reach::Itself,
            (LocalFinding::No | LocalFinding::Unknown(_, false), None) => Reach::Blocked,
        };
        // Nobody outside gets in, so it is this computer's at the most: what could stop even that is
        // not worth a doubt, or each server on loopback would be in doubt behind every firewall.
        if let (LocalFinding::Unknown(reason, false), None, None) = (&local, widest_yes, doubt) {
            doubt = Some(*reason);
        }
        if let LocalFinding::Yes(local) = local {
            audience.push(local);
        }
        let outside = widest_yes.filter(|yes| *yes >= Reach::Network);
        let is_stopped = outside.is_none() && widest_yes.max(widest_maybe) < Some(Reach::Network);
        let reach = match (outside, doubt) {
            (Some(yes), _) => yes,
            (None, Some(_)) => Reach::Unknown,
            (None, None) => widest_yes.unwrap_or(at_home),
        };
        ListenerReach {
            socket,
            reach,
            apart_from_doubts: widest_yes.max(widest_maybe).unwrap_or(at_home),
            audience,
            stop: findings
                .blocked
                .or(findings.missed)
                .or(findings.stop)
                .map(|stop| self.own_reason(stop, socket))
                .filter(|_| is_stopped),
            stop_subject: findings.blocked_by.filter(|_| is_stopped),
            doubt: doubt.filter(|_| reach == Reach::Unknown),
        }
    }
}

/// Every link that somebody else is behind, with every address that its neighbours can dial: the
/// widest links first, and the addresses of each link itself before those of others.
///
/// Linux takes a packet for any of its own addresses on any link (the weak host model), so a
/// neighbour that routes an address of another link through this machine gets there. Link-local
/// addresses stay on their link, and loopback addresses do not leave the machine that dials them.
fn ways_in(netns: &Netns, roles: &BTreeMap<Ifindex, LinkRole>, most: usize) -> Vec<Way> {
    let mut links: Vec<(LinkRole, Ifindex)> = roles
        .iter()
        .filter(|(_, role)| leads_in(**role))
        .map(|(link, role)| (*role, *link))
        .collect();
    links.sort_unstable();
    let dialled = || netns.addresses.iter().filter(|address| !address.address().is_loopback());
    let own = dialled().filter_map(|address| {
        let role = *roles.get(&address.ifindex).filter(|role| leads_in(**role))?;
        Some(Way { link: address.ifindex, role, to: address.address() })
    });
    let mut own: Vec<Way> = own.collect();
    own.sort_by_key(|way| (way.role, way.link));
    let foreign = links.iter().flat_map(|(role, link)| {
        let others = dialled()
            .filter(|address| address.ifindex != *link && !is_link_local(address.address()));
        others.map(|address| Way { link: *link, role: *role, to: address.address() })
    });
    // One address may be on several links.
    let mut known = BTreeSet::new();
    let new = |way: &Way| known.insert((way.link, way.to));
    own.into_iter().chain(foreign).filter(new).take(most).collect()
}

/// Somebody else is behind a link of this role.
const fn leads_in(role: LinkRole) -> bool {
    match role {
        LinkRole::Lan | LinkRole::VirtualLan | LinkRole::Vpn | LinkRole::Containers => true,
        LinkRole::Loopback | LinkRole::Member(_) | LinkRole::Nobody => false,
    }
}

/// The address by which this machine dials one of its own listeners.
fn dialled_here(socket: &Socket) -> IpAddr {
    let bound = socket.address.to_canonical();
    match (socket.is_wildcard(), Family::of(bound)) {
        (false, _) => bound,
        (true, Family::Ipv4) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (true, Family::Ipv6) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

enum LocalFinding {
    Yes(Audience),
    No,
    /// Why, and whether it would be yes if the doubts did no harm.
    Unknown(UnknownReason, bool),
}

impl Findings {
    const fn none() -> Self {
        Self {
            audience: Vec::new(),
            widest_yes: None,
            widest_maybe: None,
            widest_unknown: None,
            doubt: None,
            blocked: None,
            blocked_by: None,
            missed: None,
            stop: None,
        }
    }

    fn note_blocked(&mut self, reason: DropReason, blocker: Option<&Blocker>) {
        if self.blocked.is_none() {
            self.blocked = Some(reason);
            self.blocked_by = blocker.and_then(|blocker| blocker.subject.clone());
        }
    }

    fn add_audience(&mut self, way: &Way, sources: AddressSet, how: How) {
        let same = |entry: &&mut Audience| entry.via == Some(way.link) && entry.to == way.to;
        match self.audience.iter_mut().find(same) {
            Some(entry) => entry.sources = entry.sources.union(&sources),
            None => self.audience.push(Audience {
                via: Some(way.link),
                role: way.role,
                to: way.to,
                sources,
                how,
            }),
        }
    }
}

/// A router forwards packets to this address at all.
fn crosses_routers(address: IpAddr) -> bool {
    !is_link_local(address)
}
