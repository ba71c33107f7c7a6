//! The folder of cgroups that a benchmark makes, and removes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How the folder begins; the rest is the process that made it.
const PREFIX: &str = "cr-bench-";
/// Ended processes leave their cgroup a moment later; after this long something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the unified hierarchy is mounted.
pub(crate) fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let mut found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    found.next().context("no cgroup2 file system is mounted")
}

/// Makes the folder; those of benchmarks that were killed are removed first.
pub(crate) fn create() -> Result<PathBuf> {
    let mount = mount()?;
    let entries = fs::read_dir(&mount).with_context(|| format!("list {}", mount.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            remove(&entry.path())?;
        }
    }
    let folder = mount.join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
    Ok(folder)
}

/// Ends every process in it, and removes it.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
    };
    // Before Linux 5.14 this file is missing; then only the namespace's end kills them.
    let _ = fs::write(folder.join("cgroup.kill"), "1");
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            remove_one(&entry.path())?;
        }
    }
    remove_one(folder)
}

fn remove_one(folder: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => {
                bail!("remove cgroup {}: {error}", folder.display());
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}
