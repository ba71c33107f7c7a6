//! Ports that somebody who asked about another one may have meant.
//!
//! Kernel counterpart: none. Left out: what programs are usually called; the port numbers and the
//! time a server started tell enough.

use canreach_snapshot::{Netns, Port, Proto, Snapshot, Socket, SocketState};

use crate::SocketIndex;

/// How many steps a dev server takes from its usual port before it gives up, with some room.
const NEAR: u16 = 10;

/// Listeners that may have been meant, the likeliest first: the same port of the other protocol,
/// then close numbers (servers count up when their port is taken), then what started last.
#[must_use]
pub fn near_ports(
    snapshot: &Snapshot,
    netns: &Netns,
    proto: Proto,
    port: Port,
    most: usize,
) -> Vec<SocketIndex> {
    let mut found: Vec<(Nearness, Port, SocketIndex)> = netns
        .sockets
        .iter()
        .enumerate()
        .filter(|(_, socket)| is_server(socket))
        .filter_map(|(index, socket)| {
            let nearness = nearness(snapshot, netns, socket, proto, port)?;
            Some((nearness, socket.port, SocketIndex(index)))
        })
        .collect();
    found.sort_by_key(|(nearness, ..)| *nearness);
    let mut ports = Vec::new();
    found.retain(|(_, port, _)| {
        let is_new = !ports.contains(port);
        ports.push(*port);
        is_new
    });
    found.into_iter().take(most).map(|(_, _, index)| index).collect()
}

fn is_server(socket: &Socket) -> bool {
    match socket.state {
        SocketState::Listen | SocketState::Unconnected => true,
        SocketState::Connected => false,
    }
}

/// Smaller is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    OtherProtocol,
    Number(u16),
    /// Milliseconds before the snapshot was taken.
    StartedBefore(u64),
}

fn nearness(
    snapshot: &Snapshot,
    netns: &Netns,
    socket: &Socket,
    proto: Proto,
    port: Port,
) -> Option<Nearness> {
    /// Older servers are no candidates: they ran before the one that is looked for was started.
    const RECENT_MS: u64 = 10 * 60 * 1000;
    if socket.proto != proto {
        return (socket.port == port).then_some(Nearness::OtherProtocol);
    }
    let distance = socket.port.0.abs_diff(port.0);
    if distance <= NEAR {
        return Some(Nearness::Number(distance));
    }
    let holder = netns.owner(socket.inode)?.holders.first()?;
    let started = snapshot.process(*holder)?.started_at_ms?;
    let age = snapshot.machine.collected_at_ms.saturating_sub(started);
    (age <= RECENT_MS).then_some(Nearness::StartedBefore(age))
}
