//! Processes: which sockets they hold (`/proc/PID/fd`), and what is known of them.
//!
//! Descriptors are matched as they are read: one `readlinkat` each, into a buffer on the stack.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use canreach_snapshot::{Pid, Process};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::time::ClockId;

use crate::directory::{self, DirectoryBuffer};

/// `socket:[INODE]` with the largest inode number has 29 bytes; longer texts are no sockets.
const LINK_TEXT: usize = 32;
/// A process with fewer descriptors is looked at in order.
const WORTH_GUESSING: usize = 128;
/// How many descriptors are looked at to find one by its number.
const MAX_GUESSES: usize = 40;
/// What ends the reading of a directory early. /proc itself never says this.
const ENOUGH: Errno = Errno::CANCELED;

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
    /// Enough was seen, and the rest was left out.
    Enough,
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

    /// Calls `each` with the inode number of every socket that a process holds, until it has seen
    /// enough. The standard three descriptors come last: they are hardly ever sockets.
    pub(crate) fn sockets_of(
        &mut self,
        pid: u32,
        mut each: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Look {
        let descriptors = match directory::open(&self.root, format!("{pid}/fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => return look_of(error),
        };
        let mut standard = Vec::new();
        let mut read = self.buffer.read(&descriptors, |entry| match entry.name.to_bytes() {
            [digit @ b'0'..=b'2'] => {
                standard.push(*digit);
                Ok(())
            }
            _ => match_descriptor(&descriptors, entry.name, &mut each),
        });
        for digit in standard {
            read = read.and_then(|()| match_descriptor(&descriptors, &[digit][..], &mut each));
        }
        read.map_or_else(look_of, |()| Look::Complete)
    }

    /// Whether a process holds one socket, where its place can be guessed: descriptors and inode
    /// numbers are both handed out in ascending order as a rule, so that a process which opened a
    /// thousand of them has them sorted. `false` says nothing.
    pub(crate) fn guess_socket(&mut self, pid: u32, inode: u64) -> bool {
        let Ok(descriptors) = directory::open(&self.root, format!("{pid}/fd")) else {
            return false;
        };
        // The size is the number of descriptors, since Linux 6.2; before, it is 0.
        let count = rustix::fs::fstat(&descriptors).map_or(0, |stat| stat.st_size);
        if usize::try_from(count).unwrap_or(0) < WORTH_GUESSING {
            return false;
        }
        let mut numbers: Vec<u32> = Vec::new();
        let _ = self.buffer.read(&descriptors, |entry| {
            numbers.extend(entry.name.to_str().ok().and_then(|name| name.parse::<u32>().ok()));
            Ok(())
        });
        let (mut low, mut high) = (0, numbers.len());
        let mut left = MAX_GUESSES;
        while low < high {
            let middle = low + (high - low) / 2;
            // Behind what is no socket comes one soon.
            let mut place = middle;
            let found = loop {
                let Some(number) = numbers.get(place).filter(|_| place < high && left > 0) else {
                    break None;
                };
                left -= 1;
                let mut link = [0; LINK_TEXT];
                let name = number.to_string();
                let length = rustix::fs::readlinkat_raw(&descriptors, name, &mut link);
                match length.ok().and_then(|length| link.get(..length)).and_then(socket_inode) {
                    Some(found) => break Some(found),
                    None => place += 1,
                }
            };
            match found {
                Some(found) if found == inode => return true,
                Some(found) if found < inode => low = place + 1,
                Some(_) | None => high = middle,
            }
        }
        false
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

    /// What is known of a process; `None` when it is gone, or hidden. Whoever found it as a member
    /// of a control group knows `cgroup_path` already.
    pub(crate) fn process(&mut self, pid: u32, cgroup_path: Option<&str>) -> Option<Process> {
        if !self.read(pid, "stat") {
            return None;
        }
        let stat = stat(&self.text)?;
        // The directory belongs to the effective user (fs/proc/base.c, `task_dump_owner`). `status`
        // says the same, at ten times the cost.
        let flags = rustix::fs::AtFlags::empty();
        let uid = rustix::fs::statat(&self.root, pid.to_string(), flags).ok()?.st_uid;
        let cgroup_path = match cgroup_path {
            Some(path) => Some(path.to_owned()),
            None => self.read(pid, "cgroup").then(|| path_of_cgroup(&self.text)).flatten(),
        };
        let cmdline = self.cmdline(pid);
        let cwd = rustix::fs::readlinkat(&self.root, format!("{pid}/cwd"), Vec::new());
        Some(Process {
            pid: Pid(pid),
            parent: stat.parent.map(Pid),
            comm: stat.comm,
            cmdline,
            cwd: cwd.ok().map(|cwd| cwd.to_string_lossy().into_owned()),
            uid,
            user: self.user_name(uid),
            cgroup_path,
            started_at_ms: self.started_at_ms(stat.start_ticks),
        })
    }

    /// The name of a user, as `/etc/passwd` has it. Directories on the network are not asked: that
    /// would send packets.
    fn user_name(&mut self, uid: u32) -> Option<String> {
        let users = self.users.get_or_insert_with(|| {
            let mut text = Vec::new();
            let read = directory::read_file(CWD, "/etc/passwd", &mut text);
            read.map(|()| user_names(&text)).unwrap_or_default()
        });
        users.get(&uid).cloned()
    }

    fn started_at_ms(&self, ticks: u64) -> Option<u64> {
        let per_second = rustix::param::clock_ticks_per_second();
        let since_boot = ticks.checked_mul(1000)?.checked_div(per_second)?;
        self.booted_at_ms?.checked_add(since_boot)
    }

    fn read(&mut self, pid: u32, file: &str) -> bool {
        directory::read_piece(&self.root, format!("{pid}/{file}"), &mut self.text).is_ok()
    }
}

/// Calls `each` with the inode number of one descriptor, if it is a socket.
fn match_descriptor(
    descriptors: &OwnedFd,
    name: impl Arg,
    each: &mut impl FnMut(u64) -> ControlFlow<()>,
) -> Result<(), Errno> {
    let mut link = [0; LINK_TEXT];
    match rustix::fs::readlinkat_raw(descriptors, name, &mut link) {
        Ok(length) => match link.get(..length).and_then(socket_inode).map(each) {
            Some(ControlFlow::Break(())) => Err(ENOUGH),
            Some(ControlFlow::Continue(())) | None => Ok(()),
        },
        // It was closed since the directory was read.
        Err(Errno::NOENT) => Ok(()),
        // Listing is allowed to CAP_DAC_READ_SEARCH, reading needs CAP_SYS_PTRACE: what is refused
        // for one descriptor is refused for all.
        Err(error) => Err(error),
    }
}

fn look_of(error: Errno) -> Look {
    match error {
        ENOUGH => Look::Enough,
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

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    parent: Option<u32>,
    /// `starttime`, in ticks of the clock since the boot.
    start_ticks: u64,
}

/// The second field is in parentheses and may hold both spaces and parentheses, so counting starts
/// behind the last one: `ppid` is the 4th field, `starttime` the 22nd.
fn stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    let fields = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let parent = fields.nth(4 - 3)?.parse().ok().filter(|parent| *parent != 0);
    let start_ticks = fields.nth(22 - 5)?.parse().ok()?;
    Some(Stat { comm, parent, start_ticks })
}

/// The path in the hierarchy of version 2 (`0::`), or, when that is the root, in systemd's own.
fn path_of_cgroup(text: &[u8]) -> Option<String> {
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
    fn stat_is_read_behind_any_name() {
        let fields = "S 41 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["sh", "a b", ") (", "))", ""] {
            let expected = Stat { comm: name.to_owned(), parent: Some(41), start_ticks: 4711 };
            assert_eq!(stat(format!("7 ({name}) {fields}").as_bytes()), Some(expected));
        }
        let first = stat(format!("1 (init) {}", fields.replace("S 41", "S 0")).as_bytes());
        assert_eq!(first.expect("it is complete").parent, None);
        assert_eq!(stat(b"7 (sh) S 1"), None);
        assert_eq!(stat(b"7 )sh( S 1"), None);
        assert_eq!(stat(b""), None);
    }

    #[test]
    fn the_path_comes_from_whichever_hierarchy_has_one() {
        let check = |text: &str, path: Option<&str>| {
            assert_eq!(path_of_cgroup(text.as_bytes()).as_deref(), path, "{text}");
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
        let process = proc.process(me, None).expect("it runs");
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
    fn one_socket_among_many_is_guessed() {
        let mut proc = ProcDirectory::open().expect("tests run where /proc is");
        let bind = |_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let sockets: Vec<_> = (0..WORTH_GUESSING).map(bind).collect();
        let me = std::process::id();
        let inode = |socket| rustix::fs::fstat(socket).expect("it is open").st_ino;
        let found = sockets.iter().filter(|socket| proc.guess_socket(me, inode(*socket))).count();
        // Other tests open and close descriptors meanwhile; older kernels do not tell how many there are.
        let told = std::fs::metadata("/proc/self/fd").expect("it is there").len() > 0;
        assert!(found * 2 > sockets.len() || !told, "{found}");
        assert!(!proc.guess_socket(me, u64::MAX));
    }

    #[test]
    fn a_socket_is_found_among_the_descriptors() {
        let mut proc = ProcDirectory::open().expect("tests run where /proc is");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let inode = rustix::fs::fstat(&listener).expect("it is open").st_ino;
        let me = std::process::id();
        let mut found = Vec::new();
        let look = proc.sockets_of(me, |inode| {
            found.push(inode);
            ControlFlow::Continue(())
        });
        assert_eq!(look, Look::Complete);
        assert_eq!(found.iter().filter(|found| **found == inode).count(), 1);
        let until =
            |found| if found == inode { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        assert_eq!(proc.sockets_of(me, until), Look::Enough);
        assert_eq!(proc.sockets_of(u32::MAX, until), Look::Absent);
    }
}
