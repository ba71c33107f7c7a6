//! Packet-filter rules of a host under test, loaded by the programs that people load them with.
//!
//! One line of a host is one command:
//!
//! ```text
//! nft add table inet f
//! nft add rule inet f input tcp dport 80 drop
//! iptables -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 80
//! ip6tables-legacy -P INPUT DROP
//! ipset create allowed hash:net
//! ```
//!
//! A case may have whole files of rules as well, under `rules`. Lines in a row for the same program
//! are loaded at once, which is what `nft -f` and `iptables-restore` are for, and much faster.

use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::topology::Unsupported;

/// A program that loads rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// nftables.
    Nft,
    /// iptables over nftables.
    Iptables,
    /// ip6tables over nftables.
    Ip6tables,
    /// iptables with tables of its own.
    IptablesLegacy,
    /// ip6tables with tables of its own.
    Ip6tablesLegacy,
    /// Sets that iptables rules name.
    Ipset,
}

impl Loader {
    /// Each of them.
    pub const ALL: [Self; 6] = [
        Self::Nft,
        Self::Iptables,
        Self::Ip6tables,
        Self::IptablesLegacy,
        Self::Ip6tablesLegacy,
        Self::Ipset,
    ];

    /// What it is called in a host's lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::Ip6tables => "ip6tables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ip6tablesLegacy => "ip6tables-legacy",
            Self::Ipset => "ipset",
        }
    }

    /// The program that reads rules from its input, and how it is called.
    const fn command(self) -> (&'static str, &'static [&'static str]) {
        // Counters and comments are of no interest here, and what is loaded already stays.
        const ADD: &[&str] = &["--noflush"];
        // The legacy programs exclude each other, in all namespaces.
        const ADD_AND_WAIT: &[&str] = &["--noflush", "--wait", "10"];
        match self {
            Self::Nft => ("nft", &["-f", "-"]),
            Self::Iptables => ("iptables-nft-restore", ADD),
            Self::Ip6tables => ("ip6tables-nft-restore", ADD),
            Self::IptablesLegacy => ("iptables-legacy-restore", ADD_AND_WAIT),
            Self::Ip6tablesLegacy => ("ip6tables-legacy-restore", ADD_AND_WAIT),
            Self::Ipset => ("ipset", &["-exist", "restore"]),
        }
    }

    /// The Debian package it comes in.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Nft => "nftables",
            Self::Iptables | Self::Ip6tables | Self::IptablesLegacy | Self::Ip6tablesLegacy => {
                "iptables"
            }
            Self::Ipset => "ipset",
        }
    }

    /// The loader of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|loader| loader.name() == name)
    }

    const fn is_iptables(self) -> bool {
        !matches!(self, Self::Nft | Self::Ipset)
    }
}

/// Rules that are loaded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterStep {
    /// By which program.
    pub with: Loader,
    /// One command, or a file of them.
    pub text: String,
}

/// The kernel, or the program, did not take the rules.
#[derive(Debug)]
pub struct Refused {
    with: Loader,
    text: String,
    said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} refuses\n{}\n{}", self.with.name(), self.text, self.said)
    }
}

impl std::error::Error for Refused {}

impl FilterStep {
    /// Reads a line that begins with the name of a loader; `None` if it does not.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let (name, text) = line.split_once(' ')?;
        Some(Self { with: Loader::named(name)?, text: text.trim().to_owned() })
    }

    /// Whether packets may arrive somewhere else than where they were sent.
    #[must_use]
    pub fn translates(&self) -> bool {
        let text = self.text.to_lowercase();
        ["redirect", "dnat", "snat", "masquerade", "netmap", "tproxy"]
            .iter()
            .any(|word| text.contains(word))
    }

    /// A single command, which fits into a host's lines.
    #[must_use]
    pub fn is_line(&self) -> bool {
        !self.text.trim().contains('\n')
    }
}

impl fmt::Display for FilterStep {
    /// As a line of a host, where it is one.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.with.name(), self.text)
    }
}

/// Loads rules into the namespace that the calling thread is in, all at once.
///
/// # Errors
/// [`Unsupported`] if the program is not installed, [`Refused`] if it does not take them.
pub fn load(with: Loader, texts: &[&str]) -> Result<()> {
    let text = script(with, texts);
    let (program, arguments) = with.command();
    let spawned = Command::new(program)
        .args(arguments)
        // The legacy programs lock a file that only root may write, and need not: nobody else is in
        // this namespace.
        .env("XTABLES_LOCKFILE", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(Unsupported(format!("`{program}` (Debian package {})", with.package())))
        }
        Err(error) => return Err(error).with_context(|| format!("start {program}")),
    };
    let mut input = child.stdin.take().context("its input was asked for")?;
    // A program that stops reading says why on its own.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!(Refused { with, text, said });
    }
    Ok(())
}

/// What the program reads.
fn script(with: Loader, texts: &[&str]) -> String {
    let mut script = String::new();
    let mut open: Option<&str> = None;
    for text in texts {
        let is_command = with.is_iptables() && text.trim_start().starts_with('-');
        if is_command {
            let lines = text.lines().map(str::trim);
            for line in lines.filter(|line| line.starts_with('-')) {
                let (table, command) = table_of(line);
                if open != Some(table) {
                    script.push_str(if open.is_some() { "COMMIT\n*" } else { "*" });
                    script.push_str(table);
                    script.push('\n');
                    open = Some(table);
                }
                script.push_str(command);
                script.push('\n');
            }
            continue;
        }
        if open.take().is_some() {
            script.push_str("COMMIT\n");
        }
        script.push_str(text.trim_end());
        script.push('\n');
    }
    if open.is_some() {
        script.push_str("COMMIT\n");
    }
    script
}

/// The table that a command of iptables is about, and the rest of it.
fn table_of(command: &str) -> (&str, &str) {
    match command.strip_prefix("-t ").and_then(|rest| rest.split_once(' ')) {
        Some((table, rest)) => (table, rest.trim_start()),
        None => ("filter", command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_iptables_become_tables() {
        let texts = ["-N a", "-A a -j DROP", "-t nat -P OUTPUT ACCEPT", "*raw\nCOMMIT", "-F"];
        let expected = "*filter\n-N a\n-A a -j DROP\nCOMMIT\n*nat\n-P OUTPUT ACCEPT\nCOMMIT\n\
                        *raw\nCOMMIT\n*filter\n-F\nCOMMIT\n";
        assert_eq!(script(Loader::Iptables, &texts), expected);
        assert_eq!(
            script(Loader::Nft, &["add table ip a ", "flush ruleset"]),
            "add table ip a\nflush ruleset\n"
        );
    }

    #[test]
    fn lines_read_as_they_print() {
        for line in ["nft add table inet f", "ip6tables-legacy -t nat -F", "ipset add a 10.0.0.1"] {
            assert_eq!(FilterStep::read(line).map(|step| step.to_string()).as_deref(), Some(line));
        }
        assert_eq!(FilterStep::read("route default dev a0"), None);
    }
}
