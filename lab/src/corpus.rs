//! Rules as real programs wrote them (`corpus/`): a grid of questions to each, asked of the kernel,
//! the reference evaluator and the engine, and counted.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use canreach_snapshot::{Family, Proto};
use serde::Deserialize;

use crate::case::read_host;
use crate::command::{Counts, in_parallel};
use crate::compare::{Against, Comparison, compare};
use crate::examine::examine;
use crate::filter_step::{FilterStep, Loader};
use crate::probe::{Client, Probe};
use crate::step::Step;
use crate::topology::Unsupported;
use crate::wiring::Wiring;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ruleset: Vec<Ruleset>,
}

/// Rules, a host to load them on, and who asks what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ruleset {
    name: String,
    rules: Vec<RuleFile>,
    host: String,
    sources: Vec<IpAddr>,
    to: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    with: Loader,
    file: String,
}

/// Asks each ruleset its grid, and prints a table of what came of it.
///
/// # Errors
/// If the files cannot be read.
pub(crate) fn run(folder: &Path, jobs: usize, out: &mut impl Write) -> Result<Counts> {
    let text = std::fs::read_to_string(folder.join("corpus.toml")).context("read corpus.toml")?;
    let file: File = toml::from_str(&text).context("read corpus.toml")?;
    let mut counts = Counts::default();
    let mut table = String::from("| rules | questions | let in | unknown | disagree |\n");
    table.push_str("|---|---|---|---|---|\n");
    let results = in_parallel(&file.ruleset, jobs, |ruleset| ask(ruleset, folder));
    for (ruleset, result) in file.ruleset.iter().zip(results) {
        let compared = match result {
            Ok(compared) => compared,
            Err(error) if error.is::<Unsupported>() => {
                writeln!(out, "skipped: {}: {error}", ruleset.name)?;
                counts.skipped += 1;
                continue;
            }
            Err(error) => {
                writeln!(out, "\nFAILED: {}: {error:#}", ruleset.name)?;
                counts.failed += 1;
                continue;
            }
        };
        let number = |of: fn(&Comparison) -> bool| {
            compared.iter().filter(|(_, comparison)| of(comparison)).count()
        };
        let differing = number(|comparison| !comparison.mismatches.is_empty());
        table.push_str(&format!(
            "| {} | {} | {} | {} | {differing} |\n",
            ruleset.name,
            compared.len(),
            number(Comparison::got_through),
            number(|comparison| comparison.unknown().is_some()),
        ));
        for (probe, comparison) in &compared {
            if !comparison.mismatches.is_empty() {
                writeln!(out, "\nFAILED: {}\n{probe}\n{comparison}", ruleset.name)?;
            }
        }
        if differing == 0 { counts.passed += 1 } else { counts.failed += 1 }
    }
    writeln!(out, "{table}")?;
    Ok(counts)
}

fn ask(ruleset: &Ruleset, folder: &Path) -> Result<Vec<(Probe, Comparison)>> {
    let mut steps = read_host(&ruleset.host)?;
    for RuleFile { with, file } in &ruleset.rules {
        let path = folder.join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        steps.push(Step::Filter(FilterStep { with: *with, text }));
    }
    let probes = grid(ruleset, &steps);
    let examined = examine(&steps, &probes)?;
    let mut compared = Vec::new();
    for (number, probe) in probes.into_iter().enumerate() {
        let observation = examined.observations[number].clone();
        let comparison = compare(&examined, number, &probe, observation, Against::Both)?;
        compared.push((probe, comparison));
    }
    Ok(compared)
}

/// Every source and this machine itself, to every address, the ports of servers and those beside.
fn grid(ruleset: &Ruleset, steps: &[Step]) -> Vec<Probe> {
    let wiring = Wiring::of(steps);
    let mut ports: Vec<(Proto, u16)> = Vec::new();
    for step in steps {
        if let Step::Server(server) = step {
            let port = server.bind.port();
            ports.extend([port - 1, port, port + 1].map(|port| (server.proto, port)));
        }
    }
    ports.sort_by_key(|(proto, port)| (proto.number(), *port));
    ports.dedup();
    let links: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Link { name, .. } if wiring.receiver(name) == name => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let mut probes = Vec::new();
    for to in &ruleset.to {
        for (proto, port) in &ports {
            let mut clients = vec![Client::Own { source: None, uid: 0 }];
            for source in
                ruleset.sources.iter().filter(|source| Family::of(**source) == Family::of(*to))
            {
                for via in &links {
                    clients.push(Client::Peer {
                        source: *source,
                        via: (*via).to_owned(),
                        port: None,
                        raw: false,
                    });
                }
            }
            let to = SocketAddr::new(*to, *port);
            probes.extend(clients.into_iter().map(|client| Probe {
                proto: *proto,
                client,
                source_port: None,
                to,
            }));
        }
    }
    probes
}
