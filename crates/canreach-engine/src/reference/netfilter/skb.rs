//! The packet as rules see it, and the connection it belongs to.
//!
//! Mirrors `struct sk_buff`, `struct nf_hook_state` and `struct nf_conn`. Left out: fragments, IP
//! options, extension headers, which packets asked about do not have.

use std::net::IpAddr;

use canreach_snapshot::{Family, Ifindex, NfFamily, NfHook};

use crate::SocketIndex;
use crate::reference::output::WayOut;

pub(in crate::reference) const TCP: u8 = 6;
pub(in crate::reference) const UDP: u8 = 17;
pub(in crate::reference) const ICMP: u8 = 1;
pub(in crate::reference) const ICMPV6: u8 = 58;

/// Flags of a TCP header.
pub(in crate::reference) const SYN: u8 = 0x02;
pub(in crate::reference) const RST: u8 = 0x04;
pub(in crate::reference) const ACK: u8 = 0x10;

/// `PACKET_HOST`, `PACKET_BROADCAST` and `PACKET_MULTICAST` of include/uapi/linux/if_packet.h.
pub(in crate::reference) const PACKET_HOST: u8 = 0;
pub(in crate::reference) const PACKET_BROADCAST: u8 = 1;
pub(in crate::reference) const PACKET_MULTICAST: u8 = 2;

/// Which packet of the exchange it is. What cannot be told of its content is decided once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::reference) enum Turn {
    /// The question who has the address, and the answer to it.
    Neighbor,
    /// The SYN, or the datagram.
    First,
    /// The SYN-ACK, or the datagram sent back.
    Answer,
    /// A reset or an ICMP error.
    Refusal,
    /// The client's ACK.
    Third,
}

/// `skb->sk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) enum Owner {
    /// None.
    Nobody,
    /// A client program of this machine, run by this user.
    Client(u32),
    /// A socket of this machine: of a SYN-ACK, the listener it belongs to.
    Socket(SocketIndex),
    /// A socket of the kernel itself, which no program holds.
    Kernel,
}

/// What is attached to the packet of connection tracking (`skb->_nfct`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) enum Ct {
    /// Nothing. Rules read `invalid`.
    None,
    /// `IP_CT_UNTRACKED`.
    Untracked,
    /// The connection, [`Walk::connection`](crate::reference::walk::Walk).
    Tracked {
        /// How the packet stands to it.
        state: CtState,
        /// It goes from the server to the client.
        reply: bool,
    },
}

/// `enum ip_conntrack_info` without the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) enum CtState {
    /// Packets have gone both ways.
    Established,
    /// Belongs to a connection without being part of it.
    Related,
    /// The first.
    New,
}

/// Addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) struct Tuple {
    pub(in crate::reference) source: IpAddr,
    pub(in crate::reference) source_port: u16,
    pub(in crate::reference) destination: IpAddr,
    pub(in crate::reference) destination_port: u16,
}

impl Tuple {
    /// `nf_ct_invert_tuple`.
    pub(in crate::reference) const fn inverted(self) -> Self {
        Self {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }
}

/// A conntrack zone, and the directions it holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) struct Zone {
    pub(in crate::reference) id: u16,
    pub(in crate::reference) original: bool,
    pub(in crate::reference) reply: bool,
}

impl Zone {
    /// `nf_ct_zone_dflt`.
    pub(in crate::reference) const DEFAULT: Self = Self { id: 0, original: true, reply: true };

    /// `nf_ct_zone_id`.
    pub(in crate::reference) const fn id_for(self, reply: bool) -> u16 {
        if (reply && self.reply) || (!reply && self.original) { self.id } else { 0 }
    }
}

/// A connection (`struct nf_conn`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the kernel's status bits, each independent")]
pub(in crate::reference) struct Connection {
    /// As its first packet was.
    pub(in crate::reference) original: Tuple,
    /// As packets the other way will be.
    pub(in crate::reference) reply: Tuple,
    pub(in crate::reference) protocol: u8,
    pub(in crate::reference) zone: Zone,
    pub(in crate::reference) mark: u32,
    /// `IPS_SEEN_REPLY`.
    pub(in crate::reference) seen_reply: bool,
    /// `IPS_ASSURED`.
    pub(in crate::reference) assured: bool,
    /// `IPS_CONFIRMED`: it is in the table.
    pub(in crate::reference) confirmed: bool,
    /// `IPS_SRC_NAT`.
    pub(in crate::reference) source_nat: bool,
    /// `IPS_DST_NAT`.
    pub(in crate::reference) destination_nat: bool,
    /// `IPS_SRC_NAT_DONE`.
    pub(in crate::reference) source_done: bool,
    /// `IPS_DST_NAT_DONE`.
    pub(in crate::reference) destination_done: bool,
    /// `IPS_HELPER`, or a helper by a rule.
    pub(in crate::reference) helper: Option<String>,
}

