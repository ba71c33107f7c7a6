//! The bytes of a packet, as far as they are known.
//!
//! Mirrors `nft_payload_eval` and `nft_exthdr_eval`. The packets asked about have no IP options, no
//! extension headers and no VLAN tag; TOS is 0; a SYN has the option MSS. What only the sender
//! decides is unknown: hop limit, lengths, checksums, TCP sequence and window, payload.

use std::net::IpAddr;

use canreach_snapshot::nft::expr::{ExthdrOp, PayloadBase};
use canreach_snapshot::{Family, Ifindex};

use super::skb::{ICMPV6, Place, Skb, TCP, UDP};
use super::value::{Byte, Tri, Value};
use crate::UnknownReason;
use crate::reference::walk::Walk;

/// What a load comes to.
pub(in crate::reference) enum Load {
    /// These bytes.
    Value(Value),
    /// These bytes, if the packet is so long.
    IfThere(Tri, Value),
    /// There is no such thing: the rule does not match.
    Break,
}

/// Option MSS of TCP.
const TCPOPT_MSS: u8 = 2;

impl Walk<'_> {
    /// `nft_payload_eval`.
    pub(super) fn payload(
        &self,
        base: PayloadBase,
        offset: u32,
        len: u32,
        skb: &Skb,
        place: &Place,
    ) -> Load {
        let (header, ends) = match base {
            PayloadBase::Link => (self.link_header(skb, place), false),
            PayloadBase::Network => (network_header(skb), false),
            PayloadBase::Transport if skb.family.is_none() => return Load::Break,
            PayloadBase::Transport => (transport_header(skb), skb.protocol == TCP),
            PayloadBase::Inner if matches!(skb.protocol, TCP | UDP) => (Value::default(), false),
            PayloadBase::Inner | PayloadBase::Tunnel => return Load::Break,
        };
        // Only what is on its way in has a link-layer header.
        if base == PayloadBase::Link && header.0.is_empty() {
            return Load::Break;
        }
        let (from, len) = (offset as usize, len as usize);
        let name = format!("{:?} {base:?}+{offset}", skb.turn);
        let beyond = || unknown(len, &name);
        if from.saturating_add(len) <= header.0.len() {
            return Load::Value(Value(header.0[from..from + len].to_vec()));
        }
        // Behind the fixed header: options, or what the packet carries. A network header goes on with
        // the transport header.
        let mut bytes: Vec<Byte> = header.0.iter().skip(from).cloned().collect();
        if base == PayloadBase::Network && skb.family.is_some() {
            let skipped = from.saturating_sub(header.0.len());
            bytes.extend(transport_header(skb).0.into_iter().skip(skipped));
        }
        if bytes.len() >= len {
            bytes.truncate(len);
            return Load::Value(Value(bytes));
        }
        let missing = beyond().0.into_iter().skip(bytes.len()).collect::<Vec<_>>();
        bytes.extend(missing);
        let is_there = if ends && skb.tcp_flags & super::skb::SYN != 0 && from + len <= 24 {
            // The option MSS takes four bytes.
            Tri::Yes
        } else {
            beyond().question("is there")
        };
        Load::IfThere(is_there, Value(bytes))
    }

    /// The Ethernet header: destination, source, type.
    fn link_header(&self, skb: &Skb, place: &Place) -> Value {
        let own = |link: Option<Ifindex>| link.and_then(|link| self.link(link)?.mac);
        let Some(iif) = place.iif else { return Value::default() };
        if !self.has_ethernet(iif) {
            return Value::default();
        }
        let loopback = self.link(iif).is_some_and(canreach_snapshot::Link::is_loopback);
        let mut bytes = match (own(Some(iif)), skb.packet_type) {
            _ if loopback => Value::of(&[0; 6]),
            (Some(mac), super::skb::PACKET_HOST) => Value::of(&mac.0),
            (_, super::skb::PACKET_BROADCAST) => Value::of(&[0xff; 6]),
            (Some(_) | None, _) => unknown(6, &format!("{:?} ether daddr", skb.turn)),
        };
        let source = if loopback {
            Value::of(&[0; 6])
        } else {
            unknown(6, &format!("{:?} ether saddr", skb.turn))
        };
        bytes.0.extend(source.0);
        bytes.0.extend(Value::of(&ethertype(skb)).0);
        bytes
    }

    pub(super) fn has_ethernet(&self, link: Ifindex) -> bool {
        use canreach_snapshot::LinkKind;
        self.link(link).is_some_and(|link| match link.kind {
            LinkKind::Tun | LinkKind::Wireguard | LinkKind::Ppp => link.mac.is_some(),
            LinkKind::Loopback
            | LinkKind::Ethernet
            | LinkKind::Wifi
            | LinkKind::Bridge
            | LinkKind::Veth
            | LinkKind::Vlan
            | LinkKind::Macvlan
            | LinkKind::Ipvlan
            | LinkKind::Bond
            | LinkKind::Team
            | LinkKind::Vrf
            | LinkKind::Dummy
            | LinkKind::Other(_) => true,
        })
    }
}

/// `skb->protocol`.
pub(super) const fn ethertype(skb: &Skb) -> [u8; 2] {
    match skb.family {
        Some(Family::Ipv4) => [0x08, 0x00],
        Some(Family::Ipv6) => [0x86, 0xdd],
        None => [0x08, 0x06],
    }
}

/// Bytes that only the sender knows.
fn unknown(len: usize, name: &str) -> Value {
    Value::unknown(&vec![0xff; len], UnknownReason::PacketDetails, Some(name))
}

