//! What comes behind the socket lookup: gate, reply, output; or the refusal.
//!
//! *Kernel:* `tcp_v4_rcv`, `__udp4_lib_rcv` and their IPv6 twins, from the found socket on.
//! *Decides:* which of these stages a packet meets, and what a refused sender sees.
//! *Reads:* what the stages read.
//! *Not modelled:* what the stages do not model.

use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::{AttachPoint, CgroupId, Family, GlobalSysctl, Proto, Socket};

use crate::host::Host;
use crate::packet::packet_set::PacketSet;
use crate::path::acknowledgement::acknowledgement;
use crate::path::appearance::Message;
use crate::path::local::{LocalAnswer, local_reply};
use crate::path::receive::{Along, Branch, Cell, Refusals, Walk};
use crate::path::reply::{AnswerKey, mark_doubts, reply, seen_refusals};
use crate::path::socket_gate::{mapped_sources, socket_gate, socket_programs};
use crate::path::socket_lookup::{Lookup, SocketQuery, detail_doubts, lookup_doubts};
use crate::path::stage::{Asked, Finding, Partition, silence};
use crate::{
    Arrival, DoubtEffect, DropReason, SocketIndex, Stage, Subject, TheySee, UnknownReason,
};

/// What happens behind the lookup, without naming sockets: equal tails have equal fates.
#[allow(clippy::large_enum_variant, reason = "one lives at a time, for the length of one lookup")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Tail {
    /// A socket, or one of several, gets it. Broadcasts are not answered.
    Delivered {
        answers: Vec<Answering>,
        programs: Finding,
        gate: Finding,
        unread: Finding,
        to_everyone: bool,
    },
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
    /// A datagram goes back from another address than the one dialled: TPROXY gave it to the socket.
    elsewhere: bool,
}

impl Walk<'_, '_> {
    /// What the lookup is asked.
    pub(super) fn socket_query(&self, along: Along<'_>, to_everyone: bool) -> SocketQuery {
        SocketQuery {
            family: self.family,
            proto: along.arrival().proto,
            port: along.port(),
            to: along.branch.to,
            device: along.branch.device,
            slave: along.branch.slave,
            to_everyone,
            source: along.branch.source,
        }
    }

