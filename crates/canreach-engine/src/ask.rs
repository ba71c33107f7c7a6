//! What a person typed, made into questions with nothing left open.
//!
//! A person leaves most of it out: from whom, to which address, by which link. The defaults are
//! what they mean as a rule: people on the networks of the LAN links, the address that `ip` hands
//! out, the link it is on. The first question is the one the verdict is about; the rest are the same
//! question for other links and the other family.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use canreach_snapshot::{
    Family, Ifindex, Netns, PolicyAction, PolicyRule, Port, Prefix, Proto, RouteType, TableId,
};

use crate::address_choice::AddressChoice;
use crate::link_role::{is_link_local, lan_links, link_networks, receiving_link};
use crate::{AddressSet, Arrival, Question};

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// TCP or UDP.
    pub proto: Proto,
    /// The port dialled. Never 0.
    pub port: Port,
    /// From whom.
    pub from: Option<From>,
    /// The address dialled.
    pub to: Option<ZonedAddress>,
    /// The name of the link the packet comes in by.
    pub via: Option<String>,
    /// The user that a client on this machine runs as.
    pub uid: u32,
}

/// From whom, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// `lan`: the networks of the LAN links.
    Lan,
    /// `self`: this machine talking to itself.
    Itself,
    /// `any`: every address.
    Any,
    /// An address, perhaps with a link.
    Address(ZonedAddress),
    /// A prefix.
    Prefix(Prefix),
}

/// An address, and for link-local ones the link it is on: `fe80::1%eth0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZonedAddress {
    /// The address.
    pub address: IpAddr,
    /// The name or the index of the link.
    pub zone: Option<String>,
}

/// A text that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhoError {
    /// It looks like a host name. Names are not looked up: the answer would depend on who asks.
    #[error("`{0}` is a name, and canreach does not look names up: give its address instead")]
    Name(String),
    /// It is no address.
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    NoAddress(String),
    /// It is an address with something wrong behind the slash.
    #[error(transparent)]
    Prefix(#[from] canreach_snapshot::PrefixError),
    /// `10.0.0.1%eth0`.
    #[error("`{0}`: only IPv6 addresses take a link behind `%`")]
    ZoneOfIpv4(String),
}

/// Why what was typed makes no question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The link does not exist.
    #[error("there is no interface {name} here; there are: {}", existing.join(", "))]
    NoSuchLink {
        /// As it was typed.
        name: String,
        /// Those that exist.
        existing: Vec<String>,
    },
    /// Sources of one family, a destination of the other.
    #[error("{from} and {to} are of different families: nobody can send from one to the other")]
    Families {
        /// The sources.
        from: String,
        /// The destination.
        to: IpAddr,
    },
    /// A link-local address without its link.
    #[error("{0} exists on every link: say which one, as in {0}%{1}")]
    NeedsLink(IpAddr, String),
    /// Two different links were named.
    #[error("{first} and {second}: a packet comes in by one interface only, name one")]
    TwoLinks {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// This machine has no address on a LAN, in the families that were asked about. Not an error of
    /// the person who asks: nobody can connect.
    #[error("this computer has no address on a network")]
    NoLanAddress,
}

impl Ask {
    /// The questions, the primary one first. Never empty.
    ///
    /// # Errors
    /// If what was typed contradicts itself or the machine, or nobody could dial anything.
    pub fn questions(
        &self,
        netns: &Netns,
        choice: &AddressChoice,
    ) -> Result<Vec<Question>, AskError> {
        let via = self.named_link(netns)?;
        let to = self.to.as_ref().map(|to| to.address);
        match &self.from {
            Some(From::Itself) => Ok(vec![self.local_question(netns, choice)?]),
            Some(From::Address(from)) => {
                self.of_prefix(netns, choice, Prefix::host(from.address), to, via)
            }
            Some(From::Prefix(prefix)) => self.of_prefix(netns, choice, *prefix, to, via),
            Some(From::Any) => self.of_any(netns, choice, to, via),
            Some(From::Lan) | None => self.of_lan(netns, choice, to, via),
        }
    }

