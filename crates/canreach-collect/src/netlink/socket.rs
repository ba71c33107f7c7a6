//! A netlink socket: requests, dumps, and dumps again when the kernel's tables changed meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::attr::Malformed;
use super::message::{self, Message, Messages};
use crate::error::ReadError;
use crate::sys;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_DUMP`: `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x300;
/// The kernel fills a datagram of at most 32 KiB per call when it is offered that much
/// (net/netlink/af_netlink.c, `netlink_recvmsg`); twice that leaves room for one large message.
const BUFFER: usize = 64 * 1024;
/// A dump that is interrupted this often is given up: a machine whose tables change for each read
/// must not keep us for ever.
const ATTEMPTS: u32 = 4;

/// Which part of the kernel is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NetlinkFamily {
    /// `NETLINK_ROUTE`.
    Route,
    /// `NETLINK_SOCK_DIAG`.
    SockDiag,
    /// `NETLINK_NETFILTER`.
    Netfilter,
    /// `NETLINK_GENERIC`.
    Generic,
}

impl NetlinkFamily {
    /// `None` is protocol 0, which `NETLINK_ROUTE` is.
    const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Route => None,
            Self::SockDiag => Some(rustix::net::netlink::SOCK_DIAG),
            Self::Netfilter => Some(rustix::net::netlink::NETFILTER),
            Self::Generic => Some(rustix::net::netlink::GENERIC),
        }
    }
}

/// A socket of one family. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

/// How a dump that reached its end went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DumpEnd {
    Complete,
    Interrupted,
    /// A message was longer than the buffer, which has grown since.
    Truncated,
}

