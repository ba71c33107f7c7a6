//! What the files of the path must say, and what a `mod.rs` must not hold.

use crate::tidy::{rust_text, size};
use crate::tree::Tree;

/// Where the stages live.
const STAGES: &str = "crates/canreach-engine/src/path/";
/// How the paragraphs of a stage's documentation begin.
const WORDS: [&str; 4] = ["//! *Kernel:*", "//! *Decides:*", "//! *Reads:*", "//! *Not modelled:*"];

/// Stage files whose documentation lacks one of the four paragraphs.
pub(crate) fn missing_words(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let Some(name) = file.path.strip_prefix(STAGES) else { continue };
        if name == "mod.rs" || size::is_test(&file.path) {
            continue;
        }
        for word in WORDS {
            if !file.text.lines().any(|line| line.starts_with(word)) {
                findings.push(format!("{}: no paragraph begins with `{word}`", file.path));
            }
        }
    }
    findings
}

/// `mod.rs` files with code, or without a word about the folder.
pub(crate) fn code_in_mod(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| file.path.ends_with("/mod.rs")) {
        // What several test programs share has to be in a folder, or it would be one itself.
        if size::is_test(&file.path) {
            continue;
        }
        if !file.text.starts_with("//! ") {
            findings.push(format!("{}: says nothing about the folder", file.path));
        }
        let code = without_attributes(&rust_text::code(&file.text));
        for item in code.split(';').map(str::trim).filter(|item| !item.is_empty()) {
            if !declares(item) {
                let first = item.lines().next().unwrap_or_default();
                findings.push(format!("{}: only declarations belong here: {first}", file.path));
            }
        }
    }
    findings
}

/// Whether an item only says that a module is there, or where a name comes from.
fn declares(item: &str) -> bool {
    let item = item.strip_prefix("pub").unwrap_or(item).trim_start();
    let item = match item.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or("", |(_, rest)| rest).trim_start(),
        None => item,
    };
    item.starts_with("use ") || (item.starts_with("mod ") && !item.contains('{'))
}

/// Without `#[...]` and `#![...]`; strings are blank already, so brackets are balanced.
fn without_attributes(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find('#') {
        out.push_str(&rest[..start]);
        let mut depth = 0_usize;
        let end = rest[start..].char_indices().find_map(|(at, character)| {
            match character {
                '[' => depth += 1,
                ']' if depth == 1 => return Some(start + at + 1),
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            None
        });
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn check(path: &str, text: &str, words: usize, code: usize) {
        let tree = Tree { files: vec![File { path: path.into(), text: text.into() }] };
        assert_eq!(missing_words(&tree).len(), words, "{path}: {:?}", missing_words(&tree));
        assert_eq!(code_in_mod(&tree).len(), code, "{path}: {:?}", code_in_mod(&tree));
    }

    #[test]
    fn stages_say_four_things_and_mods_only_declare() {
        let stage = format!("{STAGES}route.rs");
        let full = WORDS.map(|word| format!("{word} a\n//!\n")).concat();
        check(&stage, &full, 0, 0);
        check(&stage, &full.replace("*Reads:*", "It reads"), 1, 0);
        check(&stage, "fn main() {}", 4, 0);
        let module = "crates/a/src/b/mod.rs";
        check(module, "//! Stages.\n#[cfg(test)]\nmod a;\npub(crate) use a::{b, c};\n", 0, 0);
        check(module, "//! Stages.\nmod a { }\n", 0, 1);
        check(module, "mod a;\nconst B: u8 = 1;\n", 0, 2);
    }
}
