//! The walk: every stage in order, for all sources at once.
//!
//! *Kernel:* section 1.1 of the receive path, from the wire to the socket and back.
//! *Decides:* the groups of sources that share a fate.
//! *Reads:* what the stages read.
//! *Not modelled:* what the stages do not model.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::{Family, GapSubject, Ifindex, NfHook, Port, Proto};

use crate::host::Host;
use crate::netfilter::hook::{HookPlace, Neutral, NfStop, Strand};
use crate::netfilter::view::{PacketType, Part, View};
use crate::packet::diagram::FixedMap;
use crate::packet::packet_set::PacketSet;
use crate::path::appearance::{Ends, first};
use crate::path::arrival::arrive;
use crate::path::hook::{gap_doubts, has_rules, walk_hook};
use crate::path::input::input;
use crate::path::link::seen_cut_off;
use crate::path::local::{LocalAsked, local_input, resolved};
use crate::path::rejection::seen_from_wire;
use crate::path::route_input::RouteInput;
use crate::path::sets::Sets;
use crate::path::settle::settle;
use crate::path::socket_lookup::{Lookup, look_up_sockets};
use crate::path::stage::{Asked, Finding, Partition};
use crate::path::tail::Answering;
use crate::path::trail::{Findings, Result, Trail, conclude, divide, overlay, restricted};
use crate::{
    Arrival, Doubt, DoubtEffect, DropReason, Fate, NetnsIndex, Outcome, Question, Stage, Subject,
    TheySee, UnknownReason,
};

/// A walk through a host for packets of one family. It remembers what does not depend on the
/// listener, so that asking about thousands of them costs little more than asking about one.
#[derive(Debug)]
pub struct Walk<'h, 'a> {
    pub(super) host: &'h Host<'a>,
    pub(super) family: Family,
    pub(super) sets: Sets,
    findings: Findings,
    arrivals: FixedMap<ArrivalKey, Rc<Entry>>,
    pub(super) replies: FixedMap<(BranchKey, Answering), Rc<Vec<Partition>>>,
    pub(super) refusals: FixedMap<BranchKey, Rc<Refusals>>,
    pub(super) acknowledgements: FixedMap<BranchKey, Rc<Vec<Partition>>>,
    pub(super) rules: RuleNeeds,
    /// Walks through other namespaces that packets were sent on to. Their sets are in the arena of the
    /// one that the question is about.
    beyond: BTreeMap<NetnsIndex, Box<Self>>,
    /// How many namespaces packets have passed by now.
    depth: usize,
}

/// The most namespaces that a packet is followed through.
const NAMESPACES_MAX: usize = 4;

/// What a packet's way to the sockets depends on. The port only matters where rules ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ArrivalKey {
    pub(super) proto: Proto,
    pub(super) to: IpAddr,
    pub(super) arrival: Arrival,
    pub(super) port: Option<Port>,
    /// IPv4: policy rules are walked, instead of the merged trie.
    pub(super) split: bool,
    /// What it comes from, if another namespace of this machine hands it over.
    pub(super) handed_over: Option<Part>,
}

/// The way to the sockets, walked: a branch for each way that rules made packets look.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None` where a limit was reached.
    pub(super) branches: Option<Vec<Branch>>,
}

/// Packets that look alike when they get to the sockets.
#[derive(Debug)]
pub(super) struct Branch {
    trails: Vec<Trail>,
    /// Where they come from and go to, as rules see it.
    pub(super) view: View,
    /// The address as it was dialled.
    pub(super) dialled: IpAddr,
    /// The address they go to.
    pub(super) to: IpAddr,
    /// The port that rules gave them.
    translated: Option<Port>,
    pub(super) device: Option<Ifindex>,
    pub(super) slave: Option<Ifindex>,
    pub(super) source: Option<IpAddr>,
    /// Packets that are delivered as broadcast.
    pub(super) broadcast: PacketSet,
}

/// A branch, by what it is a branch of.
pub(super) type BranchKey = (ArrivalKey, usize);

/// A branch, for the port of one question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Along<'b> {
    pub(super) key: BranchKey,
    pub(super) branch: &'b Branch,
    /// The port dialled.
    pub(super) dialled: Port,
}

impl Along<'_> {
    /// The port they go to.
    pub(super) fn port(&self) -> Port {
        self.branch.translated.unwrap_or(self.dialled)
    }

    pub(super) const fn arrival(&self) -> ArrivalKey {
        self.key.0
    }
}

/// Packets that the socket lookup gives one result.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) set: PacketSet,
    pub(super) lookup: Lookup,
    /// They are broadcasts.
    pub(super) to_everyone: bool,
}

