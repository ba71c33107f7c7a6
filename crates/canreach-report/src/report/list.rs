//! `list`: every server, and who can reach it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use canreach_engine::audience::{ListenerReach, Reach, classify};
use canreach_engine::explain::rule_owner::rule_owner;
use canreach_engine::link_role::{LinkRole, is_public};
use canreach_engine::{AddressSet, DropReason, Host, SocketIndex, Subject, UnknownReason};
use canreach_snapshot::{GapReason, GapSubject, Netns, Proto, Snapshot, Socket, Virtualization};

use crate::report::firewall::{FirewallState, Loaded};
use crate::report::ip::{AddressEntry, best_entry};
use crate::report::program::{Program, Programs};
use crate::report::subject::link_name;
use crate::report::unknown::{self, UnknownThing};
use crate::report::url::Urls;

/// The servers of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListReport {
    /// The namespace's name, where it is not the one canreach ran in.
    pub netns: Option<String>,
    /// The address to hand out.
    pub best: Option<AddressEntry>,
    /// What is known of the firewall.
    pub firewall: FirewallState,
    /// The servers, by port.
    pub rows: Vec<ListenerRow>,
    /// What this system runs inside.
    pub inside: Option<Virtualization>,
    /// What is not known.
    pub unknown: Vec<UnknownThing>,
}

/// One program on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerRow {
    /// TCP or UDP.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// Who holds it.
    pub program: Program,
    /// The widest circle with a *yes*.
    pub reach: Reach,
    /// The same, if everything that cannot be judged let packets pass.
    pub apart_from_doubts: Reach,
    /// The ways in.
    pub audience: Vec<WayIn>,
    /// What stops the others.
    pub stop: Option<DropReason>,
    /// The program whose rule does.
    pub stopped_by: Option<&'static str>,
    /// Why it cannot be told.
    pub doubt: Option<UnknownReason>,
    /// Addresses to hand out, for servers that browsers open.
    pub urls: Vec<String>,
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bind {
    /// The address.
    pub address: IpAddr,
    /// The link it is bound to.
    pub device: Option<String>,
    /// Takes no IPv4; `None` for IPv4 sockets, or where the kernel did not say.
    pub v6only: Option<bool>,
}

/// One way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayIn {
    /// The link; `None` for this computer itself.
    pub via: Option<String>,
    /// What is behind it.
    pub role: LinkRole,
    /// The address dialled.
    pub to: IpAddr,
    /// It is one of that link's own. Others have to route it here by hand.
    pub own_address: bool,
    /// The sources that get through.
    pub sources: AddressSet,
    /// How the address leads here.
    pub how: &'static str,
}

/// What rows have in common that are shown as one.
type RowKey = (u16, Proto, Option<u32>, Option<String>, u32);

impl ListReport {
    /// The servers of a namespace. `split` leaves each socket a row of its own.
    #[must_use]
    pub fn new(snapshot: &Snapshot, netns: &Netns, split: bool, command: &str) -> Self {
        let host = Host::resolve_among(snapshot, netns);
        let mut rows: BTreeMap<(RowKey, usize), ListenerRow> = BTreeMap::new();
        let programs = Programs::new(snapshot, netns);
        let mut urls = Urls::new(snapshot, netns);
        let best = best_entry(snapshot, netns);
        for (position, reach) in classify(&host).into_iter().enumerate() {
            let SocketIndex(index) = reach.socket;
            let socket = &netns.sockets[index];
            let program = programs.of(socket);
            let key = (
                socket.port.0,
                socket.proto,
                program.pid,
                program.name.clone().filter(|_| program.pid.is_none()),
                socket.uid,
            );
            let mut row = ListenerRow::new(netns, socket, program, reach);
            if let Some(best) = best.as_ref().filter(|best| row.is_reached_at(best.address)) {
                row.urls.extend(urls.of(socket, best.address));
            }
            match rows.entry((key, if split { position } else { 0 })) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(row);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().merge(row);
                }
            }
        }
        let rows: Vec<ListenerRow> = rows.into_values().collect();
        Self {
            netns: netns.name.clone().filter(|_| !netns.own),
            best,
            firewall: FirewallState::of(netns),
            unknown: unknown_things(snapshot, netns, &rows, command),
            rows,
            inside: snapshot.machine.virtualization,
        }
    }
}

impl ListenerRow {
    fn new(netns: &Netns, socket: &Socket, program: Program, reach: ListenerReach) -> Self {
        let way_in = |audience: canreach_engine::audience::Audience| WayIn {
            via: audience.via.map(|link| link_name(netns, link)),
            role: audience.role,
            to: audience.to,
            own_address: audience.via.is_none_or(|link| {
                netns
                    .addresses
                    .iter()
                    .any(|own| own.ifindex == link && own.address() == audience.to)
            }),
            sources: audience.sources,
            how: audience.how.slug(),
        };
        Self {
            proto: socket.proto,
            port: socket.port.0,
            binds: vec![Bind {
                address: socket.address,
                device: socket.device.map(|device| link_name(netns, device)),
                v6only: socket.v6only,
            }],
            program,
            reach: reach.reach,
            apart_from_doubts: reach.apart_from_doubts,
            audience: reach.audience.into_iter().map(way_in).collect(),
            stop: reach.stop,
            stopped_by: match reach.stop_subject {
                Some(Subject::Netfilter(subject)) => {
                    rule_owner(&netns.firewall, subject).map(|owner| owner.program())
                }
                _ => None,
            },
            doubt: reach.doubt,
            urls: Vec::new(),
        }
    }

