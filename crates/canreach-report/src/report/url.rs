//! What to hand out, for servers that browsers open.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use canreach_engine::explain::bind_remedy::server_of;
use canreach_snapshot::{CgroupId, Netns, Pid, Proto, Snapshot, Socket};

/// URLs of a namespace's listeners. Remembers which holders speak HTTP: one program may hold
/// thousands of sockets, and recognising it takes a walk through its ancestors.
#[derive(Debug)]
pub struct Urls<'a> {
    snapshot: &'a Snapshot,
    netns: &'a Netns,
    owners: BTreeMap<u64, Option<Pid>>,
    known: BTreeMap<(Option<Pid>, Option<CgroupId>), bool>,
}

impl<'a> Urls<'a> {
    /// Nothing recognised yet.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, netns: &'a Netns) -> Self {
        let holder =
            |owner: &canreach_snapshot::Owner| (owner.inode, owner.holders.first().copied());
        let owners = netns.owners.iter().map(holder).collect();
        Self { snapshot, netns, owners, known: BTreeMap::new() }
    }

    /// The URL of a listener at an address, if it is known to speak HTTP.
    pub fn of(&mut self, socket: &Socket, to: IpAddr) -> Option<String> {
        if socket.proto != Proto::Tcp {
            return None;
        }
        let key = (self.owners.get(&socket.inode).copied().flatten(), socket.cgroup);
        let http = *self.known.entry(key).or_insert_with(|| {
            server_of(self.snapshot, self.netns, socket).is_some_and(|server| server.http)
        });
        http.then(|| format!("http://{}", SocketAddr::new(to, socket.port.0)))
    }
}
