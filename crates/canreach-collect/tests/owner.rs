//! Owners of real sockets, in real control groups, as seen with and without privileges.
//!
//! Each case starts this test binary again as the server, and again as the reader:
//!
//! ```text
//! test ──starts──> server: joins a control group, listens, waits for its stdin to close
//!      ──starts──> reader: as another user, or in other namespaces; prints a snapshot
//! ```
//!
//! Control groups need root and a cgroup2 mount, namespaces need root and util-linux. What is
//! missing is printed, and the case is skipped.

#![allow(clippy::print_stderr, reason = "a skipped case says why")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};
use canreach_snapshot::{
    GapSubject, Owner, OwnerReason, Pid, Port, Proto, ResolvedBy, Snapshot, Socket,
};

/// Tells the test binary to be the server: the control groups to be in while it creates the
/// socket and afterwards, separated by a colon.
const SERVER: &str = "CANREACH_TEST_SERVER";
/// Tells the server to hide what it does from others of its user, as password agents do.
const HIDDEN: &str = "CANREACH_TEST_HIDDEN";
/// Tells the test binary to be the reader, of one port.
const READER: &str = "CANREACH_TEST_READER";
/// What starts the line that holds an answer, among those of the test harness.
const ANSWER: &str = "answer: ";
/// An ordinary user that owns nothing.
const NOBODY: u32 = 65534;

fn read(port: Port) -> Snapshot {
    let scope = Scope {
        netns: NetnsChoice::Own,
        all_namespaces: false,
        beyond: false,
        sockets: SocketScope::Port(Proto::Tcp, port),
        owners: true,
        filters: false,
    };
    collect(&scope).expect("a namespace can be read")
}

/// Writes past the harness, which would swallow what a test prints.
fn reply(text: &str) {
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "\n{ANSWER}{text}\n").and_then(|()| stdout.flush()).expect("the test reads it");
}

