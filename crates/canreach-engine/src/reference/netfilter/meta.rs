//! What rules ask of the packet's surroundings.
//!
//! Mirrors `nft_meta_get_eval` and `nft_meta_set_eval` (net/netfilter/nft_meta.c). Numbers are in the
//! machine's byte order, which is taken to be little-endian.

use canreach_snapshot::nft::expr::MetaKey;
use canreach_snapshot::{Ifindex, Link, LinkKind, NfFamily};

use super::header::{Load, ethertype};
use super::skb::{Owner, Place, Skb};
use super::value::Value;
use crate::UnknownReason;
use crate::reference::walk::Walk;

use UnknownReason::{NotModelled, PacketDetails, RandomChoice, TimeOfDay};

/// `IFNAMSIZ`.
const NAME_SIZE: usize = 16;

impl Walk<'_> {
    /// `nft_meta_get_eval`.
    pub(super) fn meta(&self, key: MetaKey, skb: &Skb, place: &Place) -> Load {
        let number = |number: u32| Load::Value(Value::of(&number.to_le_bytes()));
        let unknown = |mask: &[u8], reason| {
            let name = format!("{:?} {key:?}", skb.turn);
            Load::Value(Value::unknown(mask, reason, Some(&name)))
        };
        let any = [0xff; 4];
        match key {
            MetaKey::Len => unknown(&any, PacketDetails),
            MetaKey::Protocol => Load::Value(Value::of(&ethertype(skb))),
            MetaKey::Nfproto => Load::Value(Value::of(&[nfproto(place)])),
            MetaKey::L4proto if skb.family.is_none() => Load::Break,
            MetaKey::L4proto => Load::Value(Value::of(&[skb.protocol])),
            MetaKey::Priority => number(skb.priority),
            MetaKey::Mark => number(skb.mark),
            MetaKey::Iif
            | MetaKey::Oif
            | MetaKey::Iifname
            | MetaKey::Oifname
            | MetaKey::Iiftype
            | MetaKey::Oiftype
            | MetaKey::Iifgroup
            | MetaKey::Oifgroup
            | MetaKey::Iifkind
            | MetaKey::Oifkind => self.link_key(key, skb, place),
            MetaKey::Sdif => number(skb.sdif.map_or(0, |link| link.0)),
            MetaKey::Sdifname => Load::Value(self.link_name(skb.sdif)),
            MetaKey::Skuid => match self.owner_uid(skb) {
                Some(uid) => number(uid),
                None => Load::Break,
            },
            MetaKey::Skgid | MetaKey::Cgroup if self.owner_uid(skb).is_none() => Load::Break,
            MetaKey::Skgid | MetaKey::Cgroup => unknown(&any, NotModelled),
            MetaKey::Rtclassid | MetaKey::Secmark => unknown(&any, NotModelled),
            MetaKey::Nftrace => Load::Value(Value::of(&[0])),
            MetaKey::Pkttype => Load::Value(Value::of(&[skb.packet_type])),
            MetaKey::Cpu => unknown(&any, RandomChoice),
            MetaKey::Prandom => Load::Value(Value::unknown(&any, RandomChoice, None)),
            MetaKey::Secpath => Load::Value(Value::of(&[0])),
            MetaKey::TimeNs => unknown(&[0xff; 8], TimeOfDay),
            MetaKey::TimeDay => unknown(&[0x07], TimeOfDay),
            // Seconds of a day: below 2^17.
            MetaKey::TimeHour => unknown(&[0xff, 0xff, 0x01, 0], TimeOfDay),
            MetaKey::BriIifname | MetaKey::BriOifname => self.bridge_name(key, place),
            MetaKey::BriIifpvid
            | MetaKey::BriIifvproto
            | MetaKey::BriBroute
            | MetaKey::BriIifhwaddr
            | MetaKey::Other(_) => unknown(&[0xff; NAME_SIZE], NotModelled),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
    fn link_key(&self, key: MetaKey, skb: &Skb, place: &Place) -> Load {
        let outgoing = matches!(
            key,
            MetaKey::Oif
                | MetaKey::Oifname
                | MetaKey::Oiftype
                | MetaKey::Oifgroup
                | MetaKey::Oifkind
        );
        let ifindex = if outgoing { place.oif } else { place.iif };
        // Which port of a bridge a frame comes in by, or leaves by, is not always known.
        if place.family == NfFamily::Bridge
            && ifindex.is_none()
            && outgoing == self.leaves_bridge(place)
        {
            let name = format!("{:?} {key:?}", skb.turn);
            return Load::Value(Value::unknown(&[0xff; NAME_SIZE], NotModelled, Some(&name)));
        }
        let link = ifindex.and_then(|ifindex| self.link(ifindex));
        let with = |value: &dyn Fn(&Link) -> Option<Vec<u8>>| match link.and_then(value) {
            Some(value) => Load::Value(Value::of(&value)),
            None => Load::Break,
        };
        match key {
            MetaKey::Iif | MetaKey::Oif => {
                Load::Value(Value::of(&ifindex.map_or(0, |link| link.0).to_le_bytes()))
            }
            MetaKey::Iifname | MetaKey::Oifname => Load::Value(self.link_name(ifindex)),
            MetaKey::Iiftype | MetaKey::Oiftype => match link.map(hardware_type) {
                Some(Some(kind)) => Load::Value(Value::of(&kind.to_le_bytes())),
                Some(None) => {
                    let name = format!("{key:?} {ifindex:?}");
                    Load::Value(Value::unknown(&[0xff; 2], NotModelled, Some(&name)))
                }
                None => Load::Break,
            },
            MetaKey::Iifgroup | MetaKey::Oifgroup => {
                with(&|link| Some(link.group.to_le_bytes().to_vec()))
            }
            _kind => with(&|link| Some(padded(kind_name(link)?))),
        }
    }

    const fn leaves_bridge(&self, place: &Place) -> bool {
        use canreach_snapshot::NfHook;
        matches!(place.hook, NfHook::Output | NfHook::Postrouting | NfHook::Egress)
    }

    /// A name as the kernel keeps it; empty for no link.
    pub(super) fn link_name(&self, link: Option<Ifindex>) -> Value {
        let name = link.and_then(|link| self.link(link)).map_or("", |link| link.name.as_str());
        Value::of(&padded(name))
    }

    /// The bridge that a port belongs to.
    fn bridge_name(&self, key: MetaKey, place: &Place) -> Load {
        let port = if key == MetaKey::BriIifname { place.iif } else { place.oif };
        let master = port.and_then(|port| self.link(port)?.master);
        if master.is_none() { Load::Break } else { Load::Value(self.link_name(master)) }
    }

    /// The user whose program holds the packet's socket.
    pub(super) fn owner_uid(&self, skb: &Skb) -> Option<u32> {
        match skb.owner {
            Owner::Nobody | Owner::Kernel => None,
            Owner::Client(uid) => Some(uid),
            Owner::Socket(index) => self.netns.sockets.get(index.0).map(|socket| socket.uid),
        }
    }

    /// `nft_meta_set_eval`.
    pub(super) fn meta_set(&mut self, key: MetaKey, value: &Value, skb: &mut Skb) {
        let number = value.host_number();
        match (key, number) {
            (MetaKey::Mark, Some(number)) => skb.mark = number,
            (MetaKey::Priority, Some(number)) => skb.priority = number,
            (MetaKey::Mark | MetaKey::Priority, None) => {
                // A mark drawn at random may send the packet anywhere.
                let reason =
                    value.0.iter().find_map(|byte| byte.origin.as_ref()).map(|of| of.reason);
                self.doubt(reason.unwrap_or(NotModelled), crate::DoubtEffect::MayRedirect);
            }
            (MetaKey::Pkttype, Some(number)) => skb.packet_type = number as u8,
            (_others, _) => {}
        }
    }
}

const fn nfproto(place: &Place) -> u8 {
    match place.family {
        NfFamily::Inet => 1,
        NfFamily::Ip => 2,
        NfFamily::Arp => 3,
        NfFamily::Netdev => 5,
        NfFamily::Bridge => 7,
        NfFamily::Ip6 => 10,
    }
}

fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME_SIZE, 0);
    bytes
}

