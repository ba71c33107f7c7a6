//! Servers by the names people know them by, for what is said of a whole machine.

use canreach_engine::SocketIndex;
use canreach_engine::access::{ProgramName, Server};
use canreach_snapshot::{Netns, OwnerReason, Proto, ResolvedBy, Snapshot};

use crate::report::list::Bind;
use crate::report::program::{Program, Programs};
use crate::report::subject::link_name;

/// One program on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// TCP or UDP.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// Who holds it.
    pub program: Program,
}

/// Names the servers of one namespace.
#[derive(Debug)]
pub struct ServerNames<'a> {
    netns: &'a Netns,
    programs: Programs<'a>,
}

impl<'a> ServerNames<'a> {
    /// Names for the servers of a namespace.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, netns: &'a Netns) -> Self {
        Self { netns, programs: Programs::new(snapshot, netns) }
    }

    /// The name of the program that holds a socket.
    #[must_use]
    pub fn program(&self, SocketIndex(index): SocketIndex) -> Option<ProgramName> {
        let program = self.programs.of(self.netns.sockets.get(index)?);
        let certain = is_certain(&program);
        program.name.map(|name| ProgramName { name, certain })
    }

    /// A server with its names; `None` if the namespace does not hold it.
    #[must_use]
    pub fn named(&self, server: &Server) -> Option<NamedServer> {
        let sockets = server.sockets.iter().filter_map(|index| self.netns.sockets.get(index.0));
        let mut binds: Vec<Bind> = sockets
            .clone()
            .map(|socket| Bind {
                address: socket.address,
                device: socket.device.map(|device| link_name(self.netns, device)),
                v6only: socket.v6only,
            })
            .collect();
        binds.sort();
        binds.dedup();
        let program = self.programs.of(sockets.clone().next()?);
        Some(NamedServer { proto: server.proto, port: server.port.0, binds, program })
    }

    /// Whether a server's program has a name: the one that is shown, the kernel's for the process, or
    /// that of its unit. `None` where it is not certain who holds it.
    #[must_use]
    pub fn is_called(&self, server: &Server, name: &str) -> Option<bool> {
        let mut all = true;
        for SocketIndex(index) in &server.sockets {
            let program = self.programs.of(self.netns.sockets.get(*index)?);
            if !is_certain(&program) {
                return None;
            }
            let unit = program.unit.as_deref();
            let names = [
                program.name.as_deref(),
                program.comm.as_deref(),
                unit,
                unit.and_then(|unit| unit.strip_suffix(".service")),
            ];
            all &= names.into_iter().flatten().any(|known| known == name);
        }
        Some(all)
    }
}

/// Its descriptor was seen, or it is the kernel's own.
fn is_certain(program: &Program) -> bool {
    match program.reason {
        Some(reason) => reason == OwnerReason::Kernel,
        None => program.resolved_by == ResolvedBy::Fd,
    }
}
