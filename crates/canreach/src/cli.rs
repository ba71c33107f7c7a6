//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;

use canreach_engine::ask::{From, WhoError, ZonedAddress};
use canreach_engine::expectation::{Expectation, PortRange};
use canreach_snapshot::{Port, Proto};
use clap::builder::Styles;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::exit::Exit;

/// cargo's look.
const STYLES: Styles = Styles::styled()
    .header(anstyle::AnsiColor::BrightGreen.on_default().bold())
    .usage(anstyle::AnsiColor::BrightGreen.on_default().bold())
    .literal(anstyle::AnsiColor::BrightCyan.on_default().bold())
    .placeholder(anstyle::AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  canreach                       every server and who can connect
  canreach why 3000              can my colleague open port 3000?
  canreach why 22 --from 10.0.0.7
  canreach check --only 'tcp/22 from lan'
  canreach --json | jq '.listeners[] | select(.reach != \"self\")'";

const EXITS: &str = "\
Exit codes:
  0  yes, or something was shown; check: the policy holds; diff: the same
  1  no or partly, or there is nothing to show; check: it does not; diff: different
  2  the command line makes no sense
  3  can't tell
  4  an error of the operating system or of canreach itself

Without a command, `canreach` lists servers, and `canreach 3000` is `canreach why 3000`.
canreach never runs sudo, never changes this computer, and sends nothing to anyone.";

const DIFF_HELP: &str = "\
Examples:
  canreach snapshot monday.json
  canreach diff monday.json            what changed since then
  canreach diff monday.json friday.json

Exit codes: 0 the same people can reach the same servers, 1 they cannot, 3 can't tell.";

const CHECK_HELP: &str = "\
Examples:
  canreach check policy.toml
  canreach check --only 'tcp/22 from lan' --only 'tcp/443 from any'
  canreach check --only 'tcp/5432 from 10.0.0.0/8' --port tcp/5432

Exit codes: 0 the policy holds, 1 it does not, 3 can't tell.
What a policy looks like: canreach explain policy";

/// Who can connect to the servers on this computer, and why not
#[derive(Debug, Parser)]
#[command(
    name = "canreach",
    version,
    styles = STYLES,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{EXITS}"),
    override_usage = "canreach [OPTIONS] [COMMAND]",
    disable_help_subcommand = true,
    max_term_width = 80
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// When to print in colour.
    #[command(flatten)]
    pub color: colorchoice_clap::Color,
    /// Ask about another network namespace
    #[arg(long, global = true, value_name = "NAME|PID|PATH")]
    pub netns: Option<String>,
    /// Ask a file that `canreach snapshot` saved, instead of this computer (- is standard input)
    #[arg(long, global = true, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every server and who can connect (the default)
    List(ListArguments),
    /// Explain, step by step, whether others can reach a port
    Why(WhyArguments),
    /// Print the address to give to others
    Ip(IpArguments),
    /// Compare who could connect then and now
    Diff(DiffArguments),
    /// Fail if anything is reachable from wider than a policy
    Check(CheckArguments),
    /// The idea behind a code, an address or a term
    Explain(ExplainArguments),
    /// Save this machine's state to a file
    Snapshot(SnapshotArguments),
    /// Print the JSON Schema of an answer
    Schema(SchemaArguments),
    /// Print completions for a shell
    Completions(CompletionsArguments),
    /// Print the manual page
    Man,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// A row for each socket, not for each program and port
    #[arg(long)]
    pub all: bool,
    /// Every network namespace that can be found: containers too
    #[arg(long, conflicts_with = "netns")]
    pub all_namespaces: bool,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct WhyArguments {
    /// The port: 3000, 3000/tcp, 53/udp
    #[arg(value_parser = port)]
    pub port: (Proto, Port),
    /// From whom: lan (the default), self, any, an address, or a prefix
    #[arg(long, value_name = "WHO", value_parser = who)]
    pub from: Option<From>,
    /// The address they dial; by default the one that `canreach ip` prints
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub to: Option<ZonedAddress>,
    /// The interface their packets come in by
    #[arg(long, value_name = "LINK")]
    pub via: Option<String>,
}

/// Arguments of `ip`.
#[derive(Debug, Args)]
pub struct IpArguments {
    /// Every interface, also those that are down or have no address
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = DIFF_HELP)]
pub struct DiffArguments {
    /// The earlier state: a file that `canreach snapshot` saved (- is standard input)
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The later state; without one, this computer now
    #[arg(value_name = "AFTER")]
    pub after: Option<PathBuf>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArguments {
    /// The policy: a TOML file (- is standard input)
    #[arg(value_name = "POLICY", required_unless_present = "only", conflicts_with = "only")]
    pub policy: Option<PathBuf>,
    /// Who may reach what, and nobody else anything: PROTO/PORT from WHO [via LINK] [program NAME]
    #[arg(long, value_name = "RULE", value_parser = str::parse::<Expectation>)]
    pub only: Vec<Expectation>,
    /// Look at the servers on these ports alone
    #[arg(long, value_name = "PROTO/PORT", value_parser = str::parse::<PortRange>)]
    pub port: Vec<PortRange>,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The code, address or term; without one, the list of them
    pub word: Option<String>,
}

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArguments {
    /// The file to write; without one, or as -, standard output
    pub file: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    pub output: Option<PathBuf>,
    /// Leave out names and public addresses, and keep the answers
    #[arg(long)]
    pub redact: bool,
    /// Every network namespace that can be found: containers too
    #[arg(long, conflicts_with = "netns")]
    pub all_namespaces: bool,
}

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArguments {
    /// Which answer
    #[arg(value_parser = canreach_report::json::schema::NAMES)]
    pub name: String,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Reads the arguments. What clap answers by itself (help, versions, usage errors) is printed here.
///
/// # Errors
/// With the exit code, if there is nothing left to do.
pub fn parse(arguments: &[OsString]) -> Result<Cli, Exit> {
    Cli::try_parse_from(arguments).map_err(|error| {
        let shown =
            error.kind() == ErrorKind::DisplayHelp || error.kind() == ErrorKind::DisplayVersion;
        let missing = error.kind() == ErrorKind::MissingRequiredArgument;
        let form = FORMS
            .iter()
            .find(|(word, _)| missing && arguments.iter().any(|argument| argument == word));
        if let Some((_, form)) = form {
            crate::output::error(&anyhow::anyhow!("{form}"));
        } else {
            // A reader that went away has seen enough.
            let _ = error.print();
        }
        if shown { Exit::Yes } else { Exit::Usage }
    })
}

/// The options that take a value as the next argument, up to which no command has been seen.
const OPTIONS_WITH_VALUE: [&str; 6] =
    ["--color", "--netns", "--snapshot", "--from", "--to", "--via"];

/// Fills in the command that was left out: `list`, or `why` before a port.
#[must_use]
pub fn complete_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut rest = arguments.iter().skip(1);
    let mut first = None;
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if ["-h", "--help", "-V", "--version"].contains(&&*text) {
            return arguments;
        }
        if OPTIONS_WITH_VALUE.contains(&&*text) {
            rest.next();
        } else if text == "--" {
            first = rest.next().map(|argument| argument.to_string_lossy().into_owned());
            break;
        } else if !text.starts_with('-') {
            first = Some(text.into_owned());
            break;
        }
    }
    let missing = match first {
        None => Some("list"),
        Some(word) if word.starts_with(|first: char| first.is_ascii_digit()) => Some("why"),
        Some(_) => None,
    };
    if let Some(command) = missing {
        arguments.insert(1.min(arguments.len()), command.into());
    }
    arguments
}

