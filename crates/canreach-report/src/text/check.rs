//! `check` as text: the verdict, then one line per violation, each with the command that explains it.

use canreach_engine::expectation::{Holds, Origin};
use canreach_engine::link_role::LinkRole;
use unicode_width::UnicodeWidthStr;

use crate::phrase;
use crate::report::check::{CheckReport, FindingRow, OutsideRow, RuleRow};
use crate::text::circle::{self, Sources};
use crate::text::line::{
    DIM, GOOD, Line, Look, PLAIN, STOP, STRONG, UNKNOWN, WIDE, print, printable, shorten, wrap,
};

/// More servers than this are counted.
const ROWS_SHOWN_MAX: usize = 40;
/// The widest name of a program that is shown whole.
const PROGRAM_WIDTH_MAX: usize = 16;

/// The answer for a terminal. `command` is what was typed; `place` are the options that say which
/// machine was asked, for the advice to ask more.
#[must_use]
pub fn check(report: &CheckReport, command: &str, place: &str, look: Look) -> String {
    let mut lines = verdict(report, look);
    let widths = Widths::of(report);
    let violated: Vec<&FindingRow> = report.violated().collect();
    let undecided: Vec<&FindingRow> = report.undecided().collect();
    for row in violated.iter().take(ROWS_SHOWN_MAX) {
        lines.extend(row_lines(row, &row.outside, "now", place, &widths, look));
    }
    lines.extend(more(violated.len()));
    let asked = !report.allow_unknown;
    if !undecided.is_empty() && asked {
        if !violated.is_empty() {
            let text = format!("Can't tell about {}:", servers(undecided.len()));
            lines.extend([Line::new(), Line::plain(&text)]);
        }
        for row in undecided.iter().take(ROWS_SHOWN_MAX) {
            lines.extend(row_lines(row, &row.undecided, "perhaps", place, &widths, look));
        }
        lines.extend(more(undecided.len()));
    }
    if report.holds == Holds::Unknown {
        lines.extend(be_sure(report, command, look));
    }
    print(&lines, look)
}

/// What belongs on stderr: rules that cannot be meant.
#[must_use]
pub fn notes(report: &CheckReport) -> Vec<String> {
    let note = |row: &RuleRow| {
        let link = printable(row.missing_link.as_deref()?);
        let place = row.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        Some(format!("{place}there is no interface {link} here, so the rule lets nobody in"))
    };
    report.rules.iter().filter_map(note).collect()
}

fn verdict(report: &CheckReport, look: Look) -> Vec<Line> {
    let of_all = |count: usize| {
        let all = servers(report.servers);
        if count == report.servers { all } else { format!("{count} of {all}") }
    };
    let undecided = report.undecided().count();
    let (style, word, text) = match report.holds {
        Holds::Yes if report.servers == 0 => {
            (GOOD, "Yes.", "No server is running here that the policy could be about.".to_owned())
        }
        Holds::Yes if undecided > 0 => {
            let text = format!(
                "The policy holds, as far as it can be told; {} cannot be judged, which it allows.",
                of_all(undecided)
            );
            (GOOD, "Yes.", text)
        }
        Holds::Yes => {
            let all = match report.servers {
                1 => "the one server here".to_owned(),
                count => format!("all {count} servers"),
            };
            (GOOD, "Yes.", format!("The policy holds for {all}."))
        }
        Holds::No => {
            let text = format!(
                "{} can be reached from wider than the policy says.",
                of_all(report.violated().count())
            );
            (STOP, "No.", text)
        }
        Holds::Unknown if undecided > 0 => {
            let text =
                format!("{} may be reached from wider than the policy says.", of_all(undecided));
            (UNKNOWN, "Can't tell.", text)
        }
        Holds::Unknown => {
            let text = "Servers, interfaces or addresses may be missing from what could be read.";
            (UNKNOWN, "Can't tell.", text.to_owned())
        }
    };
    let mut lines: Vec<Line> = Vec::new();
    for (index, part) in wrap(&format!("{word} {text}"), look.columns()).iter().enumerate() {
        lines.push(match part.strip_prefix(word).filter(|_| index == 0) {
            Some(rest) => Line::new().add(style, word).add(STRONG, rest),
            None => Line::new().add(STRONG, part),
        });
    }
    lines
}

fn servers(count: usize) -> String {
    if count == 1 { "1 server".to_owned() } else { format!("{count} servers") }
}

fn more(count: usize) -> Option<Line> {
    let rest = count.checked_sub(ROWS_SHOWN_MAX).filter(|rest| *rest > 0)?;
    Some(Line::plain(&format!("  and {rest} more: --json lists them")))
}

/// The widths of the columns.
struct Widths {
    port: usize,
    program: usize,
    policy: usize,
}

