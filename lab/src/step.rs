//! What is done to a host under test, one line each, close to what `ip` takes.
//!
//! A host is a list of lines, so that a person can read it, a file can hold it, and the shrinker can
//! leave lines out. Order counts, as it does on a real machine: some things leave traces in the
//! kernel after they were undone.
//!
//! ```text
//! link a0 veth to B             set a0 down | up | carrier off | master br0 | group 7 | addrgen none
//! link br0 bridge               address 10.1.0.1/24 dev a0 [peer 10.1.0.9] [scope host] [dad]
//! link m0 macvlan of a0         address del 10.1.0.1/24 dev a0
//! link v9 vlan 9 of a0          neighbor proxy 10.1.0.50 dev a0
//! link red vrf table 100        sysctl net.ipv4.conf.a0.rp_filter=1
//! link d0 dummy                 link i0 ipvlan of a0
//! link tun0 tun                 route ..., rule ... (see `route_step`, `rule_step`)
//! tcp 0.0.0.0:80 ...            udp [::]:53 ... (see `server`)
//! nft ..., iptables ..., ipset ... (see `filter_step`)
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use canreach_snapshot::{Prefix, Scope};

use crate::filter_step::FilterStep;
use crate::route_step::RouteStep;
use crate::rule_step::RuleStep;
use crate::server::ServerStep;
use crate::words::Words;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a link and sets it up.
    Link {
        /// Its name.
        name: String,
        /// What it is made of.
        shape: LinkShape,
    },
    /// Changes a link.
    Set {
        /// Its name.
        name: String,
        /// What changes.
        change: LinkChange,
    },
    /// Adds or removes an address.
    Address(AddressStep),
    /// Adds or removes a route.
    Route(RouteStep),
    /// Adds or removes a policy rule.
    Rule(RuleStep),
    /// Writes a sysctl.
    Sysctl {
        /// Its full name; the name of a link may be one of its parts.
        name: String,
        /// What is written.
        value: String,
    },
    /// Answers neighbours on behalf of an address.
    NeighborProxy {
        /// The address.
        address: IpAddr,
        /// On this link.
        link: String,
    },
    /// Loads packet-filter rules.
    Filter(FilterStep),
    /// Opens a server.
    Server(ServerStep),
}

/// What a link is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkShape {
    /// One end of a pair; the other is the only link of the peer of that name.
    Veth {
        /// The peer's name.
        peer: String,
    },
    /// A bridge.
    Bridge,
    /// Another hardware address on a link.
    Macvlan {
        /// The link below.
        lower: String,
    },
    /// A tagged VLAN.
    Vlan {
        /// Its number.
        id: u16,
        /// The link below.
        lower: String,
    },
    /// Addresses of its own on the link below, with that link's hardware address.
    Ipvlan {
        /// The link below.
        lower: String,
    },
    /// A link with nobody behind it.
    Dummy,
    /// A routing domain.
    Vrf {
        /// Its table.
        table: u32,
    },
    /// A tunnel whose program is not running.
    Tun,
}

/// A change of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// Administratively up.
    Up,
    /// Administratively down.
    Down,
    /// The peer's end of a veth pair goes up or down, and the carrier with it.
    Carrier(bool),
    /// It joins a bridge or a VRF.
    Master(String),
    /// Its group.
    Group(u32),
    /// It makes no link-local address by itself.
    AddressGenerationNone,
}

/// An address that is added or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressStep {
    /// Added; removed otherwise.
    pub add: bool,
    /// With its prefix length.
    pub prefix: Prefix,
    /// Its link.
    pub link: String,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// How far it reaches, where that is not everywhere.
    pub scope: Option<Scope>,
    /// IPv6: check for duplicates first. The lab leaves that out otherwise, because it takes time.
    pub check_duplicates: bool,
    /// Make no route for its subnet.
    pub no_prefix_route: bool,
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        if let Some(filter) = FilterStep::read(line) {
            return Ok(Self::Filter(filter));
        }
        let mut words = Words::new(line);
        let step = match words.word("what to do")? {
            "link" => read_link(&mut words)?,
            "set" => read_set(&mut words)?,
            "address" => Self::Address(read_address(&mut words)?),
            "route" => Self::Route(RouteStep::read(&mut words)?),
            "rule" => Self::Rule(RuleStep::read(&mut words)?),
            "sysctl" => {
                let setting = words.word("a sysctl")?;
                let Some((name, value)) = setting.split_once('=') else {
                    bail!("`{line}`: a sysctl is written name=value");
                };
                Self::Sysctl { name: name.to_owned(), value: value.to_owned() }
            }
            "neighbor" => {
                if !words.take("proxy") {
                    bail!("`{line}`: only `neighbor proxy` is understood");
                }
                let address = words.value("an address")?;
                Self::NeighborProxy { address, link: read_device(&mut words)? }
            }
            "tcp" | "udp" => Self::Server(ServerStep::read(&mut Words::new(line))?),
            other => bail!("`{line}`: `{other}` is nothing the lab can do"),
        };
        if !matches!(step, Self::Server(_)) {
            words.end()?;
        }
        Ok(step)
    }
}

/// Reads `dev NAME`.
fn read_device(words: &mut Words<'_>) -> Result<String> {
    if !words.take("dev") {
        bail!("`{}`: `dev NAME` is missing", words.line());
    }
    Ok(words.word("the name of a link")?.to_owned())
}

