//! Why the kernel itself says it dropped a packet: the tracepoint `skb:kfree_skb`.
//!
//! Its events are those of the whole machine, so each thread that asks has a trace instance of its own
//! that takes note of nothing but what that thread and its children set off: on the way through a veth
//! pair or `lo`, a packet is received by whoever sent it. tracefs needs not be mounted anywhere; it
//! does need root of the first user namespace.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use canreach_engine::DropReason;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

const PREFIX: &str = "canreach-lab-";

/// A trace instance of the calling thread's own. Gone when dropped.
#[derive(Debug)]
pub struct Tracer {
    root: OwnedFd,
    name: String,
    folder: OwnedFd,
    /// The names this kernel knows, as they stand in the format of the event.
    format: String,
}

impl Tracer {
    /// Opens one.
    ///
    /// # Errors
    /// If the kernel has no tracefs, or does not let this process have it.
    pub fn open() -> Result<Self> {
        let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC).context("open tracefs")?;
        fsconfig_create(context.as_fd()).context("open tracefs")?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let root =
            fsmount(context.as_fd(), flags, MountAttrFlags::empty()).context("open tracefs")?;
        remove_abandoned(&root);
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let name = format!("{PREFIX}{}-{thread}", std::process::id());
        let path = format!("instances/{name}");
        mkdirat(&root, &path, Mode::from_raw_mode(0o700)).context("make a trace instance")?;
        let folder = openat(&root, &path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let folder = folder.context("open a trace instance")?;
        let mut tracer = Self { root, name, folder, format: String::new() };
        tracer.write("options/event-fork", "1")?;
        tracer.write("set_event_pid", &thread.to_string())?;
        tracer.write("events/skb/kfree_skb/enable", "1")?;
        tracer.format = tracer.read("events/skb/kfree_skb/format")?;
        Ok(tracer)
    }

    fn open_file(&self, path: &str, flags: OFlags) -> Result<File> {
        let file = openat(&self.folder, path, flags | OFlags::CLOEXEC, Mode::empty());
        Ok(file.with_context(|| format!("open {path} of a trace instance"))?.into())
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut file = self.open_file(path, OFlags::WRONLY | OFlags::TRUNC)?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {path} of a trace instance"))
    }

    fn read(&self, path: &str) -> Result<String> {
        let mut text = String::new();
        let mut file = self.open_file(path, OFlags::RDONLY)?;
        file.read_to_string(&mut text).with_context(|| format!("read {path}"))?;
        Ok(text)
    }

    /// The reasons of what was dropped while something was done.
    ///
    /// # Errors
    /// If the trace cannot be read, or what was done failed.
    pub fn watch<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<(T, BTreeSet<String>)> {
        self.write("trace", "")?;
        let done = act()?;
        let trace = self.read("trace")?;
        Ok((done, trace.lines().filter_map(reason_of).map(str::to_owned).collect()))
    }

    /// Whether this kernel has a reason of each of these names.
    #[must_use]
    pub fn knows(&self, reasons: &[&str]) -> bool {
        reasons.iter().all(|reason| self.format.contains(&format!("\"{reason}\"")))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // If it cannot be removed, the next lab does it.
        let _ = self.write("events/skb/kfree_skb/enable", "0");
        let _ = unlinkat(&self.root, format!("instances/{}", self.name), AtFlags::REMOVEDIR);
    }
}

/// Removes what labs left behind that were killed.
fn remove_abandoned(root: &OwnedFd) {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = openat(root, "instances", flags, Mode::empty()) else { return };
    let Ok(entries) = rustix::fs::Dir::read_from(&folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !std::path::Path::new("/proc").join(process).exists()) {
            let _ = unlinkat(&folder, name, AtFlags::REMOVEDIR);
        }
    }
}

/// The reason in a line of a trace, if the packet was one of IP or ARP.
fn reason_of(line: &str) -> Option<&str> {
    let (_, event) = line.split_once("kfree_skb: ")?;
    let (_, protocol) = event.split_once("protocol=")?;
    // IPv4, IPv6, ARP.
    let ip = ["2048 ", "34525 ", "2054 "].iter().any(|number| protocol.starts_with(number));
    let (_, reason) = event.split_once("reason: ")?;
    ip.then_some(reason.trim())
}

thread_local! {
    static OWN: RefCell<Option<Result<Tracer, String>>> = const { RefCell::new(None) };
}

/// Does something with the tracer of the calling thread.
///
/// # Errors
/// If what is done fails. The inner error says why there is no tracer here.
pub fn with_tracer<T>(act: impl FnOnce(&Tracer) -> Result<T>) -> Result<Result<T, String>> {
    OWN.with_borrow_mut(|own| {
        let own = own.get_or_insert_with(|| Tracer::open().map_err(|error| format!("{error:#}")));
        match own {
            Ok(tracer) => act(tracer).map(Ok),
            Err(error) => Ok(Err(error.clone())),
        }
    })
}

/// What the kernel calls a reason; several where it makes distinctions that we do not, none where it
/// is silent about it (docs/verdicts.md has the same).
#[must_use]
pub const fn kernel_names(reason: DropReason) -> &'static [&'static str] {
    match reason {
        DropReason::Ipv6Disabled => &["IPV6DISABLED"],
        DropReason::Martian => &["IP_INVALID_SOURCE", "IP_INVALID_DEST", "IP_LOCALNET", "IP_INHDR"],
        DropReason::OwnSource => &["IP_LOCAL_SOURCE"],
        DropReason::RpFilter => &["IP_RPFILTER"],
        DropReason::NotLocal => &["IP_INADDRERRORS"],
        DropReason::NotListening
        | DropReason::BindLoopback
        | DropReason::BindAddress
        | DropReason::BindDevice
        | DropReason::V6Only
        | DropReason::ConnectedElsewhere
        | DropReason::VrfUnbound => &["NO_SOCKET"],
        DropReason::FwDrop | DropReason::FwReject | DropReason::NatFailed => &["NETFILTER_DROP"],
        DropReason::NoRoute
        | DropReason::LinkDown
        | DropReason::NeighborSilent
        | DropReason::Tentative
        | DropReason::RouteUnreachable
        | DropReason::RouteProhibit
        | DropReason::RouteBlackhole
        | DropReason::Forwarded
        | DropReason::BroadcastDestination
        | DropReason::AnycastDestination
        | DropReason::MulticastDestination
        | DropReason::BacklogFull
        | DropReason::NoReplyRoute
        | DropReason::ReplySourceNotLocal
        | DropReason::VpnReply => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_from_a_trace() {
        let line = "lab-7 [000] b.s2. 5.1: kfree_skb: skbaddr=0 rx_sk=0 protocol=2048 \
                    location=nft_do_chain+0x4f/0x5c reason: NETFILTER_DROP";
        assert_eq!(reason_of(line), Some("NETFILTER_DROP"));
        assert_eq!(reason_of(&line.replace("2048", "8")), None);
        assert_eq!(reason_of("# tracer: nop"), None);
    }
}
