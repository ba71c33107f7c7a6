//! What `meta` loads.
//!
//! *Kernel:* `nft_meta_get_eval` (net/netfilter/nft_meta.c). Without a link, indices are 0 and names empty:
//! these do not end the rule. Left out: realms, secmarks, classes of control groups.

use canreach_snapshot::nft::expr::{MetaKey, PayloadBase};
use canreach_snapshot::{Family, Ifindex, Link, LinkKind};

use crate::netfilter::chain::Evaluation;
use crate::netfilter::expr::Value;
use crate::netfilter::unknown::{Cause, Sameness, Variable};
use crate::netfilter::view::{PacketType, View};
use crate::{NfSubject, UnknownReason};

/// `ARPHRD_*` of include/uapi/linux/if_arp.h.
mod hardware {
    pub(super) const ETHER: u16 = 1;
    pub(super) const PPP: u16 = 512;
    pub(super) const LOOPBACK: u16 = 772;
    pub(super) const NONE: u16 = 0xfffe;
}

/// Seconds of a day.
const DAY_S: u128 = 86_400;

impl Evaluation<'_, '_, '_> {
    /// What a key of `meta` is for a packet.
    pub(crate) fn meta(&mut self, subject: NfSubject, view: &View, key: MetaKey) -> Value {
        let cause = |reason| Cause { reason, subject: Some(subject) };
        match key {
            MetaKey::Protocol => Value::known(&ethertype(view.family).to_be_bytes()),
            MetaKey::Nfproto => Value::known(&[nfproto(view.family)]),
            MetaKey::L4proto => Value::known(&[view.protocol]),
            MetaKey::Mark => Value::number(view.mark),
            MetaKey::Priority => Value::number(view.priority),
            MetaKey::Pkttype => Value::known(&[packet_type(view.packet_type)]),
            MetaKey::Iif => Value::number(view.iif.map_or(0, |link| link.0)),
            MetaKey::Oif => Value::number(view.oif.map_or(0, |link| link.0)),
            MetaKey::Sdif => Value::number(view.sdif.map_or(0, |link| link.0)),
            MetaKey::Iifname => self.link_name(view.iif),
            MetaKey::Oifname => self.link_name(view.oif),
            MetaKey::Sdifname => self.link_name(view.sdif),
            MetaKey::Iiftype => self.of_link(view.iif, link_type),
            MetaKey::Oiftype => self.of_link(view.oif, link_type),
            MetaKey::Iifgroup => self.of_link(view.iif, |link| Value::number(link.group)),
            MetaKey::Oifgroup => self.of_link(view.oif, |link| Value::number(link.group)),
            MetaKey::Iifkind => self.of_link(view.iif, link_kind),
            MetaKey::Oifkind => self.of_link(view.oif, link_kind),
            MetaKey::Skuid => self.sender_uid(view).map_or(Value::Missing, Value::number),
            MetaKey::Skgid | MetaKey::Cgroup => {
                if view.socket.is_none() && view.sender_uid.is_none() {
                    Value::Missing
                } else {
                    Value::Unknown(UnknownReason::NotModelled)
                }
            }
            MetaKey::Len => Value::Number(self.length(subject, view), 4),
            // Packets asked about come as they are, not out of IPsec.
            MetaKey::Secpath => Value::known(&[0]),
            MetaKey::Cpu => {
                let same = Sameness::Packet(view.turn, "cpu".to_owned());
                let cause = cause(UnknownReason::RandomChoice);
                Value::Number(self.unknowns.same(same, cause, 0, 0xffff), 4)
            }
            MetaKey::Prandom => {
                let cause = cause(UnknownReason::RandomChoice);
                Value::Number(self.unknowns.fresh(cause, 0, 0xffff_ffff), 4)
            }
            MetaKey::TimeNs => self.time(subject, "ns", u128::from(u64::MAX), 8),
            MetaKey::TimeDay => self.time(subject, "day", 6, 1),
            MetaKey::TimeHour => self.time(subject, "second", DAY_S - 1, 4),
            // Only written.
            MetaKey::Nftrace
            | MetaKey::Rtclassid
            | MetaKey::Secmark
            | MetaKey::BriIifname
            | MetaKey::BriOifname
            | MetaKey::BriIifpvid
            | MetaKey::BriIifvproto
            | MetaKey::BriBroute
            | MetaKey::BriIifhwaddr
            | MetaKey::Other(_) => Value::Unknown(UnknownReason::NotModelled),
        }
    }

    /// How long the packet is, from its network header on.
    pub(crate) fn length(&mut self, subject: NfSubject, view: &View) -> Variable {
        let cause = Cause { reason: UnknownReason::PacketDetails, subject: Some(subject) };
        match view.family {
            // The same number as in the header.
            Family::Ipv4 => {
                let same = Sameness::Header(view.turn, PayloadBase::Network, 2);
                self.unknowns.same(same, cause, 20 + view.least_length(), 0xffff)
            }
            Family::Ipv6 => {
                let same = Sameness::Packet(view.turn, "length".to_owned());
                self.unknowns.same(same, cause, 40 + view.least_length(), 40 + 0xffff)
            }
        }
    }

    fn time(&mut self, subject: NfSubject, what: &str, high: u128, bytes: u8) -> Value {
        let cause = Cause { reason: UnknownReason::TimeOfDay, subject: Some(subject) };
        let same = Sameness::Machine(format!("time {what}"));
        Value::Number(self.unknowns.same(same, cause, 0, high), bytes)
    }

    fn link_name(&self, link: Option<Ifindex>) -> Value {
        match link {
            None => Value::name(""),
            Some(index) => self.host.link(index).map_or_else(
                || Value::Unknown(UnknownReason::Unread),
                |link| Value::name(&link.name),
            ),
        }
    }

    fn of_link(&self, link: Option<Ifindex>, value: impl Fn(&Link) -> Value) -> Value {
        match link {
            None => Value::Missing,
            Some(index) => {
                self.host.link(index).map_or(Value::Unknown(UnknownReason::Unread), value)
            }
        }
    }

    /// The user that `skb->sk` belongs to.
    pub(crate) fn sender_uid(&self, view: &View) -> Option<u32> {
        let sockets = &self.host.netns().sockets;
        let of_socket = view.socket.and_then(|index| sockets.get(index.0)).map(|socket| socket.uid);
        view.sender_uid.or(of_socket)
    }
}

