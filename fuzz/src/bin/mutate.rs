//! Runs targets on seeds changed at random: `mutate [TARGET] [--seconds N] [--seed N]`. Without a
//! name it runs those of `EVERY_TIME`, each for so long.
//!
//! An input that panics is written to `artifacts/` beside the seeds, and the program ends with 1.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use canreach_fuzz::random::Random;
use canreach_fuzz::{EVERY_TIME, TARGETS, Target, json, seeds_of};

fn main() -> ExitCode {
    match from_arguments().and_then(|runs| runs.into_iter().try_for_each(Run::run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("mutate: {message}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone)]
struct Run {
    name: &'static str,
    target: Target,
    time: Duration,
    seed: u64,
}

fn from_arguments() -> Result<Vec<Run>, String> {
    let run = |(name, target)| Run { name, target, time: Duration::from_secs(60), seed: 1 };
    let mut runs: Vec<Run> =
        TARGETS.into_iter().filter(|(name, _)| EVERY_TIME.contains(name)).map(run).collect();
    let names = TARGETS.map(|(name, _)| name).join(", ");
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if !argument.starts_with('-') {
            runs = TARGETS.into_iter().filter(|(name, _)| *name == argument).map(run).collect();
            if runs.is_empty() {
                return Err(format!("no target is named `{argument}`: {names}"));
            }
            continue;
        }
        let value = arguments.next().and_then(|value| value.parse().ok());
        let value = value.ok_or_else(|| format!("{argument} takes a number"))?;
        for run in &mut runs {
            match argument.as_str() {
                "--seconds" => run.time = Duration::from_secs(value),
                "--seed" => run.seed = value,
                _ => return Err(format!("no option is named `{argument}`: --seconds, --seed")),
            }
        }
    }
    Ok(runs)
}

impl Run {
    fn run(self) -> Result<(), String> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let seeds = seeds(&seeds_of(self.name))?;
        let mut random = Random::new(self.seed);
        let started = Instant::now();
        let mut executions = 0_u64;
        while started.elapsed() < self.time {
            let input = mutation(&seeds, &mut random);
            let ended = std::panic::catch_unwind(|| (self.target)(&input));
            executions += 1;
            if ended.is_err() {
                let file = home.join("artifacts").join(format!("{}-{executions}", self.name));
                let written = std::fs::create_dir_all(home.join("artifacts"))
                    .and_then(|()| std::fs::write(&file, &input));
                let place =
                    written.map_or_else(|error| error.to_string(), |()| file.display().to_string());
                return Err(format!(
                    "a panic at execution {executions}, seed {}: {place}",
                    self.seed
                ));
            }
        }
        println!(
            "{}: {executions} executions in {} s from {} seeds, seed {}: no finding",
            self.name,
            started.elapsed().as_secs(),
            seeds.len(),
            self.seed
        );
        Ok(())
    }
}

fn seeds(folder: &Path) -> Result<Vec<Vec<u8>>, String> {
    let read = |error| format!("read {}: {error}", folder.display());
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(read)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    files.sort();
    let seeds: Result<Vec<_>, _> = files.iter().map(std::fs::read).collect();
    let seeds = seeds.map_err(read)?;
    if seeds.is_empty() { Err(format!("{} holds no seeds", folder.display())) } else { Ok(seeds) }
}

fn mutation(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let seed = &seeds[random.below(seeds.len())];
    if random.below(4) != 0
        && let Some(changed) = json::mutate(seed, random)
    {
        return changed;
    }
    let mut bytes = seed.clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.number() as u8),
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let end = random.below(other.len());
                bytes.extend_from_slice(&other[random.below(end)..end]);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match random.below(4) {
                        0 => 0,
                        1 => 0xff,
                        2 => *byte ^ 1 << random.below(8),
                        _ => random.number() as u8,
                    };
                }
            }
        }
    }
    bytes
}
