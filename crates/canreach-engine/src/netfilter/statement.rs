//! Statements: expressions that do something. They act as they are reached, whether the rule matches in
//! the end or not.

use std::rc::Rc;

use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{MetaKey, NfVerdict, PayloadBase, Register};
use canreach_snapshot::{ChainKind, NfHook};

use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{At, Sink, rejection};
use crate::netfilter::header::{self, TCP};
use crate::netfilter::register::Byte;
use crate::netfilter::view::{PacketType, Tracking};
use crate::packet::field::Field;
use crate::{DropReason, UnknownReason};

/// The most values of a mark that are followed.
const MAX_MARKS: u128 = 64;

/// `NFT_OBJECT_*`.
mod object {
    pub(super) const COUNTER: u32 = 1;
    pub(super) const CT_HELPER: u32 = 3;
    pub(super) const CT_TIMEOUT: u32 = 7;
    pub(super) const SECMARK: u32 = 8;
    pub(super) const CT_EXPECT: u32 = 9;
}

impl<'a> Evaluation<'_, '_, 'a> {
    /// Runs a statement.
    pub(crate) fn act(&mut self, at: At, expr: &'a Expr, mut state: State, sink: &mut Sink<'_>) {
        match expr {
            Expr::Verdict(verdict) => match verdict {
                NfVerdict::Continue => sink.go_on(state),
                NfVerdict::Break => sink.leave(state),
                other => sink.decide(state, Decision::Verdict(other.clone())),
            },
            Expr::Reject { kind, code } => {
                // `nft_reject_netdev_eval` answers nothing that was sent to many.
                let for_many = self.place.hook == NfHook::Ingress
                    && !matches!(state.view.packet_type, PacketType::Host | PacketType::Otherhost);
                let decision = if for_many {
                    Decision::Stop(DropReason::FwReject, None)
                } else {
                    rejection(&state.view, *kind, *code)
                };
                sink.decide(state, decision);
            }
            Expr::Queue { number, bypass, .. } => {
                let verdict = NfVerdict::Queue { number: *number, bypass: *bypass };
                sink.decide(state, Decision::Verdict(verdict));
            }
            Expr::MetaSet { sreg, key } => self.meta_set(*sreg, *key, state, sink),
            Expr::CtSet { sreg, key, direction } => {
                self.ct_set(at, *sreg, (*key, *direction), state, sink);
            }
            Expr::PayloadSet { sreg, base, offset, len } => {
                self.payload_set(at, *sreg, *base, (*offset, *len), state, sink);
            }
            Expr::Notrack => {
                if state.view.connection.is_unseen() {
                    state.change(|view| view.connection.tracking = Tracking::Untracked);
                }
                sink.go_on(state);
            }
            Expr::Objref { kind, name } => self.objref(at, *kind, name, state, sink),
            Expr::ObjrefMap { set, sreg } => self.objref_map(at, set, *sreg, state, sink),
            Expr::Nat { .. } | Expr::Masq { .. } | Expr::Redir { .. } => {
                self.translate(at, expr, state, sink);
            }
            Expr::Tproxy { family, addr, port } => {
                self.tproxy(at, (*family, *addr, *port), state, sink);
            }
            Expr::Synproxy => {
                if state.view.protocol == TCP {
                    sink.decide(state, Decision::Lost(UnknownReason::UserSpace));
                } else {
                    sink.leave(state);
                }
            }
            Expr::FlowOffload { .. } => {
                // Only connections that are in the table can be offloaded.
                if state.view.connection.confirmed {
                    let chance = self.chance(UnknownReason::NotModelled, at.1);
                    self.test(state, chance, sink);
                } else {
                    sink.leave(state);
                }
            }
            // Options of TCP, of which nothing that is modelled depends; the packet stays as it is.
            Expr::ExthdrSet { .. }
            | Expr::Counter { .. }
            | Expr::Last
            | Expr::Log { .. }
            | Expr::Dup => sink.go_on(state),
            Expr::Fwd | Expr::Opaque(_) => {
                sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
            }
            _ => sink.go_on(state),
        }
    }

