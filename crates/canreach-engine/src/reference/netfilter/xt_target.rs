//! One target of xtables.
//!
//! Mirrors the `target` functions of net/netfilter/xt_*.c, ipt_REJECT.c and ip6t_REJECT.c.

use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::xt::{ConnmarkMode, Target, TargetKind};
use canreach_snapshot::{Family, NfHook};

use super::chain::Step;
use super::exchange::Rejection;
use super::nat::Range;
use super::order::NfStop;
use super::skb::{Ct, Place, Skb, Zone};
use crate::reference::walk::Walk;
use crate::{DoubtEffect, DropReason, UnknownReason};

impl Walk<'_> {
    /// Runs a target. An end of the packet is an error.
    pub(super) fn xt_target(
        &mut self,
        target: &Target,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<Step, NfStop> {
        match &target.kind {
            TargetKind::Standard(verdict) => return Ok(Step::Verdict(verdict.clone())),
            TargetKind::Continue | TargetKind::NoVerdict => {}
            TargetKind::Ttl { .. } | TargetKind::Tos { .. } => {}
            TargetKind::Error => return Err(NfStop::DROP),
            TargetKind::Reject { with } => {
                let answer = rejection(*with, skb.family);
                return Err(NfStop { reason: DropReason::FwReject, answer, sees: None });
            }
            TargetKind::Mark { mark, mask } => skb.mark = (skb.mark & !mask) ^ mark,
            TargetKind::Connmark { .. } => self.connmark(&target.kind, skb),
            TargetKind::Dnat(_)
            | TargetKind::Snat(_)
            | TargetKind::Masquerade(_)
            | TargetKind::Redirect(_)
            | TargetKind::Netmap(_) => return self.nat_target(&target.kind, skb, place),
            TargetKind::Ct { notrack, zone, zone_flags, .. } => {
                xt_ct_target(*notrack, *zone, *zone_flags, skb);
            }
            TargetKind::Tproxy { address, port, mark_mask, mark_value } => {
                let mark = (*mark_mask, *mark_value);
                return Ok(Step::Verdict(self.xt_tproxy(*address, *port, mark, skb, place)));
            }
            TargetKind::Nfqueue { number, bypass, .. } => {
                let (number, bypass) = (*number, *bypass);
                return Ok(Step::Verdict(NfVerdict::Queue { number, bypass }));
            }
            TargetKind::Set { add, delete, map, .. } => {
                for reference in [add, delete].into_iter().flatten() {
                    self.change_ipset(reference);
                }
                if map.is_some() {
                    self.doubt(UnknownReason::NotModelled, DoubtEffect::MayRedirect);
                }
            }
            TargetKind::Synproxy => self.synproxy(skb)?,
            TargetKind::Opaque(_) => {
                self.doubt(UnknownReason::NotModelled, DoubtEffect::MayRedirect);
            }
        }
        Ok(Step::Next)
    }

    /// A target that translates addresses; the table ends with it.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
    fn nat_target(&mut self, kind: &TargetKind, skb: &Skb, place: &Place) -> Result<Step, NfStop> {
        match kind {
            TargetKind::Dnat(range) => self.nat_setup(Range::from_xt(range), false, skb)?,
            TargetKind::Snat(range) => self.nat_setup(Range::from_xt(range), true, skb)?,
            TargetKind::Masquerade(range) => self.masquerade(Range::from_xt(range), skb, place)?,
            TargetKind::Redirect(range) => self.redirect(Range::from_xt(range), skb, place)?,
            TargetKind::Netmap(range) => {
                let source = matches!(place.hook, NfHook::Input | NfHook::Postrouting);
                let address = if source { skb.source } else { skb.destination };
                self.nat_setup(Range::from_xt(range).mapped(address), source, skb)?;
            }
            _others => {}
        }
        Ok(Step::Verdict(NfVerdict::Accept))
    }

    /// `connmark_tg_shift`.
    fn connmark(&mut self, kind: &TargetKind, skb: &mut Skb) {
        let TargetKind::Connmark { mode, ctmark, ctmask, nfmask, shift } = kind else { return };
        if !matches!(skb.ct, Ct::Tracked { .. }) {
            return;
        }
        let Some(connection) = &mut self.connection else { return };
        let shifted = |mark: u32| {
            let bits = u32::from(shift.unsigned_abs());
            let moved = if *shift >= 0 { mark.checked_shl(bits) } else { mark.checked_shr(bits) };
            moved.unwrap_or(0)
        };
        match mode {
            ConnmarkMode::Set => connection.mark = shifted((connection.mark & !ctmask) ^ ctmark),
            ConnmarkMode::Save => {
                connection.mark = (connection.mark & !ctmask) ^ shifted(skb.mark & nfmask);
            }
            ConnmarkMode::Restore => {
                skb.mark = (skb.mark & !nfmask) ^ shifted(connection.mark & ctmask);
            }
        }
    }
}

/// `enum ipt_reject_with`, `enum ip6t_reject_with`. The echo replies are gone since Linux 2.6.
const fn rejection(with: u32, family: Option<Family>) -> Option<Rejection> {
    let code = match (family, with) {
        (Some(Family::Ipv6), 6) | (_, 7) if !is_policy_fail(family, with) => {
            return Some(Rejection::Reset);
        }
        (Some(Family::Ipv6), 0..=4) => with as u8,
        (Some(Family::Ipv6), 7) => 5,
        (Some(Family::Ipv6), 8) => 6,
        (Some(Family::Ipv6), _) => return None,
        (_, 0..=3) => with as u8,
        (_, 5) => 9,
        (_, 6) => 10,
        (_, 8) => 13,
        (_, _) => return None,
    };
    Some(Rejection::Unreachable(code))
}

/// 7 is a reset in IPv4, and "source address failed policy" in IPv6.
const fn is_policy_fail(family: Option<Family>, with: u32) -> bool {
    matches!(family, Some(Family::Ipv6)) && with == 7
}

/// `xt_ct_target`: for what has neither a connection nor a template.
const fn xt_ct_target(notrack: bool, id: u16, flags: u16, skb: &mut Skb) {
    /// `XT_CT_ZONE_DIR_ORIG`, `XT_CT_ZONE_DIR_REPL`, `XT_CT_ZONE_MARK`.
    const ORIGINAL: u16 = 1 << 2;
    const REPLY: u16 = 1 << 3;
    const MARK: u16 = 1 << 4;
    if !skb.has_no_ct() {
        return;
    }
    if notrack {
        skb.ct = Ct::Untracked;
        return;
    }
    let id = if flags & MARK == 0 { id } else { skb.mark as u16 };
    skb.zone = Some(Zone { id, original: flags & REPLY == 0, reply: flags & ORIGINAL == 0 });
}
