//! The pages of `explain`: one for each code that can be printed, and one for each idea behind them.
//!
//! A page is a small text file under `topics/`:
//!
//! ```text
//! # bind-loopback: the server listens to its own computer only
//! kind: stop
//! also: loopback bind, localhost only
//! see: loopback, bind
//!
//! Paragraphs, `- ` list items, and lines indented by four, which are kept as they are.
//!
//! > An example from this machine, with {placeholders}.
//! > A second one, tried when a placeholder of the first has no value.
//!   Its second line.
//! ```
//!
//! Examples are tried in order; the last has no placeholder, so that each page has one everywhere.
//! Left out: markup. A page is read in a terminal.

use std::sync::OnceLock;

use canreach_snapshot::Prefix;

use crate::topic_fact::Facts;

/// The width pages are set for.
pub const WIDTH: usize = 80;

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The code or term it explains.
    pub word: &'static str,
    /// What it is, in half a line.
    pub title: &'static str,
    /// Which list it belongs to.
    pub kind: TopicKind,
    /// Other words that lead here.
    pub also: Vec<&'static str>,
    /// Words of related pages.
    pub see: Vec<&'static str>,
    body: Vec<Block>,
    examples: Vec<String>,
}

/// The lists of `canreach explain` without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicKind {
    /// An idea: what an interface is, what 0.0.0.0 means.
    Idea,
    /// Why a packet is stopped.
    Stop,
    /// What the other person sees.
    TheySee,
    /// Who can reach a server.
    Reach,
    /// Why an answer cannot be told.
    Unknown,
    /// Why the program behind a socket is not known.
    Owner,
    /// What cannot be checked from this computer.
    NotChecked,
}

impl TopicKind {
    /// Every one, in the order they are listed.
    pub const ALL: [Self; 7] = [
        Self::Idea,
        Self::Stop,
        Self::TheySee,
        Self::Reach,
        Self::Unknown,
        Self::Owner,
        Self::NotChecked,
    ];

    /// The heading of the list.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Idea => "Ideas",
            Self::Stop => "Why they cannot connect",
            Self::TheySee => "What they see",
            Self::Reach => "Who can connect",
            Self::Unknown => "Why canreach can't tell",
            Self::Owner => "Why a program is not named",
            Self::NotChecked => "What cannot be checked from here",
        }
    }

    fn read(word: &str) -> Option<Self> {
        Some(match word {
            "idea" => Self::Idea,
            "stop" => Self::Stop,
            "they-see" => Self::TheySee,
            "reach" => Self::Reach,
            "unknown" => Self::Unknown,
            "owner" => Self::Owner,
            "not-checked" => Self::NotChecked,
            _ => return None,
        })
    }
}

/// A part of a page's body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    /// Set to the width.
    Paragraph(String),
    /// Set to the width behind `- `.
    Item(String),
    /// Kept line by line.
    Verbatim(Vec<&'static str>),
}

/// What a line of a page is, by how it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Plain,
    Item,
    Example,
    Verbatim,
    /// Belongs to the item or example above.
    Continued,
}

impl LineKind {
    fn of(line: &str) -> Self {
        match line {
            _ if line.starts_with("- ") => Self::Item,
            _ if line.starts_with("> ") => Self::Example,
            _ if line.starts_with("    ") => Self::Verbatim,
            _ if line.starts_with("  ") => Self::Continued,
            _ => Self::Plain,
        }
    }

    /// Each such line starts a block of its own.
    const fn is_alone(self) -> bool {
        matches!(self, Self::Item | Self::Example)
    }
}

macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../topics/", $name, ".md")))),*]
    };
}

