//! Whether a case comes out as it says.

use anyhow::Result;
use canreach_engine::TheySee;

use crate::case::{Case, Expectation, Expected};
use crate::examine::{Examined, examine};
use crate::probe::{Observation, Probe};
use crate::topology::{Topology, Unsupported};

/// What came of one case.
#[derive(Debug)]
pub enum CaseResult {
    /// Everything as expected.
    Passed,
    /// What differs, in words, each with its probe.
    Failed(Vec<Failure>),
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
pub fn run(case: &Case) -> Result<CaseResult> {
    let probes: Vec<Probe> = case.expect.iter().map(|expected| expected.probe.clone()).collect();
    let mut examined = match examine(&case.host, &probes) {
        Ok(examined) => examined,
        Err(error) => match error.downcast_ref::<Unsupported>() {
            Some(lacking) => return Ok(CaseResult::Skipped(lacking.to_string())),
            None => return Err(error),
        },
    };
    let mut failures = Vec::new();
    for (expectation, observation) in case.expect.iter().zip(examined.observations.clone()) {
        let mut texts = judge(&examined, expectation, &observation);
        if !texts.is_empty() {
            let again = examined.ask_again(&expectation.probe)?;
            texts = judge(&examined, expectation, &again);
        }
        let probe = expectation.to_string();
        failures.extend(texts.into_iter().map(|text| Failure { probe: probe.clone(), text }));
    }
    Ok(if failures.is_empty() { CaseResult::Passed } else { CaseResult::Failed(failures) })
}

fn judge(examined: &Examined, expectation: &Expectation, kernel: &Observation) -> Vec<String> {
    let Some(expected) = &expectation.expected else { return Vec::new() };
    let probe = &expectation.probe;
    let mut texts = Vec::new();
    if let Err(text) = kernel_agrees(&examined.topology, probe, expected, kernel) {
        texts.push(text);
    }
    texts
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
    let saw = format!("kernel: they see {}, served by {served:?}", kernel.they_see.slug());
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
    if right { Ok(()) } else { Err(saw) }
}
