//! Reads a running machine into a [`Snapshot`], without changing it.
//!
//! Reading order: [`collect`], `namespace` (what is read of one network namespace, and in which
//! order), then the sources: `netlink`, `proc`, `bpf`, `firewall`. What cannot be read becomes a
//! gap of the snapshot, with the operation and the errno.

mod capability;
mod error;
mod namespace;
pub mod netlink;
mod proc;
mod sys;

pub use netlink::sock_diag;

use std::path::PathBuf;

use canreach_snapshot::{Machine, Pid, Port, Proto, Snapshot};

/// How much to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Which network namespace the question is about.
    pub netns: NetnsChoice,
    /// Read every namespace that can be found, after that one.
    pub all_namespaces: bool,
    /// Which sockets.
    pub sockets: SocketScope,
    /// Find out who holds the sockets.
    pub owners: bool,
    /// Read what packet filters and BPF programs are loaded.
    pub filters: bool,
}

/// A network namespace, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetnsChoice {
    /// The one the calling thread is in.
    Own,
    /// By its name under `/run/netns`.
    Name(String),
    /// The one a process is in.
    Process(Pid),
    /// By a path of the nsfs file system.
    Path(PathBuf),
}

/// Which sockets to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketScope {
    /// All TCP listeners and UDP sockets.
    All,
    /// Those of one protocol and port.
    Port(Proto, Port),
    /// None.
    None,
}

/// Why nothing at all could be read.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The namespace that was asked for is not there, or may not be entered.
    #[error("enter network namespace {name}: {source}")]
    Netns {
        /// As it was named.
        name: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// No netlink socket can be opened, so there is nothing to see.
    #[error("open a netlink socket: {source}")]
    Netlink {
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Reads the machine.
///
/// # Errors
/// Only where nothing at all can be read; everything else becomes a gap of the snapshot.
pub fn collect(scope: &Scope) -> Result<Snapshot, CollectError> {
    let mut reading = namespace::read(scope)?;
    reading.netns.own = true;
    let machine = Machine {
        kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
        privileged: reading.privileged,
        ..Machine::default()
    };
    Ok(Snapshot {
        machine,
        namespaces: vec![reading.netns],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    })
}
