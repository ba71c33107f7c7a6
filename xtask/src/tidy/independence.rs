//! The two evaluators share plain data and nothing else, or one bug would hide in both.

use crate::tidy::{rust_text, size};
use crate::tree::Tree;

/// One packet at a time, straight from the snapshot.
const REFERENCE: &str = "crates/canreach-engine/src/reference/";
/// Sets of packets: folders and files of the engine.
const SYMBOLIC: [&str; 3] = [
    "crates/canreach-engine/src/host/",
    "crates/canreach-engine/src/path/",
    "crates/canreach-engine/src/packet/",
];
/// What the reference evaluator must not name of its crate.
const NOT_FOR_REFERENCE: [&str; 8] =
    ["host", "path", "Host", "answer", "audience", "address_choice", "ask", "explain"];

/// Where one names the other. A test may: it compares them.
pub(crate) fn findings(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !size::is_test(&file.path)) {
        let forbidden: &[&str] = if file.path.starts_with(REFERENCE) {
            &NOT_FOR_REFERENCE
        } else if SYMBOLIC.iter().any(|folder| file.path.starts_with(folder)) {
            &["reference"]
        } else {
            continue;
        };
        let code = rust_text::shipped(&rust_text::code(&file.text));
        for part in rust_text::parts_of("crate", &code) {
            if forbidden.contains(&part.as_str()) {
                findings.push(format!("{}: shares crate::{part} with the other side", file.path));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn check(path: &str, text: &str, expected: usize) {
        let tree = Tree { files: vec![File { path: path.into(), text: text.into() }] };
        assert_eq!(findings(&tree).len(), expected, "{path}: {text}");
    }

    #[test]
    fn the_evaluators_do_not_know_each_other() {
        let reference = format!("{REFERENCE}walk.rs");
        check(&reference, "use crate::{Packet, verdict::{Fate, host}};", 0);
        check(&reference, "use crate::host::fib;", 1);
        check(&reference, "use crate::{Fate, path::stage, Host};", 2);
        check(&reference, "#[cfg(test)]\nmod tests { use crate::answer; }", 0);
        let stage = format!("{}route_input.rs", SYMBOLIC[1]);
        check(&stage, "use crate::host::fib;", 0);
        check(&stage, "use crate::reference::walk;", 1);
    }
}
