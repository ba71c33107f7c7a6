//! Processes: which sockets they hold (`/proc/PID/fd`), and what is known of them.
//!
//! Descriptors are matched as they are read: one `readlinkat` each, into a buffer on the stack.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use canreach_snapshot::{Pid, Process};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::directory::{self, DirectoryBuffer};

/// `socket:[INODE]` with the largest inode number has 29 bytes; longer texts are no sockets.
const LINK_TEXT: usize = 32;

/// `/proc`, and what reading it taught.
pub(crate) struct ProcDirectory {
    root: OwnedFd,
    buffer: DirectoryBuffer,
    /// Milliseconds since 1970 when the machine started.
    booted_at_ms: Option<u64>,
    /// Names of users by number, read once.
    users: Option<BTreeMap<u32, String>>,
    text: Vec<u8>,
}

/// How the look at one process's descriptors went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Every descriptor was seen.
    Complete,
    /// The kernel refused (EACCES, EPERM).
    Denied,
    /// There is no such process, or this `/proc` hides it.
    Absent,
}

impl ProcDirectory {
    /// `None` where there is no /proc.
    pub(crate) fn open() -> Option<Self> {
        Some(Self {
            root: directory::open(CWD, "/proc").ok()?,
            buffer: DirectoryBuffer::new(),
            booted_at_ms: booted_at_ms(),
            users: None,
            text: Vec::new(),
        })
    }

