//! Really connects and really sends, and says what the client saw and which server got it.
//!
//! Clients of one round run at once, in one loop over all their sockets and all servers' sockets: a
//! socket stays in the namespace it was opened in, whichever thread polls it. A second round is
//! needed only where the same address is asked for by neighbours with different addresses, because
//! a neighbour entry that one of them made would serve the others as well.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use canreach_engine::TheySee;
use canreach_snapshot::{Family, Proto};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt as option};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};

use crate::frame::Ends;
use crate::peer::WIRE_INDEX;
use crate::probe::{Client, Observation, Probe};
use crate::raw::{Order, Wire};
use crate::server::{Server, new_socket, open_as};
use crate::step::Step;
use crate::topology::Topology;

/// How long a client waits before it is taken to have got no answer. Everything happens on this
/// machine, within a millisecond; what looks wrong after this is asked again with [`PATIENT`].
pub const QUICK: Duration = Duration::from_millis(60);
/// How long a client waits when its first result was a surprise.
pub const PATIENT: Duration = Duration::from_millis(1500);

/// The first source port the lab hands out: outside the ports that servers of the lab use, and
/// outside those the kernel chooses by itself.
const FIRST_SOURCE_PORT: u16 = 20_000;

/// One client on its way.
struct Attempt<'a> {
    probe: &'a Probe,
    number: usize,
    source_port: u16,
    socket: Option<OwnedFd>,
    they_see: Option<TheySee>,
    served_by: BTreeSet<usize>,
}

/// Source ports that no client of this host had before, so that no connection meets the remains of
/// an earlier one.
#[derive(Debug)]
pub struct SourcePorts {
    next: u16,
}

impl Default for SourcePorts {
    fn default() -> Self {
        Self { next: FIRST_SOURCE_PORT }
    }
}

impl SourcePorts {
    fn take(&mut self) -> u16 {
        self.next += 1;
        self.next
    }
}

/// Asks all probes, and returns what became of each, in order.
///
/// # Errors
/// If a client cannot be started at all.
pub fn run(
    topology: &Topology,
    probes: &[&Probe],
    ports: &mut SourcePorts,
    patience: Duration,
) -> Result<Vec<Observation>> {
    let mut observations = vec![None; probes.len()];
    for (round, members) in rounds(topology, probes).into_iter().enumerate() {
        if round > 0 {
            forget_neighbors(topology, probes)?;
        }
        let asked: Vec<_> = members.iter().map(|number| (*number, probes[*number])).collect();
        for (number, observation) in run_round(topology, &asked, ports, patience)? {
            observations[number] = Some(observation);
        }
    }
    let all: Option<Vec<_>> = observations.into_iter().collect();
    all.context("a probe was left out")
}

/// Divides probes so that within one part each peer resolves each address for one asker only.
fn rounds(topology: &Topology, probes: &[&Probe]) -> Vec<Vec<usize>> {
    let mut askers: BTreeMap<(&str, IpAddr), Vec<IpAddr>> = BTreeMap::new();
    let mut rounds: Vec<Vec<usize>> = vec![Vec::new()];
    // IPv6: the host answers whoever asks, and learns their address from the question. Where it
    // does not hear the answers to its own questions, each has to ask.
    let filtered = topology.done.iter().any(|step| matches!(step, Step::Filter(_)));
    for (number, probe) in probes.iter().enumerate() {
        let mut round = 0;
        if let Client::Peer { source, via, raw: false, .. } = &probe.client
            && let Some(asker) = topology.wiring.resolver(via, *source, probe.to.ip())
            && (probe.family() == Family::Ipv4 || filtered)
        {
            let seen = askers.entry((via, probe.to.ip())).or_default();
            round = seen.iter().position(|known| *known == asker).unwrap_or(seen.len());
            if round == seen.len() {
                seen.push(asker);
            }
        }
        if rounds.len() <= round {
            rounds.resize(round + 1, Vec::new());
        }
        rounds[round].push(number);
    }
    rounds
}

/// Makes every peer forget what it knows of the addresses dialled.
///
/// # Errors
/// If a peer cannot be entered.
pub fn forget_neighbors(topology: &Topology, probes: &[&Probe]) -> Result<()> {
    let dialled: BTreeSet<IpAddr> = probes.iter().map(|probe| probe.to.ip()).collect();
    topology.peers.iter().try_for_each(|peer| peer.forget(&dialled))
}