/// The command line for advice such as "the same with sudo".
#[must_use]
pub fn as_typed(arguments: &[OsString]) -> String {
    let mut words = vec!["canreach".to_owned()];
    for argument in arguments.iter().skip(1) {
        words.push(quoted(&argument.to_string_lossy()));
    }
    // `list` is what one gets without a command.
    if words.get(1).is_some_and(|word| word == "list") {
        words.remove(1);
    }
    words.join(" ")
}

/// A word as a shell takes it.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:%,=+@".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The command line's own description, for completions and the manual page.
#[must_use]
pub fn description() -> clap::Command {
    Cli::command()
}

const WHY_FORM: &str = "why takes a port number, for example: canreach why 3000";

/// The right form of commands that something was left out of.
const FORMS: [(&str, &str); 3] = [
    ("why", WHY_FORM),
    (
        "diff",
        "diff takes a file that `canreach snapshot` saved, for example: canreach diff monday.json",
    ),
    (
        "check",
        "check takes a policy, for example: canreach check policy.toml, or: canreach check \
               --only 'tcp/22 from lan'",
    ),
];

/// Reads `3000`, `3000/tcp` or `53/udp`.
fn port(text: &str) -> Result<(Proto, Port), String> {
    let (number, proto) = match text.split_once('/') {
        None => (text, Proto::Tcp),
        Some((number, "tcp")) => (number, Proto::Tcp),
        Some((number, "udp")) => (number, Proto::Udp),
        Some((_, proto)) => {
            return Err(format!(
                "`{proto}` is neither tcp nor udp, for example: canreach why 53/udp"
            ));
        }
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WHY_FORM.to_owned());
    }
    match number.parse() {
        Ok(0) => Err("port 0 cannot be dialled: ports go from 1 to 65535, for example: \
                      canreach why 3000"
            .to_owned()),
        Ok(port) => Ok((proto, Port(port))),
        Err(_) => Err("ports go from 1 to 65535, for example: canreach why 3000".to_owned()),
    }
}