    /// Calls `each` with the inode number of every socket that a process holds.
    pub(crate) fn sockets_of(&mut self, pid: u32, mut each: impl FnMut(u64)) -> Look {
        let descriptors = match directory::open(&self.root, format!("{pid}/fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => return look_of(error),
        };
        let read = self.buffer.read(&descriptors, |entry| {
            let mut link = [0; LINK_TEXT];
            match rustix::fs::readlinkat_raw(&descriptors, entry.name, &mut link) {
                Ok(length) => {
                    if let Some(inode) = link.get(..length).and_then(socket_inode) {
                        each(inode);
                    }
                    Ok(())
                }
                // It was closed since the directory was read.
                Err(Errno::NOENT) => Ok(()),
                // Listing is allowed to CAP_DAC_READ_SEARCH, reading needs CAP_SYS_PTRACE: what is
                // refused for one descriptor is refused for all.
                Err(error) => Err(error),
            }
        });
        read.map_or_else(look_of, |()| Look::Complete)
    }

    /// Every process, with the user it runs as.
    pub(crate) fn list(&mut self) -> Vec<(u32, u32)> {
        let mut processes = Vec::new();
        let root = &self.root;
        // What was listed before an error is still there.
        let _ = self.buffer.read(root, |entry| {
            let pid = entry.name.to_str().ok().and_then(|name| name.parse::<u32>().ok());
            if let Some(pid) = pid.filter(|_| entry.directory) {
                let flags = rustix::fs::AtFlags::empty();
                if let Ok(stat) = rustix::fs::statat(root, entry.name, flags) {
                    processes.push((pid, stat.st_uid));
                }
            }
            Ok(())
        });
        processes
    }

    /// Whether PID 1 shows itself. It exists in every PID namespace, so if not, it is hidden.
    pub(crate) fn hides_others(&self) -> bool {
        rustix::fs::statat(&self.root, "1/comm", rustix::fs::AtFlags::empty()).is_err()
            || directory::read_file(&self.root, "1/comm", &mut Vec::new()).is_err()
    }

    /// What a process calls itself.
    pub(crate) fn comm(&mut self, pid: u32) -> Option<String> {
        self.read(pid, "comm").then(|| {
            String::from_utf8_lossy(self.text.strip_suffix(b"\n").unwrap_or(&self.text))
                .into_owned()
        })
    }

    /// The arguments of a process.
    pub(crate) fn cmdline(&mut self, pid: u32) -> Vec<String> {
        if self.read(pid, "cmdline") { arguments(&self.text) } else { Vec::new() }
    }

    /// What is known of a process; `None` when it is gone, or hidden.
    pub(crate) fn process(&mut self, pid: u32) -> Option<Process> {
        let comm = self.comm(pid)?;
        let status = if self.read(pid, "status") { status(&self.text) } else { Status::default() };
        let started_at_ms = self.started_at_ms(pid);
        let cgroup_path = self.read(pid, "cgroup").then(|| cgroup_path(&self.text)).flatten();
        let cmdline = self.cmdline(pid);
        let cwd = rustix::fs::readlinkat(&self.root, format!("{pid}/cwd"), Vec::new());
        let uid = status.uid?;
        Some(Process {
            pid: Pid(pid),
            parent: status.parent.map(Pid),
            comm,
            cmdline,
            cwd: cwd.ok().map(|cwd| cwd.to_string_lossy().into_owned()),
            uid,
            user: self.user_name(uid),
            cgroup_path,
            started_at_ms,
        })
    }

    /// The name of a user, as `/etc/passwd` has it. Directories on the network are not asked: that
    /// would send packets.
    fn user_name(&mut self, uid: u32) -> Option<String> {
        let users = self.users.get_or_insert_with(|| {
            std::fs::read("/etc/passwd").map(|text| user_names(&text)).unwrap_or_default()
        });
        users.get(&uid).cloned()
    }

    fn started_at_ms(&mut self, pid: u32) -> Option<u64> {
        if !self.read(pid, "stat") {
            return None;
        }
        let ticks = start_ticks(&self.text)?;
        let per_second = rustix::param::clock_ticks_per_second();
        let since_boot = ticks.checked_mul(1000)?.checked_div(per_second)?;
        self.booted_at_ms?.checked_add(since_boot)
    }

    fn read(&mut self, pid: u32, file: &str) -> bool {
        directory::read_file(&self.root, format!("{pid}/{file}"), &mut self.text).is_ok()
    }
}

fn look_of(error: Errno) -> Look {
    match error {
        Errno::ACCESS | Errno::PERM => Look::Denied,
        // ENOENT for a process that is gone or hidden, ESRCH for one that ends while it is read. A
        // descriptor table that is refused for want of memory was not seen either.
        _ => Look::Absent,
    }
}

/// The number in `socket:[NUMBER]`.
fn socket_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn arguments(text: &[u8]) -> Vec<String> {
    // Each argument ends with a NUL. A process that overwrites its arguments (`nginx: master
    // process`) may leave a run of them at the end.
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = text.get(..end).unwrap_or_default();
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    parent: Option<u32>,
    uid: Option<u32>,
}

/// `PPid:` and the second number of `Uid:`, the effective one.
fn status(text: &[u8]) -> Status {
    let mut status = Status::default();
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        if let Some(parent) = line.strip_prefix("PPid:") {
            status.parent = parent.trim().parse().ok().filter(|parent| *parent != 0);
        } else if let Some(uids) = line.strip_prefix("Uid:") {
            status.uid = uids.split_whitespace().nth(1).and_then(|uid| uid.parse().ok());
        }
    }
    status
}

/// `starttime`, the 22nd field. The second is in parentheses and may hold both spaces and
/// parentheses, so counting starts behind the last one.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let behind = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(stat.get(behind..)?).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The path in the hierarchy of version 2 (`0::`), or, when that is the root, in systemd's own.
fn cgroup_path(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let path_in = |hierarchy: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == hierarchy).then(|| path.to_owned())
        })
    };
    let unified = path_in("");
    let systemd = || path_in("name=systemd").filter(|path| path != "/");
    if unified.as_deref().is_none_or(|path| path == "/") { systemd().or(unified) } else { unified }
}

fn user_names(passwd: &[u8]) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in passwd.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        let Some(uid) = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok()) else {
            continue;
        };
        // Of two names for one number, the C library gives the first as well.
        names.entry(uid).or_insert_with(|| String::from_utf8_lossy(name).into_owned());
    }
    names
}

