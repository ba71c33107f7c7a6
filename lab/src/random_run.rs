//! Many random hosts, and what came of them in numbers.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use canreach_engine::UnknownReason;

use crate::command::{Counts, in_parallel};
use crate::compare::Against;
use crate::differential::{self, HostResult};
use crate::random::Random;
use crate::sickbay::{self, KnownSeed};
use crate::wiring::Wiring;

/// How many questions a host is asked in the tests.
const USUAL_PROBES: usize = 50;

/// How to run.
#[derive(Debug)]
pub(crate) struct RandomRun {
    /// Questions for each host.
    pub(crate) probes: usize,
    /// How many of a hundred hosts have packet filters.
    pub(crate) rules: usize,
    /// Print what was refused of them.
    pub(crate) show_refused: bool,
    /// Hosts at once.
    pub(crate) jobs: usize,
    /// What the kernel is held against.
    pub(crate) against: Against,
}

/// What came of all hosts.
#[derive(Debug, Default)]
struct Sums {
    asked: usize,
    connected: usize,
    passing: usize,
    rules: usize,
    hosts_with_rules: usize,
    refused: usize,
    hosts_refused: usize,
    unknown: BTreeMap<UnknownReason, usize>,
}

impl RandomRun {
    /// Builds a host of each seed, and asks.
    ///
    /// # Errors
    /// If nothing can be printed.
    pub(crate) fn carry_out(&self, seeds: &[u64], out: &mut impl Write) -> Result<Counts> {
        let known = sickbay::read_seeds(include_str!("../sickbay.toml"))?;
        let mut counts = Counts::default();
        let mut sums = Sums::default();
        // In portions, so that a long run can be watched.
        for portion in seeds.chunks(500) {
            let run = |seed: &u64| {
                let with_rules = Random::new(seed ^ 0x6672_6163).percent(self.rules);
                differential::run(*seed, self.probes, with_rules, self.against)
            };
            for (seed, result) in portion.iter().zip(in_parallel(portion, self.jobs, run)) {
                match result {
                    Ok(result) => {
                        let known = known.iter().find(|known| known.seed == *seed);
                        // The list is about hosts with rules, at the usual number of questions.
                        let known =
                            known.filter(|_| result.rules > 0 && self.probes >= USUAL_PROBES);
                        self.report((*seed, known), result, &mut counts, &mut sums, out)?;
                    }
                    Err(error) => {
                        writeln!(out, "\nFAILED: seed {seed}: {error:#}")?;
                        counts.failed += 1;
                    }
                }
            }
            let last = portion.last().copied().unwrap_or_default();
            writeln!(out, "seeds up to {last}: {} agree, {} do not", counts.passed, counts.failed)?;
        }
        sums.print(out)?;
        Ok(counts)
    }

    fn report(
        &self,
        (seed, known): (u64, Option<&KnownSeed>),
        result: HostResult,
        counts: &mut Counts,
        sums: &mut Sums,
        out: &mut impl Write,
    ) -> Result<()> {
        if self.show_refused {
            for refused in &result.refused {
                writeln!(out, "seed {seed}: refused: {refused}")?;
            }
        }
        sums.add(&result);
        match (result.disagreements.is_empty(), known) {
            (false, Some(known)) => {
                counts.passed += 1;
                writeln!(out, "known: seed {seed}: {}", known.reason)?;
                return Ok(());
            }
            (true, Some(_)) => {
                counts.failed += 1;
                writeln!(out, "\nFAILED: seed {seed} agrees by now: take it off the list")?;
            }
            (true, None) => counts.passed += 1,
            (false, None) => counts.failed += 1,
        }
        for probe in result.passing {
            writeln!(out, "seed {seed}: `{probe}` differs only after other questions")?;
        }
        for disagreement in result.disagreements {
            let case = &disagreement.case;
            writeln!(out, "\nFAILED: {}\n{}", case.name, Wiring::of(&case.host).drawing())?;
            writeln!(out, "{case}{}", disagreement.comparison)?;
        }
        Ok(())
    }
}

impl Sums {
    fn add(&mut self, result: &HostResult) {
        self.asked += result.asked;
        self.connected += result.connected;
        self.passing += result.passing.len();
        self.rules += result.rules;
        self.hosts_with_rules += usize::from(result.rules > 0);
        self.refused += result.refused.len();
        self.hosts_refused += usize::from(!result.refused.is_empty());
        for (reason, count) in &result.unknown {
            *self.unknown.entry(*reason).or_default() += count;
        }
    }

    fn print(&self, out: &mut impl Write) -> Result<()> {
        let Self { asked, connected, passing, rules, hosts_with_rules, refused, .. } = self;
        let unknown: usize = self.unknown.values().sum();
        let share = 100.0 * unknown as f64 / (*asked).max(1) as f64;
        writeln!(
            out,
            "{asked} questions, {connected} connected, {unknown} unknown ({share:.1} %)"
        )?;
        writeln!(out, "{passing} differed only after other questions")?;
        writeln!(
            out,
            "{rules} rules on {hosts_with_rules} hosts, {refused} more refused on {} hosts",
            self.hosts_refused
        )?;
        for (reason, count) in &self.unknown {
            writeln!(out, "  {count} {}", reason.slug())?;
        }
        Ok(())
    }
}
