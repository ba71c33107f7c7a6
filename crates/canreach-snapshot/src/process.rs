//! Who holds a socket: processes, control groups, units and containers.

use serde::{Deserialize, Serialize};

use crate::CgroupId;

/// A process number in the PID namespace canreach ran in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(pub u32);

/// One process. Texts are as the kernel gave them, lossily as UTF-8: escape before printing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its parent, where readable.
    pub parent: Option<Pid>,
    /// `/proc/PID/comm`: at most 15 bytes, and whatever the main thread calls itself.
    pub comm: String,
    /// Its arguments; empty for kernel threads and where unreadable.
    pub cmdline: Vec<String>,
    /// Its working directory, where readable.
    pub cwd: Option<String>,
    /// Its effective user id.
    pub uid: u32,
    /// That user's name, where the machine knows it.
    pub user: Option<String>,
    /// Its control group below the cgroup2 mount; where it has none there, that of systemd's own
    /// hierarchy of version 1.
    pub cgroup_path: Option<String>,
    /// Milliseconds since 1970-01-01 UTC when it started.
    pub started_at_ms: Option<u64>,
}

/// Who holds one socket, and how that was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The socket's inode.
    pub inode: u64,
    /// The processes that hold it, the likeliest server first.
    pub holders: Vec<Pid>,
    /// How they were found.
    pub resolved_by: ResolvedBy,
    /// Why that is not known, or not confirmed.
    pub reason: Option<OwnerReason>,
}

/// How a holder was found: a fact of the kernel, or an inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResolvedBy {
    /// Its descriptor was seen in `/proc/PID/fd`.
    Fd,
    /// Inferred: the control group holds one program only, or a proxy's arguments name the port.
    Cgroup,
    /// Not found.
    None,
}

/// Why no holder is known for certain. Derived from errors met, never from being root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnerReason {
    /// EACCES on `/proc/PID/fd` of another user's process.
    NeedsRoot,
    /// EACCES although root: the container lacks CAP_SYS_PTRACE.
    NeedsPtrace,
    /// A full scan met no error and no holder: it runs outside this PID namespace.
    OtherPidNamespace,
    /// Belongs to the kernel (NFS, RPC).
    Kernel,
    /// `/proc` is mounted with hidepid.
    Hidepid,
    /// systemd holds it until the first connection starts the service.
    SocketActivated,
    /// Every process was looked at and none holds it.
    NoProcess,
    /// A snapshot or a quick question that did not look.
    NotLookedAt,
}

/// A control group that a listed socket was created in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// The inode number of its directory.
    pub id: CgroupId,
    /// Its path below the cgroup2 mount.
    pub path: String,
    /// The systemd unit its path names.
    pub unit: Option<Unit>,
    /// The container its path names.
    pub container: Option<Container>,
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its full name: `ssh.service`, `ssh.socket`, `app-terminal-991.scope`.
    pub name: String,
    /// It belongs to a user's service manager, not the system's.
    pub user: bool,
    /// For a socket unit: the service it starts.
    pub starts: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `docker`, `podman`, `containerd`, `cri-o`, `kubernetes` (either), `lxc`, `machine`.
    pub runtime: String,
    /// Its id or name as its control group gives it.
    pub id: String,
}