/// `rtnl_link_ops->kind`; drivers of real devices have none.
fn kind_name(link: &Link) -> Option<&str> {
    Some(match &link.kind {
        LinkKind::Loopback | LinkKind::Ethernet | LinkKind::Wifi => return None,
        LinkKind::Bridge => "bridge",
        LinkKind::Veth => "veth",
        LinkKind::Tun => "tun",
        LinkKind::Wireguard => "wireguard",
        LinkKind::Vlan => "vlan",
        LinkKind::Macvlan => "macvlan",
        LinkKind::Ipvlan => "ipvlan",
        LinkKind::Bond => "bond",
        LinkKind::Team => "team",
        LinkKind::Vrf => "vrf",
        LinkKind::Dummy => "dummy",
        LinkKind::Ppp => "ppp",
        LinkKind::Other(kind) => kind,
    })
}

/// `ARPHRD_*`; `None` where the snapshot does not tell.
const fn hardware_type(link: &Link) -> Option<u16> {
    match link.kind {
        LinkKind::Loopback => Some(772),
        LinkKind::Ethernet
        | LinkKind::Wifi
        | LinkKind::Bridge
        | LinkKind::Veth
        | LinkKind::Vlan
        | LinkKind::Macvlan
        | LinkKind::Ipvlan
        | LinkKind::Bond
        | LinkKind::Team
        | LinkKind::Vrf
        | LinkKind::Dummy => Some(1),
        LinkKind::Ppp => Some(512),
        LinkKind::Wireguard => Some(65534),
        LinkKind::Tun if link.mac.is_none() => Some(65534),
        LinkKind::Tun => Some(1),
        LinkKind::Other(_) => None,
    }
}
