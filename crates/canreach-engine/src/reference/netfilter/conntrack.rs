//! Connection tracking, of the one connection that is asked about.
//!
//! Mirrors `nf_conntrack_in`, `nf_conntrack_confirm`, `nf_conntrack_attach` and `nf_ct_netns_get`
//! (net/netfilter/nf_conntrack_core.c, nf_conntrack_proto.c): it is active only while some rule needs
//! it. Left out: expectations of helpers, a full table, checksums.

use canreach_snapshot::nft::{Expr, Table};
use canreach_snapshot::xt::{MatchKind, TargetKind};
use canreach_snapshot::{ChainKind, HookOwner, NfFamily, xt};

use super::ct::{is_icmp_error, is_untracked_icmp};
use super::skb::{ACK, Connection, Ct, CtState, SYN, Skb, TCP, UDP, Zone};
use crate::reference::walk::Walk;

impl Walk<'_> {
    /// Whether conntrack's hooks are registered for a family: some rule needs it.
    pub(super) fn tracks(&self, family: NfFamily) -> bool {
        if !matches!(family, NfFamily::Ip | NfFamily::Ip6) {
            return false;
        }
        let firewall = &self.netns.firewall;
        if let Some(list) = &firewall.hook_list {
            return list.iter().any(|entry| {
                entry.family == family
                    && entry.owner == HookOwner::Function
                    && entry.function.contains("conntrack")
            });
        }
        let concerns = |table: &&Table| {
            table.family == family || matches!(table.family, NfFamily::Inet | NfFamily::Bridge)
        };
        let tables = firewall.nft.iter().flat_map(|ruleset| &ruleset.tables).filter(concerns);
        let by_nft = tables.flat_map(|table| {
            let rules = table.chains.iter().flat_map(|chain| &chain.rules);
            let objects = table.objects.iter().map(|object| &object.expr);
            rules.flat_map(|rule| &rule.exprs).chain(objects)
        });
        let legacy = firewall.xt_tables.iter().filter(|table| table.family == family);
        let mut legacy =
            legacy.flat_map(|table| table.chains.iter().flat_map(|chain| &chain.rules));
        by_nft.into_iter().any(|expr| expr_tracks(expr, family))
            || legacy
                .any(|rule| rule.matches.iter().any(match_tracks) || target_tracks(&rule.target))
    }

    /// Whether the NAT engine's hooks are registered for a family: some chain or table is for it.
    pub(super) fn translates(&self, family: NfFamily) -> bool {
        if !matches!(family, NfFamily::Ip | NfFamily::Ip6) {
            return false;
        }
        let firewall = &self.netns.firewall;
        let mut chains = firewall.nft.iter().flat_map(|ruleset| ruleset.hooked());
        let by_nft = chains.any(|(_, _, table, _, base)| {
            base.kind == ChainKind::Nat
                && (table.family == family || table.family == NfFamily::Inet)
        });
        let is_nat = |table: &xt::Table| table.family == family && table.name == "nat";
        by_nft || firewall.xt_tables.iter().any(is_nat)
    }

    /// `nf_conntrack_in`.
    pub(super) fn conntrack_in(&mut self, skb: &mut Skb) {
        if skb.ct != Ct::None {
            // Seen before (loopback), attached by reject, or not to be tracked.
            return;
        }
        let zone = skb.zone.take().unwrap_or(Zone::DEFAULT);
        if is_untracked_icmp(skb) {
            skb.ct = Ct::Untracked;
            return;
        }
        let known = self.connection.as_ref().filter(|connection| connection.confirmed);
        if is_icmp_error(skb) {
            // The packet in it is the client's.
            if known.is_some_and(|connection| connection.protocol != skb.protocol) {
                skb.ct = Ct::Tracked { state: CtState::Related, reply: true };
            }
            return;
        }
        if !matches!(skb.protocol, TCP | UDP) {
            return;
        }
        let tuple = skb.tuple();
        let direction = known.and_then(|connection| {
            let is = |reply: bool| {
                connection.tuple(reply) == tuple
                    && connection.protocol == skb.protocol
                    && connection.zone.id_for(reply) == zone.id_for(reply)
            };
            [false, true].into_iter().find(|reply| is(*reply))
        });
        match direction {
            Some(reply) => self.track_known(skb, reply),
            None => self.track_new(skb, zone),
        }
    }

    /// `resolve_normal_ct`, for a connection that is in the table.
    fn track_known(&mut self, skb: &mut Skb, reply: bool) {
        let Some(connection) = &mut self.connection else { return };
        let is_ack = skb.protocol == TCP && skb.tcp_flags & ACK != 0;
        if !reply && is_ack && !connection.seen_reply {
            // `tcp_conntracks`: an ACK where no SYN-ACK was seen is invalid.
            return;
        }
        let state =
            if reply || connection.seen_reply { CtState::Established } else { CtState::New };
        skb.ct = Ct::Tracked { state, reply };
        if reply {
            connection.seen_reply = true;
        } else if is_ack {
            connection.assured = true;
        }
    }

    /// `init_conntrack`. TCP takes a SYN for new, and an ACK for one it has missed the beginning of
    /// (`nf_conntrack_tcp_loose`); anything else is invalid.
    fn track_new(&mut self, skb: &mut Skb, zone: Zone) {
        let is_new = skb.protocol != TCP || matches!(skb.tcp_flags, SYN | ACK);
        if !is_new {
            return;
        }
        skb.ct = Ct::Tracked { state: CtState::New, reply: false };
        self.connection = Some(Connection {
            original: skb.tuple(),
            reply: skb.tuple().inverted(),
            protocol: skb.protocol,
            zone,
            mark: 0,
            seen_reply: false,
            assured: false,
            confirmed: false,
            source_nat: false,
            destination_nat: false,
            source_done: false,
            destination_done: false,
            helper: None,
        });
    }

    /// `nf_conntrack_confirm`.
    pub(super) fn conntrack_confirm(&mut self, skb: &Skb) {
        if let (Ct::Tracked { reply: false, .. }, Some(connection)) = (skb.ct, &mut self.connection)
        {
            connection.confirmed = true;
        }
    }

    /// `nf_conntrack_attach`: what an answer of a rule inherits from the packet it answers.
    pub(super) const fn attached(skb: &Skb) -> Ct {
        match skb.ct {
            Ct::Tracked { reply, .. } => Ct::Tracked { state: CtState::Related, reply: !reply },
            Ct::None | Ct::Untracked => Ct::None,
        }
    }
}

