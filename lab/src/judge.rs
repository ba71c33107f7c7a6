//! Whether a case comes out as it says.

use anyhow::Result;
use canreach_engine::{Fate, Outcome, TheySee};

use crate::case::{Case, Expectation, Expected};
use crate::client::PATIENT;
use crate::compare::compare;
use crate::examine::{Examined, examine};
use crate::probe::{Observation, Probe};
use crate::topology::{Topology, Unsupported};

/// What came of one case.
#[derive(Debug)]
pub enum CaseResult {
    /// It was run; what differs, in words, each with its probe.
    Done(Vec<Failure>),
    /// This machine cannot build the host.
    Skipped(String),
}

/// One probe that did not come out as expected.
#[derive(Debug)]
pub struct Failure {
    /// The probe's line.
    pub probe: String,
    /// What differs.
    pub text: String,
}

/// Runs a case.
///
/// # Errors
/// If the lab itself fails: that is never a result.
pub fn run(case: &Case, with_engine: bool) -> Result<CaseResult> {
    let probes: Vec<Probe> = case.expect.iter().map(|expected| expected.probe.clone()).collect();
    let mut examined = match examine(&case.host, &probes) {
        Ok(examined) => examined,
        Err(error) => match error.downcast_ref::<Unsupported>() {
            Some(lacking) => return Ok(CaseResult::Skipped(lacking.to_string())),
            None => return Err(error),
        },
    };
    let mut failures = Vec::new();
    let observations = examined.observations.clone();
    for (number, (expectation, observation)) in case.expect.iter().zip(observations).enumerate() {
        let mut text = judge(&examined, number, expectation, observation, with_engine)?;
        if text.is_some() {
            let again = examined.ask_again(&expectation.probe, PATIENT)?;
            text = judge(&examined, number, expectation, again, with_engine)?;
        }
        let probe = expectation.to_string();
        failures.extend(text.map(|text| Failure { probe, text }));
    }
    Ok(CaseResult::Done(failures))
}

/// What is wrong with a result, in words; `None` where nothing is.
fn judge(
    examined: &Examined,
    number: usize,
    expectation: &Expectation,
    kernel: Observation,
    with_engine: bool,
) -> Result<Option<String>> {
    let (topology, probe) = (&examined.topology, &expectation.probe);
    let mut comparison = compare(examined, number, probe, kernel, with_engine)?;
    if let Some(expected) = &expectation.expected {
        let kernel = kernel_agrees(topology, probe, expected, &comparison.kernel);
        let reference = fate_agrees(expected, &comparison.reference);
        comparison.mismatches.extend([kernel, reference].into_iter().filter_map(Result::err));
    }
    Ok((!comparison.mismatches.is_empty()).then(|| comparison.to_string()))
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

fn kernel_agrees(
    topology: &Topology,
    probe: &Probe,
    expected: &Expected,
    kernel: &Observation,
) -> Result<(), String> {
    let served: Vec<String> = kernel
        .served_by
        .iter()
        .map(|position| topology.servers[*position].step.to_string())
        .collect();
    let copies = topology.wiring.is_shared(probe.to.ip()) && !served.is_empty();
    let got_through = matches!(kernel.they_see, TheySee::Connected | TheySee::Delivered) || copies;
    let right = match expected {
        Expected::Yes { by } => {
            got_through && by.as_ref().is_none_or(|by| served.iter().all(|line| line == by))
        }
        Expected::No { they_see, .. } => {
            !got_through && they_see.is_none_or(|they_see| they_see == kernel.they_see)
        }
        Expected::Unknown { they_see, .. } => *they_see == kernel.they_see,
    };
    if right {
        Ok(())
    } else {
        Err(format!("the kernel and the case differ; served by {served:?}"))
    }
}
