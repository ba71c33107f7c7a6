//! Who, in a few words: the circles that sources are in, widest first.

use std::net::IpAddr;

use canreach_engine::AddressSet;
use canreach_engine::audience::Reach;
use canreach_engine::link_role::LinkRole;

use crate::phrase::{self, Circle};
use crate::report::check::OutsideRow;
use crate::report::diff::ChangeRow;

/// Some sources, as far as words for them go.
pub(super) struct Sources<'a> {
    pub(super) reach: Reach,
    pub(super) role: LinkRole,
    /// Some of them are neighbours.
    pub(super) neighbors: bool,
    /// No router has to translate the address they dial.
    pub(super) public: bool,
    pub(super) to: IpAddr,
    pub(super) set: &'a AddressSet,
}

impl<'a> From<&'a OutsideRow> for Sources<'a> {
    fn from(row: &'a OutsideRow) -> Self {
        Self {
            reach: row.circle,
            role: row.role,
            neighbors: row.neighbors,
            public: row.public,
            to: row.to,
            set: &row.sources,
        }
    }
}

impl<'a> From<&'a ChangeRow> for Sources<'a> {
    fn from(row: &'a ChangeRow) -> Self {
        Self {
            reach: row.circle,
            role: row.role,
            neighbors: row.neighbors,
            public: row.public,
            to: row.to,
            set: &row.sources,
        }
    }
}

/// The circle they are in. Where some dial a private IPv4 address, a router is in between, and
/// routers for homes let nothing in over IPv6 either.
fn circle(sources: &Sources<'_>, all: &[Sources<'_>]) -> Circle {
    let translated = || all.iter().any(|other| other.to.is_ipv4() && !other.public);
    let public = sources.public && (sources.to.is_ipv4() || !translated());
    match (sources.reach, sources.role) {
        (Reach::Itself, _) => Circle::Itself,
        (Reach::Containers, _) => Circle::Containers,
        (_, LinkRole::Vpn) => Circle::Vpn,
        (Reach::Internet, _) if public => Circle::Internet,
        (Reach::Internet | Reach::Network, _) if !sources.neighbors => Circle::Router,
        (Reach::Internet | Reach::Network | Reach::Blocked | Reach::Unknown, _) => Circle::Network,
    }
}

/// Who they are: a machine or two by their addresses, more by the circles they are in, the widest
/// first and as many as fit.
pub(super) fn words(all: &[Sources<'_>], room: usize) -> String {
    /// More machines than this are not named one by one.
    const MACHINES_MAX: usize = 2;
    let mut machines: Vec<String> = Vec::new();
    let mut few = true;
    for sources in all.iter().filter(|sources| sources.reach != Reach::Itself) {
        for prefix in sources.set.to_prefixes() {
            few &= prefix.length() == prefix.family().bits();
            let machine = prefix.address().to_string();
            if few && !machines.contains(&machine) {
                machines.push(machine);
            }
        }
    }
    if few && (1..=MACHINES_MAX).contains(&machines.len()) {
        return machines.join(", ");
    }
    let mut circles: Vec<Circle> = all.iter().map(|one| circle(one, all)).collect();
    circles.sort_unstable_by(|one, other| other.cmp(one));
    circles.dedup();
    // The wider one says it.
    if circles.contains(&Circle::Internet) {
        circles.retain(|circle| !matches!(circle, Circle::Network | Circle::Router));
    }
    if circles.contains(&Circle::Network) {
        circles.retain(|circle| *circle != Circle::Router);
    }
    if circles.len() > 1 {
        circles.retain(|circle| *circle != Circle::Itself);
    }
    let mut text = String::new();
    for (index, circle) in circles.into_iter().enumerate() {
        let word = phrase::circle_word(circle);
        if index == 0 {
            text.push_str(word);
        } else if text.len() + 2 + word.len() <= room {
            text.push_str(", ");
            text.push_str(word);
        }
    }
    text
}
