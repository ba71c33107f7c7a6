//! The programs that are compared, and how much each says it found.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

/// An ordinary user who owns nothing here.
const NOBODY: u32 = 65_534;

/// Who runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Sees everything.
    Root,
    /// Sees no descriptors of others.
    Nobody,
}

impl Who {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Root, Self::Nobody];

    /// As in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Nobody => "nobody",
        }
    }
}

/// How its output is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Not at all: the cost of starting a process.
    Nothing,
    /// A line per listener; with an owner, `users:((`.
    Ss,
    /// A line per listener, the last column `pid/name` or `-`.
    Netstat,
    /// A heading, then a line per listener and owner.
    Lsof,
    /// `canreach list --json`.
    List,
    /// `canreach why --json`: one listener.
    Why,
}

/// One program with its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    /// As in the table.
    pub(crate) label: &'static str,
    program: String,
    arguments: Vec<String>,
    output: Output,
}

/// How many listeners a program printed, and for how many it named a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Listeners.
    pub(crate) rows: usize,
    /// With an owner.
    pub(crate) named: usize,
}

/// What everything is compared with.
pub(crate) const BASELINE: &str = "ss -Htlnp";

/// All of them; `why` asks about `port`.
pub(crate) fn all(canreach: &Path, port: u16) -> Vec<Tool> {
    let port = port.to_string();
    let canreach = canreach.display().to_string();
    let tool = |label, program: &str, arguments: &[&str], output| Tool {
        label,
        program: program.to_owned(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        output,
    };
    vec![
        tool("true", "true", &[], Output::Nothing),
        tool(BASELINE, "ss", &["-Htlnp"], Output::Ss),
        tool("netstat -tlnp", "netstat", &["-tlnp"], Output::Netstat),
        tool(
            "lsof -nP -iTCP -sTCP:LISTEN",
            "lsof",
            &["-nP", "-iTCP", "-sTCP:LISTEN"],
            Output::Lsof,
        ),
        tool("canreach list", &canreach, &["list"], Output::List),
        tool("canreach why PORT", &canreach, &["why", &port], Output::Why),
    ]
}

impl Tool {
    /// The program, ready to run.
    pub(crate) fn command(&self, who: Who) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(Stdio::null()).current_dir("/");
        // cargo's LD_LIBRARY_PATH would send every loader on a search of its folders.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if who == Who::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs it once and counts; none where there is nothing to count.
    pub(crate) fn count(&self, who: Who) -> Result<Option<Found>> {
        let mut command = self.command(who);
        if matches!(self.output, Output::List | Output::Why) {
            command.arg("--json");
        }
        let output = command
            .stdout(Stdio::piped())
            .output()
            .with_context(|| format!("start {}", self.program))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match self.output {
            Output::Nothing => Ok(None),
            Output::Ss | Output::Netstat | Output::Lsof => Ok(Some(self.count_lines(&text))),
            Output::List | Output::Why => {
                let json = serde_json::from_str(&text)
                    .with_context(|| format!("{} --json printed no JSON: {text}", self.label))?;
                Ok(Some(if self.output == Output::List {
                    count_list(&json)
                } else {
                    count_why(&json)
                }))
            }
        }
    }

    fn count_lines(&self, text: &str) -> Found {
        let lines: Vec<&str> = match self.output {
            Output::Netstat => text.lines().filter(|line| line.starts_with("tcp")).collect(),
            Output::Lsof => text.lines().skip(1).collect(),
            Output::Ss | Output::Nothing | Output::List | Output::Why => text.lines().collect(),
        };
        let named = |line: &&&str| match self.output {
            Output::Ss => line.contains("users:(("),
            Output::Netstat => {
                line.split_whitespace().nth(6).is_some_and(|owner| owner.contains('/'))
            }
            Output::Lsof => true,
            Output::Nothing | Output::List | Output::Why => false,
        };
        Found { rows: lines.len(), named: lines.iter().filter(named).count() }
    }

    /// Whether it answers about all listeners, so that its rows can be compared.
    pub(crate) fn lists_all(&self) -> bool {
        !matches!(self.output, Output::Nothing | Output::Why)
    }

    /// Whether it can name owners without root.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.output, Output::List | Output::Why)
    }
}

/// A listener with several addresses is one entry, and one row of `ss` for each address.
fn count_list(json: &Value) -> Found {
    let mut found = Found { rows: 0, named: 0 };
    for listener in json["listeners"].as_array().into_iter().flatten() {
        if listener["proto"] != "tcp" {
            continue;
        }
        let binds = listener["binds"].as_array().map_or(0, Vec::len);
        found.rows += binds;
        if listener["process"]["pid"].is_u64() {
            found.named += binds;
        }
    }
    found
}

fn count_why(json: &Value) -> Found {
    let listener = &json["listener"];
    Found { rows: usize::from(listener.is_object()), named: usize::from(listener["pid"].is_u64()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(label: &str, text: &str, rows: usize, named: usize) {
        let tools = all(Path::new("canreach"), 1);
        let tool = tools.iter().find(|tool| tool.label.starts_with(label));
        let found = tool.expect("the tool is there").count_lines(text);
        assert_eq!(found, Found { rows, named }, "{label}");
    }

    #[test]
    fn rows_and_owners_are_counted() {
        let ss = "LISTEN 0 128 127.0.0.1:631 0.0.0.0:* users:((\"cupsd\",pid=1,fd=7))\n\
             LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n";
        check("ss", ss, 2, 1);
        let netstat = "Active Internet connections\nProto Recv-Q\n\
             tcp 0 0 127.0.0.1:631 0.0.0.0:* LISTEN 1/cupsd: worker\n\
             tcp6 0 0 :::22 :::* LISTEN -\n";
        check("netstat", netstat, 2, 1);
        check("lsof", "COMMAND PID\ncupsd 1 root\n", 1, 1);
        check("lsof", "", 0, 0);
        let list = json!({"listeners": [
            {"proto": "tcp", "binds": [{}, {}], "process": {"pid": 7}},
            {"proto": "tcp", "binds": [{}], "process": {"pid": null}},
            {"proto": "udp", "binds": [{}], "process": {"pid": 7}},
        ]});
        assert_eq!(count_list(&list), Found { rows: 3, named: 2 });
        assert_eq!(count_why(&json!({"listener": null})), Found { rows: 0, named: 0 });
        assert_eq!(count_why(&json!({"listener": {"pid": 3}})), Found { rows: 1, named: 1 });
    }
}
