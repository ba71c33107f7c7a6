//! What is asked for: how much to read, and of which network namespace.

use std::path::PathBuf;

use canreach_snapshot::{Pid, Port, Proto};

/// How much to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Which network namespace the question is about.
    pub netns: NetnsChoice,
    /// Read every namespace that can be found, after that one.
    pub all_namespaces: bool,
    /// Read the namespaces that packets may be sent on to from that one, as far as that is allowed.
    pub beyond: bool,
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
