//! What may still refuse a packet once its socket is found.
//!
//! *Kernel:* `tcp_conn_request`, `sk_acceptq_is_full`, `sk_filter_trim_cap`, `tcp_v6_conn_request`,
//! `udpv6_sendmsg`.
//! *Decides:* the accept queue is full; IPv4-mapped sources; doubts about cgroup programs.
//! *Reads:* backlogs, BPF attachments of control groups, the gap about them.
//! *Not modelled:* socket filters, MD5 and AO keys, IP_MINTTL, security modules, SYN cookies, receive
//! buffers.

use canreach_snapshot::{AttachPoint, Backlog, Family, GapSubject, Proto};

use crate::AddressSet;
use crate::host::Host;
use crate::packet::packet_set::PacketSet;
use crate::path::hook::gap_doubts;
use crate::path::sets::Sets;
use crate::path::stage::Finding;
use crate::{Doubt, DoubtEffect, DropReason, SocketIndex, Stage, Subject, TheySee, UnknownReason};

/// The programs of the control groups of the sockets that could get it.
pub(crate) fn socket_programs(host: &Host<'_>, sockets: &[SocketIndex]) -> Finding {
    let stage = Stage::Gate;
    let mut doubts = Vec::new();
    for (index, program) in host.netns().bpf.iter().enumerate() {
        let of_group = |id| {
            sockets.iter().any(|socket| {
                host.netns().sockets[socket.0].cgroup.is_none_or(|cgroup| cgroup == id)
            })
        };
        if matches!(program.point, AttachPoint::CgroupIngress(id) if of_group(id)) {
            doubts.push(Doubt {
                stage,
                reason: UnknownReason::OpaqueProgram,
                effect: DoubtEffect::MayStop,
                subject: Some(Subject::Bpf(index)),
            });
        }
    }
    doubts.extend(gap_doubts(host, stage, DoubtEffect::MayStop, |subject| {
        *subject == GapSubject::CgroupBpf
    }));
    Finding::doubtful(stage, doubts)
}

/// The accept queues of the sockets that could get it.
pub(crate) fn socket_gate(host: &Host<'_>, proto: Proto, sockets: &[SocketIndex]) -> Finding {
    let stage = Stage::Gate;
    let is_full = |index: &&SocketIndex| {
        proto == Proto::Tcp && host.netns().sockets[index.0].backlog.is_some_and(Backlog::is_full)
    };
    let full: Vec<_> = sockets.iter().filter(is_full).collect();
    let Some(first) = full.first() else { return Finding::pass(stage, None) };
    let subject = Some(Subject::Socket(**first));
    if full.len() < sockets.len() {
        // Which member of the group is asked depends on a secret hash.
        return Finding::doubt(stage, UnknownReason::Multipath, DoubtEffect::MayStop, subject);
    }
    Finding::stop(stage, DropReason::BacklogFull, subject, Some(TheySee::Timeout))
}

/// IPv6 packets from ::ffff:0:0/96: no TCP server takes them (`tcp_v6_conn_request`), and what a UDP
/// server sends there leaves as IPv4, or not at all (`udpv6_sendmsg`).
pub(crate) fn mapped_sources(sets: &mut Sets, family: Family) -> PacketSet {
    if family == Family::Ipv4 {
        return PacketSet::NONE;
    }
    let (low, high) = (0xffff << 32, 0xffff_ffff_ffff);
    sets.from_sources(&AddressSet::from_ranges(family, [(low, high)]))
}
