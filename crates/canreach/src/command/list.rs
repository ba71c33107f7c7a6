//! `list`: every server and who can reach it.

use canreach_report::{ListReport, json, text};

use crate::cli::{Global, ListArguments};
use crate::exit::Exit;
use crate::output;
use crate::state::{self, Wanted};

pub(super) fn run(global: &Global, arguments: &ListArguments, typed: &str) -> anyhow::Result<Exit> {
    let wanted = Wanted { all_namespaces: arguments.all_namespaces, ..Wanted::ALL };
    let snapshot = state::read(global, &wanted)?;
    let namespaces = if arguments.all_namespaces {
        snapshot.namespaces.iter().collect()
    } else {
        vec![state::subject(&snapshot, global)?]
    };
    let reports: Vec<ListReport> = namespaces
        .into_iter()
        .map(|netns| ListReport::new(&snapshot, netns, arguments.all, typed))
        .collect();
    if global.json {
        output::answer(&json::print(&json::list::List::new(&reports)))?;
    } else if output::is_terminal() {
        let look = output::look();
        let sections: Vec<String> =
            reports.iter().map(|report| text::list::list(report, look)).collect();
        output::answer(&sections.join("\n"))?;
    } else {
        output::answer(&text::list::piped(&reports))?;
    }
    if !global.json {
        let mut notes: Vec<String> =
            reports.iter().flat_map(|report| text::list::notes(report, typed)).collect();
        notes.dedup();
        notes.iter().for_each(|note| output::note(note));
    }
    let nothing = reports.iter().all(|report| report.rows.is_empty());
    Ok(if nothing { Exit::No } else { Exit::Yes })
}
