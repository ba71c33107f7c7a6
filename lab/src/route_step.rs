//! A route of a host under test, as `ip route` writes it.
//!
//! ```text
//! route local 10.9.0.0/16 dev lo table 100
//! route default via 10.1.0.2 dev a0 metric 5 src 10.1.0.1 onlink
//! route default nexthop via 10.1.0.2 dev a0 nexthop via 10.2.0.2 dev a1
//! route del 10.9.0.0/16 dev a0
//! ```

use std::fmt;
use std::net::IpAddr;

use anyhow::{Result, bail};
use canreach_snapshot::{Family, Prefix, RouteType, Scope, TableId};

use crate::netlink::{APPEND, CREATE, Request};
use crate::step::{read_scope, scope_name};
use crate::words::Words;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTNH_F_ONLINK: u32 = 4;
const RTPROT_BOOT: u8 = 3;

/// A route that is added or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStep {
    /// Added; removed otherwise.
    pub add: bool,
    /// What it does.
    pub kind: RouteType,
    /// Destinations.
    pub destination: Prefix,
    /// IPv6: sources.
    pub source: Option<Prefix>,
    /// The table, where it is not the usual one of its kind.
    pub table: Option<TableId>,
    /// Its metric.
    pub metric: Option<u32>,
    /// The source that local senders use.
    pub preferred_source: Option<IpAddr>,
    /// How far its destinations are, where that is not the usual for its kind.
    pub scope: Option<Scope>,
    /// The TOS byte it matches.
    pub tos: u8,
    /// The gateway is taken to be on the link.
    pub on_link: bool,
    /// Ways out: several for a multipath route.
    pub hops: Vec<Hop>,
}

/// One way out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hop {
    /// The router.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub link: Option<String>,
}

const KINDS: [(&str, RouteType, u8); 9] = [
    ("unicast", RouteType::Unicast, 1),
    ("local", RouteType::Local, 2),
    ("broadcast", RouteType::Broadcast, 3),
    ("anycast", RouteType::Anycast, 4),
    ("multicast", RouteType::Multicast, 5),
    ("blackhole", RouteType::Blackhole, 6),
    ("unreachable", RouteType::Unreachable, 7),
    ("prohibit", RouteType::Prohibit, 8),
    ("throw", RouteType::Throw, 9),
];

impl RouteStep {
    /// A route without anything special.
    #[must_use]
    pub const fn plain(kind: RouteType, destination: Prefix, hops: Vec<Hop>) -> Self {
        Self {
            add: true,
            kind,
            destination,
            source: None,
            table: None,
            metric: None,
            preferred_source: None,
            scope: None,
            tos: 0,
            on_link: false,
            hops,
        }
    }

    /// Reads what follows the word `route`.
    ///
    /// # Errors
    /// If it is no route.
    pub fn read(words: &mut Words<'_>) -> Result<Self> {
        let add = !words.take("del");
        let ipv6 = words.take("-6");
        let kind = KINDS.iter().find(|(name, _, _)| words.take(name));
        let kind = kind.map_or(RouteType::Unicast, |(_, kind, _)| *kind);
        let family = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
        let destination =
            if words.take("default") { Prefix::all(family) } else { words.value("a prefix")? };
        let mut step = Self { add, ..Self::plain(kind, destination, Vec::new()) };
        while let Some(word) = words.next_word() {
            match word {
                "via" => step.hop().gateway = Some(words.value("an address")?),
                "dev" => step.hop().link = Some(words.word("a link")?.to_owned()),
                "nexthop" => step.hops.push(Hop::default()),
                "table" => step.table = Some(TableId(words.value("a table")?)),
                "metric" => step.metric = Some(words.value("a metric")?),
                "src" => step.preferred_source = Some(words.value("an address")?),
                "from" => step.source = Some(words.value("a prefix")?),
                "tos" => step.tos = words.value("a TOS byte")?,
                "scope" => step.scope = Some(read_scope(words)?),
                "onlink" => step.on_link = true,
                other => bail!("`{}`: a route has no `{other}`", words.line()),
            }
        }
        Ok(step)
    }

    fn hop(&mut self) -> &mut Hop {
        if self.hops.is_empty() {
            self.hops.push(Hop::default());
        }
        self.hops.last_mut().expect("one was put there if there was none")
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.destination.family()
    }

    fn effective_scope(&self) -> Scope {
        let default = match (self.family(), self.kind) {
            (Family::Ipv6, _) => Scope::UNIVERSE,
            (Family::Ipv4, RouteType::Local) => Scope::HOST,
            (Family::Ipv4, RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast) => {
                Scope::LINK
            }
            (Family::Ipv4, RouteType::Unicast) if !self.add => Scope::NOWHERE,
            (Family::Ipv4, RouteType::Unicast)
                if self.hops.iter().all(|hop| hop.gateway.is_none()) =>
            {
                Scope::LINK
            }
            (Family::Ipv4, _) => Scope::UNIVERSE,
        };
        self.scope.unwrap_or(default)
    }

