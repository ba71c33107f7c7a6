//! The packet as rules see it at one hook: what is the same for all packets of a set.
//!
//! *Kernel:* `struct sk_buff`, `struct nf_hook_state`, `struct nf_conn` (include/net/netfilter).
//! *Decides:* nothing.
//! *Reads:* nothing.
//! *Not modelled:* fragments, IP options, extension headers: the packets asked about have none.

#![allow(dead_code, reason = "the walk does not ask rules yet")]

use std::net::IpAddr;

use canreach_snapshot::{Family, Ifindex};

use crate::SocketIndex;

/// An address or a port of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// The same for all packets of the set.
    Is(u128),
    /// The client's own, as it was sent: `Field::Source`, or `Field::SourcePort`.
    Client,
}

/// The packet at one hook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct View {
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
    /// Where TPROXY sends it: the listener of this address and port gets it, if it is transparent.
    pub(crate) tproxy: Option<(IpAddr, u16)>,
    /// At output: something changed that makes the kernel route it again (`ip_route_me_harder`).
    pub(crate) reroute: bool,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Connection {
    pub(crate) tracking: Tracking,
    /// The packet goes from the server to the client.
    pub(crate) reply: bool,
    pub(crate) mark: u32,
    pub(crate) zone: u16,
    /// Both sides have sent (`IPS_SEEN_REPLY`).
    pub(crate) seen_reply: bool,
    /// It is in the table (`IPS_CONFIRMED`).
    pub(crate) confirmed: bool,
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

/// Addresses and ports of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) source: Part,
    pub(crate) source_port: Part,
    pub(crate) destination: Part,
    pub(crate) destination_port: Part,
}

impl Connection {
    /// Before conntrack has seen it.
    pub(crate) const UNSEEN: Self = Self {
        tracking: Tracking::None,
        reply: false,
        mark: 0,
        zone: 0,
        seen_reply: false,
        confirmed: false,
        original: None,
        destination_nat: None,
        source_nat: None,
        destination_done: false,
        source_done: false,
    };
}
