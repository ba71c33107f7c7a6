//! Fixes, as the sentences and lines that people read.

use canreach_engine::Answer;
use canreach_engine::explain::fix::{Fix as Found, FixId, FixStep, Place};
use canreach_engine::explain::remedy::remedies;
use canreach_snapshot::{Netns, Snapshot};

use crate::fix_phrase;
use crate::report::program::Programs;
use crate::report::why::Fix;

/// More than these make a page nobody reads; the rest follows when the first are done.
const SHOWN_MAX: usize = 3;

/// What would change an answer, but for what the report says anyway.
#[must_use]
pub fn fixes(snapshot: &Snapshot, netns: &Netns, answer: &Answer, told: &[FixId]) -> Vec<Fix> {
    let found = remedies(snapshot, netns, answer);
    let shown: Vec<&Found> =
        found.iter().filter(|fix| !told.contains(&fix.id)).take(SHOWN_MAX).collect();
    let before = std::iter::once(None).chain(shown.iter().map(|fix| Some(fix.reason)));
    shown
        .iter()
        .zip(before)
        .map(|(fix, before)| Fix {
            alternative: before == Some(fix.reason),
            ..worded(snapshot, netns, answer, fix)
        })
        .collect()
}

fn worded(snapshot: &Snapshot, netns: &Netns, answer: &Answer, fix: &Found) -> Fix {
    let listener = fix.listener.and_then(|index| netns.sockets.get(index.0));
    let program = listener.map(|socket| Programs::new(snapshot, netns).of(socket).shown_name());
    let mut lines = Vec::new();
    for step in &fix.steps {
        match step {
            FixStep::Run(line) | FixStep::Form(line) => lines.push(line.clone()),
            // Among commands, what is written stands apart.
            FixStep::Write(Place::Editor | Place::File(_), written) if fix.steps.len() > 1 => {
                lines.extend(written.iter().map(|line| format!("    {line}")));
            }
            FixStep::Write(_, written) => lines.extend(written.iter().cloned()),
        }
    }
    let undo = fix.undo.as_ref().map(|undo| {
        let mut commands = undo.commands.clone();
        if let Some(first) = commands.first_mut().filter(|_| undo.take_lines_out) {
            first.push_str("   # take the lines out again");
        }
        commands.join("\n")
    });
    Fix {
        id: fix.id.slug().to_owned(),
        text: fix_phrase::fix(fix, &answer.question, program.as_deref()),
        command: lines.join("\n"),
        undo,
        needs_root: fix.needs_root,
        alternative: false,
        speaks_for_itself: matches!(
            fix.id,
            FixId::UfwAllow | FixId::FirewalldAllow | FixId::NftAllow | FixId::IptablesAllow
        ),
        notes: fix.notes.iter().map(fix_phrase::note).collect(),
    }
}
