//! Whether a case comes out as it says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use canreach_engine::{DropReason, Fate, Outcome, TheySee};

use crate::case::{Case, Expectation, Expected};
use crate::client::{PATIENT, QUICK};
use crate::compare::{Against, compare, got_through};
use crate::examine::{self, Examined, examine};
use crate::filter_step::Refused;
use crate::probe::{Client, Observation, Probe};
use crate::topology::{Topology, Unsupported};
use crate::trace;

/// What came of one case.
#[derive(Debug)]
pub enum CaseResult {
    /// It was run.
    Done {
        /// What differs.
        failures: Vec<Failure>,
        /// What came of comparing reasons with the kernel's own.
        reasons: ReasonCounts,
    },
    /// This machine cannot build the host.
    Skipped(String),
}

/// How many of the reasons that the kernel names as well were compared with its own.
#[derive(Debug, Default, Clone)]
pub struct ReasonCounts {
    /// The same.
    pub same: usize,
    /// Not compared, and why.
    pub skipped: BTreeMap<String, usize>,
}

impl ReasonCounts {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.same += other.same;
        for (why, count) in other.skipped {
            *self.skipped.entry(why).or_default() += count;
        }
    }
}

/// One probe that did not come out as expected.
#[derive(Debug)]
pub struct Failure {
    /// The probe's line.
    pub probe: String,
    /// What differs.
    pub text: String,
}

/// What the kernel alone did with the probes of a case, one line each; lines that differ from what
/// the case says begin with `!`.
///
/// # Errors
/// If the host cannot be built.
pub fn observe(case: &Case) -> Result<Vec<String>> {
    let probes: Vec<Probe> = case.expect.iter().map(|expected| expected.probe.clone()).collect();
    let mut examined = examine::observe(&case.host, &probes)?;
    let mut lines = Vec::new();
    for (expectation, mut kernel) in case.expect.iter().zip(examined.observations.clone()) {
        let probe = &expectation.probe;
        let differs = |examined: &Examined, kernel: &Observation| {
            let expected = expectation.expected.as_ref();
            expected.and_then(|expected| {
                kernel_agrees(&examined.topology, probe, expected, kernel).err()
            })
        };
        if differs(&examined, &kernel).is_some() {
            kernel = examined.ask_again(probe, 10 * QUICK)?;
        }
        let mark = if differs(&examined, &kernel).is_some() { "! " } else { "" };
        let served = servers(&examined.topology, &kernel).join(", ");
        let reasons = match examined.drop_reasons(probe, &[])? {
            Ok(reasons) => Vec::from_iter(reasons).join(" "),
            Err(_) => "not readable".to_owned(),
        };
        let seen = kernel.they_see.slug();
        lines.push(format!("{mark}{expectation}   # {seen}, by [{served}], drops [{reasons}]"));
    }
    Ok(lines)
}

/// Runs a case.
///
/// # Errors
/// If the lab itself fails: that is never a result.
pub fn run(case: &Case, against: Against) -> Result<CaseResult> {
    let probes: Vec<Probe> = case.expect.iter().map(|expected| expected.probe.clone()).collect();
    let mut examined = match examine(&case.host, &probes) {
        Ok(examined) => examined,
        Err(error) => match error.downcast_ref::<Unsupported>() {
            Some(lacking) => return Ok(CaseResult::Skipped(lacking.to_string())),
            None => match &case.needs {
                Some(needs) if error.is::<Refused>() => {
                    return Ok(CaseResult::Skipped(Unsupported(needs.clone()).to_string()));
                }
                _ => return Err(error),
            },
        },
    };
    let mut failures = Vec::new();
    let mut reasons = ReasonCounts::default();
    let observations = examined.observations.clone();
    for (number, (expectation, observation)) in case.expect.iter().zip(observations).enumerate() {
        let kernel = observation.clone();
        let mut text = judge(&examined, number, expectation, observation, against)?;
        // Where the kernel did what it should, asking it once more does not help.
        let surprise = expectation.expected.as_ref().is_none_or(|expected| {
            kernel_agrees(&examined.topology, &expectation.probe, expected, &kernel).is_err()
        });
        if text.is_some() && surprise {
            let again = examined.ask_again(&expectation.probe, PATIENT)?;
            text = judge(&examined, number, expectation, again, against)?;
        }
        if text.is_none() {
            text = judge_reason(&mut examined, expectation, &mut reasons)?;
        }
        let probe = expectation.to_string();
        failures.extend(text.map(|text| Failure { probe, text }));
    }
    Ok(CaseResult::Done { failures, reasons })
}

