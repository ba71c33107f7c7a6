//! The real binary: `diff` and `check`, on saved machines that each test changes first.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn fixture(name: &str) -> String {
    format!("{}/../../fixtures/snapshots/{name}.json", env!("CARGO_MANIFEST_DIR"))
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canreach"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "COLUMNS"] {
        command.env_remove(variable);
    }
    command.output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    text.replace("\n       ", " ").replace("\n      ", " ")
}

/// Files of one test, removed afterwards.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("canreach-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for test files");
        Self(directory)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path: &Path = &self.0.join(name);
        std::fs::write(path, bytes).expect("write a test file");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// A saved machine with a change.
    fn machine(&self, name: &str, change: &dyn Fn(&mut Value)) -> String {
        let bytes = std::fs::read(fixture(name)).expect("the fixture");
        let mut snapshot: Value = serde_json::from_slice(&bytes).expect("JSON");
        change(&mut snapshot["namespaces"][0]);
        self.file(&format!("{name}-changed.json"), snapshot.to_string().as_bytes())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What is left in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The answer with its exit code, for a snapshot.
fn shown(arguments: &[&str]) -> String {
    let output = run(arguments);
    let code = output.status.code().expect("it ends by itself");
    let text = stdout(&output);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let notes = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    let notes: String = notes.lines().map(|line| format!("(stderr) {line}\n")).collect();
    format!("{text}{notes}exit {code}\n")
}

fn rebind(netns: &mut Value, port: u16, address: &str) {
    for socket in netns["sockets"].as_array_mut().expect("sockets") {
        if socket["port"] == port {
            socket["address"] = address.into();
        }
    }
}

#[test]
fn a_server_that_listens_on_more_addresses() {
    let room = Room::new("wider");
    let after = room.machine("laptop", &|netns| {
        rebind(netns, 3000, "0.0.0.0");
        netns["sockets"].as_array_mut().expect("sockets").retain(|socket| socket["port"] != 631);
    });
    let before = fixture("laptop");
    insta::assert_snapshot!("diff-wider", shown(&["diff", &before, &after]));
    insta::assert_snapshot!("diff-narrower", shown(&["diff", &after, &before]));
    // The file that is asked is the later state.
    assert_eq!(shown(&["--snapshot", &after, "diff", &before]), shown(&["diff", &before, &after]));
    let json = run(&["diff", &before, &after, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["schema"], "canreach.diff/1");
    assert_eq!((&json["wider"], &json["narrower"]), (&json!(true), &json!(true)));
    assert_eq!(json["differences"][0]["after"], Value::Null);
    let change = &json["differences"][1]["changes"][0];
    assert_eq!(change["causes"][0]["before"]["code"], "bind-loopback");
    assert_eq!(change["causes"][0]["after"]["subject"]["address"], "0.0.0.0");
    assert_eq!(change["before"]["verdict"], "no");
    assert_eq!(change["after"]["verdict"], "yes");
}

#[test]
fn other_changes_and_what_they_are_called() {
    let room = Room::new("causes");
    let route = room.machine("server", &|netns| {
        netns["routes"]
            .as_array_mut()
            .expect("routes")
            .retain(|route| route["destination"] != "0.0.0.0/0" && route["destination"] != "::/0");
    });
    insta::assert_snapshot!("diff-route", shown(&["diff", &route, &fixture("server")]));
    let moved = room.machine("laptop", &|netns| {
        let text = netns.to_string().replace("192.168.1.20", "192.168.1.21");
        *netns = serde_json::from_str(&text).expect("JSON");
    });
    insta::assert_snapshot!("diff-address", shown(&["diff", &fixture("laptop"), &moved]));
    let added = room.machine("container", &|netns| {
        let mut address = netns["addresses"][1].clone();
        address["prefix"] = "10.9.0.2/24".into();
        netns["addresses"].as_array_mut().expect("addresses").push(address);
        let of_address = |route: &&Value| route["destination"] == "172.17.0.2/32";
        let routes = netns["routes"].as_array_mut().expect("routes");
        let mut local = routes.iter().find(of_address).expect("a local route").clone();
        local["destination"] = "10.9.0.2/32".into();
        local["preferred_source"] = "10.9.0.2".into();
        routes.push(local);
        rebind(netns, 8000, "10.9.0.2");
    });
    insta::assert_snapshot!("diff-added", shown(&["diff", &fixture("container"), &added]));
    let (plain, rules) = (fixture("laptop"), fixture("laptop-firewall"));
    insta::assert_snapshot!("diff-rules", shown(&["diff", &plain, &rules]));
}

#[test]
fn nothing_differs_from_itself() {
    for (name, code) in
        [("laptop", 0), ("server", 0), ("vpn", 0), ("offline", 0), ("laptop-as-user", 3)]
    {
        let file = fixture(name);
        let output = run(&["diff", &file, &file]);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stdout(&output));
        let json = stdout(&run(&["diff", &file, &file, "--json"]));
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["verdict"], if code == 0 { "same" } else { "unknown" }, "{name}");
        assert_eq!(json["complete"], code == 0, "{name}");
    }
}

