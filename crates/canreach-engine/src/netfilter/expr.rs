//! Expressions of nftables, one after the other, on packets that look alike.
//!
//! *Kernel:* the `eval` functions of net/netfilter/nft_*.c. An expression that has nothing to load ends its
//! rule without a match (`NFT_BREAK`), also where the test behind it is inverted.

use std::rc::Rc;

use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{CmpOp, ExthdrOp, NfVerdict, PayloadBase, Register, RejectType};
use canreach_snapshot::{Family, NfHook};

use crate::netfilter::chain::{Decision, Evaluation, RuleResult, State};
use crate::netfilter::header::{self, TCP};
use crate::netfilter::hook::{Open, RejectAnswer};
use crate::netfilter::register::Byte;
use crate::netfilter::unknown::{Cause, Sameness, Unknowns, Variable};
use crate::netfilter::view::View;
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::{DropReason, NfSubject, UnknownReason};

/// What an expression finds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// These bytes.
    Bytes(Vec<Byte>),
    /// Nothing: the rule ends without a match.
    Missing,
    /// A number in host order of so many bytes.
    Number(Variable, u8),
    /// Nobody knows what, nor whether.
    Unknown(UnknownReason),
}

impl Value {
    /// A number of four bytes in host order.
    pub(crate) fn number(value: u32) -> Self {
        Self::known(&value.to_le_bytes())
    }

    /// Known bytes.
    pub(crate) fn known(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.iter().map(|byte| Byte::Is(*byte)).collect())
    }

    /// The name of a link, or no name, as the kernel pads it (`IFNAMSIZ`).
    pub(crate) fn name(name: &str) -> Self {
        let mut bytes = [0; 16];
        // The last byte stays 0.
        for (to, from) in bytes[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self::known(&bytes)
    }
}

/// Where a rule is: the position of its table, and the rule.
pub(crate) type At = (usize, NfSubject);

/// Where results go: to the next expression, or out of the rule.
pub(crate) struct Sink<'s> {
    pub(crate) next: &'s mut Vec<State>,
    pub(crate) result: &'s mut RuleResult,
}

impl Sink<'_> {
    /// The rule does not match.
    pub(crate) fn leave(&mut self, state: State) {
        if state.changed && !state.set.is_empty() {
            self.result.changed.push(Open { set: state.set, view: state.view });
        }
    }

    /// The rule ends with a verdict.
    pub(crate) fn decide(&mut self, state: State, decision: Decision) {
        if !state.set.is_empty() {
            self.result.decided.push((Open { set: state.set, view: state.view }, decision));
        }
    }

    /// The next expression.
    pub(crate) fn go_on(&mut self, state: State) {
        if !state.set.is_empty() {
            self.next.push(state);
        }
    }
}

impl State {
    /// Changes how the packets look.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut View)) {
        change(Rc::make_mut(&mut self.view));
        self.changed = true;
    }
}

