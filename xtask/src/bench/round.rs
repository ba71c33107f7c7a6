//! Inside the namespaces of one setting: builds it, checks what each program finds, times them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::bench::member::{self, LISTENING, MEMBER, READY};
use crate::bench::setting::{self, Member, Setting, Work};
use crate::bench::tool::{self, Tool, Who};

/// The hidden chore: `SETTING ROUNDS CGROUP CANREACH [COMMAND]`.
pub(crate) const INSIDE: &str = "bench-inside";

/// Builds one setting and prints one JSON object per line, program and user.
pub(crate) fn run_inside(arguments: &[&str]) -> Result<()> {
    let [name, rounds, cgroup, canreach, look @ ..] = arguments else {
        bail!("usage: {INSIDE} ...")
    };
    let mut setting = setting::all().into_iter().find(|setting| setting.name == *name);
    let setting = setting.as_mut().with_context(|| format!("no setting {name}"))?;
    if let Ok(rounds) = rounds.parse() {
        setting.rounds = rounds;
    }
    // When the outer process is gone, so is the reason for this one; as the first process of its
    // PID namespace it takes all others with it.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    member::raise_descriptor_limit()?;
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !status.context("start ip")?.success() {
        bail!("ip link set lo up failed");
    }
    let members = build(setting, Path::new(cgroup))?;
    if let [command] = look {
        // In the command, `$CANREACH` and `$PORT` are the program and a port to ask about.
        let status = Command::new("sh")
            .args(["-c", command])
            .env_remove("LD_LIBRARY_PATH")
            .env("CANREACH", canreach)
            .env("PORT", setting.port.to_string())
            .status();
        println!("{command}: {}", status.context("start sh")?);
        return Ok(());
    }
    for who in Who::ALL {
        let tools = tool::all(Path::new(canreach), setting.port);
        check(setting, &tools, who)?;
        for (tool, mut times) in time(setting, &tools, who)? {
            times.sort_by(f64::total_cmp);
            let found = tool.count(who)?;
            let line = json!({
                "setting": setting.name, "who": who.name(), "tool": tool.label,
                "rounds": setting.rounds,
                "ms": times[times.len() / 2], "least": times[0], "most": times[times.len() - 1],
                "rows": found.map(|found| found.rows), "named": found.map(|found| found.named),
            });
            println!("{line}");
        }
    }
    drop(members);
    Ok(())
}

/// Starts all processes, each when the one before it is complete.
fn build(setting: &Setting, cgroup: &Path) -> Result<Vec<Child>> {
    let own = std::env::current_exe().context("find this program")?;
    let mut running = Vec::new();
    // A server is complete only after its client has connected.
    let mut waiting: Option<BufReader<std::process::ChildStdout>> = None;
    for member in &setting.members {
        let folder = folder(member, cgroup)?;
        let mut child = Command::new(&own)
            .args([MEMBER, &folder, &member.other_descriptors.to_string()])
            .args(member.work.to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a process of the setting")?;
        let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
        running.push(child);
        expect(&mut output, LISTENING)?;
        if matches!(member.work, Work::Listen { accept, .. } if accept > 0) {
            waiting = Some(output);
            continue;
        }
        expect(&mut output, READY)?;
        if let Some(mut server) = waiting.take() {
            expect(&mut server, READY)?;
        }
    }
    Ok(running)
}

fn folder(member: &Member, cgroup: &Path) -> Result<String> {
    let Some(unit) = &member.unit else { return Ok("-".to_owned()) };
    let folder: PathBuf = cgroup.join(unit);
    std::fs::create_dir(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
    Ok(folder.display().to_string())
}

fn expect(output: &mut impl BufRead, word: &str) -> Result<()> {
    let mut line = String::new();
    output.read_line(&mut line).context("listen to a process of the setting")?;
    if line.trim_end() != word {
        bail!("a process of the setting said {line:?} instead of {word}");
    }
    Ok(())
}

/// Times are comparable only if all programs found the same.
fn check(setting: &Setting, tools: &[Tool], who: Who) -> Result<()> {
    for tool in tools {
        let Some(found) = tool.count(who)? else { continue };
        let label = tool.label;
        // Without root, lsof prints nothing and ss and netstat name nobody: that is their answer.
        let complete = who == Who::Root || (tool.is_ours() && tool.lists_all());
        let rows = if tool.lists_all() { setting.listeners } else { 1 };
        let lists = who == Who::Root || !label.starts_with("lsof");
        if lists && found.rows != rows {
            bail!("{label} as {} found {} listeners, not {rows}", who.name(), found.rows);
        }
        if complete && found.named != found.rows {
            let (named, rows) = (found.named, found.rows);
            bail!("{label} as {} named the owners of {named} of {rows}", who.name());
        }
    }
    Ok(())
}

/// Milliseconds from start to end; each program once per round, after a round that is not counted.
fn time<'a>(setting: &Setting, tools: &'a [Tool], who: Who) -> Result<Vec<(&'a Tool, Vec<f64>)>> {
    let mut times: Vec<(&Tool, Vec<f64>)> = tools.iter().map(|tool| (tool, Vec::new())).collect();
    for round in 0..=setting.rounds {
        for (tool, measured) in &mut times {
            let mut command = tool.command(who);
            let start = Instant::now();
            let status = command.status().with_context(|| format!("start {}", tool.label))?;
            let passed = start.elapsed().as_secs_f64() * 1e3;
            // `why` ends with 1 where the answer is no; a signal is no answer.
            status.code().with_context(|| format!("{} was killed", tool.label))?;
            if round > 0 {
                measured.push(passed);
            }
        }
    }
    Ok(times)
}
