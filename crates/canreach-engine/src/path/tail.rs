//! What comes behind the socket lookup: gate, reply, output; or the refusal.
//!
//! *Kernel:* `tcp_v4_rcv`, `__udp4_lib_rcv` and their IPv6 twins, from the found socket on.
//! *Decides:* which of these stages a packet meets, and what a refused sender sees.
//! *Reads:* what the stages read.
//! *Not modelled:* what the stages do not model.

use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::{AttachPoint, CgroupId, Port, Proto};

use crate::packet::packet_set::PacketSet;
use crate::path::local::{LocalAnswer, local_reply};
use crate::path::receive::{ArrivalKey, Cell, Entry, Refusals, Walk};
use crate::path::reply::{AnswerKey, mark_doubts, reply, seen_refusals};
use crate::path::socket_gate::socket_gate;
use crate::path::socket_lookup::{Lookup, SocketQuery, detail_doubts, lookup_doubts};
use crate::path::stage::{Asked, Finding, Partition, silence};
use crate::{
    Arrival, DoubtEffect, DropReason, SocketIndex, Stage, Subject, TheySee, UnknownReason,
};

/// What happens behind the lookup, without naming sockets: equal tails have equal fates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Tail {
    /// A socket, or one of several, gets it. Broadcasts are not answered.
    Delivered { answers: Vec<Answering>, gate: Finding, unread: Finding, to_everyone: bool },
    /// None does. The answer is that of the same program, listening where it is asked for.
    Missed { reason: DropReason, answer: Answering, unread: Finding, to_everyone: bool },
}

/// What an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Answering {
    key: AnswerKey,
    /// Matters for programs that see what control groups send.
    cgroup: Option<CgroupId>,
    /// The socket's mark was not read.
    mark_unread: bool,
}

impl Walk<'_, '_> {
    /// What the lookup is asked.
    pub(super) const fn socket_query(
        &self,
        key: ArrivalKey,
        entry: &Entry,
        port: Port,
        to_everyone: bool,
    ) -> SocketQuery {
        SocketQuery {
            family: self.family,
            proto: key.proto,
            port,
            to: entry.to,
            device: entry.device,
            slave: entry.slave,
            to_everyone,
            source: entry.source,
        }
    }

    /// Socket, gate, reply and output, for packets that the lookup gives one result.
    pub(super) fn stages_behind(
        &mut self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        cell: &Cell,
    ) -> Vec<Partition> {
        let set = cell.set;
        let mut stages = Vec::new();
        let answers = match (self.tail(key, port, entry, cell), &cell.lookup) {
            (Tail::Delivered { answers, gate, unread, .. }, Lookup::Sockets(sockets)) => {
                let subject = sockets.first().map(|socket| Subject::Socket(*socket));
                let mut finding = Finding::pass(Stage::Socket, subject);
                finding.sockets.clone_from(sockets);
                stages.extend([unread, finding, gate].map(|finding| vec![(set, finding)]));
                answers
            }
            (Tail::Missed { reason, answer, unread, to_everyone }, Lookup::Missed(_, nearest)) => {
                stages.push(vec![(set, unread)]);
                let subject = nearest.map(Subject::Socket);
                let mut parts = Partition::new();
                for (back, seen) in self.refusal(key, port, entry, to_everyone).iter() {
                    let stop = Finding::stop(Stage::Socket, reason, subject.clone(), *seen);
                    parts.push((self.sets.and(set, *back), stop));
                }
                stages.push(parts);
                vec![answer]
            }
            // A tail is made from its lookup, so no other pair occurs.
            (Tail::Delivered { .. }, Lookup::Missed(..))
            | (Tail::Missed { .. }, Lookup::Sockets(_)) => Vec::new(),
        };
        if !cell.to_everyone {
            for partition in self.replies(key, port, entry, &answers).iter() {
                let parts = partition.iter();
                let within =
                    parts.map(|(back, finding)| (self.sets.and(set, *back), finding.clone()));
                stages.push(within.collect());
            }
        }
        stages
    }

    /// Everything behind the lookup that a fate can depend on.
    pub(super) fn tail(&self, key: ArrivalKey, port: Port, entry: &Entry, cell: &Cell) -> Tail {
        let to_everyone = cell.to_everyone;
        let query = self.socket_query(key, entry, port, to_everyone);
        let mut doubts = lookup_doubts(self.host, key.proto, self.family);
        doubts.extend(detail_doubts(self.host, &query));
        let unread = Finding::doubtful(Stage::Socket, doubts);
        match &cell.lookup {
            Lookup::Sockets(sockets) => {
                let mut answers: Vec<Answering> = Vec::new();
                for socket in sockets {
                    let answer = self.answering(key, port, entry, *socket, true);
                    if !answers.contains(&answer) {
                        answers.push(answer);
                    }
                }
                let gate = socket_gate(self.host, key.proto, sockets);
                Tail::Delivered { answers, gate, unread, to_everyone }
            }
            Lookup::Missed(reason, nearest) => {
                let assumed = Answering {
                    key: AnswerKey {
                        source: Some(entry.to),
                        protocol: key.proto.number(),
                        port: self.rules.ports.then_some(port),
                        by_kernel: false,
                        ..AnswerKey::icmp_error(self.family)
                    },
                    cgroup: None,
                    mark_unread: false,
                };
                let answer = nearest
                    .map_or(assumed, |socket| self.answering(key, port, entry, socket, false));
                Tail::Missed { reason: *reason, answer, unread, to_everyone }
            }
        }
    }