    /// Some way in from outside leads to an address.
    fn is_reached_at(&self, address: IpAddr) -> bool {
        self.audience.iter().any(|way| way.via.is_some() && way.to == address)
    }

    /// Takes in another socket of the same program and port.
    fn merge(&mut self, other: Self) {
        for bind in other.binds {
            if !self.binds.contains(&bind) {
                self.binds.push(bind);
            }
        }
        for url in other.urls {
            if !self.urls.contains(&url) {
                self.urls.push(url);
            }
        }
        for way in other.audience {
            if !self.audience.contains(&way) {
                self.audience.push(way);
            }
        }
        let width = |reach: Reach| match reach {
            Reach::Blocked => 0,
            Reach::Itself => 1,
            Reach::Containers => 2,
            // A doubt counts for less than a certain yes of the widest kinds, and for more than others.
            Reach::Unknown => 3,
            Reach::Network => 4,
            Reach::Internet => 5,
        };
        if width(other.reach) > width(self.reach) {
            (self.reach, self.stop, self.doubt) = (other.reach, other.stop, other.doubt);
            self.stopped_by = other.stopped_by;
        }
        self.apart_from_doubts = self.apart_from_doubts.max(other.apart_from_doubts);
    }

    /// Some way in from outside leads to an address that no router has to translate: a public IPv4
    /// address, or a public IPv6 address on a machine without IPv4. Where IPv4 is private, a router
    /// is in between, and routers for homes let nothing in over IPv6 either.
    #[must_use]
    pub fn has_public_way(&self) -> bool {
        let outside = || self.audience.iter().filter(|way| way.via.is_some());
        let has_ipv4 = outside().any(|way| way.to.is_ipv4());
        outside().any(|way| is_public(way.to) && (way.to.is_ipv4() || !has_ipv4))
    }

    /// No way in from outside that needs no route made by hand.
    #[must_use]
    pub fn is_routed_only(&self) -> bool {
        let lan = |way: &&WayIn| matches!(way.role, LinkRole::Lan | LinkRole::VirtualLan);
        let mut ways = self.audience.iter().filter(lan).peekable();
        ways.peek().is_some() && ways.all(|way| !way.own_address)
    }

    /// Every way in from outside is a VPN's.
    #[must_use]
    pub fn is_vpn_only(&self) -> bool {
        let mut outside = self.audience.iter().filter(|way| way.via.is_some()).peekable();
        outside.peek().is_some() && outside.all(|way| way.role == LinkRole::Vpn)
    }
}

fn unknown_things(
    snapshot: &Snapshot,
    netns: &Netns,
    rows: &[ListenerRow],
    command: &str,
) -> Vec<UnknownThing> {
    let in_doubt = rows.iter().any(|row| row.reach == Reach::Unknown);
    let owners_missing = rows.iter().any(|row| row.program.reason.is_some());
    let bears = |subject: &GapSubject| match subject {
        GapSubject::Owners => owners_missing,
        other => in_doubt || unknown::bears_on_a_list(other),
    };
    let mut things: Vec<UnknownThing> = netns
        .gaps
        .iter()
        .chain(&snapshot.gaps)
        .filter(|gap| bears(&gap.subject) && gap.reason != GapReason::NotRead)
        .map(|gap| unknown::of_gap(gap, command))
        .collect();
    if FirewallState::of(netns).loaded == Loaded::Unjudged {
        things.push(UnknownThing {
            what: "firewall".to_owned(),
            reason: UnknownReason::NotModelled.slug(),
            how: None,
        });
    }
    let of_rules = rows.iter().filter_map(|row| row.doubt).filter(|doubt| is_about_a_rule(*doubt));
    things.extend(of_rules.map(|doubt| UnknownThing {
        what: "firewall-rule".to_owned(),
        reason: doubt.slug(),
        how: None,
    }));
    if !netns.bpf.is_empty() {
        things.push(UnknownThing {
            what: "bpf".to_owned(),
            reason: UnknownReason::OpaqueProgram.slug(),
            how: None,
        });
    }
    unknown::tidy(&mut things);
    things
}

/// Reasons that rules alone give.
#[must_use]
pub const fn is_about_a_rule(doubt: UnknownReason) -> bool {
    matches!(
        doubt,
        UnknownReason::RateLimit
            | UnknownReason::EarlierPackets
            | UnknownReason::RandomChoice
            | UnknownReason::TimeOfDay
            | UnknownReason::PacketDetails
            | UnknownReason::UserSpace
            | UnknownReason::HookOrder
    )
}
