//! The lab's command line, shared by its binary and its tests.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::case::{self, Case};
use crate::compare::Against;
use crate::corpus;
use crate::fix::{self, Tried};
use crate::judge::{self, CaseResult, Failure, ReasonCounts};
use crate::netns::Privilege;
use crate::random_run::RandomRun;
use crate::sickbay::{self, Known};
use crate::step::Step;
use crate::wiring::Wiring;

/// Real namespaces: the kernel against the reference evaluator against the engine.
#[derive(Debug, Parser)]
#[command(name = "lab")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the hand-written cases.
    Cases {
        /// Only those whose name holds this.
        filter: Option<String>,
        /// Read this file instead of the ones that come with the lab.
        #[arg(long)]
        file: Option<PathBuf>,
        /// How many hosts at once.
        #[arg(long, default_value_t = 4)]
        jobs: usize,
        /// Hold the kernel against the reference evaluator alone.
        #[arg(long)]
        without_engine: bool,
        /// Hold the kernel against the engine alone.
        #[arg(long)]
        without_reference: bool,
    },
    /// Print what the kernel alone does with the questions of the hand-written cases.
    Observe {
        /// Only cases whose name holds this.
        filter: Option<String>,
        /// Read this file instead of the ones that come with the lab.
        #[arg(long)]
        file: Option<PathBuf>,
        /// How many hosts at once.
        #[arg(long, default_value_t = 4)]
        jobs: usize,
        /// Only what differs from what the cases say.
        #[arg(long)]
        differing: bool,
    },
    /// Carry out the fixes for what stops the questions of the hand-written cases.
    Fixes {
        /// Only cases whose name holds this.
        filter: Option<String>,
        /// How many hosts at once.
        #[arg(long, default_value_t = 4)]
        jobs: usize,
    },
    /// Ask hosts with rules that real programs wrote.
    Corpus {
        /// How many hosts at once.
        #[arg(long, default_value_t = 4)]
        jobs: usize,
    },
    /// Build random hosts and ask each of them.
    Random {
        /// The seed of the first host; each of the following has the next number.
        #[arg(long)]
        seed: u64,
        /// How many hosts.
        #[arg(long)]
        hosts: u64,
        /// How many questions each.
        #[arg(long, default_value_t = 50)]
        probes: usize,
        /// How many of a hundred hosts have packet filters; all, if no number is given.
        #[arg(long, default_value_t = 0, num_args = 0..=1, default_missing_value = "100")]
        rules: usize,
        /// Print the rules that were refused.
        #[arg(long)]
        show_refused: bool,
        /// How many hosts at once.
        #[arg(long, default_value_t = 4)]
        jobs: usize,
        /// Hold the kernel against the reference evaluator alone.
        #[arg(long)]
        without_engine: bool,
        /// Hold the kernel against the engine alone.
        #[arg(long)]
        without_reference: bool,
    },
}

/// How many passed, failed and were skipped.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

/// Runs the lab with the arguments of this process. Call it first thing in `main`, while the process
/// has one thread.
#[must_use]
pub fn main() -> ExitCode {
    run(&Arguments::parse())
}

/// Runs the lab.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let mut out = std::io::stdout();
    let result = match Privilege::acquire() {
        Ok(privilege) => carry_out(arguments, privilege, &mut out),
        Err(reason) => {
            // Not a failure: the machine forbids it. It is counted, so that nobody takes it for a pass.
            writeln!(out, "skipped: everything: {reason:#}\n0 passed, 0 failed, 1 skipped")
                .map(|()| true)
                .map_err(Into::into)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to do if the error cannot be printed either.
            let _ = writeln!(std::io::stderr(), "lab: {error:#}");
            ExitCode::from(4)
        }
    }
}

