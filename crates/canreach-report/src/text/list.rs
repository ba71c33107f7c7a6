//! `list` as text: groups by reach, widest first; piped, one aligned line per socket.

use std::collections::BTreeMap;

use canreach_engine::audience::Reach;
use canreach_engine::{DropReason, UnknownReason};
use canreach_snapshot::{OwnerReason, Proto};
use unicode_width::UnicodeWidthStr;

use crate::phrase::{self, ListGroup};
use crate::report::firewall::Loaded;
use crate::report::list::{Bind, ListReport, ListenerRow};
use crate::report::unknown::UnknownThing;
use crate::rule_phrase;
use crate::text::line::wrap;
use crate::text::line::{DIM, Line, Look, PLAIN, STRONG, UNKNOWN, WIDE, print, printable, shorten};

/// The widest name of a program that is shown whole.
const PROGRAM_WIDTH_MAX: usize = 24;
/// The widest name of a user that is shown whole.
const USER_WIDTH_MAX: usize = 12;

/// The list for a terminal.
#[must_use]
pub fn list(report: &ListReport, look: Look) -> String {
    let mut lines = Vec::new();
    if let Some(netns) = &report.netns {
        lines.push(Line::new().add(STRONG, &format!("Network namespace {}", printable(netns))));
        lines.push(Line::new());
    }
    let groups = grouped(report);
    let only_here = groups.iter().all(|(group, _)| {
        matches!(group, ListGroup::Itself | ListGroup::Firewalled | ListGroup::Blocked)
    });
    if !report.rows.is_empty() && only_here {
        let count = report.rows.len();
        let servers = if count == 1 { "1 server".to_owned() } else { format!("{count} servers") };
        lines.push(Line::new().add(
            STRONG,
            &format!("Nobody but this computer can connect to anything here ({servers})."),
        ));
    }
    lines.extend(top(report, look));
    if report.rows.is_empty() {
        lines.push(Line::new());
        lines.push(Line::plain("No server is running here: nothing listens on any port."));
        return print(&lines, look);
    }
    let widths = Widths::of(&report.rows);
    for (group, rows) in &groups {
        lines.push(Line::new());
        lines.push(Line::new().add(STRONG, phrase::heading(*group)));
        for row in rows {
            lines.push(row_line(*group, row, &widths, look));
        }
    }
    lines.extend(bottom(report, &groups));
    print(&lines, look)
}

