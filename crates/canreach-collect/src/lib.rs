//! Reads a running machine into a [`Snapshot`], without changing it.
//!
//! Reading order: [`collect`], `namespace` (what is read of one network namespace, and in which
//! order), then the sources: `netlink`, `proc`, `bpf`, `firewall`. What cannot be read becomes a
//! gap of the snapshot, with the operation and the errno.

mod capability;
mod cgroup;
mod directory;
mod error;
mod firewall;
mod kernel_module;
mod machine;
mod namespace;
pub mod netlink;
mod netns;
mod owner;
mod proc;
mod sys;

pub use netlink::sock_diag;

use std::io;
use std::path::PathBuf;

use canreach_snapshot::{Gap, GapReason, GapSubject, Netns, Pid, Port, Proto, Snapshot};

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
        source: io::Error,
    },
    /// No netlink socket can be opened, so there is nothing to see.
    #[error("open a netlink socket: {source}")]
    Netlink {
        /// What the kernel said.
        source: io::Error,
    },
}

impl CollectError {
    fn gap(&self, name: String) -> Gap {
        let (Self::Netns { source, .. } | Self::Netlink { source }) = self;
        let reason = match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => GapReason::Vanished,
            _ => error::os_reason(source),
        };
        Gap { subject: GapSubject::Netns(name), reason, detail: self.to_string() }
    }
}

/// Reads the machine.
///
/// # Errors
/// Only where nothing at all can be read; everything else becomes a gap of the snapshot.
pub fn collect(scope: &Scope) -> Result<Snapshot, CollectError> {
    let own = netns::own_id().ok();
    let subject = match netns::locate(&scope.netns) {
        None => {
            let mut reading = namespace::read(scope)?;
            if scope.filters {
                // Files of this system speak of the namespace it runs in, not of others.
                reading.netns.firewall.hints = firewall::hint::read();
            }
            reading
        }
        Some((path, name)) => {
            let (file, _) = netns::open(&path, &name)?;
            let mut reading = netns::inside(&file, &name, || namespace::read(scope))?;
            reading.netns.name = Some(name);
            reading
        }
    };
    let privileged = subject.privileged;
    let mut gaps = Vec::new();
    let mut namespaces = vec![subject.netns];
    if scope.all_namespaces {
        read_others(scope, &mut namespaces, &mut gaps);
    }
    for netns in &mut namespaces {
        netns.own = own == Some(netns.id);
    }
    let machine = machine::read(privileged);
    let (processes, cgroups) = (Vec::new(), Vec::new());
    let mut snapshot = Snapshot { machine, namespaces, processes, cgroups, gaps };
    if scope.owners {
        owner::resolve(&mut snapshot);
    }
    Ok(snapshot)
}

/// Reads every other namespace that can be found, and names those that are there already.
fn read_others(scope: &Scope, namespaces: &mut Vec<Netns>, gaps: &mut Vec<Gap>) {
    for found in netns::find(gaps) {
        if let Some(known) = namespaces.iter_mut().find(|netns| netns.id == found.id) {
            if found.pid.is_none() {
                known.name.get_or_insert(found.name);
            }
            continue;
        }
        let reading = netns::open(&found.path, &found.name).and_then(|(file, id)| {
            // Numbers of processes and of namespaces are used again: this is another one now.
            if id != found.id {
                return Err(CollectError::Netns {
                    name: found.name.clone(),
                    source: io::Error::from_raw_os_error(libc::ESRCH),
                });
            }
            netns::inside(&file, &found.name, || namespace::read(scope))
        });
        match reading {
            Ok(mut reading) => {
                reading.netns.name = Some(found.name);
                namespaces.push(reading.netns);
            }
            Err(error) => gaps.push(error.gap(found.name)),
        }
    }
}
