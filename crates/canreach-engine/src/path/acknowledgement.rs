//! The client's second packet: the handshake is complete when it gets through as well.
//!
//! *Kernel:* `tcp_check_req`: the hooks see the packet as they saw the first, of a connection that is
//! established by now.
//! *Decides:* whom rules stop at this point.
//! *Reads:* rules.
//! *Not modelled:* early demultiplexing; routes that depend on a mark which only the first packet got.

use canreach_snapshot::{Ifindex, NfHook};

use crate::host::Host;
use crate::netfilter::hook::{HookPlace, NfStop, Strand};
use crate::netfilter::view::{PacketType, Part, View};
use crate::packet::packet_set::PacketSet;
use crate::path::appearance::{Ends, LOOPBACK, arriving, between, first, second, strand};
use crate::path::hook::walk_hook;
use crate::path::receive::{Along, Branch};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Partition};
use crate::{Arrival, Stage, TheySee};

/// The answer has arrived by then, so connect(2) has returned: the client finds out later.
pub(super) const SEEN: TheySee = TheySee::Connected;

/// What rules do to it.
pub(super) fn acknowledgement(
    host: &Host<'_>,
    sets: &mut Sets,
    along: Along<'_>,
) -> Vec<Partition> {
    let (key, branch) = (along.arrival(), along.branch);
    let answered = &branch.view;
    match key.arrival {
        Arrival::Link(via) => {
            let asked = Asked::new(host, key.proto, along.dialled, key.to, via, key.split);
            let Some(asked) = asked else { return Vec::new() };
            let source = key.handed_over.unwrap_or(Part::Client);
            let first = View { source, ..arriving(host, &asked, via) };
            let view = second(first, answered);
            let link = Some(asked.routed_link.ifindex);
            let places = [
                (Stage::Ingress, NfHook::Ingress, (Some(via), None)),
                (Stage::Prerouting, NfHook::Prerouting, (link, None)),
                (Stage::Input, NfHook::Input, (link, None)),
            ];
            walk_hooks(host, sets, SEEN, strand(sets.universe(), view), &places)
        }
        Arrival::Local { uid } => {
            let source = branch.client();
            let ends = Ends { source, to: branch.dialled, port: along.dialled.0 };
            let first = first(key.proto, ends, PacketType::Host);
            let view = second(View { sender_uid: Some(uid), ..first }, answered);
            walk_hooks(host, sets, SEEN, strand(sets.universe(), view), &ROUND_TRIP)
        }
    }
}

/// The hooks that a packet of this machine to itself passes.
pub(super) const ROUND_TRIP: [Place; 6] = [
    (Stage::Output, NfHook::Output, (None, LOOPBACK)),
    (Stage::Output, NfHook::Postrouting, (None, LOOPBACK)),
    (Stage::Output, NfHook::Egress, (None, LOOPBACK)),
    (Stage::Ingress, NfHook::Ingress, (LOOPBACK, None)),
    (Stage::Prerouting, NfHook::Prerouting, (LOOPBACK, None)),
    (Stage::Input, NfHook::Input, (LOOPBACK, None)),
];

/// A hook, and the links it has in and out.
pub(super) type Place = (Stage, NfHook, (Option<Ifindex>, Option<Ifindex>));

/// Sends packets through hooks one after the other. `they_see` is what a client sees whose packet, or
/// whose answer, rules stop.
pub(super) fn walk_hooks(
    host: &Host<'_>,
    sets: &mut Sets,
    they_see: TheySee,
    entering: Strand,
    places: &[Place],
) -> Vec<Partition> {
    let mut unheard = |_: &mut Sets, _: &Strand, _: &NfStop| vec![(PacketSet::ALL, Some(they_see))];
    let mut strands = vec![entering];
    let mut partitions = Vec::new();
    for (stage, hook, links) in places {
        let strands_here = between(strands, *links);
        let place = (*stage, place_of(*hook, *links));
        let walked = walk_hook(host, sets, place, strands_here, &mut unheard);
        partitions.push(walked.partition);
        strands = walked.strands;
    }
    partitions
}

/// Ingress and egress are hooks of a link, the others of all.
pub(super) fn place_of(hook: NfHook, (iif, oif): (Option<Ifindex>, Option<Ifindex>)) -> HookPlace {
    let link = match hook {
        NfHook::Ingress => iif,
        NfHook::Egress => oif,
        NfHook::Prerouting
        | NfHook::Input
        | NfHook::Forward
        | NfHook::Output
        | NfHook::Postrouting => None,
    };
    HookPlace { hook, link }
}

impl Branch {
    /// The client's address as it was when it sent.
    fn client(&self) -> Part {
        self.view.connection.original.map_or(self.view.source, |tuple| tuple.source)
    }
}