/// Whether the kernel gives the reason that the case gives, where it names one; what is wrong, in
/// words.
fn judge_reason(
    examined: &mut Examined,
    expectation: &Expectation,
    counts: &mut ReasonCounts,
) -> Result<Option<String>> {
    let Some(Expected::No { reason, they_see }) = &expectation.expected else { return Ok(None) };
    let no_packet = is_unasked(&examined.topology, &expectation.probe, *reason, *they_see);
    if trace::kernel_names(*reason).is_empty() || no_packet {
        return Ok(None);
    }
    let mut seen = BTreeSet::new();
    // Somebody else's turn on this processor may receive the packet: another chance.
    for _ in 0..4 {
        match examined.drop_reasons(&expectation.probe, trace::kernel_names(*reason))? {
            Ok(reasons) => seen.extend(reasons),
            Err(why) => {
                *counts.skipped.entry(why).or_default() += 1;
                return Ok(None);
            }
        }
        if trace::kernel_names(*reason).iter().any(|name| seen.contains(*name)) {
            counts.same += 1;
            return Ok(None);
        }
    }
    Ok(Some(format!("  ! the case says {}, and the kernel {seen:?}\n", reason.slug())))
}

/// What is wrong with a result, in words; `None` where nothing is.
fn judge(
    examined: &Examined,
    number: usize,
    expectation: &Expectation,
    kernel: Observation,
    against: Against,
) -> Result<Option<String>> {
    let (topology, probe) = (&examined.topology, &expectation.probe);
    let mut comparison = compare(examined, number, probe, kernel, against)?;
    if let Some(expected) = &expectation.expected {
        let kernel = kernel_agrees(topology, probe, expected, &comparison.kernel);
        let reference = fate_agrees(expected, &comparison.reference);
        comparison.mismatches.extend([kernel, reference].into_iter().filter_map(Result::err));
    }
    Ok((!comparison.mismatches.is_empty()).then(|| comparison.to_string()))
}

/// Whether no packet may ever come, because nobody answers for the address on the link; to a local
/// client, connect(2) says it instead. A TCP server ignores IPv4-mapped senders without a reason.
fn is_unasked(
    topology: &Topology,
    probe: &Probe,
    reason: DropReason,
    they_see: Option<TheySee>,
) -> bool {
    let to = probe.to.ip();
    let link_local = matches!(to, IpAddr::V6(to) if to.is_unicast_link_local());
    let asked_for = match &probe.client {
        Client::Own { .. } => true,
        Client::Peer { raw: true, .. } => false,
        Client::Peer { source, via, .. } => {
            link_local || topology.wiring.resolver(via, *source, to).is_some()
        }
    };
    let unreachable = matches!(they_see, Some(TheySee::HostUnreachable | TheySee::Silence));
    let mapped = matches!(&probe.client, Client::Peer { source: IpAddr::V6(source), .. }
        if source.to_ipv4_mapped().is_some());
    match reason {
        DropReason::Martian if mapped => true,
        DropReason::NotLocal => asked_for,
        DropReason::Martian
        | DropReason::OwnSource
        | DropReason::RpFilter
        | DropReason::Ipv6Disabled => asked_for && unreachable,
        _ => false,
    }
}

fn fate_agrees(expected: &Expected, fate: &Fate) -> Result<(), String> {
    let right = match (expected, &fate.outcome) {
        (Expected::Yes { .. }, Outcome::Delivered(_)) => true,
        (Expected::No { reason, they_see }, Outcome::Stopped(found)) => {
            reason == found && *they_see == fate.they_see
        }
        (Expected::Unknown { reason, .. }, Outcome::Unknown(found)) => reason == found,
        _ => false,
    };
    if right { Ok(()) } else { Err("the reference evaluator and the case differ".to_owned()) }
}

/// The lines of the servers that got something.
fn servers(topology: &Topology, kernel: &Observation) -> Vec<String> {
    let of = |position: &usize| topology.servers[*position].step.to_string();
    kernel.served_by.iter().map(of).collect()
}

fn kernel_agrees(
    topology: &Topology,
    probe: &Probe,
    expected: &Expected,
    kernel: &Observation,
) -> Result<(), String> {
    let served = servers(topology, kernel);
    let copies = topology.wiring.is_shared(probe.to.ip()) && !served.is_empty();
    let got_through = got_through(kernel) || copies;
    let right = match expected {
        Expected::Yes { by } => {
            got_through && by.as_ref().is_none_or(|by| served.iter().all(|line| line == by))
        }
        Expected::No { they_see, .. } => {
            !got_through && they_see.is_none_or(|they_see| they_see == kernel.they_see)
        }
        Expected::Unknown { they_see, .. } => {
            they_see.is_none_or(|they_see| they_see == kernel.they_see)
        }
    };
    if right {
        Ok(())
    } else {
        Err(format!("the kernel and the case differ; served by {served:?}"))
    }
}
