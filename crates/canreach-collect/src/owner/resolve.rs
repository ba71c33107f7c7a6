//! The search from its first step to its last, and what it leaves in the snapshot.

use std::collections::{BTreeMap, BTreeSet};

use canreach_snapshot::{
    Cgroup, CgroupId, Container, Gap, GapReason, GapSubject, Owner, OwnerReason, Pid, Process,
    ResolvedBy, Snapshot, Unit,
};

use super::inference;
use super::reason::Evidence;
use super::search::{Search, Sought};
use super::{docker_proxy::Mapping, unit_file};
use crate::cgroup::{self, CgroupTree, Members};
use crate::proc::process::ProcDirectory;

/// How far above a holder ancestors are read: shells, launchers and service managers are within.
const MAX_ANCESTORS: usize = 16;

/// Finds out who holds the sockets of every namespace: fills in owners, processes and control
/// groups. What cannot be found has a reason; nothing here fails.
pub(crate) fn resolve(snapshot: &mut Snapshot) {
    let mut search = Search::new(snapshot);
    let groups = Groups::read(snapshot);
    snapshot.cgroups = groups.described();
    let Some(mut proc) = ProcDirectory::open() else {
        snapshot.gaps.push(Gap {
            subject: GapSubject::Owners,
            reason: GapReason::Unsupported,
            detail: "open /proc: without it nothing shows who holds a socket".to_owned(),
        });
        return;
    };
    groups.search_members(&mut search, &mut proc);
    search.widen(&mut proc);

    let findings = Findings::new(&search, &groups, &mut proc);
    let holders: BTreeSet<u32> =
        findings.by_inode.values().flat_map(|finding| &finding.holders).copied().collect();
    let processes = read_processes(&mut proc, &holders, &groups.paths());
    for netns in &mut snapshot.namespaces {
        let inodes: BTreeSet<u64> = netns.sockets.iter().map(|socket| socket.inode).collect();
        let owners = inodes.into_iter().filter_map(|inode| findings.owner(inode, &processes));
        netns.owners = owners.collect();
    }
    snapshot.gaps.extend(gap(snapshot));
    snapshot.processes = processes.into_values().collect();
}

/// One control group that a socket was created in.
struct Group {
    path: String,
    unit: Option<Unit>,
    members: Members,
    /// For a socket unit: the members of the service it starts, and of the manager that holds its
    /// sockets.
    activated: Option<Activated>,
}

struct Activated {
    service: Members,
    manager: Vec<u32>,
}

struct Groups(BTreeMap<CgroupId, Group>);

impl Groups {
    /// The groups of every socket, found or not; those not found are absent.
    fn read(snapshot: &Snapshot) -> Self {
        let sockets = snapshot.namespaces.iter().flat_map(|netns| &netns.sockets);
        let ids: BTreeSet<CgroupId> = sockets.filter_map(|socket| socket.cgroup).collect();
        let narrow: BTreeSet<CgroupId> =
            ids.iter().copied().filter(|id| *id != cgroup::ROOT).collect();
        let tree = CgroupTree::open().filter(|_| !narrow.is_empty());
        let mut groups: BTreeMap<CgroupId, Group> = tree
            .map(|tree| {
                let found = tree.find(&narrow).into_iter();
                found.map(|(id, group)| (id, Group::new(&tree, &group))).collect()
            })
            .unwrap_or_default();
        if ids.contains(&cgroup::ROOT) {
            // Every process that was never moved is a member, so they are not worth listing.
            groups.insert(
                cgroup::ROOT,
                Group {
                    path: "/".into(),
                    unit: None,
                    members: Members::default(),
                    activated: None,
                },
            );
        }
        Self(groups)
    }

    fn described(&self) -> Vec<Cgroup> {
        let describe = |(id, group): (&CgroupId, &Group)| Cgroup {
            id: *id,
            path: group.path.clone(),
            unit: group.unit.clone(),
            container: Container::from_cgroup_path(&group.path),
        };
        self.0.iter().map(describe).collect()
    }

    /// The group that each member was just seen in.
    fn paths(&self) -> BTreeMap<u32, &str> {
        // In the root group are those that only a hierarchy of version 1 may tell apart.
        let named = self.0.values().filter(|group| group.path != "/");
        named
            .flat_map(|group| group.members.pids.iter().map(|pid| (*pid, group.path.as_str())))
            .collect()
    }

