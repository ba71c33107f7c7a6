//! Any datagram, decoded by whichever decoder its messages ask for. For captured or made-up bytes:
//! reading a machine knows what it asked for, and uses the decoders one by one.

use canreach_snapshot::{Address, Link, Neighbor, NexthopObject, PolicyRule, Proto, Route, Socket};

use super::attr::Malformed;
use super::message::{self, Message, Messages};
use super::{address, link, neighbor, nexthop, nft, policy_rule, route, sock_diag};

/// Which part of the kernel a datagram came from: message types mean something within one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `NETLINK_ROUTE`.
    Route,
    /// `NETLINK_SOCK_DIAG`, asked for one protocol.
    SockDiag(Proto),
    /// `NETLINK_NETFILTER`.
    Netfilter,
}

/// What one message holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// RTM_NEWLINK.
    Link(Box<Link>),
    /// RTM_NEWADDR.
    Address(Address),
    /// RTM_NEWROUTE.
    Route(Box<Route>),
    /// RTM_NEWRULE.
    PolicyRule(Box<PolicyRule>),
    /// RTM_NEWNEIGH.
    Neighbor(Neighbor),
    /// RTM_NEWNEXTHOP.
    Nexthop(NexthopObject),
    /// SOCK_DIAG_BY_FAMILY.
    Socket(Box<Socket>),
    /// A message of nftables.
    Nft(Box<nft::Part>),
    /// NLMSG_ERROR, with the kernel's own words where it gave some.
    Error(i32, Option<String>),
}

/// Every row of a datagram, and every message that does not hold what it says it holds. Messages of
/// other types are passed over.
pub fn rows(origin: Origin, datagram: &[u8]) -> impl Iterator<Item = Result<Row, Malformed>> {
    Messages::new(datagram).filter_map(move |message| match message {
        Ok(message) => row(origin, &message).transpose(),
        Err(error) => Some(Err(error)),
    })
}

fn row(origin: Origin, message: &Message<'_>) -> Result<Option<Row>, Malformed> {
    if message.kind == message::ERROR {
        return Ok(Some(Row::Error(message.errno(), message.error_text())));
    }
    Ok(match origin {
        // Numbers go by object: new, delete, get.
        Origin::Route => match message.kind.wrapping_add(2) {
            link::GET => link::decode(message)?.map(|row| Row::Link(Box::new(row.link))),
            address::GET => address::decode(message)?.map(Row::Address),
            route::GET => route::decode(message)?.map(|row| Row::Route(Box::new(row))),
            policy_rule::GET => {
                policy_rule::decode(message)?.map(|row| Row::PolicyRule(Box::new(row)))
            }
            neighbor::GET => neighbor::decode(message)?.map(Row::Neighbor),
            nexthop::GET => nexthop::decode(message)?.map(Row::Nexthop),
            _ => None,
        },
        Origin::SockDiag(proto) => match message.kind {
            sock_diag::BY_FAMILY => {
                sock_diag::decode(proto, message)?.map(|row| Row::Socket(Box::new(row)))
            }
            _ => None,
        },
        Origin::Netfilter => nft::decode(message)?.map(|part| Row::Nft(Box::new(part))),
    })
}
