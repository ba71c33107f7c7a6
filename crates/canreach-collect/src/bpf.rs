//! BPF programs and tc filters attached where packets pass: that they are there, and their names.
//!
//! Programs are opaque: what one decides cannot be read. XDP programs come with the links
//! (`netlink::link`) and classic tc filters from rtnetlink, both without privileges; the rest is
//! known to `bpf(2)` alone, which refuses ordinary users. Left out: programs that only watch, socket
//! filters (SO_ATTACH_FILTER, not exported), and LSM programs.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use canreach_snapshot::{
    AttachPoint, BpfAttachment, CgroupId, Gap, GapReason, GapSubject, Ifindex, Link, LinkKind,
    Netns, NfHook,
};

use crate::cgroup::CgroupTree;
use crate::error::os_reason;
use crate::netlink::socket::NetlinkSocket;
use crate::netlink::tc;
use crate::sys::{self, BpfObject};

/// `enum bpf_attach_type` of include/uapi/linux/bpf.h.
const CGROUP_INGRESS: u32 = 0;
const CGROUP_EGRESS: u32 = 1;
/// `INET4_CONNECT`, `INET6_CONNECT`, `UDP4_SENDMSG`, `UDP6_SENDMSG`: where a client's address changes.
const CGROUP_CONNECT: [u32; 4] = [10, 11, 14, 15];
const SK_LOOKUP: u32 = 36;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
const NETKIT_PRIMARY: u32 = 54;
const NETKIT_PEER: u32 = 55;
/// `BPF_F_QUERY_EFFECTIVE`: programs of the groups above count, too.
const EFFECTIVE: u32 = 1;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const CGROUP_PROGRAM: u32 = 8;
/// `BPF_LINK_TYPE_NETFILTER`.
const NETFILTER_LINK: u32 = 10;
/// `char name[16]` in `struct bpf_prog_info`.
const PROGRAM_NAME: std::ops::Range<usize> = 64..80;
/// `type`, `prog_id` and `netfilter.hooknum` in `struct bpf_link_info`.
const LINK_TYPE: usize = 0;
const LINK_PROGRAM: usize = 8;
const LINK_HOOK: usize = 20;

/// More programs than this at one place are not listed; that there are some is what counts.
const LISTED: usize = 64;

/// What `bpf(2)` alone knows.
const SUBJECTS: [GapSubject; 4] =
    [GapSubject::Tc, GapSubject::CgroupBpf, GapSubject::SkLookup, GapSubject::NetfilterBpf];

/// Reads what is attached in the calling thread's namespace, whose links and sockets are read.
pub(crate) fn read(netns: &mut Netns, rtnetlink: Option<&mut NetlinkSocket>) {
    match rtnetlink {
        Some(rtnetlink) => read_tc(netns, rtnetlink),
        None => netns.gaps.push(Gap {
            subject: GapSubject::Tc,
            reason: GapReason::Failed,
            detail: "dump tc filters: there is no netlink socket".to_owned(),
        }),
    }
    match sys::next_bpf_id(BpfObject::Program, 0) {
        // Not one program is loaded in the whole machine.
        Ok(None) => {}
        Ok(Some(_)) => read_programs(netns),
        Err(error) if os_reason(&error) == GapReason::Unsupported => {}
        Err(error) => {
            netns.gaps.extend(SUBJECTS.map(|subject| gap(subject, &error, "list BPF programs")));
        }
    }
    for attachment in &mut netns.bpf {
        if let (Some(id), None) = (attachment.program_id, &attachment.name) {
            attachment.name = program_name(id);
        }
    }
}

fn gap(subject: GapSubject, error: &io::Error, operation: &str) -> Gap {
    Gap { subject, reason: os_reason(error), detail: format!("{operation}: {error}") }
}

fn read_tc(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    let (places, error) = rtnetlink.dump(
        "dump queueing disciplines",
        tc::GET_DISCIPLINE,
        &tc::DISCIPLINES,
        tc::decode_places,
    );
    netns.gaps.extend(error.map(|error| error.gap(GapSubject::Tc)));
    for place in places.into_iter().flatten() {
        let (filters, error) =
            rtnetlink.dump("dump tc filters", tc::GET_FILTER, &place.request(), |message| {
                tc::decode_filter(place.point, message)
            });
        netns.gaps.extend(error.map(|error| error.gap(GapSubject::Tc)));
        netns.bpf.extend(filters);
    }
}

