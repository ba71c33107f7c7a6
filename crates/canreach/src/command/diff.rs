//! `diff`: who can reach what that could not before.

use std::path::{Path, PathBuf};

use canreach_engine::difference::Two;
use canreach_report::report::diff::Side;
use canreach_report::{DiffReport, json, text};

use crate::cli::{DiffArguments, Global};
use crate::exit::{Exit, UsageError};
use crate::output;
use crate::state::{self, Wanted};

pub(super) fn run(global: &Global, arguments: &DiffArguments, typed: &str) -> anyhow::Result<Exit> {
    if arguments.after.is_some() && global.snapshot.is_some() {
        let message =
            "--snapshot names the later state, and so does the second file: leave one out";
        return Err(UsageError(message.to_owned()).into());
    }
    let later: Option<&PathBuf> = arguments.after.as_ref().or(global.snapshot.as_ref());
    let stdin = Path::new("-");
    if arguments.before == stdin && later.is_some_and(|later| later == stdin) {
        let message = "standard input is one state: name a file for the other";
        return Err(UsageError(message.to_owned()).into());
    }
    let before = state::from_file(&arguments.before)?;
    let after = match later {
        Some(path) => state::from_file(path)?,
        None => state::read(global, &Wanted::ALL)?,
    };
    let wanted = global.netns.as_deref();
    let name = arguments.before.display().to_string();
    let later_name = later.map(|path| path.display().to_string());
    let sides = Two {
        before: Side {
            snapshot: &before,
            netns: state::subject_of(&before, wanted)?,
            file: Some(&name),
        },
        after: Side {
            snapshot: &after,
            netns: state::subject_of(&after, wanted.filter(|_| later.is_some()))?,
            file: later_name.as_deref(),
        },
    };
    let report = DiffReport::new(sides, typed);
    let text = if global.json {
        json::print(&json::diff::Diff::new(&report))
    } else {
        text::diff::diff(&report, output::look())
    };
    output::answer(&text)?;
    Ok(match (report.rows.is_empty(), report.uncertain) {
        (false, _) => Exit::No,
        (true, true) => Exit::Unknown,
        (true, false) => Exit::Yes,
    })
}