fn who(text: &str) -> Result<From, String> {
    let explain = |error: WhoError| {
        format!("{error}\n--from takes lan, self, any, an address, or a prefix such as 10.0.0.0/8")
    };
    text.parse().map_err(explain)
}

fn address(text: &str) -> Result<ZonedAddress, String> {
    text.parse().map_err(|error: WhoError| {
        format!("{error}\n--to takes an address of this computer: canreach ip --all lists them")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_makes_sense_to_clap() {
        description().debug_assert();
    }

    #[test]
    fn a_command_that_was_left_out_is_filled_in() {
        let check = |typed: &str, expected: &str| {
            let arguments = typed.split_whitespace().map(OsString::from).collect();
            let completed: Vec<String> = complete_command(arguments)
                .iter()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect();
            assert_eq!(completed.join(" "), expected);
        };
        check("canreach", "canreach list");
        check("canreach --json", "canreach list --json");
        check("canreach --color never", "canreach list --color never");
        check("canreach --all", "canreach list --all");
        check("canreach 3000", "canreach why 3000");
        check("canreach --from 10.0.0.1 3000", "canreach why --from 10.0.0.1 3000");
        check("canreach --netns red 53/udp", "canreach why --netns red 53/udp");
        check("canreach 70000", "canreach why 70000");
        check("canreach why 3000", "canreach why 3000");
        check("canreach --snapshot 1.json ip", "canreach --snapshot 1.json ip");
        check("canreach --snapshot=1.json", "canreach list --snapshot=1.json");
        check("canreach wyh 3000", "canreach wyh 3000");
        check("canreach --help", "canreach --help");
        check("canreach -V", "canreach -V");
    }

    #[test]
    fn the_command_line_comes_back_as_it_can_be_typed() {
        let check = |typed: &[&str], expected: &str| {
            let arguments: Vec<OsString> = typed.iter().map(OsString::from).collect();
            assert_eq!(as_typed(&arguments), expected);
        };
        check(&["/usr/bin/canreach", "list"], "canreach");
        check(&["x", "why", "53/udp"], "canreach why 53/udp");
        check(&["x", "why", "80", "--via", "it's"], r"canreach why 80 --via 'it'\''s'");
    }

    #[test]
    fn ports_as_typed() {
        for text in ["3000", "3000/tcp"] {
            assert_eq!(port(text), Ok((Proto::Tcp, Port(3000))));
        }
        assert_eq!(port("53/udp"), Ok((Proto::Udp, Port(53))));
        for (text, part) in [
            ("0", "port 0 cannot be dialled"),
            ("65536", "1 to 65535"),
            ("99999999999999999999", "1 to 65535"),
            ("http", "why takes a port number"),
            ("", "why takes a port number"),
            ("+80", "why takes a port number"),
            ("80/sctp", "neither tcp nor udp"),
            ("/tcp", "why takes a port number"),
        ] {
            let message = port(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
