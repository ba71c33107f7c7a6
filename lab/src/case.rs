//! Hand-written cases: a host, what is asked, and what has to come out. One file per area, in
//! `cases/`.
//!
//! ```toml
//! [[case]]
//! name = "bound to 127.0.0.1, dialled from the LAN"
//! shows = "10.6"
//! host = '''
//! link a0 veth to B
//! address 10.1.0.1/24 dev a0
//! tcp 127.0.0.1:80
//! '''
//! expect = '''
//! tcp 10.1.0.2 > 10.1.0.1:80 via a0 = no bind-loopback refused
//! tcp self > 127.0.0.1:80 = yes by tcp 127.0.0.1:80
//! '''
//! ```
//!
//! Files of packet-filter rules follow the host's lines, in this order:
//!
//! ```toml
//! rules = [{ with = "nft", text = '''
//! table inet f {
//!     chain input { type filter hook input priority 0; policy drop; }
//! }
//! ''' }]
//! needs = "what not every kernel has"
//! ```
//!
//! The same rules may be given for several generations of tables. Each makes a case of its own, and all
//! must come out alike; what iptables takes is loaded once by iptables over nftables and once by the
//! legacy one:
//!
//! ```toml
//! nft = '''...'''
//! xtables = '''...'''      by iptables and ip6tables; `iptables` or `ip6tables` for one of them
//! ```

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use canreach_engine::{DropReason, TheySee, UnknownReason};
use serde::Deserialize;

use crate::filter_step::{FilterStep, Loader};
use crate::probe::Probe;
use crate::step::Step;
use crate::words::Words;

/// A host and what is expected of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The rule it shows, in words.
    pub name: String,
    /// Where that rule is written down.
    pub shows: String,
    /// The host.
    pub host: Vec<Step>,
    /// What its rules need that not every kernel has: where they are refused, the case is skipped.
    pub needs: Option<String>,
    /// What is asked, and what must come out.
    pub expect: Vec<Expectation>,
}

/// A probe and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// What is asked.
    pub probe: Probe,
    /// What must come out; `None` where any answer will do as long as all agree.
    pub expected: Option<Expected>,
}

/// What must come of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It gets through, to the server of this line if one is named.
    Yes {
        /// The server's line.
        by: Option<String>,
    },
    /// It is stopped.
    No {
        /// Why.
        reason: DropReason,
        /// What the client sees; `None` where the answer does not say.
        they_see: Option<TheySee>,
    },
    /// It cannot be told.
    Unknown {
        /// Why.
        reason: UnknownReason,
        /// What the client sees in the lab all the same; `None` where that is not always the same.
        they_see: Option<TheySee>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<RawCase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    shows: String,
    host: String,
    #[serde(default)]
    rules: Vec<FilterStep>,
    needs: Option<String>,
    nft: Option<String>,
    xtables: Option<String>,
    iptables: Option<String>,
    ip6tables: Option<String>,
    expect: String,
}

/// Reads a file of cases.
///
/// # Errors
/// With the line that is not understood.
pub fn read(text: &str) -> Result<Vec<Case>> {
    let file: File = toml::from_str(text).context("not a file of cases")?;
    let cases: Result<Vec<Vec<Case>>> = file.case.into_iter().map(RawCase::parse).collect();
    Ok(cases?.into_iter().flatten().collect())
}

/// The lines of a text that say something.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Reads the lines of a host.
///
/// # Errors
/// With the line that is not understood.
pub fn read_host(text: &str) -> Result<Vec<Step>> {
    lines(text).map(str::parse).collect()
}

impl RawCase {
    /// One case, or one for each generation of tables.
    fn parse(self) -> Result<Vec<Case>> {
        let host = read_host(&self.host);
        let expect: Result<_> = lines(&self.expect).map(str::parse).collect();
        let in_case = || format!("case `{}`", self.name);
        let mut host = host.with_context(in_case)?;
        host.extend(self.rules.iter().cloned().map(Step::Filter));
        let plain = Case {
            host,
            expect: expect.with_context(in_case)?,
            name: self.name.clone(),
            shows: self.shows.clone(),
            needs: self.needs.clone(),
        };
        let generations = self.generations();
        let one = generations.len() == 1;
        let of = |(name, rules): (&str, Vec<FilterStep>)| {
            let mut case = plain.clone();
            case.host.extend(rules.into_iter().map(Step::Filter));
            if !one {
                case.name = format!("{} ({name})", case.name);
            }
            case
        };
        let cases: Vec<Case> = generations.into_iter().map(of).collect();
        Ok(if cases.is_empty() { vec![plain] } else { cases })
    }

