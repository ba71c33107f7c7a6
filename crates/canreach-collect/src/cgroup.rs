//! Control groups (version 2): from the id a socket carries to the directory, its path and its
//! processes.
//!
//! The id is the inode number of the directory (kernel/cgroup/cgroup.c, `cgroup_id`). With
//! CAP_DAC_READ_SEARCH the kernel opens a directory by that number; without it, the tree is walked
//! and inode numbers compared. Left out: hierarchies of version 1, whose groups no socket carries.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use canreach_snapshot::CgroupId;
use rustix::fs::CWD;

use crate::directory::{self, DirectoryBuffer};
use crate::sys;

/// The root group. Everything that was never put anywhere is in it, so it says nothing.
pub(crate) const ROOT: CgroupId = CgroupId(1);

/// The most directories that are walked: some 100 times as many as a busy machine has.
const MAX_DIRECTORIES: usize = 100_000;

/// The cgroup2 mount.
#[derive(Debug)]
pub(crate) struct CgroupTree {
    mount: PathBuf,
    root: OwnedFd,
}

/// One control group.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    /// Its path below the mount: `/system.slice/ssh.service`; `/` for the mount itself.
    pub(crate) path: String,
    directory: OwnedFd,
}

/// The processes of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// Those this PID namespace has numbers for.
    pub(crate) pids: Vec<u32>,
    /// How many are in other PID namespaces, and listed as 0.
    pub(crate) foreign: usize,
}

impl CgroupTree {
    /// The mount, where there is one.
    pub(crate) fn open() -> Option<Self> {
        let mounts = directory::read_text("/proc/self/mountinfo").ok()?;
        let mount = mount_point(mounts.as_bytes())?;
        let root = directory::open(CWD, &mount).ok()?;
        Some(Self { mount, root })
    }

    /// The groups with these ids. Those that are missing are gone, or outside of what is mounted
    /// here; the two cannot be told apart.
    pub(crate) fn find(&self, ids: &BTreeSet<CgroupId>) -> BTreeMap<CgroupId, ControlGroup> {
        let mut found = BTreeMap::new();
        for id in ids {
            match sys::open_by_handle(self.root.as_fd(), id.0) {
                Ok(directory) => {
                    if let Some(path) = self.path_of(&directory) {
                        found.insert(*id, ControlGroup { path, directory });
                    }
                }
                // No privilege, or no such call (seccomp): it will be refused for each.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return self.walk(ids);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return self.walk(ids),
                Err(_) => {}
            }
        }
        found
    }

    /// A group by its path below the mount.
    pub(crate) fn at(&self, path: &str) -> Option<ControlGroup> {
        let below = if path == "/" { "." } else { path.trim_start_matches('/') };
        let directory = directory::open(&self.root, below).ok()?;
        Some(ControlGroup { path: path.to_owned(), directory })
    }

    /// The group of this process, and its id.
    pub(crate) fn own(&self) -> Option<(CgroupId, ControlGroup)> {
        let groups = std::fs::read_to_string("/proc/thread-self/cgroup").ok()?;
        let group = self.at(groups.lines().find_map(|line| line.strip_prefix("0::"))?)?;
        let id = rustix::fs::fstat(&group.directory).ok()?.st_ino;
        Some((CgroupId(id), group))
    }

    /// The path of an open directory below the mount.
    fn path_of(&self, directory: &OwnedFd) -> Option<String> {
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let path = std::fs::read_link(link).ok()?;
        let below = path.strip_prefix(&self.mount).ok()?;
        Some(format!("/{}", below.to_string_lossy()))
    }

