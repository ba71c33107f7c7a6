//! The walk: every stage in order, for all sources at once.
//!
//! *Kernel:* section 1.1 of the receive path, from the wire to the socket and back.
//! *Decides:* the groups of sources that share a fate.
//! *Reads:* what the stages read.
//! *Not modelled:* what the stages do not model.

use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::{Family, GapSubject, Ifindex, Port, Proto};

use crate::host::Host;
use crate::packet::diagram::{Diagram, FixedMap};
use crate::packet::packet_set::PacketSet;
use crate::path::hook::gap_doubts;
use crate::path::ingress::ingress;
use crate::path::input::input;
use crate::path::link::link_input;
use crate::path::local::{LocalAsked, local_input};
use crate::path::prerouting::prerouting;
use crate::path::reply::{AnswerKey, mark_doubts, reply, seen_refusals};
use crate::path::route_input::{Origin, route_input};
use crate::path::socket_gate::socket_gate;
use crate::path::socket_lookup::{
    Lookup, SocketPartition, SocketQuery, detail_doubts, look_up_sockets, lookup_doubts,
};
use crate::path::stage::{Asked, Finding, Partition, silence};
use crate::path::trail::{Findings, Result, Trail, conclude, overlay};
use crate::{
    AddressSet, Arrival, Doubt, DoubtEffect, DropReason, Fate, Outcome, Question, SocketIndex,
    Stage, Subject, TheySee, UnknownReason,
};

/// A walk through a host for packets of one family. It remembers what does not depend on the
/// listener, so that asking about thousands of them costs little more than asking about one.
#[derive(Debug)]
pub struct Walk<'h, 'a> {
    host: &'h Host<'a>,
    family: Family,
    sets: Diagram,
    findings: Findings,
    arrivals: FixedMap<ArrivalKey, Rc<Entry>>,
    replies: FixedMap<(ArrivalKey, AnswerKey), Rc<Vec<Partition>>>,
    refusals: FixedMap<ArrivalKey, Rc<Refusals>>,
    summaries: FixedMap<Class, Rc<Summary>>,
    rules: RuleNeeds,
}

/// What an answer is, as far as the classes of [`crate::audience`] need it: over every source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Sources that get through from every source port.
    pub yes: AddressSet,
    /// Sources that are stopped from every source port.
    pub no: AddressSet,
    /// The others.
    pub unknown: AddressSet,
    /// Every fate that occurs, with the sources that have it from some port: the most sources first.
    pub fates: Vec<(AddressSet, Fate)>,
}

/// What a packet's way to the sockets depends on. The port only matters where rules ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ArrivalKey {
    proto: Proto,
    to: IpAddr,
    arrival: Arrival,
    port: Option<Port>,
}

/// The way to the sockets, walked.
#[derive(Debug)]
struct Entry {
    /// `None` where a limit was reached.
    trails: Option<Vec<Trail>>,
    to: IpAddr,
    device: Option<Ifindex>,
    slave: Option<Ifindex>,
    source: Option<IpAddr>,
    /// Packets that are delivered as broadcast.
    broadcast: PacketSet,
}

/// What happens behind the lookup, without naming sockets: equal tails have equal fates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Tail {
    Delivered { key: Option<AnswerKey>, gate: Finding, details: Vec<Doubt>, broadcast: bool },
    Missed { reason: DropReason, key: Option<AnswerKey>, broadcast: bool },
    Group { listened: bool },
}

/// What senders see of a refusal, by source.
type Refusals = Vec<(PacketSet, Option<TheySee>)>;

/// What makes two questions one to a [`Summary`].
type Class = (ArrivalKey, Vec<(PacketSet, Tail)>);

/// What policy rules ask for: lookups that differ in nothing else are the same.
#[derive(Debug, Clone, Copy)]
struct RuleNeeds {
    ports: bool,
    uid: bool,
    mark: bool,
}

