//! Targets of xtables, and whole rules of iptables-legacy.
//!
//! *Kernel:* `ipt_do_table`, `ip6t_do_table`, `nft_target_eval_xt`, net/netfilter/xt_*.c. Left out: TTLs that
//! are increased or decreased, zones for one direction, maps of ipset to marks.

use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::address::address_value;
use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{NfVerdict, PayloadBase, RejectType};
use canreach_snapshot::xt::{self, ConnmarkMode, MatchKind, NatRange, TargetKind};
use canreach_snapshot::{ChainKind, Family, NfHook};

use crate::netfilter::chain::{Decision, Evaluation, RuleResult, State};
use crate::netfilter::expr::{At, Sink, rejection};
use crate::netfilter::header::TCP;
use crate::netfilter::nat::{Addresses, Request};
use crate::netfilter::view::{Part, Tracking, Zone};
use crate::{DropReason, UnknownReason};

/// `XT_CT_ZONE_*` of a CT target.
mod zone {
    pub(super) const ORIGINAL_ONLY: u16 = 4;
    pub(super) const REPLY_ONLY: u16 = 8;
    pub(super) const OF_MARK: u16 = 16;
}

impl<'a> Evaluation<'_, '_, 'a> {
    /// A match or target inside nftables.
    pub(crate) fn xtables(&mut self, at: At, expr: &'a Expr, state: State, sink: &mut Sink<'_>) {
        match expr {
            Expr::Match(asked) => self.match_step(at, asked, state, sink),
            Expr::Target(target) => self.xt_target(at, target, state, sink),
            _ => sink.go_on(state),
        }
    }

    /// A rule of iptables-legacy.
    pub(crate) fn xt_rule(
        &mut self,
        at: At,
        rule: &'a xt::Rule,
        state: State,
        result: &mut RuleResult,
    ) -> Vec<State> {
        let holds = self.header_match(at.1, &state.view, &rule.header);
        let mut open = Vec::with_capacity(1);
        let mut sink = Sink { next: &mut open, result };
        self.test(state, holds, &mut sink);
        for asked in &rule.matches {
            let mut next = Vec::with_capacity(1);
            let mut sink = Sink { next: &mut next, result };
            for state in open {
                self.match_step(at, asked, state, &mut sink);
            }
            open = next;
        }
        let mut next = Vec::with_capacity(1);
        let mut sink = Sink { next: &mut next, result };
        for state in open {
            self.xt_target(at, &rule.target, state, &mut sink);
        }
        next
    }

    fn match_step(&mut self, at: At, asked: &'a xt::Match, state: State, sink: &mut Sink<'_>) {
        if let MatchKind::Socket { flags } = &asked.kind {
            return self.socket_match(*flags, state, sink);
        }
        let view = Rc::clone(&state.view);
        let holds = self.xt_match(at.1, &view, asked);
        self.test(state, holds, sink);
    }

    /// What a target does.
    fn xt_target(&mut self, at: At, target: &'a xt::Target, state: State, sink: &mut Sink<'_>) {
        match &target.kind {
            TargetKind::Standard(verdict) => match verdict {
                NfVerdict::Continue => sink.go_on(state),
                verdict => sink.decide(state, Decision::Verdict(verdict.clone())),
            },
            TargetKind::Continue | TargetKind::NoVerdict => sink.go_on(state),
            TargetKind::Error => sink.decide(state, Decision::Stop(DropReason::FwDrop, None)),
            TargetKind::Reject { with } => {
                let decision = xt_rejection(&state, *with);
                sink.decide(state, decision);
            }
            TargetKind::Mark { mark, mask } => {
                let new = (state.view.mark & !mask) ^ mark;
                self.set_mark(new, state, sink);
            }
            TargetKind::Connmark { .. } => self.xt_connmark(&target.kind, state, sink),
            TargetKind::Dnat(_)
            | TargetKind::Snat(_)
            | TargetKind::Masquerade(_)
            | TargetKind::Redirect(_)
            | TargetKind::Netmap(_) => self.xt_nat(at, &target.kind, state, sink),
            TargetKind::Ct { notrack, zone, zone_flags, .. } => {
                Self::xt_ct(*notrack, (*zone, *zone_flags), state, sink);
            }
            TargetKind::Tproxy { address, port, mark_mask, mark_value } => {
                let port = port.filter(|port| *port != 0);
                let mark = (state.view.mark & !mark_mask) ^ mark_value;
                self.xt_tproxy(at, (*address, port), mark, state, sink);
            }
            TargetKind::Nfqueue { number, bypass, .. } => {
                let verdict = NfVerdict::Queue { number: *number, bypass: *bypass };
                sink.decide(state, Decision::Verdict(verdict));
            }
            TargetKind::Set { .. } | TargetKind::Ttl { .. } | TargetKind::Tos { .. } => {
                self.xt_change(&target.kind, state, sink);
            }
            TargetKind::Synproxy => {
                if state.view.protocol == TCP {
                    sink.decide(state, Decision::Lost(UnknownReason::UserSpace));
                } else {
                    sink.go_on(state);
                }
            }
            TargetKind::Opaque(_) => {
                sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
            }
        }
    }

