//! Carries out the lines of a host, in order, inside its namespace.
//!
//! Netlink requests are collected and sent together; whatever is done in another way (sysctls, servers,
//! carriers) waits for those before it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use canreach_snapshot::Family;
use rustix::net::{AddressFamily, SocketType};

use crate::filter_step::{FilterStep, load};
use crate::netlink::{CREATE, EXCLUSIVE, NetlinkError, Request, RouteSocket};
use crate::netns::has_user;
use crate::peer::{LOOPBACK_INDEX, Peer, WIRE, WIRE_INDEX};
use crate::route_step::{address_bytes, family_number};
use crate::server::Server;
use crate::step::{AddressStep, LinkChange, LinkShape, Step};
use crate::sysctl;
use crate::topology::{Refusal, Unsupported, mac_of};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWNEIGH: u16 = 28;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IPVLAN_MODE_L2: u16 = 0;
const IFLA_VRF_TABLE: u16 = 1;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const NTF_PROXY: u8 = 0x08;
const NDA_DST: u16 = 1;
/// What the kernel says to a kind of link it does not have.
const EOPNOTSUPP: i32 = 95;

/// Carries out lines inside the host.
#[derive(Debug)]
pub struct Builder<'a> {
    /// Indices by name. Those of tun links are found out when they are made.
    pub links: RefCell<BTreeMap<String, u32>>,
    /// The peers, which veth pairs lead to.
    pub peers: &'a [Peer],
}