    fn of(&self, sought: &Sought) -> Option<&Group> {
        self.0.get(&sought.cgroup?)
    }

    /// Looks at the members of each group that a socket worth searching for was created in.
    fn search_members(&self, search: &mut Search, proc: &mut ProcDirectory) {
        let wanted: BTreeSet<CgroupId> = search
            .sockets
            .iter()
            .filter(|sought| sought.required)
            .filter_map(|sought| sought.cgroup)
            .collect();
        for (id, group) in wanted.iter().filter_map(|id| Some((*id, self.0.get(id)?))) {
            let activated = group.activated.iter();
            let others = activated.flat_map(|it| it.service.pids.iter().chain(&it.manager));
            for pid in group.members.pids.iter().chain(others) {
                search.look_at_member(proc, *pid, id);
            }
        }
    }
}

impl Group {
    fn new(tree: &CgroupTree, group: &cgroup::ControlGroup) -> Self {
        let mut unit = Unit::from_cgroup_path(&group.path);
        let mut activated = None;
        if let Some(unit) = &mut unit {
            unit.starts = unit_file::started_by(&unit.name, unit.user);
            if let Some(service) = &unit.starts {
                activated = Some(Activated::read(tree, &group.path, unit, service));
            }
        }
        Self { path: group.path.clone(), unit, members: group.members(), activated }
    }
}

impl Activated {
    fn read(tree: &CgroupTree, path: &str, unit: &Unit, service: &str) -> Self {
        let slice = path.rfind('/').map_or("", |end| &path[..end]);
        let service = tree.at(&format!("{slice}/{service}")).map(|group| group.members());
        // The system's sockets are held by PID 1, those of a user by that user's manager.
        let manager = if unit.user {
            let end = path.find(".service/").map(|start| start + ".service".len());
            let manager = end.and_then(|end| tree.at(&format!("{}/init.scope", &path[..end])));
            manager.map(|group| group.members().pids).unwrap_or_default()
        } else {
            vec![1]
        };
        Self { service: service.unwrap_or_default(), manager }
    }
}

/// What became of one socket.
struct Finding {
    holders: Vec<u32>,
    resolved_by: ResolvedBy,
    reason: Option<OwnerReason>,
    /// The processes that keep the socket for others.
    managers: Vec<u32>,
}

struct Findings {
    by_inode: BTreeMap<u64, Finding>,
    /// /proc hides processes, and some holder was not found.
    hidepid: bool,
}

impl Findings {
    fn new(search: &Search, groups: &Groups, proc: &mut ProcDirectory) -> Self {
        // What nothing is missing for needs no explanation.
        let missing = !search.is_complete();
        let evidence = missing.then(|| Evidence::gather(search, proc));
        let proxies = if missing { inference::docker_proxies(search, proc) } else { Vec::new() };
        let mut by_inode = BTreeMap::new();
        for sought in &search.sockets {
            if sought.holders.is_empty() && !sought.required {
                continue;
            }
            let finding = match evidence.filter(|_| sought.holders.is_empty()) {
                Some(evidence) => infer(search, groups, proc, sought, &proxies, evidence),
                None => seen(groups, sought),
            };
            by_inode.insert(sought.inode, finding);
        }
        let hidepid = evidence.is_some_and(|evidence| evidence.hidepid);
        Self { by_inode, hidepid }
    }

    /// The owner of a socket, with those holders that still run.
    fn owner(&self, inode: u64, processes: &BTreeMap<Pid, Process>) -> Option<Owner> {
        if inode == 0 {
            // No file ever belonged to it, or none does any more.
            let reason = Some(OwnerReason::Kernel);
            return Some(Owner {
                inode,
                holders: Vec::new(),
                resolved_by: ResolvedBy::None,
                reason,
            });
        }
        let finding = self.by_inode.get(&inode)?;
        let pids = finding.holders.iter().map(|pid| Pid(*pid));
        let mut holders: Vec<Pid> = pids.filter(|pid| processes.contains_key(pid)).collect();
        if holders.is_empty() {
            let resolved_by = ResolvedBy::None;
            let ended = if self.hidepid { OwnerReason::Hidepid } else { OwnerReason::NoProcess };
            let reason = finding.reason.or(Some(ended));
            return Some(Owner { inode, holders, resolved_by, reason });
        }
        let all: BTreeSet<Pid> = holders.iter().copied().collect();
        holders.sort_by_cached_key(|pid| {
            let parent = processes.get(pid).and_then(|process| process.parent);
            // A manager keeps the socket for the service; a worker got it from its master.
            (finding.managers.contains(&pid.0), parent.is_some_and(|it| all.contains(&it)), *pid)
        });
        let (resolved_by, reason) = (finding.resolved_by, finding.reason);
        Some(Owner { inode, holders, resolved_by, reason })
    }
}

