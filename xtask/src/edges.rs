//! Who may depend on whom.
//!
//! The table is exhaustive: a crate that is not in it, and an edge that is not in it, are findings.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Each crate of the workspace, and the crates of the workspace it may depend on.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("canreach-snapshot", &[]),
    ("canreach-collect", &["canreach-snapshot"]),
    ("canreach-engine", &["canreach-snapshot"]),
    ("canreach-report", &["canreach-engine", "canreach-snapshot"]),
    ("canreach", &["canreach-collect", "canreach-engine", "canreach-report", "canreach-snapshot"]),
    (
        "lab",
        &[
            "canreach",
            "canreach-collect",
            "canreach-engine",
            "canreach-report",
            "canreach-snapshot",
        ],
    ),
    ("xtask", &[]),
    ("canreach-fuzz", &["canreach-collect", "canreach-engine", "canreach-snapshot"]),
];

/// The edges inside the workspace, from each crate, of every kind: also for tests and builds.
pub(crate) type Edges = BTreeMap<String, Vec<String>>;

/// Reads the edges from cargo: those of the workspace, and those of the fuzz targets, which are a
/// workspace of their own.
pub(crate) fn read(root: &Path) -> Result<Edges> {
    let mut packages = packages(root, "Cargo.toml")?;
    packages.extend(self::packages(root, "fuzz/Cargo.toml")?);
    parse(&packages).context("cargo metadata without names or dependencies")
}

fn packages(root: &Path, manifest: &str) -> Result<Vec<Value>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .args(["--manifest-path", manifest])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata of {manifest}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("read what cargo metadata printed")?;
    metadata["packages"].as_array().cloned().context("cargo metadata without packages")
}

fn parse(packages: &[Value]) -> Option<Edges> {
    let mut edges = Edges::new();
    for package in packages {
        edges.insert(package["name"].as_str()?.to_owned(), Vec::new());
    }
    for package in packages {
        let from = package["name"].as_str()?;
        for dependency in package["dependencies"].as_array()? {
            let to = dependency["name"].as_str()?;
            if edges.contains_key(to) {
                edges.get_mut(from)?.push(to.to_owned());
            }
        }
    }
    Some(edges)
}

/// What differs from the table.
pub(crate) fn findings(edges: &Edges) -> Vec<String> {
    let mut findings = Vec::new();
    for (from, targets) in edges {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == from) else {
            findings.push(format!("crate {from} is not in the table of xtask/src/edges.rs"));
            continue;
        };
        for to in targets {
            if !allowed.contains(&to.as_str()) {
                findings.push(format!("{from} depends on {to}, which ARCHITECTURE.md forbids"));
            }
        }
    }
    for (name, _) in ALLOWED {
        if !edges.contains_key(name) {
            findings.push(format!("crate {name} of xtask/src/edges.rs does not exist"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    #[test]
    fn the_workspace_has_only_the_edges_of_the_table() {
        let edges = read(&tree::root()).expect("cargo metadata works offline");
        assert_eq!(findings(&edges), Vec::<String>::new());
    }

    #[test]
    fn an_edge_or_a_crate_too_many_is_found() {
        let mut edges: Edges = ALLOWED.iter().map(|(name, _)| ((*name).into(), vec![])).collect();
        assert_eq!(findings(&edges), Vec::<String>::new());
        edges.insert("canreach-snapshot".into(), vec!["canreach-engine".into()]);
        edges.insert("canreach-extra".into(), vec![]);
        edges.remove("lab");
        assert_eq!(findings(&edges).len(), 3, "{:?}", findings(&edges));
    }
}