    /// The one link that `--via` and the zones of addresses name.
    fn named_link(&self, netns: &Netns) -> Result<Option<Ifindex>, AskError> {
        let of_from = match &self.from {
            Some(From::Address(from)) => from.zone.as_ref(),
            _ => None,
        };
        let of_to = self.to.as_ref().and_then(|to| to.zone.as_ref());
        let mut found: Option<(Ifindex, &String)> = None;
        for name in [self.via.as_ref(), of_from, of_to].into_iter().flatten() {
            let link = find_link(netns, name)?;
            match found {
                Some((first, first_name)) if first != link => {
                    let (first, second) = (first_name.clone(), name.clone());
                    return Err(AskError::TwoLinks { first, second });
                }
                _ => found = Some((link, name)),
            }
        }
        let link_local = [of_from_address(&self.from), self.to.as_ref().map(|to| to.address)];
        if found.is_none() && self.from != Some(From::Itself) {
            for address in link_local.into_iter().flatten() {
                if let IpAddr::V6(v6) = address
                    && v6.is_unicast_link_local()
                {
                    return Self::only_link_with(netns, address).map(Some);
                }
            }
        }
        Ok(found.map(|(link, _)| link))
    }

    /// The link of a link-local address that no link was named for: the only one that has it.
    fn only_link_with(netns: &Netns, address: IpAddr) -> Result<Ifindex, AskError> {
        let mut owners: Vec<Ifindex> = netns
            .addresses
            .iter()
            .filter(|own| own.address() == address)
            .map(|own| own.ifindex)
            .collect();
        owners.dedup();
        match owners.as_slice() {
            [only] => Ok(*only),
            _ => {
                let example = lan_links(netns).first().and_then(|link| netns.link(*link));
                let name = example.map_or_else(|| "eth0".to_owned(), |link| link.name.clone());
                Err(AskError::NeedsLink(address, name))
            }
        }
    }

    fn question(&self, from: AddressSet, to: IpAddr, via: Arrival) -> Question {
        Question { proto: self.proto, port: self.port, from, to, via }
    }

    /// This machine talking to itself. Without a LAN address it still has 127.0.0.1.
    fn local_question(&self, netns: &Netns, choice: &AddressChoice) -> Result<Question, AskError> {
        let best = choice.best().and_then(|best| netns.addresses.get(best.index));
        let to = self
            .to
            .as_ref()
            .map(|to| to.address)
            .or_else(|| best.map(canreach_snapshot::Address::address))
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let from = AddressSet::from_prefixes(Family::of(to), [Prefix::host(to)]);
        Ok(self.question(from, to, Arrival::Local { uid: self.uid }))
    }

    fn of_prefix(
        &self,
        netns: &Netns,
        choice: &AddressChoice,
        prefix: Prefix,
        to: Option<IpAddr>,
        via: Option<Ifindex>,
    ) -> Result<Vec<Question>, AskError> {
        let family = prefix.family();
        if let Some(to) = to.filter(|to| Family::of(*to) != family) {
            let from = if prefix.length() == family.bits() {
                prefix.address().to_string()
            } else {
                prefix.to_string()
            };
            return Err(AskError::Families { from, to });
        }
        let own = netns.addresses.iter().any(|own| Prefix::host(own.address()) == prefix);
        let from = AddressSet::from_prefixes(family, [prefix]);
        // Packets of this machine to itself never touch a wire, whatever their source.
        let via = match via {
            None if own => Arrival::Local { uid: self.uid },
            via => Arrival::Link(
                via.or_else(|| link_back_to(netns, prefix))
                    .or_else(|| lan_links(netns).first().copied())
                    .ok_or(AskError::NoLanAddress)?,
            ),
        };
        let link = match via {
            Arrival::Link(link) => Some(link),
            Arrival::Local { .. } => None,
        };
        let to = to
            .or_else(|| handed_out(netns, choice, family, link, prefix.address()))
            .ok_or(AskError::NoLanAddress)?;
        Ok(vec![self.question(from, to, receiving(netns, via))])
    }

    fn of_any(
        &self,
        netns: &Netns,
        choice: &AddressChoice,
        to: Option<IpAddr>,
        via: Option<Ifindex>,
    ) -> Result<Vec<Question>, AskError> {
        let best = choice.best().and_then(|best| netns.addresses.get(best.index));
        let to = to
            .or_else(|| via.and_then(|via| address_on(netns, choice, Family::Ipv4, via)))
            .or_else(|| via.and_then(|via| address_on(netns, choice, Family::Ipv6, via)))
            .or_else(|| best.map(canreach_snapshot::Address::address))
            .ok_or(AskError::NoLanAddress)?;
        let owner = netns.addresses.iter().find(|own| own.address() == to).map(|own| own.ifindex);
        let lan = lan_links(netns);
        let family = Family::of(to);
        let link = via
            .or_else(|| owner.filter(|owner| netns.link(*owner).is_some_and(|l| !l.is_loopback())))
            .or_else(|| best.map(|best| best.ifindex))
            .or_else(|| lan.first().copied())
            .ok_or(AskError::NoLanAddress)?;
        let via = receiving(netns, Arrival::Link(link));
        Ok(vec![self.question(AddressSet::all(family), to, via)])
    }