/// Holders whose descriptors were seen.
fn seen(groups: &Groups, sought: &Sought) -> Finding {
    let activated = groups.of(sought).and_then(|group| group.activated.as_ref());
    let managers = activated.map(|activated| activated.manager.clone()).unwrap_or_default();
    let waiting = !managers.is_empty() && sought.holders.iter().all(|pid| managers.contains(pid));
    Finding {
        holders: sought.holders.clone(),
        resolved_by: ResolvedBy::Fd,
        reason: waiting.then_some(OwnerReason::SocketActivated),
        managers,
    }
}

/// Holders that no descriptor shows, or why there are none.
fn infer(
    search: &Search,
    groups: &Groups,
    proc: &mut ProcDirectory,
    sought: &Sought,
    proxies: &[(u32, Mapping)],
    evidence: Evidence,
) -> Finding {
    let group = groups.of(sought);
    let foreign = group.map_or(0, |group| group.members.foreign);
    let reason = evidence.reason(sought, foreign);
    let mut finding = Finding {
        holders: Vec::new(),
        resolved_by: ResolvedBy::None,
        reason: Some(reason),
        managers: Vec::new(),
    };
    if let Some(group) = group {
        let members = group.activated.as_ref().map_or(&group.members, |it| &it.service);
        finding.holders = inference::from_members(search, proc, &members.pids, members.foreign);
        if let Some(activated) = &group.activated {
            finding.managers.clone_from(&activated.manager);
            if finding.holders.is_empty() && members.pids.is_empty() {
                // No process of the service runs, so the manager keeps the socket.
                finding.holders = inference::from_members(search, proc, &activated.manager, 0);
                if !finding.holders.is_empty() {
                    finding.reason = Some(OwnerReason::SocketActivated);
                }
            }
        }
    }
    if finding.holders.is_empty() {
        finding.holders = inference::from_docker_proxies(proxies, sought);
    }
    if !finding.holders.is_empty() {
        finding.resolved_by = ResolvedBy::Cgroup;
    }
    finding
}

/// Processes and those above them. The launcher of a server (`npm run dev`) is above it, not in it.
fn read_processes(
    proc: &mut ProcDirectory,
    holders: &BTreeSet<u32>,
    cgroup_paths: &BTreeMap<u32, &str>,
) -> BTreeMap<Pid, Process> {
    let mut processes: BTreeMap<Pid, Process> = BTreeMap::new();
    for holder in holders {
        let mut next = Some(Pid(*holder));
        for _ in 0..MAX_ANCESTORS {
            let Some(pid) = next.filter(|pid| !processes.contains_key(pid)) else { break };
            let Some(process) = proc.process(pid.0, cgroup_paths.get(&pid.0).copied()) else {
                break;
            };
            next = process.parent;
            processes.insert(pid, process);
        }
    }
    processes
}

/// The gap that sockets leave whose holders are not known for certain for want of privileges.
fn gap(snapshot: &Snapshot) -> Option<Gap> {
    let owners = snapshot.namespaces.iter().flat_map(|netns| &netns.owners);
    let reasons: BTreeSet<&str> = owners
        .filter(|owner| owner.resolved_by != ResolvedBy::Fd)
        .filter_map(|owner| match owner.reason? {
            OwnerReason::NeedsRoot | OwnerReason::SocketActivated => {
                Some("read descriptors of other users' processes: EACCES")
            }
            OwnerReason::NeedsPtrace => {
                Some("read descriptors of processes: EACCES although root (no CAP_SYS_PTRACE)")
            }
            OwnerReason::Hidepid => Some("list processes: /proc is mounted with hidepid"),
            OwnerReason::OtherPidNamespace
            | OwnerReason::Kernel
            | OwnerReason::NoProcess
            | OwnerReason::NotLookedAt => None,
        })
        .collect();
    (!reasons.is_empty()).then(|| Gap {
        subject: GapSubject::Owners,
        reason: GapReason::NeedsRoot,
        detail: reasons.into_iter().collect::<Vec<_>>().join("; "),
    })
}
