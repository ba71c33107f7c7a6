//! The program behind a socket, by the name a person would call it.

use std::collections::BTreeMap;

use canreach_snapshot::{
    Cgroup, CgroupId, Netns, Owner, OwnerReason, Pid, Process, ResolvedBy, Snapshot, Socket,
};

/// Who holds a socket, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The name to show: a known server, a script, a program, a unit, a container.
    pub name: Option<String>,
    /// The process that serves, if one is known.
    pub pid: Option<u32>,
    /// Its `comm`, raw.
    pub comm: Option<String>,
    /// Its arguments, joined by spaces.
    pub cmdline: Option<String>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its working directory.
    pub cwd: Option<String>,
    /// The user it runs as, or that made the socket.
    pub user: Option<String>,
    /// The number of that user.
    pub uid: u32,
    /// The systemd unit it was started by.
    pub unit: Option<String>,
    /// The container it runs in: runtime and id.
    pub container: Option<(String, String)>,
    /// How it was found.
    pub resolved_by: ResolvedBy,
    /// Why it is not known, or not confirmed.
    pub reason: Option<OwnerReason>,
    /// Milliseconds it had been running when the machine was read.
    pub age_ms: Option<u64>,
}

/// Programs that run a script: the script's name says more.
const INTERPRETERS: [&str; 10] =
    ["python", "node", "nodejs", "ruby", "perl", "php", "bash", "sh", "deno", "bun"];

/// Who holds which socket, indexed: lists are long, and a search for each row would be slow.
#[derive(Debug)]
pub struct Programs<'a> {
    owners: BTreeMap<u64, &'a Owner>,
    processes: BTreeMap<Pid, &'a Process>,
    cgroups: BTreeMap<CgroupId, &'a Cgroup>,
    cgroup_paths: BTreeMap<&'a str, &'a Cgroup>,
    users: BTreeMap<u32, &'a str>,
    collected_at_ms: u64,
}

impl<'a> Programs<'a> {
    /// Indexes the holders of a namespace's sockets.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, netns: &'a Netns) -> Self {
        let named = |process: &'a Process| Some((process.uid, process.user.as_deref()?));
        Self {
            owners: netns.owners.iter().map(|owner| (owner.inode, owner)).collect(),
            processes: snapshot.processes.iter().map(|process| (process.pid, process)).collect(),
            cgroups: snapshot.cgroups.iter().map(|cgroup| (cgroup.id, cgroup)).collect(),
            cgroup_paths: snapshot
                .cgroups
                .iter()
                .map(|cgroup| (cgroup.path.as_str(), cgroup))
                .collect(),
            users: snapshot.processes.iter().filter_map(named).collect(),
            collected_at_ms: snapshot.machine.collected_at_ms,
        }
    }

    /// The program behind a socket.
    #[must_use]
    pub fn of(&self, socket: &Socket) -> Program {
        let owner = self.owners.get(&socket.inode).filter(|_| socket.inode != 0);
        let process = owner.and_then(|owner| self.processes.get(owner.holders.first()?)).copied();
        let cgroup = socket.cgroup.and_then(|id| self.cgroups.get(&id)).or_else(|| {
            let path = process?.cgroup_path.as_deref()?;
            self.cgroup_paths.get(path)
        });
        let unit = cgroup.and_then(|cgroup| cgroup.unit.as_ref());
        let container = cgroup.and_then(|cgroup| cgroup.container.as_ref());
        let reason = owner.map_or(Some(OwnerReason::NotLookedAt), |owner| owner.reason);
        let by_circumstance = || match (container, unit, reason) {
            (Some(container), ..) => {
                Some(format!("{}: {}", container.runtime, short(&container.id)))
            }
            (None, Some(unit), _) => Some(unit.name.clone()),
            (None, None, Some(OwnerReason::Kernel)) => Some("the kernel".to_owned()),
            (None, None, _) => None,
        };
        Program {
            name: process.map(name_of).or_else(by_circumstance),
            pid: process.map(|process| process.pid.0),
            comm: process.map(|process| process.comm.clone()),
            cmdline: process
                .filter(|process| !process.cmdline.is_empty())
                .map(|process| process.cmdline.join(" ")),
            arguments: process.map(|process| process.cmdline.clone()).unwrap_or_default(),
            cwd: process.and_then(|process| process.cwd.clone()),
            user: process
                .filter(|process| process.uid == socket.uid || socket.uid == 0)
                .and_then(|process| process.user.clone())
                .or_else(|| self.user_name(socket.uid)),
            uid: socket.uid,
            unit: unit.map(|unit| unit.name.clone()),
            container: container.map(|container| (container.runtime.clone(), container.id.clone())),
            resolved_by: owner.map_or(ResolvedBy::None, |owner| owner.resolved_by),
            reason,
            age_ms: process
                .and_then(|process| self.collected_at_ms.checked_sub(process.started_at_ms?)),
        }
    }

    /// The name of a user whose processes were read.
    fn user_name(&self, uid: u32) -> Option<String> {
        let known = self.users.get(&uid).map(|name| (*name).to_owned());
        known.or_else(|| (uid == 0).then(|| "root".to_owned()))
    }
}