/// The files, by name without ending, in the order they are listed within their kind.
const PAGES: &[(&str, &str)] = pages![
    "interface",
    "loopback",
    "localhost",
    "127.0.0.1",
    "0.0.0.0",
    "unspecified-ipv6",
    "ipv6-loopback",
    "lan-address",
    "lan",
    "address-choice",
    "private-address",
    "public-address",
    "shared-address",
    "mapped-address",
    "link-local",
    "temporary-address",
    "prefix",
    "bind",
    "port",
    "socket-lookup",
    "tcp",
    "udp",
    "dual-stack",
    "ipv6",
    "firewall",
    "nat",
    "docker-bypass",
    "host-check",
    "default-route",
    "route",
    "policy-rule",
    "local-route",
    "weak-host",
    "vpn",
    "bridge",
    "veth",
    "vlan",
    "macvlan",
    "bond",
    "vrf",
    "netns",
    "arp",
    "broadcast",
    "multicast",
    "reuseport",
    "virtual-machine",
    "path",
    "verdict",
    "sources",
    "policy",
    "resolved-by",
    "link-down",
    "neighbor-silent",
    "tentative",
    "ipv6-disabled",
    "martian",
    "own-source",
    "rp-filter",
    "not-local",
    "no-route",
    "route-unreachable",
    "route-prohibit",
    "route-blackhole",
    "forwarded",
    "broadcast-destination",
    "anycast-destination",
    "multicast-destination",
    "not-listening",
    "bind-loopback",
    "bind-address",
    "bind-device",
    "v6only",
    "connected-elsewhere",
    "vrf-unbound",
    "backlog-full",
    "no-reply-route",
    "reply-source-not-local",
    "vpn-reply",
    "fw-drop",
    "fw-reject",
    "nat-failed",
    "wrong-address",
    "no-lan-address",
    "connected",
    "refused",
    "timeout",
    "host-unreachable",
    "network-unreachable",
    "permission-denied",
    "protocol-unavailable",
    "invalid-argument",
    "address-not-available",
    "operation-not-permitted",
    "delivered",
    "silence",
    "self",
    "containers",
    "reach-network",
    "reach-internet",
    "blocked",
    "unknown",
    "needs-root",
    "not-modelled",
    "opaque-program",
    "changed-while-reading",
    "unread",
    "fib-layout",
    "fib-history",
    "reply-elsewhere",
    "reply-address",
    "multipath",
    "multicast-membership",
    "limit-reached",
    "rate-limit",
    "earlier-packets",
    "random-choice",
    "time-of-day",
    "packet-details",
    "user-space",
    "other-namespace",
    "hook-order",
    "needs-ptrace",
    "other-pid-namespace",
    "kernel",
    "hidepid",
    "socket-activated",
    "no-process",
    "not-looked-at",
    "ap-isolation",
    "their-firewall",
    "router",
    "cloud-firewall",
];

/// Every page, in the order they are listed.
#[must_use]
pub fn all() -> &'static [Topic] {
    static ALL: OnceLock<Vec<Topic>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut topics: Vec<Topic> =
            PAGES.iter().filter_map(|(_, text)| Topic::read(text)).collect();
        topics.sort_by_key(|topic| topic.kind);
        topics
    })
}

/// The page for a code, a term or an address.
#[must_use]
pub fn find(word: &str) -> Option<&'static Topic> {
    let wanted = normal(word);
    named(&wanted).or_else(|| named(address_word(&wanted)?)).or_else(|| {
        let is_port = wanted.parse::<u16>().is_ok_and(|port| port > 0);
        is_port.then(|| named("port")).flatten()
    })
}

fn named(wanted: &str) -> Option<&'static Topic> {
    let topics = all();
    topics.iter().find(|topic| normal(topic.word) == wanted).or_else(|| {
        topics.iter().find(|topic| topic.also.iter().any(|also| normal(also) == wanted))
    })
}

/// Words like this one, the likeliest first: for a word that has no page.
#[must_use]
pub fn suggest(word: &str) -> Vec<&'static str> {
    const MOST: usize = 4;
    let wanted = normal(word);
    let tolerance = (wanted.chars().count() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &'static str)> = all()
        .iter()
        .filter_map(|topic| {
            let names = std::iter::once(topic.word).chain(topic.also.iter().copied());
            let near =
                names.filter_map(|name| likeness(&wanted, &normal(name), tolerance)).min()?;
            Some((near, topic.word))
        })
        .collect();
    found.sort_by_key(|(distance, _)| *distance);
    found.into_iter().take(MOST).map(|(_, word)| word).collect()
}