fn carry_out(arguments: &Arguments, privilege: Privilege, out: &mut impl Write) -> Result<bool> {
    let how = match privilege {
        Privilege::Root => "as root",
        Privilege::UserNamespace => "in a user namespace",
    };
    writeln!(out, "running {how}")?;
    let counts = match &arguments.action {
        Action::Cases { filter, file, jobs, without_engine, without_reference } => {
            let mut cases = read_cases(file.as_deref())?;
            if let Some(filter) = filter {
                cases.retain(|case| case.name.contains(filter.as_str()));
            }
            run_cases(&cases, *jobs, Against::of(*without_engine, *without_reference), out)?
        }
        Action::Observe { filter, file, jobs, differing } => {
            let mut cases = read_cases(file.as_deref())?;
            if let Some(filter) = filter {
                cases.retain(|case| case.name.contains(filter.as_str()));
            }
            observe_cases(&cases, *jobs, *differing, out)?
        }
        Action::Fixes { filter, jobs } => {
            let mut cases = read_cases(None)?;
            if let Some(filter) = filter {
                cases.retain(|case| case.name.contains(filter.as_str()));
            }
            // The undo of a firewall's fix names a handle that only who types it has seen.
            let all = cases.len();
            cases.retain(|case| !case.host.iter().any(|step| matches!(step, Step::Filter(_))));
            writeln!(out, "{} cases with packet filters are left out", all - cases.len())?;
            run_fixes(&cases, *jobs, out)?
        }
        Action::Corpus { jobs } => corpus::run(&own_folder().join("corpus"), *jobs, out)?,
        Action::Random {
            seed,
            hosts,
            probes,
            rules,
            show_refused,
            jobs,
            without_engine,
            without_reference,
        } => {
            let seeds: Vec<u64> = (*seed..seed.saturating_add(*hosts)).collect();
            let run = RandomRun {
                probes: *probes,
                rules: *rules,
                show_refused: *show_refused,
                jobs: *jobs,
                against: Against::of(*without_engine, *without_reference),
            };
            run.carry_out(&seeds, out)?
        }
    };
    writeln!(
        out,
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    )?;
    Ok(counts.failed == 0)
}

