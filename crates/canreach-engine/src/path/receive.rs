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
use crate::path::link::{link_input, seen_cut_off, seen_unresolved};
use crate::path::local::{LocalAsked, local_input};
use crate::path::prerouting::prerouting;
use crate::path::route_input::{Origin, route_input};
use crate::path::socket_lookup::{Lookup, look_up_sockets};
use crate::path::stage::{Asked, Finding, Partition};
use crate::path::tail::Answering;
use crate::path::trail::{Findings, Result, Trail, conclude, overlay};
use crate::{
    Arrival, Doubt, DoubtEffect, DropReason, Fate, Outcome, Question, Stage, Subject, TheySee,
    UnknownReason,
};

/// A walk through a host for packets of one family. It remembers what does not depend on the
/// listener, so that asking about thousands of them costs little more than asking about one.
#[derive(Debug)]
pub struct Walk<'h, 'a> {
    pub(super) host: &'h Host<'a>,
    pub(super) family: Family,
    pub(super) sets: Diagram,
    findings: Findings,
    arrivals: FixedMap<ArrivalKey, Rc<Entry>>,
    pub(super) replies: FixedMap<(ArrivalKey, Answering), Rc<Vec<Partition>>>,
    pub(super) refusals: FixedMap<ArrivalKey, Rc<Refusals>>,
    pub(super) rules: RuleNeeds,
}

/// What a packet's way to the sockets depends on. The port only matters where rules ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ArrivalKey {
    pub(super) proto: Proto,
    pub(super) to: IpAddr,
    pub(super) arrival: Arrival,
    pub(super) port: Option<Port>,
    /// IPv4: policy rules are walked, instead of the merged trie.
    pub(super) split: bool,
}

