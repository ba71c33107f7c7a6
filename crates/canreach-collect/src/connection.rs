//! Connections whose near end has a port that nothing listens on.
//!
//! Not part of a snapshot: no first packet arrives at a connection. It only answers the question
//! why a port is in use although no server has it.

use canreach_snapshot::{Family, Machine, Netns, Port, Snapshot, SocketState};

use crate::proc::socket_table;
use crate::{CollectError, NetnsChoice, netns, owner};

/// The TCP connections of a namespace whose near end has a port, with who holds them, in the form of
/// a snapshot that holds nothing else.
///
/// # Errors
/// If the namespace cannot be entered.
pub fn connections(choice: &NetnsChoice, port: Port) -> Result<Snapshot, CollectError> {
    let read = || {
        // What cannot be read is left out: this adds to an answer that stands without it.
        let of_family = |family| socket_table::read_connections(family, port).unwrap_or_default();
        Family::BOTH.into_iter().flat_map(of_family).collect()
    };
    let sockets = match netns::locate(choice) {
        None => read(),
        Some((path, name)) => {
            let (file, _) = netns::open(&path, &name)?;
            netns::inside(&file, &name, || Ok(read()))?
        }
    };
    let mut snapshot = Snapshot {
        machine: Machine::default(),
        namespaces: vec![Netns { sockets, ..Netns::default() }],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    };
    // Holders are searched for servers only; what was asked for here is these.
    set_state(&mut snapshot, SocketState::Unconnected);
    owner::resolve(&mut snapshot);
    set_state(&mut snapshot, SocketState::Connected);
    Ok(snapshot)
}

fn set_state(snapshot: &mut Snapshot, state: SocketState) {
    for socket in snapshot.namespaces.iter_mut().flat_map(|netns| &mut netns.sockets) {
        socket.state = state;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_near_end_of_a_connection_names_its_program() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind to loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let port = Port(stream.local_addr().expect("connected").port());
        let found = connections(&NetnsChoice::Own, port).expect("the own namespace");
        let netns = &found.namespaces[0];
        assert_eq!(netns.sockets.len(), 1, "{:?}", netns.sockets);
        let holders = &netns.owners[0].holders;
        assert!(holders.iter().any(|pid| pid.0 == std::process::id()), "{holders:?}");
    }
}
