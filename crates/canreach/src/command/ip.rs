//! `ip`: the address to hand out.

use canreach_report::{IpReport, json, text};

use crate::cli::{Global, IpArguments};
use crate::exit::Exit;
use crate::output;
use crate::state::{self, Wanted};

pub(super) fn run(global: &Global, arguments: &IpArguments) -> anyhow::Result<Exit> {
    let snapshot = state::read(global, &Wanted::ADDRESSES)?;
    let report = IpReport::new(&snapshot, state::subject(&snapshot, global)?);
    let text = if global.json {
        json::print(&json::ip::Ip::new(&report, arguments.all))
    } else if arguments.all {
        text::ip::links(&report, output::look())
    } else if output::is_terminal() {
        text::ip::ip(&report, output::look())
    } else {
        text::ip::piped(&report)
    };
    output::answer(&text)?;
    let shown = if arguments.all { !report.links.is_empty() } else { report.has_best };
    Ok(if shown { Exit::Yes } else { Exit::No })
}