    fn of_lan(
        &self,
        netns: &Netns,
        choice: &AddressChoice,
        to: Option<IpAddr>,
        via: Option<Ifindex>,
    ) -> Result<Vec<Question>, AskError> {
        let links = via.map_or_else(|| lan_links(netns), |via| vec![receiving_link(netns, via)]);
        let mut questions = Vec::new();
        for family in Family::BOTH {
            if to.is_some_and(|to| Family::of(to) != family) {
                continue;
            }
            for link in &links {
                let on_link = address_on(netns, choice, family, *link);
                let Some(dialled) = to.or(on_link) else { continue };
                let neighbors: Vec<Prefix> = link_networks(netns, *link, family)
                    .into_iter()
                    .filter(|network| {
                        family == Family::Ipv4
                            || is_link_local(network.address()) == is_link_local(dialled)
                    })
                    .collect();
                if !neighbors.is_empty() {
                    let from = AddressSet::from_prefixes(family, neighbors);
                    questions.push(self.question(from, dialled, Arrival::Link(*link)));
                }
            }
        }
        // The verdict is about the address that `ip` hands out, or the link that has the one named.
        let first = choice.best().and_then(|best| netns.addresses.get(best.index));
        let owner =
            to.and_then(|to| netns.addresses.iter().find(|own| own.address() == to)).or(first);
        let primary = owner.and_then(|owner| {
            let via = Arrival::Link(receiving_link(netns, owner.ifindex));
            let same_address = |question: &Question| question.to == owner.address();
            questions
                .iter()
                .position(|question| question.via == via && same_address(question))
                .or_else(|| questions.iter().position(|question| question.via == via))
        });
        if let Some(primary) = primary {
            questions[..=primary].rotate_right(1);
        }
        if questions.is_empty() { Err(AskError::NoLanAddress) } else { Ok(questions) }
    }
}

/// The address of a link that people behind it would dial.
fn address_on(
    netns: &Netns,
    choice: &AddressChoice,
    family: Family,
    link: Ifindex,
) -> Option<IpAddr> {
    let handed_out = choice.best_of(netns, family, Some(link));
    let any_on_link = || {
        let of_link = |own: &&canreach_snapshot::Address| {
            own.ifindex == link
                && own.prefix.family() == family
                && !(family == Family::Ipv6 && is_link_local(own.address()))
        };
        netns.addresses.iter().find(of_link)
    };
    handed_out.or_else(any_on_link).map(canreach_snapshot::Address::address)
}

/// The address somebody would dial who comes in by a link: one of that link, or else the best there
/// is. A link-local source dials a link-local address.
fn handed_out(
    netns: &Netns,
    choice: &AddressChoice,
    family: Family,
    link: Option<Ifindex>,
    from: IpAddr,
) -> Option<IpAddr> {
    if family == Family::Ipv6 && is_link_local(from) {
        let link_local = |own: &&canreach_snapshot::Address| {
            Some(own.ifindex) == link
                && own.prefix.family() == family
                && is_link_local(own.address())
        };
        return netns.addresses.iter().find(link_local).map(canreach_snapshot::Address::address);
    }
    let best = || choice.best_of(netns, family, None).map(canreach_snapshot::Address::address);
    link.and_then(|link| address_on(netns, choice, family, link)).or_else(best)
}

fn receiving(netns: &Netns, via: Arrival) -> Arrival {
    match via {
        Arrival::Link(link) => Arrival::Link(receiving_link(netns, link)),
        Arrival::Local { uid } => Arrival::Local { uid },
    }
}

fn of_from_address(from: &Option<From>) -> Option<IpAddr> {
    match from {
        Some(From::Address(from)) => Some(from.address),
        Some(From::Prefix(prefix)) => Some(prefix.address()),
        Some(From::Lan | From::Itself | From::Any) | None => None,
    }
}