impl Builder<'_> {
    fn index(&self, link: &str) -> Result<u32> {
        self.links
            .borrow()
            .get(link)
            .copied()
            .with_context(|| format!("the host has no link {link}"))
    }

    /// Carries out all lines, and says which of them the kernel refused, the first one last.
    ///
    /// # Errors
    /// If the lab itself fails.
    pub fn carry_out(&self, steps: &[Step]) -> Result<(Vec<Server>, Vec<Refusal>)> {
        sysctl::write_defaults()?;
        let mut queue =
            Queue { socket: RouteSocket::open()?, waiting: Vec::new(), refused: Vec::new() };
        let lo_stays_down = Step::Set { name: "lo".to_owned(), change: LinkChange::Down };
        if steps.first() != Some(&lo_stays_down) {
            let up = change_link(LOOPBACK_INDEX, true, "set lo up");
            queue.socket.carry_out(&[up, settle_link(LOOPBACK_INDEX)])?;
        }
        let mut servers = Vec::new();
        let mut filters = FilterBatch::default();
        for (position, step) in steps.iter().enumerate() {
            if let Step::Filter(filter) = step {
                queue.send()?;
                filters.add(position, filter, &mut queue.refused)?;
                continue;
            }
            filters.load(&mut queue.refused)?;
            match self.request(step) {
                Ok(Some(request)) => {
                    queue.waiting.push((position, request));
                    if !matches!(step, Step::Link { .. }) {
                        continue;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    queue.refused.push(Refusal { position, error });
                    continue;
                }
            }
            // Whatever is no netlink request waits for those before it.
            queue.send()?;
            match self.carry_out_otherwise(step) {
                Ok(server) => servers.extend(server),
                Err(error) => queue.refused.push(Refusal { position, error }),
            }
        }
        queue.send()?;
        filters.load(&mut queue.refused)?;
        let indices: Vec<u32> = self.links.borrow().values().copied().collect();
        let settle: Vec<Request> = indices.into_iter().map(settle_link).collect();
        // Those of links that could not be made are refused.
        queue.socket.attempt(&settle)?;
        queue.refused.sort_by_key(|refusal| std::cmp::Reverse(refusal.position));
        queue.refused.dedup_by_key(|refusal| refusal.position);
        Ok((servers, queue.refused))
    }

    /// Carries out what takes more, or something else, than one netlink request.
    fn carry_out_otherwise(&self, step: &Step) -> Result<Option<Server>> {
        match step {
            Step::Sysctl { name, value } => sysctl::write(name, value)?,
            Step::Server(server) => {
                let opened = Server::open(server, &|link| self.index(link));
                return Ok(Some(opened.with_context(|| format!("`{server}`"))?));
            }
            Step::Set { name, change: LinkChange::Carrier(on) } => self.set_carrier(name, *on)?,
            Step::Link { name, shape: LinkShape::Tun } => self.make_tun(name)?,
            Step::Link { name, .. } => {
                // A veth can only be set up once it has its other end. That goes first: the
                // carrier then comes while this one opens, and its addresses at once.
                if let Some(peer) = self.peers.iter().find(|peer| peer.port == *name) {
                    peer.netns.enter(|| open_wire(true))?;
                }
                let up = change_link(self.index(name)?, true, &step.to_string());
                RouteSocket::open()?.carry_out(&[up, settle_link(self.index(name)?)])?;
                // On behalf of others it answers at once, not after up to a second: peers give up
                // sooner (net/ipv4/arp.c, net/ipv6/ndisc.c, PROXY_DELAY).
                for family in ["ipv4", "ipv6"] {
                    sysctl::write(&format!("net.{family}.neigh.{name}.proxy_delay"), "0")?;
                }
            }
            _ => bail!("`{step}`: nobody carries it out"),
        }
        Ok(None)
    }

    /// The netlink request for a line; `None` for what is done in another way.
    fn request(&self, step: &Step) -> Result<Option<Request>> {
        let request = match step {
            Step::Link { shape: LinkShape::Tun, .. }
            | Step::Sysctl { .. }
            | Step::Filter(_)
            | Step::Server(_) => return Ok(None),
            Step::Link { name, shape } => self.make_link(name, shape, &step.to_string())?,
            Step::Set { change: LinkChange::Carrier(_), .. } => return Ok(None),
            Step::Set { name, change } => self.set_link(name, change, &step.to_string())?,
            Step::Address(address) => self.address(address, &step.to_string())?,
            Step::Route(route) => route.request(&|link| self.index(link))?,
            Step::Rule(rule) => rule.request(),
            Step::NeighborProxy { address, link } => {
                let family = [family_number(Family::of(*address)), 0, 0, 0];
                let index = self.index(link)?.to_ne_bytes();
                let header = [&family[..], &index, &[0, 0, NTF_PROXY, 0]].concat();
                Request::new(RTM_NEWNEIGH, CREATE, &header, &step.to_string())
                    .attribute(NDA_DST, &address_bytes(*address))
            }
        };
        Ok(Some(request))
    }

    fn make_link(&self, name: &str, shape: &LinkShape, about: &str) -> Result<Request> {
        let index = self.index(name)?;
        let header = link_header(index, 0, 0);
        let request =
            Request::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header, about).text(IFLA_IFNAME, name);
        let with_mac = |request: Request| request.attribute(IFLA_ADDRESS, &mac_of(index));
        let info = |request: Request, kind: &str, data: &dyn Fn(Request) -> Request| {
            request.nested(IFLA_LINKINFO, |request| {
                request.text(IFLA_INFO_KIND, kind).nested(IFLA_INFO_DATA, data)
            })
        };
        Ok(match shape {
            LinkShape::Veth { .. } => {
                let peer = self.peers.iter().find(|peer| peer.port == name);
                let peer = peer.with_context(|| format!("{name} has no peer"))?;
                let file = std::os::fd::AsRawFd::as_raw_fd(&peer.netns.file());
                let file = u32::try_from(file).context("a descriptor is never negative")?;
                info(with_mac(request), "veth", &|request| {
                    request.nested(VETH_INFO_PEER, |request| {
                        request
                            .raw(&link_header(WIRE_INDEX, 0, 0))
                            .text(IFLA_IFNAME, WIRE)
                            .number(IFLA_NET_NS_FD, file)
                    })
                })
            }
            LinkShape::Bridge => info(with_mac(request), "bridge", &|request| request),
            LinkShape::Macvlan { lower } => {
                let lower = self.index(lower)?;
                info(with_mac(request).number(IFLA_LINK, lower), "macvlan", &|request| {
                    request.number(IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE)
                })
            }
            LinkShape::Ipvlan { lower } => {
                let lower = self.index(lower)?;
                info(request.number(IFLA_LINK, lower), "ipvlan", &|request| {
                    request.attribute(IFLA_IPVLAN_MODE, &IPVLAN_MODE_L2.to_ne_bytes())
                })
            }
            LinkShape::Dummy => info(with_mac(request), "dummy", &|request| request),
            LinkShape::Vlan { id, lower } => {
                let lower = self.index(lower)?;
                info(request.number(IFLA_LINK, lower), "vlan", &|request| {
                    request.attribute(IFLA_VLAN_ID, &id.to_ne_bytes())
                })
            }
            LinkShape::Vrf { table } => {
                info(request, "vrf", &|request| request.number(IFLA_VRF_TABLE, *table))
            }
            LinkShape::Tun => bail!("a tun link is not made by netlink"),
        })
    }

    fn set_link(&self, name: &str, change: &LinkChange, about: &str) -> Result<Request> {
        let index = self.index(name)?;
        let unchanged = || Request::new(RTM_SETLINK, 0, &link_header(index, 0, 0), about);
        Ok(match change {
            LinkChange::Up => change_link(index, true, about),
            LinkChange::Down => change_link(index, false, about),
            LinkChange::Master(master) => unchanged().number(IFLA_MASTER, self.index(master)?),
            LinkChange::Group(group) => unchanged().number(IFLA_GROUP, *group),
            LinkChange::AddressGenerationNone => unchanged().nested(IFLA_AF_SPEC, |request| {
                request.nested(u16::from(family_number(Family::Ipv6)), |request| {
                    request.attribute(IFLA_INET6_ADDR_GEN_MODE, &[1])
                })
            }),
            LinkChange::Carrier(_) => bail!("the carrier is not set by netlink"),
        })
    }

    fn address(&self, step: &AddressStep, about: &str) -> Result<Request> {
        let scope = step.scope.map_or(0, |scope| scope.0);
        let family = family_number(step.prefix.family());
        let index = self.index(&step.link)?.to_ne_bytes();
        let header = [&[family, step.prefix.length(), 0, scope][..], &index].concat();
        let (message, extra) =
            if step.add { (RTM_NEWADDR, CREATE | EXCLUSIVE) } else { (RTM_DELADDR, 0) };
        let no_check = if step.check_duplicates { 0 } else { IFA_F_NODAD };
        let no_route = if step.no_prefix_route { IFA_F_NOPREFIXROUTE } else { 0 };
        let address = address_bytes(step.prefix.address());
        let far_end = step.peer.map_or_else(|| address.clone(), address_bytes);
        Ok(Request::new(message, extra, &header, about)
            .attribute(IFA_LOCAL, &address)
            .attribute(IFA_ADDRESS, &far_end)
            .number(IFA_FLAGS, no_check | no_route))
    }

    fn set_carrier(&self, name: &str, on: bool) -> Result<()> {
        let peer = self.peers.iter().find(|peer| peer.port == name);
        let peer = peer.with_context(|| format!("{name} has no peer"))?;
        peer.netns.enter(|| open_wire(on))
    }

    /// A tun link is made by ioctl(2) only, which `ip` does for us: few hosts have one.
    fn make_tun(&self, name: &str) -> Result<()> {
        let run = |words: &[&str]| -> Result<bool> {
            let output = std::process::Command::new("ip").args(words).output();
            let output = output.map_err(|_| Unsupported("`ip` to make a tun link".to_owned()))?;
            Ok(output.status.success())
        };
        let made = run(&["tuntap", "add", "dev", name, "mode", "tun"])?;
        if !made || !run(&["link", "set", name, "up"])? {
            bail!(Unsupported("tun".to_owned()));
        }
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(&socket, name)?;
        self.links.borrow_mut().insert(name.to_owned(), index);
        Ok(())
    }
}