    /// Socket, gate, reply and output, for packets that the lookup gives one result.
    pub(super) fn stages_behind(&mut self, along: Along<'_>, cell: &Cell) -> Vec<Partition> {
        let set = cell.set;
        let mut stages = Vec::new();
        let answers = match (self.tail(along, cell), &cell.lookup) {
            (Tail::Delivered { answers, programs, gate, unread, .. }, Lookup::Sockets(sockets)) => {
                let subject = sockets.first().map(|socket| Subject::Socket(*socket));
                let mut finding = Finding::pass(Stage::Socket, subject);
                finding.sockets.clone_from(sockets);
                stages.extend([unread, finding, programs].map(|finding| vec![(set, finding)]));
                stages.push(self.mapped(along, set));
                stages.push(vec![(set, gate)]);
                answers
            }
            (Tail::Missed { reason, answer, unread, to_everyone }, Lookup::Missed(_, nearest)) => {
                stages.push(vec![(set, unread)]);
                let subject = nearest.map(Subject::Socket);
                let mut parts = Partition::new();
                for (back, seen) in self.refusal(along, to_everyone).iter() {
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
            let replies = self.replies(along, &answers);
            let acknowledged = self.acknowledged(along);
            for partition in replies.iter().chain(acknowledged.iter()) {
                let parts = partition.iter();
                let within =
                    parts.map(|(back, finding)| (self.sets.and(set, *back), finding.clone()));
                stages.push(within.collect());
            }
        }
        stages
    }

    /// What befalls the client's second packet.
    fn acknowledged(&mut self, along: Along<'_>) -> Rc<Vec<Partition>> {
        if along.arrival().proto == Proto::Udp || !self.rules.filters {
            return Rc::default();
        }
        if let Some(known) = self.acknowledgements.get(&along.key) {
            return Rc::clone(known);
        }
        let stages = Rc::new(acknowledgement(self.host, &mut self.sets, along));
        self.acknowledgements.insert(along.key, Rc::clone(&stages));
        stages
    }

    /// TCP takes no connection from IPv4-mapped sources.
    fn mapped(&mut self, along: Along<'_>, set: PacketSet) -> Partition {
        let arrival = along.arrival();
        if arrival.proto == Proto::Udp || matches!(arrival.arrival, Arrival::Local { .. }) {
            return Partition::new();
        }
        let mapped = mapped_sources(&mut self.sets, self.family);
        let silence = Some(silence(Proto::Tcp));
        let stop = Finding::stop(Stage::Gate, DropReason::Martian, None, silence);
        vec![(self.sets.and(set, mapped), stop)]
    }

    /// Everything behind the lookup that a fate can depend on.
    pub(super) fn tail(&self, along: Along<'_>, cell: &Cell) -> Tail {
        let to_everyone = cell.to_everyone;
        let query = self.socket_query(along, to_everyone);
        let mut doubts = lookup_doubts(self.host, along.arrival().proto, self.family);
        doubts.extend(detail_doubts(self.host, &query));
        let unread = Finding::doubtful(Stage::Socket, doubts);
        match &cell.lookup {
            Lookup::Sockets(sockets) => {
                let mut answers: Vec<Answering> = Vec::new();
                for socket in sockets {
                    let answer = self.answering(along, *socket, true);
                    if !answers.contains(&answer) {
                        answers.push(answer);
                    }
                }
                let programs = socket_programs(self.host, sockets);
                let gate = socket_gate(self.host, along.arrival().proto, sockets);
                Tail::Delivered { answers, programs, gate, unread, to_everyone }
            }
            Lookup::Missed(reason, nearest) => {
                let assumed = Answering {
                    key: AnswerKey {
                        source: Some(along.branch.to),
                        protocol: along.arrival().proto.number(),
                        port: self.rules.ports.then_some(along.port()),
                        by_kernel: false,
                        ..AnswerKey::icmp_error(self.family)
                    },
                    cgroup: None,
                    mark_unread: false,
                    elsewhere: false,
                };
                let answer = nearest.map_or(assumed, |socket| self.answering(along, socket, false));
                Tail::Missed { reason: *reason, answer, unread, to_everyone }
            }
        }
    }

    /// What the answer of a socket is routed by; as it is, or as it would be if it were bound to the
    /// address dialled. What nothing asks for is left out, so that more answers are the same.
    fn answering(&self, along: Along<'_>, index: SocketIndex, as_bound: bool) -> Answering {
        let socket = &self.host.netns().sockets[index.0];
        // A listener's answer comes from the address dialled. A UDP socket's comes from the address
        // it is bound to, or from whichever the route has.
        let chosen = along.arrival().proto == Proto::Udp && socket.is_wildcard() && as_bound;
        let by_cgroup = |program: &canreach_snapshot::BpfAttachment| {
            matches!(program.point, AttachPoint::CgroupEgress(_))
        };
        let cgroups_matter = self.host.netns().bpf.iter().any(by_cgroup);
        let key = AnswerKey {
            source: (!chosen).then_some(along.branch.to),
            device: socket.device.filter(|_| as_bound),
            mark: self.answer_mark(along.branch, socket),
            uid: if self.rules.uid || self.rules.filters { socket.uid } else { 0 },
            protocol: along.arrival().proto.number(),
            port: self.rules.ports.then_some(along.port()),
            transparent: socket.transparent == Some(true),
            by_kernel: false,
            socket: self.rules.filters.then_some(index),
        };
        let mark_unread = socket.mark.is_none() && self.rules.mark;
        let bound = socket.address.to_canonical();
        let elsewhere = along.branch.view.tproxy.is_some()
            && socket.proto == Proto::Udp
            && !socket.is_wildcard()
            && bound != along.branch.to;
        let cgroup = socket.cgroup.filter(|_| cgroups_matter);
        Answering { key, cgroup, mark_unread, elsewhere }
    }

    /// The mark of an answer: the socket's, or that of the packet if `tcp_fwmark_accept` is on.
    fn answer_mark(&self, branch: &Branch, socket: &Socket) -> u32 {
        if !self.rules.mark && !self.rules.filters {
            return 0;
        }
        let own = socket.mark.map_or(0, |mark| mark.0);
        let accepts = socket.proto == Proto::Tcp
            && own == 0
            && self.host.sysctl(GlobalSysctl::TcpFwmarkAccept).is_set();
        if accepts { branch.view.mark } else { own }
    }

    /// The reply and output stages. Members of a group that differ in their answers make it
    /// uncertain which is sent.
    fn replies(&mut self, along: Along<'_>, answers: &[Answering]) -> Rc<Vec<Partition>> {
        let Some((first, others)) = answers.split_first() else { return Rc::default() };
        let stages = self.reply(along, *first);
        if others.is_empty() {
            return stages;
        }
        let mut all = self.stopped(&stages);
        let mut some = all;
        for answer in others {
            let stages = self.reply(along, *answer);
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

    fn reply(&mut self, along: Along<'_>, answer: Answering) -> Rc<Vec<Partition>> {
        if let Some(known) = self.replies.get(&(along.key, answer)) {
            return Rc::clone(known);
        }
        let doubts =
            if answer.mark_unread { mark_doubts(self.host, self.family) } else { Vec::new() };
        let mut stages = vec![vec![(PacketSet::ALL, Finding::doubtful(Stage::Reply, doubts))]];
        if answer.elsewhere {
            let (reason, effect) = (UnknownReason::ReplyAddress, DoubtEffect::MayStop);
            let doubt = Finding::doubt(Stage::Reply, reason, effect, None);
            stages.push(vec![(PacketSet::ALL, doubt)]);
        }
        match along.arrival().arrival {
            Arrival::Local { .. } => {
                let asked = local_answer(along, answer.key);
                stages.extend(local_reply(self.host, &mut self.sets, asked, None));
            }
            Arrival::Link(_) => {
                if let Some(asked) = asked_behind(self.host, along) {
                    let cgroup = answer.cgroup;
                    stages.extend(reply(self.host, &mut self.sets, &asked, &answer.key, cgroup));
                }
            }
        }
        let stages = Rc::new(stages);
        self.replies.insert((along.key, answer), Rc::clone(&stages));
        stages
    }

    /// What senders see of a refused connection.
    fn refusal(&mut self, along: Along<'_>, to_everyone: bool) -> Rc<Refusals> {
        let silence = silence(along.arrival().proto);
        if to_everyone {
            return Rc::new(vec![(PacketSet::ALL, Some(silence))]);
        }
        if let Some(known) = self.refusals.get(&along.key) {
            return Rc::clone(known);
        }
        let message = match (along.arrival().proto, self.family) {
            (Proto::Tcp, _) => Message::Reset { rejected: false },
            (Proto::Udp, Family::Ipv4) => Message::Unreachable { code: 3 },
            (Proto::Udp, Family::Ipv6) => Message::Unreachable { code: 4 },
        };
        let seen = match along.arrival().arrival {
            Arrival::Local { .. } => {
                let icmp = AnswerKey::icmp_error(self.family);
                let answer = AnswerKey { source: Some(along.branch.to), ..icmp };
                let asked = local_answer(along, answer);
                let back = local_reply(self.host, &mut self.sets, asked, Some(message));
                let mut lost = PacketSet::NONE;
                for (set, finding) in back.iter().flatten() {
                    if finding.stop.is_some() {
                        lost = self.sets.or(lost, *set);
                    }
                }
                vec![(lost, Some(silence)), (self.sets.not(lost), Some(TheySee::Refused))]
            }
            Arrival::Link(_) => match asked_behind(self.host, along) {
                Some(asked) => {
                    let answer = AnswerKey::refusal(&asked);
                    let what = (TheySee::Refused, message);
                    seen_refusals(self.host, &mut self.sets, &asked, &answer, what)
                }
                None => vec![(PacketSet::ALL, None)],
            },
        };
        let seen = Rc::new(seen);
        self.refusals.insert(along.key, Rc::clone(&seen));
        seen
    }
}

/// The question as it is behind the rules.
fn asked_behind<'v, 'a: 'v>(host: &Host<'a>, along: Along<'v>) -> Option<Asked<'v>> {
    let Arrival::Link(via) = along.arrival().arrival else { return None };
    let asked = Asked::new(
        host,
        along.arrival().proto,
        along.port(),
        along.arrival().to,
        via,
        along.arrival().split,
    )?;
    Some(asked.as_seen(&along.branch.view))
}

fn local_answer(along: Along<'_>, answer: AnswerKey) -> LocalAnswer<'_> {
    let client: IpAddr = along.branch.source.unwrap_or(along.branch.to);
    LocalAnswer {
        proto: along.arrival().proto,
        key: answer,
        to: client,
        device: along.branch.device,
        dialled: along.branch.to,
        port: along.port(),
        view: &along.branch.view,
        split: along.arrival().split,
    }
}