    /// `nft_meta_set_eval`.
    fn meta_set(
        &mut self,
        register: Register,
        key: MetaKey,
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        match key {
            MetaKey::Mark => match state.registers.number(register) {
                Some(mark) => return self.set_mark(mark, state, sink),
                None => return self.split_mark(register, state, sink),
            },
            MetaKey::Priority => match state.registers.number(register) {
                Some(priority) => {
                    if priority != state.view.priority {
                        state.change(|view| view.priority = priority);
                    }
                }
                None => {
                    return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
                }
            },
            MetaKey::Pkttype => {
                let value = state.registers.bytes(register, 1).first().and_then(|b| b.known());
                let kind = match value {
                    Some(0) => PacketType::Host,
                    Some(1) => PacketType::Broadcast,
                    Some(2) => PacketType::Multicast,
                    Some(3) => PacketType::Otherhost,
                    // Other types cannot be set (`skb_pkt_type_ok`).
                    Some(_) => return sink.go_on(state),
                    None => {
                        return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
                    }
                };
                state.change(|view| view.packet_type = kind);
            }
            // Labels, traces and classes decide nothing here.
            _ => {}
        }
        sink.go_on(state);
    }

    /// A mark that nobody knows. Only a choice among few values can be followed.
    fn split_mark(&mut self, register: Register, state: State, sink: &mut Sink<'_>) {
        let bytes = state.registers.bytes(register, 4).to_vec();
        let field = bytes.iter().find_map(|byte| match byte {
            Byte::Of { field: Field::Unknown(number), .. } => Some(*number),
            Byte::Of { .. } | Byte::Is(_) | Byte::Unknown => None,
        });
        let few = field.map(|number| self.unknowns.variable(number));
        let Some(variable) = few.filter(|variable| variable.high - variable.low < MAX_MARKS) else {
            return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
        };
        for value in variable.low..=variable.high {
            let mark: Option<Vec<u8>> = bytes
                .iter()
                .map(|byte| byte.with(Field::Unknown(variable.number), value))
                .collect();
            let mark = mark.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
            let of_value = variable.within(self.sets, &[(value, value)]);
            let set = self.sets.and(state.set, of_value);
            let state = State { set, ..state.clone() };
            match mark {
                Some(mark) => self.set_mark(mark, state, sink),
                None => sink.decide(state, Decision::Lost(UnknownReason::NotModelled)),
            }
        }
    }

    /// `nft_payload_set_eval`.
    fn payload_set(
        &mut self,
        at: At,
        register: Register,
        base: PayloadBase,
        range: (u32, u32),
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        let new = state.registers.bytes(register, range.1 as usize).to_vec();
        let old = header::load(&state.view, self.unknowns, at.1, base, range).bytes;
        let mut view = state.view.as_ref().clone();
        let mut known = true;
        for ((new, old), place) in new.iter().zip(&old).zip(range.0..) {
            // What is written back as it was changes nothing.
            known &= new == old || view.write_byte(base, place, *new);
        }
        if !known {
            return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
        }
        if view != *state.view {
            // `nf_route_table_hook4` looks at addresses, marks and TOS.
            let routes = self.place.hook == NfHook::Output && self.kind == ChainKind::Route;
            let old = &state.view;
            view.reroute |= routes
                && (old.source, old.destination, old.tos)
                    != (view.source, view.destination, view.tos);
            state.view = Rc::new(view);
            state.changed = true;
        }
        sink.go_on(state);
    }

    /// `nft_objref_eval`.
    pub(crate) fn objref(
        &mut self,
        at: At,
        kind: u32,
        name: &str,
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let object = self.host.ruleset().nft_object(at.0, name, kind);
        match (kind, object) {
            // They name what else the connection shall have.
            (
                object::COUNTER
                | object::CT_HELPER
                | object::CT_TIMEOUT
                | object::SECMARK
                | object::CT_EXPECT,
                _,
            ) => sink.go_on(state),
            (_, Some(object)) if !matches!(object.expr, Expr::Objref { .. }) => {
                let mut next = Vec::new();
                self.step(at, &object.expr, state, &mut next, sink.result);
                sink.next.append(&mut next);
            }
            (_, _) => sink.decide(state, Decision::Lost(UnknownReason::NotModelled)),
        }
    }
}