/// What senders see of a refusal, by source.
pub(super) type Refusals = Vec<(PacketSet, Option<TheySee>)>;

/// What policy rules ask for: lookups that differ in nothing else are the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuleNeeds {
    pub(super) ports: bool,
    pub(super) uid: bool,
    pub(super) mark: bool,
    /// Packet filters are there.
    pub(super) filters: bool,
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
            filters: has_rules(host),
        };
        Self {
            host,
            family,
            sets: Sets::new(family, host.others().here()),
            findings: Findings::default(),
            arrivals: FixedMap::default(),
            replies: FixedMap::default(),
            refusals: FixedMap::default(),
            acknowledgements: FixedMap::default(),
            rules,
            beyond: BTreeMap::new(),
            depth: 0,
        }
    }

    /// A walk for the sources of one question. With large tables that is much less work than all
    /// sources are.
    #[must_use]
    pub fn about(host: &'h Host<'a>, question: &Question) -> Self {
        let mut walk = Self::new(host, question.family());
        walk.sets.names_rules = true;
        if matches!(question.via, Arrival::Link(_)) {
            let universe = walk.sets.from_sources(&question.from);
            walk.sets.restrict(universe);
        }
        walk
    }

    /// Walks as if rules were not there, and policies of chains were accept.
    pub(crate) fn set_aside(&mut self, rules: &BTreeMap<NetnsIndex, Neutral>) {
        self.sets.neutral = rules.clone();
    }

    /// The fates of all sources of a question of this walk's family: disjoint sets of sources and
    /// source ports that together are every source.
    pub(crate) fn results(&mut self, question: &Question) -> Vec<(PacketSet, Result)> {
        let results = self.open_results(question, None);
        settle(&mut self.sets, results)
    }

    /// The same, as long as predicates of rules that cannot be judged are still open.
    fn open_results(
        &mut self,
        question: &Question,
        handed_over: Option<Part>,
    ) -> Vec<(PacketSet, Result)> {
        match self.host.is_split() {
            Some(split) => self.results_as(question, split, handed_over),
            // IPv6 keeps its tables apart always.
            None if self.family == Family::Ipv6 => self.results_as(question, true, handed_over),
            None => {
                let merged = self.results_as(question, false, handed_over);
                let split = self.results_as(question, true, handed_over);
                unless_they_differ(&mut self.sets, &merged, &split)
            }
        }
    }

    /// The same, with the layout of tables local and main taken as known.
    fn results_as(
        &mut self,
        question: &Question,
        split: bool,
        handed_over: Option<Part>,
    ) -> Vec<(PacketSet, Result)> {
        let key = ArrivalKey { handed_over, ..self.arrival_key(question, split) };
        let entry = self.entry(key, question.port);
        self.compose(key, question.port, &entry).unwrap_or_else(|| {
            let fate =
                Fate { outcome: Outcome::Unknown(UnknownReason::LimitReached), they_see: None };
            let result = Result {
                fate,
                steps: Vec::new(),
                blockers: Vec::new(),
                doubts: Vec::new(),
                sockets: Vec::new(),
                netns: None,
            };
            vec![(self.sets.universe(), result)]
        })
    }

    /// What becomes of packets that are handed over to another namespace, in its own terms.
    pub(super) fn results_beyond(
        &mut self,
        netns: NetnsIndex,
        question: &Question,
        source: Part,
    ) -> Option<Vec<(PacketSet, Result)>> {
        if self.depth >= NAMESPACES_MAX {
            return None;
        }
        let host = self.host.others().host(netns)?;
        let mut walk =
            self.beyond.remove(&netns).unwrap_or_else(|| Box::new(Walk::new(host, self.family)));
        walk.depth = self.depth + 1;
        let here = std::mem::replace(&mut self.sets.here, netns);
        std::mem::swap(&mut walk.sets, &mut self.sets);
        let results = walk.open_results(question, Some(source));
        std::mem::swap(&mut walk.sets, &mut self.sets);
        self.sets.here = here;
        self.beyond.insert(netns, walk);
        Some(results)
    }

    /// The diagram that the sets of [`Self::results`] live in.
    pub(crate) const fn sets(&mut self) -> &mut Sets {
        &mut self.sets
    }

    fn arrival_key(&self, question: &Question, split: bool) -> ArrivalKey {
        let Question { proto, to, via: arrival, .. } = question.clone();
        // Who is in a group depends on the sockets of the port.
        let by_port = self.rules.ports || self.rules.filters || to.is_multicast();
        let port = by_port.then_some(question.port);
        ArrivalKey { proto, to, arrival, port, split, handed_over: None }
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
        let Some(asked) = Asked::new(host, key.proto, port, key.to, via, key.split) else {
            let partition = no_such_link(host, sets, key, via);
            let ends = Ends { source: Part::Client, to: key.to, port: port.0 };
            let view = first(key.proto, ends, PacketType::Host);
            let trails = self.walk(Trail::start(&self.sets), &[partition]);
            let branch = |trails| Branch::new(trails, view, (key.to, port), (key.to, port));
            return Entry { branches: trails.map(|trails| vec![branch(trails)]) };
        };
        let source = key.handed_over.unwrap_or(Part::Client);
        let (handed_over, client) = (key.handed_over.is_some(), source.term());
        let asked = Asked { handed_over, client, ..asked };
        let arrival = arrive(host, sets, &asked, (via, source));
        let trails = self.walk(Trail::start(&self.sets), &arrival.stages);
        let branches = trails.and_then(|trails| self.branch_out(&trails, &asked, arrival.branches));
        Entry { branches }
    }

    /// Walks each way that packets look after prerouting up to the sockets.
    fn branch_out(
        &mut self,
        trails: &[Trail],
        asked: &Asked<'_>,
        routed: Vec<(Strand, RouteInput)>,
    ) -> Option<Vec<Branch>> {
        let mut branches = Vec::new();
        let dialled = (asked.to, asked.port);
        for (strand, routed) in routed {
            let within = restricted(&mut self.sets, trails, strand.set);
            let mut stages = routed.partitions;
            let sent_on = self.send_on(asked, routed.sent_on);
            // Where it goes beyond comes before what is said of packets that leave.
            let last = stages.len().saturating_sub(1);
            stages.splice(last..last, sent_on);
            let trails = self.walk(within, &stages)?;
            let entering = vec![self.at_input(asked, strand)];
            let host = self.host;
            let mut seen = |sets: &mut Sets, strand: &Strand, stop: &NfStop| {
                seen_from_wire(host, sets, &asked.as_seen(&strand.view), stop)
            };
            let place = (Stage::Input, HookPlace::at(NfHook::Input));
            let walked = walk_hook(host, &mut self.sets, place, entering, &mut seen);
            let unread = vec![(PacketSet::ALL, input(host, asked.family))];
            let trails = self.walk(trails, &[unread])?;
            let trails = self.divide(trails, &walked.partition)?;
            for strand in walked.strands {
                let trails = restricted(&mut self.sets, &trails, strand.set);
                let Asked { to, port, .. } = asked.as_seen(&strand.view);
                // Sockets see the VRF, also where routing looks at the link.
                let vrf = asked.vrf.map(|(master, _)| master);
                let vrf = vrf.filter(|vrf| *vrf != asked.link.ifindex);
                branches.push(Branch {
                    device: vrf.or(Some(asked.link.ifindex)),
                    slave: vrf.map(|_| asked.link.ifindex),
                    source: match strand.view.source {
                        Part::Is(source) => Some(asked.family.address(source)),
                        Part::Client | Part::Chosen(_) => None,
                    },
                    broadcast: routed.broadcast,
                    ..Branch::new(trails, strand.view, dialled, (to, port))
                });
            }
        }
        Some(branches)
    }

    fn at_input(&self, asked: &Asked<'_>, strand: Strand) -> Strand {
        let slave = (asked.routed_link.ifindex != asked.link.ifindex).then_some(asked.link.ifindex);
        let view = View { iif: Some(asked.routed_link.ifindex), sdif: slave, ..strand.view };
        Strand { view, ..strand }
    }

    fn enter_locally(&mut self, key: ArrivalKey, port: Port, uid: u32) -> Entry {
        let asked = LocalAsked { proto: key.proto, port, to: key.to, uid, split: key.split };
        let path = local_input(self.host, &mut self.sets, asked);
        let mut branches = Some(Vec::new());
        let dialled = resolved(key.to);
        for local in path {
            let start = Trail::start(&self.sets);
            let start = restricted(&mut self.sets, &start, local.within);
            let trails = self.walk(start, &local.partitions);
            let branch = trails.map(|trails| Branch {
                device: local.device,
                source: Some(local.source),
                ..Branch::new(trails, local.view, (dialled, port), (local.to, local.port))
            });
            if let Some(known) = &mut branches {
                match branch {
                    Some(branch) => known.push(branch),
                    None => branches = None,
                }
            }
        }
        Entry { branches }
    }

    fn walk(&mut self, trails: Vec<Trail>, stages: &[Partition]) -> Option<Vec<Trail>> {
        stages.iter().try_fold(trails, |trails, partition| {
            overlay(&mut self.sets, &mut self.findings, trails, partition)
        })
    }

    /// Walks through a stage whose parts are disjoint.
    fn divide(&mut self, trails: Vec<Trail>, partition: &Partition) -> Option<Vec<Trail>> {
        divide(&mut self.sets, &mut self.findings, trails, partition)
    }

    /// The socket lookup, as unicast and as broadcast where input routing differs by source.
    fn look_up(&mut self, along: Along<'_>) -> Vec<Cell> {
        let branch = along.branch;
        if let Some(socket) = branch.view.tproxy {
            // What TPROXY attached is found before any lookup (`inet_steal_sock`).
            let lookup = Lookup::Sockets(vec![socket]);
            return vec![Cell { set: self.sets.universe(), lookup, to_everyone: false }];
        }
        let mut found = Vec::new();
        let unicast = self.sets.not(branch.broadcast);
        for (within, to_everyone) in [(unicast, false), (branch.broadcast, true)] {
            if within.is_empty() {
                continue;
            }
            let query = self.socket_query(along, to_everyone);
            for (set, lookup) in look_up_sockets(self.host, &mut self.sets, &query) {
                let set = self.sets.and(set, within);
                if !set.is_empty() {
                    found.push(Cell { set, lookup, to_everyone });
                }
            }
        }
        found
    }

    /// Walks the stages behind the lookup and reads off the fates.
    fn compose(
        &mut self,
        key: ArrivalKey,
        dialled: Port,
        entry: &Entry,
    ) -> Option<Vec<(PacketSet, Result)>> {
        let success = match key.proto {
            Proto::Tcp => TheySee::Connected,
            Proto::Udp => TheySee::Delivered,
        };
        let mut numbers: FixedMap<Result, usize> = FixedMap::default();
        let mut results: Vec<(PacketSet, Result)> = Vec::new();
        for (number, branch) in entry.branches.as_ref()?.iter().enumerate() {
            let along = Along { key: (key, number), branch, dialled };
            let mut trails = branch.trails.clone();
            for cell in self.look_up(along) {
                let stages = self.stages_behind(along, &cell);
                trails = self.walk(trails, &stages)?;
            }
            if self.sets.is_breached() || self.sets.unknowns.is_breached() {
                return None;
            }
            for trail in &trails {
                let result = conclude(&self.findings, trail, success);
                if let Some(number) = numbers.get(&result) {
                    results[*number].0 = self.sets.or(results[*number].0, trail.set);
                } else {
                    numbers.insert(result.clone(), results.len());
                    results.push((trail.set, result));
                }
            }
        }
        Some(results)
    }
}

