//! The packet as rules see it at one hook: what is the same for all packets of a set.
//!
//! *Kernel:* `struct sk_buff`, `struct nf_hook_state`, `struct nf_conn` (include/net/netfilter).
//! *Decides:* nothing.
//! *Reads:* nothing.
//! *Not modelled:* fragments, IP options, extension headers: the packets asked about have none.

use std::net::IpAddr;

use canreach_snapshot::nft::expr::PayloadBase;
use canreach_snapshot::{Family, Ifindex};

use crate::SocketIndex;

/// An address or a port of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// The same for all packets of the set.
    Is(u128),
    /// The client's own, as it was sent: `Field::Source`, or `Field::SourcePort`.
    Client,
    /// What the kernel chooses when it translates: the value of the unknown with this number. Only
    /// ports are, and the value is the port.
    Chosen(u16),
}

/// Which packet of a conversation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Turn {
    /// The client's first: a SYN, a datagram.
    First,
    /// The server's answer to it: a SYN-ACK, a datagram.
    Answer,
    /// The client's second: the ACK that makes a TCP connection.
    Second,
    /// An error in place of an answer: a RST, an ICMP message.
    Refusal,
    /// IPv6: a neighbour asks who has the address, before it sends anything else.
    Solicitation,
    /// The answer to that.
    Advertisement,
}

/// The packet at one hook. Made with [`View::new`], then changed: fields are added now and then.
///
/// What the walk does with what rules changed:
/// - addresses, ports, `mark`, `packet_type`: routing and the socket lookup see the new ones;
/// - `reroute`: at output, the packet is routed anew with them, and enters postrouting with the new
///   `oif`; `pass_hook` clears it at the start of each hook;
/// - `tproxy`: the socket that got the packet is decided (`SocketIndex`), if input routing delivers it
///   here; where it forwards, a packet with a socket is dropped (`ip_forward`);
/// - `connection`: kept for the rest of the conversation (see [`Connection::detached`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) turn: Turn,
    pub(crate) family: Family,
    /// The number of the transport protocol: 6, 17, or 1 and 58 for errors that this machine sends.
    pub(crate) protocol: u8,
    pub(crate) source: Part,
    pub(crate) source_port: Part,
    pub(crate) destination: Part,
    pub(crate) destination_port: Part,
    /// The flags byte of the TCP header; ICMP: type and code are in the ports, as `Part::Is`.
    pub(crate) tcp_flags: u8,
    /// The link it came in by, as far as the hook has one.
    pub(crate) iif: Option<Ifindex>,
    /// The link it leaves by, as far as the hook has one.
    pub(crate) oif: Option<Ifindex>,
    /// The VRF's member that it came in by.
    pub(crate) sdif: Option<Ifindex>,
    /// The port of a bridge that it came in by.
    pub(crate) physical_iif: Option<Ifindex>,
    pub(crate) packet_type: PacketType,
    pub(crate) mark: u32,
    pub(crate) connection: Connection,
    /// `skb->sk`: of an answer, the socket that sends it.
    pub(crate) socket: Option<SocketIndex>,
    /// The user whose socket sends it (`sk_uid`), at output and postrouting.
    pub(crate) sender_uid: Option<u32>,
    /// The socket that TPROXY gave it to.
    pub(crate) tproxy: Option<SocketIndex>,
    /// At output: something changed that makes the kernel route it again (`ip_route_me_harder`).
    pub(crate) reroute: bool,
    /// The router it is sent to, at postrouting; `None` where that is the destination.
    pub(crate) next_hop: Option<IpAddr>,
    /// `skb->priority`.
    pub(crate) priority: u32,
    /// The TOS byte, or the traffic class.
    pub(crate) tos: u8,
    /// The port of a bridge that it leaves by.
    pub(crate) physical_oif: Option<Ifindex>,
    /// Bytes of the headers that rules changed, other than addresses and ports: base, offset, value.
    pub(crate) rewritten: Vec<(PayloadBase, u32, u8)>,
    /// Sets that this packet, or an earlier one of the conversation, may have changed: positions of
    /// the table and the set in `Firewall::nft`; of ipset, `None` and the set's number.
    pub(crate) filled_sets: Vec<(Option<usize>, usize)>,
}

impl View {
    /// A packet between two ends, without anything that hooks or routing add.
    pub(crate) const fn new(
        family: Family,
        protocol: u8,
        turn: Turn,
        from: (Part, Part),
        to: (Part, Part),
    ) -> Self {
        Self {
            turn,
            family,
            protocol,
            source: from.0,
            source_port: from.1,
            destination: to.0,
            destination_port: to.1,
            tcp_flags: match turn {
                Turn::First => 0x02,
                Turn::Answer => 0x12,
                Turn::Second => 0x10,
                // The RST of a SYN acknowledges it.
                Turn::Refusal => 0x14,
                Turn::Solicitation | Turn::Advertisement => 0,
            },
            iif: None,
            oif: None,
            sdif: None,
            physical_iif: None,
            packet_type: PacketType::Host,
            mark: 0,
            connection: Connection::UNSEEN,
            socket: None,
            sender_uid: None,
            tproxy: None,
            reroute: false,
            next_hop: None,
            priority: 0,
            tos: 0,
            physical_oif: None,
            rewritten: Vec::new(),
            filled_sets: Vec::new(),
        }
    }

