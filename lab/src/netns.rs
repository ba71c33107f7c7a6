//! Network namespaces of the lab's own: made, entered, gone.
//!
//! A namespace has no name in any file system: it lives as long as a descriptor or a socket refers
//! to it, so nothing is left behind when the lab fails or is killed. All traffic stays inside.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives until this value is dropped.
#[derive(Debug)]
pub struct NetnsGuard {
    name: String,
    file: OwnedFd,
}

impl NetnsGuard {
    /// Makes a namespace. The name is for people only.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn create(name: &str) -> Result<Self> {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare a network namespace")?;
                own_file()
            });
            thread.join().map_err(|_| anyhow!("the thread that makes a namespace panicked"))?
        });
        let file = made.with_context(|| format!("make the namespace of {name}"))?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// What it is called in messages and drawings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file, for netlink requests that move a link into it.
    #[must_use]
    pub fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs something inside, on a thread of its own: the caller stays where it is.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or what ran inside failed or panicked.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).context("enter it")?;
                inside()
            });
            thread.join().map_err(|panic| anyhow!("panicked: {}", panic_text(&*panic)))?
        })
        .with_context(|| format!("in the namespace of {}", self.name))
    }
}

fn own_file() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    Ok(std::fs::File::open(path).with_context(|| format!("open {path}"))?.into())
}

/// What a panic said, where it said it in words.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// Whether a user id means something in the user namespace of this process.
#[must_use]
pub fn has_user(uid: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u64> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&u64::from(uid)))
    })
}

/// How this process may make namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// It already could.
    Root,
    /// It is root of a user namespace that it made for this.
    UserNamespace,
}

impl Privilege {
    /// Finds out, and moves this process into a user namespace of its own where that is needed.
    ///
    /// Call it first thing in `main`: a process with several threads may not change its user
    /// namespace.
    ///
    /// # Errors
    /// If neither way is permitted; the text says why the last one was not.
    pub fn acquire() -> Result<Self> {
        if NetnsGuard::create("the first try").is_ok() {
            return Ok(Self::Root);
        }
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        unshare(CloneFlags::CLONE_NEWUSER)
            .context("neither root nor permitted to make a user namespace")?;
        // One user and one group are mapped, which needs no setuid program; the kernel wants
        // setgroups(2) given up before an ordinary user may map a group.
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {} 1", uid.as_raw())),
            ("gid_map", format!("0 {} 1", gid.as_raw())),
        ] {
            let path = format!("/proc/self/{file}");
            std::fs::write(&path, text).with_context(|| format!("write {path}"))?;
        }
        NetnsGuard::create("the first try")?;
        Ok(Self::UserNamespace)
    }
}