/// Not a test by itself: the other tests start it.
#[test]
fn serve() {
    let Ok(groups) = std::env::var(SERVER) else { return };
    let join = |group: &str| {
        if !group.is_empty() {
            let procs = Path::new(group).join("cgroup.procs");
            std::fs::write(procs, std::process::id().to_string()).expect("the group can be joined");
        }
    };
    let (creates, serves) = groups.split_once(':').expect("two groups");
    join(creates);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    join(serves);
    if std::env::var_os(HIDDEN).is_some() {
        let behavior = rustix::process::DumpableBehavior::NotDumpable;
        rustix::process::set_dumpable_behavior(behavior).expect("always allowed");
    }
    reply(&listener.local_addr().expect("it is bound").port().to_string());
    // Until the test ends.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Not a test by itself: the other tests start it.
#[test]
fn print_a_snapshot() {
    let Ok(port) = std::env::var(READER) else { return };
    let snapshot = read(Port(port.parse().expect("a port")));
    reply(&String::from_utf8(snapshot.to_bytes()).expect("JSON is text"));
}

/// A server that ends with its case.
struct Server {
    child: Child,
    /// Open until the end: the harness prints there when it ends.
    _output: BufReader<ChildStdout>,
    port: Port,
}

impl Server {
    fn start(creates: Option<&Path>, serves: Option<&Path>) -> Self {
        let text = |group: Option<&Path>| {
            group.map_or_else(String::new, |group| group.display().to_string())
        };
        let mut command = again("serve");
        command.env(SERVER, format!("{}:{}", text(creates), text(serves)));
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary starts again");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let port = Port(answer(&mut output).parse().expect("a port"));
        Self { child, _output: output, port }
    }

    fn pid(&self) -> Pid {
        Pid(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

fn answer(output: &mut impl BufRead) -> String {
    let mut lines = output.lines().map_while(Result::ok);
    lines.find_map(|line| line.strip_prefix(ANSWER).map(str::to_owned)).expect("it answers")
}

/// What a reader makes of a server's port. `None` if it could not be started that way.
fn read_by(mut command: Command, server: &Server) -> Option<Snapshot> {
    let output = command.env(READER, server.port.0.to_string()).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            eprintln!("skipped: start {command:?}: {error}");
            return None;
        }
    };
    Some(Snapshot::from_bytes(answer(&mut &*output.stdout).as_bytes()).expect("a whole snapshot"))
}

/// A control group of our own, removed at the end.
struct Group(PathBuf);

impl Group {
    fn create(name: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("Linux has it");
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(mount) = mount.and_then(|line| line.split(' ').nth(4)) else {
            eprintln!("skipped: no cgroup2 mount here");
            return None;
        };
        let path = Path::new(mount).join(format!("canreach-test-{}-{name}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                eprintln!("skipped: create {}: {error}", path.display());
                None
            }
        }
    }

    fn below(&self, name: &str) -> Self {
        let path = self.0.join(name);
        std::fs::create_dir(&path).expect("its parent could be made");
        Self(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn only(snapshot: &Snapshot) -> (&Socket, &Owner) {
    let netns = snapshot.subject().expect("one namespace");
    assert_eq!(netns.sockets.len(), 1, "one port, one listener: {:?}", netns.sockets);
    let socket = &netns.sockets[0];
    (socket, netns.owner(socket.inode).expect("every listener has an entry"))
}

fn unit_name<'a>(snapshot: &'a Snapshot, socket: &Socket) -> Option<&'a str> {
    let group = snapshot.cgroup(socket.cgroup?)?;
    group.unit.as_ref().map(|unit| unit.name.as_str())
}

#[test]
fn a_holder_is_found_with_its_facts_and_its_ancestors() {
    let server = Server::start(None, None);
    let snapshot = read(server.port);
    let (socket, owner) = only(&snapshot);
    assert_eq!((owner.resolved_by, owner.reason), (ResolvedBy::Fd, None));
    assert!(owner.holders.contains(&server.pid()));
    let process = snapshot.process(server.pid()).expect("holders are described");
    assert_eq!(process.uid, socket.uid);
    assert_eq!(process.parent, Some(Pid(std::process::id())));
    assert!(process.cmdline.iter().any(|argument| argument == "serve"), "{:?}", process.cmdline);
    assert!(process.cwd.is_some() && process.started_at_ms.is_some());
    let above: Vec<Pid> = snapshot.ancestry(server.pid()).map(|process| process.pid).collect();
    assert_eq!(above[..2], [server.pid(), Pid(std::process::id())]);
    assert!(above.len() > 2, "the test has a launcher of its own: {above:?}");
}

#[test]
fn a_socket_that_several_processes_hold_names_the_first_of_them_first() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = Port(listener.local_addr().expect("it is bound").port());
    // The copy has no close-on-exec flag, so the child inherits it.
    let copy = rustix::io::dup(&listener).expect("a descriptor is free");
    let mut child = bystander();
    drop(copy);
    let snapshot = read(port);
    child.kill().expect("it runs");
    let _ = child.wait();
    let (_, owner) = only(&snapshot);
    let me = Pid(std::process::id());
    assert_eq!(owner.resolved_by, ResolvedBy::Fd);
    assert_eq!(owner.holders.first(), Some(&me), "{owner:?}");
    // Servers of other cases, started meanwhile, may have inherited it as well.
    assert!(owner.holders.contains(&Pid(child.id())), "{owner:?}");
}

/// Its files belong to root then, and yet it runs as the user it runs as.
#[test]
fn a_server_that_hides_itself_keeps_its_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a server of another user");
        return;
    }
    let mut command = again("serve");
    command.env(SERVER, ":").env(HIDDEN, "1").uid(NOBODY).gid(NOBODY);
    let server = Server::spawn(command);
    let snapshot = read(server.port);
    let (_, owner) = only(&snapshot);
    assert_eq!(owner.resolved_by, ResolvedBy::Fd);
    assert_eq!(snapshot.process(server.pid()).map(|process| process.uid), Some(NOBODY));
}

#[test]
fn the_group_of_the_creator_names_the_unit() {
    let Some(root) = Group::create("unit") else { return };
    let group = root.below("demo.service");
    let server = Server::start(Some(&group.0), None);
    let snapshot = read(server.port);
    let (socket, owner) = only(&snapshot);
    assert_eq!((owner.resolved_by, owner.reason), (ResolvedBy::Fd, None));
    assert_eq!(owner.holders, [server.pid()]);
    assert_eq!(unit_name(&snapshot, socket), Some("demo.service"));
    let found = snapshot.cgroup(socket.cgroup.expect("it has one")).expect("it exists");
    let process = snapshot.process(server.pid()).expect("holders are described");
    assert_eq!(process.cgroup_path.as_ref(), Some(&found.path));
}

#[test]
fn a_socket_unit_leads_to_the_service_that_holds_its_socket() {
    let Some(root) = Group::create("activated") else { return };
    let (socket_group, service_group) = (root.below("demo.socket"), root.below("demo.service"));
    let server = Server::start(Some(&socket_group.0), Some(&service_group.0));
    let snapshot = read(server.port);
    let (socket, owner) = only(&snapshot);
    assert_eq!((owner.resolved_by, owner.reason), (ResolvedBy::Fd, None));
    assert_eq!(owner.holders, [server.pid()]);
    let found = snapshot.cgroup(socket.cgroup.expect("it has one")).expect("it exists");
    let unit = found.unit.as_ref().expect("its path names it");
    assert_eq!((unit.name.as_str(), unit.starts.as_deref()), ("demo.socket", Some("demo.service")));
}

