//! Known disagreements: cases whose probes do not come out as they say. Each has a reason. They are
//! still run, and must still fail: the entry goes when its cause is gone.

use anyhow::{Context, Result};
use serde::Deserialize;

/// One known disagreement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The name of the case.
    pub case: String,
    /// The probe's line, with what is expected.
    pub probe: String,
    /// Why it fails.
    pub reason: String,
}

/// A random host with packet filters whose answers differ for a known reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownSeed {
    /// The seed.
    pub seed: u64,
    /// Why it fails.
    pub reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    known: Vec<Known>,
    #[serde(default)]
    seed: Vec<KnownSeed>,
}

/// Reads the list of seeds.
///
/// # Errors
/// If it is no such list, or an entry gives no reason.
pub fn read_seeds(text: &str) -> Result<Vec<KnownSeed>> {
    let file: File = toml::from_str(text).context("not a list of known disagreements")?;
    for known in &file.seed {
        if known.reason.trim().is_empty() {
            anyhow::bail!("seed {}: the reason is missing", known.seed);
        }
    }
    Ok(file.seed)
}

/// Reads the list.
///
/// # Errors
/// If it is no such list, or an entry gives no reason.
pub fn read(text: &str) -> Result<Vec<Known>> {
    let file: File = toml::from_str(text).context("not a list of known disagreements")?;
    for known in &file.known {
        if known.reason.trim().is_empty() {
            anyhow::bail!("case `{}`, `{}`: the reason is missing", known.case, known.probe);
        }
    }
    Ok(file.known)
}

/// Whether a failure is a known one.
#[must_use]
pub fn find<'a>(list: &'a [Known], case: &str, probe: &str) -> Option<&'a Known> {
    list.iter().find(|known| known.case == case && known.probe == probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        let entry = |reason: &str| {
            read(&format!("[[known]]\ncase = 'a'\nprobe = 'b'\nreason = '{reason}'"))
        };
        assert!(entry(" ").is_err());
        let list = entry("the kernel hides it").unwrap();
        assert!(find(&list, "a", "b").is_some());
        assert!(find(&list, "a", "c").is_none());
    }

    #[test]
    fn an_empty_list_is_a_list() {
        assert!(read("# nothing is known\n").unwrap().is_empty());
    }
}
