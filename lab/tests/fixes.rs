//! Every fix that changes the machine, carried out on the hosts of the hand-written cases.
//!
//! It has no test harness: the lab may have to move into a user namespace of its own first, and only
//! a process with a single thread may do that.

use clap::Parser;

fn main() -> std::process::ExitCode {
    lab::command::run(&lab::command::Arguments::parse_from(["lab", "fixes"]))
}
