//! Packets that no kernel would send, put on a peer's wire as frames: sources that are the host's
//! own, loopback or broadcast addresses, destinations in 127.0.0.0/8.
//!
//! The lab then plays the sender: it says that the source is its own when the host asks, and
//! completes connections.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use canreach_engine::TheySee;
use canreach_snapshot::Proto;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::frame::{self, Ends, Heard, Mac};
use crate::peer::{Peer, WIRE};

/// A peer's wire, open for frames.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    address: LinkAddr,
    mac: Mac,
    sent: Vec<Sent>,
}

/// One packet that went out.
#[derive(Debug)]
struct Sent {
    number: usize,
    proto: Proto,
    ends: Ends,
    /// The hardware address of the link it went to.
    to: Mac,
    /// Whether others on the link would find the source there.
    on_link: bool,
}

/// One packet that is to go out.
#[derive(Debug)]
pub struct Order {
    /// Whatever the caller knows it by.
    pub number: usize,
    /// TCP or UDP.
    pub proto: Proto,
    /// From where to where.
    pub ends: Ends,
    /// The hardware address of the link it goes to.
    pub to: Mac,
    /// Whether others on the link would find the source there.
    pub on_link: bool,
}

impl Wire {
    /// Opens the wire of a peer.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(peer: &Peer) -> Result<Self> {
        peer.netns.enter(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)
                .context("open a packet socket")?;
            let links = nix::ifaddrs::getifaddrs().context("list the links")?;
            let mut links = links.filter(|link| link.interface_name == WIRE);
            let address = links.find_map(|link| link.address?.as_link_addr().copied());
            let address = address.context("the peer has no wire")?;
            let mac = address.addr().context("the wire has no hardware address")?;
            Ok(Self { socket, address, mac, sent: Vec::new() })
        })
    }

    /// Puts a packet on the wire.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn send(&mut self, order: &Order) -> Result<()> {
        let Order { number, proto, ends, to, on_link } = *order;
        let text = number.to_ne_bytes();
        self.put(&frame::first((self.mac, to), proto, ends, &text))?;
        self.sent.push(Sent { number, proto, ends, to, on_link });
        Ok(())
    }

    fn put(&self, frame: &[u8]) -> Result<()> {
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty());
        sent.map(drop).context("send a frame")
    }

    /// The socket to wait on.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what came, answers what has to be answered, and returns what the senders saw.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn listen(&self) -> Result<Vec<(usize, TheySee)>> {
        let mut seen = Vec::new();
        let mut buffer = vec![0; 2048];
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            match frame::hear(&buffer[..length]) {
                Some(Heard::Answer { to, they_see, acknowledge }) => {
                    let sent = self.sent.iter().find(|sent| sent.ends == to);
                    let Some(sent) = sent else { continue };
                    if let (Some(sequence), Proto::Tcp) = (acknowledge, sent.proto) {
                        let macs = (self.mac, sent.to);
                        self.put(&frame::acknowledgement(macs, sent.ends, sequence))?;
                    }
                    seen.push((sent.number, they_see));
                }
                Some(Heard::WhoHas { target, asker }) if self.is_here(target) => {
                    self.put(&frame::it_is_me(self.mac, target, asker))?;
                }
                Some(Heard::WhoHas { .. }) | None => {}
            }
        }
        Ok(seen)
    }

    fn is_here(&self, address: IpAddr) -> bool {
        self.sent.iter().any(|sent| sent.on_link && sent.ends.source.0 == address)
    }
}
