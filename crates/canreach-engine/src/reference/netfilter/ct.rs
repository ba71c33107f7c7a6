//! What rules ask of the connection.
//!
//! Mirrors `nft_ct_get_eval` and `nft_ct_set_eval` (net/netfilter/nft_ct.c). Without a connection only
//! the state can be asked for; it is `untracked` or `invalid` then.

use canreach_snapshot::Family;
use canreach_snapshot::nft::expr::{CtDirection, CtKey};

use super::header::{Load, octets};
use super::skb::{Ct, CtState, ICMP, ICMPV6, Skb, Zone};
use super::value::Value;
use crate::reference::walk::Walk;
use crate::{DoubtEffect, UnknownReason};

/// `NF_CT_STATE_*`.
const INVALID: u32 = 1;
const UNTRACKED: u32 = 1 << 6;

/// `NF_CT_STATE_BIT`.
const fn state_bit(state: CtState) -> u32 {
    match state {
        CtState::Established => 1 << 1,
        CtState::Related => 1 << 2,
        CtState::New => 1 << 3,
    }
}

impl Walk<'_> {
    /// `ct state`, as the bits of `enum nft_ct_state`.
    pub(super) const fn ct_state(&self, skb: &Skb) -> u32 {
        match skb.ct {
            Ct::Tracked { state, .. } => state_bit(state),
            Ct::Untracked => UNTRACKED,
            // A template is as new as can be.
            Ct::None if skb.zone.is_some() => state_bit(CtState::New),
            Ct::None => INVALID,
        }
    }

    /// `nft_ct_get_eval`.
    pub(super) fn ct(&self, key: CtKey, direction: Option<CtDirection>, skb: &Skb) -> Load {
        let number = |number: u32| Load::Value(Value::of(&number.to_le_bytes()));
        if key == CtKey::State {
            return number(self.ct_state(skb));
        }
        let (Ct::Tracked { reply, .. }, Some(connection)) = (skb.ct, &self.connection) else {
            return Load::Break;
        };
        let unknown = |len: usize| {
            let name = format!("{:?} {key:?} {direction:?}", skb.turn);
            Load::Value(Value::unknown(&vec![0xff; len], UnknownReason::NotModelled, Some(&name)))
        };
        let tuple = connection.tuple(direction == Some(CtDirection::Reply));
        let family = Family::of(tuple.source);
        let bytes = |bytes: &[u8]| Load::Value(Value::of(bytes));
        match key {
            CtKey::State => number(self.ct_state(skb)),
            CtKey::Direction => bytes(&[u8::from(reply)]),
            CtKey::Status => number(connection.status()),
            CtKey::Mark => number(connection.mark),
            // A helper's name is that of the connection which expected this one: there is none.
            CtKey::Helper => Load::Break,
            CtKey::L3protocol => bytes(&[if family == Family::Ipv4 { 2 } else { 10 }]),
            CtKey::Protocol => bytes(&[connection.protocol]),
            CtKey::Zone => {
                let id = match direction {
                    Some(direction) => connection.zone.id_for(direction == CtDirection::Reply),
                    None => connection.zone.id,
                };
                bytes(&id.to_le_bytes())
            }
            CtKey::Src => bytes(&octets(tuple.source)),
            CtKey::Dst => bytes(&octets(tuple.destination)),
            CtKey::SrcIp if family == Family::Ipv4 => bytes(&octets(tuple.source)),
            CtKey::DstIp if family == Family::Ipv4 => bytes(&octets(tuple.destination)),
            CtKey::SrcIp6 if family == Family::Ipv6 => bytes(&octets(tuple.source)),
            CtKey::DstIp6 if family == Family::Ipv6 => bytes(&octets(tuple.destination)),
            CtKey::SrcIp | CtKey::DstIp | CtKey::SrcIp6 | CtKey::DstIp6 => Load::Break,
            CtKey::ProtoSrc => bytes(&tuple.source_port.to_be_bytes()),
            CtKey::ProtoDst => bytes(&tuple.destination_port.to_be_bytes()),
            CtKey::Labels => unknown(16),
            CtKey::Pkts | CtKey::Bytes | CtKey::Avgpkt => unknown(8),
            CtKey::Secmark | CtKey::Expiration | CtKey::Id | CtKey::Eventmask | CtKey::Other(_) => {
                unknown(4)
            }
        }
    }

    /// `nft_ct_set_eval`, `nft_ct_set_zone_eval`.
    pub(super) fn ct_set(
        &mut self,
        key: CtKey,
        direction: Option<CtDirection>,
        value: &Value,
        skb: &mut Skb,
    ) {
        let Some(number) = value.host_number() else {
            if matches!(key, CtKey::Mark | CtKey::Zone) {
                let reason =
                    value.0.iter().find_map(|byte| byte.origin.as_ref()).map(|of| of.reason);
                let reason = reason.unwrap_or(UnknownReason::NotModelled);
                self.doubt(reason, DoubtEffect::MayRedirect);
            }
            return;
        };
        if key == CtKey::Zone && skb.has_no_ct() {
            skb.zone = Some(Zone {
                id: number as u16,
                original: direction != Some(CtDirection::Reply),
                reply: direction != Some(CtDirection::Original),
            });
        }
        let tracked = matches!(skb.ct, Ct::Tracked { .. });
        if let Some(connection) = &mut self.connection
            && key == CtKey::Mark
            && tracked
        {
            connection.mark = number;
        }
    }

    /// The connection a packet belongs to, with whether it goes back.
    pub(super) const fn connection_of(&self, skb: &Skb) -> Option<(&super::skb::Connection, bool)> {
        match (skb.ct, &self.connection) {
            (Ct::Tracked { reply, .. }, Some(connection)) => Some((connection, reply)),
            (_, _) => None,
        }
    }
}

/// Whether ICMP of this type is left alone by conntrack: neighbour discovery, and group membership
/// (`nf_conntrack_icmpv6_error`).
pub(super) const fn is_untracked_icmp(skb: &Skb) -> bool {
    skb.protocol == ICMPV6 && skb.source_port >= 130 && skb.source_port <= 137
}

/// Whether it is an error about another packet.
pub(super) const fn is_icmp_error(skb: &Skb) -> bool {
    match skb.protocol {
        ICMP => matches!(skb.source_port, 3 | 4 | 5 | 11 | 12),
        ICMPV6 => skb.source_port < 128,
        _ => false,
    }
}