impl Widths {
    fn of(report: &CheckReport) -> Self {
        let widest = |width: fn(&FindingRow) -> usize| {
            report.rows.iter().take(2 * ROWS_SHOWN_MAX).map(width).max().unwrap_or(0)
        };
        Self {
            port: widest(|row| port(row).width()),
            program: widest(|row| program(row).width()),
            policy: widest(|row| allowed(row).width()),
        }
    }
}

fn port(row: &FindingRow) -> String {
    phrase::port_argument(row.server.proto, row.server.port)
}

fn program(row: &FindingRow) -> String {
    shorten(&printable(&row.server.program.shown_name()), PROGRAM_WIDTH_MAX)
}

/// Whom the policy lets in.
fn allowed(row: &FindingRow) -> String {
    /// Wider than this it leaves no room for the rest.
    const WIDTH_MAX: usize = 22;
    let one = |(origin, via): &(Origin, Option<String>)| {
        let via = via.as_ref().map(|via| format!(" by {}", printable(via))).unwrap_or_default();
        format!("{}{via}", phrase::origin(*origin))
    };
    let Some((first, rest)) = row.allowed.split_first() else {
        return phrase::origin(Origin::Itself);
    };
    let whole = row.allowed.iter().map(one).collect::<Vec<_>>().join(", ");
    if whole.width() <= WIDTH_MAX || rest.is_empty() {
        return shorten(&whole, WIDTH_MAX);
    }
    let more = format!(", {} more", rest.len());
    format!("{}{more}", shorten(&one(first), WIDTH_MAX - more.width()))
}

/// The line of one server, and the command that explains it.
fn row_lines(
    row: &FindingRow,
    others: &[OutsideRow],
    label: &str,
    place: &str,
    widths: &Widths,
    look: Look,
) -> Vec<Line> {
    let sources: Vec<Sources<'_>> = others.iter().map(Sources::from).collect();
    let certain = label == "now";
    let (style, mark) = if certain { (WIDE, "  (!)") } else { (UNKNOWN, "") };
    let head = Line::plain(&format!("  {:>width$}  ", port(row), width = widths.port))
        .add(PLAIN, &program(row))
        .pad_to(widths.port + widths.program + 6)
        .add(PLAIN, &format!("policy: {}", allowed(row)))
        .pad_to(widths.port + widths.program + widths.policy + 16);
    let room = look.columns().saturating_sub(head.width() + label.len() + 2 + mark.len());
    let who = shorten(&circle::words(&sources, room), room);
    let mut lines = vec![head.add(PLAIN, &format!("{label}: ")).add(style, &who).add(style, mark)];
    let Some(first) = others.first() else { return lines };
    let indent = widths.port + 4;
    let command = printable(&why(row, first, place, look.columns() - indent));
    let mut second = Line::new().pad_to(indent);
    if let Some(reason) = first.reason {
        second = second.add(DIM, &format!("[{reason}]")).add(PLAIN, "  ");
        if second.width() + command.width() > look.columns() {
            lines.push(second);
            second = Line::new().pad_to(indent);
        }
    }
    lines.push(second.add(PLAIN, &command));
    lines
}

/// The question that shows how they get in. By itself it asks about the neighbours on the LAN.
fn why(row: &FindingRow, first: &OutsideRow, place: &str, room: usize) -> String {
    let command = format!("canreach why {}{place}", port(row));
    let lan = matches!(first.role, LinkRole::Lan | LinkRole::VirtualLan);
    if lan && first.neighbors {
        return command;
    }
    // The first of the largest.
    let prefixes = first.sources.to_prefixes();
    let from = prefixes.iter().min_by_key(|prefix| prefix.length());
    let from = from.map_or_else(
        || "any".to_owned(),
        |prefix| match prefix.length() {
            0 => "any".to_owned(),
            length if length == prefix.family().bits() => prefix.address().to_string(),
            _ => prefix.to_string(),
        },
    );
    let exact = format!("{command} --from {from} --to {} --via {}", first.to, first.via);
    // Where there is no room, the address that they would dial by themselves.
    if exact.width() <= room { exact } else { format!("{command} --from {from}") }
}

fn be_sure(report: &CheckReport, command: &str, look: Look) -> Vec<Line> {
    let mut lines = vec![Line::new()];
    for thing in report.unknown.iter().take(4) {
        let text = format!("{}: {}", thing.what, thing.reason);
        lines.push(Line::plain(&format!("not known: {}", printable(&text))));
    }
    let root = report.unknown.iter().any(|thing| thing.reason == "needs-root");
    if root {
        let width = look.columns() - "Be sure:  ".len();
        let command = shorten(&printable(&format!("sudo {command}")), width);
        lines.push(Line::plain("Be sure:  ").add(STRONG, &command));
    }
    lines
}
