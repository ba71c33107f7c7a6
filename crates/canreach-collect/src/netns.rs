//! Network namespaces: finding them, and reading inside one without leaving one's own.
//!
//! setns(2) moves one thread. A namespace is therefore entered by a thread that is made for it and
//! ends with it; the caller's namespace never changes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use canreach_snapshot::{Container, Gap, GapReason, GapSubject, NetnsId};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::os_reason;
use crate::proc::process::ProcDirectory;
use crate::{CollectError, NetnsChoice};

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A namespace that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: NetnsId,
    /// As people call it: its name under /run/netns, its mount point, or a process in it.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// A process in it, when that is how it was found.
    pub(crate) pid: Option<u32>,
}

/// The identity of the calling thread's namespace.
pub(crate) fn own_id() -> io::Result<NetnsId> {
    std::fs::metadata(OWN).map(|metadata| NetnsId(metadata.ino()))
}

/// The path of a choice, and its name. `None` for the caller's own.
pub(crate) fn locate(choice: &NetnsChoice) -> Option<(PathBuf, String)> {
    match choice {
        NetnsChoice::Own => None,
        NetnsChoice::Name(name) => Some((Path::new(NAMED).join(name), name.clone())),
        NetnsChoice::Process(pid) => {
            Some((format!("/proc/{}/ns/net", pid.0).into(), format!("process {}", pid.0)))
        }
        NetnsChoice::Path(path) => Some((path.clone(), path.display().to_string())),
    }
}

/// Opens a namespace.
pub(crate) fn open(path: &Path, name: &str) -> Result<(File, NetnsId), CollectError> {
    let refused = |cause| CollectError::Netns { name: name.to_owned(), cause };
    let file = File::open(path).map_err(refused)?;
    let id = file.metadata().map(|metadata| NetnsId(metadata.ino())).map_err(refused)?;
    Ok((file, id))
}

/// Runs `work` on a thread of its own inside a namespace.
pub(crate) fn inside<T: Send>(
    namespace: &File,
    name: &str,
    work: impl FnOnce() -> Result<T, CollectError> + Send,
) -> Result<T, CollectError> {
    let refused = |cause| CollectError::Netns { name: name.to_owned(), cause };
    std::thread::scope(|scope| {
        let entered = std::thread::Builder::new().spawn_scoped(scope, || {
            // Also checks that the file is a network namespace at all (EINVAL otherwise).
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| refused(error.into()))?;
            work()
        });
        let thread = entered.map_err(refused)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Every namespace that has a mount or a process that this reader can see, in order of identity.
pub(crate) fn find(gaps: &mut Vec<Gap>) -> Vec<Found> {
    let mut found = BTreeMap::new();
    // The caller's own mount table: names of another mount namespace could not be opened.
    let mounts = std::fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    for mounted in mounts.split(|byte| *byte == b'\n').filter_map(mounted_namespace) {
        // A name under /run/netns is the one people use; the first of several wins.
        let better = |other: &Found| named(&mounted.path) && !named(&other.path);
        if found.get(&mounted.id).is_none_or(better) {
            found.insert(mounted.id, mounted);
        }
    }
    of_processes(&mut found, gaps);
    found.into_values().collect()
}

fn named(path: &Path) -> bool {
    path.parent() == Some(Path::new(NAMED))
}

/// Reads a line of mountinfo: the mount of a namespace has root `net:[INODE]`.
fn mounted_namespace(line: &[u8]) -> Option<Found> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let root = fields.next()?;
    let id = namespace_number(root)?;
    let path = PathBuf::from(OsStr::from_bytes(&unescape(fields.next()?)));
    let name = match path.file_name() {
        Some(name) if named(&path) => name.to_string_lossy().into_owned(),
        _ => path.display().to_string(),
    };
    Some(Found { id, name, path, pid: None })
}

/// The number in `net:[4026531840]`.
fn namespace_number(text: &[u8]) -> Option<NetnsId> {
    let digits = text.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok().map(NetnsId)
}

/// Mount points in mountinfo have blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| {
            str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 8).ok())
        };
        match (first, tail.split_at_checked(3)) {
            (b'\\', Some((digits, after))) if octal(digits).is_some() => {
                plain.extend(octal(digits));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

fn of_processes(found: &mut BTreeMap<NetnsId, Found>, gaps: &mut Vec<Gap>) {
    let mut refused = 0_u32;
    let mut pids: Vec<u32> = match std::fs::read_dir("/proc") {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect(),
        Err(error) => {
            gaps.push(gap(&os_reason(&error), format!("list /proc: {error}")));
            return;
        }
    };
    // The process that was started first is the likeliest to be what the namespace is for.
    pids.sort_unstable();
    for pid in pids {
        let path = format!("/proc/{pid}/ns/net");
        let id = match std::fs::read_link(&path) {
            Ok(target) => namespace_number(target.as_os_str().as_bytes()),
            Err(error) => {
                // A process that ended meanwhile is none that runs.
                refused += u32::from(os_reason(&error) == GapReason::NeedsRoot);
                None
            }
        };
        let Some(id) = id else { continue };
        found.entry(id).or_insert_with(|| Found {
            id,
            name: name_of_process(pid),
            path: path.into(),
            pid: Some(pid),
        });
    }
    if ProcDirectory::open().is_some_and(|proc| proc.hides_others()) {
        let detail = "list processes: /proc hides those of other users".to_owned();
        gaps.push(gap(&GapReason::NeedsRoot, detail));
    }
    if refused > 0 {
        let detail =
            format!("read the network namespace of {refused} processes: permission denied");
        gaps.push(gap(&GapReason::NeedsRoot, detail));
    }
}

/// The container a process belongs to, otherwise the process itself.
fn name_of_process(pid: u32) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    if let Some(container) = Container::from_cgroup_path(path) {
        return format!("{} {}", container.runtime, container.id);
    }
    let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} ({pid})", String::from_utf8_lossy(comm.trim_ascii_end()))
}

fn gap(reason: &GapReason, detail: String) -> Gap {
    let subject = GapSubject::Netns("of other processes".to_owned());
    Gap { subject, reason: reason.clone(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_namespaces_are_found_among_others() {
        let check = |line: &str, expected: Option<(u64, &str)>| {
            let found = mounted_namespace(line.as_bytes());
            let found = found.as_ref().map(|found| (found.id.0, found.name.as_str()));
            assert_eq!(found, expected, "{line}");
        };
        check(
            "40 30 0:4 net:[4026532201] /run/netns/blue rw - nsfs nsfs rw",
            Some((4026532201, "blue")),
        );
        check(
            r"40 30 0:4 net:[4026532201] /run/docker/netns/a\040b rw - nsfs nsfs rw",
            Some((4026532201, "/run/docker/netns/a b")),
        );
        check("22 1 254:0 / / rw,relatime - ext4 /dev/root rw", None);
        check("40 30 0:4 mnt:[4026532201] /run/netns/blue rw - nsfs nsfs rw", None);
        check("40 30 0:4 net:[] /run/netns/blue rw - nsfs nsfs rw", None);
        check("", None);
    }

    #[test]
    fn a_choice_that_is_not_there_says_what_it_was() {
        let choice = NetnsChoice::Name("no-such-namespace".to_owned());
        let (path, name) = locate(&choice).expect("it is not the own one");
        let error = open(&path, &name).expect_err("nobody made it").to_string();
        assert!(
            error.starts_with("there is no network namespace `no-such-namespace`: "),
            "{error}"
        );
    }
}