fn find_link(netns: &Netns, name: &str) -> Result<Ifindex, AskError> {
    let by_index = || {
        let index = name.parse().ok().map(Ifindex)?;
        netns.link(index)
    };
    netns.link_named(name).or_else(by_index).map(|link| link.ifindex).ok_or_else(|| {
        /// More names than this help nobody.
        const SHOWN_MAX: usize = 12;
        let mut existing: Vec<String> =
            netns.links.iter().take(SHOWN_MAX).map(|link| link.name.clone()).collect();
        if netns.links.len() > SHOWN_MAX {
            existing.push("...".to_owned());
        }
        AskError::NoSuchLink { name: name.to_owned(), existing }
    })
}

/// The link that answers to a prefix would leave by: the policy rules in their order, in each table
/// the longest match, then the smallest metric. Rules that ask for more than the destination are
/// passed over; this only chooses the question, the engine judges its way back.
fn link_back_to(netns: &Netns, prefix: Prefix) -> Option<Ifindex> {
    let in_table = |table: TableId| {
        netns
            .routes
            .iter()
            .filter(|route| route.table == table && route.destination.covers(prefix))
            .max_by_key(|route| (route.destination.length(), std::cmp::Reverse(route.metric)))
    };
    let rules = netns.policy_rules.iter().filter(|rule| rule.family == prefix.family());
    let tables: Vec<(TableId, Option<u32>)> = rules
        .filter(|rule| takes_any_answer(rule))
        .filter_map(|rule| match rule.action {
            PolicyAction::Lookup(table) => Some((table, rule.suppress_prefix_length)),
            PolicyAction::Goto(_)
            | PolicyAction::Nop
            | PolicyAction::Blackhole
            | PolicyAction::Unreachable
            | PolicyAction::Prohibit
            | PolicyAction::Other(_) => None,
        })
        .collect();
    // A snapshot without rules is one of a kernel without them: table main is what there is.
    let main = [(TableId::MAIN, None)];
    let tables = if tables.is_empty() { &main[..] } else { &tables[..] };
    tables.iter().find_map(|(table, suppressed)| {
        let route = in_table(*table).filter(|route| route.kind == RouteType::Unicast)?;
        let length = u32::from(route.destination.length());
        let kept = suppressed.is_none_or(|suppressed| length > suppressed);
        route.nexthops.first().filter(|_| kept)?.ifindex
    })
}

/// Whether a rule takes answers of an ordinary server, whatever their source. A rule for everything
/// without a mark takes them: servers do not mark their packets.
fn takes_any_answer(rule: &PolicyRule) -> bool {
    let unmarked = if rule.invert { rule.mark != 0 } else { rule.mark_mask == 0 };
    unmarked
        && !rule.l3mdev
        && rule.source.is_none()
        && rule.destination.is_none()
        && rule.iif.is_none()
        && rule.oif.is_none()
        && rule.uid_range.is_none()
        && rule.ip_protocol.is_none()
        && rule.source_ports.is_none()
        && rule.destination_ports.is_none()
}

impl FromStr for ZonedAddress {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (text, None),
        };
        let parsed: Option<IpAddr> = address.parse().ok();
        match parsed {
            Some(IpAddr::V4(_)) if zone.is_some() => Err(WhoError::ZoneOfIpv4(text.to_owned())),
            // connect(2) to ::ffff:10.0.0.1 sends IPv4 packets, so that is what is asked about.
            Some(address) => Ok(Self { address: address.to_canonical(), zone }),
            None if looks_like_a_name(address) => Err(WhoError::Name(text.to_owned())),
            None => Err(WhoError::NoAddress(text.to_owned())),
        }
    }
}

impl FromStr for From {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        match text {
            "lan" => Ok(Self::Lan),
            "self" => Ok(Self::Itself),
            "any" => Ok(Self::Any),
            _ if text.contains('/') => match text.parse() {
                Ok(prefix) => Ok(Self::Prefix(Prefix::network(prefix))),
                Err(error) => Err(WhoError::Prefix(error)),
            },
            _ => text.parse().map(Self::Address),
        }
    }
}

impl fmt::Display for ZonedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(formatter, "{}%{zone}", self.address),
            None => self.address.fmt(formatter),
        }
    }
}

/// Letters that are not all hexadecimal digits with colons: a person meant a machine's name.
fn looks_like_a_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty()
        && text.bytes().all(allowed)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}
