//! What the path of a control group says by itself: the systemd unit, and the container.
//!
//! Units are named by the last component that is one; containers by the last that a container engine
//! made, so that a service inside a container has both. The layouts are those of systemd, Docker,
//! Podman, Kubernetes (containerd, CRI-O), LXC and systemd-machined.

use crate::process::{Container, Unit};

/// How many digits an identifier has that a container engine makes (SHA-256).
const ID_DIGITS: usize = 64;

impl Unit {
    /// The unit that a path names: `/system.slice/ssh.service`.
    #[must_use]
    pub fn from_cgroup_path(path: &str) -> Option<Self> {
        let is_unit = |part: &&str| {
            [".service", ".socket", ".scope"]
                .iter()
                .any(|suffix| part.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty()))
        };
        let name = path.split('/').rev().find(is_unit)?;
        // A user's own manager is a service of the system's; what is below it belongs to the user.
        let user = path
            .split_once("/user@")
            .and_then(|(_, rest)| rest.split_once('/'))
            .is_some_and(|(manager, below)| manager.ends_with(".service") && below.contains(name));
        Some(Self { name: name.to_owned(), user, starts: None })
    }

    /// The name for people: systemd's escapes of unusual characters (`\x2d`) undone.
    #[must_use]
    pub fn display_name(&self) -> String {
        unescape(&self.name)
    }
}

impl Container {
    /// The container that a path names: `/system.slice/docker-4f9c....scope`.
    #[must_use]
    pub fn from_cgroup_path(path: &str) -> Option<Self> {
        let mut above = "";
        let mut innermost = None;
        for part in path.split('/') {
            innermost = Self::from_component(above, part, path).or(innermost);
            above = part;
        }
        innermost
    }

    fn from_component(above: &str, part: &str, path: &str) -> Option<Self> {
        let container =
            |runtime: &str, id: &str| Some(Self { runtime: runtime.to_owned(), id: id.to_owned() });
        let stem = part.strip_suffix(".scope").unwrap_or(part);
        for (prefix, runtime) in [
            ("docker-", "docker"),
            ("libpod-", "podman"),
            ("cri-containerd-", "containerd"),
            ("crio-", "cri-o"),
        ] {
            if let Some(id) = stem.strip_prefix(prefix).filter(|id| is_id(id)) {
                return container(runtime, id);
            }
        }
        if is_id(part) {
            return match above {
                "docker" => container("docker", part),
                "libpod_parent" => container("podman", part),
                _ if path.contains("kubepods") => container("kubernetes", part),
                _ => None,
            };
        }
        if let Some(name) = part.strip_prefix("lxc.payload.") {
            return container("lxc", name);
        }
        if above == "lxc" && !part.is_empty() {
            return container("lxc", part);
        }
        if let Some(name) = part.strip_prefix("machine-").and_then(|it| it.strip_suffix(".scope")) {
            return container("machine", &unescape(name));
        }
        let nspawn = part.strip_prefix("systemd-nspawn@");
        if let Some(name) = nspawn.and_then(|it| it.strip_suffix(".service")) {
            return container("machine", &unescape(name));
        }
        None
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Undoes `\xNN`. What is no such escape stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = behind
            .strip_prefix(b"x")
            .filter(|_| first == b'\\')
            .and_then(|digits| digits.split_first_chunk::<2>())
            .and_then(|(digits, behind)| Some((hex(*digits)?, behind)));
        let (byte, next) = escaped.unwrap_or((first, behind));
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let [high, low] = digits;
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f9c27d5aa01b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c";

    fn check(path: &str, unit: Option<(&str, bool)>, container: Option<(&str, &str)>) {
        let path = path.replace("ID", ID);
        let found = Unit::from_cgroup_path(&path);
        let unit = unit.map(|(name, user)| (name.replace("ID", ID), user));
        assert_eq!(found.map(|unit| (unit.name, unit.user)), unit, "{path}");
        let found = Container::from_cgroup_path(&path);
        let container = container.map(|(runtime, id)| (runtime.to_owned(), id.replace("ID", ID)));
        assert_eq!(found.map(|found| (found.runtime, found.id)), container, "{path}");
    }

    #[test]
    fn units_of_the_system() {
        check("/", None, None);
        check("", None, None);
        check("/system.slice", None, None);
        check("/.service", None, None);
        check("/init.scope", Some(("init.scope", false)), None);
        check("/system.slice/ssh.service", Some(("ssh.service", false)), None);
        check("/system.slice/ssh.socket", Some(("ssh.socket", false)), None);
        check("/system.slice/ssh.service/worker", Some(("ssh.service", false)), None);
        check(
            "/user.slice/user-1000.slice/session-3.scope",
            Some(("session-3.scope", false)),
            None,
        );
    }

    #[test]
    fn units_of_a_user() {
        let user = "/user.slice/user-1000.slice/user@1000.service";
        check(user, Some(("user@1000.service", false)), None);
        check(&format!("{user}/init.scope"), Some(("init.scope", true)), None);
        check(
            &format!("{user}/app.slice/app-terminal-991.scope"),
            Some(("app-terminal-991.scope", true)),
            None,
        );
        check(
            &format!("{user}/app.slice/app-vite.service"),
            Some(("app-vite.service", true)),
            None,
        );
    }

    #[test]
    fn containers() {
        check(
            "/system.slice/docker-ID.scope",
            Some(("docker-ID.scope", false)),
            Some(("docker", "ID")),
        );
        check("/docker/ID", None, Some(("docker", "ID")));
        check("/docker/ID/init.scope", Some(("init.scope", false)), Some(("docker", "ID")));
        check(
            "/docker/ID/system.slice/nginx.service",
            Some(("nginx.service", false)),
            Some(("docker", "ID")),
        );
        check(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            Some(("libpod-ID.scope", true)),
            Some(("podman", "ID")),
        );
        check("/libpod_parent/libpod-conmon-ID", None, None);
        check(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podab.slice/cri-containerd-ID.scope",
            Some(("cri-containerd-ID.scope", false)),
            Some(("containerd", "ID")),
        );
        check("/kubepods/besteffort/podab/ID", None, Some(("kubernetes", "ID")));
        check(
            "/kubepods.slice/crio-ID.scope",
            Some(("crio-ID.scope", false)),
            Some(("cri-o", "ID")),
        );
        check("/lxc.payload.web", None, Some(("lxc", "web")));
        check("/lxc/web", None, Some(("lxc", "web")));
        check("/somewhere/ID", None, None);
        check("/system.slice/docker-short.scope", Some(("docker-short.scope", false)), None);
        check(
            r"/machine.slice/machine-qemu\x2d1\x2dweb.scope",
            Some((r"machine-qemu\x2d1\x2dweb.scope", false)),
            Some(("machine", "qemu-1-web")),
        );
        check(
            "/machine.slice/systemd-nspawn@web.service/payload",
            Some(("systemd-nspawn@web.service", false)),
            Some(("machine", "web")),
        );
        // A container inside a container: the inner one is what the socket belongs to.
        check("/lxc.payload.outer/docker/ID", None, Some(("docker", "ID")));
    }

    #[test]
    fn escapes_are_undone_for_people_only() {
        for (name, shown) in [
            (r"app-org.gnome.Terminal\x2d1.scope", "app-org.gnome.Terminal-1.scope"),
            (r"\x2", r"\x2"),
            (r"\xzz\x41\", r"\xzzA\"),
            (r"a\xc3\xa4b\xff", "aäb\u{fffd}"),
        ] {
            let unit = Unit { name: name.to_owned(), user: false, starts: None };
            assert_eq!(unit.display_name(), shown);
        }
    }
}