    /// The request that does it. `index` finds the index of a link by its name.
    ///
    /// # Errors
    /// If it names a link that is not there.
    pub fn request(&self, index: &dyn Fn(&str) -> Result<u32>) -> Result<Request> {
        let kind = KINDS.iter().find(|(_, kind, _)| *kind == self.kind);
        let number = kind.map_or(0, |(_, _, number)| *number);
        let usual = match self.kind {
            RouteType::Local | RouteType::Broadcast | RouteType::Anycast => TableId::LOCAL,
            _ => TableId::MAIN,
        };
        let header = [
            family_number(self.family()),
            self.destination.length(),
            self.source.map_or(0, Prefix::length),
            self.tos,
            0,
            RTPROT_BOOT,
            self.effective_scope().0,
            number,
        ];
        let flags = if self.on_link { RTNH_F_ONLINK } else { 0 };
        let header = [&header[..], &flags.to_ne_bytes()].concat();
        let (message, extra) =
            if self.add { (RTM_NEWROUTE, CREATE | APPEND) } else { (RTM_DELROUTE, 0) };
        let mut request = Request::new(message, extra, &header, &self.to_string())
            .attribute(RTA_DST, &address_bytes(self.destination.network().address()))
            .number(RTA_TABLE, self.table.unwrap_or(usual).0)
            .maybe(RTA_PRIORITY, self.metric);
        if let Some(source) = self.source {
            request = request.attribute(RTA_SRC, &address_bytes(source.network().address()));
        }
        if let Some(source) = self.preferred_source {
            request = request.attribute(RTA_PREFSRC, &address_bytes(source));
        }
        match self.hops.as_slice() {
            [] => {}
            [hop] => {
                if let Some(link) = &hop.link {
                    request = request.number(RTA_OIF, index(link)?);
                }
                request = self.add_gateway(request, hop);
            }
            several => {
                let mut entries = Vec::new();
                for hop in several {
                    entries.push((hop.link.as_deref().map(index).transpose()?, hop));
                }
                request = request.nested(RTA_MULTIPATH, |request| {
                    entries.into_iter().fold(request, |request, (oif, hop)| {
                        self.add_nexthop(request, oif.unwrap_or(0), hop)
                    })
                });
            }
        }
        Ok(request)
    }

    fn add_gateway(&self, request: Request, hop: &Hop) -> Request {
        match hop.gateway {
            None => request,
            Some(gateway) if Family::of(gateway) == self.family() => {
                request.attribute(RTA_GATEWAY, &address_bytes(gateway))
            }
            // struct rtvia: the family, then the address.
            Some(gateway) => {
                let family = u16::from(family_number(Family::of(gateway))).to_ne_bytes();
                request.attribute(RTA_VIA, &[&family[..], &address_bytes(gateway)].concat())
            }
        }
    }

    fn add_nexthop(&self, request: Request, oif: u32, hop: &Hop) -> Request {
        // struct rtnexthop starts with its length, as an attribute does: its flags and weight lie
        // where an attribute has its type.
        let entry = self.add_gateway(Request::new(0, 0, &[], ""), hop);
        let attributes = entry.body();
        let length = u16::try_from(8 + attributes.len()).expect("one gateway is short");
        let header = [&length.to_ne_bytes()[..], &[0, 0], &oif.to_ne_bytes()].concat();
        request.raw(&header).raw(attributes)
    }
}

/// AF_INET or AF_INET6.
#[must_use]
pub const fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

/// An address as it stands in messages and packets.
#[must_use]
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl fmt::Display for RouteStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.add { "route " } else { "route del " })?;
        if self.destination == Prefix::all(Family::Ipv6) {
            formatter.write_str("-6 ")?;
        }
        if self.kind != RouteType::Unicast {
            let kind = KINDS.iter().find(|(_, kind, _)| *kind == self.kind);
            write!(formatter, "{} ", kind.map_or("other", |(name, _, _)| *name))?;
        }
        if self.destination.length() == 0 {
            formatter.write_str("default")?;
        } else {
            self.destination.fmt(formatter)?;
        }
        for hop in &self.hops {
            if self.hops.len() > 1 {
                formatter.write_str(" nexthop")?;
            }
            if let Some(gateway) = hop.gateway {
                write!(formatter, " via {gateway}")?;
            }
            if let Some(link) = &hop.link {
                write!(formatter, " dev {link}")?;
            }
        }
        if let Some(source) = self.source {
            write!(formatter, " from {source}")?;
        }
        if let Some(table) = self.table {
            write!(formatter, " table {}", table.0)?;
        }
        if let Some(metric) = self.metric {
            write!(formatter, " metric {metric}")?;
        }
        if let Some(source) = self.preferred_source {
            write!(formatter, " src {source}")?;
        }
        if let Some(scope) = self.scope {
            write!(formatter, " scope {}", scope_name(scope))?;
        }
        if self.tos != 0 {
            write!(formatter, " tos {}", self.tos)?;
        }
        if self.on_link {
            formatter.write_str(" onlink")?;
        }
        Ok(())
    }
}