impl Program {
    /// The name, or a word that says there is none.
    #[must_use]
    pub fn shown_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| "(not known)".to_owned())
    }

    /// The user's name or number.
    #[must_use]
    pub fn shown_user(&self) -> String {
        self.user.clone().unwrap_or_else(|| format!("uid {}", self.uid))
    }

    /// The working directory, with the home directory as `~`. A directory that says nothing (the
    /// root, a system directory) is left out.
    #[must_use]
    pub fn shown_directory(&self) -> Option<String> {
        let cwd = self.cwd.as_deref()?;
        let below_home = |home: &str| {
            let rest = cwd.strip_prefix(home)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("~{rest}"))
        };
        let of_user = self.user.as_deref().and_then(|user| below_home(&format!("/home/{user}")));
        let system = ["/", "/run", "/var", "/usr", "/etc", "/proc", "/sys"];
        let is_system = || {
            cwd == "/"
                || system[1..].iter().any(|top| cwd == *top || cwd.starts_with(&format!("{top}/")))
        };
        of_user
            .or_else(|| below_home("/root").filter(|_| self.user.as_deref() == Some("root")))
            .filter(|shown| shown != "~")
            .or_else(|| {
                (!is_system() && !cwd.starts_with("/home/") && cwd != "/root")
                    .then(|| cwd.to_owned())
            })
    }
}

/// The script for an interpreter, else the base name of the program as it was called, else `comm`.
fn name_of(process: &Process) -> String {
    let Some(called) = process.cmdline.first() else { return process.comm.clone() };
    // Servers that rewrite their title (`nginx: master process`) say who they are before the colon.
    let title = called.split(": ").next().unwrap_or(called);
    let program = base_name(title.split(' ').next().unwrap_or(title)).trim_start_matches('-');
    let stem = program.trim_end_matches(|digit: char| digit.is_ascii_digit() || digit == '.');
    if !INTERPRETERS.contains(&stem) {
        return if program.is_empty() { process.comm.clone() } else { program.to_owned() };
    }
    let mut arguments = process.cmdline[1..].iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // `python -m http.server` runs a module.
            "-m" => return arguments.next().map_or_else(|| program.to_owned(), Clone::clone),
            // `-c` and `-e` carry a program, not a name.
            "-c" | "-e" => break,
            option if option.starts_with('-') => {}
            script => {
                let name = base_name(script);
                return if name.is_empty() { program.to_owned() } else { name.to_owned() };
            }
        }
    }
    program.to_owned()
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Container ids are long; their first twelve digits are what the engines themselves print.
fn short(id: &str) -> &str {
    let is_hash = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { &id[..12] } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_called_what_people_call_it() {
        let check = |cmdline: &[&str], expected: &str| {
            let process = Process {
                pid: Pid(1),
                parent: None,
                comm: "comm".to_owned(),
                cmdline: cmdline.iter().map(|argument| (*argument).to_owned()).collect(),
                cwd: None,
                uid: 0,
                user: None,
                cgroup_path: None,
                started_at_ms: None,
            };
            assert_eq!(name_of(&process), expected, "{cmdline:?}");
        };
        check(&[], "comm");
        check(&["/usr/sbin/sshd", "-D"], "sshd");
        check(&["python3", "-m", "http.server", "8000"], "http.server");
        check(&["/usr/bin/python3.11", "-u", "app.py"], "app.py");
        check(&["python3", "-c", "import x"], "python3");
        check(&["node", "/home/dev/blog/node_modules/.bin/vite"], "vite");
        check(&["nginx: master process /usr/sbin/nginx"], "nginx");
        check(&["-bash"], "bash");
        check(&[""], "comm");
        check(&["python3", "-m"], "python3");
    }
}
