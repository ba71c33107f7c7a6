//! What files say about the firewall to everybody.
//!
//! The kernel shows rules to root only. What is on is often written where everyone may read it: in the
//! settings of ufw, in what systemd starts at boot, in what a running firewalld or Docker leaves behind.

use std::path::Path;

use canreach_snapshot::FirewallHint;

/// Where ufw keeps whether it is on.
const UFW: &str = "/etc/ufw/ufw.conf";
/// What a running firewalld leaves: its own file, or the one of its unit.
const FIREWALLD_RUNS: [&str; 2] = ["/run/firewalld.pid", "/run/firewalld"];
/// What a running Docker Engine leaves.
const DOCKER_RUNS: [&str; 2] = ["/run/docker.pid", "/run/docker.sock"];
/// Where systemd keeps what it starts at boot: Debian's and Fedora's target for firewalls among them.
const WANTED: [&str; 3] = ["sysinit.target.wants", "multi-user.target.wants", "basic.target.wants"];

/// Reads what there is.
pub(crate) fn read() -> Vec<FirewallHint> {
    read_below(Path::new("/"))
}

/// The same below another root.
fn read_below(root: &Path) -> Vec<FirewallHint> {
    let hint = |source: &str, program: &str, enabled| FirewallHint {
        source: source.to_owned(),
        program: program.to_owned(),
        enabled,
    };
    let place = |path: &str| root.join(path.trim_start_matches('/'));
    let mut hints = Vec::new();
    if let Ok(text) = std::fs::read_to_string(place(UFW)) {
        hints.push(hint(UFW, "ufw", ufw_enabled(&text)));
    }
    let left = |paths: &[&'static str]| paths.iter().copied().find(|path| place(path).exists());
    if let Some(path) = left(&FIREWALLD_RUNS) {
        hints.push(hint(path, "firewalld", Some(true)));
    }
    // A unit that is started at boot loads its rules and ends: a file of a running program there is not.
    for (unit, program) in [("nftables.service", "nftables"), ("firewalld.service", "firewalld")] {
        let wanted = |folder: &&str| {
            let path = format!("/etc/systemd/system/{folder}/{unit}");
            // The link is what counts, wherever it leads.
            place(&path).symlink_metadata().is_ok().then_some(path)
        };
        let known = hints.iter().any(|hint| hint.program == program);
        if let Some(path) = WANTED.iter().find_map(wanted).filter(|_| !known) {
            hints.push(hint(&path, program, None));
        }
    }
    if let Some(path) = left(&DOCKER_RUNS) {
        hints.push(hint(path, "Docker", Some(true)));
    }
    hints
}

/// ufw takes the last `ENABLED=yes` or `ENABLED=no`, whatever the case.
fn ufw_enabled(text: &str) -> Option<bool> {
    text.lines().rev().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        match (name.trim().eq_ignore_ascii_case("enabled"), value) {
            (true, yes) if yes.eq_ignore_ascii_case("yes") => Some(true),
            (true, no) if no.eq_ignore_ascii_case("no") => Some(false),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ufw_says_whether_it_is_on() {
        for (text, expected) in [
            ("# ENABLED=yes by default\nENABLED=no\nLOGLEVEL=low\n", Some(false)),
            ("ENABLED=yes\n", Some(true)),
            ("ENABLED=\"Yes\"\n", Some(true)),
            ("ENABLED=no\nENABLED=yes\n", Some(true)),
            ("ENABLED=maybe\n", None),
            ("", None),
        ] {
            assert_eq!(ufw_enabled(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_runs_and_what_starts_at_boot() {
        let root = std::env::temp_dir().join(format!("canreach-hints-{}", std::process::id()));
        let wants = root.join("etc/systemd/system/sysinit.target.wants");
        std::fs::create_dir_all(&wants).expect("a temporary directory");
        std::fs::create_dir_all(root.join("run")).expect("the same");
        std::os::unix::fs::symlink("/nowhere", wants.join("nftables.service")).expect("a link");
        std::fs::write(root.join("run/docker.pid"), "1").expect("a file");
        let found: Vec<(String, Option<bool>)> =
            read_below(&root).into_iter().map(|hint| (hint.program, hint.enabled)).collect();
        std::fs::remove_dir_all(&root).expect("it was made here");
        assert_eq!(found, [("nftables".to_owned(), None), ("Docker".to_owned(), Some(true))]);
    }
}
