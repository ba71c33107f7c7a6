//! Debian's kernel packages: found, downloaded, unpacked, and reduced to what a network needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Folders of modules that are kept, and whether with all that is below them. Drivers of hardware are
/// most of a kernel package, and the emulated machine has none.
const KEPT: [(&str, bool); 11] = [
    ("arch/x86/crypto", true),
    ("crypto", true),
    ("drivers/net", false),
    ("drivers/net/ipvlan", true),
    ("lib", true),
    ("net/802", true),
    ("net/8021q", true),
    ("net/core", true),
    ("net/packet", true),
    ("net/sched", true),
    ("net/unix", true),
];
/// The same; these have many modules that nobody needs here, but small ones.
const KEPT_OF_NETFILTER: [&str; 6] =
    ["net/bridge", "net/ipv4", "net/ipv6", "net/llc", "net/netfilter", "net/netlink"];

/// A kernel, unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` says.
    pub(crate) release: String,
    /// The file that is booted.
    pub(crate) file: PathBuf,
    /// The folder that holds `lib/modules`.
    pub(crate) root: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series (`6.1`), or one that was unpacked before: a cached kernel is kept
    /// until its folder is removed, so that figures can be compared.
    pub(crate) fn fetch(series: &str, cache: &Path) -> Result<Self> {
        if let Some(release) = cached(series, cache)? {
            return Ok(Self::at(release, cache));
        }
        let release = newest(series)?;
        let kernel = Self::at(release, cache);
        let package = format!("linux-image-{}", kernel.release);
        println!("downloading {package}");
        let downloads = cache.join("download");
        std::fs::create_dir_all(&downloads)
            .with_context(|| format!("make {}", downloads.display()))?;
        call(Command::new("apt-get").args(["download", &package]).current_dir(&downloads))?;
        let file = std::fs::read_dir(&downloads)
            .with_context(|| format!("list {}", downloads.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains(&format!("{package}_")));
        let file = file.with_context(|| format!("{package} was not downloaded"))?;
        // Under another name until it is whole.
        let unfinished = cache.join("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        call(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&unfinished))?;
        reduce(&unfinished.join("lib/modules").join(&kernel.release))?;
        call(Command::new(DEPMOD).arg("-b").arg(&unfinished).arg(&kernel.release))?;
        std::fs::rename(&unfinished, &kernel.root).context("keep the unpacked kernel")?;
        std::fs::remove_file(&file).context("remove the package that was unpacked")?;
        Ok(kernel)
    }

    fn at(release: String, cache: &Path) -> Self {
        let root = cache.join(format!("{PREFIX}{release}"));
        let file = root.join("boot").join(format!("vmlinuz-{release}"));
        Self { release, file, root }
    }
}

/// What the folders of unpacked kernels are called, before the release.
const PREFIX: &str = "kernel-";
/// Not on the path of ordinary users.
const DEPMOD: &str = "/sbin/depmod";

fn cached(series: &str, cache: &Path) -> Result<Option<String>> {
    let entries = std::fs::read_dir(cache).with_context(|| format!("list {}", cache.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let releases = names.filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned));
    Ok(releases.filter(|release| is_of(release, series)).max_by_key(|release| numbers(release)))
}

/// The newest release that a package source of this machine has.
fn newest(series: &str) -> Result<String> {
    let mut search = Command::new("apt-cache");
    search.args(["search", "--names-only", "^linux-image-[0-9].*-amd64$"]);
    let output = search.output().context("start apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let releases = names.filter_map(|name| name.strip_prefix("linux-image-"));
    let newest = releases.filter(|release| is_of(release, series)).max_by_key(|name| numbers(name));
    newest.map(str::to_owned).with_context(|| {
        format!(
            "no package source has a kernel {series} (apt-get update; those after the release are \
             in Debian's backports)"
        )
    })
}

/// Whether a release is an ordinary one of a series: `6.1.0-52-amd64` or `6.12.117+deb12-amd64`.
fn is_of(release: &str, series: &str) -> bool {
    let Some(rest) = release.strip_prefix(series) else { return false };
    let special = ["-rt-", "-cloud-", "-unsigned"].iter().any(|word| release.contains(word));
    // The name without further numbers is that of an empty package that depends on the newest one.
    !special && rest.starts_with(['.', '+']) && rest.ends_with("-amd64")
}

fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Removes the modules that are not needed.
fn reduce(modules: &Path) -> Result<()> {
    let kernel = modules.join("kernel");
    let below = |path: &Path, folder: &str| path.starts_with(kernel.join(folder));
    for file in files(&kernel)? {
        let kept = KEPT_OF_NETFILTER.iter().any(|folder| below(&file, folder))
            || KEPT.iter().any(|(folder, all)| match all {
                true => below(&file, folder),
                false => file.parent() == Some(&kernel.join(folder)),
            });
        if !kept {
            std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// Every file below a folder, in order.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let listing = || format!("list {}", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(listing)? {
            let entry = entry.with_context(listing)?;
            let kind = entry.file_type().with_context(listing)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Runs a program that must succeed.
fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_kernels_of_a_series_are_told_from_others() {
        for (release, series, expected) in [
            ("6.1.0-52-amd64", "6.1", true),
            ("6.12.117+deb12-amd64", "6.12", true),
            ("6.12.117+deb12-amd64", "6.1", false),
            ("6.1.0-52-rt-amd64", "6.1", false),
            ("6.1.0-52-cloud-amd64", "6.1", false),
            ("6.12-amd64", "6.12", false),
        ] {
            assert_eq!(is_of(release, series), expected, "{release} of {series}");
        }
        assert!(numbers("6.1.0-52-amd64") > numbers("6.1.0-9-amd64"));
    }
}
