//! What went wrong: the operation, the object, the errno; and the [`Gap`] that one failed read leaves.

use std::io;

use canreach_snapshot::{Gap, GapReason, GapSubject};

use crate::netlink::attr::Malformed;

/// Why nothing at all could be read.
///
/// The message says it all, what to do included, so the cause is no `source` of its own.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The namespace that was asked for is not there, or may not be entered.
    #[error("{}", refused_namespace(.name, .cause))]
    Netns {
        /// As it was named.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// No netlink socket can be opened, so there is nothing to see.
    #[error(
        "open a netlink socket: {cause}; nothing of the network can be read without one, so run \
         canreach outside of the sandbox that forbids it"
    )]
    Netlink {
        /// What the kernel said.
        cause: io::Error,
    },
}

fn refused_namespace(name: &str, cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => format!(
            "there is no network namespace `{name}`: give a name that `ip netns` lists, the number of \
             a running process, or a path"
        ),
        // What setns(2) says of any other file.
        Some(libc::EINVAL) => format!("`{name}` is not a network namespace"),
        Some(libc::EPERM | libc::EACCES) => {
            format!("enter network namespace {name}: {cause}; this needs root")
        }
        _ => format!("enter network namespace {name}: {cause}"),
    }
}

impl CollectError {
    /// Whether what was asked for is not there, rather than out of reach.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Netns { cause, .. } => {
                matches!(cause.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EINVAL))
            }
            Self::Netlink { .. } => false,
        }
    }

    /// The gap that is left where other namespaces could be read.
    pub(crate) fn gap(&self, name: String) -> Gap {
        let (Self::Netns { cause, .. } | Self::Netlink { cause }) = self;
        let reason = match cause.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => GapReason::Vanished,
            _ => os_reason(cause),
        };
        let detail = format!("enter network namespace {name}: {cause}");
        Gap { subject: GapSubject::Netns(name), reason, detail }
    }
}

/// Why one read failed. It never ends the whole: it becomes a gap.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The kernel said no.
    #[error("{operation}: {source}{}", remark(.message))]
    Os {
        /// What was tried, and on what: `dump routes`.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// Its own words (`NLMSGERR_ATTR_MSG`), where it gave some.
        message: Option<String>,
    },
    /// The kernel's answer does not hold what it says it holds.
    #[error("{operation}: {source}")]
    Malformed {
        /// What was tried.
        operation: &'static str,
        /// Where the answer breaks off.
        source: Malformed,
    },
    /// The thing changed while it was read, each time it was tried.
    #[error("{operation}: it changed during each of {attempts} attempts")]
    Changed {
        /// What was tried.
        operation: &'static str,
        /// How often.
        attempts: u32,
    },
}

fn remark(message: &Option<String>) -> String {
    message.as_ref().map_or_else(String::new, |message| format!(" ({message})"))
}

impl ReadError {
    /// An error of the operating system.
    pub(crate) fn os(operation: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Os { operation, source: source.into(), message: None }
    }

    /// A netlink socket that could not be opened. Everybody may open one: where that is refused, a
    /// sandbox does it, and being root would not help.
    pub(crate) fn no_socket(operation: &'static str, error: &io::Error) -> Self {
        let source = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) | None => {
                io::Error::other(format!("{error}, by a sandbox"))
            }
            Some(errno) => io::Error::from_raw_os_error(errno),
        };
        Self::Os { operation, source, message: None }
    }

    /// The reason a gap gives for this error.
    pub(crate) fn reason(&self) -> GapReason {
        match self {
            Self::Os { source, .. } => os_reason(source),
            Self::Malformed { .. } => GapReason::Malformed,
            Self::Changed { .. } => GapReason::ChangedWhileReading,
        }
    }

    /// The gap this error leaves.
    pub(crate) fn gap(&self, subject: GapSubject) -> Gap {
        Gap { subject, reason: self.reason(), detail: self.to_string() }
    }
}

/// What an errno means for the reader.
pub(crate) fn os_reason(error: &io::Error) -> GapReason {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => GapReason::NeedsRoot,
        Some(
            libc::ENOSYS
            | libc::EPROTONOSUPPORT
            | libc::EAFNOSUPPORT
            | libc::EOPNOTSUPP
            | libc::ENOPROTOOPT
            | libc::ENOENT,
        ) => GapReason::Unsupported,
        _ => GapReason::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_asked_for_only_where_it_helps() {
        let check = |errno, as_read, as_socket| {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(ReadError::no_socket("open", &error).reason(), as_socket, "{error}");
            assert_eq!(ReadError::os("read", error).reason(), as_read, "{errno}");
        };
        check(libc::EPERM, GapReason::NeedsRoot, GapReason::Failed);
        check(libc::EACCES, GapReason::NeedsRoot, GapReason::Failed);
        check(libc::EPROTONOSUPPORT, GapReason::Unsupported, GapReason::Unsupported);
        check(libc::ENOBUFS, GapReason::Failed, GapReason::Failed);
    }
}