fn read_link(words: &mut Words<'_>) -> Result<Step> {
    let name = words.word("a name")?.to_owned();
    let lower = |words: &mut Words<'_>, joint: &str| -> Result<String> {
        if !words.take(joint) {
            bail!("`{}`: `{joint} NAME` is missing", words.line());
        }
        Ok(words.word("a name")?.to_owned())
    };
    let shape = match words.word("what it is made of")? {
        "veth" => LinkShape::Veth { peer: lower(words, "to")? },
        "bridge" => LinkShape::Bridge,
        "macvlan" => LinkShape::Macvlan { lower: lower(words, "of")? },
        "ipvlan" => LinkShape::Ipvlan { lower: lower(words, "of")? },
        "dummy" => LinkShape::Dummy,
        "vlan" => {
            let id = words.value("the number of a VLAN")?;
            LinkShape::Vlan { id, lower: lower(words, "of")? }
        }
        "vrf" if words.take("table") => LinkShape::Vrf { table: words.value("a table")? },
        "tun" => LinkShape::Tun,
        other => bail!("`{}`: no link is made of `{other}` here", words.line()),
    };
    Ok(Step::Link { name, shape })
}

fn read_set(words: &mut Words<'_>) -> Result<Step> {
    let name = words.word("a name")?.to_owned();
    let change = match words.word("what changes")? {
        "up" => LinkChange::Up,
        "down" => LinkChange::Down,
        "carrier" if words.take("off") => LinkChange::Carrier(false),
        "carrier" if words.take("on") => LinkChange::Carrier(true),
        "master" => LinkChange::Master(words.word("a name")?.to_owned()),
        "group" => LinkChange::Group(words.value("a group")?),
        "addrgen" if words.take("none") => LinkChange::AddressGenerationNone,
        other => bail!("`{}`: `{other}` of a link cannot be set here", words.line()),
    };
    Ok(Step::Set { name, change })
}

fn read_address(words: &mut Words<'_>) -> Result<AddressStep> {
    let add = !words.take("del");
    let prefix = words.value("an address")?;
    let link = read_device(words)?;
    let mut step = AddressStep { add, prefix, link, ..AddressStep::on("") };
    while let Some(word) = words.next_word() {
        match word {
            "peer" => step.peer = Some(words.value("an address")?),
            "scope" => step.scope = Some(read_scope(words)?),
            "dad" => step.check_duplicates = true,
            "noprefixroute" => step.no_prefix_route = true,
            other => bail!("`{}`: an address has no `{other}`", words.line()),
        }
    }
    Ok(step)
}

impl AddressStep {
    fn on(link: &str) -> Self {
        Self {
            add: true,
            prefix: Prefix::all(canreach_snapshot::Family::Ipv4),
            link: link.to_owned(),
            peer: None,
            scope: None,
            check_duplicates: false,
            no_prefix_route: false,
        }
    }

    /// Adds an address with nothing special about it.
    #[must_use]
    pub fn plain(prefix: Prefix, link: &str) -> Self {
        Self { prefix, ..Self::on(link) }
    }
}

/// Reads the name of a scope.
///
/// # Errors
/// If there is none of that name.
pub fn read_scope(words: &mut Words<'_>) -> Result<Scope> {
    match words.word("a scope")? {
        "global" => Ok(Scope::UNIVERSE),
        "link" => Ok(Scope::LINK),
        "host" => Ok(Scope::HOST),
        other => bail!("`{}`: `{other}` is no scope", words.line()),
    }
}

/// The name of a scope.
#[must_use]
pub const fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::LINK => "link",
        Scope::HOST => "host",
        _ => "global",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { name, shape } => write!(formatter, "link {name} {shape}"),
            Self::Set { name, change } => write!(formatter, "set {name} {change}"),
            Self::Address(step) => step.fmt(formatter),
            Self::Route(step) => step.fmt(formatter),
            Self::Rule(step) => step.fmt(formatter),
            Self::Sysctl { name, value } => write!(formatter, "sysctl {name}={value}"),
            Self::NeighborProxy { address, link } => {
                write!(formatter, "neighbor proxy {address} dev {link}")
            }
            Self::Filter(step) => step.fmt(formatter),
            Self::Server(step) => step.fmt(formatter),
        }
    }
}

impl fmt::Display for LinkShape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Veth { peer } => write!(formatter, "veth to {peer}"),
            Self::Bridge => formatter.write_str("bridge"),
            Self::Macvlan { lower } => write!(formatter, "macvlan of {lower}"),
            Self::Ipvlan { lower } => write!(formatter, "ipvlan of {lower}"),
            Self::Dummy => formatter.write_str("dummy"),
            Self::Vlan { id, lower } => write!(formatter, "vlan {id} of {lower}"),
            Self::Vrf { table } => write!(formatter, "vrf table {table}"),
            Self::Tun => formatter.write_str("tun"),
        }
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => formatter.write_str("up"),
            Self::Down => formatter.write_str("down"),
            Self::Carrier(on) => write!(formatter, "carrier {}", if *on { "on" } else { "off" }),
            Self::Master(master) => write!(formatter, "master {master}"),
            Self::Group(group) => write!(formatter, "group {group}"),
            Self::AddressGenerationNone => formatter.write_str("addrgen none"),
        }
    }
}

impl fmt::Display for AddressStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.add { "" } else { "del " };
        write!(formatter, "address {verb}{} dev {}", self.prefix, self.link)?;
        if let Some(peer) = self.peer {
            write!(formatter, " peer {peer}")?;
        }
        if let Some(scope) = self.scope {
            write!(formatter, " scope {}", scope_name(scope))?;
        }
        if self.check_duplicates {
            formatter.write_str(" dad")?;
        }
        if self.no_prefix_route {
            formatter.write_str(" noprefixroute")?;
        }
        Ok(())
    }
}
