//! Asking about one port by every way in: what the classifier asks, with the answers kept whole.

use std::net::IpAddr;

use canreach_snapshot::{Family, Ifindex, Port, Prefix, Proto, Socket};

use super::{Classifier, How, Reach, Way, dialled_here, leads_in};
use crate::link_role::{LinkRole, link_roles};
use crate::{AddressSet, Answer, Arrival, Host, Question};

/// One way in: a link, and an address that those behind it can dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayIn {
    /// The link; `None` for this machine itself.
    pub via: Option<Ifindex>,
    /// What is behind that link.
    pub role: LinkRole,
    /// The address dialled.
    pub to: IpAddr,
    /// How the address leads here.
    pub how: How,
}

/// Asks about ports of one host.
pub struct Inquiry<'h, 'n> {
    classifier: Classifier<'h, 'n>,
}

impl<'h, 'n> Inquiry<'h, 'n> {
    /// An inquiry about a host. It remembers what does not depend on the port.
    #[must_use]
    pub fn new(host: &'h Host<'n>) -> Self {
        Self { classifier: Classifier::new(host) }
    }

    /// The host it is about.
    #[must_use]
    pub const fn host(&self) -> &'h Host<'n> {
        self.classifier.host
    }

    /// Every way in from outside, the widest links first.
    #[must_use]
    pub fn ways(&self) -> Vec<WayIn> {
        let way =
            |way: &Way| WayIn { via: Some(way.link), role: way.role, to: way.to, how: How::Direct };
        self.classifier.ways.iter().map(way).collect()
    }

    /// There are more ways in than [`Self::ways`] names.
    #[must_use]
    pub const fn is_cut_short(&self) -> bool {
        self.classifier.too_many_ways
    }

    /// The way in by a link of this name to any address, own or not; `None` without such a link, or
    /// where nobody is behind it.
    #[must_use]
    pub fn way_by(&self, link: &str, to: IpAddr) -> Option<WayIn> {
        let netns = self.host().netns();
        let index = netns.links.iter().position(|known| known.name == link)?;
        let role = *link_roles(netns).get(index).filter(|role| leads_in(**role))?;
        Some(WayIn { via: Some(netns.links[index].ifindex), role, to, how: How::Direct })
    }

    /// The way from this machine itself to one of its sockets.
    #[must_use]
    pub fn way_here(&self, socket: &Socket) -> WayIn {
        let to = dialled_here(socket);
        WayIn { via: None, role: LinkRole::Loopback, to, how: How::Direct }
    }

    /// What becomes of everybody's packets on one way. `uid` is who asks on this machine itself.
    pub fn ask(&mut self, proto: Proto, port: Port, way: &WayIn, uid: u32) -> Answer {
        let family = Family::of(way.to);
        let (from, via) = match way.via {
            Some(link) => (AddressSet::all(family), Arrival::Link(link)),
            None => {
                let itself = AddressSet::from_prefixes(family, [Prefix::host(way.to)]);
                (itself, Arrival::Local { uid })
            }
        };
        self.classifier.answer(&Question { proto, port, from, to: way.to, via })
    }

    /// How wide a circle sources on a way are.
    #[must_use]
    pub fn circle(&self, way: &WayIn, sources: &AddressSet) -> Reach {
        match way.via {
            Some(link) => {
                let way = Way { link, role: way.role, to: way.to };
                self.classifier.circle(&way, sources)
            }
            None => Reach::Itself,
        }
    }
}
