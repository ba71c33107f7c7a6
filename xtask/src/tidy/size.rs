//! How long files and functions may be, tests and comments not counted.

use std::collections::BTreeMap;

use crate::tidy::rust_text;
use crate::tree::{File, Tree};

/// What a file should stay under; above it, `cargo xtask tidy` says so.
const FILE_BUDGET: usize = 400;
/// What no file may exceed.
const FILE_LIMIT: usize = 800;
/// What no `lib.rs` may exceed: it introduces the crate and lists what it exports.
const LIB_LIMIT: usize = 120;
/// What no function may exceed, except those in the ratchet, which may only shrink.
const FUNCTION_LIMIT: usize = 70;
/// The functions that were longer when they were last looked at: `path function lines`.
const RATCHET: &str = "xtask/function-length.txt";

/// Whether a file is compiled for tests alone.
pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("fuzz/")
}

/// The code of a file without its tests.
fn shipped(file: &File) -> String {
    if is_test(&file.path) {
        return String::new();
    }
    rust_text::shipped(&rust_text::code(&file.text))
}

/// Files over the hard limit.
pub(crate) fn long_files(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let limit = if file.path.ends_with("/lib.rs") { LIB_LIMIT } else { FILE_LIMIT };
        let lines = rust_text::lines(&shipped(file));
        if lines > limit {
            findings.push(format!("{}: {lines} lines of code, the limit is {limit}", file.path));
        }
    }
    findings
}

/// Files over the budget.
pub(crate) fn files_over_budget(tree: &Tree) -> Vec<String> {
    let measured = tree.rust().map(|file| (file, rust_text::lines(&shipped(file))));
    measured
        .filter(|(_, lines)| *lines > FILE_BUDGET)
        .map(|(file, lines)| format!("{}: {lines} lines of code, over {FILE_BUDGET}", file.path))
        .collect()
}

/// Functions over the limit that are not in the ratchet, longer than it says, or shorter.
pub(crate) fn long_functions(tree: &Tree) -> Vec<String> {
    let mut long: BTreeMap<String, usize> = BTreeMap::new();
    for file in tree.rust() {
        for (name, lines) in rust_text::functions(&shipped(file)) {
            if lines > FUNCTION_LIMIT {
                long.insert(format!("{} {name}", file.path), lines);
            }
        }
    }
    let mut ratchet = ratchet(tree);
    let mut findings = Vec::new();
    for (function, lines) in long {
        let allowed = ratchet.remove(&function).unwrap_or(FUNCTION_LIMIT);
        if lines > allowed {
            findings.push(format!("{function}: {lines} lines, the limit is {allowed}"));
        } else if lines < allowed {
            findings.push(format!("{function}: shrank to {lines}: lower it in {RATCHET}"));
        }
    }
    let gone = ratchet.keys().map(|function| format!("{function}: take it out of {RATCHET}"));
    findings.extend(gone);
    findings
}

fn ratchet(tree: &Tree) -> BTreeMap<String, usize> {
    let text = tree.file(RATCHET).map_or("", |file| file.text.as_str());
    let entries = text.lines().filter(|line| !line.starts_with('#'));
    entries
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(function, lines)| Some((function.to_owned(), lines.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, String)]) -> Tree {
        let file =
            |(path, text): &(&str, String)| File { path: (*path).into(), text: text.clone() };
        Tree { files: files.iter().map(file).collect() }
    }

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    #[test]
    fn files_have_a_limit() {
        let lines = |count: usize| "use a;\n".repeat(count);
        let table = [
            ("a/b.rs", 800, 0),
            ("a/b.rs", 801, 1),
            ("a/lib.rs", 121, 1),
            ("a/tests/b.rs", 900, 0),
        ];
        for (path, count, expected) in table {
            let findings = long_files(&tree(&[(path, lines(count))]));
            assert_eq!(findings.len(), expected, "{path} {count}: {findings:?}");
        }
        assert_eq!(files_over_budget(&tree(&[("a/b.rs", lines(401))])).len(), 1);
        let commented = "// a\n\n".repeat(900);
        assert_eq!(long_files(&tree(&[("a/b.rs", commented)])), Vec::<String>::new());
    }

    #[test]
    fn functions_may_only_shrink() {
        let ratchet = (RATCHET, "# why\na.rs f 80\n".to_owned());
        for (lines, findings) in [(80, 0), (81, 1), (79, 1), (70, 1)] {
            let tree = tree(&[("a.rs", function("f", lines)), ratchet.clone()]);
            assert_eq!(long_functions(&tree).len(), findings, "{lines}");
        }
        assert_eq!(long_functions(&tree(&[("a.rs", function("g", 71))])).len(), 1);
        assert_eq!(long_functions(&tree(&[("a.rs", function("g", 70))])).len(), 0);
    }
}
