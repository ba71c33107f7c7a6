//! Connection tracking: what rules read of it, and what it does at its own place.
//!
//! *Kernel:* `nft_ct_get_eval`, `nft_ct_set_eval` (net/netfilter/nft_ct.c), `nf_conntrack_in`,
//! `nf_confirm` (net/netfilter/nf_conntrack_core.c), `tcp_new` and `nf_conntrack_tcp_packet`. Left out:
//! helpers and expectations, full tables, checksums, connections that were there before.

use std::rc::Rc;

use canreach_snapshot::NfHook;
use canreach_snapshot::nft::expr::{CtDirection, CtKey, Register};

use crate::host::ruleset::Hooked;
use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{At, Sink, Value};
use crate::netfilter::header::TCP;
use crate::netfilter::hook::{HookPlace, Open, push_open};
use crate::netfilter::meta::nfproto;
use crate::netfilter::unknown::{Cause, Sameness};
use crate::netfilter::view::{Connection, Part, Tracking, Tuple, Turn, View, Zone};
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::{NfSubject, UnknownReason};

/// `NF_CT_STATE_*`.
pub(crate) mod state {
    pub(crate) const INVALID: u32 = 1 << 0;
    pub(crate) const ESTABLISHED: u32 = 1 << 1;
    pub(crate) const RELATED: u32 = 1 << 2;
    pub(crate) const NEW: u32 = 1 << 3;
    pub(crate) const UNTRACKED: u32 = 1 << 6;
}

/// `IPS_*`.
pub(crate) mod status {
    pub(crate) const SEEN_REPLY: u32 = 1 << 1;
    pub(crate) const ASSURED: u32 = 1 << 2;
    pub(crate) const CONFIRMED: u32 = 1 << 3;
    pub(crate) const SRC_NAT: u32 = 1 << 4;
    pub(crate) const DST_NAT: u32 = 1 << 5;
    pub(crate) const SRC_NAT_DONE: u32 = 1 << 7;
    pub(crate) const DST_NAT_DONE: u32 = 1 << 8;
}

impl Connection {
    /// The packet has neither a connection nor a template, and is to be tracked.
    pub(crate) const fn is_unseen(&self) -> bool {
        matches!(self.tracking, Tracking::None) && self.template.is_none()
    }

    /// `nf_ct_get` gives one.
    pub(crate) const fn is_attached(&self) -> bool {
        matches!(self.tracking, Tracking::New | Tracking::Established | Tracking::Related)
    }

    /// What `ct state` says.
    pub(crate) const fn state_bit(&self) -> u32 {
        match self.tracking {
            // A template's packets are new.
            Tracking::None if self.template.is_some() => state::NEW,
            Tracking::None => state::INVALID,
            Tracking::New => state::NEW,
            Tracking::Established => state::ESTABLISHED,
            Tracking::Related => state::RELATED,
            Tracking::Untracked => state::UNTRACKED,
        }
    }

    /// `ct->status`.
    pub(crate) const fn status_bits(&self) -> u32 {
        let mut bits = 0;
        if self.seen_reply {
            bits |= status::SEEN_REPLY;
        }
        if self.assured {
            bits |= status::ASSURED;
        }
        if self.confirmed {
            bits |= status::CONFIRMED;
        }
        if self.source_nat.is_some() {
            bits |= status::SRC_NAT;
        }
        if self.destination_nat.is_some() {
            bits |= status::DST_NAT;
        }
        if self.source_done {
            bits |= status::SRC_NAT_DONE;
        }
        if self.destination_done {
            bits |= status::DST_NAT_DONE;
        }
        bits
    }

    /// The tuple of a direction (`ct->tuplehash`).
    pub(crate) fn direction_tuple(&self, reply: bool) -> Option<Tuple> {
        let original = self.original?;
        if !reply {
            return Some(original);
        }
        let (source, source_port) =
            self.destination_nat.unwrap_or((original.destination, original.destination_port));
        let (destination, destination_port) =
            self.source_nat.unwrap_or((original.source, original.source_port));
        Some(Tuple { source, source_port, destination, destination_port })
    }
}

