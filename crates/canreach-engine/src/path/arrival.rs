//! From the wire to the input hook: the link, ingress, prerouting, and routing of what comes out of it.
//!
//! *Kernel:* `__netif_receive_skb_core`, `ip_rcv`, `ipv6_rcv`, `ip_rcv_finish`, `ip6_rcv_finish`.
//! *Decides:* what befalls packets up to prerouting, and how each kind is routed then.
//! *Reads:* what the stages read.
//! *Not modelled:* what the stages do not model.

use canreach_snapshot::{Ifindex, NfHook};

use crate::host::Host;
use crate::netfilter::hook::{HookPlace, NfStop, Strand};
use crate::netfilter::view::{Part, View};
use crate::packet::packet_set::PacketSet;
use crate::path::appearance::{arriving, strand};
use crate::path::forward::forward_hooks;
use crate::path::hook::{merge, walk_hook};
use crate::path::ingress::ingress;
use crate::path::link::{link_input, seen_unresolved};
use crate::path::prerouting::prerouting;
use crate::path::rejection::seen_from_wire;
use crate::path::route_input::{Origin, RouteInput, route_input};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Finding, Partition};
use crate::{DoubtEffect, Stage, Subject, TheySee, UnknownReason};

/// Packets behind the prerouting hook.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The stages up to there, for all of them.
    pub(crate) stages: Vec<Partition>,
    /// What they look like now, and how that is routed; forward hooks included.
    pub(crate) branches: Vec<(Strand, RouteInput)>,
}

/// Walks packets from a link up to input routing.
pub(crate) fn arrive(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (via, source): (Ifindex, Part),
) -> Arrival {
    let mut stages = vec![vec![(PacketSet::ALL, ingress(host, asked.link))]];
    let first = View { source, ..arriving(host, asked, via) };
    let mut strands = vec![strand(sets.universe(), first)];
    let places = [
        Some((Stage::Ingress, HookPlace { hook: NfHook::Ingress, link: Some(via) })),
        (via != asked.link.ifindex).then_some((
            Stage::Ingress,
            HookPlace { hook: NfHook::Ingress, link: Some(asked.link.ifindex) },
        )),
        Some((Stage::Prerouting, HookPlace::at(NfHook::Prerouting))),
        // What a VRF takes over passes the hook again as its own (`l3mdev_ip_rcv`).
        (asked.routed_link.ifindex != asked.link.ifindex)
            .then_some((Stage::Prerouting, HookPlace::at(NfHook::Prerouting))),
    ];
    let mut links = vec![asked.link.ifindex, asked.routed_link.ifindex].into_iter();
    let mut passed_rules = Vec::new();
    for (stage, place) in places.into_iter().flatten() {
        if stage == Stage::Prerouting
            && let Some(link) = links.next()
        {
            for strand in &mut strands {
                strand.view.iif = Some(link);
            }
        }
        let mut seen = |sets: &mut Sets, strand: &Strand, stop: &NfStop| {
            seen_from_wire(host, sets, &asked.as_seen(&strand.view), stop)
        };
        let walked = walk_hook(host, sets, (stage, place), strands, &mut seen);
        strands = merge(sets, walked.strands);
        passed_rules.push(walked.partition);
    }
    if via == asked.link.ifindex {
        passed_rules.push(port_hooks(host, sets, asked));
    }
    stages.push(vec![(PacketSet::ALL, prerouting(host, asked.family))]);
    let mut branches = Vec::new();
    for strand in strands {
        let routed = route(host, sets, asked, &strand);
        branches.push((strand, routed));
    }
    // The link stage asks what becomes of the packets once they are in.
    let mut as_routed = RouteInput::empty();
    for (strand, routed) in &branches {
        as_routed.add(sets, strand.set, routed);
    }
    let link = link_input(host, sets, asked, &as_routed);
    let unresolved = link.unresolved_if_stopped;
    stages.insert(0, link.partition);
    stages.append(&mut passed_rules);
    let routed = branches.iter_mut().flat_map(|(_, routed)| &mut routed.partitions);
    for partition in stages.iter_mut().chain(routed) {
        *partition = unreachable_instead(sets, asked, partition, unresolved);
    }
    Arrival { stages, branches }
}

