//! `cargo xtask test`: every test there is, and one line that counts them.
//!
//! A test that cannot run here prints a line that begins with `skipped: ` and says why; such lines
//! are counted too, so that nothing is left out in silence.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Of the skipped, those that said so since the last summary: a summary may count them again.
    announced: u64,
}

impl Count {
    /// Adds what one line of a test program's output says.
    fn read(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped += 1;
            self.announced += 1;
            return;
        }
        // Rust's own harness, or the one line of a program that has none.
        let counts = match line.strip_prefix("test result: ") {
            Some(counts) => counts,
            None if line.ends_with(" skipped") && line.contains(" passed, ") => {
                self.skipped -= self.announced;
                line
            }
            None => return,
        };
        self.announced = 0;
        for part in counts.split(['.', ';', ',']) {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" | "skipped" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Programs that tests hold canreach against, and the Debian packages they come in.
const PROGRAMS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables-legacy", "iptables"),
    ("ipset", "ipset"),
    ("sysctl", "procps"),
];

/// Runs everything; true when nothing failed.
pub(crate) fn run(root: &Path) -> Result<bool> {
    install(&PROGRAMS);
    let mut count = Count::default();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--workspace", "--locked", "--no-fail-fast", "--", "--show-output"])
        .current_dir(root);
    run_one(&mut command, &mut count)?;
    println!("\n{count}");
    Ok(count.failed == 0)
}

/// Installs what is missing, as root on Debian and its kin; otherwise names it. Tests go on without:
/// those that need it are skipped.
pub(crate) fn install(programs: &[(&str, &'static str)]) {
    let packages = missing(programs);
    if packages.is_empty() {
        return;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let install = [&["install", "--yes", "--no-install-recommends"], &packages[..]].concat();
    if rustix::process::getuid().is_root() && find("apt-get") {
        println!("installing {}", packages.join(" "));
        // The list of packages may be missing (a fresh container) or old.
        let _ = apt(&install) || (apt(&["update"]) && apt(&install));
    }
    let packages = missing(programs);
    if !packages.is_empty() {
        println!("missing, so some tests are skipped: apt-get install {}", packages.join(" "));
    }
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let missing = programs.iter().filter(|(program, _)| !find(program));
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether a program is there, also where ordinary users do not look.
fn find(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.any(|folder| folder.join(program).exists())
}

/// Runs one test program and counts; if it fails without saying what, that is one failure.
fn run_one(command: &mut Command, count: &mut Count) -> Result<()> {
    let failed_before = count.failed;
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {command:?}"))?;
    let stdout = child.stdout.take().expect("it was asked for");
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read what a test printed")?;
        println!("{line}");
        count.read(&line);
    }
    let status = child.wait().context("wait for the tests")?;
    if !status.success() && count.failed == failed_before {
        println!("{command:?}: {status}");
        count.failed += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: [u64; 3]) {
        let mut count = Count::default();
        for line in lines {
            count.read(line);
        }
        assert_eq!([count.passed, count.failed, count.skipped], expected, "{lines:?}");
    }

    #[test]
    fn output_is_counted() {
        let good = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.03s";
        let bad = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        check(&[good, "test a ... ok", bad], [15, 2, 1]);
        check(&["110 passed, 1 failed, 9 skipped", "5 passed, or so"], [110, 1, 9]);
        check(&["skipped: a", good, "skipped: b", "3 passed, 0 failed, 1 skipped"], [15, 0, 3]);
        check(&["skipped: no vrf in this kernel", "x skipped: y"], [0, 0, 1]);
    }

    #[test]
    fn programs_are_found() {
        assert!(find("sh") && !find("no-such-program-anywhere"));
    }

    #[test]
    fn a_program_that_fails_without_a_word_is_a_failure() {
        let mut count = Count::default();
        run_one(Command::new("sh").args(["-c", "exit 3"]), &mut count).expect("sh starts");
        run_one(Command::new("sh").args(["-c", "exit 0"]), &mut count).expect("sh starts");
        assert_eq!(count, Count { failed: 1, ..Count::default() });
    }
}