/// The way to the sockets, walked.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None` where a limit was reached.
    trails: Option<Vec<Trail>>,
    pub(super) to: IpAddr,
    pub(super) device: Option<Ifindex>,
    pub(super) slave: Option<Ifindex>,
    pub(super) source: Option<IpAddr>,
    /// Packets that are delivered as broadcast.
    pub(super) broadcast: PacketSet,
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
            rules,
        }
    }

    /// A walk for the sources of one question. With large tables that is much less work than all
    /// sources are.
    #[must_use]
    pub fn about(host: &'h Host<'a>, question: &Question) -> Self {
        let mut walk = Self::new(host, question.family());
        if matches!(question.via, Arrival::Link(_)) {
            let universe = walk.sets.from_sources(&question.from);
            walk.sets.restrict(universe);
        }
        walk
    }

    /// The fates of all sources of a question of this walk's family: disjoint sets of sources and
    /// source ports that together are every source.
    pub(crate) fn results(&mut self, question: &Question) -> Vec<(PacketSet, Result)> {
        match self.host.is_split() {
            Some(split) => self.results_as(question, split),
            // IPv6 keeps its tables apart always.
            None if self.family == Family::Ipv6 => self.results_as(question, true),
            None => {
                let merged = self.results_as(question, false);
                let split = self.results_as(question, true);
                unless_they_differ(&mut self.sets, &merged, &split)
            }
        }
    }

    /// The same, with the layout of tables local and main taken as known.
    fn results_as(&mut self, question: &Question, split: bool) -> Vec<(PacketSet, Result)> {
        let key = self.arrival_key(question, split);
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
            vec![(self.sets.universe(), result)]
        })
    }

    /// The diagram that the sets of [`Self::results`] live in.
    pub(crate) const fn sets(&mut self) -> &mut Diagram {
        &mut self.sets
    }

    fn arrival_key(&self, question: &Question, split: bool) -> ArrivalKey {
        let Question { proto, to, via: arrival, .. } = question.clone();
        // Who is in a group depends on the sockets of the port.
        let port = (self.rules.ports || to.is_multicast()).then_some(question.port);
        ArrivalKey { proto, to, arrival, port, split }
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
            return Entry {
                trails: overlay(sets, &mut self.findings, Trail::start(sets), &partition),
                to: key.to,
                device: None,
                slave: None,
                source: None,
                broadcast: PacketSet::NONE,
            };
        };
        let mut routed = route_input(host, sets, &asked, Origin::PACKET);
        let mut link = link_input(host, sets, &asked, &routed);
        let unresolved = link.unresolved_if_stopped;
        for partition in routed.partitions.iter_mut().chain([&mut link.partition]) {
            *partition = unreachable_instead(sets, &asked, partition, unresolved);
        }
        let mut stages = vec![
            link.partition,
            vec![(PacketSet::ALL, ingress(host, asked.link))],
            vec![(PacketSet::ALL, prerouting(host, asked.family))],
        ];
        stages.append(&mut routed.partitions);
        stages.push(vec![(PacketSet::ALL, input(host, asked.family))]);
        // Sockets see the VRF, also where routing looks at the link.
        let vrf = asked.vrf.map(|(master, _)| master).filter(|vrf| *vrf != asked.link.ifindex);
        Entry {
            trails: self.walk(Trail::start(&self.sets), &stages),
            to: key.to,
            device: vrf.or(Some(asked.link.ifindex)),
            slave: vrf.map(|_| asked.link.ifindex),
            source: None,
            broadcast: routed.broadcast,
        }
    }

    fn enter_locally(&mut self, key: ArrivalKey, port: Port, uid: u32) -> Entry {
        let asked = LocalAsked { proto: key.proto, port, to: key.to, uid, split: key.split };
        let path = local_input(self.host, &mut self.sets, asked);
        Entry {
            trails: self.walk(Trail::start(&self.sets), &path.partitions),
            to: path.to,
            device: path.device,
            slave: None,
            source: Some(path.source),
            broadcast: PacketSet::NONE,
        }
    }

    fn walk(&mut self, trails: Vec<Trail>, stages: &[Partition]) -> Option<Vec<Trail>> {
        stages.iter().try_fold(trails, |trails, partition| {
            overlay(&mut self.sets, &mut self.findings, trails, partition)
        })
    }

    /// The socket lookup, as unicast and as broadcast where input routing differs by source.
    fn look_up(&mut self, key: ArrivalKey, entry: &Entry, port: Port) -> Vec<Cell> {
        let mut found = Vec::new();
        let unicast = self.sets.not(entry.broadcast);
        for (within, to_everyone) in [(unicast, false), (entry.broadcast, true)] {
            if within.is_empty() {
                continue;
            }
            let query = self.socket_query(key, entry, port, to_everyone);
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
        port: Port,
        entry: &Entry,
        cells: &[Cell],
    ) -> Option<Vec<(PacketSet, Result)>> {
        let mut trails = entry.trails.clone()?;
        for cell in cells {
            let stages = self.stages_behind(key, port, entry, cell);
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
}

/// A link that was not read, or is not there.
fn no_such_link(host: &Host<'_>, sets: &mut Diagram, key: ArrivalKey, via: Ifindex) -> Partition {
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

/// Who resolves the address in vain is told so by the own kernel, or by none.
fn unreachable_instead(
    sets: &mut Diagram,
    asked: &Asked<'_>,
    partition: &Partition,
    unresolved: PacketSet,
) -> Partition {
    let seen = seen_unresolved(sets, asked.proto, asked.to);
    let mut parts = Partition::with_capacity(partition.len());
    for (set, finding) in partition {
        let changes = match &finding.stop {
            None => PacketSet::NONE,
            Some(stop) if finding.stage == Stage::Link => {
                let unreachable = stop.they_see == Some(TheySee::HostUnreachable);
                if unreachable { PacketSet::ALL } else { PacketSet::NONE }
            }
            Some(_) => unresolved,
        };
        parts.push((sets.difference(*set, changes), finding.clone()));
        let inside = sets.and(*set, changes);
        for (who, they_see) in &seen {
            let mut changed = finding.clone();
            if changed.stage == Stage::Forward {
                // It is never sent, so no rule sees it.
                changed.doubts.clear();
            }
            if let Some(stop) = &mut changed.stop {
                stop.they_see = Some(*they_see);
            }
            parts.push((sets.and(inside, *who), changed));
        }
    }
    parts.retain(|(set, _)| !set.is_empty());
    parts
}

/// The layout of tables local and main was not read: what both agree in holds, the rest is unknown.
fn unless_they_differ(
    sets: &mut Diagram,
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