/// The list for a pipe: reach, port, address, program, pid and user, one line per socket.
#[must_use]
pub fn piped(reports: &[ListReport]) -> String {
    let several = reports.len() > 1;
    let mut cells: Vec<Vec<String>> = Vec::new();
    for report in reports {
        for row in &report.rows {
            for bind in &row.binds {
                let mut line = vec![
                    row.reach.slug().to_owned(),
                    format!("{}/{}", row.port, row.proto.name()),
                    bind_address(bind),
                    row.program.name.as_deref().map_or_else(|| "?".to_owned(), one_word),
                    row.program.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
                    row.program
                        .user
                        .as_deref()
                        .map_or_else(|| row.program.uid.to_string(), one_word),
                ];
                if several {
                    line.push(one_word(report.netns.as_deref().unwrap_or("own")));
                }
                cells.push(line);
            }
        }
    }
    let columns = cells.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| cells.iter().map(|line| line[column].width()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in &cells {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(cell);
            text.push_str(&" ".repeat(width - cell.width() + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// What belongs on stderr: what the answer could not take into account.
#[must_use]
pub fn notes(report: &ListReport, command: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let in_doubt = report.rows.iter().any(|row| row.reach == Reach::Unknown);
    let hint = report.firewall.hint.as_ref().map(|hint| format!("{}. ", phrase::hint(hint)));
    let hint = hint.unwrap_or_default();
    let owner_hidden = report
        .rows
        .iter()
        .any(|row| row.program.pid.is_none() && row.program.reason == Some(OwnerReason::NeedsRoot));
    match report.firewall.loaded {
        Loaded::NeedsRoot if in_doubt => notes.push(format!(
            "firewall rules need root to read, so \"can connect\" is judged without them. \
             {hint}For the full answer: sudo {command}"
        )),
        Loaded::Unjudged if in_doubt => notes.push(format!(
            "firewall rules are loaded, and canreach does not judge them yet: what is called \
             open may be closed. {hint}See the rules: sudo nft list ruleset"
        )),
        Loaded::Unread if in_doubt => notes.push(format!(
            "firewall rules could not be read, so \"can connect\" is judged without them. {hint}"
        )),
        Loaded::NeedsRoot | Loaded::Unjudged | Loaded::Rules | Loaded::Unread | Loaded::Nothing => {
        }
    }
    let other_doubt = report.rows.iter().any(|row| {
        row.reach == Reach::Unknown
            && !matches!(row.doubt, Some(UnknownReason::NeedsRoot))
            && (report.firewall.loaded == Loaded::Rules
                || row.doubt != Some(UnknownReason::NotModelled))
    });
    if other_doubt || (in_doubt && report.firewall.loaded == Loaded::Nothing) {
        notes.extend(not_known(report));
    }
    if owner_hidden && report.firewall.loaded != Loaded::NeedsRoot {
        notes.push(format!("some programs are shown to root only: sudo {command}"));
    }
    match &report.netns {
        Some(name) => {
            let name = printable(name);
            notes.iter().map(|note| format!("in network namespace {name}: {note}")).collect()
        }
        None => notes,
    }
}

/// A note for each thing that is not known; sysctls, of which all may be missing, in one.
fn not_known(report: &ListReport) -> Vec<String> {
    let things = report.unknown.iter().filter(|thing| thing.what != "firewall");
    let mut notes = Vec::new();
    let mut sysctls: BTreeMap<&str, Vec<&UnknownThing>> = BTreeMap::new();
    let note =
        |thing: &UnknownThing| format!("not known: {} ({})", printable(&thing.what), thing.reason);
    for thing in things {
        if thing.what.starts_with("sysctl ") {
            sysctls.entry(thing.reason).or_default().push(thing);
        } else {
            notes.push(note(thing));
        }
    }
    for (reason, things) in sysctls {
        notes.push(match things.as_slice() {
            [one] => note(one),
            several => format!("not known: {} sysctls ({reason})", several.len()),
        });
    }
    notes
}

/// The group a row is shown in.
#[must_use]
pub fn group_of(row: &ListenerRow, firewall: Loaded) -> ListGroup {
    match (row.reach, row.apart_from_doubts) {
        (Reach::Internet, _) if row.has_public_way() => ListGroup::Internet,
        (Reach::Internet | Reach::Network, _) if row.is_vpn_only() => ListGroup::Vpn,
        (Reach::Internet | Reach::Network, _) => ListGroup::Network,
        (Reach::Containers, _) => ListGroup::Containers,
        (Reach::Itself, _) => ListGroup::Itself,
        (Reach::Blocked, _)
            if matches!(row.stop, Some(DropReason::FwDrop | DropReason::FwReject)) =>
        {
            ListGroup::Firewalled
        }
        (Reach::Blocked, _) => ListGroup::Blocked,
        (Reach::Unknown, Reach::Internet | Reach::Network | Reach::Unknown) => {
            if firewall == Loaded::Nothing {
                ListGroup::NetworkPerhaps
            } else {
                ListGroup::NetworkUnlessFirewall
            }
        }
        (Reach::Unknown, Reach::Containers) => ListGroup::ContainersPerhaps,
        (Reach::Unknown, Reach::Itself | Reach::Blocked) => ListGroup::ItselfPerhaps,
    }
}

fn grouped(report: &ListReport) -> Vec<(ListGroup, Vec<&ListenerRow>)> {
    let mut groups: BTreeMap<ListGroup, Vec<&ListenerRow>> = BTreeMap::new();
    for row in &report.rows {
        groups.entry(group_of(row, report.firewall.loaded)).or_default().push(row);
    }
    groups.into_iter().collect()
}

/// The address to hand out, and the firewall.
fn top(report: &ListReport, look: Look) -> Vec<Line> {
    /// Between the address and the firewall: at least, and at most.
    const GAP: (usize, usize) = (2, 6);
    let address = match &report.best {
        Some(best) => Line::plain("Your address is ")
            .add(STRONG, &best.address.to_string())
            .add(PLAIN, &format!("  ({})", link_words(&best.link, best.ssid.as_deref()))),
        None => Line::plain("This computer has no address on a network."),
    };
    let firewall = phrase::firewall(&report.firewall);
    let room = look.columns().saturating_sub(address.width() + firewall.width());
    let mut lines = if room >= GAP.0 {
        let column = address.width() + room.min(GAP.1);
        vec![address.pad_to(column).add(PLAIN, &printable(&firewall))]
    } else {
        vec![address, Line::plain(&printable(&firewall))]
    };
    let inside = report.inside.and_then(phrase::inside).unwrap_or_default();
    if !inside.is_empty() {
        lines.extend(wrap(inside, look.columns()).iter().map(|text| Line::plain(text)));
    }
    lines
}

/// `wlan0, Wi-Fi "home"`.
pub(crate) fn link_words(link: &str, ssid: Option<&str>) -> String {
    match ssid {
        Some(ssid) => format!("{}, Wi-Fi \"{}\"", printable(link), printable(ssid)),
        None => printable(link),
    }
}

struct Widths {
    port: usize,
    program: usize,
    user: usize,
}

impl Widths {
    fn of(rows: &[ListenerRow]) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = String>, limit: usize| {
            texts.map(|text| text.width()).max().unwrap_or(0).min(limit)
        };
        Self {
            port: widest(&mut rows.iter().map(port_cell), 9).max(4),
            program: widest(
                &mut rows.iter().map(|row| printable(&row.program.shown_name())),
                PROGRAM_WIDTH_MAX,
            ),
            user: widest(
                &mut rows.iter().map(|row| printable(&row.program.shown_user())),
                USER_WIDTH_MAX,
            ),
        }
    }
}

fn port_cell(row: &ListenerRow) -> String {
    phrase::port_argument(row.proto, row.port)
}

fn row_line(group: ListGroup, row: &ListenerRow, widths: &Widths, look: Look) -> Line {
    let style = match group {
        ListGroup::Internet => WIDE,
        ListGroup::Itself | ListGroup::Firewalled | ListGroup::Blocked => DIM,
        ListGroup::NetworkUnlessFirewall
        | ListGroup::NetworkPerhaps
        | ListGroup::ContainersPerhaps
        | ListGroup::ItselfPerhaps => UNKNOWN,
        ListGroup::Network | ListGroup::Vpn | ListGroup::Containers => PLAIN,
    };
    let port = port_cell(row);
    let indent = " ".repeat(2 + widths.port.saturating_sub(port.width()));
    let program_at = 2 + widths.port + 2;
    let user_at = program_at + widths.program + 2;
    let detail_at = user_at + widths.user + 3;
    let line = Line::plain(&indent)
        .add(style, &port)
        .pad_to(program_at)
        .add(style, &shorten(&printable(&row.program.shown_name()), widths.program))
        .pad_to(user_at)
        .add(style, &shorten(&printable(&row.program.shown_user()), widths.user))
        .pad_to(detail_at);
    let columns = look.columns();
    let detail = detail(group, row);
    let mark = if group == ListGroup::Internet { "  (!)" } else { "" };
    let room = columns.saturating_sub(line.width() + mark.len());
    let line = line.add(style, &shorten(&detail, room));
    let room = columns.saturating_sub(line.width() + mark.len() + 3);
    /// A directory shortened further than this says nothing.
    const DIRECTORY_WIDTH_MIN: usize = 6;
    let directory = row.program.shown_directory().map(|directory| printable(&directory));
    let line = match directory {
        Some(directory) if room >= DIRECTORY_WIDTH_MIN.min(directory.width()) => {
            line.add(PLAIN, "   ").add(DIM, &shorten(&directory, room))
        }
        _ => line,
    };
    line.add(style, mark)
}

/// Where it listens, and what is to be said about that.
fn detail(group: ListGroup, row: &ListenerRow) -> String {
    let mut text = printable(&binds(&row.binds));
    match group {
        ListGroup::Itself | ListGroup::ItselfPerhaps => text.push_str(" only"),
        ListGroup::Firewalled | ListGroup::Blocked => {
            if let Some(stop) = row.stop {
                text.push_str(", but ");
                text.push_str(&rule_phrase::stop_in_list(stop, row.stopped_by));
            }
        }
        ListGroup::Network | ListGroup::Internet if row.is_routed_only() => {
            text.push_str(", for who routes it here");
        }
        ListGroup::Internet
        | ListGroup::Network
        | ListGroup::Vpn
        | ListGroup::NetworkUnlessFirewall
        | ListGroup::NetworkPerhaps
        | ListGroup::Containers
        | ListGroup::ContainersPerhaps => {}
    }
    if row.program.pid.is_none()
        && let Some(reason) = row.program.reason.and_then(phrase::owner_in_list)
    {
        text.push_str("; ");
        text.push_str(reason);
    }
    text
}

/// Where a program listens, in words: `all addresses`, `127.0.0.1 and ::1`.
#[must_use]
pub fn binds(binds: &[Bind]) -> String {
    let wildcard = |v4: bool| {
        binds.iter().any(|bind| {
            bind.device.is_none() && bind.address.is_unspecified() && bind.address.is_ipv4() == v4
        })
    };
    let dual = binds.iter().any(|bind| {
        bind.device.is_none()
            && bind.address.is_unspecified()
            && bind.address.is_ipv6()
            && bind.v6only == Some(false)
    });
    match (wildcard(true) || dual, wildcard(false)) {
        (true, true) => return "all addresses".to_owned(),
        (true, false) => return "all IPv4 addresses".to_owned(),
        (false, true) if binds.iter().any(|bind| bind.v6only == Some(true)) => {
            return "all IPv6 addresses".to_owned();
        }
        (false, true) => return "all addresses".to_owned(),
        (false, false) => {}
    }
    /// More addresses than this are counted.
    const SHOWN_MAX: usize = 3;
    let mut sorted: Vec<&Bind> = binds.iter().collect();
    sorted.sort();
    let mut shown: Vec<String> = sorted
        .iter()
        .take(SHOWN_MAX)
        .map(|bind| match (&bind.device, bind.address.is_unspecified()) {
            (Some(device), true) => format!("all addresses, on {device}"),
            (Some(device), false) => format!("{} on {device}", bind.address),
            (None, _) => bind.address.to_string(),
        })
        .collect();
    shown.dedup();
    if sorted.len() > SHOWN_MAX {
        return format!("{} and {} more", shown.join(", "), sorted.len() - SHOWN_MAX);
    }
    match shown.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => shown.join(", "),
    }
}

fn bottom(report: &ListReport, groups: &[(ListGroup, Vec<&ListenerRow>)]) -> Vec<Line> {
    let mut lines = Vec::new();
    let from_outside = report.rows.iter().any(|row| {
        row.reach == Reach::Internet && group_of(row, report.firewall.loaded) == ListGroup::Network
    });
    if from_outside {
        lines.push(Line::new());
        lines.push(Line::plain(
            "From the internet: only what your router lets in (canreach explain nat).",
        ));
    }
    // The row a newcomer asks about: their own server that others cannot reach.
    let narrow = |group: &ListGroup| {
        matches!(
            group,
            ListGroup::Itself
                | ListGroup::ItselfPerhaps
                | ListGroup::Firewalled
                | ListGroup::Blocked
        )
    };
    let candidates = || {
        groups
            .iter()
            .filter(|(group, _)| narrow(group))
            .flat_map(|(_, rows)| rows.iter())
            .filter(|row| row.proto == Proto::Tcp)
    };
    let closed = candidates().find(|row| row.program.uid != 0).or_else(|| candidates().next());
    let (row, purpose) = match (closed, groups.first().and_then(|(_, rows)| rows.first())) {
        (Some(row), _) => (row, "what to change so that others can connect"),
        (None, Some(first)) => (first, "how they get there, step by step"),
        (None, None) => return lines,
    };
    let netns = report.netns.as_deref().map(|name| format!(" --netns {}", printable(name)));
    let command = format!("canreach why {}{}", port_cell(row), netns.unwrap_or_default());
    lines.push(Line::new());
    lines
        .push(Line::plain("Next: ").add(STRONG, &command).add(PLAIN, "      ").add(PLAIN, purpose));
    lines
}

fn bind_address(bind: &Bind) -> String {
    match &bind.device {
        Some(device) => format!("{}%{}", bind.address, one_word(device)),
        None => bind.address.to_string(),
    }
}

/// A text as one word, for columns that programs split at spaces.
fn one_word(text: &str) -> String {
    printable(text).replace(' ', "_")
}
