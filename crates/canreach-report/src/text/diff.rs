//! `diff` as text: what became reachable first, then what no longer is, each with what changed.

use canreach_engine::DropReason;
use canreach_engine::access::Access;
use canreach_engine::audience::Reach;
use canreach_engine::difference::{Reason, Two};
use unicode_width::UnicodeWidthStr;

use crate::phrase;
use crate::report::diff::{CauseRow, ChangeRow, DiffReport, NamedDeciding, ServerRow};
use crate::text::circle::{self, Sources};
use crate::text::line::{
    DIM, Line, Look, PLAIN, STRONG, UNKNOWN, WIDE, print, printable, shorten, wrap,
};

/// More servers than this in a section are counted.
const ROWS_SHOWN_MAX: usize = 30;
/// The widest name of a program that is shown whole.
const PROGRAM_WIDTH_MAX: usize = 24;

/// What a change is listed under, in the order of the sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    /// Others can reach it who could not before.
    Wider,
    /// Perhaps they can.
    PerhapsWider,
    /// Others can no longer reach it.
    Narrower,
    /// Perhaps they cannot.
    PerhapsNarrower,
    /// The same people, at another address.
    Elsewhere,
    /// This computer alone.
    Itself,
}

impl Section {
    const ALL: [Self; 6] = [
        Self::Wider,
        Self::PerhapsWider,
        Self::Narrower,
        Self::PerhapsNarrower,
        Self::Elsewhere,
        Self::Itself,
    ];

    fn of(change: &ChangeRow) -> Self {
        let Two { before, after } = change.access;
        if change.circle == Reach::Itself {
            return Self::Itself;
        }
        if change.elsewhere {
            return Self::Elsewhere;
        }
        match (change.is_wider(), before, after) {
            (true, Access::No, Access::Yes) => Self::Wider,
            (true, ..) => Self::PerhapsWider,
            (false, Access::Yes, Access::No) => Self::Narrower,
            (false, ..) => Self::PerhapsNarrower,
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::Wider => "Can be reached now, and could not before",
            Self::PerhapsWider => "Can perhaps be reached by more than before",
            Self::Narrower => "Can no longer be reached",
            Self::PerhapsNarrower => "Can perhaps be reached by fewer than before",
            Self::Elsewhere => "The same people, at another address",
            Self::Itself => "For this computer only",
        }
    }
}

/// The answer for a terminal.
#[must_use]
pub fn diff(report: &DiffReport, look: Look) -> String {
    let mut lines: Vec<Line> = wrap(&headline(report), look.columns())
        .iter()
        .map(|text| Line::new().add(STRONG, text))
        .collect();
    for section in Section::ALL {
        lines.extend(section_lines(report, section, look));
    }
    if report.uncertain {
        lines.push(Line::new());
        for thing in report.unknown.iter().take(4) {
            let how = thing.how.as_ref().map(|how| format!("; {how}")).unwrap_or_default();
            let text = format!("not known: {}: {}{how}", thing.what, thing.reason);
            lines.push(Line::plain(&shorten(&printable(&text), look.columns())));
        }
    }
    print(&lines, look)
}

fn headline(report: &DiffReport) -> String {
    let count = |wanted: &[Section]| {
        let has = |row: &&ServerRow| {
            row.changes.iter().any(|change| wanted.contains(&Section::of(change)))
        };
        report.rows.iter().filter(has).count()
    };
    let servers = |count: usize| match count {
        1 => "1 server".to_owned(),
        count => format!("{count} servers"),
    };
    let (wider, narrower) = (count(&[Section::Wider]), count(&[Section::Narrower]));
    let perhaps = count(&[Section::PerhapsWider]);
    match (wider, perhaps, narrower) {
        (0, 0, 0) if report.rows.is_empty() && report.uncertain => {
            "Can't tell: nothing is known to differ, and not everything could be judged.".to_owned()
        }
        (0, 0, 0) if report.rows.is_empty() => format!(
            "No difference: the same people can reach the same {}.",
            servers(report.compared)
        ),
        (0, 0, 0) => "Nobody else can reach anything that they could not before.".to_owned(),
        (0, 0, narrower) => format!(
            "Nobody can reach anything that they could not before; {} can be reached by fewer.",
            servers(narrower)
        ),
        (0, perhaps, _) => format!(
            "Can't tell: {} may be reached by people who could not before.",
            servers(perhaps)
        ),
        (wider, ..) => {
            format!("{} can be reached by people who could not before.", servers(wider))
        }
    }
}

