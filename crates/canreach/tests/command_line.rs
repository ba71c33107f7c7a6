//! The real binary: exit codes, what goes to which stream, closed pipes, and no children.
//!
//! Most of it asks saved machines, so that it holds on every machine that runs the tests.

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn fixture(name: &str) -> String {
    format!("{}/../../fixtures/snapshots/{name}.json", env!("CARGO_MANIFEST_DIR"))
}

fn canreach(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canreach"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "COLUMNS"] {
        command.env_remove(variable);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    canreach(arguments).output().expect("the binary starts")
}

/// Asks a saved machine.
fn ask(machine: &str, arguments: &[&str]) -> Output {
    let path = fixture(machine);
    let mut all = vec!["--snapshot", path.as_str()];
    all.extend(arguments);
    run(&all)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn exit_codes_of_answers() {
    for (machine, arguments, code) in [
        ("laptop", &["why", "22"][..], 0),
        ("laptop", &["22"], 0),
        ("laptop", &["why", "3000"], 1),
        ("laptop", &["3000", "--json"], 1),
        ("laptop", &["3000", "--from", "self", "--to", "127.0.0.1"], 0),
        ("laptop", &["why", "4000"], 1),
        ("laptop", &["why", "22", "--to", "192.168.1.99"], 1),
        ("laptop-as-user", &["why", "22"], 3),
        ("laptop-as-user", &["why", "3000"], 3),
        ("laptop-firewall", &["why", "5173"], 3),
        ("laptop-firewall", &["why", "3000"], 1),
        ("offline", &["why", "22"], 1),
        ("laptop", &[], 0),
        ("laptop", &["list", "--json"], 0),
        ("nothing-listening", &[], 1),
        ("nothing-listening", &["--json"], 1),
        ("laptop", &["ip"], 0),
        ("offline", &["ip"], 1),
        ("offline", &["ip", "--all"], 0),
        ("laptop", &["explain", "bind-loopback"], 0),
        ("laptop", &["explain"], 0),
        ("laptop", &["snapshot"], 0),
    ] {
        let output = ask(machine, arguments);
        assert_eq!(output.status.code(), Some(code), "{machine} {arguments:?}: {output:?}");
        let empty = output.stdout.is_empty();
        let nothing_to_show = code == 1 && arguments.first().is_none_or(|word| *word == "ip");
        assert_eq!(empty, nothing_to_show, "{machine} {arguments:?}");
    }
}

/// Each message names what is wrong, and goes to stderr.
#[test]
fn usage_errors_say_what_to_do() {
    for (arguments, part) in [
        (&["why"][..], "why takes a port number, for example: canreach why 3000"),
        (&["why", "http"], "why takes a port number, for example: canreach why 3000"),
        (&["why", "0"], "port 0 cannot be dialled"),
        (&["70000"], "ports go from 1 to 65535"),
        (&["why", "80/sctp"], "neither tcp nor udp"),
        (&["why", "22", "--from", "colleague"], "`colleague` is a name"),
        (&["why", "22", "--from", "10.0.0.0/33"], "`33` is not a prefix length"),
        (&["why", "22", "--from", "10.0.0.1%wlan0"], "only IPv6 addresses take a link"),
        (&["why", "22", "--to", "laptop.local"], "`laptop.local` is a name"),
        (&["why", "22", "--via", "eth9"], "no interface eth9 here; there are: lo, wlan0"),
        (&["why", "22", "--to", "fe80::1"], "fe80::1%wlan0"),
        (&["why", "22", "--to", "fe80::1%eth9"], "no interface eth9"),
        (&["why", "22", "--to", "fe80::1%wlan0", "--via", "docker0"], "name one"),
        (&["why", "22", "--from", "10.0.0.1", "--to", "2001:db8::20"], "different families"),
        (&["explain", "bind-lopback"], "bind-loopback"),
        (&["schema", "nothing"], "check, diff, ip, list, why"),
        (&["frobnicate"], "frobnicate"),
        (&["list", "--netns", "red"], "no namespace red"),
    ] {
        let output = ask("laptop", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let message = stderr(&output).replace("\n       ", " ");
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

#[test]
fn files_that_are_no_snapshots() {
    let directory = std::env::temp_dir().join(format!("canreach-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for test files");
    let whole = std::fs::read(fixture("laptop")).expect("the fixture");
    let newer = String::from_utf8(whole.clone()).expect("JSON");
    let newer = newer.replacen("\"version\": 1", "\"version\": 99", 1);
    for (name, bytes, part) in [
        ("empty", &b""[..], "cannot be asked"),
        ("cut", &whole[..whole.len() / 2], "cannot be asked"),
        ("other", b"{\"a\":1}", "cannot be asked"),
        ("newer", newer.as_bytes(), "newer"),
        ("binary", &[0xff, 0x00, 0xfe], "cannot be asked"),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("write a test file");
        let output = run(&["--snapshot", path.to_str().expect("UTF-8"), "why", "22"]);
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert!(stderr(&output).replace("\n       ", " ").contains(part), "{name}: {output:?}");
    }
    let output = run(&["--snapshot", directory.join("absent").to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("No such file"), "{output:?}");
    std::fs::remove_dir_all(&directory).expect("remove the test files");
}

#[test]
fn a_snapshot_of_a_snapshot_is_the_same_and_answers_the_same() {
    let again = ask("laptop", &["snapshot"]);
    let mut child = canreach(&["--snapshot", "-", "why", "3000", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, &again.stdout).expect("write the snapshot");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(stdout(&output), stdout(&ask("laptop", &["why", "3000", "--json"])));
    let redacted = ask("server", &["snapshot", "--redact"]);
    let text = stdout(&redacted);
    assert!(!text.contains("web-1"), "names are gone");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    for arguments in [&["list"][..], &["explain"], &["why", "22"], &["man"], &["--help"]] {
        let mut all = vec!["--snapshot".to_owned(), fixture("laptop")];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut child = canreach(&all.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let mut complaint = String::new();
        let mut stderr = child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut complaint).expect("UTF-8");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{arguments:?}: {complaint}");
        assert_eq!(complaint, "", "{arguments:?}");
    }
}

#[test]
fn colour_only_where_it_is_wanted() {
    let colored = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let path = fixture("laptop");
        let mut all = vec!["--snapshot", path.as_str(), "why", "3000"];
        all.extend(arguments);
        let mut command = canreach(&all);
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        stdout(&command.output().expect("the binary starts")).contains('\x1b')
    };
    assert!(!colored(&[], None), "a pipe");
    assert!(colored(&["--color", "always"], None));
    assert!(colored(&[], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!colored(&["--color", "never"], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!colored(&["--color", "always", "--json"], None), "JSON never has colour");
}

#[test]
fn help_names_every_command() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    assert!(help.starts_with("Who can connect to the servers on this computer, and why not"));
    for command in
        ["list", "why", "ip", "diff", "check", "explain", "snapshot", "schema", "man", "Exit codes"]
    {
        assert!(help.contains(command), "{command}");
    }
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert!(stdout(&run(&["man"])).contains(".TH canreach"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&run(&["completions", shell])).contains("canreach"));
    }
}

/// Some libraries ask `tput` for the width where there is no terminal. In a namespace of its own
/// every process shows in the last number given out: 1 is the shell, 2 is canreach, 3 is `cat`.
#[test]
fn starts_no_other_program() {
    let script = format!(
        "'{}' --snapshot '{}' list > /dev/null; cat /proc/sys/kernel/ns_last_pid",
        env!("CARGO_BIN_EXE_canreach"),
        fixture("laptop")
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "sh", "-c", &script])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: this machine has no unshare(1)");
        return;
    };
    if !output.status.success() {
        eprintln!("skipped: no namespaces here: {}", stderr(&output));
        return;
    }
    assert_eq!(stdout(&output).trim(), "3");
}

/// The machine the test runs on: whatever it is, it can be read and asked.
#[test]
fn this_machine() {
    for arguments in [&["--json"][..], &["ip", "--json"], &["why", "1", "--json"]] {
        let output = run(arguments);
        let code = output.status.code().expect("it ends by itself");
        assert!(code == 0 || code == 1 || code == 3, "{arguments:?}: {output:?}");
        assert!(stdout(&output).starts_with("{\"schema\":\"canreach."), "{arguments:?}");
    }
}