impl<'h, 'a> Walk<'h, 'a> {
    /// A walk for packets of one family.
    #[must_use]
    pub fn new(host: &'h Host<'a>, family: Family) -> Self {
        let some = |test: &dyn Fn(&canreach_snapshot::PolicyRule) -> bool| {
            host.rules(family).iter().any(|(_, rule)| test(rule))
        };
        let rules = RuleNeeds {
            ports: some(&|rule| {
                rule.ip_protocol.is_some()
                    || rule.source_ports.is_some()
                    || rule.destination_ports.is_some()
            }),
            uid: some(&|rule| rule.uid_range.is_some()),
            mark: some(&|rule| rule.mark_mask != 0),
        };
        Self {
            host,
            family,
            sets: Diagram::new(family),
            findings: Findings::default(),
            arrivals: FixedMap::default(),
            replies: FixedMap::default(),
            refusals: FixedMap::default(),
            summaries: FixedMap::default(),
            rules,
        }
    }

    /// The fates of all sources of a question of this walk's family: disjoint sets of sources and
    /// source ports that together are every source.
    pub(crate) fn results(&mut self, question: &Question) -> Vec<(PacketSet, Result)> {
        let key = self.arrival_key(question);
        let entry = self.entry(key, question.port);
        let lookup = self.look_up(key, &entry, question.port);
        self.compose(key, question.port, &entry, &lookup).unwrap_or_else(|| {
            let fate =
                Fate { outcome: Outcome::Unknown(UnknownReason::LimitReached), they_see: None };
            let result = Result {
                fate,
                steps: Vec::new(),
                blockers: Vec::new(),
                doubts: Vec::new(),
                sockets: Vec::new(),
            };
            vec![(PacketSet::ALL, result)]
        })
    }

    /// The diagram that the sets of [`Self::results`] live in.
    pub(crate) const fn sets(&mut self) -> &mut Diagram {
        &mut self.sets
    }

    /// The fates of every source, whatever `question.from` says. Listeners that differ in nothing
    /// that matters share one summary.
    pub fn summary(&mut self, question: &Question) -> Rc<Summary> {
        let key = self.arrival_key(question);
        let entry = self.entry(key, question.port);
        let lookup = self.look_up(key, &entry, question.port);
        let tails: Vec<_> = lookup
            .iter()
            .map(|(set, lookup)| (*set, self.tail(key, question.port, &entry, lookup)))
            .collect();
        let class = (key, tails);
        if let Some(known) = self.summaries.get(&class) {
            return Rc::clone(known);
        }
        let results = self.results(question);
        let summary = Rc::new(self.summarize(results));
        self.summaries.insert(class, Rc::clone(&summary));
        summary
    }

    fn summarize(&mut self, results: Vec<(PacketSet, Result)>) -> Summary {
        let mut fates: Vec<(PacketSet, Fate)> = Vec::new();
        for (set, result) in results {
            match fates.iter_mut().find(|(_, fate)| *fate == result.fate) {
                Some((known, _)) => *known = self.sets.or(*known, set),
                None => fates.push((set, result.fate)),
            }
        }
        let mut by_every_port = |wanted: fn(&Outcome) -> bool| {
            let mut other = PacketSet::NONE;
            for (set, fate) in &fates {
                if !wanted(&fate.outcome) {
                    other = self.sets.or(other, *set);
                }
            }
            self.sets.sources(other).complement()
        };
        let yes = by_every_port(|outcome| matches!(outcome, Outcome::Delivered(_)));
        let no = by_every_port(|outcome| matches!(outcome, Outcome::Stopped(_)));
        let unknown = yes.union(&no).complement();
        let mut fates: Vec<_> =
            fates.into_iter().map(|(set, fate)| (self.sets.sources(set), fate)).collect();
        fates.sort_by_key(|(sources, _)| std::cmp::Reverse(crate::path::group::size(sources)));
        Summary { yes, no, unknown, fates }
    }

    fn arrival_key(&self, question: &Question) -> ArrivalKey {
        let port = self.rules.ports.then_some(question.port);
        let Question { proto, to, via: arrival, .. } = question.clone();
        ArrivalKey { proto, to, arrival, port }
    }

    fn entry(&mut self, key: ArrivalKey, port: Port) -> Rc<Entry> {
        if let Some(entry) = self.arrivals.get(&key) {
            return Rc::clone(entry);
        }
        let entry = match key.arrival {
            Arrival::Link(via) => self.enter_by_link(key, port, via),
            Arrival::Local { uid } => self.enter_locally(key, port, uid),
        };
        let entry = Rc::new(entry);
        self.arrivals.insert(key, Rc::clone(&entry));
        entry
    }

