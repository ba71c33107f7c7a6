//! Whether fixes fix: each that changes the machine is carried out on the real host of a case, asked
//! of its kernel, and taken back.
//!
//! Fixes that start a server anew are not tried here: there is no server of that name in the lab.

use std::process::Command;

use anyhow::{Context, Result, bail};
use canreach_engine::explain::fix::{Fix, FixStep, Undo};
use canreach_engine::explain::remedy::remedies;
use canreach_engine::{
    AddressSet, Answer, Arrival, DropReason, Host, Question, TheySee, Verdict, answer,
};
use canreach_snapshot::{Machine, Netns, Prefix, Snapshot};

use crate::case::{Case, Expected};
use crate::client::PATIENT;
use crate::compare::packet;
use crate::examine::{Examined, examine, read_settled_host};
use crate::probe::{Client, Probe};
use crate::topology::Unsupported;

/// What came of the fixes of one case.
#[derive(Debug)]
pub enum Tried {
    /// So many did what they should, and were taken back.
    Passed(usize),
    /// What went wrong, in words.
    Failed(Vec<String>),
    /// This machine cannot build the host.
    Skipped(String),
}

/// Tries every fix of every question of a case that is answered with no.
///
/// # Errors
/// If the lab itself fails.
pub fn run(case: &Case) -> Result<Tried> {
    let stopped = |expected: &Option<Expected>| matches!(expected, Some(Expected::No { .. }));
    let probes: Vec<Probe> = case
        .expect
        .iter()
        .filter(|expectation| stopped(&expectation.expected) && can_be_asked(&expectation.probe))
        .map(|expectation| expectation.probe.clone())
        .collect();
    if probes.is_empty() {
        return Ok(Tried::Passed(0));
    }
    let mut examined = match examine(&case.host, &probes) {
        Ok(examined) => examined,
        Err(error) => match error.downcast_ref::<Unsupported>() {
            Some(lacking) => return Ok(Tried::Skipped(lacking.to_string())),
            None => return Err(error),
        },
    };
    let mut passed = 0;
    let mut failures = Vec::new();
    for probe in &probes {
        match try_fixes(&mut examined, probe) {
            Ok(tried) => passed += tried,
            Err(error) => failures.push(format!("{probe}: {error:#}")),
        }
    }
    Ok(if failures.is_empty() { Tried::Passed(passed) } else { Tried::Failed(failures) })
}

/// Frames that no kernel sends cannot connect, whatever is fixed.
const fn can_be_asked(probe: &Probe) -> bool {
    match &probe.client {
        Client::Own { source, .. } => source.is_none(),
        Client::Peer { raw, .. } => !*raw,
    }
}

fn question(examined: &Examined, probe: &Probe) -> Result<Question> {
    let packet = packet(&examined.topology, probe, 0)?;
    let from = match packet.arrival {
        Arrival::Local { .. } => AddressSet::all(packet.family()),
        Arrival::Link(_) => {
            AddressSet::from_prefixes(packet.family(), [Prefix::host(packet.source)])
        }
    };
    Ok(Question {
        proto: packet.proto,
        port: packet.destination_port,
        from,
        to: packet.destination,
        via: packet.arrival,
    })
}

/// Carries out the fixes of one question, one after the other, and takes them back. Returns how many.
fn try_fixes(examined: &mut Examined, probe: &Probe) -> Result<usize> {
    let question = question(examined, probe)?;
    let ask = |netns: &Netns| answer(&Host::resolve(netns), &question);
    let before = ask(&examined.netns);
    let snapshot = Snapshot {
        machine: Machine::default(),
        namespaces: vec![examined.netns.clone()],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    };
    let fixes: Vec<(Vec<String>, Undo, DropReason)> =
        remedies(&snapshot, &examined.netns, &before).into_iter().filter_map(commands).collect();
    for (commands, _, reason) in &fixes {
        carry_out(examined, commands)?;
        let after = ask(&read_settled_host(&examined.topology)?);
        if blockers(&after).contains(reason) {
            bail!("`{}` leaves {}", commands.join("; "), reason.slug());
        }
    }
    let after = ask(&read_settled_host(&examined.topology)?);
    if !fixes.is_empty() && after.verdict == Verdict::Yes {
        let seen = examined.ask_again(probe, PATIENT)?.they_see;
        if !matches!(seen, TheySee::Connected | TheySee::Delivered) {
            bail!("fixed in the model, and the kernel says {}", seen.slug());
        }
    }
    for (_, undo, _) in fixes.iter().rev() {
        carry_out(examined, &undo.commands)?;
    }
    // Stopped again; by another reason where a link that never was up has kept its routes.
    let undone = ask(&read_settled_host(&examined.topology)?);
    if undone.verdict != before.verdict {
        bail!("taken back, the answer is {}", undone.verdict.slug());
    }
    Ok(fixes.len())
}

/// What a fix types, if it changes the machine and nothing has to be filled in.
fn commands(fix: Fix) -> Option<(Vec<String>, Undo, DropReason)> {
    let undo = fix.undo.filter(|undo| !undo.take_lines_out)?;
    let lines: Option<Vec<String>> = fix
        .steps
        .into_iter()
        .map(|step| match step {
            FixStep::Run(line) => Some(line),
            FixStep::Form(_) | FixStep::Write(..) => None,
        })
        .collect();
    Some((lines?, undo, fix.reason))
}

fn blockers(answer: &Answer) -> Vec<DropReason> {
    let groups = answer.groups.iter().flat_map(|group| &group.blockers);
    groups.map(|blocker| blocker.reason).collect()
}

/// Types commands on the host, without the word that asks for root: the lab is root there.
fn carry_out(examined: &Examined, commands: &[String]) -> Result<()> {
    for command in commands {
        let line = command.replace("sudo ", "");
        let output = examined.topology.host.enter(|| {
            Command::new("sh").args(["-c", &line]).output().with_context(|| format!("run `{line}`"))
        })?;
        if !output.status.success() {
            bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

/// Why fixes cannot be tried here; `None` where they can.
#[must_use]
pub fn what_is_missing() -> Option<String> {
    let has = |program: &str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        found.is_ok_and(|output| output.status.success())
    };
    let missing: Vec<&str> = ["ip", "sysctl"].into_iter().filter(|program| !has(program)).collect();
    (!missing.is_empty()).then(|| format!("programs that fixes call: {}", missing.join(", ")))
}
