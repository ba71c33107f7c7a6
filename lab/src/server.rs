//! The lab's own small servers, on the host under test.
//!
//! ```text
//! tcp 0.0.0.0:80 dev a0 reuseport reuseaddr backlog 1 uid 1000 mark 7
//! tcp [::]:80 v6only | dual
//! tcp 10.60.0.1:80 freebind | transparent
//! tcp 0.0.0.0:80 backlog 0 full      its accept queue is full
//! tcp 0.0.0.0:80 mptcp
//! udp 10.1.0.1:53 connect 10.1.0.2:7000
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use canreach_snapshot::Proto;
use nix::sys::socket::{setsockopt, sockopt as option};
use nix::unistd::{Uid, setfsuid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::netns::has_user;
use crate::settle::{SETTLE, wait_for_local_routes};
use crate::topology::Unsupported;
use crate::words::Words;

/// A server that is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStep {
    /// TCP or UDP.
    pub proto: Proto,
    /// Where it is bound. An IPv4-mapped address makes an AF_INET6 socket.
    pub bind: SocketAddr,
    /// SO_BINDTODEVICE.
    pub device: Option<String>,
    /// IPV6_V6ONLY; `None` leaves what the namespace has as default.
    pub v6only: Option<bool>,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// IP_FREEBIND.
    pub freebind: bool,
    /// IP_TRANSPARENT.
    pub transparent: bool,
    /// SO_MARK.
    pub mark: Option<u32>,
    /// The user it belongs to.
    pub uid: Option<u32>,
    /// TCP: the accept queue's limit.
    pub backlog: Option<i32>,
    /// TCP: the accept queue is filled, and nobody accepts.
    pub full: bool,
    /// UDP: the one peer it is connected to.
    pub connect: Option<SocketAddr>,
    /// TCP: speaks Multipath TCP as well.
    pub mptcp: bool,
}

impl ServerStep {
    /// A server without anything special.
    #[must_use]
    pub const fn plain(proto: Proto, bind: SocketAddr) -> Self {
        Self {
            proto,
            bind,
            device: None,
            v6only: None,
            reuse_port: false,
            reuse_address: false,
            freebind: false,
            transparent: false,
            mark: None,
            uid: None,
            backlog: None,
            full: false,
            connect: None,
            mptcp: false,
        }
    }

    /// Reads a whole line.
    ///
    /// # Errors
    /// If it is no server.
    pub fn read(words: &mut Words<'_>) -> Result<Self> {
        let proto = read_proto(words)?;
        let mut step = Self::plain(proto, words.value("an address and a port")?);
        while let Some(word) = words.next_word() {
            match word {
                "dev" => step.device = Some(words.word("a link")?.to_owned()),
                "v6only" => step.v6only = Some(true),
                "dual" => step.v6only = Some(false),
                "reuseport" => step.reuse_port = true,
                "reuseaddr" => step.reuse_address = true,
                "freebind" => step.freebind = true,
                "transparent" => step.transparent = true,
                "mark" => step.mark = Some(words.value("a mark")?),
                "uid" => step.uid = Some(words.value("a user id")?),
                "backlog" => step.backlog = Some(words.value("a length")?),
                "full" => step.full = true,
                "mptcp" => step.mptcp = true,
                "connect" => step.connect = Some(words.value("an address and a port")?),
                other => bail!("`{}`: a server has no `{other}`", words.line()),
            }
        }
        Ok(step)
    }
}

/// Reads `tcp` or `udp`.
///
/// # Errors
/// If it is neither.
pub fn read_proto(words: &mut Words<'_>) -> Result<Proto> {
    match words.word("a protocol")? {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        other => bail!("`{}`: `{other}` is neither tcp nor udp", words.line()),
    }
}

impl fmt::Display for ServerStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.proto.name(), self.bind)?;
        if let Some(device) = &self.device {
            write!(formatter, " dev {device}")?;
        }
        for (on, word) in [
            (self.v6only == Some(true), "v6only"),
            (self.v6only == Some(false), "dual"),
            (self.reuse_port, "reuseport"),
            (self.reuse_address, "reuseaddr"),
            (self.freebind, "freebind"),
            (self.transparent, "transparent"),
            (self.mptcp, "mptcp"),
        ] {
            if on {
                write!(formatter, " {word}")?;
            }
        }
        for (value, word) in [(self.mark, "mark"), (self.uid, "uid")] {
            if let Some(value) = value {
                write!(formatter, " {word} {value}")?;
            }
        }
        if let Some(backlog) = self.backlog {
            write!(formatter, " backlog {backlog}")?;
        }
        if self.full {
            formatter.write_str(" full")?;
        }
        if let Some(peer) = self.connect {
            write!(formatter, " connect {peer}")?;
        }
        Ok(())
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    /// What it was asked to be.
    pub step: ServerStep,
    /// Its socket, non-blocking.
    pub socket: OwnedFd,
    /// The number by which a snapshot knows it.
    pub inode: u64,
    /// Connections that fill its accept queue.
    filler: Vec<OwnedFd>,
}