impl<'a> Evaluation<'_, '_, 'a> {
    /// Runs one expression.
    pub(crate) fn step(
        &mut self,
        at: At,
        expr: &'a Expr,
        state: State,
        next: &mut Vec<State>,
        result: &mut RuleResult,
    ) {
        let mut sink = Sink { next, result };
        let sink = &mut sink;
        match expr {
            Expr::Cmp { sreg, op, value } => {
                self.cmp(at, (*sreg, *op, value.as_slice()), state, sink)
            }
            Expr::Range { sreg, op, from, to } => {
                let bytes = state.registers.bytes(*sreg, from.len()).to_vec();
                let inside = self.tester(at.1).between(&bytes, from.as_slice(), to.as_slice());
                let inside = if *op == CmpOp::Neq { self.sets.not(inside) } else { inside };
                self.test(state, inside, sink);
            }
            Expr::Lookup { set, sreg, dreg, verdict, invert } => {
                self.lookup(at, set, (*sreg, *dreg, *verdict, *invert), state, sink);
            }
            Expr::Dynset { .. } => self.dynset(at, expr, state, sink),
            Expr::Immediate { .. } | Expr::Bitwise { .. } | Expr::Byteorder { .. } => {
                Self::compute(expr, state, sink)
            }
            Expr::Payload { .. }
            | Expr::Exthdr { .. }
            | Expr::Meta { .. }
            | Expr::Ct { .. }
            | Expr::Rt { .. }
            | Expr::Socket { .. }
            | Expr::Fib { .. }
            | Expr::Hash { .. }
            | Expr::Numgen { .. }
            | Expr::Osf { .. }
            | Expr::Tunnel { .. }
            | Expr::Xfrm { .. } => self.load(at, expr, state, sink),
            Expr::Limit { .. } | Expr::Quota { .. } | Expr::Connlimit { .. } => {
                let chance = self.chance(UnknownReason::RateLimit, at.1);
                self.test(state, chance, sink);
            }
            Expr::Match(_) | Expr::Target(_) => self.xtables(at, expr, state, sink),
            Expr::PayloadSet { .. }
            | Expr::ExthdrSet { .. }
            | Expr::MetaSet { .. }
            | Expr::CtSet { .. }
            | Expr::Nat { .. }
            | Expr::Masq { .. }
            | Expr::Redir { .. }
            | Expr::Tproxy { .. }
            | Expr::Notrack
            | Expr::Objref { .. }
            | Expr::ObjrefMap { .. }
            | Expr::Synproxy
            | Expr::FlowOffload { .. }
            | Expr::Fwd
            | Expr::Verdict(_)
            | Expr::Counter { .. }
            | Expr::Last
            | Expr::Log { .. }
            | Expr::Dup
            | Expr::Reject { .. }
            | Expr::Queue { .. }
            | Expr::Opaque(_) => self.act(at, expr, state, sink),
        }
    }

    /// Packets for which a test holds go on; the others leave the rule.
    pub(crate) fn test(&mut self, state: State, holds: PacketSet, sink: &mut Sink<'_>) {
        if holds == PacketSet::ALL {
            return sink.go_on(state);
        }
        let hit = self.sets.and(state.set, holds);
        if state.changed {
            let miss = self.sets.difference(state.set, hit);
            let left = State { set: miss, ..state.clone() };
            sink.leave(left);
        }
        sink.go_on(State { set: hit, ..state });
    }

    fn cmp(
        &mut self,
        at: At,
        (register, op, value): (Register, CmpOp, &[u8]),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let bytes = state.registers.bytes(register, value.len());
        // Most of what rules compare is known.
        let known = bytes.iter().zip(value).find_map(|(byte, value)| match byte.known() {
            Some(byte) if byte == *value => None,
            Some(byte) => Some(Some(byte.cmp(value))),
            None => Some(None),
        });
        let decided = match known {
            Some(None) => None,
            Some(Some(order)) => Some(order),
            None => Some(std::cmp::Ordering::Equal),
        };
        match decided {
            Some(order) => {
                let holds = match op {
                    CmpOp::Eq => order.is_eq(),
                    CmpOp::Neq => order.is_ne(),
                    CmpOp::Lt => order.is_lt(),
                    CmpOp::Lte => order.is_le(),
                    CmpOp::Gt => order.is_gt(),
                    CmpOp::Gte => order.is_ge(),
                };
                if holds { sink.go_on(state) } else { sink.leave(state) }
            }
            None => {
                let bytes = bytes.to_vec();
                let holds = self.tester(at.1).compare(&bytes, op, value);
                self.test(state, holds, sink);
            }
        }
    }

    fn compute(expr: &Expr, mut state: State, sink: &mut Sink<'_>) {
        match expr {
            Expr::Immediate { dreg, value } => {
                state.registers.write_known(*dreg, value.as_slice());
            }
            Expr::Bitwise { sreg, dreg, len, op } => {
                state.registers.bitwise((*sreg, *dreg), *len as usize, op);
            }
            Expr::Byteorder { sreg, dreg, len, size, .. } => {
                state.registers.byteorder((*sreg, *dreg), *len as usize, *size as usize);
            }
            _ => {}
        }
        sink.go_on(state);
    }