/// `starttime` counts from the boot; the clock may have been set since, so this is "now, minus how
/// long the machine is up".
fn booted_at_ms() -> Option<u64> {
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    let up = rustix::time::clock_gettime(ClockId::Boottime);
    let ms = |time: rustix::time::Timespec| {
        u64::try_from(time.tv_sec)
            .ok()?
            .checked_mul(1000)?
            .checked_add(u64::try_from(time.tv_nsec).ok()? / 1_000_000)
    };
    ms(now)?.checked_sub(ms(up)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_from_other_descriptors() {
        for (link, inode) in [
            ("socket:[0]", Some(0)),
            ("socket:[18446744073709551615]", Some(u64::MAX)),
            ("socket:[18446744073709551616]", None),
            ("socket:[]", None),
            ("socket:[12", None),
            ("socket:[1x]", None),
            ("pipe:[12]", None),
            ("/tmp/socket:[12]", None),
        ] {
            assert_eq!(socket_inode(link.as_bytes()), inode, "{link}");
        }
    }

    #[test]
    fn arguments_are_split_at_their_ends() {
        let check = |text: &[u8], expect: &[&str]| assert_eq!(arguments(text), expect);
        check(b"", &[]);
        check(b"\0\0", &[]);
        check(b"node\0server.js\0", &["node", "server.js"]);
        check(b"a\0\0b\0", &["a", "", "b"]);
        check(b"nginx: master process\0\0\0\0", &["nginx: master process"]);
        check(b"\xff\0", &["\u{fffd}"]);
    }

    #[test]
    fn status_gives_the_effective_user() {
        let text = b"Name:\tUid: 5\nPPid:\t41\nUid:\t1000\t0\t0\t0\n";
        assert_eq!(status(text), Status { parent: Some(41), uid: Some(0) });
        assert_eq!(status(b"PPid:\t0\nUid:\t7\n"), Status { parent: None, uid: None });
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["sh", "a b", ") (", "))"] {
            assert_eq!(start_ticks(format!("7 ({name}) {fields}").as_bytes()), Some(4711));
        }
        assert_eq!(start_ticks(b"7 (sh) S 1"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn the_path_comes_from_whichever_hierarchy_has_one() {
        let check = |text: &str, path: Option<&str>| {
            assert_eq!(cgroup_path(text.as_bytes()).as_deref(), path, "{text}");
        };
        check("0::/system.slice/a.service\n", Some("/system.slice/a.service"));
        check("9:name=systemd:/x\n0::/y\n", Some("/y"));
        check("9:name=systemd:/x.service\n0::/\n", Some("/x.service"));
        check("9:name=systemd:/\n4:memory:/m\n0::/\n", Some("/"));
        check("1:name=systemd:/x.service\n", Some("/x.service"));
        check("0::/a:b\n", Some("/a:b"));
        check("", None);
    }

    #[test]
    fn users_are_named_as_the_machine_names_them() {
        let names =
            user_names(b"root:x:0:0::/root:/bin/sh\nbad\ntoor:x:0:0::/:/\nme:x:1000:5:::\n:::\n");
        assert_eq!(names, BTreeMap::from([(0, "root".into()), (1000, "me".into())]));
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let mut proc = ProcDirectory::open().expect("tests run where /proc is");
        let me = std::process::id();
        let process = proc.process(me).expect("it runs");
        assert_eq!(process.parent, Some(Pid(std::os::unix::process::parent_id())));
        assert_eq!(process.uid, rustix::process::geteuid().as_raw());
        assert_eq!(process.cwd.as_deref(), std::env::current_dir().expect("it has one").to_str());
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later");
        let started = process.started_at_ms.expect("readable");
        // Both clocks are read to 10 ms; a test binary runs for less than a day.
        assert!(started <= now.as_millis() as u64 + 20);
        assert!(started + 86_400_000 > now.as_millis() as u64);
        assert!(proc.list().contains(&(me, process.uid)));
    }

    #[test]
    fn a_socket_is_found_among_the_descriptors() {
        let mut proc = ProcDirectory::open().expect("tests run where /proc is");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let inode = rustix::fs::fstat(&listener).expect("it is open").st_ino;
        let mut found = Vec::new();
        assert_eq!(proc.sockets_of(std::process::id(), |inode| found.push(inode)), Look::Complete);
        assert_eq!(found.iter().filter(|found| **found == inode).count(), 1);
        assert_eq!(proc.sockets_of(u32::MAX, |_| {}), Look::Absent);
    }
}