impl Branch {
    /// Packets to an address and port as rules left them.
    fn new(
        trails: Vec<Trail>,
        view: View,
        dialled: (IpAddr, Port),
        (to, port): (IpAddr, Port),
    ) -> Self {
        Self {
            trails,
            view,
            dialled: dialled.0,
            to,
            translated: Some(port).filter(|port| *port != dialled.1),
            device: None,
            slave: None,
            source: None,
            broadcast: PacketSet::NONE,
        }
    }
}

/// A link that was not read, or is not there.
fn no_such_link(host: &Host<'_>, sets: &mut Sets, key: ArrivalKey, via: Ifindex) -> Partition {
    let stage = Stage::Link;
    let effect = DoubtEffect::MayRedirect;
    let doubts = gap_doubts(host, stage, effect, |subject| *subject == GapSubject::Links);
    let subject = Some(Subject::Link(via));
    let end = |seen| Finding::end(stage, DropReason::LinkDown, subject.clone(), Some(seen));
    seen_cut_off(host, sets, (key.proto, key.to), via)
        .into_iter()
        .map(|(set, seen)| (set, Finding { doubts: doubts.clone(), ..end(seen) }))
        .collect()
}

/// The layout of tables local and main was not read: what both agree in holds, the rest is unknown.
fn unless_they_differ(
    sets: &mut Sets,
    merged: &[(PacketSet, Result)],
    split: &[(PacketSet, Result)],
) -> Vec<(PacketSet, Result)> {
    let mut agreed = Vec::new();
    for (one_set, one) in merged {
        for (other_set, other) in split {
            let set = sets.and(*one_set, *other_set);
            if set.is_empty() {
                continue;
            }
            let mut result = one.clone();
            if one.fate.outcome != other.fate.outcome {
                let reason = UnknownReason::FibLayout;
                let effect = DoubtEffect::MayRedirect;
                result.fate.outcome = Outcome::Unknown(reason);
                result
                    .doubts
                    .insert(0, Doubt { stage: Stage::Route, reason, effect, subject: None });
                result.fate.they_see = None;
            } else if one.fate != other.fate {
                result.fate.they_see = None;
            }
            agreed.push((set, result));
        }
    }
    agreed
}