    /// Targets that change sets or header fields, and go on.
    fn xt_change(&self, kind: &TargetKind, mut state: State, sink: &mut Sink<'_>) {
        match kind {
            TargetKind::Set { add, delete, map, .. } => {
                if map.is_some() {
                    return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
                }
                for reference in add.iter().chain(delete) {
                    let place = (None, usize::from(reference.index));
                    if self.host.ruleset().reads_ipset(reference.index)
                        && !state.view.filled_sets.contains(&place)
                    {
                        state.change(|view| {
                            view.filled_sets.push(place);
                            view.filled_sets.sort_unstable();
                        });
                    }
                }
                sink.go_on(state);
            }
            TargetKind::Ttl { mode, value } => {
                if *mode != 0 {
                    return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
                }
                let at = match state.view.family {
                    Family::Ipv4 => 8,
                    Family::Ipv6 => 7,
                };
                state.change(|view| view.rewrite(PayloadBase::Network, at, *value));
                sink.go_on(state);
            }
            TargetKind::Tos { mask, value } => {
                let tos = (state.view.tos & !mask) ^ value;
                let reroutes = self.place.hook == NfHook::Output && self.kind == ChainKind::Route;
                if tos != state.view.tos {
                    state.change(|view| {
                        view.tos = tos;
                        view.reroute |= reroutes;
                    });
                }
                sink.go_on(state);
            }
            _ => sink.go_on(state),
        }
    }

    /// Gives packets a mark. In chains that route again, they are.
    pub(crate) fn set_mark(&self, mark: u32, mut state: State, sink: &mut Sink<'_>) {
        let reroutes = self.place.hook == NfHook::Output && self.kind == ChainKind::Route;
        if mark != state.view.mark {
            state.change(|view| {
                view.mark = mark;
                view.reroute |= reroutes;
            });
        }
        sink.go_on(state);
    }

    /// `connmark_tg_shift`.
    fn xt_connmark(&self, kind: &TargetKind, mut state: State, sink: &mut Sink<'_>) {
        let TargetKind::Connmark { mode, ctmark, ctmask, nfmask, shift } = kind else {
            return sink.go_on(state);
        };
        let connection = state.view.connection;
        if !connection.is_attached() {
            return sink.go_on(state);
        }
        let shifted = |value: u32| {
            let by = u32::from(shift.unsigned_abs());
            let moved = if *shift >= 0 { value.checked_shl(by) } else { value.checked_shr(by) };
            moved.unwrap_or(0)
        };
        let mark = match mode {
            ConnmarkMode::Set => shifted((connection.mark & !ctmask) ^ ctmark),
            ConnmarkMode::Save => (connection.mark & !ctmask) ^ shifted(state.view.mark & nfmask),
            ConnmarkMode::Restore => {
                let mark = (state.view.mark & !nfmask) ^ shifted(connection.mark & ctmask);
                return self.set_mark(mark, state, sink);
            }
        };
        if mark != connection.mark {
            state.change(|view| view.connection.mark = mark);
        }
        sink.go_on(state);
    }

