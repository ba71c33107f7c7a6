//! Asks for all parts of a ruleset, and puts them together.

use std::collections::BTreeMap;

use canreach_snapshot::nft::{Element, Ruleset, Set, Table};
use canreach_snapshot::{HookedChain, NfFamily};

use super::super::attr::{Malformed, push, split_header};
use super::super::message::Message;
use super::super::socket::NetlinkSocket;
use super::element;
use super::field::Fields;
use super::part::{self, Part};
use crate::error::ReadError;

/// `struct nfgenmsg`, zeroed: every family.
const REQUEST: [u8; 4] = [0; 4];

/// The ruleset changed between two questions this often: give up.
const ATTEMPTS: u32 = 3;

/// What is dumped as a whole, in this order: what holds something comes before what it holds. The
/// number that asks is the one behind that of the answer.
const DUMPS: [(&str, u16); 6] = [
    ("dump nftables tables", part::NEW_TABLE),
    ("dump nftables chains", part::NEW_CHAIN),
    ("dump nftables sets", part::NEW_SET),
    ("dump nftables objects", part::NEW_OBJECT),
    ("dump nftables flowtables", part::NEW_FLOWTABLE),
    ("dump nftables rules", part::NEW_RULE),
];

/// Reads the ruleset. `None` where the kernel has no nftables.
pub(crate) fn read(nfnetlink: &mut NetlinkSocket) -> Result<Option<Ruleset>, ReadError> {
    for _ in 0..ATTEMPTS {
        let before = match generation(nfnetlink) {
            // No such part of netfilter (net/netfilter/nfnetlink.c, `nfnetlink_rcv_msg`).
            Err(ReadError::Os { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                return Ok(None);
            }
            before => before?,
        };
        let read = read_once(nfnetlink);
        if generation(nfnetlink)? == before {
            return Ok(Some(Ruleset { generation: before, tables: read? }));
        }
        // A table that went away meanwhile is an error only if nothing changed.
    }
    Err(ReadError::Changed { operation: "dump the nftables ruleset", attempts: ATTEMPTS })
}

fn generation(nfnetlink: &mut NetlinkSocket) -> Result<Option<u32>, ReadError> {
    const ID: u16 = 1;
    nfnetlink.ask("read the nftables generation", part::GET_GENERATION, &REQUEST, |message| {
        let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
        Fields::read(attributes)?.be32(ID)
    })
}

fn read_once(nfnetlink: &mut NetlinkSocket) -> Result<Vec<Table>, ReadError> {
    let mut assembly = Assembly::default();
    for (operation, kind) in DUMPS {
        let (parts, error) = nfnetlink.dump(operation, kind + 1, &REQUEST, part::decode);
        error.map_or(Ok(()), Err)?;
        assembly.add(parts);
    }
    let mut tables = assembly.tables;
    for table in &mut tables {
        for set in &mut table.sets {
            set.elements = read_elements(nfnetlink, table.family, &table.name, set)?;
        }
    }
    Ok(tables)
}

fn read_elements(
    nfnetlink: &mut NetlinkSocket,
    family: NfFamily,
    table: &str,
    set: &Set,
) -> Result<Vec<Element>, ReadError> {
    const TABLE: u16 = 1;
    const SET: u16 = 2;
    const OPERATION: &str = "dump the elements of an nftables set";
    let mut request = vec![part::family_number(family), 0, 0, 0];
    push(&mut request, TABLE, format!("{table}\0").as_bytes());
    push(&mut request, SET, format!("{}\0", set.name).as_bytes());
    let decode = |message: &Message<'_>, elements: &mut Vec<Element>| -> Result<(), Malformed> {
        let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
        element::decode(&Fields::read(attributes)?, family, elements).map(drop)
    };
    let (mut elements, error) =
        nfnetlink.dump_many(OPERATION, part::NEW_ELEMENT + 1, &request, decode);
    error.map_or(Ok(()), Err)?;
    elements.shrink_to_fit();
    Ok(elements)
}

/// Puts parts together, in the order in which they come. Parts of something that did not come before
/// them are left out: the kernel sends none.
#[must_use]
pub fn assemble(parts: impl IntoIterator<Item = Part>) -> Ruleset {
    let mut assembly = Assembly::default();
    assembly.add(parts);
    Ruleset { generation: None, tables: assembly.tables }
}

/// Tables being filled, with where things are in them.
#[derive(Default)]
struct Assembly {
    tables: Vec<Table>,
    places: BTreeMap<(NfFamily, String), usize>,
    /// By table and name.
    chains: BTreeMap<(usize, String), usize>,
}

impl Assembly {
    fn add(&mut self, parts: impl IntoIterator<Item = Part>) {
        for part in parts {
            self.add_one(part);
        }
    }

    fn add_one(&mut self, part: Part) {
        match part {
            Part::Table(table) => {
                self.places.insert((table.family, table.name.clone()), self.tables.len());
                self.tables.push(table);
            }
            Part::Chain(family, table, chain) => {
                let Some((place, table)) = self.table(family, table) else { return };
                let (name, position) = (chain.name.clone(), table.chains.len());
                table.chains.push(chain);
                self.chains.insert((place, name), position);
            }
            Part::Rule(family, table, chain, rule) => {
                let Some(place) = self.places.get(&(family, table)).copied() else { return };
                let position = self.chains.get(&(place, chain)).copied();
                let chains = self.tables.get_mut(place).map(|table| &mut table.chains);
                let chain = chains.zip(position).and_then(|(chains, at)| chains.get_mut(at));
                if let Some(chain) = chain {
                    chain.rules.push(rule);
                }
            }
            Part::Set(family, table, set) => {
                if let Some((_, table)) = self.table(family, table) {
                    table.sets.push(set);
                }
            }
            Part::Elements(family, table, name, elements) => {
                let table = self.table(family, table);
                let set = table.and_then(|(_, it)| it.sets.iter_mut().find(|it| it.name == name));
                if let Some(set) = set {
                    set.elements.extend(elements);
                }
            }
            Part::Object(family, table, object) => {
                if let Some((_, table)) = self.table(family, table) {
                    table.objects.push(object);
                }
            }
            Part::Flowtable(family, table, flowtable) => {
                if let Some((_, table)) = self.table(family, table) {
                    table.flowtables.push(flowtable);
                }
            }
        }
    }

    fn table(&mut self, family: NfFamily, name: String) -> Option<(usize, &mut Table)> {
        let place = *self.places.get(&(family, name))?;
        Some((place, self.tables.get_mut(place)?))
    }
}

/// The base chains of a ruleset, as `Firewall::chains` has them.
pub(crate) fn hooked_chains(ruleset: &Ruleset) -> Vec<HookedChain> {
    let hooked = ruleset.hooked().map(|(_, _, table, chain, base)| HookedChain {
        family: table.family,
        table: table.name.clone(),
        name: chain.name.clone(),
        handle: chain.handle.0,
        hook: base.hook,
        priority: base.priority,
        kind: base.kind,
        policy: base.policy,
        devices: base.devices.clone(),
        rules: u32::try_from(chain.rules.len()).unwrap_or(u32::MAX),
    });
    hooked.collect()
}
