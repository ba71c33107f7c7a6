//! The mock-ups, as snapshots: text at 80 columns from saved machines, with and without colour.
//!
//! What is printed for `list`, `ip` and `why` is compared whole, so that a changed word is seen.

use canreach_engine::address_choice::choose;
use canreach_engine::ask::{Ask, AskError};
use canreach_engine::{Answer, Host, answer};
use canreach_report::text::Look;
use canreach_report::text::line::WIDTH_MAX;
use canreach_report::{IpReport, ListReport, WhyReport, text};
use canreach_snapshot::{Netns, Port, Proto, Snapshot};

const PLAIN: Look = Look { width: WIDTH_MAX, color: false };
const COLORED: Look = Look { width: WIDTH_MAX, color: true };

fn machine(name: &str) -> Snapshot {
    let path = format!("{}/../../fixtures/snapshots/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Snapshot::from_bytes(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn subject(snapshot: &Snapshot) -> &Netns {
    snapshot.subject().expect("every saved machine has a namespace")
}

fn list(name: &str, look: Look) -> String {
    let snapshot = machine(name);
    let report = ListReport::new(&snapshot, subject(&snapshot), false, "canreach");
    let notes: String = text::list::notes(&report, "canreach")
        .iter()
        .map(|note| format!("(stderr) {note}\n"))
        .collect();
    text::list::list(&report, look) + &notes
}

fn ip(name: &str, look: Look) -> String {
    let snapshot = machine(name);
    text::ip::ip(&IpReport::new(&snapshot, subject(&snapshot)), look)
}

/// A `why`, as typed: the port, then options.
fn why(name: &str, typed: &str, look: Look) -> String {
    let snapshot = machine(name);
    let netns = subject(&snapshot);
    let mut words = typed.split_whitespace();
    let (port, proto) = match words.next().expect("a port").split_once('/') {
        Some((port, "udp")) => (port.to_owned(), Proto::Udp),
        Some((port, _)) => (port.to_owned(), Proto::Tcp),
        None => (typed.split_whitespace().next().expect("a port").to_owned(), Proto::Tcp),
    };
    let port = Port(port.parse().expect("a number"));
    let mut ask = Ask { proto, port, from: None, to: None, via: None, uid: 1000 };
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        match option {
            "--from" => ask.from = Some(value.parse().expect("who")),
            "--to" => ask.to = Some(value.parse().expect("an address")),
            "--via" => ask.via = Some(value.to_owned()),
            other => panic!("{other} is no option of why"),
        }
    }
    let questions = match ask.questions(netns, &choose(netns, &snapshot.machine)) {
        Err(AskError::NoLanAddress) => Vec::new(),
        questions => questions.expect("a question"),
    };
    let host = Host::resolve(netns);
    let answers: Vec<Answer> = questions.iter().map(|question| answer(&host, question)).collect();
    let command = format!("canreach why {typed}");
    let report = WhyReport::new(&snapshot, netns, &ask, &answers, &command);
    let text = text::why::why(&report, &command, look);
    format!("$ {command}\n{text}")
}

/// Every line fits, and a whole answer fits on a screen.
fn check_size(what: &str, text: &str) {
    for line in text.lines().filter(|line| !line.starts_with("(stderr)")) {
        assert!(unicode_width::UnicodeWidthStr::width(line) <= WIDTH_MAX, "{what}: {line}");
    }
    assert!(text.lines().count() <= 24, "{what}: more than a screen\n{text}");
}

const MACHINES: [&str; 8] = [
    "laptop",
    "laptop-as-user",
    "laptop-firewall",
    "offline",
    "server",
    "container",
    "vpn",
    "nothing-listening",
];

#[test]
fn lists() {
    for name in MACHINES {
        let text = list(name, PLAIN);
        check_size(name, &text);
        insta::assert_snapshot!(format!("list-{name}"), text);
    }
    insta::assert_snapshot!("list-laptop-in-colour", list("laptop", COLORED));
    insta::assert_snapshot!("list-laptop-as-user-in-colour", list("laptop-as-user", COLORED));
}

/// Rules as the real ufw wrote them.
#[test]
fn firewalls() {
    insta::assert_snapshot!("list-ufw", list("ufw", PLAIN));
    for typed in ["5173", "22", "3000", "2222", "8443", "5173 --from 192.168.1.50"] {
        let text = why("ufw", typed, PLAIN);
        check_size(typed, &text);
        insta::assert_snapshot!(
            format!("why-ufw-{}", typed.replace([' ', '/'], "-").replace("--", "")),
            text
        );
    }
}