    fn enter_by_link(&mut self, key: ArrivalKey, port: Port, via: Ifindex) -> Entry {
        let (host, sets) = (self.host, &mut self.sets);
        let Some(asked) = Asked::new(host, key.proto, port, key.to, via) else {
            let partition = vec![(PacketSet::ALL, no_such_link(host, via))];
            return Entry {
                trails: overlay(sets, &mut self.findings, Trail::start(), &partition),
                to: key.to,
                device: None,
                slave: None,
                source: None,
                broadcast: PacketSet::NONE,
            };
        };
        let mut routed = route_input(host, sets, &asked, Origin::PACKET);
        let link = link_input(host, sets, &asked, &routed);
        for partition in &mut routed.partitions {
            *partition = unreachable_instead(sets, partition, link.unresolved_if_stopped);
        }
        let mut stages = vec![
            link.partition,
            vec![(PacketSet::ALL, ingress(host, &asked))],
            vec![(PacketSet::ALL, prerouting(host, asked.family))],
        ];
        stages.append(&mut routed.partitions);
        stages.push(vec![(PacketSet::ALL, input(host, asked.family))]);
        let is_slave = asked.routed_link.ifindex != asked.link.ifindex;
        Entry {
            trails: self.walk(Trail::start(), &stages),
            to: key.to,
            device: Some(asked.routed_link.ifindex),
            slave: is_slave.then_some(asked.link.ifindex),
            source: None,
            broadcast: routed.broadcast,
        }
    }

    fn enter_locally(&mut self, key: ArrivalKey, port: Port, uid: u32) -> Entry {
        let asked = LocalAsked { proto: key.proto, port, to: key.to, uid };
        let path = local_input(self.host, &mut self.sets, asked);
        Entry {
            trails: self.walk(Trail::start(), &path.partitions),
            to: path.to,
            device: path.device,
            slave: None,
            source: Some(path.source),
            broadcast: if path.broadcast { PacketSet::ALL } else { PacketSet::NONE },
        }
    }

    fn walk(&mut self, trails: Vec<Trail>, stages: &[Partition]) -> Option<Vec<Trail>> {
        stages.iter().try_fold(trails, |trails, partition| {
            overlay(&mut self.sets, &mut self.findings, trails, partition)
        })
    }

    /// The socket lookup, as unicast and as broadcast where input routing differs by source.
    fn look_up(&mut self, key: ArrivalKey, entry: &Entry, port: Port) -> SocketPartition {
        let mut found = SocketPartition::new();
        let unicast = self.sets.not(entry.broadcast);
        for (within, to_everyone) in [(unicast, false), (entry.broadcast, true)] {
            if within.is_empty() {
                continue;
            }
            let query = SocketQuery {
                family: self.family,
                proto: key.proto,
                port,
                to: entry.to,
                device: entry.device,
                slave: entry.slave,
                to_everyone,
                source: entry.source,
            };
            for (set, lookup) in look_up_sockets(self.host, &mut self.sets, &query) {
                let set = self.sets.and(set, within);
                if !set.is_empty() {
                    found.push((set, lookup));
                }
            }
        }
        found
    }

    /// Walks the stages behind the lookup and reads off the fates.
    fn compose(
        &mut self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        lookup: &SocketPartition,
    ) -> Option<Vec<(PacketSet, Result)>> {
        let mut trails = entry.trails.clone()?;
        for (set, lookup) in lookup {
            let stages = self.stages_behind(key, port, entry, (*set, lookup));
            trails = self.walk(trails, &stages)?;
        }
        if self.sets.is_breached() {
            return None;
        }
        let success = match key.proto {
            Proto::Tcp => TheySee::Connected,
            Proto::Udp => TheySee::Delivered,
        };
        let mut numbers: FixedMap<Result, usize> = FixedMap::default();
        let mut results: Vec<(PacketSet, Result)> = Vec::new();
        for trail in &trails {
            let result = conclude(&self.findings, trail, success);
            if let Some(number) = numbers.get(&result) {
                results[*number].0 = self.sets.or(results[*number].0, trail.set);
            } else {
                numbers.insert(result.clone(), results.len());
                results.push((trail.set, result));
            }
        }
        Some(results)
    }

