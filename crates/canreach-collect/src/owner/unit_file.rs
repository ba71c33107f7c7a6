//! The service that a socket unit starts, as its unit file says (`systemd.socket(5)`).
//!
//! Left out: drop-in files, and units of users outside the system's own directories. Without a
//! file, the rule holds that `NAME.socket` starts `NAME.service`.

use std::path::Path;

/// Where units of the system are, the strongest first (`systemd.unit(5)`).
const SYSTEM: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Where units for every user are.
const USER: [&str; 4] = [
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
];

/// The service that a socket unit starts. `None` if the name is not that of a socket unit.
pub(crate) fn started_by(socket_unit: &str, user: bool) -> Option<String> {
    let stem = socket_unit.strip_suffix(".socket")?;
    // Nothing but a name: it comes from a path, which anyone may have named.
    if stem.is_empty() || stem.contains('/') {
        return None;
    }
    let directories: &[&str] = if user { &USER } else { &SYSTEM };
    let text = directories.iter().find_map(|directory| read(Path::new(directory), stem));
    Some(service(stem, &text.unwrap_or_default()))
}

/// A unit's file; for an instance of a template, the template's.
fn read(directory: &Path, stem: &str) -> Option<String> {
    let own = std::fs::read_to_string(directory.join(format!("{stem}.socket"))).ok();
    own.or_else(|| {
        let (template, _) = stem.split_once('@')?;
        std::fs::read_to_string(directory.join(format!("{template}@.socket"))).ok()
    })
}

fn service(stem: &str, file: &str) -> String {
    let value = |key: &str| {
        let mut values = file.lines().filter_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == key).then(|| value.trim())
        });
        values.next_back().filter(|value| !value.is_empty())
    };
    if let Some(service) = value("Service") {
        return service.to_owned();
    }
    // With Accept=, each connection starts an instance of its own.
    let accept = value("Accept").is_some_and(|value| matches!(value, "yes" | "true" | "on" | "1"));
    if accept { format!("{stem}@.service") } else { format!("{stem}.service") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_which_service_it_starts() {
        for (stem, file, expect) in [
            ("ssh", "", "ssh.service"),
            ("ssh", "[Socket]\nListenStream=22\nAccept=no\n", "ssh.service"),
            ("sshd", "[Socket]\nAccept = yes\n", "sshd@.service"),
            ("web", "[Socket]\nService=nginx.service\n", "nginx.service"),
            ("web", "Service=a.service\nService=\n", "web.service"),
            ("web@blue", "", "web@blue.service"),
        ] {
            assert_eq!(service(stem, file), expect, "{stem}: {file}");
        }
    }

    #[test]
    fn only_socket_units_start_something() {
        assert_eq!(started_by("ssh.service", false), None);
        assert_eq!(started_by(".socket", false), None);
        assert_eq!(started_by("../../home/me/x.socket", false), None);
        assert_eq!(
            started_by("no-such-unit-anywhere.socket", true).as_deref(),
            Some("no-such-unit-anywhere.service")
        );
    }
}
