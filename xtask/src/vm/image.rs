//! The file system of the emulated machine: the lab at the path where it was built, so that it finds
//! its cases; the programs it calls; the modules of the kernel.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::kernel::{Kernel, files};

/// Programs that are copied, and the Debian packages they come in.
pub(crate) const PROGRAMS: [(&str, &str); 13] = [
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("ip6tables-legacy", "iptables"),
    ("ip6tables-legacy-restore", "iptables"),
    ("ip6tables-nft", "iptables"),
    ("ip6tables-nft-restore", "iptables"),
    ("ipset", "ipset"),
    ("iptables-legacy", "iptables"),
    ("iptables-legacy-restore", "iptables"),
    ("iptables-nft", "iptables"),
    ("iptables-nft-restore", "iptables"),
    ("nft", "nftables"),
    ("sysctl", "procps"),
];
/// The kernel calls it by this path, and it is `kmod` by another name.
const MODPROBE: &str = "/sbin/modprobe";
/// Where iptables looks for its matches and targets.
const PLUGINS: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// The lab's program in the machine.
const LAB: &str = "/bin/lab";

/// What a line on the console begins with that says how the lab ended.
pub(crate) const STATUS: &str = "vm: the lab ended with status ";

/// The first process. Modules that add hooks or sysctls and that nothing asks for by itself are
/// loaded first; the kernel asks for the others when it needs them.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /programs
/bin/busybox --install -s /programs
export PATH=/bin:/programs HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
for module in nf_conntrack br_netfilter; do
    /sbin/modprobe $module || echo "vm: no module $module"
done
cd /
"#;

/// Writes the archive: with these commands of the lab, one after the other.
pub(crate) fn write(
    file: &Path,
    kernel: &Kernel,
    lab: (&Path, &Path),
    commands: &[Vec<String>],
) -> Result<()> {
    let (program, folder) = lab;
    let out = File::create(file).with_context(|| format!("make {}", file.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    archive.add_device("/dev/console", 5, 1)?;
    archive.add_device("/dev/null", 1, 3)?;
    archive.add_file("/init", 0o755, init(commands).as_bytes())?;
    archive.add_copy(LAB, program)?;
    let mut linked = vec![program.to_owned(), PathBuf::from(MODPROBE)];
    for (name, package) in PROGRAMS {
        let path = find(name).with_context(|| format!("{name} (Debian package {package})"))?;
        archive.add_copy(&format!("/bin/{name}"), &path)?;
        linked.push(path);
    }
    archive.add_copy(MODPROBE, Path::new(MODPROBE))?;
    for plugin in files(Path::new(PLUGINS))? {
        archive.add_copy(&plugin.to_string_lossy(), &plugin)?;
        linked.push(plugin);
    }
    for library in libraries(&linked)? {
        archive.add_copy(&library.to_string_lossy(), &library)?;
    }
    for own in [folder.join("cases"), folder.to_owned()] {
        let texts = files(&own)?.into_iter().filter(|path| path.parent() == Some(&own));
        for path in texts.filter(|path| path.extension().is_some_and(|ending| ending == "toml")) {
            archive.add_copy(&path.to_string_lossy(), &path)?;
        }
    }
    for path in files(&kernel.root.join("lib"))? {
        let inside = path.strip_prefix(&kernel.root).context("a file below its folder")?;
        archive.add_copy(&inside.to_string_lossy(), &path)?;
    }
    archive.add_folder("/tmp")?;
    archive.finish()
}

fn init(commands: &[Vec<String>]) -> String {
    let mut text = INIT.to_owned();
    for command in commands {
        let words: Vec<String> =
            command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let words = words.join(" ");
        text.push_str(&format!("{LAB} {words} 2>&1\necho \"{STATUS}$?\"\n"));
    }
    // The machine is told to end where another would start anew.
    text.push_str("/bin/busybox reboot -f\n");
    text
}

/// Where a program is, also where ordinary users do not look.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.exists()))
}

/// The shared libraries of programs and plugins, by the paths where the loader looks for them.
fn libraries(linked: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").args(linked).output().context("start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.lines().filter(|line| line.starts_with('\t')).flat_map(str::split_whitespace);
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_lab_as_they_are() {
        let text = init(&[vec!["cases".to_owned(), "the kernel's $HOME".to_owned()]]);
        assert!(text.contains(r"/bin/lab 'cases' 'the kernel'\''s $HOME' 2>&1"), "{text}");
    }
}