#[test]
fn a_process_that_moved_away_is_still_found() {
    let Some(root) = Group::create("moved") else { return };
    let (before, after) = (root.below("before.service"), root.below("after.service"));
    let server = Server::start(Some(&before.0), Some(&after.0));
    let snapshot = read(server.port);
    let (_, owner) = only(&snapshot);
    assert_eq!(owner.resolved_by, ResolvedBy::Fd);
    assert!(owner.holders.contains(&server.pid()), "{owner:?}");
}

fn nobody() -> Command {
    let mut reader = again("print_a_snapshot");
    reader.uid(NOBODY).gid(NOBODY);
    reader
}

/// A process that does nothing until it is ended.
fn bystander() -> Child {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).spawn().expect("every system has it")
}

/// A reader without privileges: the group holds one process, so it is that one, as an inference.
#[test]
fn without_privileges_the_group_names_the_process() {
    let Some(root) = Group::create("nobody") else { return };
    let group = root.below("demo.service");
    let server = Server::start(Some(&group.0), None);
    let Some(snapshot) = read_by(nobody(), &server) else { return };
    let (socket, owner) = only(&snapshot);
    assert_eq!(owner.resolved_by, ResolvedBy::Cgroup);
    assert_eq!(owner.reason, Some(OwnerReason::NeedsRoot));
    assert_eq!(owner.holders, [server.pid()]);
    let process = snapshot.process(server.pid()).expect("world-readable");
    assert_eq!((process.uid, process.cwd.as_ref()), (0, None));
    assert_eq!(unit_name(&snapshot, socket), Some("demo.service"), "the walk finds it");
    assert!(snapshot.gaps.iter().any(|gap| gap.subject == GapSubject::Owners));
}

#[test]
fn without_privileges_two_programs_in_a_group_are_not_guessed_at() {
    let Some(root) = Group::create("two") else { return };
    let group = root.below("demo.service");
    let server = Server::start(Some(&group.0), None);
    let mut other = bystander();
    let id = other.id().to_string();
    std::fs::write(group.0.join("cgroup.procs"), id).expect("it can be moved");
    let snapshot = read_by(nobody(), &server);
    other.kill().expect("it runs");
    let _ = other.wait();
    let Some(snapshot) = snapshot else { return };
    let (_, owner) = only(&snapshot);
    assert_eq!((owner.resolved_by, owner.reason), (ResolvedBy::None, Some(OwnerReason::NeedsRoot)));
    assert!(owner.holders.is_empty());
}

fn shell(script: &str, namespaces: &[&str]) -> Command {
    let inner = again("print_a_snapshot");
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-c", script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

#[test]
fn inside_another_pid_namespace_the_holder_is_outside() {
    let Some(root) = Group::create("pidns") else { return };
    let group = root.below("demo.service");
    let server = Server::start(Some(&group.0), None);
    let reader = shell("exec \"$@\"", &["--pid", "--fork", "--mount-proc"]);
    let Some(snapshot) = read_by(reader, &server) else { return };
    let (_, owner) = only(&snapshot);
    assert_eq!(owner.reason, Some(OwnerReason::OtherPidNamespace));
    assert_eq!((owner.resolved_by, owner.holders.len()), (ResolvedBy::None, 0));
}

#[test]
fn a_proc_that_hides_processes_is_named_as_the_cause() {
    let Some(root) = Group::create("hidepid") else { return };
    let group = root.below("demo.service");
    let server = Server::start(Some(&group.0), None);
    for hidepid in ["1", "2"] {
        let script = format!(
            "mount -t proc -o hidepid={hidepid} proc /proc && \
             exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups \"$@\""
        );
        let Some(snapshot) = read_by(shell(&script, &["--mount"]), &server) else { return };
        let (_, owner) = only(&snapshot);
        assert_eq!(owner.reason, Some(OwnerReason::Hidepid), "hidepid={hidepid}: {owner:?}");
        assert_eq!(owner.resolved_by, ResolvedBy::None, "hidepid={hidepid}");
    }
}

/// Root inside a container that took CAP_SYS_PTRACE away: the server has more capabilities than the
/// reader, so it may not be looked at.
#[test]
fn root_without_ptrace_learns_what_is_missing() {
    let server = Server::start(None, None);
    let script = "exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace \"$@\"";
    let Some(snapshot) = read_by(shell(script, &["--mount"]), &server) else { return };
    let (_, owner) = only(&snapshot);
    assert_eq!(owner.reason, Some(OwnerReason::NeedsPtrace), "{owner:?}");
}