impl NetlinkSocket {
    /// Opens a socket.
    pub(crate) fn open(family: NetlinkFamily) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            family.protocol(),
        )?;
        // Both refine answers and neither is needed: kernels before 4.20 and 4.12 lack them.
        if matches!(family, NetlinkFamily::Route) {
            let _ = sys::enable_netlink_option(fd.as_fd(), libc::NETLINK_GET_STRICT_CHK);
        }
        let _ = sys::enable_netlink_option(fd.as_fd(), libc::NETLINK_EXT_ACK);
        Ok(Self { fd, buffer: Vec::new(), sequence: 0 })
    }

    /// Asks for everything of a kind and gives each row that `decode` makes of a message.
    ///
    /// Rows are those of one undisturbed dump, or, when each attempt was disturbed, those of the
    /// last together with [`ReadError::Changed`]. The error comes beside the rows read so far:
    /// what was seen is there, although more may be.
    pub(crate) fn dump<Row>(
        &mut self,
        operation: &'static str,
        kind: u16,
        payload: &[u8],
        mut decode: impl FnMut(&Message<'_>) -> Result<Option<Row>, Malformed>,
    ) -> (Vec<Row>, Option<ReadError>) {
        self.dump_many(operation, kind, payload, |message, rows| {
            rows.extend(decode(message)?);
            Ok(())
        })
    }

    /// As [`Self::dump`], where one message holds many rows: `decode` appends them.
    pub(crate) fn dump_many<Row>(
        &mut self,
        operation: &'static str,
        kind: u16,
        payload: &[u8],
        mut decode: impl FnMut(&Message<'_>, &mut Vec<Row>) -> Result<(), Malformed>,
    ) -> (Vec<Row>, Option<ReadError>) {
        let mut rows = Vec::new();
        for _ in 0..ATTEMPTS {
            rows.clear();
            let mut malformed = None;
            let end = self.dump_once(operation, kind, payload, |message| {
                if let Err(source) = decode(message, &mut rows) {
                    malformed = Some(source);
                }
            });
            match end {
                Ok(DumpEnd::Interrupted | DumpEnd::Truncated) => {}
                Ok(DumpEnd::Complete) => {
                    let error = malformed.map(|source| ReadError::Malformed { operation, source });
                    return (rows, error);
                }
                Err(error) => return (rows, Some(error)),
            }
        }
        (rows, Some(ReadError::Changed { operation, attempts: ATTEMPTS }))
    }

    fn dump_once(
        &mut self,
        operation: &'static str,
        kind: u16,
        payload: &[u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<DumpEnd, ReadError> {
        self.send(kind, REQUEST | DUMP, payload)
            .map_err(|error| ReadError::os(operation, error))?;
        let mut end = DumpEnd::Complete;
        loop {
            let Some(length) = self.receive().map_err(|error| ReadError::os(operation, error))?
            else {
                end = DumpEnd::Truncated;
                continue;
            };
            for message in Messages::new(self.buffer.get(..length).unwrap_or_default()) {
                let message =
                    message.map_err(|source| ReadError::Malformed { operation, source })?;
                // Leftovers of an attempt that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & message::DUMP_INTERRUPTED != 0 {
                    end = DumpEnd::Interrupted;
                }
                match message.kind {
                    message::DONE if message.errno() == 0 => return Ok(end),
                    message::DONE | message::ERROR => return Err(refused(operation, &message)),
                    _ => each(&message),
                }
            }
        }
    }

    /// Asks for one thing. `Ok(None)` where the kernel says that there is none (ENOENT).
    pub(crate) fn ask<Row>(
        &mut self,
        operation: &'static str,
        kind: u16,
        payload: &[u8],
        decode: impl Fn(&Message<'_>) -> Result<Option<Row>, Malformed>,
    ) -> Result<Option<Row>, ReadError> {
        self.send(kind, REQUEST, payload).map_err(|error| ReadError::os(operation, error))?;
        loop {
            let length = self.receive().map_err(|error| ReadError::os(operation, error))?;
            for message in Messages::new(self.buffer.get(..length.unwrap_or(0)).unwrap_or_default())
            {
                let message =
                    message.map_err(|source| ReadError::Malformed { operation, source })?;
                if message.sequence != self.sequence {
                    continue;
                }
                return match message.kind {
                    message::ERROR if message.errno() == libc::ENOENT => Ok(None),
                    message::ERROR => Err(refused(operation, &message)),
                    _ => decode(&message)
                        .map_err(|source| ReadError::Malformed { operation, source }),
                };
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = message::HEADER + payload.len();
        let mut request = Vec::with_capacity(length);
        request.extend_from_slice(&(length as u32).to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&flags.to_ne_bytes());
        request.extend_from_slice(&self.sequence.to_ne_bytes());
        // Port 0: the kernel fills in the one this socket has.
        request.extend_from_slice(&0_u32.to_ne_bytes());
        request.extend_from_slice(payload);
        rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, &request, SendFlags::empty()))?;
        Ok(())
    }

    /// Receives a datagram. `None` when it was longer than the buffer: the rest of it is lost, and
    /// the buffer is grown for the next attempt.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER, 0);
        }
        loop {
            let flags = RecvFlags::TRUNC;
            let received = rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), flags);
            match received {
                Ok((_, length)) if length > self.buffer.len() => {
                    self.buffer.resize(length.next_multiple_of(BUFFER), 0);
                    return Ok(None);
                }
                Ok((length, _)) => return Ok(Some(length)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn refused(operation: &'static str, message: &Message<'_>) -> ReadError {
    ReadError::Os {
        operation,
        source: io::Error::from_raw_os_error(message.errno()),
        message: message.error_text(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::link;
    use super::*;

    #[test]
    fn a_datagram_that_does_not_fit_is_asked_for_again() {
        let mut netlink = NetlinkSocket::open(NetlinkFamily::Route).unwrap();
        let dump = |netlink: &mut NetlinkSocket| {
            netlink.dump("dump links", link::GET, &link::request(), link::decode)
        };
        let (whole, error) = dump(&mut netlink);
        assert!(error.is_none(), "{error:?}");
        netlink.buffer = vec![0; 64];
        let (again, error) = dump(&mut netlink);
        assert!(error.is_none(), "{error:?}");
        let names = |rows: Vec<link::LinkRow>| -> Vec<_> {
            rows.into_iter().map(|row| row.link.name).collect()
        };
        assert_eq!(names(again), names(whole));
        assert!(netlink.buffer.len() > 64, "it has grown");
    }

    #[test]
    fn a_refusal_carries_the_operation_and_the_kernels_words() {
        let mut netlink = NetlinkSocket::open(NetlinkFamily::Route).unwrap();
        // `struct rtmsg` with a scope, which a strict dump of routes does not take.
        let request = [0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0];
        let (rows, error) = netlink.dump("dump routes", 26, &request, |_| Ok(Some(())));
        assert_eq!(rows, []);
        let error = error.expect("it is refused").to_string();
        assert!(error.starts_with("dump routes: Invalid argument"), "{error}");
        assert!(error.ends_with(')'), "the kernel explains itself: {error}");
        let (rows, error) = netlink.dump("dump links", 18, &link::request(), |_| Ok(Some(())));
        assert!(error.is_none() && !rows.is_empty(), "the socket is still of use: {error:?}");
    }
}
