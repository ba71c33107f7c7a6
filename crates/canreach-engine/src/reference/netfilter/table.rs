//! One table of iptables-legacy at one hook.
//!
//! Mirrors `ipt_do_table` and `ip6t_do_table` (net/ipv4/netfilter/ip_tables.c), `ip_packet_match`, and
//! `ipt_mangle_out` (iptable_mangle.c), which routes again what its rules changed.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::xt::{Chain, HeaderMatch, MaskedAddress, Rule, Table, TargetKind};
use canreach_snapshot::{ChainPolicy, Ifindex, NfHook};

use super::chain::Step;
use super::order::NfStop;
use super::skb::{Place, Skb};
use super::value::Tri;
use crate::reference::walk::Walk;
use crate::{DoubtEffect, UnknownReason};

/// The most jumps that are followed; the kernel allows one for each chain.
const MAX_JUMPS: usize = 4096;
/// The most rules of one table that are looked at.
const MAX_RULES: usize = 1 << 20;

impl<'a> Walk<'a> {
    /// `ipt_do_table`, from a built-in chain on.
    pub(super) fn legacy_table(
        &mut self,
        table: &'a Table,
        chain: &'a Chain,
        policy: ChainPolicy,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<(), NfStop> {
        let before = (skb.mark, skb.source, skb.destination);
        self.ipt_do_table(table, chain, policy, skb, place)?;
        let changed = before != (skb.mark, skb.source, skb.destination);
        if table.name == "mangle" && place.hook == NfHook::Output && changed {
            self.route_me_harder(skb)?;
        }
        Ok(())
    }

    fn ipt_do_table(
        &mut self,
        table: &'a Table,
        chain: &'a Chain,
        policy: ChainPolicy,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<(), NfStop> {
        let mut stack: Vec<(&Chain, usize)> = Vec::new();
        let (mut current, mut at) = (chain, 0);
        for _ in 0..MAX_RULES {
            let verdict = match current.rules.get(at) {
                Some(rule) => {
                    at += 1;
                    self.ipt_entry(rule, skb, place)?
                }
                None => NfVerdict::Return,
            };
            match verdict {
                NfVerdict::Accept => return Ok(()),
                NfVerdict::Drop | NfVerdict::Stolen => return Err(NfStop::DROP),
                NfVerdict::Queue { .. } => return self.queue(),
                NfVerdict::Continue | NfVerdict::Break | NfVerdict::Other(_) => {}
                NfVerdict::Return => match stack.pop() {
                    Some(back) => (current, at) = back,
                    None if policy == ChainPolicy::Accept => return Ok(()),
                    None => return Err(NfStop::DROP),
                },
                NfVerdict::Jump(ref name) | NfVerdict::Goto(ref name) => {
                    let Some(target) = table.chains.iter().find(|chain| chain.name == *name) else {
                        // Only a damaged snapshot has no such chain.
                        self.doubt(UnknownReason::Unread, DoubtEffect::MayStop);
                        continue;
                    };
                    if matches!(verdict, NfVerdict::Jump(_)) {
                        if stack.len() >= MAX_JUMPS {
                            return Err(NfStop::DROP);
                        }
                        stack.push((current, at));
                    }
                    (current, at) = (target, 0);
                }
            }
        }
        self.doubt(UnknownReason::LimitReached, DoubtEffect::MayStop);
        Ok(())
    }

    /// One rule: its header, its matches, its target.
    fn ipt_entry(
        &mut self,
        rule: &Rule,
        skb: &mut Skb,
        place: &Place,
    ) -> Result<NfVerdict, NfStop> {
        let inert = matches!(rule.target.kind, TargetKind::NoVerdict | TargetKind::Continue);
        if inert || !self.ip_packet_match(&rule.header, skb, place) {
            return Ok(NfVerdict::Continue);
        }
        let mut unsure = Vec::new();
        for of in &rule.matches {
            match self.xt_match(of, skb, place) {
                Tri::Yes => {}
                Tri::No => return Ok(NfVerdict::Continue),
                Tri::Maybe(reason, content) => unsure.push((reason, content)),
            }
        }
        for (reason, content) in unsure {
            if !self.forks.decide(reason, content) {
                return Ok(NfVerdict::Continue);
            }
        }
        match self.xt_target(&rule.target, skb, place)? {
            Step::Verdict(verdict) => Ok(verdict),
            Step::Next | Step::Break | Step::Maybe(..) => Ok(NfVerdict::Continue),
        }
    }

    /// `ip_packet_match`, `ip6_packet_match`.
    fn ip_packet_match(&self, header: &HeaderMatch, skb: &Skb, place: &Place) -> bool {
        let source = is_under(skb.source, header.source) != header.source_inverted;
        let destination =
            is_under(skb.destination, header.destination) != header.destination_inverted;
        let iniface = self.is_named(place.iif, &header.iniface) != header.iniface_inverted;
        let outiface = self.is_named(place.oif, &header.outiface) != header.outiface_inverted;
        let any_protocol = header.protocol == 0 && !header.protocol_inverted;
        let protocol = any_protocol
            || (header.protocol == u16::from(skb.protocol)) != header.protocol_inverted;
        // `-f` is for later fragments, and packets asked about are whole.
        let fragment = !header.fragment || header.fragment_inverted;
        source && destination && iniface && outiface && protocol && fragment
    }

    /// Whether a link has a name; a trailing `+` stands for any ending. No link has the empty name.
    fn is_named(&self, link: Option<Ifindex>, wanted: &str) -> bool {
        if wanted.is_empty() {
            return true;
        }
        let name = link.and_then(|link| self.link(link)).map_or("", |link| link.name.as_str());
        match wanted.strip_suffix('+') {
            Some(start) => name.starts_with(start),
            None => name == wanted,
        }
    }
}

/// Whether an address is another under its mask.
pub(super) fn is_under(address: IpAddr, masked: MaskedAddress) -> bool {
    let (own, wanted) = (address_value(address), address_value(masked.address));
    (own & address_value(masked.mask)) == wanted
}
