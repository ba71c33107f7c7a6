//! One process of a setting: joins its cgroup, opens its descriptors, says so, and waits.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit};

use crate::bench::setting::Work;

/// The hidden chore: `CGROUP|- OTHER-DESCRIPTORS WORK...`.
pub(crate) const MEMBER: &str = "bench-member";
/// What it prints when its sockets listen.
pub(crate) const LISTENING: &str = "listening";
/// What it prints when all its descriptors are open.
pub(crate) const READY: &str = "ready";

/// Runs until its input ends.
pub(crate) fn run_member(arguments: &[&str]) -> Result<()> {
    let [cgroup, other, work @ ..] = arguments else { bail!("usage: CGROUP OTHER WORK...") };
    let other: usize = other.parse().context("the number of other descriptors")?;
    let work = Work::from_arguments(work).context("the work to do")?;
    raise_descriptor_limit()?;
    // A socket keeps the cgroup it was created in, so this comes first.
    if *cgroup != "-" {
        let procs = Path::new(cgroup).join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("join {}", procs.display()))?;
    }
    let mut held = other_descriptors(other)?;
    match work {
        Work::Idle => say(LISTENING)?,
        Work::Listen { address, first, count, accept } => {
            for port in first..first + count {
                held.push(listen(SocketAddr::new(address, port))?);
            }
            say(LISTENING)?;
            let first = held.len() - usize::from(count);
            for _ in 0..accept {
                let connection = rustix::net::accept(&held[first]).context("accept")?;
                held.push(connection);
            }
        }
        Work::Connect { to, count } => {
            say(LISTENING)?;
            for _ in 0..count {
                held.push(connect(to)?);
            }
        }
    }
    say(READY)?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).context("wait for the end")?;
    drop(held);
    Ok(())
}

fn say(word: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{word}").and_then(|()| stdout.flush()).context("say that it is done")
}

/// Lets this process have as many descriptors as it may.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).context("raise RLIMIT_NOFILE")
}

/// What ordinary programs have open: Unix sockets, eventfds and files, in turn.
fn other_descriptors(count: usize) -> Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    for number in 0..count {
        held.push(match number % 3 {
            0 => UnixDatagram::unbound().context("open a Unix socket")?.into(),
            1 => eventfd(0, EventfdFlags::CLOEXEC).context("open an eventfd")?,
            _ => File::open("/dev/null").context("open /dev/null")?.into(),
        });
    }
    Ok(held)
}

fn tcp_socket(address: SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket(family, SocketType::STREAM, None).context("open a TCP socket")
}

fn listen(address: SocketAddr) -> Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).context("set SO_REUSEADDR")?;
    rustix::net::bind(&socket, &address).with_context(|| format!("bind {address}"))?;
    rustix::net::listen(&socket, 4096).with_context(|| format!("listen on {address}"))?;
    Ok(socket)
}

fn connect(to: SocketAddr) -> Result<OwnedFd> {
    let socket = tcp_socket(to)?;
    // Closing resets: no TIME_WAIT sockets are left to be listed.
    let at_once = Some(std::time::Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&socket, at_once).context("set SO_LINGER")?;
    rustix::net::connect(&socket, &to).with_context(|| format!("connect to {to}"))?;
    Ok(socket)
}
