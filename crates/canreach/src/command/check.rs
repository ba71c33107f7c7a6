//! `check`: fail if anything is reachable from wider than a policy.

use std::path::Path;

use canreach_engine::expectation::{Holds, Policy};
use canreach_report::{CheckReport, json, text};

use crate::cli::{CheckArguments, Global, quoted};
use crate::exit::{Exit, UsageError};
use crate::output;
use crate::state::{self, Wanted};

/// Longer policies are refused: nobody wrote them.
const POLICY_BYTES_MAX: u64 = 1 << 20;

pub(super) fn run(
    global: &Global,
    arguments: &CheckArguments,
    typed: &str,
) -> anyhow::Result<Exit> {
    // What was typed is read before the machine: a mistake there is said at once.
    let policy = match &arguments.policy {
        Some(path) => from_file(path)?,
        None => Policy { rules: arguments.only.clone(), allow_unknown: false },
    };
    let snapshot = state::read(global, &Wanted::ALL)?;
    let netns = state::subject(&snapshot, global)?;
    let report = CheckReport::new(&snapshot, netns, &policy, &arguments.port, typed);
    if global.json {
        output::answer(&json::print(&json::check::Check::new(&report)))?;
    } else {
        output::answer(&text::check::check(&report, typed, &place(global), output::look()))?;
        text::check::notes(&report).iter().for_each(|note| output::note(note));
    }
    Ok(match report.holds {
        Holds::Yes => Exit::Yes,
        Holds::No => Exit::No,
        Holds::Unknown => Exit::Unknown,
    })
}

fn from_file(path: &Path) -> anyhow::Result<Policy> {
    let shown = path.display();
    let bytes = state::file_bytes("policy", path, POLICY_BYTES_MAX + 1)?;
    if bytes.len() as u64 > POLICY_BYTES_MAX {
        return Err(UsageError(format!("{shown} is too long for a policy")).into());
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| UsageError(format!("{shown} is not a policy: it is not UTF-8 text")))?;
    Policy::from_toml(&text).map_err(|error| UsageError(format!("{shown}, {error}")).into())
}

/// The option that says which namespace is asked.
fn place(global: &Global) -> String {
    let netns = global.netns.as_deref();
    netns.map(|netns| format!(" --netns {}", quoted(netns))).unwrap_or_default()
}