    /// Socket, gate, reply and output, for packets that the lookup gives one result.
    fn stages_behind(
        &mut self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        (set, lookup): (PacketSet, &Lookup),
    ) -> Vec<Partition> {
        let host = self.host;
        let tail = self.tail(key, port, entry, lookup);
        let doubts = Finding::doubtful(Stage::Socket, lookup_doubts(host, key.proto, self.family));
        let mut stages = vec![vec![(set, doubts)]];
        match (&tail, lookup) {
            (Tail::Group { listened: true }, _) => {
                let reason = UnknownReason::MulticastMembership;
                let doubt = Finding::doubt(Stage::Socket, reason, DoubtEffect::MayStop, None);
                stages.push(vec![(set, doubt)]);
            }
            (Tail::Group { listened: false }, _) => {
                let reason = DropReason::MulticastDestination;
                let seen = Some(silence(key.proto));
                stages.push(vec![(set, Finding::stop(Stage::Socket, reason, None, seen))]);
            }
            (Tail::Delivered { gate, details, .. }, Lookup::Sockets(sockets)) => {
                let subject = sockets.first().map(|socket| Subject::Socket(*socket));
                let mut finding = Finding::pass(Stage::Socket, subject);
                finding.doubts.clone_from(details);
                finding.sockets.clone_from(sockets);
                stages.push(vec![(set, finding)]);
                stages.push(vec![(set, gate.clone())]);
            }
            (Tail::Missed { reason, broadcast, .. }, Lookup::Missed(_, nearest)) => {
                let subject = nearest.map(Subject::Socket);
                let mut parts = Partition::new();
                for (back, seen) in self.refusal(key, port, entry, *broadcast).iter() {
                    let stop = Finding::stop(Stage::Socket, *reason, subject.clone(), *seen);
                    parts.push((self.sets.and(set, *back), stop));
                }
                stages.push(parts);
            }
            // A tail is made from its lookup, so no other pair occurs.
            (Tail::Delivered { .. }, Lookup::Missed(..))
            | (Tail::Missed { .. }, Lookup::Sockets(_)) => {}
        }
        let answer = match &tail {
            Tail::Delivered { key, broadcast: false, .. }
            | Tail::Missed { key, broadcast: false, .. } => *key,
            Tail::Delivered { .. } | Tail::Missed { .. } | Tail::Group { .. } => None,
        };
        for partition in self.reply(key, port, answer).iter() {
            let within = partition
                .iter()
                .map(|(back, finding)| (self.sets.and(set, *back), finding.clone()));
            stages.push(within.collect());
        }
        stages
    }

    /// Everything behind the lookup that a fate can depend on.
    fn tail(&self, key: ArrivalKey, port: Port, entry: &Entry, lookup: &Lookup) -> Tail {
        if entry.to.is_multicast() {
            let mut of_port = self.host.sockets().of_port(key.proto, port);
            return Tail::Group { listened: of_port.next().is_some() };
        }
        let broadcast = entry.broadcast == PacketSet::ALL;
        match lookup {
            Lookup::Sockets(sockets) => Tail::Delivered {
                key: sockets.first().map(|socket| self.answer_key(key, port, entry, *socket, true)),
                gate: socket_gate(self.host, key.proto, sockets),
                details: sockets
                    .first()
                    .map(|socket| detail_doubts(self.host, *socket))
                    .unwrap_or_default(),
                broadcast,
            },
            Lookup::Missed(reason, nearest) => {
                // Assumed: the same program, listening where it is asked for.
                let answer = match nearest {
                    Some(socket) => self.answer_key(key, port, entry, *socket, false),
                    None => AnswerKey {
                        source: Some(entry.to),
                        protocol: key.proto.number(),
                        port: self.rules.ports.then_some(port),
                        ..AnswerKey::icmp_error(self.family)
                    },
                };
                Tail::Missed { reason: *reason, key: Some(answer), broadcast }
            }
        }
    }