fn read_programs(netns: &mut Netns) {
    let mut found = Vec::new();
    if let Err(error) = read_links(&netns.links, &mut found) {
        netns.gaps.push(gap(GapSubject::Tc, &error, "query tcx programs"));
    }
    if let Err(error) = read_sk_lookup(&mut found) {
        netns.gaps.push(gap(GapSubject::SkLookup, &error, "query sk_lookup programs"));
    }
    if let Err(error) = read_netfilter(&mut found) {
        netns.gaps.push(gap(GapSubject::NetfilterBpf, &error, "list BPF links"));
    }
    let groups: BTreeSet<_> = netns.sockets.iter().filter_map(|socket| socket.cgroup).collect();
    if let Err(gap) = read_groups(groups, &mut found) {
        netns.gaps.push(gap);
    }
    netns.bpf.append(&mut found);
}

/// Asks for the programs at one place. `false` where this kernel has no such place.
fn query(
    found: &mut Vec<BpfAttachment>,
    point: AttachPoint,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<bool> {
    let mut ids = [0; LISTED];
    let count = match sys::query_bpf(target, attach_type, flags, &mut ids) {
        Ok(count) => count,
        // tcx says so when nothing is there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => 0,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
        Err(error) => return Err(error),
    };
    let attachment = |id: &u32| BpfAttachment { point, program_id: Some(*id), name: None };
    found.extend(ids.iter().take(count).map(attachment));
    Ok(true)
}

fn read_links(links: &[Link], found: &mut Vec<BpfAttachment>) -> io::Result<()> {
    for link in links {
        let Ifindex(index) = link.ifindex;
        let (ingress, egress) =
            (AttachPoint::TcIngress(link.ifindex), AttachPoint::TcEgress(link.ifindex));
        let mut places = vec![(ingress, TCX_INGRESS), (egress, TCX_EGRESS)];
        if link.kind == LinkKind::Other("netkit".to_owned()) {
            // A program of the other end runs when that end sends.
            places.extend([(egress, NETKIT_PRIMARY), (ingress, NETKIT_PEER)]);
        }
        for (point, attach_type) in places {
            match query(found, point, index, attach_type, 0) {
                Ok(true) => {}
                // Kernels before 6.6: no link has any.
                Ok(false) if attach_type == TCX_INGRESS => return Ok(()),
                Ok(false) => {}
                // The link has gone since it was listed.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn read_sk_lookup(found: &mut Vec<BpfAttachment>) -> io::Result<()> {
    let netns = std::fs::File::open("/proc/thread-self/ns/net")?;
    let target = netns.as_raw_fd().cast_unsigned();
    query(found, AttachPoint::SkLookup, target, SK_LOOKUP, 0).map(drop)
}

/// The description of a netfilter link does not say which namespace it is in: one in another
/// namespace is counted here, which can make an answer unknown and never wrong.
fn read_netfilter(found: &mut Vec<BpfAttachment>) -> io::Result<()> {
    let mut id = 0;
    loop {
        id = match sys::next_bpf_id(BpfObject::Link, id) {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(()),
            // Kernels before 5.8 have no such links.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut info = [0; 64];
        // A link that went away meanwhile holds nothing any more.
        let Ok(link) = sys::open_bpf(BpfObject::Link, id) else { continue };
        sys::read_bpf_info(link.as_fd(), &mut info)?;
        if word(&info, LINK_TYPE) == NETFILTER_LINK {
            let hook = match word(&info, LINK_HOOK) {
                0 => NfHook::Prerouting,
                1 => NfHook::Input,
                2 => NfHook::Forward,
                3 => NfHook::Output,
                _ => NfHook::Postrouting,
            };
            found.push(BpfAttachment {
                point: AttachPoint::Netfilter(hook),
                program_id: Some(word(&info, LINK_PROGRAM)),
                name: None,
            });
        }
    }
}

fn word(info: &[u8], at: usize) -> u32 {
    let bytes = info.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().map_or(0, u32::from_ne_bytes)
}

/// Groups of the listed sockets, and the reader's own, where a client on this machine would be.
fn read_groups(ids: BTreeSet<CgroupId>, found: &mut Vec<BpfAttachment>) -> Result<(), Gap> {
    let failed = |error: io::Error| gap(GapSubject::CgroupBpf, &error, "query control groups");
    // Without a mount there is no group that a program could be attached to.
    let Some(tree) = CgroupTree::open() else { return Ok(()) };
    let groups = tree.find(&ids);
    for (id, group) in &groups {
        let target = group.directory().as_raw_fd().cast_unsigned();
        for (point, attach_type) in [
            (AttachPoint::CgroupIngress(*id), CGROUP_INGRESS),
            (AttachPoint::CgroupEgress(*id), CGROUP_EGRESS),
        ] {
            query(found, point, target, attach_type, EFFECTIVE).map_err(failed)?;
        }
    }
    if let Some((id, group)) = tree.own() {
        let target = group.directory().as_raw_fd().cast_unsigned();
        for attach_type in CGROUP_CONNECT {
            query(found, AttachPoint::CgroupConnect(id), target, attach_type, EFFECTIVE)
                .map_err(failed)?;
        }
    }
    // What is not in the mount cannot be asked. Without a program of this kind it need not be.
    if groups.len() == ids.len() || !is_any_loaded(CGROUP_PROGRAM).map_err(failed)? {
        return Ok(());
    }
    Err(Gap {
        subject: GapSubject::CgroupBpf,
        reason: GapReason::Vanished,
        detail: format!(
            "query control groups: {} of {} that sockets belong to are gone or not in this mount",
            ids.len() - groups.len(),
            ids.len()
        ),
    })
}

/// Whether any program of this type is loaded in the whole machine.
fn is_any_loaded(program_type: u32) -> io::Result<bool> {
    let mut id = 0;
    while let Some(next) = sys::next_bpf_id(BpfObject::Program, id)? {
        id = next;
        let mut info = [0; 4];
        let Ok(program) = sys::open_bpf(BpfObject::Program, id) else { continue };
        sys::read_bpf_info(program.as_fd(), &mut info)?;
        if u32::from_ne_bytes(info) == program_type {
            return Ok(true);
        }
    }
    Ok(false)
}

fn program_name(id: u32) -> Option<String> {
    let mut info = [0; PROGRAM_NAME.end];
    let program = sys::open_bpf(BpfObject::Program, id).ok()?;
    sys::read_bpf_info(program.as_fd(), &mut info).ok()?;
    let name = info.get(PROGRAM_NAME)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netlink::link;
    use crate::netlink::socket::NetlinkFamily;
    use crate::{netns, sys::attach};

    const LO: Ifindex = canreach_snapshot::link::LOOPBACK_IFINDEX;

    #[allow(clippy::print_stderr, reason = "a skipped test must say why")]
    fn skip(reason: &str) {
        eprintln!("skipped: {reason}");
    }

    /// Does something in a fresh namespace; says why where that is not permitted.
    fn in_fresh_namespace(work: impl FnOnce() + Send) {
        if sys::next_bpf_id(BpfObject::Program, 0).is_err() {
            return skip("bpf(2) is refused");
        }
        let script = ["--net", "sh", "-c", "echo ready; exec cat"];
        let mut holder = Command::new("unshare")
            .args(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare comes with every Linux");
        let mut line = String::new();
        let output = holder.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("a pipe can be read");
        if line == "ready\n" {
            let file = File::open(format!("/proc/{}/ns/net", holder.id())).expect("it lives");
            netns::inside(&file, "of this test", || {
                work();
                Ok(())
            })
            .expect("whoever makes a namespace may enter it");
        } else {
            skip("a network namespace cannot be made");
        }
        drop(holder.stdin.take());
        holder.wait().expect("it was started");
    }

    /// What is attached in the calling thread's namespace.
    fn attached() -> Vec<(AttachPoint, Option<String>)> {
        let mut rtnetlink = NetlinkSocket::open(NetlinkFamily::Route).expect("netlink is there");
        let (rows, _) = rtnetlink.dump("dump links", link::GET, &link::request(), link::decode);
        let mut netns = Netns::default();
        for row in rows {
            netns.bpf.extend(row.xdp);
            netns.links.push(row.link);
        }
        read(&mut netns, Some(&mut rtnetlink));
        assert_eq!(netns.gaps, []);
        netns.bpf.into_iter().map(|attachment| (attachment.point, attachment.name)).collect()
    }

    #[test]
    fn programs_on_links_and_in_the_lookup_are_seen_while_they_are_there() {
        // Program type, attach type, a value that lets pass, where it is then seen.
        let cases = [
            (6, 37, 2, AttachPoint::Xdp(LO)),
            (3, TCX_INGRESS, 0, AttachPoint::TcIngress(LO)),
            (3, TCX_EGRESS, 0, AttachPoint::TcEgress(LO)),
            (30, SK_LOOKUP, 1, AttachPoint::SkLookup),
            (32, 45, 1, AttachPoint::Netfilter(NfHook::Input)),
        ];
        in_fresh_namespace(|| {
            let netns = File::open("/proc/thread-self/ns/net").expect("it is there");
            for (program_type, attach_type, value, point) in cases {
                let (target, more) = match point {
                    AttachPoint::SkLookup => (netns.as_raw_fd().cast_unsigned(), [0; 4]),
                    // IPv4, input, priority, flags.
                    AttachPoint::Netfilter(_) => (0, [2, 1, 10, 0]),
                    _ => (LO.0, [0; 4]),
                };
                let program = attach::load(program_type, attach_type, value);
                let Ok(program) = program else {
                    skip(&format!("a program for {point:?} cannot be loaded"));
                    continue;
                };
                let link = attach::link(program.as_fd(), target, attach_type, more)
                    .unwrap_or_else(|error| panic!("{point:?}: {error}"));
                let name = Some("canreach_test".to_owned());
                assert_eq!(attached(), [(point, name)]);
                drop(link);
                // Whoever lists the links of the machine just now holds this one a moment longer.
                let deadline = Instant::now() + Duration::from_secs(10);
                while !attached().is_empty() {
                    assert!(Instant::now() < deadline, "{point:?} stays: {:?}", attached());
                }
            }
        });
    }

    #[test]
    fn filters_of_tc_are_seen_by_name() {
        in_fresh_namespace(|| {
            let tc = |arguments: &str| {
                let mut tc = Command::new("tc");
                tc.args(arguments.split(' ')).status().is_ok_and(|status| status.success())
            };
            if !tc("qdisc add dev lo clsact") {
                return skip("tc cannot make a clsact discipline");
            }
            assert_eq!(attached(), [], "a place without filters");
            assert!(tc("filter add dev lo ingress protocol ip u32 match u32 0 0 classid 1:1"));
            let ingress = AttachPoint::TcIngress(LO);
            let seen = attached();
            assert!(!seen.is_empty());
            assert!(
                seen.iter()
                    .all(|(point, name)| { *point == ingress && name.as_deref() == Some("u32") })
            );
        });
    }

    /// Control groups without processes, removed also when a test fails.
    struct EmptyGroups([String; 2]);

    impl Drop for EmptyGroups {
        fn drop(&mut self) {
            for path in &self.0 {
                // A failure here must not hide the one that led here.
                let _ = std::fs::remove_dir(path);
            }
        }
    }

    #[test]
    fn programs_of_a_group_count_for_the_groups_below() {
        if sys::next_bpf_id(BpfObject::Program, 0).is_err() {
            return skip("bpf(2) is refused");
        }
        let tree = CgroupTree::open();
        let Some((_, own)) = tree.as_ref().and_then(CgroupTree::own) else {
            return skip("cgroup2 is not mounted");
        };
        let path = |name: &str| format!("/proc/self/fd/{}/{name}", own.directory().as_raw_fd());
        let name = format!("cr-test-{}", std::process::id());
        let (upper, lower) = (path(&name), path(&format!("{name}/below")));
        if std::fs::create_dir_all(&lower).is_err() {
            return skip("a control group cannot be made");
        }
        let _removed_at_the_end = EmptyGroups([lower.clone(), upper.clone()]);
        let id = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&lower).expect("made"));
        let seen = || {
            let mut found = Vec::new();
            read_groups(BTreeSet::from([CgroupId(id)]), &mut found).expect("it can be asked");
            found.retain(|attachment| !matches!(attachment.point, AttachPoint::CgroupConnect(_)));
            found.into_iter().map(|attachment| attachment.point).collect::<Vec<_>>()
        };
        let before = seen();
        let program = attach::load(CGROUP_PROGRAM, CGROUP_INGRESS, 1).expect("it is valid");
        let group = File::open(&upper).expect("it was made");
        attach::to_group(program.as_fd(), group.as_fd(), CGROUP_INGRESS).expect("it fits");
        let after = seen();
        assert_eq!(before, []);
        assert_eq!(after, [AttachPoint::CgroupIngress(CgroupId(id))]);
    }
}