/// A question that names a bridge does not say by which port packets come in: what the hooks of one of
/// them stop, those of another may let pass. What all of them stop is stopped.
fn port_hooks(host: &Host<'_>, sets: &mut Sets, asked: &Asked<'_>) -> Partition {
    let links = host.netns().links.iter();
    let ports = links.filter(|port| port.master == Some(asked.link.ifindex));
    let ports: Vec<Ifindex> = ports.map(|port| port.ifindex).collect();
    let mut partition = Partition::new();
    let mut by_all = if ports.is_empty() { PacketSet::NONE } else { PacketSet::ALL };
    let mut first = Partition::new();
    let mut doubted = Vec::new();
    for (number, port) in ports.into_iter().enumerate() {
        let place = HookPlace { hook: NfHook::Ingress, link: Some(port) };
        let mut seen = |sets: &mut Sets, strand: &Strand, stop: &NfStop| {
            seen_from_wire(host, sets, &asked.as_seen(&strand.view), stop)
        };
        let entering = vec![strand(sets.universe(), arriving(host, asked, port))];
        let walked = walk_hook(host, sets, (Stage::Ingress, place), entering, &mut seen);
        let mut stopped = PacketSet::NONE;
        for (set, finding) in walked.partition {
            if finding.stop.is_some() {
                stopped = sets.or(stopped, set);
                doubted.push((set, port));
                if number == 0 {
                    first.push((set, finding));
                }
            } else if !finding.doubts.is_empty() {
                partition.push((set, finding));
            }
        }
        by_all = sets.and(by_all, stopped);
    }
    for (set, finding) in first {
        partition.push((sets.and(set, by_all), finding));
    }
    for (set, port) in doubted {
        let (reason, effect) = (UnknownReason::NotModelled, DoubtEffect::MayStop);
        let doubt = Finding::doubt(Stage::Ingress, reason, effect, Some(Subject::Link(port)));
        partition.push((sets.difference(set, by_all), doubt));
    }
    partition.retain(|(set, _)| !set.is_empty());
    partition
}

/// Routes packets as rules left them, and sends those that go on through the forward hooks.
fn route(host: &Host<'_>, sets: &mut Sets, asked: &Asked<'_>, strand: &Strand) -> RouteInput {
    let seen = asked.as_seen(&strand.view);
    let origin = Origin { source: strand.view.source.term(), ..Origin::PACKET };
    let mut routed = route_input(host, sets, &seen, origin);
    if routed.forwards.is_empty() {
        return routed;
    }
    let mut forwarded = Vec::new();
    for (set, link) in &routed.forwards {
        let set = sets.and(*set, strand.set);
        let (iif, oif) = (Some(seen.routed_link.ifindex), Some(*link));
        let view = View { iif, oif, ..strand.view.clone() };
        forwarded.push(Strand { set, view, by: None });
    }
    let (hooks, sent_on) = forward_hooks(host, sets, &seen, forwarded);
    routed.sent_on = sent_on;
    let last = routed.partitions.len().saturating_sub(1);
    routed.partitions.splice(last..last, hooks);
    routed
}

impl RouteInput {
    fn empty() -> Self {
        Self {
            partitions: Vec::new(),
            local: PacketSet::NONE,
            broadcast: PacketSet::NONE,
            forwards: Vec::new(),
            sent_on: Vec::new(),
        }
    }

    /// Adds what becomes of some packets.
    fn add(&mut self, sets: &mut Sets, within: PacketSet, other: &Self) {
        for partition in &other.partitions {
            let parts = partition.iter();
            let parts = parts.map(|(set, finding)| (sets.and(*set, within), finding.clone()));
            self.partitions.push(parts.collect());
        }
        let local = sets.and(other.local, within);
        self.local = sets.or(self.local, local);
        let broadcast = sets.and(other.broadcast, within);
        self.broadcast = sets.or(self.broadcast, broadcast);
        for (set, link) in &other.forwards {
            self.forwards.push((sets.and(*set, within), *link));
        }
    }
}

/// Who resolves the address in vain is told so by the own kernel, or by none.
fn unreachable_instead(
    sets: &mut Sets,
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