    /// Changes a byte of a header.
    pub(crate) fn rewrite(&mut self, base: PayloadBase, at: u32, value: u8) {
        self.rewritten.retain(|(b, place, _)| (*b, *place) != (base, at));
        self.rewritten.push((base, at, value));
        self.rewritten.sort_unstable_by_key(|(base, at, _)| (*base as u32, *at));
    }

    /// Addresses and ports as they are now.
    pub(crate) const fn tuple(&self) -> Tuple {
        Tuple {
            source: self.source,
            source_port: self.source_port,
            destination: self.destination,
            destination_port: self.destination_port,
        }
    }
}

/// `PACKET_*` of include/uapi/linux/if_packet.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PacketType {
    /// To this machine.
    Host,
    /// To everybody on the link.
    Broadcast,
    /// To a group.
    Multicast,
    /// To somebody else.
    Otherhost,
}

/// What connection tracking knows (`nf_ct_get`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Tracking {
    /// Nothing: the packet has not met conntrack, or it is not active. Rules read `invalid`.
    None,
    /// `IP_CT_NEW`.
    New,
    /// `IP_CT_ESTABLISHED`, either direction.
    Established,
    /// `IP_CT_RELATED`, either direction.
    Related,
    /// `IP_CT_UNTRACKED`.
    Untracked,
}

/// A connection as conntrack keeps it.
///
/// It goes through the conversation: what the last hook made of the first packet's `connection` is,
/// [`Connection::detached`], the answer's and then the second packet's. A packet that goes out by `lo`
/// and comes back in keeps its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Connection {
    pub(crate) tracking: Tracking,
    /// The packet goes from the server to the client.
    pub(crate) reply: bool,
    pub(crate) mark: u32,
    pub(crate) zone: Zone,
    /// The zone that a rule gave this packet before conntrack has seen it (a template's).
    pub(crate) template: Option<Zone>,
    /// Both sides have sent (`IPS_SEEN_REPLY`).
    pub(crate) seen_reply: bool,
    /// It is in the table (`IPS_CONFIRMED`).
    pub(crate) confirmed: bool,
    /// `IPS_ASSURED`.
    pub(crate) assured: bool,
    /// The packet as it was when conntrack first saw it.
    pub(crate) original: Option<Tuple>,
    /// What destination the connection was given, if it was (`IPS_DST_NAT`).
    pub(crate) destination_nat: Option<(Part, Part)>,
    /// What source the connection was given, if it was (`IPS_SRC_NAT`).
    pub(crate) source_nat: Option<(Part, Part)>,
    /// `IPS_DST_NAT_DONE`: translated, or decided not to be.
    pub(crate) destination_done: bool,
    /// `IPS_SRC_NAT_DONE`.
    pub(crate) source_done: bool,
}

/// A zone of conntrack, and the directions it is for (`struct nf_conntrack_zone`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Zone {
    pub(crate) id: u16,
    pub(crate) original: bool,
    pub(crate) reply: bool,
}

impl Zone {
    pub(crate) const DEFAULT: Self = Self { id: 0, original: true, reply: true };

    /// `nf_ct_zone_id`: of a direction it is not for, the default.
    pub(crate) const fn of(self, reply: bool) -> u16 {
        if (reply && self.reply) || (!reply && self.original) { self.id } else { 0 }
    }
}

/// Addresses and ports of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) source: Part,
    pub(crate) source_port: Part,
    pub(crate) destination: Part,
    pub(crate) destination_port: Part,
}

impl Tuple {
    /// The other way round.
    pub(crate) const fn inverse(self) -> Self {
        Self {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }
}

impl Connection {
    /// For the next packet of the conversation: what conntrack keeps, before it has met the packet.
    /// The mark of a template (`ct zone set`) does not last.
    pub(crate) const fn detached(self) -> Self {
        if self.confirmed && self.original.is_some() {
            Self { tracking: Tracking::None, template: None, ..self }
        } else {
            // Not tracked: the next packet is the first that conntrack sees.
            Self::UNSEEN
        }
    }

    /// For an error that is sent in place of an answer to a packet: rules that reject, and ICMP, give it
    /// the packet's connection (`nf_conntrack_attach`). A RST of TCP itself has none of its own:
    /// [`Self::detached`].
    pub(crate) const fn rejecting(self) -> Self {
        match self.tracking {
            Tracking::New | Tracking::Established | Tracking::Related => {
                Self { tracking: Tracking::Related, reply: !self.reply, ..self }
            }
            Tracking::None | Tracking::Untracked => Self::UNSEEN,
        }
    }

    /// Before conntrack has seen it.
    pub(crate) const UNSEEN: Self = Self {
        tracking: Tracking::None,
        reply: false,
        mark: 0,
        zone: Zone::DEFAULT,
        template: None,
        seen_reply: false,
        confirmed: false,
        assured: false,
        original: None,
        destination_nat: None,
        source_nat: None,
        destination_done: false,
        source_done: false,
    };
}