/// How far two words are apart; `None` if too far. A word that holds the other is near.
fn likeness(wanted: &str, name: &str, tolerance: usize) -> Option<usize> {
    const LEAST_PART: usize = 3;
    let distance = edit_distance(wanted, name);
    if distance <= tolerance {
        return Some(distance);
    }
    (wanted.len() >= LEAST_PART && name.contains(wanted)).then_some(tolerance + 1)
}

/// Letters to insert, delete or replace to get from one word to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// Lower case, words joined by hyphens, without the brackets that codes are printed in.
fn normal(word: &str) -> String {
    let bare = word.trim();
    let bare = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
    bare.to_lowercase()
        .split([' ', '_'])
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// The page for an address or a prefix, by what kind of address it is.
fn address_word(text: &str) -> Option<&'static str> {
    let without_zone = text.split_once('%').map_or(text, |(address, _)| address);
    let prefix: Prefix = without_zone.parse().ok()?;
    // The first that holds it decides: the table goes from narrow to wide.
    const RANGES: &[(&str, &str)] = &[
        ("0.0.0.0/8", "0.0.0.0"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("169.254.0.0/16", "link-local"),
        ("10.0.0.0/8", "private-address"),
        ("172.16.0.0/12", "private-address"),
        ("192.168.0.0/16", "private-address"),
        ("100.64.0.0/10", "shared-address"),
        ("255.255.255.255/32", "broadcast"),
        ("224.0.0.0/4", "multicast"),
        ("0.0.0.0/0", "public-address"),
        ("::/128", "::"),
        ("::1/128", "::1"),
        ("::ffff:0.0.0.0/96", "mapped-address"),
        ("fe80::/10", "link-local"),
        ("fc00::/7", "private-address"),
        ("ff00::/8", "multicast"),
        ("::/0", "public-address"),
    ];
    RANGES.iter().find_map(|(range, word)| {
        let range: Prefix = range.parse().ok()?;
        range.covers(prefix).then_some(*word)
    })
}

impl Topic {
    /// Reads a page; `None` if its head is malformed, which a test rules out for ours.
    fn read(text: &'static str) -> Option<Self> {
        let (head, rest) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        let (word, title) = lines.next()?.strip_prefix("# ")?.split_once(": ")?;
        let mut topic = Self {
            word,
            title,
            kind: TopicKind::Idea,
            also: Vec::new(),
            see: Vec::new(),
            body: Vec::new(),
            examples: Vec::new(),
        };
        for line in lines {
            let (key, value) = line.split_once(": ")?;
            match key {
                "kind" => topic.kind = TopicKind::read(value)?,
                "also" => topic.also = value.split(", ").collect(),
                "see" => topic.see = value.split(", ").collect(),
                _ => return None,
            }
        }
        for part in rest.split("\n\n") {
            topic.read_part(part);
        }
        Some(topic)
    }

    /// Reads what stands between two empty lines: a paragraph, items and kept lines may follow each
    /// other without one.
    fn read_part(&mut self, part: &'static str) {
        let lines: Vec<&'static str> = part.lines().filter(|line| !line.is_empty()).collect();
        let starts_block = |before: &&str, line: &&str| {
            LineKind::of(line) != LineKind::Continued
                && (LineKind::of(line) != LineKind::of(before) || LineKind::of(line).is_alone())
        };
        for block in lines.chunk_by(|before, line| !starts_block(before, line)) {
            let joined = || {
                let bare = block.iter().map(|line| line.trim_start_matches(['>', '-', ' ']));
                bare.map(str::trim_end).collect::<Vec<_>>().join(" ")
            };
            match block.first().map_or(LineKind::Plain, |line| LineKind::of(line)) {
                LineKind::Example => self.examples.push(joined()),
                LineKind::Item => self.body.push(Block::Item(joined())),
                LineKind::Verbatim => self.body.push(Block::Verbatim(block.to_vec())),
                LineKind::Plain | LineKind::Continued => {
                    self.body.push(Block::Paragraph(block.join(" ")));
                }
            }
        }
    }

    /// The page as text of at most [`WIDTH`] columns, with its example filled in from a machine.
    #[must_use]
    pub fn render(&self, facts: &Facts) -> String {
        let mut text = String::new();
        set(&mut text, &format!("{}: {}", self.word, self.title), "", "");
        let mut after_item = false;
        for block in &self.body {
            let is_item = matches!(block, Block::Item(_));
            if !(is_item && after_item) {
                text.push('\n');
            }
            match block {
                Block::Paragraph(words) => set(&mut text, words, "", ""),
                Block::Item(words) => set(&mut text, words, "- ", "  "),
                Block::Verbatim(lines) => {
                    for line in lines {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
            }
            after_item = is_item;
        }
        if let Some(example) = self.example(facts) {
            text.push('\n');
            set(&mut text, &example, "", "");
        }
        if !self.see.is_empty() {
            text.push('\n');
            set(&mut text, &format!("See also: {}", self.see.join(", ")), "", "          ");
        }
        text
    }

    /// The first example whose placeholders all have a value, with who it is about.
    fn example(&self, facts: &Facts) -> Option<String> {
        self.examples.iter().find_map(|example| {
            let filled = fill(example, facts)?;
            let about = if filled == *example { "For example" } else { "On this computer" };
            Some(format!("{about}: {filled}"))
        })
    }
}

/// Replaces each `{name}`; `None` if one has no value.
fn fill(example: &str, facts: &Facts) -> Option<String> {
    let mut filled = String::new();
    let mut rest = example;
    while let Some((before, from_name)) = rest.split_once('{') {
        let (name, after) = from_name.split_once('}')?;
        filled.push_str(before);
        filled.push_str(facts.value(name)?);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

/// Appends words, broken into lines of at most [`WIDTH`] columns. A longer word gets its own line.
fn set(text: &mut String, words: &str, first_indent: &str, indent: &str) {
    use unicode_width::UnicodeWidthStr;

    text.push_str(first_indent);
    let mut column = first_indent.width();
    let mut fresh = true;
    for word in words.split_whitespace() {
        let width = word.width();
        if !fresh && column + 1 + width > WIDTH {
            text.push('\n');
            text.push_str(indent);
            column = indent.width();
            fresh = true;
        }
        if !fresh {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
        fresh = false;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use canreach_engine::address_choice::ChoiceReason;
    use canreach_engine::audience::Reach;
    use canreach_engine::{DropReason, Stage, TheySee, UnknownReason, Verdict};
    use canreach_snapshot::{OwnerReason, ResolvedBy};

    use super::*;
    use crate::topic_fact::NAMES;

    /// The word a serialised enum is printed as.
    fn printed(value: &impl serde::Serialize) -> String {
        let text = serde_json::to_string(value).expect("a unit variant is a string");
        text.trim_matches('"').to_owned()
    }

    /// Every code the program can print, by where it comes from.
    fn codes() -> Vec<String> {
        let mut codes: Vec<String> = Vec::new();
        let mut add = |slugs: &[&str]| codes.extend(slugs.iter().map(|slug| (*slug).to_owned()));
        add(&DropReason::ALL.map(DropReason::slug));
        add(&UnknownReason::ALL.map(UnknownReason::slug));
        add(&TheySee::ALL.map(TheySee::slug));
        add(&Reach::ALL.map(Reach::slug));
        add(&ChoiceReason::ALL.map(ChoiceReason::slug));
        add(&[Verdict::Yes, Verdict::No, Verdict::Partly, Verdict::Unknown].map(Verdict::slug));
        add(&["ap-isolation", "their-firewall", "router", "cloud-firewall"]);
        add(&["wrong-address", "no-lan-address", "netns", "docker-bypass", "host-check"]);
        let stages = [
            Stage::Link,
            Stage::Ingress,
            Stage::Prerouting,
            Stage::Route,
            Stage::Input,
            Stage::Forward,
            Stage::Socket,
            Stage::Gate,
            Stage::Reply,
            Stage::Output,
        ];
        add(&stages.map(Stage::slug));
        let reasons = [
            OwnerReason::NeedsRoot,
            OwnerReason::NeedsPtrace,
            OwnerReason::OtherPidNamespace,
            OwnerReason::Kernel,
            OwnerReason::Hidepid,
            OwnerReason::SocketActivated,
            OwnerReason::NoProcess,
            OwnerReason::NotLookedAt,
        ];
        codes.extend(reasons.iter().map(printed));
        codes.extend([ResolvedBy::Fd, ResolvedBy::Cgroup].iter().map(printed));
        codes
    }

    fn full_facts() -> Facts {
        let mut facts = Facts::default();
        for name in NAMES {
            facts.set(name, Some(format!("<{name}>")));
        }
        facts
    }

    #[test]
    fn every_file_is_a_page_and_every_page_is_well_formed() {
        assert_eq!(all().len(), PAGES.len());
        for (name, text) in PAGES {
            let topic = Topic::read(text).unwrap_or_else(|| panic!("{name}.md has a bad head"));
            assert!(!topic.body.is_empty(), "{name}: no text");
            assert!(!topic.see.is_empty(), "{name}: leads nowhere");
        }
        let listed: BTreeSet<String> = PAGES.iter().map(|(name, _)| format!("{name}.md")).collect();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/topics");
        #[allow(clippy::disallowed_methods, reason = "the test looks for files nobody listed")]
        let files = std::fs::read_dir(folder).expect("the folder of pages is readable");
        let present: BTreeSet<String> = files
            .map(|file| file.expect("a directory entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(present, listed);
    }

    #[test]
    fn every_code_has_a_page() {
        let missing: Vec<String> =
            codes().into_iter().filter(|code| named(&normal(code)).is_none()).collect();
        assert!(missing.is_empty(), "no page for {missing:?}");
        for reason in DropReason::ALL {
            assert_eq!(find(reason.slug()).map(|topic| topic.kind), Some(TopicKind::Stop));
        }
        for reason in UnknownReason::ALL {
            assert_eq!(find(reason.slug()).map(|topic| topic.kind), Some(TopicKind::Unknown));
        }
    }

    #[test]
    fn no_word_leads_to_two_pages() {
        let mut seen = BTreeMap::new();
        let mut twice = Vec::new();
        for topic in all() {
            for name in std::iter::once(&topic.word).chain(&topic.also) {
                if let Some(before) = seen.insert(normal(name), topic.word) {
                    twice.push(format!("`{name}`: {before} and {}", topic.word));
                }
            }
        }
        assert!(twice.is_empty(), "{twice:#?}");
    }

    #[test]
    fn every_page_refers_to_pages() {
        let mut wrong = Vec::new();
        for topic in all() {
            for see in &topic.see {
                let target = find(see).map_or("nothing", |target| target.word);
                if target != *see || target == topic.word {
                    wrong.push(format!("{} -> {see}, which is {target}", topic.word));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn every_page_has_an_example_with_and_without_a_machine() {
        let facts = full_facts();
        for topic in all() {
            let last = topic.examples.last().unwrap_or_else(|| panic!("{}: none", topic.word));
            assert!(!last.contains('{'), "{}: the last example needs a machine", topic.word);
            let general = topic.render(&Facts::default());
            assert!(general.contains("For example: "), "{}", topic.word);
            for example in topic.examples.iter().rev().skip(1) {
                let filled = fill(example, &facts);
                assert!(filled.is_some_and(|text| text != *example), "{}: {example}", topic.word);
            }
        }
    }

    #[test]
    fn every_placeholder_is_known_and_every_fact_is_used() {
        let mut used = BTreeSet::new();
        for topic in all() {
            for part in topic.examples.iter().flat_map(|example| example.split('{').skip(1)) {
                let name = part.split_once('}').map_or(part, |(name, _)| name);
                assert!(NAMES.contains(&name), "{}: {{{name}}} is unknown", topic.word);
                used.insert(name);
            }
        }
        assert_eq!(used, NAMES.iter().copied().collect());
    }

    #[test]
    fn items_and_kept_lines_are_blocks_of_their_own() {
        let topic = find("rp-filter").expect("a page");
        let items = topic.body.iter().filter(|block| matches!(block, Block::Item(_))).count();
        assert_eq!(items, 3);
        assert!(topic.render(&Facts::default()).contains("\n- 0 off;\n- 1 strict: "));
        for topic in all() {
            for block in &topic.body {
                let (Block::Paragraph(text) | Block::Item(text)) = block else { continue };
                assert!(!text.contains(" - "), "{}: an item inside a line: {text}", topic.word);
            }
        }
    }

    #[test]
    fn titles_fit_the_list_of_pages() {
        for topic in all() {
            assert!(topic.title.len() <= 53, "{}: {}", topic.word, topic.title);
            assert!(topic.word.len() <= 24, "{}", topic.word);
        }
    }

    #[test]
    fn pages_fit_the_width() {
        use unicode_width::UnicodeWidthStr;

        for (name, text) in PAGES {
            let body = text.split_once("\n\n").map_or("", |(_, body)| body);
            for line in body.lines().chain(text.lines().take(1)) {
                assert!(line.trim_start_matches("# ").width() <= WIDTH, "{name}.md: {line}");
            }
        }
        for facts in [Facts::default(), full_facts()] {
            for topic in all() {
                let page = topic.render(&facts);
                assert!(page.lines().all(|line| line.width() <= WIDTH), "{page}");
                let lines = page.lines().count();
                assert!((8..=32).contains(&lines), "{}: {lines} lines", topic.word);
            }
        }
    }

    #[test]
    fn words_are_found_as_people_type_them() {
        let check = |typed: &str, word: &str| {
            assert_eq!(find(typed).map(|topic| topic.word), Some(word), "{typed}");
        };
        check("bind-loopback", "bind-loopback");
        check("[bind-loopback]", "bind-loopback");
        check("Loopback Interface", "loopback");
        check("lo", "loopback");
        check("rp_filter", "rp-filter");
        check("network interface", "interface");
        check("wildcard", "0.0.0.0");
        check("*", "0.0.0.0");
        check("::", "::");
        check("::1", "::1");
        check("0::0", "::");
        check("127.0.0.53", "127.0.0.1");
        check("127.0.0.0/8", "127.0.0.1");
        check("192.168.1.20", "private-address");
        check("10.0.0.0/24", "private-address");
        check("100.101.7.3", "shared-address");
        check("8.8.8.8", "public-address");
        check("2001:db8::1", "public-address");
        check("fe80::1%eth0", "link-local");
        check("::ffff:192.0.2.1", "mapped-address");
        check("239.1.2.3", "multicast");
        check("255.255.255.255", "broadcast");
        check("0.0.0.0/0", "default-route");
        check("3000", "port");
        check("ECONNREFUSED", "refused");
        check("No route to host", "host-unreachable");
        check("docker", "docker-bypass");
        check("iptables", "firewall");
        check("NAT", "nat");
    }

    #[test]
    fn words_without_a_page_get_suggestions() {
        let check = |typed: &str, word: &str| {
            assert!(find(typed).is_none(), "{typed} has a page");
            assert_eq!(suggest(typed).first().copied(), Some(word), "{typed}");
        };
        check("bind-lopback", "bind-loopback");
        check("lokalhost", "localhost");
        check("firewal", "firewall");
        check("rpfilter", "rp-filter");
        check("bindloopback", "bind-loopback");
        assert_eq!(suggest("zzzzzzzzzz"), Vec::<&str>::new());
        assert!(find("").is_none() && find("70000").is_none() && find("0").is_none());
    }

    #[test]
    fn distances() {
        let check =
            |from, to, distance| assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        check("", "", 0);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("bind", "bind", 0);
        check("ünder", "under", 1);
    }
}
