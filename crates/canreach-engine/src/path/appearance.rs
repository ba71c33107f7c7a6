//! What packets of the path look like to rules: as they come in, as they are answered, acknowledged and
//! refused.
//!
//! *Kernel:* `tcp_v4_rcv`, `tcp_v4_send_synack`, `ip_send_unicast_reply`, `icmp_send`: what they build.
//! *Decides:* nothing.
//! *Reads:* what is asked, the socket that answers.
//! *Not modelled:* what a sender may do with TTL, options and lengths.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, Ifindex, LinkFlags, Proto};

use crate::SocketIndex;
use crate::host::Host;
use crate::netfilter::hook::Strand;
use crate::netfilter::view::{Connection, PacketType, Part, Tracking, Turn, View};
use crate::packet::packet_set::PacketSet;
use crate::path::rejection::icmp_number;
use crate::path::route_input::is_broadcast_of;
use crate::path::stage::Asked;

/// What the kernel sends instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// A reset: by a rule, or because no socket takes the packet.
    Reset {
        /// By a rule.
        rejected: bool,
    },
    /// ICMP destination unreachable, with its code.
    Unreachable {
        /// The code.
        code: u8,
    },
}

/// Addresses and ports of a client's packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) source: Part,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
}

/// A client's first packet, before any hook.
pub(crate) fn first(proto: Proto, ends: Ends, packet_type: PacketType) -> View {
    let to = (Part::Is(address_value(ends.to)), Part::Is(u128::from(ends.port)));
    let from = (ends.source, Part::Client);
    let view = View::new(Family::of(ends.to), proto.number(), Turn::First, from, to);
    View { packet_type, ..view }
}

/// A packet from the wire.
pub(crate) fn arriving(host: &Host<'_>, asked: &Asked<'_>, via: Ifindex) -> View {
    let ends = Ends { source: Part::Client, to: asked.to, port: asked.port.0 };
    let around = host.on_link(asked.link.ifindex);
    let everyone = asked.to == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
        || around.iter().any(|prefix| is_broadcast_of(*prefix, asked.to));
    let packet_type = if asked.to.is_multicast() {
        PacketType::Multicast
    } else if everyone && asked.link.flags.has(LinkFlags::BROADCAST) {
        PacketType::Broadcast
    } else {
        PacketType::Host
    };
    View {
        iif: Some(asked.link.ifindex),
        physical_iif: (via != asked.link.ifindex).then_some(via),
        ..first(asked.proto, ends, packet_type)
    }
}

/// The client's second packet, which completes the handshake, before any hook.
pub(crate) fn second(first: View, answered: &View) -> View {
    let again = View::new(
        first.family,
        first.protocol,
        Turn::Second,
        (first.source, first.source_port),
        (first.destination, first.destination_port),
    );
    View {
        connection: answered.connection.detached(),
        filled_sets: answered.filled_sets.clone(),
        iif: first.iif,
        oif: first.oif,
        sdif: first.sdif,
        physical_iif: first.physical_iif,
        sender_uid: first.sender_uid,
        packet_type: first.packet_type,
        ..again
    }
}

/// What a socket sends back.
pub(crate) struct Reply<'v> {
    pub(crate) proto: Proto,
    /// The address dialled, as the socket has it.
    pub(crate) from: IpAddr,
    pub(crate) port: u16,
    pub(crate) oif: Ifindex,
    pub(crate) mark: u32,
    pub(crate) socket: Option<SocketIndex>,
    pub(crate) uid: u32,
    /// The packet it answers, as it was at its last hook.
    pub(crate) to: &'v View,
}

/// A socket's answer, before the output hook.
pub(crate) fn replying(reply: &Reply<'_>) -> View {
    let answered = reply.to;
    let family = Family::of(reply.from);
    let from = (Part::Is(address_value(reply.from)), Part::Is(u128::from(reply.port)));
    let to = (answered.source, answered.source_port);
    View {
        oif: Some(reply.oif),
        mark: reply.mark,
        connection: answered.connection.detached(),
        filled_sets: answered.filled_sets.clone(),
        socket: reply.socket,
        sender_uid: Some(reply.uid),
        ..View::new(family, reply.proto.number(), Turn::Answer, from, to)
    }
}

/// A refusal, before the output hook.
pub(crate) fn refusing(reply: &Reply<'_>, message: Message) -> View {
    let View { family, source, source_port, destination, destination_port, oif, mark, .. } =
        replying(reply);
    let connection = reply.to.connection;
    let tracked = match connection.tracking {
        Tracking::New | Tracking::Established | Tracking::Related => true,
        Tracking::None | Tracking::Untracked => false,
    };
    // What a rule or ICMP sends takes over the connection of what it answers (`nf_ct_attach`).
    let related = Connection { tracking: Tracking::Related, reply: true, ..connection };
    let attached = if tracked { related } else { Connection::UNSEEN };
    let (protocol, from, to, connection) = match message {
        Message::Reset { rejected } => {
            let connection = if rejected { attached } else { connection.detached() };
            let (from, to) = ((source, source_port), (destination, destination_port));
            (reply.proto.number(), from, to, connection)
        }
        Message::Unreachable { code } => {
            let kind = match family {
                Family::Ipv4 => 3,
                Family::Ipv6 => 1,
            };
            let from = (source, Part::Is(kind));
            let to = (destination, Part::Is(u128::from(code)));
            (icmp_number(family), from, to, attached)
        }
    };
    let view = View::new(family, protocol, Turn::Refusal, from, to);
    View { oif, mark, connection, filled_sets: reply.to.filled_sets.clone(), ..view }
}

/// A strand of these packets.
pub(crate) const fn strand(set: PacketSet, view: View) -> Strand {
    Strand { set, view, by: None }
}

/// The same packets at a hook that knows these links.
pub(crate) fn between(
    strands: Vec<Strand>,
    (iif, oif): (Option<Ifindex>, Option<Ifindex>),
) -> Vec<Strand> {
    let at = |strand: Strand| {
        let view = View { iif, oif, ..strand.view };
        Strand { view, ..strand }
    };
    strands.into_iter().map(at).collect()
}

/// The loopback link.
pub(crate) const LOOPBACK: Option<Ifindex> = Some(LOOPBACK_IFINDEX);