    /// Expressions that put something into a register.
    fn load(&mut self, at: At, expr: &Expr, state: State, sink: &mut Sink<'_>) {
        match expr {
            Expr::Payload { dreg, base, offset, len } => {
                self.load_payload(at, *dreg, *base, (*offset, *len), state, sink);
            }
            Expr::Meta { dreg, key } => {
                let value = self.meta(at.1, &state.view, *key);
                self.store(at, *dreg, value, state, sink);
            }
            Expr::Ct { dreg, key, direction } => {
                let value = self.ct(at.1, &state.view, *key, *direction);
                self.store(at, *dreg, value, state, sink);
            }
            Expr::Exthdr { dreg, op, kind, offset, len, present } => {
                let what = (*op, *kind, *offset, *len, *present);
                self.load_option(at, *dreg, what, state, sink);
            }
            Expr::Numgen { dreg, modulus, offset, .. } => {
                let high = offset.saturating_add(modulus.saturating_sub(1));
                let cause = Cause { reason: UnknownReason::RandomChoice, subject: Some(at.1) };
                let variable = self.unknowns.fresh(cause, u128::from(*offset), u128::from(high));
                self.store(at, *dreg, Value::Number(variable, 4), state, sink);
            }
            Expr::Hash { dreg, sreg, modulus, seed, offset, .. } => {
                let key = sreg.map(|register| state.registers.bytes(register, 16).to_vec());
                let high = offset.saturating_add(modulus.saturating_sub(1));
                let cause = Cause { reason: UnknownReason::RandomChoice, subject: Some(at.1) };
                let what = format!("hash {key:?} {seed:?} {modulus} {offset} {}", at.0);
                let sameness = Sameness::Here(Box::new(View::clone(&state.view)), what);
                let variable =
                    self.unknowns.same(sameness, cause, u128::from(*offset), u128::from(high));
                self.store(at, *dreg, Value::Number(variable, 4), state, sink);
            }
            Expr::Fib { dreg, result, flags } => {
                self.fib(at, *dreg, (*result, *flags), state, sink);
            }
            Expr::Socket { dreg, key } => self.socket(at, *dreg, *key, state, sink),
            Expr::Osf { dreg } => {
                let value = Value::Unknown(UnknownReason::PacketDetails);
                self.store(at, *dreg, value, state, sink);
            }
            Expr::Rt { dreg, .. } | Expr::Tunnel { dreg, .. } | Expr::Xfrm { dreg, .. } => {
                self.store(at, *dreg, Value::Unknown(UnknownReason::NotModelled), state, sink);
            }
            _ => sink.go_on(state),
        }
    }

    /// Puts what was found into a register.
    pub(crate) fn store(
        &mut self,
        at: At,
        register: Register,
        value: Value,
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        match value {
            Value::Bytes(bytes) => state.registers.write(register, &bytes),
            Value::Missing => return sink.leave(state),
            Value::Number(variable, bytes) => {
                let bytes: Vec<_> = (0..bytes)
                    .map(|index| Byte::Of {
                        field: Field::Unknown(variable.number),
                        shift: 8 * index as i8,
                        mask: 0xff,
                        flip: 0,
                    })
                    .collect();
                state.registers.write(register, &bytes);
            }
            Value::Unknown(reason) => {
                let there = self.chance(reason, at.1);
                state.registers.write(register, &[Byte::Unknown; 16]);
                return self.test(state, there, sink);
            }
        }
        sink.go_on(state);
    }

    fn load_payload(
        &mut self,
        at: At,
        register: Register,
        base: PayloadBase,
        range: (u32, u32),
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        if base == PayloadBase::Link && !self.has_link_header(&state.view) {
            return sink.leave(state);
        }
        let mut loaded = header::load(&state.view, self.unknowns, at.1, base, range);
        if base == PayloadBase::Link {
            self.link_addresses(&state.view, range.0, &mut loaded.bytes);
        }
        state.registers.write(register, &loaded.bytes);
        match loaded.present {
            None => sink.go_on(state),
            Some(present) => {
                let there = Unknowns::happens(self.sets, present);
                self.test(state, there, sink);
            }
        }
    }

    /// Whether there is a link-layer header (`skb_mac_header_was_set`, `skb_mac_header_len`): only
    /// packets that came in by a link have one, and not from links without such addresses.
    fn has_link_header(&self, view: &View) -> bool {
        let arrived = matches!(
            self.place.hook,
            NfHook::Ingress | NfHook::Prerouting | NfHook::Input | NfHook::Forward
        ) || view.iif.is_some();
        arrived
            && view
                .iif
                .and_then(|iif| self.host.link(iif))
                .is_some_and(|link| link.mac.is_some() || link.is_loopback())
    }

