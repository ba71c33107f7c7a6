//! Statements: expressions that do something. They act as they are reached, whether the rule matches in
//! the end or not.

use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{MetaKey, NfVerdict, PayloadBase, Register};
use canreach_snapshot::{ChainKind, Family, NfHook};

use crate::UnknownReason;
use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{At, Sink, rejection};
use crate::netfilter::header::TCP;
use crate::netfilter::register::Byte;
use crate::netfilter::view::{PacketType, Part, Tracking};

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
                let decision = rejection(&state.view, *kind, *code);
                sink.decide(state, decision);
            }
            Expr::Queue { number, bypass, .. } => {
                let verdict = NfVerdict::Queue { number: *number, bypass: *bypass };
                sink.decide(state, Decision::Verdict(verdict));
            }
            Expr::MetaSet { sreg, key } => self.meta_set(at, *sreg, *key, state, sink),
            Expr::CtSet { sreg, key, direction } => {
                self.ct_set(at, *sreg, (*key, *direction), state, sink);
            }
            Expr::PayloadSet { sreg, base, offset, len } => {
                self.payload_set(*sreg, *base, (*offset, *len), state, sink);
            }
            Expr::Notrack => {
                if state.view.connection.tracking == Tracking::None {
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
        at: At,
        register: Register,
        key: MetaKey,
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        match key {
            MetaKey::Mark => match state.registers.number(register) {
                Some(mark) => {
                    let reroutes = self.reroutes(at, mark != state.view.mark);
                    if mark != state.view.mark {
                        state.change(|view| {
                            view.mark = mark;
                            view.reroute |= reroutes;
                        });
                    }
                }
                None => return self.split_mark(at, register, state, sink),
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

    /// A mark that follows from something unknown or from the source: one value each, if they are few.
    fn split_mark(&mut self, _at: At, _register: Register, state: State, sink: &mut Sink<'_>) {
        sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
    }

    /// Whether a change makes the packet be routed again: in chains of type route at output
    /// (`nf_route_table_hook4`), as far as this chain is one.
    pub(crate) fn reroutes(&self, _at: At, changed: bool) -> bool {
        changed && self.place.hook == NfHook::Output && self.kind == ChainKind::Route
    }

    /// `nft_payload_set_eval`.
    fn payload_set(
        &mut self,
        register: Register,
        base: PayloadBase,
        (offset, length): (u32, u32),
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        let bytes = state.registers.bytes(register, length as usize);
        let known: Option<Vec<u8>> = bytes.iter().map(|byte| byte.known()).collect();
        let Some(known) = known else {
            return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
        };
        let value = known.iter().fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
        let addresses = match state.view.family {
            Family::Ipv4 => [12, 16],
            Family::Ipv6 => [8, 24],
        };
        let size = u32::from(state.view.family.bits() / 8);
        let touches = |start: u32, size: u32| offset < start + size && start < offset + length;
        let in_addresses = base == PayloadBase::Network
            && (addresses.iter().any(|start| touches(*start, size)) || offset >= addresses[1]);
        let in_ports = base == PayloadBase::Transport && touches(0, 4);
        let flags = base == PayloadBase::Transport && state.view.protocol == TCP && touches(12, 2);
        let protocol = base == PayloadBase::Network
            && match state.view.family {
                Family::Ipv4 => touches(9, 1) || touches(0, 1) || touches(6, 2),
                Family::Ipv6 => touches(6, 1) || touches(0, 1),
            };
        let reroutes = self.place.hook == NfHook::Output && self.kind == ChainKind::Route;
        match (base, offset, length) {
            (PayloadBase::Network, at, len) if len == size && at == addresses[0] => {
                state.change(|view| {
                    view.source = Part::Is(value);
                    view.reroute |= reroutes;
                });
            }
            (PayloadBase::Network, at, len) if len == size && at == addresses[1] => {
                state.change(|view| {
                    view.destination = Part::Is(value);
                    view.reroute |= reroutes;
                });
            }
            (PayloadBase::Transport, 0, 2) => {
                state.change(|view| view.source_port = Part::Is(value));
            }
            (PayloadBase::Transport, 2, 2) => {
                state.change(|view| view.destination_port = Part::Is(value));
            }
            (PayloadBase::Transport, 13, 1) if state.view.protocol == TCP => {
                state.change(|view| view.tcp_flags = value as u8);
            }
            _ if in_addresses || in_ports || flags || protocol => {
                return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
            }
            _ => state.change(|view| {
                for (index, byte) in known.iter().enumerate() {
                    let place = offset + index as u32;
                    view.rewritten.retain(|(b, at, _)| (*b, *at) != (base, place));
                    view.rewritten.push((base, place, *byte));
                }
                view.rewritten.sort_unstable_by_key(|(base, at, _)| (*base as u32, *at));
                view.reroute |= reroutes && base == PayloadBase::Network && offset <= 1;
            }),
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

    /// Bytes of which none is known.
    pub(crate) const UNKNOWN: [Byte; 16] = [Byte::Unknown; 16];
}
