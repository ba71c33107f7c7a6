//! Sysctls under /proc/sys/net: those of `all`, and those a namespace has once.
//!
//! /proc/sys/net shows the namespace of the reading thread. The values of single links come with
//! the links instead (`netlink::link`): seventeen files for each of 10,000 links take seconds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use canreach_snapshot::{Gap, GapReason, GapSubject, GlobalSysctl, LinkSysctl, Sysctls};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::os_reason;

/// Reads `all` and the global values into `sysctls`.
pub(crate) fn read(sysctls: &mut Sysctls, gaps: &mut Vec<Gap>) {
    let root = match open_directory(CWD, "/proc/sys/net") {
        Ok(root) => root,
        Err(error) => {
            let names = LinkSysctl::ALL.map(|sysctl| full_name(sysctl, "all"));
            let global = GlobalSysctl::ALL.map(|sysctl| sysctl.name().to_owned());
            gaps.extend(names.into_iter().chain(global).map(|name| gap(name, error)));
            return;
        }
    };
    for is_ipv6 in [false, true] {
        read_all(root.as_fd(), is_ipv6, sysctls, gaps);
    }
    for sysctl in GlobalSysctl::ALL {
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

fn read_all(root: BorrowedFd<'_>, is_ipv6: bool, sysctls: &mut Sysctls, gaps: &mut Vec<Gap>) {
    let wanted = LinkSysctl::ALL.into_iter().filter(|sysctl| sysctl.is_ipv6() == is_ipv6);
    let path = if is_ipv6 { "ipv6/conf/all" } else { "ipv4/conf/all" };
    let directory = match open_directory(root, path) {
        Ok(directory) => directory,
        // A kernel without IPv6.
        Err(Errno::NOENT) if is_ipv6 => return,
        Err(error) => {
            gaps.extend(wanted.map(|sysctl| gap(full_name(sysctl, "all"), error)));
            return;
        }
    };
    for sysctl in wanted {
        match read_number(directory.as_fd(), sysctl.name()) {
            Ok(value) => {
                sysctls.all.insert(sysctl, value);
            }
            // Older kernels lack some, and some have no value for `all`.
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
