//! Changing a namespace over rtnetlink: requests are written one after the other into one buffer and
//! sent at once, because the random lab builds thousands of hosts.
//!
//! Only what the lab sets is here; reading is the collector's part.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
/// `NLM_F_CREATE`: make it if it is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: fail if it is there.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_APPEND`: put it after its equals.
pub const APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
/// Requests sent at once.
const BATCH: usize = 64;
const NLA_F_NESTED: u16 = 0x8000;

/// One request, with the text it came from, for messages.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
    about: String,
}

impl Request {
    /// Starts a request: its type, flags beyond REQUEST and ACK, and the fixed header of its family.
    #[must_use]
    pub fn new(kind: u16, flags: u16, header: &[u8], about: &str) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(header);
        let mut request = Self { bytes, about: about.to_owned() };
        request.pad();
        request
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("the lab's attributes are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds an attribute that is a number in host order.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that is a text.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute, if there is a value for it.
    #[must_use]
    pub fn maybe(self, kind: u16, value: Option<u32>) -> Self {
        match value {
            Some(value) => self.number(kind, value),
            None => self,
        }
    }

    /// Adds an attribute that holds others.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self = fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("the lab's nests are short");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds bytes as they are: the fixed header inside some nests.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// What it is, in words.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The attributes alone, for nests whose entries are no attributes themselves.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[16..]
    }

    fn finish(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = u32::try_from(bytes.len()).expect("the lab's requests are short");
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}

/// A NETLINK_ROUTE socket of the namespace that the calling thread is in.
#[derive(Debug)]
pub struct RouteSocket {
    socket: OwnedFd,
}

impl RouteSocket {
    /// Opens one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open() -> Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("open a netlink socket")?;
        Ok(Self { socket })
    }

    /// Carries out requests in order.
    ///
    /// # Errors
    /// With the text of the first request that the kernel refused, and what it said.
    pub fn carry_out(&self, requests: &[Request]) -> Result<()> {
        match self.attempt(requests)?.into_iter().next() {
            None => Ok(()),
            Some((position, error)) => {
                bail!(NetlinkError { about: requests[position].about.clone(), error })
            }
        }
    }

    /// Carries out requests in order, and says which of them the kernel refused.
    ///
    /// # Errors
    /// If they cannot be sent.
    pub fn attempt(&self, requests: &[Request]) -> Result<Vec<(usize, std::io::Error)>> {
        let mut refused = Vec::new();
        // A batch fits the socket's default send buffer, and its answers the receive buffer.
        for (number, batch) in requests.chunks(BATCH).enumerate() {
            let mut bytes = Vec::new();
            for (position, request) in batch.iter().enumerate() {
                bytes.extend(request.finish(u32::try_from(position).expect("a batch is short")));
            }
            rustix::net::send(&self.socket, &bytes, SendFlags::empty())
                .context("send netlink requests")?;
            for (position, error) in self.read_answers(batch.len())? {
                refused.push((number * BATCH + position, error));
            }
        }
        Ok(refused)
    }

    fn read_answers(&self, wanted: usize) -> Result<Vec<(usize, std::io::Error)>> {
        let mut answered = 0;
        let mut refused = Vec::new();
        while answered < wanted {
            let mut buffer = vec![0; 32 * 1024];
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())
                .context("receive netlink answers")?;
            for (kind, sequence, body) in messages(&buffer[..length]) {
                let Some(code) = body.first_chunk() else { continue };
                if kind != NLMSG_ERROR {
                    continue;
                }
                answered += 1;
                let code = i32::from_ne_bytes(*code);
                if code != 0 {
                    let error = std::io::Error::from_raw_os_error(-code);
                    refused.push((sequence as usize, error));
                }
            }
        }
        Ok(refused)
    }
}

/// The kernel refused a request.
#[derive(Debug)]
pub struct NetlinkError {
    /// The request, in words.
    pub about: String,
    /// What the kernel said.
    pub error: std::io::Error,
}

impl std::fmt::Display for NetlinkError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "`{}`: {}", self.about, self.error)
    }
}

impl std::error::Error for NetlinkError {}

/// Type, sequence number and body of each message in a buffer.
fn messages(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some(header) = bytes.first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = bytes.get(16..length) else { break };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        found.push((kind, sequence, body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}
