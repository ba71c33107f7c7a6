//! The program behind a socket, on the wire.

use schemars::JsonSchema;
use serde::Serialize;

use crate::report::program::Program;

/// The program behind a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Process {
    /// Its process number.
    pub pid: Option<u32>,
    /// Its name as the kernel keeps it, at most 15 bytes.
    pub comm: Option<String>,
    /// Its arguments, joined by spaces.
    pub cmdline: Option<String>,
    /// The user that made the socket.
    pub user: Option<String>,
    /// That user's number.
    pub uid: u32,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Its container, as `runtime:id`.
    pub container: Option<String>,
    /// How it was found: `fd` is a fact, `cgroup` an inference, `none` not at all.
    pub resolved_by: String,
    /// Why it is not known, or not confirmed.
    pub reason: Option<String>,
}

impl Process {
    pub(super) fn of(program: &Program) -> Self {
        Self {
            pid: program.pid,
            comm: program.comm.clone(),
            cmdline: program.cmdline.clone(),
            user: program.user.clone(),
            uid: program.uid,
            unit: program.unit.clone(),
            container: program.container.as_ref().map(|(runtime, id)| format!("{runtime}:{id}")),
            resolved_by: resolved_by(program).to_owned(),
            reason: program.reason.map(|reason| crate::phrase::owner_slug(reason).to_owned()),
        }
    }
}

/// How a program was found.
pub(super) const fn resolved_by(program: &Program) -> &'static str {
    match program.resolved_by {
        canreach_snapshot::ResolvedBy::Fd => "fd",
        canreach_snapshot::ResolvedBy::Cgroup => "cgroup",
        canreach_snapshot::ResolvedBy::None => "none",
    }
}
