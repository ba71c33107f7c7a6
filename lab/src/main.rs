//! The lab's binary; see `lab::command`.

fn main() -> std::process::ExitCode {
    lab::command::main()
}