/// Whether an expression needs conntrack (`nf_ct_netns_get`).
fn expr_tracks(expr: &Expr, family: NfFamily) -> bool {
    let of_family = |of: NfFamily| of == family || of == NfFamily::Inet;
    match expr {
        Expr::Ct { .. }
        | Expr::CtSet { .. }
        | Expr::Masq { .. }
        | Expr::Redir { .. }
        | Expr::Connlimit { .. }
        | Expr::Synproxy
        | Expr::FlowOffload { .. } => true,
        Expr::Nat { family, .. } => of_family(*family),
        Expr::Dynset { exprs, .. } => exprs.iter().any(|expr| expr_tracks(expr, family)),
        Expr::Match(of) => match_tracks(of),
        Expr::Target(target) => target_tracks(target),
        Expr::Opaque(name) => name.starts_with("ct"),
        Expr::Immediate { .. }
        | Expr::Verdict(_)
        | Expr::Cmp { .. }
        | Expr::Range { .. }
        | Expr::Bitwise { .. }
        | Expr::Byteorder { .. }
        | Expr::Payload { .. }
        | Expr::PayloadSet { .. }
        | Expr::Exthdr { .. }
        | Expr::ExthdrSet { .. }
        | Expr::Meta { .. }
        | Expr::MetaSet { .. }
        | Expr::Rt { .. }
        | Expr::Socket { .. }
        | Expr::Fib { .. }
        | Expr::Lookup { .. }
        | Expr::Hash { .. }
        | Expr::Numgen { .. }
        | Expr::Osf { .. }
        | Expr::Tunnel { .. }
        | Expr::Xfrm { .. }
        | Expr::Limit { .. }
        | Expr::Quota { .. }
        | Expr::Counter { .. }
        | Expr::Last
        | Expr::Log { .. }
        | Expr::Reject { .. }
        | Expr::Tproxy { .. }
        | Expr::Notrack
        | Expr::Objref { .. }
        | Expr::ObjrefMap { .. }
        | Expr::Dup
        | Expr::Fwd
        | Expr::Queue { .. } => false,
    }
}

fn match_tracks(of: &xt::Match) -> bool {
    matches!(
        of.kind,
        MatchKind::Conntrack(_)
            | MatchKind::State { .. }
            | MatchKind::Connmark { .. }
            | MatchKind::Connbytes { .. }
            | MatchKind::Connlabel { .. }
            | MatchKind::Connlimit { .. }
            | MatchKind::Helper { .. }
    ) || of.name == "cluster"
}

fn target_tracks(target: &xt::Target) -> bool {
    match &target.kind {
        TargetKind::Connmark { .. }
        | TargetKind::Dnat(_)
        | TargetKind::Snat(_)
        | TargetKind::Masquerade(_)
        | TargetKind::Redirect(_)
        | TargetKind::Netmap(_)
        | TargetKind::Synproxy => true,
        TargetKind::Ct { notrack, .. } => !notrack,
        TargetKind::NoVerdict => target.name == "CONNSECMARK",
        TargetKind::Standard(_)
        | TargetKind::Continue
        | TargetKind::Error
        | TargetKind::Reject { .. }
        | TargetKind::Mark { .. }
        | TargetKind::Tproxy { .. }
        | TargetKind::Nfqueue { .. }
        | TargetKind::Set { .. }
        | TargetKind::Ttl { .. }
        | TargetKind::Tos { .. }
        | TargetKind::Opaque(_) => false,
    }
}
