//! What is asked of the kernel: one client, one connection.
//!
//! ```text
//! tcp 10.1.0.2 > 10.1.0.1:80 via a0            from the peer on a0
//! udp [fd01::2]:4000 > [fd01::1]:53 via a0     with a source port
//! tcp 10.1.0.3 > 10.1.0.1:80 via br0 port p1   from the peer behind that port of a bridge
//! tcp 127.0.0.1 > 10.1.0.1:80 via a0 raw       a frame put on the wire as it is
//! tcp self > 127.0.0.1:80                      from a client on the host itself
//! tcp self 10.1.0.1 > 0.0.0.0:80 uid 1000      bound to an address, run by a user
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use canreach_engine::TheySee;
use canreach_snapshot::{Family, Proto};

use crate::server::read_proto;
use crate::words::Words;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// TCP or UDP.
    pub proto: Proto,
    /// Where the client is.
    pub client: Client,
    /// The client's port; chosen by the lab where it does not matter.
    pub source_port: Option<u16>,
    /// The address and port dialled.
    pub to: SocketAddr,
}

/// Where a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// On the host under test.
    Own {
        /// The address it is bound to.
        source: Option<IpAddr>,
        /// The user it runs as.
        uid: u32,
    },
    /// On a peer.
    Peer {
        /// Its address.
        source: IpAddr,
        /// The link of the host where the packet comes in.
        via: String,
        /// The port of the bridge behind which the peer is, where `via` is a bridge of several.
        port: Option<String>,
        /// The lab writes the frame itself, because no kernel would send it.
        raw: bool,
    },
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What the client saw.
    pub they_see: TheySee,
    /// The servers that got the connection or the datagram, by their position, ascending.
    pub served_by: Vec<usize>,
    /// The port the client had.
    pub source_port: u16,
}

impl Probe {
    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.to.ip())
    }
}

impl FromStr for Probe {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = Words::new(line);
        let proto = read_proto(&mut words)?;
        let own = words.take("self");
        let mut source = None;
        if words.peek() != Some(">") {
            source = Some(read_source(&mut words)?);
        }
        if !words.take(">") {
            bail!("`{line}`: `>` and what is dialled are missing");
        }
        let to = words.value("an address and a port")?;
        let source_port = source.and_then(|(_, port)| port);
        let source = source.map(|(address, _)| address);
        let client = if own {
            let uid = if words.take("uid") { words.value("a user id")? } else { 0 };
            Client::Own { source, uid }
        } else {
            let Some(source) = source else { bail!("`{line}`: the source is missing") };
            if !words.take("via") {
                bail!("`{line}`: `via LINK` is missing");
            }
            let via = words.word("a link")?.to_owned();
            let port =
                if words.take("port") { Some(words.word("a link")?.to_owned()) } else { None };
            Client::Peer { source, via, port, raw: words.take("raw") }
        };
        words.end()?;
        Ok(Self { proto, client, source_port, to })
    }
}

/// Reads `10.1.0.2`, `10.1.0.2:4000`, `[fd01::2]` or `[fd01::2]:4000`.
fn read_source(words: &mut Words<'_>) -> Result<(IpAddr, Option<u16>)> {
    let word = words.word("a source")?;
    if let Ok(both) = word.parse::<SocketAddr>() {
        return Ok((both.ip(), Some(both.port())));
    }
    let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    match bare.parse() {
        Ok(address) => Ok((address, None)),
        Err(_) => bail!("`{}`: `{word}` is not an address", words.line()),
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.proto.name())?;
        let (source, own) = match &self.client {
            Client::Own { source, .. } => (*source, true),
            Client::Peer { source, .. } => (Some(*source), false),
        };
        if own {
            formatter.write_str(" self")?;
        }
        match (source, self.source_port) {
            (Some(address), Some(port)) => {
                write!(formatter, " {}", SocketAddr::new(address, port))?
            }
            (Some(IpAddr::V6(address)), None) => write!(formatter, " [{address}]")?,
            (Some(IpAddr::V4(address)), None) => write!(formatter, " {address}")?,
            (None, _) => {}
        }
        write!(formatter, " > {}", self.to)?;
        match &self.client {
            Client::Own { uid: 0, .. } => Ok(()),
            Client::Own { uid, .. } => write!(formatter, " uid {uid}"),
            Client::Peer { via, port, raw, .. } => {
                write!(formatter, " via {via}")?;
                if let Some(port) = port {
                    write!(formatter, " port {port}")?;
                }
                formatter.write_str(if *raw { " raw" } else { "" })
            }
        }
    }
}