fn run_round(
    topology: &Topology,
    probes: &[(usize, &Probe)],
    ports: &mut SourcePorts,
    patience: Duration,
) -> Result<Vec<(usize, Observation)>> {
    let mut attempts: Vec<Attempt<'_>> = probes
        .iter()
        .map(|(number, probe)| Attempt {
            probe,
            number: *number,
            source_port: probe.source_port.unwrap_or_else(|| ports.take()),
            socket: None,
            they_see: None,
            served_by: BTreeSet::new(),
        })
        .collect();
    start(topology, &mut attempts)?;
    let wires = start_raw(topology, &attempts)?;
    let deadline = Instant::now() + patience;
    loop {
        for attempt in &mut attempts {
            attempt.look()?;
        }
        for (number, they_see) in listen(&wires)? {
            let known = attempts.iter_mut().find(|attempt| attempt.number == number);
            if let Some(attempt) = known {
                attempt.they_see.get_or_insert(they_see);
            }
        }
        serve(&topology.servers, &mut attempts)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || attempts.iter().all(Attempt::is_settled) {
            break;
        }
        wait(&topology.servers, &attempts, &wires, left)?;
    }
    Ok(attempts.into_iter().map(Attempt::finish).collect())
}

/// Puts the frames on the wires that no client's kernel would send.
fn start_raw(topology: &Topology, attempts: &[Attempt<'_>]) -> Result<Vec<Wire>> {
    let mut wires: BTreeMap<&str, Wire> = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.is_raw()) {
        let Client::Peer { source, via, .. } = &attempt.probe.client else { continue };
        let Some(port) = place(topology, attempt.probe)? else { continue };
        let peer = topology.peer_on(port).with_context(|| format!("nobody is behind {port}"))?;
        let wire = match wires.entry(&peer.port) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Wire::open(peer)?),
        };
        let to = attempt.probe.to;
        let for_all = to.is_ipv4() && topology.wiring.is_shared(to.ip());
        wire.send(&Order {
            number: attempt.number,
            proto: attempt.probe.proto,
            ends: Ends {
                source: (*source, attempt.source_port),
                destination: (to.ip(), to.port()),
            },
            to: if for_all { [0xff; 6] } else { topology.mac(via)? },
            on_link: topology.wiring.on_link_prefix(via, *source).is_some(),
        })?;
    }
    Ok(wires.into_values().collect())
}

/// The port of the host behind which a probe's client is; `None` for a client of the host's own.
fn place<'a>(topology: &'a Topology, probe: &'a Probe) -> Result<Option<&'a str>> {
    match &probe.client {
        Client::Own { .. } => Ok(None),
        Client::Peer { port: Some(port), via, .. } => {
            if !topology.wiring.ports(via).contains(&port.as_str()) {
                bail!("`{probe}`: what comes in by {port} does not come in by {via}");
            }
            Ok(Some(port))
        }
        Client::Peer { via, .. } => {
            let first = topology.wiring.ports(via).first().copied();
            first.map(Some).with_context(|| format!("`{probe}`: nobody is behind {via}"))
        }
    }
}

fn listen(wires: &[Wire]) -> Result<Vec<(usize, TheySee)>> {
    let mut heard = Vec::new();
    for wire in wires {
        heard.extend(wire.listen()?);
    }
    Ok(heard)
}

