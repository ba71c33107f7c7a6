//! Exit codes. A script must never read a guess as yes.

use std::process::ExitCode;

use canreach_collect::CollectError;
use canreach_engine::Verdict;
use canreach_engine::ask::AskError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// `why`, `check`: yes. `diff`: no difference. Others: something was shown.
    Yes,
    /// `why`, `check`: no, or partly. `diff`: a difference. Others: there is nothing to show.
    No,
    /// What was typed makes no sense.
    Usage,
    /// `why`, `check`, `diff`: can't tell, also where the answer is probable.
    Unknown,
    /// An error of the operating system, or of canreach itself.
    Internal,
}

impl Exit {
    /// The number the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unknown => 3,
            Self::Internal => 4,
        }
    }

    /// The exit of a verdict.
    #[must_use]
    pub const fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Yes => Self::Yes,
            Verdict::No | Verdict::Partly => Self::No,
            Verdict::Unknown => Self::Unknown,
        }
    }

    /// The exit of an error: what the person can correct on the command line is a usage error.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        let usage = error.is::<UsageError>()
            || error.is::<AskError>()
            || error.downcast_ref::<CollectError>().is_some_and(CollectError::is_usage);
        if usage { Self::Usage } else { Self::Internal }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Something on the command line that makes no sense, found after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Makes a panic, which is always a mistake of canreach's own, end with the code for that.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        crate::output::internal_error(&panic.to_string());
        std::process::exit(i32::from(Exit::Internal.code()));
    }));
}