    /// The rules in each generation of tables for which they are given.
    fn generations(&self) -> Vec<(&'static str, Vec<FilterStep>)> {
        let with = |with: Loader, text: &Option<String>| {
            text.iter().map(move |text| FilterStep { with, text: text.clone() }).collect::<Vec<_>>()
        };
        let both = |ipv4, ipv6| {
            [
                with(ipv4, &self.xtables),
                with(ipv6, &self.xtables),
                with(ipv4, &self.iptables),
                with(ipv6, &self.ip6tables),
            ]
            .concat()
        };
        let mut generations = vec![
            ("nft", with(Loader::Nft, &self.nft)),
            ("iptables", both(Loader::Iptables, Loader::Ip6tables)),
            ("iptables-legacy", both(Loader::IptablesLegacy, Loader::Ip6tablesLegacy)),
        ];
        generations.retain(|(_, rules)| !rules.is_empty());
        generations
    }
}

impl FromStr for Expectation {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let Some((probe, expected)) = line.split_once(" = ") else {
            return Ok(Self { probe: line.parse()?, expected: None });
        };
        let mut words = Words::new(expected);
        let expected = match words.word("a verdict")? {
            "yes" => {
                let by = words.take("by").then(|| rest(&mut words));
                Expected::Yes { by }
            }
            "no" => {
                let slug = words.word("a reason")?;
                let reason = DropReason::ALL.into_iter().find(|reason| reason.slug() == slug);
                let reason = reason.with_context(|| format!("`{line}`: no reason `{slug}`"))?;
                Expected::No { reason, they_see: read_any_seen(&mut words)? }
            }
            "unknown" => {
                let slug = words.word("a reason")?;
                let reason = UnknownReason::ALL.into_iter().find(|reason| reason.slug() == slug);
                let reason = reason.with_context(|| format!("`{line}`: no reason `{slug}`"))?;
                Expected::Unknown { reason, they_see: read_any_seen(&mut words)? }
            }
            other => bail!("`{line}`: `{other}` is no verdict"),
        };
        words.end()?;
        Ok(Self { probe: probe.parse()?, expected: Some(expected) })
    }
}

fn rest(words: &mut Words<'_>) -> String {
    let mut rest = Vec::new();
    while let Some(word) = words.next_word() {
        rest.push(word);
    }
    rest.join(" ")
}

const SEEN: [TheySee; 12] = [
    TheySee::Connected,
    TheySee::Refused,
    TheySee::Timeout,
    TheySee::HostUnreachable,
    TheySee::NetworkUnreachable,
    TheySee::PermissionDenied,
    TheySee::ProtocolUnavailable,
    TheySee::InvalidArgument,
    TheySee::AddressNotAvailable,
    TheySee::OperationNotPermitted,
    TheySee::Delivered,
    TheySee::Silence,
];

/// What they see, or `any`.
fn read_any_seen(words: &mut Words<'_>) -> Result<Option<TheySee>> {
    Ok(if words.take("any") { None } else { Some(read_seen(words)?) })
}

fn read_seen(words: &mut Words<'_>) -> Result<TheySee> {
    let slug = words.word("what they see")?;
    let seen = SEEN.into_iter().find(|seen| seen.slug() == slug);
    seen.with_context(|| format!("`{}`: nobody sees `{slug}`", words.line()))
}

impl fmt::Display for Case {
    /// As it stands in a file of cases.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "[[case]]\nname = {:?}\nshows = {:?}", self.name, self.shows)?;
        writeln!(formatter, "host = '''")?;
        let mut files = Vec::new();
        for step in &self.host {
            match step {
                Step::Filter(rules) if !rules.is_line() => files.push(rules),
                step => writeln!(formatter, "{step}")?,
            }
        }
        writeln!(formatter, "'''")?;
        let mut start = "rules = [";
        for FilterStep { with, text } in &files {
            let (name, text) = (with.name(), text.trim());
            writeln!(formatter, "{start}{{ with = {name:?}, text = '''\n{text}")?;
            start = "''' }, ";
        }
        if !files.is_empty() {
            writeln!(formatter, "''' }}]")?;
        }
        if let Some(needs) = &self.needs {
            writeln!(formatter, "needs = {needs:?}")?;
        }
        writeln!(formatter, "expect = '''")?;
        for expectation in &self.expect {
            writeln!(formatter, "{expectation}")?;
        }
        writeln!(formatter, "'''")
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.probe.fmt(formatter)?;
        match &self.expected {
            None => Ok(()),
            Some(Expected::Yes { by: None }) => formatter.write_str(" = yes"),
            Some(Expected::Yes { by: Some(by) }) => write!(formatter, " = yes by {by}"),
            Some(Expected::No { reason, they_see }) => {
                let they_see = they_see.map_or("any", TheySee::slug);
                write!(formatter, " = no {} {they_see}", reason.slug())
            }
            Some(Expected::Unknown { reason, they_see }) => {
                let they_see = they_see.map_or("any", TheySee::slug);
                write!(formatter, " = unknown {} {they_see}", reason.slug())
            }
        }
    }
}