/// `ETH_P_IP`, `ETH_P_IPV6`.
const fn ethertype(family: Family) -> u16 {
    match family {
        Family::Ipv4 => 0x0800,
        Family::Ipv6 => 0x86dd,
    }
}

/// `NFPROTO_*`.
pub(crate) const fn nfproto(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

/// `PACKET_*`.
pub(crate) const fn packet_type(kind: PacketType) -> u8 {
    match kind {
        PacketType::Host => 0,
        PacketType::Broadcast => 1,
        PacketType::Multicast => 2,
        PacketType::Otherhost => 3,
    }
}

/// `dev->type`.
fn link_type(link: &Link) -> Value {
    let kind = match &link.kind {
        LinkKind::Loopback => hardware::LOOPBACK,
        LinkKind::Ethernet
        | LinkKind::Wifi
        | LinkKind::Bridge
        | LinkKind::Veth
        | LinkKind::Vlan
        | LinkKind::Macvlan
        | LinkKind::Bond
        | LinkKind::Team
        | LinkKind::Vrf
        | LinkKind::Dummy => hardware::ETHER,
        LinkKind::Wireguard => hardware::NONE,
        LinkKind::Ppp => hardware::PPP,
        // tap has hardware addresses, tun has none.
        LinkKind::Tun => {
            if link.mac.is_some() {
                hardware::ETHER
            } else {
                hardware::NONE
            }
        }
        LinkKind::Ipvlan | LinkKind::Other(_) => {
            return Value::Unknown(UnknownReason::NotModelled);
        }
    };
    Value::known(&kind.to_le_bytes())
}

/// `dev->rtnl_link_ops->kind`; links of drivers without one have none.
fn link_kind(link: &Link) -> Value {
    match &link.kind {
        LinkKind::Loopback => Value::Missing,
        LinkKind::Bridge => Value::name("bridge"),
        LinkKind::Veth => Value::name("veth"),
        LinkKind::Vlan => Value::name("vlan"),
        LinkKind::Bond => Value::name("bond"),
        LinkKind::Team => Value::name("team"),
        LinkKind::Vrf => Value::name("vrf"),
        LinkKind::Dummy => Value::name("dummy"),
        LinkKind::Wireguard => Value::name("wireguard"),
        LinkKind::Tun => Value::name("tun"),
        LinkKind::Ppp => Value::name("ppp"),
        LinkKind::Macvlan => Value::name("macvlan"),
        LinkKind::Ipvlan => Value::name("ipvlan"),
        LinkKind::Ethernet | LinkKind::Wifi | LinkKind::Other(_) => {
            Value::Unknown(UnknownReason::NotModelled)
        }
    }
}