fn section_lines(report: &DiffReport, section: Section, look: Look) -> Vec<Line> {
    let shown: Vec<(&ServerRow, Vec<&ChangeRow>)> = report
        .rows
        .iter()
        .map(|row| {
            let of_section = |change: &&ChangeRow| Section::of(change) == section;
            (row, row.changes.iter().filter(of_section).collect())
        })
        .filter(|(row, changes): &(&ServerRow, Vec<&ChangeRow>)| {
            // What others can reach, this computer can: once is enough.
            let only_itself =
                || row.changes.iter().all(|change| Section::of(change) == Section::Itself);
            !changes.is_empty() && (section != Section::Itself || only_itself())
        })
        .collect();
    if shown.is_empty() {
        return Vec::new();
    }
    let cell = |row: &ServerRow| {
        row.shown().map(|server| phrase::port_argument(server.proto, server.port))
    };
    let width = |text: Option<String>| text.map_or(0, |text| text.width());
    let port = shown.iter().map(|(row, _)| width(cell(row))).max().unwrap_or(0);
    let program = shown.iter().map(|(row, _)| program(row).width()).max().unwrap_or(0);
    let mut lines = vec![Line::new(), Line::new().add(STRONG, section.heading())];
    for (row, changes) in shown.iter().take(ROWS_SHOWN_MAX) {
        let sources: Vec<Sources<'_>> =
            changes.iter().map(|change| Sources::from(*change)).collect();
        let (style, mark) = match section {
            Section::Wider => (WIDE, "  (!)"),
            Section::PerhapsWider | Section::PerhapsNarrower => (UNKNOWN, "  ?"),
            Section::Narrower | Section::Elsewhere | Section::Itself => (PLAIN, ""),
        };
        let line = Line::plain(&format!("  {:>port$}  ", cell(row).unwrap_or_default()))
            .add(PLAIN, &self::program(row))
            .pad_to(port + program + 6);
        let room = look.columns().saturating_sub(line.width() + mark.len());
        let who = match section {
            Section::Itself => itself(row).to_owned(),
            Section::Elsewhere => addresses(changes),
            Section::Wider
            | Section::PerhapsWider
            | Section::Narrower
            | Section::PerhapsNarrower => circle::words(&sources, room),
        };
        lines.push(line.add(style, &shorten(&who, room)).add(style, mark));
        if section != Section::Elsewhere {
            lines.extend(causes(changes, port + 4, look));
        }
    }
    if let Some(rest) = shown.len().checked_sub(ROWS_SHOWN_MAX).filter(|rest| *rest > 0) {
        lines.push(Line::plain(&format!("  and {rest} more: --json lists them")));
    }
    lines
}

fn program(row: &ServerRow) -> String {
    let name = |server: &crate::report::server::NamedServer| server.program.shown_name();
    let name = row.shown().map(name).unwrap_or_default();
    shorten(&printable(&name), PROGRAM_WIDTH_MAX)
}

/// What became of a server that this computer alone reaches.
fn itself(row: &ServerRow) -> &'static str {
    match (&row.server.before, &row.server.after) {
        (None, _) => "new",
        (_, None) => "gone",
        (Some(_), Some(_)) => match row.changes.first().map(|change| change.access.after) {
            Some(Access::Yes) => "can reach it now",
            Some(Access::No) => "can no longer reach it",
            Some(Access::Probable) => "can probably reach it",
            Some(Access::Improbable) | None => "can probably not reach it",
        },
    }
}

/// Which addresses are new, and which are gone.
fn addresses(changes: &[&ChangeRow]) -> String {
    let of = |wider: bool| {
        let mut found: Vec<String> = changes
            .iter()
            .filter(|change| change.is_wider() == wider)
            .map(|change| change.to.to_string())
            .collect();
        found.dedup();
        let mut unique: Vec<String> = Vec::new();
        for address in found {
            if !unique.contains(&address) {
                unique.push(address);
            }
        }
        unique.join(", ")
    };
    match (of(true), of(false)) {
        (now, before) if before.is_empty() => format!("now also at {now}"),
        (now, before) if now.is_empty() => format!("no longer at {before}"),
        (now, before) => format!("now at {now}, no longer at {before}"),
    }
}

/// What decided before and what decides now, for each cause once.
fn causes(changes: &[&ChangeRow], column: usize, look: Look) -> Vec<Line> {
    /// More causes than this for one server are left to the JSON.
    const SHOWN_MAX: usize = 2;
    let mut shown: Vec<[(String, Option<&'static str>); 2]> = Vec::new();
    for change in changes {
        // The first on the path; those behind it follow from it, or wait for it.
        let Some(cause) = change.causes.first() else { continue };
        let Two { before, after } = &cause.deciding;
        let texts = [before, after]
            .map(|deciding| (decides(cause, deciding), deciding.reason.map(Reason::slug)));
        if !shown.contains(&texts) {
            shown.push(texts);
        }
    }
    let mut lines = Vec::new();
    for texts in shown.iter().take(SHOWN_MAX) {
        for (label, (text, code)) in ["before", "now"].iter().zip(texts) {
            let line = Line::new().pad_to(column).add(DIM, label).pad_to(column + 8);
            let code = code.map(|code| format!("[{code}]"));
            let code_width = code.as_ref().map_or(0, |code| code.width() + 2);
            let room = look.columns().saturating_sub(column + 8 + code_width);
            let line = line.add(PLAIN, &shorten(&printable(text), room));
            match code {
                Some(code) => lines.extend(line.with_right(DIM, &code, look)),
                None => lines.push(line),
            }
        }
    }
    if shown.len() > SHOWN_MAX {
        let more = format!("and {} more: --json lists them", shown.len() - SHOWN_MAX);
        lines.push(Line::new().pad_to(column).add(PLAIN, &more));
    }
    lines
}

/// What decides, in a line: the object, or what its absence means. The code says the rest.
fn decides(cause: &CauseRow, deciding: &NamedDeciding) -> String {
    match (&deciding.subject, deciding.reason) {
        (Some(subject), _) => subject.line(),
        (None, None) => phrase::passed(cause.stage).to_owned(),
        (None, Some(Reason::Stop(DropReason::LinkDown))) => "no such interface".to_owned(),
        (None, Some(Reason::Stop(reason))) => phrase::stop_in_list(reason).to_owned(),
        (None, Some(Reason::Unknown(reason))) => phrase::unknown(cause.stage, reason),
    }
}
