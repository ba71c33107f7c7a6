//! One expectation on one line: `tcp/5432 from 10.0.0.0/8, lan via eth0 program postgres`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use canreach_snapshot::{Port, Prefix, Proto};

use super::{Expectation, Origin};

/// The form, for messages.
const FORM: &str = "PROTO/PORT from WHO [via LINK] [program NAME], \
                    for example: tcp/5432 from 10.0.0.0/8";

/// Ports of one protocol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// TCP or UDP.
    pub proto: Proto,
    /// The first.
    pub low: Port,
    /// The last.
    pub high: Port,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Nothing in it.
    #[error("an empty rule; a rule is {FORM}")]
    Nothing,
    /// It names no protocol.
    #[error("`{0}` says no protocol: write tcp/{0} or udp/{0}")]
    NoProtocol(String),
    /// It names another protocol.
    #[error("`{0}` is neither tcp nor udp: write tcp/22 or udp/53")]
    Protocol(String),
    /// `22/tcp`.
    #[error("write {1}/{0}, the protocol first")]
    ProtocolLast(String, String),
    /// Not a port.
    #[error("`{0}` is not a port: ports go from 1 to 65535, as in tcp/22, tcp/8000-8100, tcp/*")]
    Port(String),
    /// `tcp/90-80`.
    #[error("`{0}` ends before it begins")]
    Backwards(String),
    /// No `from`.
    #[error("`{0}` does not say from whom; a rule is {FORM}")]
    NoFrom(String),
    /// An empty `from`.
    #[error(
        "from whom? self, lan, containers, vpn, any, an address, or a prefix such as 10.0.0.0/8"
    )]
    NoOrigin,
    /// A word that names nobody.
    #[error(
        "`{0}` is not self, lan, containers, vpn, any, an address, or a prefix such as 10.0.0.0/8"
    )]
    Origin(String),
    /// A prefix with something wrong behind the slash.
    #[error(transparent)]
    Prefix(#[from] canreach_snapshot::PrefixError),
    /// `10.0.0.7/8`.
    #[error(
        "`{given}` has bits set behind its length: write {network}, or {host} for the one address"
    )]
    HostBits {
        /// As it was written.
        given: String,
        /// The network it is in.
        network: Prefix,
        /// The address by itself.
        host: IpAddr,
    },
    /// `fe80::1%eth0`.
    #[error("`{0}`: name the interface with via, not behind %")]
    Zone(String),
    /// Nothing behind a key word.
    #[error("nothing stands behind `{0}`")]
    NoValue(&'static str),
    /// A word that belongs nowhere.
    #[error("`{0}` is not expected here; a rule is {FORM}")]
    Word(String),
}

impl PortRange {
    /// A port is in it.
    #[must_use]
    pub fn holds(&self, proto: Proto, port: Port) -> bool {
        self.proto == proto && self.low <= port && port <= self.high
    }
}

impl FromStr for PortRange {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let Some((proto, ports)) = text.split_once('/') else {
            return Err(match text {
                "" => RuleError::Nothing,
                _ if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
                    RuleError::NoProtocol(text.to_owned())
                }
                _ => RuleError::Port(text.to_owned()),
            });
        };
        let proto = match proto {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            _ if matches!(ports, "tcp" | "udp") => {
                return Err(RuleError::ProtocolLast(proto.to_owned(), ports.to_owned()));
            }
            _ => return Err(RuleError::Protocol(proto.to_owned())),
        };
        if ports == "*" {
            return Ok(Self { proto, low: Port(1), high: Port(u16::MAX) });
        }
        let port = |digits: &str| match digits.parse() {
            Ok(number @ 1..) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Port(number))
            }
            _ => Err(RuleError::Port(text.to_owned())),
        };
        let (low, high) = match ports.split_once('-') {
            Some((low, high)) => (port(low)?, port(high)?),
            None => (port(ports)?, port(ports)?),
        };
        if low > high {
            return Err(RuleError::Backwards(text.to_owned()));
        }
        Ok(Self { proto, low, high })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proto, low, high } = self;
        match (low.0, high.0) {
            (1, u16::MAX) => write!(formatter, "{}/*", proto.name()),
            (one, other) if one == other => write!(formatter, "{}/{low}", proto.name()),
            _ => write!(formatter, "{}/{low}-{high}", proto.name()),
        }
    }
}