    fn walk(&self, ids: &BTreeSet<CgroupId>) -> BTreeMap<CgroupId, ControlGroup> {
        let mut found = BTreeMap::new();
        let mut buffer = DirectoryBuffer::new();
        // The mount itself has no entry anywhere. Inside a container its id is an ordinary one.
        let mut pending: Vec<(u64, String)> = rustix::fs::fstat(&self.root)
            .map(|stat| (stat.st_ino, "/".to_owned()))
            .into_iter()
            .collect();
        let mut visited = 0;
        while let Some((inode, path)) = pending.pop() {
            visited += 1;
            if visited > MAX_DIRECTORIES {
                break;
            }
            let below = if path == "/" { "." } else { path.trim_start_matches('/') };
            let Ok(directory) = directory::open(&self.root, below) else { continue };
            let parent = if path == "/" { "" } else { path.as_str() };
            // A directory that ends while it is read has nothing to add.
            let _ = buffer.read(&directory, |entry| {
                if entry.directory {
                    let name = entry.name.to_string_lossy();
                    pending.push((entry.inode, format!("{parent}/{name}")));
                }
                Ok(())
            });
            if ids.contains(&CgroupId(inode)) {
                found.insert(CgroupId(inode), ControlGroup { path, directory });
                if found.len() == ids.len() {
                    break;
                }
            }
        }
        found
    }
}

impl ControlGroup {
    /// Its directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its processes, without those of the groups below it. Empty where the kernel gives none: a
    /// threaded group, or one that is gone.
    pub(crate) fn members(&self) -> Members {
        let mut text = Vec::new();
        match directory::read_file(&self.directory, "cgroup.procs", &mut text) {
            Ok(()) => members(&text),
            Err(_) => Members::default(),
        }
    }
}

fn members(text: &[u8]) -> Members {
    let mut members = Members::default();
    for line in text.split(|byte| *byte == b'\n') {
        match std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()) {
            Some(0) => members.foreign += 1,
            Some(pid) => members.pids.push(pid),
            None => {}
        }
    }
    members
}

/// Where cgroup2 is mounted, of the lines of `mountinfo` (Documentation/filesystems/proc.rst 3.5):
/// the fifth field is the place, and the type comes first behind the lone `-`.
fn mount_point(mounts: &[u8]) -> Option<PathBuf> {
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let place = fields.nth(4)?;
        let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
        (behind.next()? == b"cgroup2").then(|| Path::new(OsStr::from_bytes(place)).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_on_unified_and_hybrid_machines() {
        let check = |line: &str, place: Option<&str>| {
            let other = "22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n";
            let found = mount_point(format!("{other}{line}\n").as_bytes());
            assert_eq!(found.as_deref(), place.map(Path::new), "{line}");
        };
        check(
            "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw",
            Some("/sys/fs/cgroup"),
        );
        check(
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 none rw",
            Some("/sys/fs/cgroup/unified"),
        );
        check("37 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd", None);
        check("31 23 0:28 / /a/cgroup2 rw - tmpfs cgroup2 rw", None);
        check("31 23", None);
    }

    #[test]
    fn processes_of_other_namespaces_are_counted_only() {
        let check = |text: &[u8], pids: &[u32], foreign| {
            assert_eq!(members(text), Members { pids: pids.to_vec(), foreign });
        };
        check(b"", &[], 0);
        check(b"1\n4182\n", &[1, 4182], 0);
        check(b"0\n7\n0\n", &[7], 2);
        check(b"x\n-1\n99999999999999\n3", &[3], 0);
    }

    /// Both ways must find the same directories; runs where cgroup2 is mounted at all.
    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped case says why")]
    fn walking_and_opening_by_id_agree() {
        let Some(tree) = CgroupTree::open() else {
            eprintln!("skipped: no cgroup2 mount here");
            return;
        };
        let inode = rustix::fs::fstat(&tree.root).expect("it is open").st_ino;
        let ids = BTreeSet::from([CgroupId(inode), CgroupId(u64::MAX)]);
        let walked = tree.walk(&ids);
        assert_eq!(walked.keys().collect::<Vec<_>>(), [&CgroupId(inode)]);
        assert_eq!(walked[&CgroupId(inode)].path, "/");
        let found = tree.find(&ids);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&CgroupId(inode)]);
        assert_eq!(found[&CgroupId(inode)].path, "/");
        // Other tests start and end processes: the two are compared while none of them does.
        loop {
            let before = walked[&CgroupId(inode)].members();
            let members = found[&CgroupId(inode)].members();
            if before == walked[&CgroupId(inode)].members() {
                assert_eq!(members, before);
                return;
            }
        }
    }
}
