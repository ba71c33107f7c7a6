//! nftables (nfnetlink): tables, base chains, and the generation of the ruleset.
//!
//! That chains hook in, where, and how many rules they hold. Rules themselves are not decoded.

use std::collections::BTreeSet;

use canreach_snapshot::{ChainKind, ChainPolicy, HookedChain, NfFamily, NfHook};

use super::attr::{Attribute, Attributes, Malformed, split_header};
use super::message::Message;
use super::socket::NetlinkSocket;
use crate::error::ReadError;

/// `NFNL_SUBSYS_NFTABLES`, in the high byte of the message type.
const SUBSYSTEM: u16 = 10 << 8;
pub(crate) const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(crate) const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// `struct nfgenmsg`, zeroed: every family.
const REQUEST: [u8; 4] = [0; 4];

const GENERATION_ID: u16 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// `NFT_TABLE_F_DORMANT`: its chains are not hooked in.
const DORMANT_FLAG: u32 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_HANDLE: u16 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_USE: u16 = 6;
const CHAIN_TYPE: u16 = 7;
/// Inside `NFTA_CHAIN_HOOK`.
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_DEVICES: u16 = 4;
/// `NF_DROP`; `NF_ACCEPT` is 1.
const DROP: u32 = 0;

/// The ruleset changed between two questions this often: give up.
const ATTEMPTS: u32 = 3;

/// What of a ruleset is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) generation: Option<u32>,
    pub(crate) chains: Vec<HookedChain>,
}

/// Reads the ruleset. `None` where the kernel has no nftables.
pub(crate) fn read(nfnetlink: &mut NetlinkSocket) -> Result<Option<Ruleset>, ReadError> {
    const OPERATION: &str = "dump nftables chains";
    for _ in 0..ATTEMPTS {
        let before = match generation(nfnetlink) {
            // No such part of netfilter (net/netfilter/nfnetlink.c, `nfnetlink_rcv_msg`).
            Err(ReadError::Os { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                return Ok(None);
            }
            before => before?,
        };
        let (tables, error) =
            nfnetlink.dump("dump nftables tables", GET_TABLE, &REQUEST, decode_dormant);
        error.map_or(Ok(()), Err)?;
        let (mut chains, error) = nfnetlink.dump(OPERATION, GET_CHAIN, &REQUEST, decode_chain);
        error.map_or(Ok(()), Err)?;
        if generation(nfnetlink)? == before {
            let dormant: BTreeSet<_> = tables.into_iter().collect();
            chains.retain(|chain| !dormant.contains(&(chain.family, chain.table.clone())));
            return Ok(Some(Ruleset { generation: before, chains }));
        }
    }
    Err(ReadError::Changed { operation: OPERATION, attempts: ATTEMPTS })
}

fn generation(nfnetlink: &mut NetlinkSocket) -> Result<Option<u32>, ReadError> {
    nfnetlink.ask("read the nftables generation", GET_GENERATION, &REQUEST, |message| {
        let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
        find(attributes, GENERATION_ID)?.map(|attribute| attribute.be32()).transpose()
    })
}

/// The attribute with this number, if there is one.
fn find(attributes: Attributes<'_>, kind: u16) -> Result<Option<Attribute<'_>>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

/// `NFPROTO_*` of include/uapi/linux/netfilter.h.
const fn family(number: u8) -> Option<NfFamily> {
    Some(match number {
        1 => NfFamily::Inet,
        2 => NfFamily::Ip,
        3 => NfFamily::Arp,
        5 => NfFamily::Netdev,
        7 => NfFamily::Bridge,
        10 => NfFamily::Ip6,
        _ => return None,
    })
}

/// Hooks are numbered within their family.
const fn hook(family: NfFamily, number: u32) -> Option<NfHook> {
    Some(match (family, number) {
        (NfFamily::Netdev, 0) | (NfFamily::Inet, 5) => NfHook::Ingress,
        (NfFamily::Netdev, 1) => NfHook::Egress,
        (NfFamily::Arp, 0) => NfHook::Input,
        (NfFamily::Arp, 1) => NfHook::Output,
        (NfFamily::Arp, 2) => NfHook::Forward,
        (NfFamily::Netdev | NfFamily::Arp, _) => return None,
        (_, 0) => NfHook::Prerouting,
        (_, 1) => NfHook::Input,
        (_, 2) => NfHook::Forward,
        (_, 3) => NfHook::Output,
        (_, 4) => NfHook::Postrouting,
        // A bridge's own table of what it routes instead of switching, before all else there.
        (NfFamily::Bridge, 5) => NfHook::Prerouting,
        _ => return None,
    })
}

/// Family and name of a table whose chains are not hooked in; `None` for the others.
pub(crate) fn decode_dormant(
    message: &Message<'_>,
) -> Result<Option<(NfFamily, String)>, Malformed> {
    let (header, attributes) = split_header::<4>(message.kind, message.payload)?;
    let [number, ..] = *header;
    let flags = find(attributes, TABLE_FLAGS)?.map_or(Ok(0), |attribute| attribute.be32())?;
    let name = find(attributes, TABLE_NAME)?.map(|attribute| attribute.text());
    Ok(family(number).zip(name).filter(|_| flags & DORMANT_FLAG != 0))
}

/// Decodes a base chain; `None` for others, which no packet enters by itself.
pub(crate) fn decode_chain(message: &Message<'_>) -> Result<Option<HookedChain>, Malformed> {
    let (header, attributes) = split_header::<4>(message.kind, message.payload)?;
    let [number, ..] = *header;
    let Some(family) = family(number) else { return Ok(None) };
    let mut chain = HookedChain {
        family,
        table: String::new(),
        name: String::new(),
        handle: 0,
        hook: NfHook::Input,
        priority: 0,
        kind: ChainKind::Filter,
        policy: ChainPolicy::Accept,
        devices: Vec::new(),
        rules: 0,
    };
    let mut hooked = false;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            CHAIN_TABLE => chain.table = attribute.text(),
            CHAIN_NAME => chain.name = attribute.text(),
            CHAIN_HANDLE => chain.handle = attribute.be64()?,
            CHAIN_HOOK => hooked = read_hook(&mut chain, attribute)?,
            CHAIN_POLICY if attribute.be32()? == DROP => chain.policy = ChainPolicy::Drop,
            // Users of a chain are its rules and the jumps to it, and nothing jumps to a base chain.
            CHAIN_USE => chain.rules = attribute.be32()?,
            CHAIN_TYPE => {
                chain.kind = match attribute.text().as_str() {
                    "nat" => ChainKind::Nat,
                    "route" => ChainKind::Route,
                    _ => ChainKind::Filter,
                }
            }
            _ => {}
        }
    }
    Ok(Some(chain).filter(|_| hooked))
}