#[test]
fn policies() {
    let room = Room::new("policies");
    let policy = room.file(
        "policy.toml",
        b"# who may reach this machine\n\n[[allow]]\nport = \"tcp/22\"\nfrom = \"any\"\n\
          program = \"sshd\"\n\n[[allow]]\nport = [\"tcp/80\", \"tcp/443\"]\nfrom = \"any\"\n\n\
          [[allow]]\nport = \"tcp/5432\"\nfrom = [\"10.0.0.0/8\"]\nvia = \"eth7\"\n",
    );
    let (laptop, server) = (fixture("laptop"), fixture("server"));
    let asked = |machine: &str, rest: &[&str]| {
        let mut all = vec!["--snapshot", machine, "check"];
        all.extend(rest);
        shown(&all)
    };
    insta::assert_snapshot!("check-server", asked(&server, &[&policy]));
    insta::assert_snapshot!("check-laptop", asked(&laptop, &["--only", "tcp/22 from lan"]));
    let all = ["--only", "tcp/* from any", "--only", "udp/* from any"];
    insta::assert_snapshot!("check-holds", asked(&laptop, &all));
    let one = ["--only", "tcp/22 from any", "--port", "tcp/22"];
    insta::assert_snapshot!("check-one-port", asked(&laptop, &one));
    let user = fixture("laptop-as-user");
    insta::assert_snapshot!("check-as-user", asked(&user, &["--only", "tcp/22 from lan"]));
    let allowing = room.file(
        "allowing.toml",
        b"unknown = \"allow\"\n[[allow]]\nport = \"tcp/22\"\nfrom = \"self\"\n",
    );
    insta::assert_snapshot!("check-unknown-allowed", asked(&user, &[&allowing]));
    let json = run(&["--snapshot", &server, "check", &policy, "--json"]);
    assert_eq!(json.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["schema"], "canreach.check/1");
    assert_eq!(json["rules"][2]["missing_link"], "eth7");
    assert_eq!(json["rules"][0]["line"], 3);
    let ports: Vec<&Value> = json["violations"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|violation| &violation["port"])
        .collect();
    assert_eq!(ports, [2049, 5432]);
}

#[test]
fn what_makes_no_sense_is_said() {
    let room = Room::new("mistakes");
    let laptop = fixture("laptop");
    let newer = std::fs::read_to_string(&laptop).expect("the fixture");
    let newer = newer.replacen("\"version\": 1", "\"version\": 99", 1);
    let newer = room.file("newer.json", newer.as_bytes());
    let empty = room.file("empty.toml", b"");
    let word = room.file("word.toml", b"[[allow]]\nport = \"tcp/22\"\nfrom = \"everyone\"\n");
    let key = room.file("key.toml", b"[[allow]]\nport = \"tcp/22\"\nform = \"lan\"\n");
    let binary = room.file("binary.toml", &[0xff, 0xfe]);
    let directory = room.0.to_str().expect("UTF-8").to_owned();
    for (arguments, part) in [
        (&["diff"][..], "diff takes a file that `canreach snapshot` saved"),
        (&["diff", "/nonexistent/a.json"], "read snapshot /nonexistent/a.json: No such file"),
        (&["diff", &laptop, "/nonexistent/b.json"], "/nonexistent/b.json: No such file"),
        (&["diff", &empty, &laptop], "it is an empty file"),
        (&["diff", &word, &laptop], "it is not a canreach snapshot"),
        (&["diff", &laptop, &newer], "newer canreach"),
        (&["diff", "-", "-"], "standard input is one state"),
        (&["diff", &laptop, &laptop, "--netns", "red"], "no namespace red"),
        (&["--snapshot", &laptop, "diff", &laptop, &laptop], "leave one out"),
        (&["check"], "check takes a policy"),
        (&["check", "/nonexistent/p.toml"], "read policy /nonexistent/p.toml: No such file"),
        (&["check", &directory], "read policy"),
        (&["check", &empty], "line 1: the policy has no [[allow]]"),
        (&["check", &word], "line 3: `everyone` is not self, lan"),
        (&["check", &key], "line 3: `form` is no key of [[allow]]"),
        (&["check", &binary], "it is not UTF-8"),
        (&["check", "--only", "tcp/22"], "does not say from whom"),
        (&["check", "--only", "22/tcp from lan"], "write tcp/22, the protocol first"),
        (&["check", "--only", "tcp/22 from lan", "--port", "22"], "says no protocol"),
        (&["check", &word, "--only", "tcp/22 from lan"], "cannot be used with"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let message = stderr(&output);
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

/// The machine the test runs on: it can be compared with itself a moment ago, and checked.
#[test]
fn this_machine() {
    let room = Room::new("now");
    let saved = run(&["snapshot"]);
    assert_eq!(saved.status.code(), Some(0), "{saved:?}");
    let file = room.file("now.json", &saved.stdout);
    for arguments in
        [&["diff", file.as_str(), "--json"][..], &["check", "--only", "tcp/22 from lan", "--json"]]
    {
        let output = run(arguments);
        let code = output.status.code().expect("it ends by itself");
        assert!(matches!(code, 0 | 1 | 3), "{arguments:?}: {output:?}");
        assert!(stdout(&output).starts_with("{\"schema\":\"canreach."), "{arguments:?}");
    }
}
