//! Random hosts: what the kernel does is what the reference evaluator and the engine say.
//!
//! Half of the hosts have packet filters.
//!
//! Without a test harness, for the reason given in `cases.rs`. The seeds are fixed, so that a failure
//! is one of the code; a long run with other seeds is `lab random --seed N --hosts 10000`.

use clap::Parser;

fn main() -> std::process::ExitCode {
    let words =
        ["lab", "random", "--seed", "1", "--hosts", "100", "--probes", "50", "--rules", "50"];
    lab::command::run(&lab::command::Arguments::parse_from(words))
}
