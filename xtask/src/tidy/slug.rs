//! Codes that people see: each has a page, a phrase and a line in the documentation.

use crate::tree::Tree;

/// Where the codes are defined.
const VERDICT: &str = "crates/canreach-engine/src/verdict.rs";
/// Where their sentences are.
const PHRASE: &str = "crates/canreach-report/src/phrase.rs";
/// Where `explain` has its pages.
const TOPICS: &str = "crates/canreach-report/topics/";
/// Where each code's exact condition stands.
const CONDITIONS: &str = "docs/verdicts.md";

/// Codes without a page, a phrase, or a line in `docs/verdicts.md`.
pub(crate) fn findings(tree: &Tree) -> Vec<String> {
    let text = |path: &str| tree.file(path).map_or("", |file| file.text.as_str());
    let codes = codes(text(VERDICT));
    let mut findings = Vec::new();
    for (owner, variant, slug) in &codes {
        if tree.file(&format!("{TOPICS}{slug}.md")).is_none() {
            findings.push(format!("{slug}: no page {TOPICS}{slug}.md"));
        }
        if !text(PHRASE).contains(&format!("{owner}::{variant}")) {
            findings.push(format!("{slug}: no phrase for {owner}::{variant} in {PHRASE}"));
        }
        if !text(CONDITIONS).contains(&format!("`{slug}`")) {
            findings.push(format!("{slug}: not in {CONDITIONS}"));
        }
    }
    for (at, (_, _, slug)) in codes.iter().enumerate() {
        if codes[..at].iter().any(|(_, _, earlier)| earlier == slug) {
            findings.push(format!("{slug}: two causes have this code"));
        }
    }
    findings
}

/// The owner, variant and slug of each drop reason and unknown reason.
fn codes(text: &str) -> Vec<(&str, &str, &str)> {
    let mut owner = "";
    let mut codes = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("impl ") {
            owner = rest.trim_end_matches([' ', '{']);
        }
        if owner != "DropReason" && owner != "UnknownReason" {
            continue;
        }
        let Some((variant, slug)) = line.trim().split_once(" => \"") else { continue };
        if let (Some(variant), Some((slug, _))) =
            (variant.strip_prefix("Self::"), slug.split_once('"'))
        {
            codes.push((owner, variant, slug));
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{self, File};

    #[test]
    fn the_codes_of_the_engine_are_read() {
        let tree = Tree::read(&tree::root()).expect("the repository can be read");
        let text = &tree.file(VERDICT).expect("the codes are defined there").text;
        let slugs: Vec<&str> = codes(text).iter().map(|(_, _, slug)| *slug).collect();
        assert!(slugs.len() > 30, "{slugs:?}");
        assert!(slugs.contains(&"bind-loopback") && slugs.contains(&"needs-root"), "{slugs:?}");
    }

    #[test]
    fn a_code_without_words_is_found() {
        let text = "impl DropReason {\n    Self::A => \"a\",\n    Self::B => \"b\",\n}\n\
             impl Verdict {\n    Self::C => \"c\",\n}\n";
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = vec![
            file(VERDICT, text),
            file(PHRASE, "DropReason::A => DropReason::B =>"),
            file(&format!("{TOPICS}a.md"), "A"),
            file(CONDITIONS, "`a` `b`"),
        ];
        assert_eq!(findings(&Tree { files }).len(), 1);
    }
}