#[test]
fn lists_for_a_pipe() {
    let lines = |name| {
        let snapshot = machine(name);
        let report = ListReport::new(&snapshot, subject(&snapshot), false, "canreach");
        text::list::piped(&[report])
    };
    insta::assert_snapshot!("piped-laptop", lines("laptop"));
    insta::assert_snapshot!("piped-server", lines("server"));
    assert_eq!(lines("nothing-listening"), "");
}

#[test]
fn addresses() {
    for name in MACHINES {
        let text = ip(name, PLAIN);
        check_size(name, &text);
        insta::assert_snapshot!(format!("ip-{name}"), text);
    }
    insta::assert_snapshot!("ip-laptop-in-colour", ip("laptop", COLORED));
}

#[test]
fn addresses_for_a_pipe() {
    let line = |name| {
        let snapshot = machine(name);
        text::ip::piped(&IpReport::new(&snapshot, subject(&snapshot)))
    };
    assert_eq!(line("laptop"), "192.168.1.20\n");
    assert_eq!(line("vpn"), "192.168.7.40\n");
    assert_eq!(line("container"), "172.17.0.2\n");
    assert_eq!(line("server"), "203.0.113.10\n");
    assert_eq!(line("offline"), "");
}

#[test]
fn every_interface() {
    for name in ["laptop", "vpn", "offline"] {
        let snapshot = machine(name);
        let report = IpReport::new(&snapshot, subject(&snapshot));
        insta::assert_snapshot!(format!("links-{name}"), text::ip::links(&report, PLAIN));
    }
}

#[test]
fn answers() {
    for (name, typed) in [
        ("laptop", "3000"),
        ("laptop", "5173"),
        ("laptop", "22"),
        ("laptop", "631"),
        ("laptop", "4000"),
        ("laptop", "5353/udp"),
        ("laptop", "3000 --from self"),
        ("laptop", "3000 --from self --to 127.0.0.1"),
        ("laptop", "5173 --from 192.168.1.50"),
        ("laptop", "5173 --from 198.51.100.7"),
        ("laptop", "22 --from any"),
        ("laptop", "22 --to 127.0.0.1"),
        ("laptop", "22 --to 192.168.1.99"),
        ("laptop", "22 --to 172.17.0.1 --via docker0"),
        ("laptop-as-user", "22"),
        ("laptop-as-user", "3000"),
        ("laptop-firewall", "5173"),
        ("laptop-firewall", "3000"),
        ("offline", "22"),
        ("server", "80"),
        ("server", "5432"),
        ("server", "5432 --from 10.0.0.7"),
        ("server", "2049"),
        ("container", "8000"),
        ("vpn", "8888"),
        ("vpn", "9000"),
        ("vpn", "8888 --from 198.51.100.7 --via enp3s0"),
        ("nothing-listening", "3000"),
    ] {
        let text = why(name, typed, PLAIN);
        check_size(typed, &text);
        let slug = typed.replace(['/', ' ', ':'], "-").replace("---", "-");
        insta::assert_snapshot!(format!("why-{name}-{slug}"), text);
    }
    insta::assert_snapshot!("why-laptop-3000-in-colour", why("laptop", "3000", COLORED));
    insta::assert_snapshot!(
        "why-laptop-as-user-22-in-colour",
        why("laptop-as-user", "22", COLORED)
    );
}

/// Colour adds escape sequences and nothing else.
#[test]
fn no_information_by_colour_alone() {
    let stripped = |text: &str| {
        let mut plain = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('\x1b') {
            plain.push_str(&rest[..start]);
            let end = rest[start..].find('m').expect("every sequence sets a style");
            rest = &rest[start + end + 1..];
        }
        plain + rest
    };
    for name in MACHINES {
        assert_eq!(stripped(&list(name, COLORED)), list(name, PLAIN));
        assert_eq!(stripped(&ip(name, COLORED)), ip(name, PLAIN));
        assert_eq!(stripped(&why(name, "22", COLORED)), why(name, "22", PLAIN));
    }
}

/// What a program calls itself must not steer the terminal.
#[test]
fn hostile_names_are_escaped() {
    let mut snapshot = machine("laptop");
    for process in &mut snapshot.processes {
        process.cmdline = vec!["\x1b]0;pwned\x07\u{202e}evil\n name".to_owned()];
        process.cwd = Some("/tmp/\x1b[2J".to_owned());
        process.user = Some("\x07".to_owned());
    }
    let netns = subject(&snapshot);
    let report = ListReport::new(&snapshot, netns, true, "canreach");
    let texts = [text::list::list(&report, PLAIN), text::list::piped(&[report])];
    for text in texts {
        let steers = |character: char| {
            (character.is_control() && character != '\n') || character == '\u{202e}'
        };
        assert!(!text.contains(steers), "{text:?}");
    }
}
