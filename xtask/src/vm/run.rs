//! The command: which kernels, and what the lab does there.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::image::{self, PROGRAMS, find};
use super::kernel::Kernel;
use super::machine::{self, Ended};
use crate::test;

/// The series that Debian stable has had lately.
const SERIES: [&str; 2] = ["6.1", "6.12"];
/// What the lab does where nothing else is said.
const COMMANDS: [&[&str]; 2] =
    [&["cases", "--jobs", "2"], &["random", "--seed", "1", "--hosts", "50", "--jobs", "2"]];

/// What is called on this machine, and the Debian packages it comes in.
const TOOLS: [(&str, &str); 6] = [
    (machine::PROGRAM, "qemu-system-x86"),
    ("apt-get", "apt"),
    ("depmod", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("ldd", "libc-bin"),
    ("modprobe", "kmod"),
];

/// `cargo xtask lab vm [SERIES]... [-- LAB'S ARGUMENTS]`; true when nothing failed.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<bool> {
    let mut halves = words.splitn(2, |word| *word == "--");
    let series = halves.next().unwrap_or_default();
    let series = if series.is_empty() { &SERIES[..] } else { series };
    let commands: Vec<&[&str]> = halves.next().map_or_else(|| COMMANDS.to_vec(), |own| vec![own]);
    let commands: Vec<Vec<String>> = commands
        .iter()
        .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
        .collect();
    let programs = [&TOOLS[..], &PROGRAMS[..]].concat();
    test::install(&programs);
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(name, _)| find(name).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        println!("skipped: other kernels: apt-get install {}", missing.join(" "));
        println!("0 passed, 0 failed, {} skipped", series.len());
        return Ok(true);
    }
    build_lab(root)?;
    let mut summary = Vec::new();
    for series in series {
        let (release, ended) = run_kernel(root, series, &commands)?;
        for (command, ended) in commands.iter().zip(&ended) {
            let Ended { status, counts } = ended;
            summary.push((format!("{release}: {}: {counts}", command.join(" ")), *status));
        }
        for command in commands.iter().skip(ended.len()) {
            summary.push((format!("{release}: {}: the machine ended", command.join(" ")), 4));
        }
    }
    println!();
    for (line, status) in &summary {
        println!("{line} (status {status})");
    }
    Ok(summary.iter().all(|(_, status)| *status == 0))
}

/// Optimised: an emulated machine is slow enough.
fn build_lab(root: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "-p", "lab"]).current_dir(root);
    if !build.status().context("start cargo")?.success() {
        bail!("the lab cannot be built");
    }
    Ok(())
}

fn run_kernel(root: &Path, series: &str, commands: &[Vec<String>]) -> Result<(String, Vec<Ended>)> {
    let cache = root.join("target/vm");
    std::fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let kernel = Kernel::fetch(series, &cache)?;
    let image = cache.join(format!("image-{}", kernel.release));
    let lab = (root.join("target/release/lab"), root.join("lab"));
    image::write(&image, &kernel, (&lab.0, &lab.1), commands)
        .with_context(|| format!("make the file system for {}", kernel.release))?;
    println!("booting {}", kernel.release);
    let ended = machine::boot(&kernel, &image)
        .with_context(|| format!("run the lab on {}", kernel.release))?;
    Ok((kernel.release, ended))
}
