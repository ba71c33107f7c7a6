//! Manifests: licences, inherited settings, and a reason for each member and dependency.

use crate::tree::Tree;

/// Must be there.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Everything that is missing.
pub(crate) fn findings(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for name in LICENCES {
        if tree.file(name).is_none() {
            findings.push(format!("{name} is missing"));
        }
    }
    if let Some(root) = tree.file("Cargo.toml") {
        findings.extend(without_reason(&root.text));
    }
    for file in &tree.files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        if folder == "fuzz" {
            continue;
        }
        // Without it `cargo run`, the first command of the README, does not know what to run.
        let run =
            if folder == "crates/canreach" { Some("default-run = \"canreach\"") } else { None };
        let settings = ["license.workspace = true", "[lints]\nworkspace = true"];
        for setting in settings.into_iter().chain(run) {
            if !file.text.contains(setting) {
                findings.push(format!("{}: no `{}`", file.path, setting.replace('\n', " ")));
            }
        }
    }
    findings
}

/// Dependencies and members of the root manifest without a comment. One comment serves all lines
/// up to the next blank one.
fn without_reason(manifest: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut reason = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        if line.is_empty() || line.starts_with('[') || line.ends_with("= [") {
            reason = false;
        } else if line.starts_with('#') {
            reason = true;
        } else if section == "[workspace.dependencies]" && !reason && !line.contains("path = ") {
            findings.push(format!("Cargo.toml: no comment says why: {line}"));
        } else if section == "[workspace]" && line.starts_with('"') && !line.contains('#') {
            // The members come with a comment each, the default members are a part of them.
            let known = manifest.matches(line.trim_end_matches(',')).count() > 1;
            if !reason && !known {
                findings.push(format!("Cargo.toml: no comment says what it is: {line}"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    #[test]
    fn reasons_and_licences_are_missed() {
        let manifest = "[workspace]\nmembers = [\n  # A.\n  \"a\",\n]\n\n[workspace.dependencies]\n\
             a = { path = \"a\" }\n\n# Why.\nb = \"1\"\nc = \"1\"\n\nd = \"1\"\n";
        assert_eq!(without_reason(manifest).len(), 1, "{:?}", without_reason(manifest));
        assert_eq!(without_reason("[workspace]\nmembers = [\n  \"a\",\n]\n").len(), 1);
        let file = File { path: "a/Cargo.toml".into(), text: "[lints]\nworkspace = true\n".into() };
        assert_eq!(findings(&Tree { files: vec![file] }).len(), 3);
    }
}