impl Evaluation<'_, '_, '_> {
    /// What a key of `ct` is for a packet.
    pub(crate) fn ct(
        &mut self,
        subject: NfSubject,
        view: &View,
        key: CtKey,
        direction: Option<CtDirection>,
    ) -> Value {
        let connection = &view.connection;
        if key == CtKey::State {
            return Value::number(connection.state_bit());
        }
        if !connection.is_attached() {
            return Value::Missing;
        }
        let tuple = connection.direction_tuple(direction == Some(CtDirection::Reply));
        let address = |part: fn(&Tuple) -> Part| {
            tuple.map_or(Value::Unknown(UnknownReason::NotModelled), |tuple| {
                Value::Bytes(view.part_bytes(part(&tuple), Field::Source))
            })
        };
        let port = |part: fn(&Tuple) -> Part| {
            tuple.map_or(Value::Unknown(UnknownReason::NotModelled), |tuple| {
                Value::Bytes(view.part_bytes(part(&tuple), Field::SourcePort))
            })
        };
        let is_ipv4 = view.family == canreach_snapshot::Family::Ipv4;
        match key {
            CtKey::State => Value::number(connection.state_bit()),
            CtKey::Direction => Value::known(&[u8::from(connection.reply)]),
            CtKey::Status => Value::number(connection.status_bits()),
            CtKey::Mark => Value::number(connection.mark),
            CtKey::L3protocol => Value::known(&[nfproto(view.family)]),
            CtKey::Protocol => Value::known(&[view.protocol]),
            CtKey::Src => address(|tuple| tuple.source),
            CtKey::Dst => address(|tuple| tuple.destination),
            CtKey::SrcIp if is_ipv4 => address(|tuple| tuple.source),
            CtKey::DstIp if is_ipv4 => address(|tuple| tuple.destination),
            CtKey::SrcIp6 if !is_ipv4 => address(|tuple| tuple.source),
            CtKey::DstIp6 if !is_ipv4 => address(|tuple| tuple.destination),
            CtKey::SrcIp | CtKey::DstIp | CtKey::SrcIp6 | CtKey::DstIp6 => Value::Missing,
            CtKey::ProtoSrc => port(|tuple| tuple.source_port),
            CtKey::ProtoDst => port(|tuple| tuple.destination_port),
            CtKey::Zone => {
                let zone = connection.zone;
                let id = direction.map_or(zone.id, |of| zone.of(of == CtDirection::Reply));
                Value::known(&id.to_le_bytes())
            }
            // Connections without a helper's expectation have no master.
            CtKey::Helper => Value::Missing,
            CtKey::Labels if !self.host.ruleset().sets_labels() => Value::known(&[0; 16]),
            CtKey::Expiration | CtKey::Pkts | CtKey::Bytes | CtKey::Avgpkt | CtKey::Id => {
                let bytes = if matches!(key, CtKey::Expiration | CtKey::Id) { 4 } else { 8 };
                let high = if bytes == 4 { u128::from(u32::MAX) } else { u128::from(u64::MAX) };
                let cause = Cause { reason: UnknownReason::NotModelled, subject: Some(subject) };
                let what = format!("ct {key:?} {direction:?}");
                let same = Sameness::Here(Box::new(view.clone()), what);
                Value::Number(self.unknowns.same(same, cause, 0, high), bytes)
            }
            CtKey::Secmark | CtKey::Labels | CtKey::Eventmask | CtKey::Other(_) => {
                Value::Unknown(UnknownReason::NotModelled)
            }
        }
    }

    /// `nft_ct_set_eval`, `nft_ct_set_zone_eval`.
    pub(crate) fn ct_set(
        &mut self,
        _at: At,
        register: Register,
        (key, direction): (CtKey, Option<CtDirection>),
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        let connection = state.view.connection;
        match key {
            CtKey::Mark if connection.is_attached() => match state.registers.number(register) {
                Some(mark) => {
                    if mark != connection.mark {
                        state.change(|view| view.connection.mark = mark);
                    }
                }
                None => {
                    return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
                }
            },
            CtKey::Zone if connection.is_unseen() => {
                let id: Option<Vec<u8>> =
                    state.registers.bytes(register, 2).iter().map(|byte| byte.known()).collect();
                let id = id.and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes);
                let Some(id) = id else {
                    return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
                };
                let zone = Zone {
                    id,
                    original: direction != Some(CtDirection::Reply),
                    reply: direction != Some(CtDirection::Original),
                };
                state.change(|view| view.connection.template = Some(zone));
            }
            // Labels count where rules read them; the rest decides nothing.
            _ => {}
        }
        sink.go_on(state);
    }
}