    fn xt_nat(&mut self, at: At, kind: &TargetKind, state: State, sink: &mut Sink<'_>) {
        if !state.view.connection.is_attached() {
            // NAT chains do not run without a connection.
            return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
        }
        let of = |source: bool, range: &NatRange| {
            let addresses = match range.addresses {
                None => Addresses::Same,
                Some((low, high)) if low == high => Addresses::One(Part::Is(address_value(low))),
                Some((low, high)) => Addresses::Between(address_value(low), address_value(high)),
            };
            let (ports, base_port) = (range.ports, range.base_port);
            Request { source, addresses, ports, base_port, flags: range.flags }
        };
        match kind {
            TargetKind::Dnat(range) => self.set_up(at.1, of(false, range), state, sink),
            TargetKind::Snat(range) => self.set_up(at.1, of(true, range), state, sink),
            TargetKind::Masquerade(range) => {
                self.masquerade_to(at.1, (range.ports, range.flags), state, sink);
            }
            TargetKind::Redirect(range) => {
                self.redirect_to(at.1, (range.ports, range.flags), state, sink);
            }
            TargetKind::Netmap(range) => {
                let source = !matches!(self.place.hook, NfHook::Prerouting | NfHook::Output);
                let Some((low, high)) = range.addresses else {
                    return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
                };
                let addresses = Addresses::Network(address_value(low), address_value(high));
                let request = Request { addresses, ..of(source, range) };
                self.set_up(at.1, request, state, sink);
            }
            _ => sink.go_on(state),
        }
    }

    /// `xt_ct_target`: only what has no connection yet.
    fn xt_ct(notrack: bool, (id, flags): (u16, u16), mut state: State, sink: &mut Sink<'_>) {
        if !state.view.connection.is_unseen() {
            return sink.go_on(state);
        }
        if notrack {
            state.change(|view| view.connection.tracking = Tracking::Untracked);
            return sink.go_on(state);
        }
        let id = if flags & zone::OF_MARK != 0 { state.view.mark as u16 } else { id };
        let zone = Zone {
            id,
            original: flags & zone::REPLY_ONLY == 0,
            reply: flags & zone::ORIGINAL_ONLY == 0,
        };
        state.change(|view| view.connection.template = Some(zone));
        sink.go_on(state);
    }

    fn xt_tproxy(
        &mut self,
        at: At,
        to: (Option<IpAddr>, Option<u16>),
        mark: u32,
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let to = (to.0.filter(|address| !address.is_unspecified()), to.1);
        let (found, missed) = self.tproxy_target(at.1, &state, to);
        for (set, socket) in found {
            let mut state = State { set, ..state.clone() };
            state.change(|view| {
                view.tproxy = Some(socket);
                view.socket = Some(socket);
                view.mark = mark;
            });
            // `NF_ACCEPT`: the chain ends.
            sink.decide(state, Decision::Verdict(NfVerdict::Accept));
        }
        // `tproxy_tg4`: where no transparent socket is there, the packet is dropped.
        let state = State { set: missed, ..state };
        sink.decide(state, Decision::Stop(DropReason::FwDrop, None));
    }
}

/// `reject_tg`, `reject_tg6`: the kernel's numbers differ between the families.
fn xt_rejection(state: &State, with: u32) -> Decision {
    const IPV4_RESET: u32 = 7;
    const IPV6_RESET: u32 = 6;
    let view = &state.view;
    let icmp = |code: u8| rejection(view, RejectType::IcmpUnreach, code);
    let reset = || rejection(view, RejectType::TcpRst, 0);
    match (view.family, with) {
        (Family::Ipv4, IPV4_RESET) | (Family::Ipv6, IPV6_RESET) => reset(),
        (Family::Ipv4, 0..=3) => icmp(with as u8),
        (Family::Ipv4, 5) => icmp(9),
        (Family::Ipv4, 6) => icmp(10),
        (Family::Ipv4, 8) => icmp(13),
        (Family::Ipv6, 0..=4) => icmp(with as u8),
        (Family::Ipv6, 7) => icmp(5),
        (Family::Ipv6, 8) => icmp(6),
        (_, _) => Decision::Stop(DropReason::FwReject, None),
    }
}
