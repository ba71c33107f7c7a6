//! What to hand out, for servers that browsers open.

use std::net::{IpAddr, SocketAddr};

use canreach_engine::explain::bind_remedy::server_of;
use canreach_snapshot::{Netns, Proto, Snapshot, Socket};

/// The URL of a listener at an address, if it is known to speak HTTP.
#[must_use]
pub fn url(snapshot: &Snapshot, netns: &Netns, socket: &Socket, to: IpAddr) -> Option<String> {
    let server = server_of(snapshot, netns, socket).filter(|_| socket.proto == Proto::Tcp)?;
    server.http.then(|| format!("http://{}", SocketAddr::new(to, socket.port.0)))
}