impl Connection {
    /// The bits of `ct->status` (`enum ip_conntrack_status`).
    pub(in crate::reference) fn status(&self) -> u32 {
        let bits = [
            (self.seen_reply, 1),
            (self.assured, 2),
            (self.confirmed, 3),
            (self.source_nat, 4),
            (self.destination_nat, 5),
            (self.source_done, 7),
            (self.destination_done, 8),
            (self.helper.is_some(), 13),
        ];
        bits.into_iter().filter(|(set, _)| *set).map(|(_, bit)| 1 << bit).sum()
    }

    /// `nf_ct_tuple(ct, dir)`.
    pub(in crate::reference) const fn tuple(&self, reply: bool) -> Tuple {
        if reply { self.reply } else { self.original }
    }
}

/// A packet.
#[derive(Debug, Clone)]
pub(in crate::reference) struct Skb {
    pub(in crate::reference) turn: Turn,
    /// `None` for ARP.
    pub(in crate::reference) family: Option<Family>,
    /// The number of the transport protocol.
    pub(in crate::reference) protocol: u8,
    pub(in crate::reference) source: IpAddr,
    pub(in crate::reference) destination: IpAddr,
    /// ICMP: the type. ARP: the operation.
    pub(in crate::reference) source_port: u16,
    /// ICMP: the code.
    pub(in crate::reference) destination_port: u16,
    pub(in crate::reference) tcp_flags: u8,
    /// The target of a neighbour solicitation or advertisement.
    pub(in crate::reference) target: Option<IpAddr>,
    pub(in crate::reference) packet_type: u8,
    pub(in crate::reference) mark: u32,
    pub(in crate::reference) priority: u32,
    pub(in crate::reference) ct: Ct,
    /// What a rule in front of conntrack wants the zone to be (the zone of a template).
    pub(in crate::reference) zone: Option<Zone>,
    pub(in crate::reference) owner: Owner,
    /// The sockets, one of which was attached by TPROXY.
    pub(in crate::reference) stolen: Option<Vec<SocketIndex>>,
    /// The VRF member it came in by (`inet_sdif`).
    pub(in crate::reference) sdif: Option<Ifindex>,
    /// The port of a bridge it came in by, where that is known.
    pub(in crate::reference) port: Option<Ifindex>,
    /// At output: the route it was given anew (`ip_route_me_harder`).
    pub(in crate::reference) rerouted: Option<WayOut>,
}

impl Skb {
    /// `skb->_nfct` is 0: neither a connection nor a template, and not exempt.
    pub(in crate::reference) const fn has_no_ct(&self) -> bool {
        matches!(self.ct, Ct::None) && self.zone.is_none()
    }

    pub(in crate::reference) const fn tuple(&self) -> Tuple {
        Tuple {
            source: self.source,
            source_port: self.source_port,
            destination: self.destination,
            destination_port: self.destination_port,
        }
    }

    pub(in crate::reference) const fn is_icmp(&self) -> bool {
        matches!(
            (self.family, self.protocol),
            (Some(Family::Ipv4), ICMP) | (Some(Family::Ipv6), ICMPV6)
        )
    }

    /// Of TCP or UDP, whose ports are ports.
    pub(in crate::reference) const fn has_ports(&self) -> bool {
        self.family.is_some() && matches!(self.protocol, TCP | UDP)
    }
}

/// Where in the kernel a packet is (`struct nf_hook_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) struct Place {
    /// The array of hooks: `Ip`, `Ip6`, `Arp`, `Bridge` or `Netdev`.
    pub(in crate::reference) family: NfFamily,
    pub(in crate::reference) hook: NfHook,
    pub(in crate::reference) iif: Option<Ifindex>,
    pub(in crate::reference) oif: Option<Ifindex>,
}