    /// What the answer of a socket is routed by; as it is, or as it would be if it were bound to the
    /// address dialled. What no rule asks for is left out, so that more answers are the same.
    fn answer_key(
        &self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        socket: SocketIndex,
        as_bound: bool,
    ) -> AnswerKey {
        let socket = &self.host.netns().sockets[socket.0];
        // A listener's answer comes from the address dialled. A UDP socket's comes from the address
        // it is bound to, or from whichever the route has.
        let chosen = key.proto == Proto::Udp && socket.is_wildcard() && as_bound;
        AnswerKey {
            source: (!chosen).then_some(entry.to),
            device: socket.device.filter(|_| as_bound),
            mark: socket.mark.filter(|_| self.rules.mark).map_or(0, |mark| mark.0),
            uid: if self.rules.uid { socket.uid } else { 0 },
            protocol: key.proto.number(),
            port: self.rules.ports.then_some(port),
            transparent: socket.transparent == Some(true),
        }
    }

    fn reply(
        &mut self,
        key: ArrivalKey,
        port: Port,
        answer: Option<AnswerKey>,
    ) -> Rc<Vec<Partition>> {
        let (Arrival::Link(via), Some(answer)) = (key.arrival, answer) else {
            // To itself: the answer goes the way the packet came.
            let local = matches!(key.arrival, Arrival::Local { .. });
            let pass = Finding::pass(Stage::Reply, None);
            let stages = if local { vec![vec![(PacketSet::ALL, pass)]] } else { Vec::new() };
            return Rc::new(stages);
        };
        if let Some(known) = self.replies.get(&(key, answer)) {
            return Rc::clone(known);
        }
        let mut stages = Vec::new();
        if let Some(asked) = Asked::new(self.host, key.proto, port, key.to, via) {
            let doubts = mark_doubts(self.host, self.family);
            stages.push(vec![(PacketSet::ALL, Finding::doubtful(Stage::Reply, doubts))]);
            let (replies, outputs) = reply(self.host, &mut self.sets, &asked, &answer);
            stages.extend([replies, outputs]);
        }
        let stages = Rc::new(stages);
        self.replies.insert((key, answer), Rc::clone(&stages));
        stages
    }

    /// What senders see of a refused connection.
    fn refusal(
        &mut self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        broadcast: bool,
    ) -> Rc<Refusals> {
        if broadcast {
            return Rc::new(vec![(PacketSet::ALL, Some(silence(key.proto)))]);
        }
        let Arrival::Link(via) = key.arrival else {
            return Rc::new(vec![(PacketSet::ALL, Some(TheySee::Refused))]);
        };
        if let Some(known) = self.refusals.get(&key) {
            return Rc::clone(known);
        }
        let seen = match Asked::new(self.host, key.proto, port, entry.to, via) {
            Some(asked) => {
                let answer = AnswerKey::refusal(&asked);
                seen_refusals(self.host, &mut self.sets, &asked, &answer, TheySee::Refused)
            }
            None => vec![(PacketSet::ALL, None)],
        };
        let seen = Rc::new(seen);
        self.refusals.insert(key, Rc::clone(&seen));
        seen
    }
}

/// A link that was not read, or is not there.
fn no_such_link(host: &Host<'_>, via: Ifindex) -> Finding {
    let stage = Stage::Link;
    let subject = Some(Subject::Link(via));
    let end = Finding::end(stage, DropReason::LinkDown, subject, Some(TheySee::HostUnreachable));
    let doubts =
        gap_doubts(host, stage, DoubtEffect::MayRedirect, |subject| *subject == GapSubject::Links);
    Finding { doubts, ..end }
}

/// Who resolves the address in vain sees an unreachable host, whatever else would have come back.
fn unreachable_instead(
    sets: &mut Diagram,
    partition: &Partition,
    unresolved: PacketSet,
) -> Partition {
    let mut parts = Partition::with_capacity(partition.len());
    for (set, finding) in partition {
        let changes = finding.stop.as_ref().is_some_and(|stop| {
            finding.stage == Stage::Route
                && !matches!(
                    stop.reason,
                    DropReason::BroadcastDestination | DropReason::MulticastDestination
                )
        });
        let inside = sets.and(*set, unresolved);
        if !changes || inside.is_empty() {
            parts.push((*set, finding.clone()));
            continue;
        }
        parts.push((sets.difference(*set, unresolved), finding.clone()));
        let mut changed = finding.clone();
        if let Some(stop) = &mut changed.stop {
            stop.they_see = Some(TheySee::HostUnreachable);
        }
        parts.push((inside, changed));
    }
    parts
}
