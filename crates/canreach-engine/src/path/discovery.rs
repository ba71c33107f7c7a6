//! Neighbour discovery of IPv6 through rules: it is ICMPv6, and passes the same hooks as other packets.
//!
//! *Kernel:* `ndisc_recv_ns`, `ndisc_send_na` (net/ipv6/ndisc.c), behind `ip6_mc_input` and in front of
//! `NF_INET_LOCAL_OUT`.
//! *Decides:* whose question who has the address, or whose answer to it, rules stop: these never send.
//! *Reads:* rules.
//! *Not modelled:* senders that know the neighbour from before; our own questions about senders, which
//! are not asked as long as theirs has told us where they are.

use std::net::IpAddr;

use canreach_snapshot::NfHook;
use canreach_snapshot::address::address_value;

use crate::Stage;
use crate::host::Host;
use crate::netfilter::hook::{NfStop, Strand};
use crate::netfilter::view::{PacketType, Part, Turn, View};
use crate::packet::packet_set::PacketSet;
use crate::path::acknowledgement::place_of;
use crate::path::appearance::strand;
use crate::path::hook::{has_rules, walk_hook};
use crate::path::link::seen_unresolved;
use crate::path::rejection::icmp_number;
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Partition};

/// Type numbers of RFC 4861.
const NEIGHBOR_SOLICITATION: u128 = 135;
const NEIGHBOR_ADVERTISEMENT: u128 = 136;

/// Sends the question, and the answer to it, through the hooks. Each asker is a set of senders, and
/// who asks for them: themselves, or a router.
pub(super) fn discovery(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    askers: &[(PacketSet, Part)],
) -> Vec<Partition> {
    let IpAddr::V6(target) = asked.to else { return Vec::new() };
    if !has_rules(host) {
        return Vec::new();
    }
    // The solicited-node group of an address (RFC 4291, 2.7.1).
    let group = (0xff02_u128 << 112) | (1 << 32) | 0xff00_0000 | (target.to_bits() & 0xff_ffff);
    let link = Some(asked.link.ifindex);
    let protocol = icmp_number(asked.family);
    let code = Part::Is(0);
    let (mut questions, mut answers) = (Vec::new(), Vec::new());
    for (set, asker) in askers {
        let from = (*asker, Part::Is(NEIGHBOR_SOLICITATION));
        let question =
            View::new(asked.family, protocol, Turn::Solicitation, from, (Part::Is(group), code));
        let packet_type = PacketType::Multicast;
        questions.push(strand(*set, View { iif: link, packet_type, ..question }));
        let from = (Part::Is(address_value(asked.to)), Part::Is(NEIGHBOR_ADVERTISEMENT));
        let answer = View::new(asked.family, protocol, Turn::Advertisement, from, (*asker, code));
        answers.push(strand(*set, View { oif: link, ..answer }));
    }
    let seen = seen_unresolved(sets, asked.proto, asked.to);
    let seen: Vec<_> = seen.into_iter().map(|(set, seen)| (set, Some(seen))).collect();
    let mut unresolved = |_: &mut Sets, _: &Strand, _: &NfStop| seen.clone();
    let mut partitions = Vec::new();
    let ways = [
        (questions, [NfHook::Ingress, NfHook::Prerouting, NfHook::Input]),
        (answers, [NfHook::Output, NfHook::Postrouting, NfHook::Egress]),
    ];
    for (mut strands, hooks) in ways {
        for hook in hooks {
            let place = (Stage::Link, place_of(hook, (link, link)));
            let walked = walk_hook(host, sets, place, strands, &mut unresolved);
            partitions.push(walked.partition);
            strands = walked.strands;
        }
    }
    for partition in &mut partitions {
        // What lets it pass is nothing to tell.
        partition.retain(|(_, finding)| finding.stop.is_some() || !finding.doubts.is_empty());
    }
    partitions
}
