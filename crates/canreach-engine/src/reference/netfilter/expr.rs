//! One expression of nftables.
//!
//! Mirrors the `eval` functions of net/netfilter/nft_*.c. Left out: SCTP and DCCP, tunnels and IPsec
//! (there are none on the path of the packets asked about), operating system fingerprints.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::expr::{BitwiseOp, CmpOp, NfVerdict, Operand, RejectType};
use canreach_snapshot::nft::{Expr, Table};

use super::chain::Step;
use super::exchange::Rejection;
use super::header::{Load, exthdr};
use super::nat::Range;
use super::order::NfStop;
use super::skb::{Ct, Place, Skb};
use super::value::{Registers, Tri, Value};
use crate::reference::walk::Walk;
use crate::{DoubtEffect, DropReason, UnknownReason};

/// The most values of a counter or hash that are tried one by one.
const MAX_VALUES: u32 = 16;

impl<'a> Walk<'a> {
    /// Runs an expression. An end of the packet is an error.
    pub(super) fn expr(
        &mut self,
        table: &'a Table,
        expr: &'a Expr,
        registers: &mut Registers,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<Step, NfStop> {
        Ok(match expr {
            Expr::Verdict(verdict) => Step::Verdict(verdict.clone()),
            Expr::Immediate { .. }
            | Expr::Cmp { .. }
            | Expr::Range { .. }
            | Expr::Bitwise { .. }
            | Expr::Byteorder { .. } => compute(expr, registers),
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
            | Expr::Xfrm { .. } => self.load(expr, registers, skb, place),
            Expr::Lookup { .. } | Expr::Dynset { .. } => self.set_expr(table, expr, registers),
            Expr::Limit { .. } | Expr::Quota { .. } | Expr::Connlimit { .. } => {
                Step::Maybe(UnknownReason::RateLimit, None)
            }
            Expr::Counter { .. } | Expr::Last | Expr::Log { .. } | Expr::ExthdrSet { .. } => {
                Step::Next
            }
            Expr::Dup | Expr::FlowOffload { .. } => Step::Next,
            Expr::Objref { kind, name } => {
                let object = table.object(name, *kind).map(|object| &object.expr);
                self.object(table, object, registers, skb, place)?
            }
            Expr::ObjrefMap { set, sreg } => {
                let name = self.object_in_map(table, set, sreg.0, registers);
                let Some(name) = name else { return Ok(Step::Break) };
                let kind = table.set(set).and_then(|set| set.object_type).unwrap_or(0);
                let object = table.object(&name, kind).map(|object| &object.expr);
                self.object(table, object, registers, skb, place)?
            }
            Expr::Match(of) => self.xt_match(of, skb, place).into(),
            Expr::Target(target) => self.xt_target(target, skb, place)?,
            Expr::Opaque(_) => Step::Maybe(UnknownReason::NotModelled, None),
            Expr::PayloadSet { .. }
            | Expr::MetaSet { .. }
            | Expr::CtSet { .. }
            | Expr::Reject { .. }
            | Expr::Nat { .. }
            | Expr::Masq { .. }
            | Expr::Redir { .. }
            | Expr::Tproxy { .. }
            | Expr::Notrack
            | Expr::Synproxy
            | Expr::Fwd
            | Expr::Queue { .. } => return self.statement(expr, registers, skb, place),
        })
    }

    /// An expression that loads something into a register.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
    fn load(&mut self, expr: &Expr, registers: &mut Registers, skb: &Skb, place: &Place) -> Step {
        let unknown = |reason, name: &str| {
            let name = format!("{:?} {name}", skb.turn);
            Load::Value(Value::unknown(&[0xff; 4], reason, Some(&name)))
        };
        let (dreg, load) = match expr {
            Expr::Payload { dreg, base, offset, len } => {
                (dreg, self.payload(*base, *offset, *len, skb, place))
            }
            Expr::Exthdr { dreg, op, kind, offset, len, present } => {
                (dreg, exthdr(*op, *kind, *offset, *len, *present, skb))
            }
            Expr::Meta { dreg, key } => (dreg, self.meta(*key, skb, place)),
            Expr::Ct { dreg, key, direction } => (dreg, self.ct(*key, *direction, skb)),
            Expr::Socket { dreg, key } => (dreg, self.socket_key(*key, skb, place)),
            Expr::Fib { dreg, result, flags } => (dreg, self.fib(*result, *flags, skb, place)),
            Expr::Hash { dreg, sreg, len, modulus, offset, .. } => {
                let content = match sreg {
                    Some(sreg) => {
                        let of = registers.load(sreg.0, *len as usize);
                        let known = of.bytes().map(|bytes| format!("{expr:?} of {bytes:?}"));
                        known.or_else(|| Some(format!("{:?} {expr:?}", skb.turn)))
                    }
                    None => Some(format!("{:?} hash", skb.turn)),
                };
                (dreg, Load::Value(self.chosen(*modulus, *offset, content.as_deref())))
            }
            Expr::Numgen { dreg, modulus, offset, .. } => {
                (dreg, Load::Value(self.chosen(*modulus, *offset, None)))
            }
            Expr::Osf { dreg } => {
                let name = format!("{:?} osf", skb.turn);
                let osf = Value::unknown(&[0xff; 16], UnknownReason::PacketDetails, Some(&name));
                (dreg, Load::Value(osf))
            }
            Expr::Rt { dreg, key } => {
                (dreg, unknown(UnknownReason::NotModelled, &format!("rt {key}")))
            }
            // No packet asked about came through IPsec or a tunnel.
            Expr::Tunnel { .. } | Expr::Xfrm { .. } => return Step::Break,
            _others => return Step::Break,
        };
        match load {
            Load::Break => Step::Break,
            Load::Value(value) => {
                registers.store(dreg.0, &value);
                Step::Next
            }
            Load::IfThere(there, value) => {
                registers.store(dreg.0, &value);
                there.into()
            }
        }
    }

    /// A number that the kernel counts up, draws, or hashes: each of the few there can be.
    fn chosen(&self, modulus: u32, offset: u32, content: Option<&str>) -> Value {
        if modulus == 0 || modulus > MAX_VALUES {
            return Value::unknown(&[0xff; 4], UnknownReason::RandomChoice, content);
        }
        let is_it = |value: &u32| {
            let content = content.map(|content| format!("{content} is {value}"));
            self.forks.decide(UnknownReason::RandomChoice, content)
        };
        let value = (0..modulus - 1).find(is_it).unwrap_or(modulus - 1);
        Value::of(&value.wrapping_add(offset).to_le_bytes())
    }

    /// A stateful object. Helpers, timeouts and the like decide nothing.
    fn object(
        &mut self,
        table: &'a Table,
        object: Option<&'a Expr>,
        registers: &mut Registers,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<Step, NfStop> {
        match object {
            Some(limit @ (Expr::Limit { .. } | Expr::Quota { .. } | Expr::Connlimit { .. })) => {
                let step = self.expr(table, limit, registers, skb, place)?;
                // Nothing behind it may be asked before it.
                Ok(match step {
                    Step::Maybe(reason, content) => {
                        if self.forks.decide(reason, content) {
                            Step::Next
                        } else {
                            Step::Break
                        }
                    }
                    other @ (Step::Next | Step::Break | Step::Verdict(_)) => other,
                })
            }
            Some(Expr::Synproxy) => self.statement(&Expr::Synproxy, registers, skb, place),
            Some(_) => Ok(Step::Next),
            // `nft_objref_map_eval` breaks where the map has nothing; a named object is always there.
            None => Ok(Step::Next),
        }
    }

    /// An expression that changes or ends something.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
    fn statement(
        &mut self,
        expr: &Expr,
        registers: &Registers,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<Step, NfStop> {
        match expr {
            Expr::PayloadSet { sreg, base, offset, len } => {
                let value = registers.load(sreg.0, *len as usize);
                self.payload_set(*base, *offset, &value, skb);
            }
            Expr::MetaSet { sreg, key } => self.meta_set(*key, &registers.load(sreg.0, 4), skb),
            Expr::CtSet { sreg, key, direction } => {
                self.ct_set(*key, *direction, &registers.load(sreg.0, 4), skb);
            }
            Expr::Reject { kind, code } => {
                let answer = match kind {
                    RejectType::TcpRst => Rejection::Reset,
                    RejectType::IcmpUnreach => Rejection::Unreachable(*code),
                    RejectType::IcmpxUnreach => {
                        Rejection::Unreachable(icmpx_code(*code, skb.family))
                    }
                };
                return Err(NfStop {
                    reason: DropReason::FwReject,
                    answer: Some(answer),
                    sees: None,
                });
            }
            Expr::Nat { .. } | Expr::Masq { .. } | Expr::Redir { .. } => {
                return self.nat_statement(expr, registers, skb, place);
            }
            Expr::Tproxy { family, addr, port } => {
                let applies = *family == NfFamily::Inet || *family == place.family;
                let len = if place.family == NfFamily::Ip { 4 } else { 16 };
                let address = addr.map(|register| registers.load(register.0, len));
                let port = port.map(|register| registers.load(register.0, 2));
                if !applies {
                    return Ok(Step::Break);
                }
                return Ok(self.tproxy_by_registers(address, port, skb, place));
            }
            Expr::Notrack if skb.has_no_ct() => skb.ct = Ct::Untracked,
            Expr::Synproxy => self.synproxy(skb)?,
            Expr::Fwd => {
                // It leaves by another link.
                self.doubt(UnknownReason::NotModelled, DoubtEffect::MayRedirect);
                return Err(NfStop::DROP);
            }
            Expr::Queue { number, bypass, .. } => {
                let (number, bypass) = (*number, *bypass);
                return Ok(Step::Verdict(NfVerdict::Queue { number, bypass }));
            }
            _others => {}
        }
        Ok(Step::Next)
    }

    /// An expression that translates addresses; the chain ends with it.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
    fn nat_statement(
        &mut self,
        expr: &Expr,
        registers: &Registers,
        skb: &Skb,
        place: &Place,
    ) -> Result<Step, NfStop> {
        match expr {
            Expr::Nat { source, family, range } => {
                let applies = *family == NfFamily::Inet || *family == place.family;
                if !applies {
                    return Ok(Step::Next);
                }
                self.nat_setup(Range::from_registers(range, registers, skb), *source, skb)?;
            }
            Expr::Masq { range } => {
                self.masquerade(Range::from_registers(range, registers, skb), skb, place)?;
            }
            Expr::Redir { range } => {
                self.redirect(Range::from_registers(range, registers, skb), skb, place)?;
            }
            _others => {}
        }
        Ok(Step::Verdict(NfVerdict::Accept))
    }

    /// A SYN is answered by the kernel itself, before any socket is asked.
    pub(super) fn synproxy(&mut self, skb: &Skb) -> Result<(), NfStop> {
        let is_handshake = skb.protocol == super::skb::TCP && skb.tcp_flags != super::skb::RST;
        if is_handshake && matches!(skb.turn, super::skb::Turn::First | super::skb::Turn::Third) {
            self.doubt(UnknownReason::UserSpace, DoubtEffect::MayRedirect);
            return Err(NfStop::DROP);
        }
        Ok(())
    }

    /// `nft_payload_set_eval`: addresses and ports of the packet.
    fn payload_set(
        &mut self,
        base: canreach_snapshot::nft::expr::PayloadBase,
        offset: u32,
        value: &Value,
        skb: &mut Skb,
    ) {
        use canreach_snapshot::Family;
        use canreach_snapshot::nft::expr::PayloadBase;
        let bytes = value.bytes();
        let address = || {
            let bytes = bytes.clone()?;
            super::nat::address_of(&bytes)
        };
        let port = || Some(u16::from_be_bytes(bytes.clone()?.try_into().ok()?));
        let len = value.0.len();
        let known = match (base, skb.family, offset, len) {
            (PayloadBase::Network, Some(Family::Ipv4), 12, 4)
            | (PayloadBase::Network, Some(Family::Ipv6), 8, 16) => {
                address().map(|address| skb.source = address).is_some()
            }
            (PayloadBase::Network, Some(Family::Ipv4), 16, 4)
            | (PayloadBase::Network, Some(Family::Ipv6), 24, 16) => {
                address().map(|address| skb.destination = address).is_some()
            }
            (PayloadBase::Transport, _, 0, 2) if skb.has_ports() => {
                port().map(|port| skb.source_port = port).is_some()
            }
            (PayloadBase::Transport, _, 2, 2) if skb.has_ports() => {
                port().map(|port| skb.destination_port = port).is_some()
            }
            // DSCP and ECN, TTL, hop limit: of no consequence for where the packet goes, except to
            // rules that ask for them.
            (PayloadBase::Network, Some(Family::Ipv4), 0..=1 | 8, 1..=2)
            | (PayloadBase::Network, Some(Family::Ipv6), 0..=1 | 7, 1..=2) => true,
            (PayloadBase::Link, ..) => true,
            _others => false,
        };
        if !known {
            self.doubt(UnknownReason::NotModelled, DoubtEffect::MayRedirect);
        }
    }
}

/// An expression that is about registers alone.
#[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
fn compute(expr: &Expr, registers: &mut Registers) -> Step {
    match expr {
        Expr::Immediate { dreg, value } => {
            registers.store(dreg.0, &Value::of(value.as_slice()));
            Step::Next
        }
        Expr::Cmp { sreg, op, value } => {
            registers.load(sreg.0, value.len()).compare(*op, value.as_slice()).into()
        }
        Expr::Range { sreg, op, from, to } => {
            let within = registers.load(sreg.0, from.len());
            let within = within.is_within(from.as_slice(), to.as_slice());
            within.inverted_if(*op == CmpOp::Neq).into()
        }
        Expr::Bitwise { sreg, dreg, len, op } => {
            let value = registers.load(sreg.0, *len as usize);
            registers.store(dreg.0, &bitwise(&value, op, registers));
            Step::Next
        }
        Expr::Byteorder { sreg, dreg, to_host: _, len, size } => {
            let value = registers.load(sreg.0, *len as usize);
            registers.store(dreg.0, &value.swapped(*size as usize));
            Step::Next
        }
        _others => Step::Break,
    }
}

/// `nft_bitwise_eval`.
fn bitwise(value: &Value, op: &BitwiseOp, registers: &Registers) -> Value {
    let operand = |operand: &Operand| match operand {
        Operand::Register(register) => registers.load(register.0, value.0.len()),
        Operand::Constant(bytes) => Value::of(bytes.as_slice()),
    };
    match op {
        BitwiseOp::MaskXor { mask, xor } => {
            value.and(&Value::of(mask.as_slice())).xor(&Value::of(xor.as_slice()))
        }
        BitwiseOp::Lshift(bits) => value.shifted(*bits, true),
        BitwiseOp::Rshift(bits) => value.shifted(*bits, false),
        BitwiseOp::And(other) => value.and(&operand(other)),
        BitwiseOp::Or(other) => value.or(&operand(other)),
        BitwiseOp::Xor(other) => value.xor(&operand(other)),
    }
}

/// `nft_reject_icmp_code`, `nft_reject_icmpv6_code`.
const fn icmpx_code(code: u8, family: Option<canreach_snapshot::Family>) -> u8 {
    match (family, code) {
        (Some(canreach_snapshot::Family::Ipv6), 0) => 0,
        (Some(canreach_snapshot::Family::Ipv6), 2) => 3,
        (Some(canreach_snapshot::Family::Ipv6), 3) => 1,
        (Some(canreach_snapshot::Family::Ipv6), _port) => 4,
        (_, 0) => 0,
        (_, 2) => 1,
        (_, 3) => 13,
        (_, _port) => 3,
    }
}

/// Whether something holds, with the forks asked where it cannot be told.
impl Walk<'_> {
    pub(super) fn holds(&self, what: Tri) -> bool {
        match what {
            Tri::Yes => true,
            Tri::No => false,
            Tri::Maybe(reason, content) => self.forks.decide(reason, content),
        }
    }
}
