//! What the documentation points at must be there.

use crate::tree::Tree;

/// The folders that a path in backticks may begin with.
const FOLDERS: [&str; 6] = ["crates/", "docs/", "lab/", "xtask/", "fixtures/", ".ci/"];

/// Paths and links of the pages at the root and under `docs/` that lead nowhere.
pub(crate) fn dead_paths(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let folder = match file.path.rsplit_once('/') {
            _ if !file.path.ends_with(".md") => continue,
            None => "",
            Some(("docs", _)) => "docs/",
            Some(_) => continue,
        };
        for path in in_backticks(&file.text).chain(links(&file.text, folder)) {
            if !exists(tree, &path) {
                findings.push(format!("{}: {path} does not exist", file.path));
            }
        }
    }
    findings
}

fn in_backticks(text: &str) -> impl Iterator<Item = String> {
    let words = text.split('`').skip(1).step_by(2);
    words.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder))).map(str::to_owned)
}

/// Relative links, as paths from the root.
fn links(text: &str, folder: &str) -> impl Iterator<Item = String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .map(move |target| match target.strip_prefix("../") {
            Some(rest) => rest.to_owned(),
            None => format!("{folder}{target}"),
        })
}

/// A file, a folder, or files that a pattern with one `*` stands for.
fn exists(tree: &Tree, path: &str) -> bool {
    tree.files.iter().any(|file| match path.split_once('*') {
        Some((start, end)) => file.path.starts_with(start) && file.path.ends_with(end),
        None if path.ends_with('/') => file.path.starts_with(path),
        None => {
            file.path == path
                || file.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn check(path: &str, text: &str, expected: usize) {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = vec![file(path, text), file("docs/a.md", ""), file("crates/a/src/b.rs", "")];
        let findings = dead_paths(&Tree { files });
        assert_eq!(findings.len(), expected, "{text}: {findings:?}");
    }

    #[test]
    fn dead_paths_are_found() {
        check("README.md", "`docs/a.md` [a](docs/a.md#b) `crates/a` `crates/*/b.rs` `cargo x`", 0);
        check("README.md", "see `docs/b.md` and [it](docs/c.md)", 2);
        check("docs/d.md", "[a](a.md) [root](../README.md) [web](https://example.org/a)", 1);
        check("docs/d.md", "`crates/c/`, `crates/a/`", 1);
        check("crates/a/e.md", "`docs/b.md`", 0);
    }
}
