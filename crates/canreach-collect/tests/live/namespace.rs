//! A network namespace that lives as long as a process in it.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};
use canreach_snapshot::{
    Address, Gap, GapReason, GapSubject, Link, LinkFlags, Netns, Pid, Prefix, Snapshot,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A fresh namespace: `lo`, down, and nothing else.
pub(crate) struct Namespace {
    /// Reads its standard input, whose end ends it, also when this process is killed.
    holder: Child,
}

impl Namespace {
    /// Makes one. `None`, and the reason printed, where that is not permitted.
    pub(crate) fn new() -> Option<Self> {
        let mut holder = Command::new("unshare")
            // One program from start to end: during exec(2) a process can hardly be read.
            .args(["--net", "sh", "-c", "echo ready; read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| skip(&format!("run unshare: {error}")))
            .ok()?;
        let mut line = String::new();
        let output = holder.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("a pipe can be read");
        if line == "ready\n" {
            return Some(Self { holder });
        }
        let result = holder.wait_with_output().expect("it was started");
        skip(String::from_utf8_lossy(&result.stderr).trim());
        None
    }

    /// The process in it.
    pub(crate) fn pid(&self) -> Pid {
        Pid(self.holder.id())
    }

    /// Runs commands of `ip` in it, one a line.
    #[track_caller]
    pub(crate) fn ip(&self, commands: &str) {
        self.ip_with(&[], commands);
    }

    /// The same of IPv6, where the command alone does not say so.
    #[track_caller]
    pub(crate) fn ip6(&self, commands: &str) {
        self.ip_with(&["-6"], commands);
    }

    #[track_caller]
    fn ip_with(&self, options: &[&str], commands: &str) {
        let mut ip = Command::new("nsenter")
            .args(["--net", "--target", &self.pid().0.to_string(), "ip"])
            .args(options)
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsenter comes with unshare");
        let mut input = ip.stdin.take().expect("it was piped");
        input.write_all(commands.as_bytes()).expect("ip reads them");
        drop(input);
        assert!(ip.wait().expect("it was started").success(), "{commands}");
    }

    /// Runs a program inside, with some input.
    pub(crate) fn run(&self, program: &[&str], input: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid().0.to_string()]).args(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nsenter comes with unshare");
        let mut stdin = child.stdin.take().expect("it was piped");
        std::thread::scope(|scope| {
            // A program that cannot be started does not read.
            scope.spawn(move || stdin.write_all(input.as_bytes()));
            child.wait_with_output().expect("it was started")
        })
    }

    /// The same, for what must succeed. `None`, and the reason printed, where it does not.
    pub(crate) fn output(&self, program: &[&str], input: &str) -> Option<String> {
        let output = self.run(program, input);
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            skip(&format!("{program:?}: {}", reason.trim()));
            return None;
        }
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Does something on a thread inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.pid().0);
        let file = std::fs::File::open(path).expect("its holder lives");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("whoever makes a namespace may enter it");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets a sysctl in it: a path below /proc/sys/net. `false` where this kernel lacks it.
    pub(crate) fn set(&self, path: &str, value: &str) -> bool {
        let file = format!("/proc/sys/net/{path}");
        self.inside(|| match std::fs::write(&file, value) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => panic!("write {value} to {file}: {error}"),
        })
    }

    /// Reads it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let netns = NetnsChoice::Process(self.pid());
        collect(&Scope { netns, ..everything() }).expect("it can be read")
    }

    /// Reads it until the kernel is done with what it does in the background: noticing carriers, and
    /// routes of IPv6 addresses.
    #[track_caller]
    pub(crate) fn read_settled(&self) -> Netns {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let netns = self.read();
            let routed = |address: &Address| {
                let prefix = Prefix::host(address.address());
                netns.routes.iter().any(|route| route.destination == prefix)
            };
            let noticed = |link: &Link| {
                let running = link.flags.has(LinkFlags::RUNNING);
                !link.is_up() || running == link.has_carrier()
            };
            if netns.addresses.iter().all(routed) && netns.links.iter().all(noticed) {
                return netns;
            }
            assert!(Instant::now() < deadline, "it never settles: {netns:#?}");
        }
    }

    /// Reads it, and gives the namespace alone.
    pub(crate) fn read(&self) -> Netns {
        self.snapshot().namespaces.remove(0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // An error means that it is gone already.
        let _ = self.holder.wait();
    }
}

/// The gaps of a reading, but for what bpf(2) tells the first user namespace only.
pub(crate) fn gaps(netns: &Netns) -> Vec<&Gap> {
    let everywhere = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.trim_end().ends_with(&u32::MAX.to_string()));
    let of_bpf = |gap: &&Gap| {
        let subjects =
            [GapSubject::Tc, GapSubject::CgroupBpf, GapSubject::SkLookup, GapSubject::NetfilterBpf];
        !everywhere && gap.reason == GapReason::NeedsRoot && subjects.contains(&gap.subject)
    };
    netns.gaps.iter().filter(|gap| !of_bpf(gap)).collect()
}

/// The widest scope without owners.
pub(crate) fn everything() -> Scope {
    Scope {
        netns: NetnsChoice::Own,
        all_namespaces: false,
        beyond: false,
        sockets: SocketScope::All,
        owners: false,
        filters: true,
    }
}

/// Says that the test did not happen.
#[allow(clippy::print_stderr, reason = "a skipped test must say why")]
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}