    /// The addresses of the link-layer header that are known: to the link's own, from nobody at `lo`.
    fn link_addresses(&self, view: &View, offset: u32, bytes: &mut [Byte]) {
        let Some(link) = view.iif.and_then(|iif| self.host.link(iif)) else { return };
        let own = link.mac.map_or([0; 6], |mac| mac.0);
        for (index, byte) in bytes.iter_mut().enumerate() {
            match offset as usize + index {
                at @ 0..=5
                    if link.is_loopback()
                        || view.packet_type == crate::netfilter::view::PacketType::Host =>
                {
                    *byte = Byte::Is(own[at]);
                }
                6..=11 if link.is_loopback() => *byte = Byte::Is(0),
                _ => {}
            }
        }
    }

    /// `nft_exthdr.c`: extension headers and options. Of the options of TCP, a SYN has the size of its
    /// segments.
    fn load_option(
        &mut self,
        at: At,
        register: Register,
        (op, kind, offset, length, present): (ExthdrOp, u8, u32, u32, bool),
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        const MSS: u8 = 2;
        if op != ExthdrOp::Tcpopt || state.view.protocol != TCP {
            if present {
                state.registers.write_known(register, &[0]);
                return sink.go_on(state);
            }
            return sink.leave(state);
        }
        let cause = Cause { reason: UnknownReason::PacketDetails, subject: Some(at.1) };
        let turn = state.view.turn;
        let there = if kind == MSS && state.view.has_mss() {
            PacketSet::ALL
        } else {
            let sameness = Sameness::Packet(turn, format!("tcp option {kind}"));
            let variable = self.unknowns.same(sameness, cause, 0, 1);
            Unknowns::happens(self.sets, variable)
        };
        if present {
            let hit = self.sets.and(state.set, there);
            let miss = self.sets.difference(state.set, hit);
            for (set, value) in [(hit, 1), (miss, 0)] {
                let mut state = State { set, ..state.clone() };
                state.registers.write_known(register, &[value]);
                sink.go_on(state);
            }
            return;
        }
        let bytes: Vec<_> = (offset..offset + length)
            .map(|index| {
                if index == 0 {
                    return Byte::Is(kind);
                }
                if kind == MSS && index == 1 {
                    return Byte::Is(4);
                }
                let what = format!("tcp option {kind} byte {index}");
                let variable = self.unknowns.same(Sameness::Packet(turn, what), cause, 0, 0xff);
                Byte::Of { field: Field::Unknown(variable.number), shift: 0, mask: 0xff, flip: 0 }
            })
            .collect();
        state.registers.write(register, &bytes);
        self.test(state, there, sink);
    }
}

/// The error of a `reject`, if one is sent.
pub(crate) const fn reject_answer(view: &View, kind: RejectType, code: u8) -> Option<RejectAnswer> {
    match (kind, view.family) {
        // `nf_reject_ip_tcphdr_get`: nothing but TCP is reset.
        (RejectType::TcpRst, _) => {
            if view.protocol == TCP {
                Some(RejectAnswer::TcpReset)
            } else {
                None
            }
        }
        (RejectType::IcmpUnreach, Family::Ipv4) => Some(RejectAnswer::Icmp(code)),
        (RejectType::IcmpUnreach, Family::Ipv6) => Some(RejectAnswer::Icmpv6(code)),
        // `nft_reject_icmp_code`, `nft_reject_icmpv6_code`.
        (RejectType::IcmpxUnreach, Family::Ipv4) => Some(RejectAnswer::Icmp(match code {
            0 => 0,
            1 => 3,
            2 => 1,
            _ => 13,
        })),
        (RejectType::IcmpxUnreach, Family::Ipv6) => Some(RejectAnswer::Icmpv6(match code {
            0 => 0,
            1 => 4,
            2 => 3,
            _ => 1,
        })),
    }
}

/// `reject`: the error, then a drop.
pub(crate) fn rejection(view: &View, kind: RejectType, code: u8) -> Decision {
    Decision::Stop(DropReason::FwReject, reject_answer(view, kind, code))
}

/// A verdict that no expression here gives.
pub(crate) const ACCEPT: Decision = Decision::Verdict(NfVerdict::Accept);
