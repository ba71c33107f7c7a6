//! The random lab: hosts from seeds, asked of the kernel, the reference evaluator and the engine.

use std::collections::BTreeMap;

use std::time::Duration;

use anyhow::{Context, Result};
use canreach_engine::UnknownReason;

use crate::case::{Case, Expectation};
use crate::client::{PATIENT, QUICK};
use crate::compare::{Against, Comparison, compare};
use crate::examine::{Examined, ask, examine};
use crate::generate;
use crate::netns::has_user;
use crate::probe::{Client, Observation, Probe};
use crate::question;
use crate::shrink::shrink;
use crate::step::Step;
use crate::topology::Topology;

/// What came of one random host.
#[derive(Debug, Default)]
pub struct HostResult {
    /// How many questions were asked.
    pub asked: usize,
    /// How many of them cannot be told, by reason.
    pub unknown: BTreeMap<UnknownReason, usize>,
    /// How many got through.
    pub connected: usize,
    /// How many rules were loaded.
    pub rules: usize,
    /// What was refused of them, in words.
    pub refused: Vec<String>,
    /// Where the three differ.
    pub disagreements: Vec<Disagreement>,
    /// Probes that came out differently when a fresh host was asked nothing else: what they met was
    /// left behind by others (a neighbour entry, the limit of ICMP errors), and no model of a first
    /// packet knows it.
    pub passing: Vec<Probe>,
}

/// A probe of which the three say different things.
#[derive(Debug)]
pub struct Disagreement {
    /// The smallest host that still shows it, and the probe.
    pub case: Case,
    /// Who said what.
    pub comparison: Comparison,
}

/// Builds the host of a seed, asks it, and compares.
///
/// # Errors
/// If the lab itself fails.
pub fn run(seed: u64, probes: usize, with_rules: bool, against: Against) -> Result<HostResult> {
    let steps = if with_rules { generate::host_with_rules(seed) } else { generate::host(seed) };
    let (topology, refusals) = Topology::build_what_is_possible(&steps)?;
    let of_rules =
        refusals.iter().filter(|refusal| matches!(steps[refusal.position], Step::Filter(_)));
    let refused = of_rules.map(|refusal| format!("{:#}", refusal.error)).collect();
    let steps = topology.done.clone();
    let mut probes = question::probes(seed, &steps, probes);
    // A user namespace made without help has one user.
    probes.retain(|probe| match probe.client {
        Client::Own { uid, .. } => has_user(uid),
        Client::Peer { .. } => true,
    });
    let mut examined = ask(topology, &probes)?;
    let rules = steps.iter().filter(|step| matches!(step, Step::Filter(_))).count();
    let mut result = HostResult { asked: probes.len(), rules, refused, ..HostResult::default() };
    for (number, observation) in examined.observations.clone().into_iter().enumerate() {
        let probe = &probes[number];
        let comparison = judge(&mut examined, (number, probe), observation, against, PATIENT)?;
        if let Some(reason) = comparison.unknown() {
            *result.unknown.entry(reason).or_default() += 1;
        }
        result.connected += usize::from(comparison.got_through());
        // One of a kind is enough: the shrinker takes its time.
        if !comparison.mismatches.is_empty() && result.disagreements.is_empty() {
            match minimize(seed, &steps, probe, against)? {
                Some(disagreement) => result.disagreements.push(disagreement),
                None => result.passing.push(probe.clone()),
            }
        }
    }
    Ok(result)
}

/// Compares; what is a surprise is asked again before it counts.
fn judge(
    examined: &mut Examined,
    (number, probe): (usize, &Probe),
    observation: Observation,
    against: Against,
    patience: Duration,
) -> Result<Comparison> {
    let first = compare(examined, number, probe, observation, against)?;
    if !first.may_pass() {
        return Ok(first);
    }
    let again = examined.ask_again(probe, patience)?;
    compare(examined, number, probe, again, against)
}

fn minimize(
    seed: u64,
    steps: &[Step],
    probe: &Probe,
    against: Against,
) -> Result<Option<Disagreement>> {
    let shown = |steps: &[Step]| show(steps, probe, against);
    let Some(alone) = shown(steps)? else { return Ok(None) };
    let (host, comparison) = shrink(steps, alone, shown);
    let expect = vec![Expectation { probe: probe.clone(), expected: None }];
    let (name, shows) = (format!("seed {seed}"), "a disagreement".to_owned());
    let case = Case { name, shows, host, needs: None, expect };
    Ok(Some(Disagreement { case, comparison }))
}

/// The comparison on a host, if the three differ there; `None` also where it cannot be built.
fn show(steps: &[Step], probe: &Probe, against: Against) -> Result<Option<Comparison>> {
    let Ok(mut examined) = examine(steps, std::slice::from_ref(probe)) else { return Ok(None) };
    let observation = examined.observations.first().cloned().context("one probe was asked")?;
    // The surprise was confirmed before; many smaller hosts follow, and each waits this long.
    let comparison = judge(&mut examined, (0, probe), observation, against, 4 * QUICK)?;
    Ok((!comparison.mismatches.is_empty()).then_some(comparison))
}
