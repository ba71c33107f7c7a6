//! The chores of this project: `cargo xtask` prints the list.
//!
//! What can be checked without running anything (dependency edges, house style) is checked by the
//! tests of this crate, so plain `cargo test` is enough; `cargo xtask tidy` prints the same.

#![allow(clippy::print_stdout, reason = "a chore reports on stdout")]

mod bench;
mod edges;
mod test;
mod tidy;
mod tree;
mod vm;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// What `cargo xtask` prints when asked for nothing, or for something it does not know.
const USAGE: &str = "\
usage: cargo xtask CHORE

  test    every test there is, counted
  lab     the lab's program, with its own arguments: real namespaces, so root or user namespaces
  lab vm  the lab on kernels of Debian in an emulated machine; [SERIES]... [-- LAB'S ARGUMENTS]
  fuzz    what reads strangers' bytes, on seeds changed at random; [TARGET] [--seconds N] [--seed N]
  deny    licences, sources and unwanted crates
  tidy    dependency edges and house style, also what is only advice
  bench   canreach beside ss, netstat and lsof, as root; [i] [ii] [iii] [--rounds N] [--write]
          --look COMMAND runs a shell command in the setting instead
";

/// The fuzz targets are a workspace of their own; this loop of them needs no nightly compiler.
const FUZZ: [&str; 6] = ["run", "--quiet", "--release", "--manifest-path", "fuzz/Cargo.toml", "--"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test::run(&tree::root()),
        ["lab", "vm", rest @ ..] => vm::run(&tree::root(), rest),
        ["lab", rest @ ..] => run_cargo(&[&["run", "--quiet", "-p", "lab", "--"], rest].concat()),
        ["fuzz", rest @ ..] => run_cargo(&[&FUZZ[..], rest].concat()),
        ["deny"] => run_cargo(&["deny", "check", "bans", "licenses", "sources"]),
        ["tidy"] => run_tidy(),
        ["bench", rest @ ..] => bench::run(&tree::root(), rest).map(|()| true),
        [bench::INSIDE, rest @ ..] => bench::run_inside(rest).map(|()| true),
        [bench::MEMBER, rest @ ..] => bench::run_member(rest).map(|()| true),
        _ => {
            print!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cargo at the root; true when it succeeds.
fn run_cargo(arguments: &[&str]) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(arguments).current_dir(tree::root()).status();
    Ok(status.context("start cargo")?.success())
}

/// Prints every finding; true when there is none but advice.
fn run_tidy() -> Result<bool> {
    let tree = tree::Tree::read(&tree::root())?;
    let mut findings = tidy::findings(&tree);
    findings.extend(edges::findings(&edges::read(&tree::root())?));
    for finding in &findings {
        println!("{finding}");
    }
    let advice = tidy::advice(&tree);
    for line in &advice {
        println!("advice: {line}");
    }
    println!("{} findings, {} advice", findings.len(), advice.len());
    Ok(findings.is_empty())
}