impl Server {
    /// Opens it, in the namespace of the calling thread. `index` finds the index of a link.
    ///
    /// # Errors
    /// With the call that failed.
    pub fn open(step: &ServerStep, index: &dyn Fn(&str) -> Result<u32>) -> Result<Self> {
        let socket = open_as(step.uid, || {
            if step.mptcp { new_mptcp_socket(step) } else { new_socket(step.proto, step.bind.ip()) }
        })?;
        set_options(step, &socket)?;
        let mut bind = step.bind;
        if let (SocketAddr::V6(address), Some(device)) = (&mut bind, &step.device)
            && address.ip().is_unicast_link_local()
        {
            address.set_scope_id(index(device)?);
        }
        rustix::net::bind(&socket, &bind).context("bind")?;
        let mut server = Self {
            step: step.clone(),
            inode: rustix::fs::fstat(&socket).context("fstat")?.st_ino,
            socket,
            filler: Vec::new(),
        };
        match step.proto {
            Proto::Tcp => {
                rustix::net::listen(&server.socket, step.backlog.unwrap_or(64))
                    .context("listen")?;
                if step.full {
                    server.fill()?;
                }
            }
            Proto::Udp => {
                if let Some(peer) = step.connect {
                    rustix::net::connect(&server.socket, &peer).context("connect")?;
                }
            }
        }
        Ok(server)
    }

    /// Connects to it from the host itself until its accept queue is full.
    fn fill(&mut self) -> Result<()> {
        let mut address = self.step.bind;
        if address.ip().is_unspecified() {
            let loopback = match address {
                SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                SocketAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            };
            address.set_ip(loopback);
        }
        // A queue of length N takes N + 1 connections (include/net/sock.h, sk_acceptq_is_full).
        for _ in 0..=self.step.backlog.unwrap_or(64) {
            let client = connect_from_here(address).context("fill the accept queue")?;
            self.filler.push(client);
        }
        Ok(())
    }

    /// Whether the lab's own loop accepts on it.
    #[must_use]
    pub const fn accepts(&self) -> bool {
        !self.step.full
    }
}

/// A blocking client of the host's own.
fn connect_from_here(address: SocketAddr) -> Result<OwnedFd> {
    wait_for_local_routes([address.ip()], SETTLE)?;
    let kind = SocketType::STREAM;
    let client =
        rustix::net::socket_with(family_of(address.ip()), kind, SocketFlags::CLOEXEC, None)
            .context("open a client")?;
    rustix::net::connect(&client, &address).context("connect")?;
    Ok(client)
}

/// AF_INET or AF_INET6.
#[must_use]
pub const fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    }
}

/// A non-blocking socket of the calling thread's namespace.
///
/// # Errors
/// If the kernel refuses.
pub fn new_socket(proto: Proto, address: IpAddr) -> Result<OwnedFd> {
    let kind = match proto {
        Proto::Tcp => SocketType::STREAM,
        Proto::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family_of(address), kind, flags, None).context("open a socket")
}

fn new_mptcp_socket(step: &ServerStep) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(ipproto::MPTCP);
    let family = family_of(step.bind.ip());
    match rustix::net::socket_with(family, SocketType::STREAM, flags, protocol) {
        Ok(socket) => Ok(socket),
        Err(Errno::PROTONOSUPPORT | Errno::NOPROTOOPT | Errno::INVAL) => {
            bail!(Unsupported("Multipath TCP".to_owned()))
        }
        Err(error) => Err(error).context("open a Multipath TCP socket"),
    }
}

fn set_options(step: &ServerStep, socket: &OwnedFd) -> Result<()> {
    let ipv6 = step.bind.is_ipv6();
    if let Some(device) = &step.device {
        setsockopt(socket, option::BindToDevice, &device.into()).context("SO_BINDTODEVICE")?;
    }
    if let Some(v6only) = step.v6only.filter(|_| ipv6) {
        sockopt::set_ipv6_v6only(socket, v6only).context("IPV6_V6ONLY")?;
    }
    if step.reuse_port {
        sockopt::set_socket_reuseport(socket, true).context("SO_REUSEPORT")?;
    }
    if step.reuse_address {
        sockopt::set_socket_reuseaddr(socket, true).context("SO_REUSEADDR")?;
    }
    if step.freebind {
        if ipv6 {
            sockopt::set_ipv6_freebind(socket, true).context("IPV6_FREEBIND")?;
        } else {
            sockopt::set_ip_freebind(socket, true).context("IP_FREEBIND")?;
        }
    }
    if step.transparent {
        // Both families share one flag of the socket (inet_sk(sk)->transparent).
        setsockopt(socket, option::IpTransparent, &true).context("IP_TRANSPARENT")?;
    }
    if let Some(mark) = step.mark {
        setsockopt(socket, option::Mark, &mark).context("SO_MARK")?;
    }
    Ok(())
}

/// Opens something as a user: rules go by who opened a socket (struct file, f_cred), policy rules by
/// whom it belongs to (struct sock, sk_uid), and both are that user's then. Only files mind: the
/// thread keeps its capabilities over the network.
///
/// # Errors
/// [`Unsupported`] if there is no such user in this user namespace.
pub fn open_as<T>(uid: Option<u32>, open: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(uid) = uid.filter(|uid| *uid != 0) else { return open() };
    if !has_user(uid) {
        bail!(Unsupported(format!("user {uid}")));
    }
    setfsuid(Uid::from_raw(uid));
    let opened = open();
    setfsuid(Uid::from_raw(0));
    opened
}