impl Evaluation<'_, '_, '_> {
    /// `nf_conntrack_in`: at prerouting and output, where nothing was attached before.
    pub(crate) fn track_all(&mut self, open: Vec<Open>) -> Vec<Open> {
        let mut tracked = Vec::with_capacity(open.len());
        for mut strand in open {
            let connection = &strand.view.connection;
            let waits = connection.tracking == Tracking::None && connection.confirmed;
            if strand.view.turn == Turn::Second && waits && !connection.seen_reply {
                // It is known from the first packet; what the answer did to it is to be seen.
                let answered = self.answered_within(&strand);
                let set = self.sets.and(strand.set, answered);
                let mut view = Rc::clone(&strand.view);
                Rc::make_mut(&mut view).connection.seen_reply = true;
                track(Rc::make_mut(&mut view));
                push_open(self.sets, &mut tracked, set, view);
                strand.set = self.sets.difference(strand.set, answered);
            }
            track(Rc::make_mut(&mut strand.view));
            push_open(self.sets, &mut tracked, strand.set, strand.view);
        }
        tracked
    }

    /// Packets whose answer is one of the same connection: what rules that come before conntrack at
    /// output make of it.
    fn answered_within(&mut self, strand: &Open) -> PacketSet {
        let host = self.host;
        let view = &strand.view;
        let connection = view.connection;
        let at_output = HookPlace::at(NfHook::Output);
        let hooked = host.ruleset().hooked(view.family, at_output, self.other_order);
        let before = hooked.iter().take_while(|step| **step != Hooked::Track);
        let Some(back) = connection.direction_tuple(true) else { return PacketSet::ALL };
        let (from, to) =
            ((back.source, back.source_port), (back.destination, back.destination_port));
        let answer = View::new(view.family, view.protocol, Turn::Answer, from, to);
        let answer = View { oif: view.iif.or(view.oif), ..answer };
        let place = std::mem::replace(&mut self.place, at_output);
        let kept = (
            std::mem::take(&mut self.accepted),
            std::mem::take(&mut self.stopped),
            std::mem::take(&mut self.lost),
        );
        let mut open = vec![Open { set: strand.set, view: Rc::new(answer) }];
        for step in before {
            open = self.run_step(step, open);
        }
        self.place = place;
        (self.accepted, self.stopped, self.lost) = kept;
        let mut other = PacketSet::NONE;
        for Open { set, view } in open {
            let zone = view.connection.template.unwrap_or(Zone::DEFAULT);
            let same = view.connection.tracking == Tracking::None
                && zone.of(true) == connection.zone.of(true);
            if !same {
                other = self.sets.or(other, set);
            }
        }
        // Those whose answer is stopped there do not get here.
        self.sets.not(other)
    }
}

/// What conntrack makes of a packet that has not met it.
fn track(view: &mut View) {
    let tuple = view.tuple();
    let connection = &mut view.connection;
    if connection.tracking != Tracking::None {
        return;
    }
    let zone = connection.template.take().unwrap_or(Zone::DEFAULT);
    if matches!(view.turn, Turn::Solicitation | Turn::Advertisement) {
        // `nf_conntrack_icmpv6_error`: neighbour discovery is not tracked.
        connection.tracking = Tracking::Untracked;
        return;
    }
    let reply = matches!(view.turn, Turn::Answer | Turn::Refusal);
    let is_known = connection.original.is_some() && connection.confirmed;
    if is_known && connection.zone.of(reply) == zone.of(reply) {
        let is_ack = view.protocol == TCP && view.turn == Turn::Second;
        if is_ack && !connection.seen_reply {
            // An ACK without a SYN-ACK before is invalid (`tcp_conntracks`).
            return;
        }
        connection.tracking = Tracking::Established;
        connection.reply = reply;
        connection.seen_reply |= reply;
        connection.assured |= is_ack;
        return;
    }
    // `tcp_new`: a SYN-ACK does not begin a connection, nor does a reset.
    if !(reply && view.protocol == TCP) {
        *connection = Connection {
            tracking: Tracking::New,
            original: Some(tuple),
            zone,
            ..Connection::UNSEEN
        };
    }
}

/// `nf_confirm`: the connection goes into the table, at the end of input and postrouting.
pub(crate) fn confirm(view: &mut View) {
    if view.connection.is_attached() {
        view.connection.confirmed = true;
    }
}