/// Requests that wait to be sent together, each with the position of its line.
struct Queue {
    socket: RouteSocket,
    waiting: Vec<(usize, Request)>,
    refused: Vec<Refusal>,
}

impl Queue {
    fn send(&mut self) -> Result<()> {
        let (positions, requests): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        for (number, error) in self.socket.attempt(&requests)? {
            let unknown_kind = error.raw_os_error() == Some(EOPNOTSUPP);
            let about = requests[number].about().to_owned();
            // A user namespace that has one user knows no others to make rules for.
            let no_users = about.contains(" uidrange ") && !has_user(1000);
            let error = match about.strip_prefix("link ") {
                Some(link) if unknown_kind => Unsupported(format!("link as in `{link}`")).into(),
                _ if no_users => Unsupported("user ids besides its own".to_owned()).into(),
                _ => NetlinkError { about, error }.into(),
            };
            self.refused.push(Refusal { position: positions[number], error });
        }
        Ok(())
    }
}

/// Rules for the same program that wait to be loaded together, each with the position of its line.
#[derive(Default)]
struct FilterBatch<'a> {
    waiting: Vec<(usize, &'a FilterStep)>,
}

impl<'a> FilterBatch<'a> {
    fn add(
        &mut self,
        position: usize,
        step: &'a FilterStep,
        refused: &mut Vec<Refusal>,
    ) -> Result<()> {
        if self.waiting.first().is_some_and(|(_, first)| first.with != step.with) {
            self.load(refused)?;
        }
        self.waiting.push((position, step));
        Ok(())
    }

    /// Loads them all at once, or, if one of them is refused, one by one: the others go in.
    fn load(&mut self, refused: &mut Vec<Refusal>) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(with) = waiting.first().map(|(_, first)| first.with) else { return Ok(()) };
        let texts: Vec<&str> = waiting.iter().map(|(_, step)| step.text.as_str()).collect();
        let Err(error) = load(with, &texts) else { return Ok(()) };
        if waiting.len() == 1 {
            let position = waiting[0].0;
            refused.push(Refusal { position, error });
            return Ok(());
        }
        for (position, step) in waiting {
            if let Err(error) = load(with, &[&step.text]) {
                refused.push(Refusal { position, error });
            }
        }
        Ok(())
    }
}

fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &change.to_ne_bytes()].concat()
}

/// Sets the link of the peer whose namespace the thread is in up or down.
fn open_wire(up: bool) -> Result<()> {
    let change = change_link(WIRE_INDEX, up, "peer: set the wire up or down");
    RouteSocket::open()?.carry_out(&[change])
}

/// Asks for one link, which makes the kernel finish what it still has to do about its carrier
/// (net/core/rtnetlink.c, rtnl_getlink calls linkwatch_sync_dev).
#[must_use]
pub fn settle_link(index: u32) -> Request {
    Request::new(RTM_GETLINK, 0, &link_header(index, 0, 0), "look at a link")
}

/// Sets a link up or down.
#[must_use]
pub fn change_link(index: u32, up: bool, about: &str) -> Request {
    let flags = if up { IFF_UP } else { 0 };
    Request::new(RTM_SETLINK, 0, &link_header(index, flags, IFF_UP), about)
}