impl FromStr for Origin {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "self" => return Ok(Self::Itself),
            "lan" => return Ok(Self::Lan),
            "containers" => return Ok(Self::Containers),
            "vpn" => return Ok(Self::Vpn),
            "any" => return Ok(Self::Any),
            "" => return Err(RuleError::NoOrigin),
            _ if text.contains('%') => return Err(RuleError::Zone(text.to_owned())),
            _ => {}
        }
        if text.contains('/') {
            let prefix: Prefix = text.parse()?;
            let (network, host) = (prefix.network(), prefix.address());
            if network != prefix {
                return Err(RuleError::HostBits { given: text.to_owned(), network, host });
            }
            return Ok(Self::Prefix(prefix));
        }
        let address: Result<IpAddr, _> = text.parse();
        match address {
            Ok(address) => Ok(Self::Prefix(Prefix::host(address.to_canonical()))),
            Err(_) => Err(RuleError::Origin(text.to_owned())),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => formatter.write_str("self"),
            Self::Lan => formatter.write_str("lan"),
            Self::Containers => formatter.write_str("containers"),
            Self::Vpn => formatter.write_str("vpn"),
            Self::Any => formatter.write_str("any"),
            Self::Prefix(prefix) if prefix.length() == prefix.family().bits() => {
                prefix.address().fmt(formatter)
            }
            Self::Prefix(prefix) => prefix.fmt(formatter),
        }
    }
}

impl FromStr for Expectation {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let spaced = text.replace(',', " ");
        let mut words = spaced.split_whitespace().peekable();
        let mut until = |ends: &[&str]| {
            let mut taken = Vec::new();
            while let Some(word) = words.next_if(|word| !ends.contains(word)) {
                taken.push(word);
            }
            (taken, words.next())
        };
        let (ports, from) = until(&["from"]);
        if ports.is_empty() {
            return Err(RuleError::Nothing);
        }
        let ports = ports.into_iter().map(PortRange::from_str).collect::<Result<_, _>>()?;
        if from.is_none() {
            return Err(RuleError::NoFrom(text.trim().to_owned()));
        }
        let (origins, mut key) = until(&["via", "program"]);
        if origins.is_empty() {
            return Err(RuleError::NoOrigin);
        }
        let from = origins.into_iter().map(Origin::from_str).collect::<Result<_, _>>()?;
        let (mut via, mut program) = (None, None);
        while let Some(word) = key {
            let (values, next) = until(&["via", "program"]);
            let (slot, name) = match word {
                "via" => (&mut via, "via"),
                _ => (&mut program, "program"),
            };
            match values.as_slice() {
                [] => return Err(RuleError::NoValue(name)),
                [value] if slot.is_none() => *slot = Some((*value).to_owned()),
                [value] => return Err(RuleError::Word((*value).to_owned())),
                [_, extra, ..] => return Err(RuleError::Word((*extra).to_owned())),
            }
            key = next;
        }
        Ok(Self { ports, from, via, program, line: None })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| items.join(", ");
        let ports = list(self.ports.iter().map(PortRange::to_string).collect());
        let from = list(self.from.iter().map(Origin::to_string).collect());
        write!(formatter, "{ports} from {from}")?;
        if let Some(via) = &self.via {
            write!(formatter, " via {via}")?;
        }
        if let Some(program) = &self.program {
            write!(formatter, " program {program}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_back_as_they_can_be_typed() {
        for text in [
            "tcp/5432 from 10.0.0.0/8",
            "udp/53 from lan",
            "tcp/22 from any",
            "tcp/8000-8100 from self",
            "tcp/80, tcp/443 from lan, 2001:db8::/32 via eth0 program nginx",
            "tcp/* from containers, vpn, 10.0.0.7",
        ] {
            let rule: Expectation = text.parse().expect(text);
            assert_eq!(rule.to_string(), text);
        }
        let rule: Expectation = " tcp/1  tcp/2 from  lan any ".parse().expect("spaces do");
        assert_eq!(rule.to_string(), "tcp/1, tcp/2 from lan, any");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("", "an empty rule"),
            ("tcp/22", "does not say from whom"),
            ("from lan", "an empty rule"),
            ("tcp/22 from", "from whom?"),
            ("22 from lan", "write tcp/22 or udp/22"),
            ("22/tcp from lan", "write tcp/22, the protocol first"),
            ("sctp/22 from lan", "`sctp` is neither tcp nor udp"),
            ("tcp/0 from lan", "`tcp/0` is not a port"),
            ("tcp/+1 from lan", "is not a port"),
            ("tcp/65536 from lan", "is not a port"),
            ("tcp/ from lan", "is not a port"),
            ("ssh from lan", "`ssh` is not a port"),
            ("tcp/90-80 from lan", "ends before it begins"),
            ("tcp/22 from everyone", "`everyone` is not self, lan"),
            ("tcp/22 from 10.0.0.0/33", "`33` is not a prefix length"),
            ("tcp/22 from 10.0.0.7/8", "write 10.0.0.0/8, or 10.0.0.7"),
            ("tcp/22 from fe80::1%eth0", "name the interface with via"),
            ("tcp/22 from lan via", "nothing stands behind `via`"),
            ("tcp/22 from lan via eth0 eth1", "`eth1` is not expected"),
            ("tcp/22 from lan via eth0 via eth1", "`eth1` is not expected"),
        ] {
            let message = text.parse::<Expectation>().expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
