//! Names that say nothing.

use crate::tidy::rust_text;
use crate::tree::Tree;

/// What no file and no folder is called: whatever is in it has a better name.
const FILES: [&str; 10] =
    ["util", "utils", "helper", "helpers", "common", "core", "manager", "misc", "shared", "types"];
/// How no type ends.
const TYPE_ENDINGS: [&str; 6] = ["Manager", "Helper", "Utils", "Util", "Info", "Data"];

/// Files and folders with an empty name, or with the name of the folder they are in.
pub(crate) fn forbidden_files(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let stem = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        let parts: Vec<&str> = stem.split('/').collect();
        for part in &parts {
            if FILES.contains(part) {
                findings.push(format!("{}: `{part}` says nothing", file.path));
            }
        }
        if let [.., folder, name] = parts.as_slice()
            && folder == name
        {
            findings.push(format!("{}: repeats the name of its folder", file.path));
        }
    }
    findings
}

/// Functions called `get_...`, and types that end in a filler.
pub(crate) fn forbidden_items(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let code = rust_text::code(&file.text);
        let words: Vec<&str> = rust_text::words(&code).collect();
        for pair in words.windows(2) {
            let bad = match pair[0] {
                "fn" => pair[1].starts_with("get_"),
                "struct" | "enum" | "trait" | "type" => {
                    TYPE_ENDINGS.iter().any(|ending| pair[1].ends_with(ending))
                }
                _ => false,
            };
            if bad {
                findings.push(format!("{}: `{} {}` says nothing", file.path, pair[0], pair[1]));
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
        let findings = [forbidden_files(&tree), forbidden_items(&tree)].concat();
        assert_eq!(findings.len(), expected, "{path}: {findings:?}");
    }

    #[test]
    fn empty_names_are_found() {
        check("crates/a/src/route.rs", "fn widest() {} struct Link; // fn get_x", 0);
        check("crates/a/src/utils.rs", "", 1);
        check("crates/a/src/common/route.rs", "", 1);
        check("crates/a/src/path/path.rs", "", 1);
        check("a.rs", "fn get_link() {} struct LinkInfo; enum LinkManager {}", 3);
    }
}
