//! Outside the namespaces: builds the program, runs each setting, writes the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::round::INSIDE;
use crate::bench::{cgroup, setting, table};

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    settings: Vec<String>,
    rounds: Option<usize>,
    write: bool,
    /// A shell command that runs in each setting, instead of the comparison: for strace and perf.
    look: Option<String>,
}

/// `cargo xtask bench`.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let wish = parse(arguments)?;
    if !rustix::process::getuid().is_root() {
        bail!("the benchmark makes namespaces and cgroups: run it as root");
    }
    for (program, package) in
        [("ss", "iproute2"), ("netstat", "net-tools"), ("lsof", "lsof"), ("unshare", "util-linux")]
    {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("{program} is missing: apt-get install {package}"))?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "-p", "canreach"])
        .current_dir(root)
        .status();
    if !built.context("start cargo")?.success() {
        bail!("cargo build --release failed");
    }
    // A place that every user can reach, wherever the checkout is.
    let folder = PathBuf::from(format!("/tmp/cr-bench-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
    let measured = measure(root, &folder, &wish);
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    let lines = measured?;
    if wish.look.is_some() {
        return Ok(());
    }
    let text = table::render(&lines);
    println!("{text}");
    if wish.write {
        table::write(root, &text)?;
    }
    Ok(())
}

fn parse(arguments: &[&str]) -> Result<Wish> {
    let mut wish = Wish::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--write" => wish.write = true,
            "--look" => {
                let command = rest.next().context("--look needs a shell command")?;
                wish.look = Some((*command).to_owned());
            }
            "--rounds" => {
                let number = rest.next().context("--rounds needs a number")?;
                wish.rounds = Some(number.parse().context("--rounds needs a number")?);
            }
            name if setting::all().iter().any(|setting| setting.name == name) => {
                wish.settings.push(name.to_owned());
            }
            other => bail!("{other}: no such setting (i, ii, iii) or option"),
        }
    }
    if wish.settings.is_empty() {
        wish.settings = setting::all().map(|setting| setting.name.to_owned()).to_vec();
    }
    if wish.rounds == Some(0) {
        bail!("--rounds 0: at least one");
    }
    Ok(wish)
}

fn measure(root: &Path, folder: &Path, wish: &Wish) -> Result<Vec<Value>> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let canreach = folder.join("canreach");
    let built = target.join("release").join("canreach");
    fs::copy(&built, &canreach).with_context(|| format!("copy {}", built.display()))?;
    let mut lines = Vec::new();
    for name in &wish.settings {
        let cgroup = cgroup::create()?;
        let measured = run_setting(name, wish, &cgroup, &canreach);
        // Also after a failure; the failure is what is reported.
        let removed = cgroup::remove(&cgroup);
        lines.extend(measured?);
        removed?;
    }
    Ok(lines)
}

/// A network without anything but `lo`, and a PID namespace whose end is the end of all.
fn run_setting(name: &str, wish: &Wish, cgroup: &Path, canreach: &Path) -> Result<Vec<Value>> {
    let own = std::env::current_exe().context("find this program")?;
    println!("setting ({name})");
    let mut child = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(own)
        .args([INSIDE, name])
        .arg(wish.rounds.map_or_else(|| "-".to_owned(), |rounds| rounds.to_string()))
        .args([cgroup, canreach])
        .args(&wish.look)
        // Its end tells the other side that this process is gone.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start unshare")?;
    let stdin = child.stdin.take();
    let output = child.wait_with_output().context("wait for the setting")?;
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("setting ({name}): {}: {text}", output.status);
    }
    if wish.look.is_some() {
        print!("{text}");
        return Ok(Vec::new());
    }
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("read {line:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read() {
        let all = parse(&[]).expect("no wish is a wish");
        assert_eq!(all.settings, ["i", "ii", "iii"]);
        let some = parse(&["ii", "--rounds", "3", "--write"]).expect("all of it is known");
        assert_eq!((some.settings.len(), some.rounds, some.write), (1, Some(3), true));
        for bad in [&["iv"][..], &["--rounds"], &["--rounds", "0"], &["--rounds", "x"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