    /// What the answer of a socket is routed by; as it is, or as it would be if it were bound to the
    /// address dialled. What nothing asks for is left out, so that more answers are the same.
    fn answering(
        &self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        socket: SocketIndex,
        as_bound: bool,
    ) -> Answering {
        let socket = &self.host.netns().sockets[socket.0];
        // A listener's answer comes from the address dialled. A UDP socket's comes from the address
        // it is bound to, or from whichever the route has.
        let chosen = key.proto == Proto::Udp && socket.is_wildcard() && as_bound;
        let by_cgroup = |program: &canreach_snapshot::BpfAttachment| {
            matches!(program.point, AttachPoint::CgroupEgress(_))
        };
        let cgroups_matter = self.host.netns().bpf.iter().any(by_cgroup);
        let key = AnswerKey {
            source: (!chosen).then_some(entry.to),
            device: socket.device.filter(|_| as_bound),
            mark: socket.mark.filter(|_| self.rules.mark).map_or(0, |mark| mark.0),
            uid: if self.rules.uid { socket.uid } else { 0 },
            protocol: key.proto.number(),
            port: self.rules.ports.then_some(port),
            transparent: socket.transparent == Some(true),
            by_kernel: false,
        };
        let mark_unread = socket.mark.is_none() && self.rules.mark;
        Answering { key, cgroup: socket.cgroup.filter(|_| cgroups_matter), mark_unread }
    }

    /// The reply and output stages. Members of a group that differ in their answers make it
    /// uncertain which is sent.
    fn replies(
        &mut self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        answers: &[Answering],
    ) -> Rc<Vec<Partition>> {
        let Some((first, others)) = answers.split_first() else { return Rc::default() };
        let stages = self.reply(key, port, entry, *first);
        if others.is_empty() {
            return stages;
        }
        let mut all = self.stopped(&stages);
        let mut some = all;
        for answer in others {
            let stages = self.reply(key, port, entry, *answer);
            let stopped = self.stopped(&stages);
            all = self.sets.and(all, stopped);
            some = self.sets.or(some, stopped);
        }
        let differ = self.sets.difference(some, all);
        let mut united = Vec::new();
        for partition in stages.iter() {
            let mut parts = Partition::new();
            for (set, finding) in partition {
                let kept =
                    if finding.stop.is_some() { self.sets.difference(*set, differ) } else { *set };
                parts.push((kept, finding.clone()));
            }
            united.push(parts);
        }
        let (reason, effect) = (UnknownReason::Multipath, DoubtEffect::MayStop);
        united.push(vec![(differ, Finding::doubt(Stage::Reply, reason, effect, None))]);
        Rc::new(united)
    }

    fn stopped(&mut self, stages: &[Partition]) -> PacketSet {
        let mut stopped = PacketSet::NONE;
        for (set, finding) in stages.iter().flatten() {
            if finding.stop.is_some() {
                stopped = self.sets.or(stopped, *set);
            }
        }
        stopped
    }

    fn reply(
        &mut self,
        key: ArrivalKey,
        port: Port,
        entry: &Entry,
        answer: Answering,
    ) -> Rc<Vec<Partition>> {
        if let Some(known) = self.replies.get(&(key, answer)) {
            return Rc::clone(known);
        }
        let doubts =
            if answer.mark_unread { mark_doubts(self.host, self.family) } else { Vec::new() };
        let mut stages = vec![vec![(PacketSet::ALL, Finding::doubtful(Stage::Reply, doubts))]];
        match key.arrival {
            Arrival::Local { .. } => {
                let asked = local_answer(key, entry, answer.key);
                stages.push(local_reply(self.host, &mut self.sets, asked));
            }
            Arrival::Link(via) => {
                let asked = Asked::new(self.host, key.proto, port, key.to, via, key.split);
                if let Some(asked) = asked {
                    let cgroup = answer.cgroup;
                    let (replies, outputs) =
                        reply(self.host, &mut self.sets, &asked, &answer.key, cgroup);
                    stages.extend([replies, outputs]);
                }
            }
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
        to_everyone: bool,
    ) -> Rc<Refusals> {
        let silence = silence(key.proto);
        if to_everyone {
            return Rc::new(vec![(PacketSet::ALL, Some(silence))]);
        }
        if let Some(known) = self.refusals.get(&key) {
            return Rc::clone(known);
        }
        let seen = match key.arrival {
            Arrival::Local { .. } => {
                let icmp = AnswerKey::icmp_error(self.family);
                let answer = AnswerKey { source: Some(entry.to), ..icmp };
                let back = local_reply(self.host, &mut self.sets, local_answer(key, entry, answer));
                let heard = |finding: &Finding| {
                    if finding.stop.is_some() { silence } else { TheySee::Refused }
                };
                back.iter().map(|(set, finding)| (*set, Some(heard(finding)))).collect()
            }
            Arrival::Link(via) => {
                match Asked::new(self.host, key.proto, port, entry.to, via, key.split) {
                    Some(asked) => {
                        let answer = AnswerKey::refusal(&asked);
                        let sets = &mut self.sets;
                        seen_refusals(self.host, sets, &asked, &answer, TheySee::Refused)
                    }
                    None => vec![(PacketSet::ALL, None)],
                }
            }
        };
        let seen = Rc::new(seen);
        self.refusals.insert(key, Rc::clone(&seen));
        seen
    }
}

fn local_answer(key: ArrivalKey, entry: &Entry, answer: AnswerKey) -> LocalAnswer {
    let client: IpAddr = entry.source.unwrap_or(entry.to);
    LocalAnswer {
        proto: key.proto,
        key: answer,
        to: client,
        device: entry.device,
        dialled: entry.to,
        split: key.split,
    }
}
