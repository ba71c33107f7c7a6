//! What must be absent: `unsafe` outside its room, input and output in the pure crates, tests that
//! sleep or are ignored, paths of the machine somebody works on.

use crate::tidy::{rust_text, size};
use crate::tree::{File, Tree, root};

/// The only file that may hold `unsafe`.
const UNSAFE_ROOM: &str = "crates/canreach-collect/src/sys.rs";
/// The crates without input, output, clock and randomness.
const PURE: [&str; 3] =
    ["crates/canreach-snapshot/src/", "crates/canreach-engine/src/", "crates/canreach-report/src/"];
/// What of `std` they must not touch. Of `std::net` they use the addresses, of `std::io` nothing.
const FORBIDDEN: [&str; 8] = ["fs", "env", "thread", "process", "time", "os", "io", "random"];
/// What of `std::net` opens a connection or asks a resolver.
const FORBIDDEN_NET: [&str; 5] =
    ["TcpListener", "TcpStream", "UdpSocket", "ToSocketAddrs", "Incoming"];

/// `unsafe` where it may not be.
pub(crate) fn unsafe_outside_its_room(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| file.path != UNSAFE_ROOM && !file.path.starts_with("fuzz/"))
        .filter(|file| rust_text::has_word(&rust_text::code(&file.text), "unsafe"))
        .map(|file| format!("{}: `unsafe` belongs in {UNSAFE_ROOM}", file.path))
        .collect()
}

/// Pure crates that name a part of `std` which talks to the operating system.
pub(crate) fn input_or_output_in_pure_crates(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        if !PURE.iter().any(|folder| file.path.starts_with(folder)) || size::is_test(&file.path) {
            continue;
        }
        let code = rust_text::shipped(&rust_text::code(&file.text));
        for part in rust_text::parts_of("std", &code) {
            if FORBIDDEN.contains(&part.as_str()) {
                findings.push(format!("{}: std::{part} in a pure crate", file.path));
            }
        }
        for word in rust_text::words(&code).filter(|word| FORBIDDEN_NET.contains(word)) {
            findings.push(format!("{}: {word} in a pure crate", file.path));
        }
    }
    findings
}

/// Tests that wait for time instead of a condition, and tests that nobody runs.
pub(crate) fn tests_that_sleep_or_are_ignored(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let code = rust_text::code(&file.text);
        let shipped = rust_text::shipped(&code);
        let sleeps = |code: &str| rust_text::words(code).filter(|word| *word == "sleep").count();
        let in_tests = sleeps(&code) - if size::is_test(&file.path) { 0 } else { sleeps(&shipped) };
        if in_tests > 0 {
            findings.push(format!("{}: a test sleeps; wait for a condition", file.path));
        }
        if code.contains("#[ignore") {
            findings.push(format!("{}: a test is ignored", file.path));
        }
    }
    findings
}

/// Files that name the folder of this checkout or the home of whoever works in it.
pub(crate) fn paths_of_this_machine(tree: &Tree) -> Vec<String> {
    let mut places = vec![format!("{}/", root().display())];
    if let Ok(home) = std::env::var("HOME") {
        places.push(format!("{}/", home.trim_end_matches('/')));
    }
    // A checkout or a home at the root of the file system says nothing.
    places.retain(|place| place.len() > 3);
    machine_paths(&tree.files, &places)
}

fn machine_paths(files: &[File], places: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(place.as_str())) {
                let number = number + 1;
                findings.push(format!("{}:{number}: {place} is a path of this machine", file.path));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree { files: vec![File { path: path.into(), text: text.into() }] }
    }

    #[test]
    fn unsafe_has_one_room() {
        let block = ["unsa", "fe { x() }"].concat();
        assert_eq!(unsafe_outside_its_room(&tree("crates/a/src/a.rs", &block)).len(), 1);
        assert_eq!(unsafe_outside_its_room(&tree(UNSAFE_ROOM, &block)).len(), 0);
        assert_eq!(unsafe_outside_its_room(&tree("a.rs", "#![deny(unsafe_code)]")).len(), 0);
    }

    #[test]
    fn pure_crates_touch_no_operating_system() {
        let table = [
            ("use std::net::Ipv4Addr;\nuse std::collections::BTreeMap;", 0),
            ("use std::fs;", 1),
            ("let now = std::time::Instant::now();", 1),
            ("use std::{collections::{fs, env}, fmt};", 0),
            ("use std::{fmt, env::{self, args}, thread};", 2),
            ("use std::net::{IpAddr, TcpStream};", 1),
            ("// std::fs\nlet a = \"std::fs\";", 0),
            ("#[cfg(test)]\nmod tests { use std::fs; }", 0),
        ];
        for (text, expected) in table {
            let findings = input_or_output_in_pure_crates(&tree(&format!("{}a.rs", PURE[1]), text));
            assert_eq!(findings.len(), expected, "{text}: {findings:?}");
        }
        assert_eq!(input_or_output_in_pure_crates(&tree("lab/src/a.rs", "use std::fs;")).len(), 0);
    }

    #[test]
    fn tests_run_and_do_not_sleep() {
        let table = [
            ("a/src/a.rs", "fn poll() { sleep(PAUSE) }", 0),
            ("a/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { sleep(PAUSE) } }", 1),
            ("a/tests/a.rs", "fn a() { sleep(PAUSE) }", 1),
            ("a/tests/a.rs", "#[ignore = \"slow\"]\nfn a() {}", 1),
        ];
        for (path, text, expected) in table {
            assert_eq!(
                tests_that_sleep_or_are_ignored(&tree(path, text)).len(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn paths_of_the_machine_are_found() {
        let files = tree("README.md", "one\nsee /srv/checkout/docs\n").files;
        assert_eq!(machine_paths(&files, &["/srv/checkout/".into()]).len(), 1);
        assert_eq!(machine_paths(&files, &["/srv/other/".into()]).len(), 0);
    }
}
