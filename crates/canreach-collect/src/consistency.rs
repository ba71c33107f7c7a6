//! Whether the parts of a reading fit together, although they were read one after the other.
//!
//! A dump is consistent in itself (`NLM_F_DUMP_INTR`). An address and its routes come from two dumps,
//! though, and a link that went away between them leaves routes to nowhere. So the kernel's
//! notifications are subscribed to before the first dump, and counted after the last. Changes of
//! one kind alone make no torn picture: it is the state at the moment that kind was read. A router
//! that learns a route each second is therefore read once.

use std::collections::BTreeSet;
use std::io;

use canreach_snapshot::{Family, GapSubject};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, bind, recv};

use crate::netlink::attr::family_of;
use crate::netlink::message::Messages;
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};
use crate::netlink::{address, link, nexthop, policy_rule, route};

/// `RTNLGRP_*` of include/uapi/linux/rtnetlink.h: links, addresses, routes and rules of both
/// families, and nexthop objects.
const GROUPS: [u32; 8] = [1, 5, 7, 8, 9, 11, 19, 32];

/// A subscription to changes of the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct ChangeWatch {
    netlink: NetlinkSocket,
}

impl ChangeWatch {
    /// Starts to watch.
    pub(crate) fn start() -> io::Result<Self> {
        let netlink = NetlinkSocket::open(NetlinkFamily::Route)?;
        let groups = GROUPS.iter().fold(0, |groups, number| groups | 1 << (number - 1));
        bind(&netlink, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { netlink })
    }

    /// What has changed since it was started or last asked, when that tears the picture: more than
    /// one kind of thing.
    pub(crate) fn torn(&self) -> BTreeSet<GapSubject> {
        let mut changed = BTreeSet::new();
        // Almost always there is nothing to receive, so this is no place for an allocation.
        let mut buffer = [0; 8 * 1024];
        loop {
            match recv(&self.netlink, &mut buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                // Longer than any notification of the kinds that are read.
                Ok((_, length)) if length > buffer.len() => changed.extend(everything()),
                Ok((_, length)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    changed.extend(Messages::new(datagram).filter_map(|message| {
                        let message = message.ok()?;
                        subject(message.kind, *message.payload.first()?)
                    }));
                }
                Err(Errno::INTR) => {}
                // More happened than the kernel could keep for us.
                Err(Errno::NOBUFS) => changed.extend(everything()),
                Err(_) => break,
            }
        }
        if changed.len() > 1 { changed } else { BTreeSet::new() }
    }
}

fn everything() -> impl Iterator<Item = GapSubject> {
    let of_family = Family::BOTH.into_iter().flat_map(|family| {
        [GapSubject::Addresses(family), GapSubject::Routes(family), GapSubject::PolicyRules(family)]
    });
    of_family.chain([GapSubject::Links])
}

/// What a notification is about. Kinds come in fours: new, deleted, asked for, set.
fn subject(kind: u16, family: u8) -> Option<GapSubject> {
    const FOUR: u16 = !3;
    let kind = kind & FOUR;
    if kind == link::GET & FOUR {
        return Some(GapSubject::Links);
    }
    if kind == nexthop::GET & FOUR {
        return Some(GapSubject::Nexthops);
    }
    let family = family_of(family)?;
    if kind == address::GET & FOUR {
        Some(GapSubject::Addresses(family))
    } else if kind == route::GET & FOUR {
        Some(GapSubject::Routes(family))
    } else if kind == policy_rule::GET & FOUR {
        Some(GapSubject::PolicyRules(family))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_name_what_changed() {
        let (v4, v6) = (2, 10);
        for (kind, family, expected) in [
            (16, 0, Some(GapSubject::Links)),
            (17, 0, Some(GapSubject::Links)),
            (20, v4, Some(GapSubject::Addresses(Family::Ipv4))),
            (21, v6, Some(GapSubject::Addresses(Family::Ipv6))),
            (24, v6, Some(GapSubject::Routes(Family::Ipv6))),
            (33, v4, Some(GapSubject::PolicyRules(Family::Ipv4))),
            (104, 0, Some(GapSubject::Nexthops)),
            (28, v4, None),
            (24, 128, None),
        ] {
            assert_eq!(subject(kind, family), expected, "kind {kind}, family {family}");
        }
    }
}