/// Opens all clients, those of one namespace together.
fn start(topology: &Topology, attempts: &mut [Attempt<'_>]) -> Result<()> {
    let mut by_port: BTreeMap<Option<String>, Vec<&mut Attempt<'_>>> = BTreeMap::new();
    for attempt in attempts.iter_mut().filter(|attempt| !attempt.is_raw()) {
        let port = place(topology, attempt.probe)?.map(str::to_owned);
        by_port.entry(port).or_default().push(attempt);
    }
    for (port, attempts) in by_port {
        let netns = match &port {
            None => &topology.host,
            Some(port) => {
                let peer = topology.peer_on(port);
                &peer.with_context(|| format!("nobody is behind {port}"))?.netns
            }
        };
        let own = port.is_none();
        netns.enter(|| {
            for attempt in attempts {
                attempt.start(own).with_context(|| format!("start `{}`", attempt.probe))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

impl Attempt<'_> {
    const fn is_raw(&self) -> bool {
        matches!(self.probe.client, Client::Peer { raw: true, .. })
    }

    /// Opens, binds and connects; a datagram is sent at once.
    fn start(&mut self, own: bool) -> Result<()> {
        let to = self.probe.to;
        let (source, uid) = match &self.probe.client {
            Client::Own { source, uid } => (*source, Some(*uid)),
            Client::Peer { source, .. } => (Some(*source), None),
        };
        let socket = open_as(uid, || new_socket(self.probe.proto, to.ip()))?;
        match self.probe.proto {
            // A reset instead of a goodbye: nothing lingers on the host.
            Proto::Tcp => {
                sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
                if to.is_ipv4() {
                    setsockopt(&socket, option::Ipv4RecvErr, &true).context("IP_RECVERR")?;
                } else {
                    setsockopt(&socket, option::Ipv6RecvErr, &true).context("IPV6_RECVERR")?;
                }
            }
            // Whoever sends to everybody on a network has to say so. Nobody does by accident, but a
            // client of the host's own is an ordinary one, and gets what an ordinary one gets.
            Proto::Udp => sockopt::set_socket_broadcast(&socket, !own)?,
        }
        let bind = with_zone(
            SocketAddr::new(source.unwrap_or_else(|| unspecified(to)), self.source_port),
            own,
        );
        rustix::net::bind(&socket, &bind).with_context(|| format!("bind to {bind}"))?;
        let mut outcome = rustix::net::connect(&socket, &with_zone(to, own));
        if outcome.is_ok() && self.probe.proto == Proto::Udp {
            let text = self.number.to_ne_bytes();
            outcome = rustix::net::send(&socket, &text, SendFlags::empty()).map(drop);
        }
        match outcome {
            Ok(()) | Err(Errno::INPROGRESS) => self.socket = Some(socket),
            Err(error) => self.they_see = Some(seen(error, self.probe.proto)?),
        }
        Ok(())
    }

    /// Looks whether the client got an answer.
    fn look(&mut self) -> Result<()> {
        let (Some(socket), None) = (&self.socket, self.they_see) else { return Ok(()) };
        let mut polled = [PollFd::new(socket, PollFlags::IN | PollFlags::OUT)];
        poll(&mut polled, Some(&Timespec::default())).context("poll")?;
        let happened = polled[0].revents();
        match self.probe.proto {
            Proto::Tcp => {
                let done = PollFlags::OUT | PollFlags::ERR | PollFlags::HUP;
                if happened.intersects(done) {
                    self.they_see = Some(match connect_error(socket, happened)? {
                        // The server resets what it accepted when it lets go of it.
                        None | Some(Errno::CONNRESET) => TheySee::Connected,
                        Some(error) => seen(error, Proto::Tcp)?,
                    });
                }
            }
            Proto::Udp => {
                let mut buffer = [0; 64];
                match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok(_) => self.they_see = Some(TheySee::Delivered),
                    Err(Errno::AGAIN) => {}
                    Err(error) => self.they_see = Some(seen(error, Proto::Udp)?),
                }
            }
        }
        Ok(())
    }

    /// Nothing more is expected.
    fn is_settled(&self) -> bool {
        match self.they_see {
            None => false,
            Some(TheySee::Connected | TheySee::Delivered) => !self.served_by.is_empty(),
            Some(_) => true,
        }
    }

    fn finish(self) -> (usize, Observation) {
        let nothing = match self.probe.proto {
            Proto::Tcp => TheySee::Timeout,
            Proto::Udp => TheySee::Silence,
        };
        let observation = Observation {
            they_see: self.they_see.unwrap_or(nothing),
            served_by: self.served_by.into_iter().collect(),
            source_port: self.source_port,
        };
        (self.number, observation)
    }
}

/// How a connect(2) that is over came out; `None` if it succeeded.
fn connect_error(socket: &OwnedFd, happened: PollFlags) -> Result<Option<Errno>> {
    Ok(match sockopt::socket_error(socket).context("SO_ERROR")? {
        Err(error) => Some(error),
        Ok(()) if happened.contains(PollFlags::OUT) => None,
        Ok(()) => Some(early_error(socket)?),
    })
}

/// An ICMP error that came while connect(2) was still running, which happens only where the answer
/// takes no time at all: the kernel then notes it and goes on, until the next SYN a second later
/// (net/ipv4/tcp_ipv4.c, tcp_v4_err). The socket's error queue has it at once.
fn early_error(socket: &OwnedFd) -> Result<Errno> {
    let mut space = vec![0; 256];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut [], Some(&mut space), flags)
        .context("read the error queue of a client")?;
    for part in message.cmsgs().context("read the error queue of a client")? {
        if let ControlMessageOwned::Ipv4RecvErr(error, _)
        | ControlMessageOwned::Ipv6RecvErr(error, _) = part
        {
            return Ok(Errno::from_raw_os_error(error.ee_errno as i32));
        }
    }
    bail!("a client's error queue holds no error")
}

/// The wildcard address of the family of an address.
fn unspecified(address: SocketAddr) -> IpAddr {
    Family::of(address.ip()).unspecified()
}

/// A link-local address needs the link it is meant on, on a peer: its wire.
fn with_zone(mut address: SocketAddr, own: bool) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() == 0
        && !own
    {
        v6.set_scope_id(WIRE_INDEX);
    }
    address
}

/// What an error number means to the client.
fn seen(error: Errno, proto: Proto) -> Result<TheySee> {
    Ok(match error {
        Errno::CONNREFUSED => TheySee::Refused,
        Errno::TIMEDOUT if proto == Proto::Tcp => TheySee::Timeout,
        Errno::HOSTUNREACH => TheySee::HostUnreachable,
        Errno::NETUNREACH => TheySee::NetworkUnreachable,
        Errno::ACCESS => TheySee::PermissionDenied,
        Errno::NOPROTOOPT => TheySee::ProtocolUnavailable,
        Errno::INVAL => TheySee::InvalidArgument,
        Errno::ADDRNOTAVAIL => TheySee::AddressNotAvailable,
        Errno::PERM => TheySee::OperationNotPermitted,
        other => bail!("a client got {other}, which means nothing to the lab"),
    })
}

/// Accepts and answers whatever came to the servers.
fn serve(servers: &[Server], attempts: &mut [Attempt<'_>]) -> Result<()> {
    for (position, server) in servers.iter().enumerate() {
        match server.step.proto {
            Proto::Tcp if server.accepts() => accept_all(position, server, attempts)?,
            Proto::Tcp => {}
            Proto::Udp => answer_all(position, server, attempts)?,
        }
    }
    Ok(())
}

fn accept_all(position: usize, server: &Server, attempts: &mut [Attempt<'_>]) -> Result<()> {
    loop {
        let flags = SocketFlags::CLOEXEC;
        let (connection, peer) = match rustix::net::acceptfrom_with(&server.socket, flags) {
            Ok(accepted) => accepted,
            Err(Errno::AGAIN) => return Ok(()),
            // The client gave up in between.
            Err(Errno::CONNABORTED) => continue,
            Err(error) => return Err(error).with_context(|| format!("accept on {}", server.step)),
        };
        sockopt::set_socket_linger(&connection, Some(Duration::ZERO))?;
        let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else { continue };
        for attempt in &mut *attempts {
            if attempt.probe.proto == Proto::Tcp && attempt.source_port == peer.port() {
                attempt.served_by.insert(position);
            }
        }
    }
}

fn answer_all(position: usize, server: &Server, attempts: &mut [Attempt<'_>]) -> Result<()> {
    loop {
        let mut buffer = [0; 64];
        let received = rustix::net::recvfrom(&server.socket, &mut buffer[..], RecvFlags::DONTWAIT);
        let (length, peer) = match received {
            Ok((length, _, peer)) => (length, peer),
            Err(Errno::AGAIN) => return Ok(()),
            // An error that an answer of this server caused earlier; reading it clears it.
            Err(_) => continue,
        };
        for attempt in &mut *attempts {
            let text = attempt.number.to_ne_bytes();
            if attempt.probe.proto == Proto::Udp && buffer[..length] == text {
                attempt.served_by.insert(position);
            }
        }
        if let Some(peer) = peer {
            // Whether the answer can be sent is what the client finds out.
            let _ =
                rustix::net::sendto(&server.socket, &buffer[..length], SendFlags::DONTWAIT, &peer);
        }
    }
}

/// Sleeps until a client or a server has something, or the time is over.
fn wait(
    servers: &[Server],
    attempts: &[Attempt<'_>],
    wires: &[Wire],
    left: Duration,
) -> Result<()> {
    let mut polled: Vec<PollFd<'_>> =
        wires.iter().map(|wire| PollFd::from_borrowed_fd(wire.socket(), PollFlags::IN)).collect();
    for attempt in attempts {
        if let (Some(socket), None) = (&attempt.socket, attempt.they_see) {
            let wanted = match attempt.probe.proto {
                Proto::Tcp => PollFlags::OUT,
                Proto::Udp => PollFlags::IN,
            };
            polled.push(PollFd::from_borrowed_fd(socket.as_fd(), wanted));
        }
    }
    for server in servers.iter().filter(|server| server.accepts()) {
        polled.push(PollFd::from_borrowed_fd(server.socket.as_fd(), PollFlags::IN));
    }
    let timeout = Timespec::try_from(left).context("a wait is short")?;
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}