/// The bytes of an address.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Puts known bytes and unknown fields one after the other.
struct Header {
    turn: String,
    value: Value,
}

impl Header {
    fn new(skb: &Skb) -> Self {
        Self { turn: format!("{:?} ", skb.turn), value: Value::default() }
    }

    fn known(mut self, bytes: &[u8]) -> Self {
        self.value.0.extend(Value::of(bytes).0);
        self
    }

    /// The length of a TCP header: of 20 bytes at least, and 24 with the option MSS.
    fn at_least(self, least: u8) -> Self {
        let mut header = self.unknown(&[0xf0], "doff");
        if let Some(last) = header.value.0.last_mut() {
            last.least = least;
        }
        header
    }

    /// A field of which the bits under the mask are not known; the others are 0.
    fn unknown(mut self, mask: &[u8], name: &str) -> Self {
        let name = self.turn.clone() + name;
        let reason = UnknownReason::PacketDetails;
        self.value.0.extend(Value::unknown(mask, reason, Some(&name)).0);
        self
    }
}

/// Of IPv4 20 bytes, of IPv6 40, of ARP 28.
fn network_header(skb: &Skb) -> Value {
    let header = Header::new(skb);
    let (source, destination) = (octets(skb.source), octets(skb.destination));
    match skb.family {
        Some(Family::Ipv4) => {
            header
                .known(&[0x45, 0])
                .unknown(&[0xff; 2], "length")
                .unknown(&[0xff; 2], "id")
                // Of the flags, DF is not known.
                .unknown(&[0x40, 0], "df")
                .unknown(&[0xff], "ttl")
                .known(&[skb.protocol])
                .unknown(&[0xff; 2], "checksum")
                .known(&source)
                .known(&destination)
                .value
        }
        Some(Family::Ipv6) => {
            let header = header
                .known(&[0x60])
                .unknown(&[0x0f, 0xff, 0xff], "flowlabel")
                .unknown(&[0xff; 2], "length")
                .known(&[skb.protocol]);
            let header = if skb.target.is_some() {
                header.known(&[255])
            } else {
                header.unknown(&[0xff], "hoplimit")
            };
            header.known(&source).known(&destination).value
        }
        None => {
            let operation = skb.source_port.to_be_bytes();
            let header = header.known(&[0, 1, 8, 0, 6, 4]).known(&operation);
            let header = header.unknown(&[0xff; 6], "sender").known(&source);
            let header = if skb.source_port == 1 {
                header.known(&[0; 6])
            } else {
                header.unknown(&[0xff; 6], "target")
            };
            header.known(&destination).value
        }
    }
}

/// The fixed part of the transport header.
fn transport_header(skb: &Skb) -> Value {
    let header = Header::new(skb);
    let ports = [skb.source_port.to_be_bytes(), skb.destination_port.to_be_bytes()].concat();
    match skb.protocol {
        TCP => {
            header
                .known(&ports)
                .unknown(&[0xff; 8], "sequence")
                .at_least(if skb.tcp_flags & super::skb::SYN == 0 { 0x50 } else { 0x60 })
                .known(&[skb.tcp_flags])
                .unknown(&[0xff; 6], "window")
                .value
        }
        UDP => header.known(&ports).unknown(&[0xff; 4], "length").value,
        ICMPV6 if skb.target.is_some() => {
            let target = skb.target.map(octets).unwrap_or_default();
            let header = header.known(&[skb.source_port as u8, skb.destination_port as u8]);
            header.unknown(&[0xff; 6], "checksum").known(&target).value
        }
        _icmp => {
            let header = header.known(&[skb.source_port as u8, skb.destination_port as u8]);
            header.unknown(&[0xff; 6], "checksum").value
        }
    }
}

/// All that is known of the packet, from its network header on.
pub(super) fn packet_bytes(skb: &Skb) -> Value {
    let mut bytes = network_header(skb);
    bytes.0.extend(transport_header(skb).0);
    bytes
}

/// `nft_exthdr_eval`.
pub(super) fn exthdr(
    op: ExthdrOp,
    kind: u8,
    offset: u32,
    len: u32,
    present: bool,
    skb: &Skb,
) -> Load {
    let has = match (op, skb.protocol) {
        // No extension headers and no IP options; the other two are not TCP and not UDP.
        (ExthdrOp::Ipv6 | ExthdrOp::Ipv4 | ExthdrOp::Sctp | ExthdrOp::Dccp, _) => Tri::No,
        (ExthdrOp::Tcpopt, TCP) => tcp_option(kind, skb),
        (ExthdrOp::Tcpopt, _) => Tri::No,
    };
    let name = format!("{:?} {op:?} {kind}+{offset}", skb.turn);
    match (has, present) {
        (Tri::Yes, true) => Load::Value(Value::of(&[1])),
        (Tri::No, true) => Load::Value(Value::of(&[0])),
        (Tri::Maybe(reason, _), true) => Load::Value(Value::unknown(&[1], reason, Some(&name))),
        (Tri::No, false) => Load::Break,
        (Tri::Yes, false) => Load::Value(unknown(len as usize, &name)),
        (maybe @ Tri::Maybe(..), false) => Load::IfThere(maybe, unknown(len as usize, &name)),
    }
}

/// Whether a TCP header has an option.
pub(super) fn tcp_option(kind: u8, skb: &Skb) -> Tri {
    if kind == TCPOPT_MSS && skb.tcp_flags & super::skb::SYN != 0 {
        return Tri::Yes;
    }
    let content = format!("{:?} has tcp option {kind}", skb.turn);
    Tri::Maybe(UnknownReason::PacketDetails, Some(content))
}
