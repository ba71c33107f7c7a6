//! Packets that are sent on to another namespace of this machine, and the way of the answer back
//! through this one.
//!
//! *Kernel:* `veth_xmit`, `br_dev_xmit` (what leaves comes in at the other end, without mark and
//! connection), then `ip_forward` and its IPv6 twin for the answer.
//! *Decides:* what becomes of the packets there, and whether the answer gets back.
//! *Reads:* the other namespaces of the snapshot, routes, forwarding, rules.
//! *Not modelled:* br_netfilter and the bridge's own chains; the reverse-path filter for the answer,
//! which comes back the way the packet went; hop limits.

use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{Ifindex, LinkSysctl, NfHook, Port, Proto};

use crate::host::Host;
use crate::host::flow::{Flow, Found, PortTerm, Term, WayKind};
use crate::host::others::Leads;
use crate::netfilter::hook::Strand;
use crate::netfilter::view::{Part, Turn, View};
use crate::packet::packet_set::PacketSet;
use crate::path::acknowledgement::{Place, SEEN, walk_hooks};
use crate::path::appearance::{arriving, second, strand};
use crate::path::hook::has_rules;
use crate::path::receive::Walk;
use crate::path::route_input::{Origin, flow, forwarding};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Beyond, Finding, Partition};
use crate::{
    AddressSet, Arrival, DoubtEffect, DropReason, Question, Stage, Subject, TheySee, UnknownReason,
};

impl Walk<'_, '_> {
    /// Follows packets to where the link they leave by leads, as far as that is on this machine.
    pub(super) fn send_on(&mut self, asked: &Asked<'_>, strands: Vec<Strand>) -> Vec<Partition> {
        let mut partitions = Vec::new();
        for strand in strands {
            partitions.extend(self.send_one_on(asked, &strand));
        }
        partitions
    }

    fn send_one_on(&mut self, asked: &Asked<'_>, strand: &Strand) -> Vec<Partition> {
        let stage = Stage::Forward;
        let seen = asked.as_seen(&strand.view);
        let Some(link) = strand.view.oif else { return Vec::new() };
        let next = next_hop(self.host, &mut self.sets, &seen).unwrap_or(seen.to);
        let subject = Some(Subject::Link(link));
        let unknown = |reason| {
            let doubt = Finding::doubt(stage, reason, DoubtEffect::MayRedirect, subject.clone());
            vec![vec![(strand.set, Finding { ends: true, ..doubt })]]
        };
        let (netns, peer) = match self.host.others().leads(self.host, link, next) {
            Leads::Away => return Vec::new(),
            Leads::Somewhere => return unknown(UnknownReason::OtherNamespace),
            Leads::Nobody => {
                // The neighbour is asked for in vain, and the sender is told so.
                let silence = asked.silence();
                let unreachable = match asked.proto {
                    Proto::Tcp => TheySee::HostUnreachable,
                    Proto::Udp => silence,
                };
                let reason = DropReason::NeighborSilent;
                let end = Finding::end(stage, reason, subject.clone(), Some(unreachable));
                return vec![vec![(strand.set, end)]];
            }
            Leads::To(netns, peer) => (netns, peer),
        };
        let question = Question {
            proto: asked.proto,
            port: seen.port,
            from: AddressSet::all(asked.family),
            to: seen.to,
            via: Arrival::Link(peer),
        };
        let Some(results) = self.results_beyond(netns, &question, strand.view.source) else {
            return unknown(UnknownReason::LimitReached);
        };
        let mut beyond = Partition::new();
        for (set, result) in results {
            let set = self.sets.and(set, strand.set);
            let finding = Finding {
                beyond: Some(Rc::new(Beyond { netns, result })),
                ..Finding::pass(stage, subject.clone())
            };
            beyond.push((set, finding));
        }
        beyond.retain(|(set, _)| !set.is_empty());
        let mut partitions = vec![beyond];
        partitions.extend(come_back(self.host, &mut self.sets, asked, (strand, link)));
        let end = Finding { ends: true, ..Finding::pass(stage, None) };
        partitions.push(vec![(strand.set, end)]);
        partitions
    }
}

/// The router that packets are handed to, where their route has one.
fn next_hop(host: &Host<'_>, sets: &mut Sets, asked: &Asked<'_>) -> Option<IpAddr> {
    let origin = Origin { source: asked.client, ..Origin::PACKET };
    let flow = flow(host, asked, origin);
    let universe = sets.universe();
    let found = host.look_up(sets, &flow, universe);
    let gateway = |(_, found): &(PacketSet, Found)| match found {
        Found::Route { way, .. } => {
            host.fib(asked.family).way(*way).exits.first().and_then(|exit| exit.gateway)
        }
        Found::Refused { .. } => None,
    };
    found.iter().find_map(gateway)
}

