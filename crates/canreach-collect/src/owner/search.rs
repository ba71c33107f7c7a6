//! The sockets looked for, and the search for them among descriptors.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::ControlFlow;

use canreach_snapshot::{CgroupId, Port, Proto, Snapshot, Socket, SocketState};

use crate::proc::process::{Look, ProcDirectory};

/// One socket that is looked for.
#[derive(Debug)]
pub(crate) struct Sought {
    pub(crate) inode: u64,
    pub(crate) proto: Proto,
    pub(crate) address: IpAddr,
    pub(crate) port: Port,
    pub(crate) uid: u32,
    pub(crate) cgroup: Option<CgroupId>,
    /// Whether it is worth a search of its own. Connected UDP sockets are clients as a rule: they
    /// are noted where they turn up.
    pub(crate) required: bool,
    /// Processes seen to hold it, each once, in the order they were looked at.
    pub(crate) holders: Vec<u32>,
}

impl Sought {
    fn new(socket: &Socket) -> Self {
        Self {
            inode: socket.inode,
            proto: socket.proto,
            address: socket.address,
            port: socket.port,
            uid: socket.uid,
            cgroup: socket.cgroup,
            required: socket.state != SocketState::Connected,
            holders: Vec::new(),
        }
    }

    pub(crate) const fn is_unresolved(&self) -> bool {
        self.required && self.holders.is_empty()
    }
}

/// A search: what is looked for, and which processes were looked at.
///
/// The sockets are in the table and each descriptor probes it, not the other way around: there may
/// be a hundred descriptors for one socket of interest.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) sockets: Vec<Sought>,
    by_inode: HashMap<u64, usize>,
    /// How many sockets worth a search were created in each control group.
    required: HashMap<CgroupId, usize>,
    looks: HashMap<u32, Look>,
}

impl Search {
    /// Every socket of every namespace. Inode 0 stands for "none", so it is not looked for.
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mut search = Self {
            sockets: Vec::new(),
            by_inode: HashMap::new(),
            required: HashMap::new(),
            looks: HashMap::new(),
        };
        let sockets = snapshot.namespaces.iter().flat_map(|netns| &netns.sockets);
        for socket in sockets.filter(|socket| socket.inode != 0) {
            search.by_inode.entry(socket.inode).or_insert_with(|| {
                search.sockets.push(Sought::new(socket));
                search.sockets.len() - 1
            });
        }
        for sought in search.sockets.iter().filter(|sought| sought.required) {
            if let Some(group) = sought.cgroup {
                *search.required.entry(group).or_default() += 1;
            }
        }
        search
    }

    /// Looks at all descriptors of a process, unless that was done before.
    pub(crate) fn look(&mut self, proc: &mut ProcDirectory, pid: u32) {
        if self.looks.get(&pid).is_none_or(|look| *look == Look::Enough) {
            self.look_until(proc, pid, |_| ControlFlow::Continue(()));
        }
    }

    /// Looks at a member of a control group until it is seen to hold every required socket of the
    /// group: a server with one listener may have ten thousand connections.
    pub(crate) fn look_at_member(&mut self, proc: &mut ProcDirectory, pid: u32, group: CgroupId) {
        if self.looks.contains_key(&pid) {
            return;
        }
        let mut left = self.required.get(&group).copied().unwrap_or(0);
        if left == 1 && self.guess(proc, pid, group) {
            return;
        }
        self.look_until(proc, pid, |sought| {
            if sought.required && sought.cgroup == Some(group) {
                left = left.saturating_sub(1);
            }
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Notes the one socket of a group, if it is where it can be expected.
    fn guess(&mut self, proc: &mut ProcDirectory, pid: u32, group: CgroupId) -> bool {
        let mut sockets = self.sockets.iter_mut();
        let only = sockets.find(|sought| sought.required && sought.cgroup == Some(group));
        let Some(sought) = only else { return false };
        let holds = proc.guess_socket(pid, sought.inode);
        if holds {
            if !sought.holders.contains(&pid) {
                sought.holders.push(pid);
            }
            self.looks.insert(pid, Look::Enough);
        }
        holds
    }

    /// Notes each socket that a process holds, once.
    fn look_until(
        &mut self,
        proc: &mut ProcDirectory,
        pid: u32,
        mut noted: impl FnMut(&Sought) -> ControlFlow<()>,
    ) {
        let (sockets, by_inode) = (&mut self.sockets, &self.by_inode);
        let look = proc.sockets_of(pid, |inode| {
            let sought = by_inode.get(&inode).and_then(|position| sockets.get_mut(*position));
            // A process may hold one socket by several descriptors, and be looked at twice.
            match sought.filter(|sought| !sought.holders.contains(&pid)) {
                Some(sought) => {
                    sought.holders.push(pid);
                    noted(sought)
                }
                None => ControlFlow::Continue(()),
            }
        });
        self.looks.insert(pid, look);
    }

    /// How the look at a process went; `None` if there was none.
    pub(crate) fn look_at(&self, pid: u32) -> Option<Look> {
        self.looks.get(&pid).copied()
    }

    /// Whether any process refused to be looked at.
    pub(crate) fn met_refusal(&self) -> bool {
        self.looks.values().any(|look| *look == Look::Denied)
    }

    /// Processes that refused to be looked at, by number.
    pub(crate) fn refusing(&self) -> BTreeSet<u32> {
        let refusing = self.looks.iter().filter(|(_, look)| **look == Look::Denied);
        refusing.map(|(pid, _)| *pid).collect()
    }

    pub(crate) fn is_complete(&self) -> bool {
        !self.sockets.iter().any(Sought::is_unresolved)
    }

    /// Looks further for what is left over: at processes of the same users, then at all others.
    pub(crate) fn widen(&mut self, proc: &mut ProcDirectory) {
        if self.is_complete() {
            return;
        }
        let processes = proc.list();
        let left = self.sockets.iter().filter(|sought| sought.is_unresolved());
        let users: BTreeSet<u32> = left.map(|sought| sought.uid).collect();
        // Each pass ends with its last process, not with the last socket found: a master and its
        // workers are to be reported together.
        for (pid, _) in processes.iter().filter(|(_, uid)| users.contains(uid)) {
            self.look(proc, *pid);
        }
        if self.is_complete() {
            return;
        }
        for (pid, _) in processes {
            self.look(proc, pid);
        }
    }
}