/// A single device is sent in both ways, first in the list and then by itself (Linux 6.18).
fn add_device(chain: &mut HookedChain, name: String) {
    if !chain.devices.contains(&name) {
        chain.devices.push(name);
    }
}

fn read_hook(chain: &mut HookedChain, attribute: Attribute<'_>) -> Result<bool, Malformed> {
    let mut found = None;
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            HOOK_NUMBER => found = hook(chain.family, attribute.be32()?),
            HOOK_PRIORITY => chain.priority = attribute.be32()?.cast_signed(),
            HOOK_DEVICE => add_device(chain, attribute.text()),
            HOOK_DEVICES => {
                for device in attribute.nested() {
                    add_device(chain, device?.text());
                }
            }
            _ => {}
        }
    }
    if let Some(found) = found {
        chain.hook = found;
    }
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::attr::push;
    use super::*;

    fn chain(family: u8, hook: u32) -> Vec<u8> {
        let mut nested = Vec::new();
        push(&mut nested, HOOK_NUMBER, &hook.to_be_bytes());
        push(&mut nested, HOOK_PRIORITY, &(-150_i32).to_be_bytes());
        let mut devices = Vec::new();
        push(&mut devices, 1, b"eth0\0");
        push(&mut nested, HOOK_DEVICES, &devices);
        push(&mut nested, HOOK_DEVICE, b"eth0\0");
        let mut payload = vec![family, 0, 0, 0];
        push(&mut payload, CHAIN_TABLE, b"filter\0");
        push(&mut payload, CHAIN_NAME, b"input\0");
        push(&mut payload, CHAIN_HOOK, &nested);
        push(&mut payload, CHAIN_POLICY, &DROP.to_be_bytes());
        push(&mut payload, CHAIN_USE, &3_u32.to_be_bytes());
        payload
    }

    #[test]
    fn hooks_are_numbered_within_their_family() {
        for (family, number, expected) in [
            (2, 0, Some(NfHook::Prerouting)),
            (10, 1, Some(NfHook::Input)),
            (1, 5, Some(NfHook::Ingress)),
            (2, 5, None),
            (3, 1, Some(NfHook::Output)),
            (5, 0, Some(NfHook::Ingress)),
            (5, 1, Some(NfHook::Egress)),
            (5, 2, None),
            (99, 0, None),
        ] {
            let payload = chain(family, number);
            let message = Message { kind: GET_CHAIN, flags: 0, sequence: 0, payload: &payload };
            let read = decode_chain(&message).unwrap();
            assert_eq!(read.map(|chain| chain.hook), expected, "family {family}, hook {number}");
        }
    }

    #[test]
    fn a_chain_keeps_its_policy_rules_and_devices() {
        let payload = chain(5, 0);
        let message = Message { kind: GET_CHAIN, flags: 0, sequence: 0, payload: &payload };
        let chain = decode_chain(&message).unwrap().unwrap();
        assert_eq!((chain.policy, chain.rules, chain.priority), (ChainPolicy::Drop, 3, -150));
        assert_eq!(chain.devices, ["eth0"]);
        assert!(!chain.is_idle());
    }
}
