//! Sysctls under /proc/sys/net: those of `all`, and those a namespace has once.
//!
//! /proc/sys/net shows the namespace of the reading thread. The values of single links come with
//! the links instead (`netlink::link`): seventeen files for each of 10,000 links take seconds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use canreach_snapshot::{
    Gap, GapReason, GapSubject, GlobalSysctl, LinkKind, LinkSysctl, Netns, Sysctls,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::os_reason;

/// Reads what is not known yet of `all`, and the global values.
pub(crate) fn read(netns: &mut Netns) {
    let Netns { sysctls, gaps, links, .. } = netns;
    let has = |kind: LinkKind| links.iter().any(|link| link.kind == kind);
    let matters = Matters { vrf: has(LinkKind::Vrf), bridge: has(LinkKind::Bridge) };
    let global = || GlobalSysctl::ALL.into_iter().filter(|sysctl| matters.asks(*sysctl));
    let root = match open_directory(CWD, "/proc/sys/net") {
        Ok(root) => root,
        Err(error) => {
            let missing = wanted(sysctls);
            let names = missing.into_iter().map(|sysctl| full_name(sysctl, "all"));
            let names = names.chain(global().map(|sysctl| sysctl.name().to_owned()));
            gaps.extend(names.map(|name| gap(name, error)));
            return;
        }
    };
    read_all(root.as_fd(), sysctls, gaps);
    for sysctl in global() {
        let path = sysctl.name().trim_start_matches("net.").replace('.', "/");
        match read_number(root.as_fd(), &path) {
            Ok(value) => {
                sysctls.global.insert(sysctl, value);
            }
            // A sysctl that is not there belongs to a feature that is not there.
            Err(Errno::NOENT) => {}
            Err(error) => gaps.push(gap(sysctl.name().to_owned(), error)),
        }
    }
}

/// What decides whether a sysctl has anything to act on.
#[derive(Debug, Clone, Copy)]
struct Matters {
    vrf: bool,
    bridge: bool,
}

impl Matters {
    const fn asks(self, sysctl: GlobalSysctl) -> bool {
        match sysctl {
            GlobalSysctl::TcpL3mdevAccept | GlobalSysctl::UdpL3mdevAccept => self.vrf,
            GlobalSysctl::BridgeNfCallIptables | GlobalSysctl::BridgeNfCallIp6tables => self.bridge,
            GlobalSysctl::TcpFwmarkAccept
            | GlobalSysctl::FwmarkReflect
            | GlobalSysctl::TcpSyncookies
            | GlobalSysctl::IcmpEchoIgnoreAll
            | GlobalSysctl::V6FwmarkReflect => true,
        }
    }
}

/// What of `all` is not known.
fn wanted(sysctls: &Sysctls) -> Vec<LinkSysctl> {
    let unknown = |sysctl: &LinkSysctl| sysctl.asks_all() && !sysctls.all.contains_key(sysctl);
    LinkSysctl::ALL.into_iter().filter(unknown).collect()
}

fn read_all(root: BorrowedFd<'_>, sysctls: &mut Sysctls, gaps: &mut Vec<Gap>) {
    for sysctl in wanted(sysctls) {
        let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
        match read_number(root, &format!("{family}/conf/all/{}", sysctl.name())) {
            Ok(value) => {
                sysctls.all.insert(sysctl, value);
            }
            // Older kernels lack some, some have no IPv6.
            Err(Errno::NOENT) => {}
            Err(error) => gaps.push(gap(full_name(sysctl, "all"), error)),
        }
    }
}

/// The full name of a link's sysctl: `net.ipv4.conf.eth0.rp_filter`.
pub(crate) fn full_name(sysctl: LinkSysctl, link: &str) -> String {
    let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
    format!("net.{family}.conf.{link}.{}", sysctl.name())
}

fn gap(name: String, error: Errno) -> Gap {
    let error = io::Error::from(error);
    let reason = match os_reason(&error) {
        // The file system is missing, not the sysctl.
        GapReason::Unsupported => GapReason::Failed,
        reason => reason,
    };
    let detail = format!("read {name} under /proc/sys: {error}");
    Gap { subject: GapSubject::Sysctl(name), reason, detail }
}

fn open_directory(parent: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, path, flags, Mode::empty())
}

fn read_number(directory: BorrowedFd<'_>, name: &str) -> Result<i64, Errno> {
    let file =
        rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0; 32];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer))?;
    let text = buffer.get(..length).and_then(|bytes| str::from_utf8(bytes).ok());
    text.and_then(|text| text.trim().parse().ok()).ok_or(Errno::INVAL)
}