/// The folder of the lab's own files.
fn own_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read_cases(file: Option<&Path>) -> Result<Vec<Case>> {
    let files = match file {
        Some(file) => vec![file.to_owned()],
        None => {
            let folder = own_folder().join("cases");
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
            let mut files: Vec<PathBuf> =
                entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
            files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
            files.sort();
            files
        }
    };
    let mut cases = Vec::new();
    for path in files {
        let name = || format!("read {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(name)?;
        cases.extend(case::read(&text).with_context(name)?);
    }
    Ok(cases)
}

fn run_cases(
    cases: &[Case],
    jobs: usize,
    against: Against,
    out: &mut impl Write,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let path = own_folder().join("sickbay.toml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let sickbay = sickbay::read(&text).with_context(|| format!("read {}", path.display()))?;
    let mut all_reasons = ReasonCounts::default();
    let results = in_parallel(cases, jobs, |case| judge::run(case, against));
    for (case, result) in cases.iter().zip(results) {
        match result.with_context(|| format!("case `{}`", case.name)) {
            Ok(CaseResult::Skipped(reason)) => {
                writeln!(out, "skipped: {}: {reason}", case.name)?;
                counts.skipped += 1;
            }
            Ok(CaseResult::Done { failures, reasons }) => {
                all_reasons.add(reasons);
                if report_case(case, &failures, &sickbay, out)? {
                    counts.passed += 1;
                } else {
                    counts.failed += 1;
                }
            }
            Err(error) => {
                writeln!(out, "\nFAILED: {error:#}")?;
                counts.failed += 1;
            }
        }
    }
    writeln!(out, "{} reasons are the kernel's own", all_reasons.same)?;
    for (why, count) in all_reasons.skipped {
        writeln!(out, "skipped: {count} reasons, not compared: {why}")?;
        counts.skipped += 1;
    }
    Ok(counts)
}

fn observe_cases(
    cases: &[Case],
    jobs: usize,
    differing: bool,
    out: &mut impl Write,
) -> Result<Counts> {
    let mut counts = Counts::default();
    for (case, result) in cases.iter().zip(in_parallel(cases, jobs, judge::observe)) {
        let lines = match result {
            Ok(lines) => lines,
            Err(error) => {
                writeln!(out, "\n{}\nnot built: {error:#}", case.name)?;
                counts.skipped += 1;
                continue;
            }
        };
        let differs = lines.iter().any(|line| line.starts_with('!'));
        if differs {
            counts.failed += 1;
        } else {
            counts.passed += 1;
        }
        if differs || !differing {
            writeln!(out, "\n{}\n{}", case.name, lines.join("\n"))?;
        }
    }
    Ok(counts)
}

/// Prints what went wrong with a case, and says whether nothing did but what is known.
fn report_case(
    case: &Case,
    failures: &[Failure],
    sickbay: &[Known],
    out: &mut impl Write,
) -> Result<bool> {
    let is_known =
        |failure: &&Failure| sickbay::find(sickbay, &case.name, &failure.probe).is_some();
    for failure in failures.iter().filter(is_known) {
        writeln!(out, "known: {}: {}", case.name, failure.probe)?;
    }
    // An entry whose cause is gone is a failure too: it would hide the next one.
    let recovered: Vec<&Known> = sickbay
        .iter()
        .filter(|known| known.case == case.name)
        .filter(|known| failures.iter().all(|failure| failure.probe != known.probe))
        .collect();
    let new: Vec<&Failure> = failures.iter().filter(|failure| !is_known(failure)).collect();
    if new.is_empty() && recovered.is_empty() {
        return Ok(true);
    }
    writeln!(out, "\nFAILED: {} (shows {})", case.name, case.shows)?;
    for known in recovered {
        writeln!(out, "{}: agrees now; take it out of sickbay.toml", known.probe)?;
    }
    if !new.is_empty() {
        writeln!(out, "{}\n{case}", Wiring::of(&case.host).drawing())?;
    }
    for failure in new {
        writeln!(out, "{}\n{}", failure.probe, failure.text)?;
    }
    Ok(false)
}

fn run_fixes(cases: &[Case], jobs: usize, out: &mut impl Write) -> Result<Counts> {
    let mut counts = Counts::default();
    if let Some(missing) = fix::what_is_missing() {
        writeln!(out, "skipped: every fix: {missing}")?;
        counts.skipped = cases.len();
        return Ok(counts);
    }
    let results = in_parallel(cases, jobs, fix::run);
    for (case, result) in cases.iter().zip(results) {
        match result.with_context(|| format!("fixes of case `{}`", case.name)) {
            Ok(Tried::Passed(fixes)) => counts.passed += fixes,
            Ok(Tried::Skipped(reason)) => {
                writeln!(out, "skipped: {}: {reason}", case.name)?;
                counts.skipped += 1;
            }
            Ok(Tried::Failed(failures)) => {
                writeln!(out, "\nFAILED: {}\n{}", case.name, Wiring::of(&case.host).drawing())?;
                for failure in failures {
                    writeln!(out, "{failure}")?;
                }
                counts.failed += 1;
            }
            Err(error) => {
                writeln!(out, "\nFAILED: {error:#}")?;
                counts.failed += 1;
            }
        }
    }
    Ok(counts)
}

/// Does the same with each of many things, several at a time, and returns the results in order.
pub fn in_parallel<T: Sync, R: Send>(
    things: &[T],
    jobs: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((position, thing)) = {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    things.get(position).map(|thing| (position, thing))
                } {
                    let result = work(thing);
                    let mut results = results.lock().expect("no holder of this lock panics");
                    results.push((position, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no holder of this lock panics");
    results.sort_by_key(|(position, _)| *position);
    results.into_iter().map(|(_, result)| result).collect()
}
