//! Why no descriptor shows who holds a socket: from the errors met and what else was seen.

use canreach_snapshot::OwnerReason;

use super::search::{Search, Sought};
use crate::cgroup;
use crate::directory;
use crate::proc::process::ProcDirectory;

/// The inode number of the machine's own PID namespace (include/linux/proc_ns.h,
/// `PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What the search as a whole taught. Read only if something stayed unknown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence {
    /// A process refused to be looked at.
    pub(crate) refusal: bool,
    /// Whoever is asking runs as root, so a refusal is for want of a capability.
    pub(crate) root: bool,
    /// `/proc` is mounted with hidepid, and it shows.
    pub(crate) hidepid: bool,
    /// This is the machine's own PID namespace, which has a number for every process.
    pub(crate) first_pid_namespace: bool,
    /// Some socket was created in another control group than the root: this machine sorts its
    /// processes into groups.
    pub(crate) groups_in_use: bool,
}

impl Evidence {
    pub(crate) fn gather(search: &Search, proc: &ProcDirectory) -> Self {
        let mounts = directory::read_text("/proc/self/mountinfo").unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        let groups = search.sockets.iter().filter_map(|sought| sought.cgroup);
        Self {
            refusal: search.met_refusal(),
            root: rustix::process::geteuid().is_root(),
            hidepid: mounted_with_hidepid(&mounts) && proc.hides_others(),
            first_pid_namespace: namespace.is_ok_and(|it| it.as_os_str() == FIRST_PID_NAMESPACE),
            groups_in_use: groups.into_iter().any(|group| group != cgroup::ROOT),
        }
    }

    /// Why nobody is known to hold a socket, given how many members of its group belong to other
    /// PID namespaces.
    pub(crate) fn reason(self, sought: &Sought, foreign: usize) -> OwnerReason {
        if self.hidepid {
            return OwnerReason::Hidepid;
        }
        if self.refusal {
            return if self.root { OwnerReason::NeedsPtrace } else { OwnerReason::NeedsRoot };
        }
        let root_group = sought.cgroup.is_none_or(|group| group == cgroup::ROOT);
        // Inside a container whose machine does not use groups, a stranger's socket looks the same.
        let told_apart = self.first_pid_namespace || self.groups_in_use;
        if sought.uid == 0 && root_group && told_apart && foreign == 0 {
            OwnerReason::Kernel
        } else if foreign > 0 || !self.first_pid_namespace {
            OwnerReason::OtherPidNamespace
        } else {
            OwnerReason::NoProcess
        }
    }
}

/// Whether `/proc` has the option: the third field behind the lone `-` holds those of the file
/// system. The last mount on a place is the one that is seen.
fn mounted_with_hidepid(mounts: &str) -> bool {
    let proc = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = proc.and_then(|line| line.split(' ').skip_while(|field| *field != "-").nth(3));
    let value = |option: &str| {
        let value = option.strip_prefix("hidepid=")?;
        Some(!matches!(value, "0" | "off"))
    };
    options.is_some_and(|options| options.split(',').filter_map(value).any(|hides| hides))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canreach_snapshot::{CgroupId, Port, Proto};

    const PLAIN: Evidence = Evidence {
        refusal: false,
        root: true,
        hidepid: false,
        first_pid_namespace: true,
        groups_in_use: true,
    };

    fn check(
        evidence: Evidence,
        uid: u32,
        cgroup: Option<u64>,
        foreign: usize,
        expect: OwnerReason,
    ) {
        let sought = Sought {
            inode: 7,
            proto: Proto::Tcp,
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            port: Port(2049),
            uid,
            cgroup: cgroup.map(CgroupId),
            required: true,
            holders: Vec::new(),
        };
        assert_eq!(evidence.reason(&sought, foreign), expect, "{evidence:?} {uid} {cgroup:?}");
    }

    #[test]
    fn reasons_follow_from_what_was_met() {
        let nobody = Evidence { root: false, ..PLAIN };
        check(Evidence { refusal: true, ..nobody }, 0, Some(9), 0, OwnerReason::NeedsRoot);
        check(Evidence { refusal: true, ..PLAIN }, 0, Some(9), 0, OwnerReason::NeedsPtrace);
        check(Evidence { hidepid: true, ..nobody }, 0, Some(9), 0, OwnerReason::Hidepid);
        check(PLAIN, 0, Some(1), 0, OwnerReason::Kernel);
        check(PLAIN, 0, None, 0, OwnerReason::Kernel);
        check(PLAIN, 1000, Some(1), 0, OwnerReason::NoProcess);
        check(PLAIN, 0, Some(9), 0, OwnerReason::NoProcess);
        check(nobody, 0, Some(9), 0, OwnerReason::NoProcess);
        check(PLAIN, 0, Some(9), 2, OwnerReason::OtherPidNamespace);
        let container = Evidence { first_pid_namespace: false, ..PLAIN };
        check(container, 1000, Some(9), 0, OwnerReason::OtherPidNamespace);
        check(container, 0, Some(1), 0, OwnerReason::Kernel);
        let plain_container = Evidence { groups_in_use: false, ..container };
        check(plain_container, 0, Some(1), 0, OwnerReason::OtherPidNamespace);
    }

    #[test]
    fn hidepid_is_read_from_the_mount_that_is_seen() {
        let line = |options: &str| format!("22 27 0:21 / /proc rw - proc proc {options}\n");
        for (mounts, expect) in [
            (line("rw"), false),
            (line("rw,hidepid=2"), true),
            (line("rw,gid=5,hidepid=invisible"), true),
            (line("rw,hidepid=0"), false),
            (line("rw,hidepid=off"), false),
            (line("rw,hidepid=2") + &line("rw"), false),
            ("1 2 0:3 / /mnt/proc rw - proc proc rw,hidepid=2".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(mounted_with_hidepid(&mounts), expect, "{mounts}");
        }
    }
}