/// The answer on its way through this namespace: routed by the link it comes back in by, through the
/// forward and postrouting hooks, and then the client's second packet the same way again.
fn come_back(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (sent, by): (&Strand, Ifindex),
) -> Vec<Partition> {
    let view = &sent.view;
    let Some(link) = host.link(by) else { return Vec::new() };
    let back = Asked { routed_link: link, link, ..asked.as_seen(view) };
    let mut partitions = vec![route_back(host, sets, asked, &back, sent)];
    if !has_rules(host) {
        return partitions;
    }
    let answer = View {
        iif: Some(by),
        connection: view.connection.detached(),
        filled_sets: view.filled_sets.clone(),
        ..View::new(
            view.family,
            view.protocol,
            Turn::Answer,
            (view.destination, view.destination_port),
            (view.source, view.source_port),
        )
    };
    let via = Some(asked.link.ifindex);
    let through = |iif, oif| -> [Place; 3] {
        [
            (Stage::Prerouting, NfHook::Prerouting, (iif, None)),
            (Stage::Forward, NfHook::Forward, (iif, oif)),
            (Stage::Forward, NfHook::Postrouting, (None, oif)),
        ]
    };
    let mut places = through(Some(by), via);
    for (stage, ..) in &mut places {
        *stage = Stage::Output;
    }
    partitions.extend(walk_hooks(host, sets, asked.silence(), strand(sent.set, answer), &places));
    if asked.proto == Proto::Tcp {
        let first = arriving(host, asked, asked.link.ifindex);
        let again = second(View { source: Part::Client, ..first }, view);
        let places = through(via, Some(by));
        partitions.extend(walk_hooks(host, sets, SEEN, strand(sent.set, again), &places));
    }
    partitions
}

/// Whether the answer is forwarded to where the packet came from.
fn route_back(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    back: &Asked<'_>,
    sent: &Strand,
) -> Partition {
    let stage = Stage::Reply;
    let silence = Some(asked.silence());
    let forwards = forwarding(host, back);
    if !forwards.is_set() {
        let subject = Some(Subject::LinkSysctl {
            sysctl: LinkSysctl::Forwarding,
            link: Some(back.link.ifindex),
            value: forwards.value,
        });
        let stop = Finding::stop(stage, DropReason::NoReplyRoute, subject, silence);
        return vec![(sent.set, stop)];
    }
    let port = |part: Part| match part {
        Part::Is(port) => Port(port as u16),
        Part::Client | Part::Chosen(_) => back.port,
    };
    let flow = Flow {
        family: asked.family,
        destination: asked.client,
        source: Term::Is(address_value(back.to)),
        iif: back.link.ifindex,
        oif: None,
        mark: 0,
        uid: 0,
        vrf_table: back.vrf.map(|(_, table)| table),
        protocol: asked.proto.number(),
        source_port: PortTerm::Is(port(sent.view.destination_port).0),
        destination_port: PortTerm::AnySourcePort,
        strict: false,
        split: asked.split,
    };
    let mut parts = Partition::new();
    for (set, found) in host.look_up(sets, &flow, sent.set) {
        let finding = match found {
            Found::Refused { route, rule, .. } => {
                let subject = route.map(Subject::Route).or_else(|| rule.map(Subject::PolicyRule));
                Finding::stop(stage, DropReason::NoReplyRoute, subject, silence)
            }
            Found::Route { route, way } => {
                let way = host.fib(asked.family).way(way);
                let returns = way.exits.iter().any(|exit| exit.link == asked.link.ifindex);
                let all = way.exits.iter().all(|exit| exit.link == asked.link.ifindex);
                let subject = Some(Subject::Route(route));
                match way.kind {
                    WayKind::Unicast if returns && all => Finding::pass(stage, subject),
                    WayKind::Unicast => {
                        let reason = if returns {
                            UnknownReason::Multipath
                        } else {
                            UnknownReason::ReplyElsewhere
                        };
                        Finding::doubt(stage, reason, DoubtEffect::MayStop, subject)
                    }
                    WayKind::Local | WayKind::Broadcast | WayKind::Anycast | WayKind::Multicast => {
                        Finding::stop(stage, DropReason::NoReplyRoute, subject, silence)
                    }
                }
            }
        };
        parts.push((set, finding));
    }
    parts
}
