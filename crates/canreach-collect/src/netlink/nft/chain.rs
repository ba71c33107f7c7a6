//! Chains: where they hook in, and what they are for.

use canreach_snapshot::nft::{BaseChain, Chain};
use canreach_snapshot::{ChainKind, ChainPolicy, NfFamily, NfHook};

use super::super::attr::Malformed;
use super::field::Fields;
use super::part::devices;

const HANDLE: u16 = 2;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const TYPE: u16 = 7;
/// Inside `NFTA_CHAIN_HOOK`.
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_DEVICES: u16 = 4;
/// `NF_DROP`; `NF_ACCEPT` is 1.
const DROP: u32 = 0;

/// Decodes a chain.
pub(super) fn decode(fields: &Fields<'_>, family: NfFamily) -> Result<Chain, Malformed> {
    Ok(Chain {
        name: fields.text(NAME).unwrap_or_default(),
        handle: fields.handle(HANDLE)?,
        base: decode_base(fields, family)?,
        rules: Vec::new(),
    })
}

/// Where it hooks in; `None` for a chain that others jump to.
fn decode_base(fields: &Fields<'_>, family: NfFamily) -> Result<Option<BaseChain>, Malformed> {
    let hooked = Fields::read(fields.nested(HOOK))?;
    let Some(hook) = hooked.be32(HOOK_NUMBER)?.and_then(|number| hook(family, number)) else {
        return Ok(None);
    };
    let mut devices = hooked.of(HOOK_DEVICES).map_or(Ok(Vec::new()), devices)?;
    // A single device is sent in both ways, first in the list and then by itself.
    devices.extend(hooked.text(HOOK_DEVICE).filter(|_| devices.is_empty()));
    Ok(Some(BaseChain {
        hook,
        priority: hooked.be32(HOOK_PRIORITY)?.unwrap_or(0).cast_signed(),
        kind: match fields.text(TYPE).as_deref() {
            Some("nat") => ChainKind::Nat,
            Some("route") => ChainKind::Route,
            _ => ChainKind::Filter,
        },
        policy: match fields.be32(POLICY)? {
            Some(DROP) => ChainPolicy::Drop,
            _ => ChainPolicy::Accept,
        },
        devices,
    }))
}

/// Hooks are numbered within their family.
pub(crate) const fn hook(family: NfFamily, number: u32) -> Option<NfHook> {
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

#[cfg(test)]
mod tests {
    use super::super::super::attr::{Attributes, push};
    use super::*;

    fn chain(family: NfFamily, hook: u32, more: impl Fn(&mut Vec<u8>)) -> Chain {
        let mut nested = Vec::new();
        push(&mut nested, HOOK_NUMBER, &hook.to_be_bytes());
        push(&mut nested, HOOK_PRIORITY, &(-150_i32).to_be_bytes());
        more(&mut nested);
        let mut payload = Vec::new();
        push(&mut payload, NAME, b"input\0");
        push(&mut payload, HANDLE, &7_u64.to_be_bytes());
        push(&mut payload, HOOK, &nested);
        push(&mut payload, POLICY, &DROP.to_be_bytes());
        let fields = Fields::read(Attributes::new(&payload)).unwrap();
        decode(&fields, family).unwrap()
    }

    #[test]
    fn hooks_are_numbered_within_their_family() {
        for (family, number, expected) in [
            (NfFamily::Ip, 0, Some(NfHook::Prerouting)),
            (NfFamily::Ip6, 1, Some(NfHook::Input)),
            (NfFamily::Inet, 5, Some(NfHook::Ingress)),
            (NfFamily::Ip, 5, None),
            (NfFamily::Arp, 1, Some(NfHook::Output)),
            (NfFamily::Netdev, 0, Some(NfHook::Ingress)),
            (NfFamily::Netdev, 1, Some(NfHook::Egress)),
            (NfFamily::Netdev, 2, None),
            (NfFamily::Bridge, 5, Some(NfHook::Prerouting)),
        ] {
            let read = chain(family, number, |_| {}).base.map(|base| base.hook);
            assert_eq!(read, expected, "family {family:?}, hook {number}");
        }
    }

    #[test]
    fn a_chain_keeps_its_policy_and_devices() {
        let check = |devices: &[(u16, &[u8])], alone: Option<&[u8]>, expected: &[&str]| {
            let chain = chain(NfFamily::Netdev, 0, |nested| {
                let mut list = Vec::new();
                devices.iter().for_each(|(kind, name)| push(&mut list, *kind, name));
                push(nested, HOOK_DEVICES, &list);
                alone.iter().for_each(|name| push(nested, HOOK_DEVICE, name));
            });
            let base = chain.base.expect("it is one");
            assert_eq!((base.policy, base.priority), (ChainPolicy::Drop, -150));
            assert_eq!(base.devices, expected);
        };
        check(&[(1, b"eth0\0")], Some(b"eth0\0"), &["eth0"]);
        check(&[(1, b"eth0\0"), (1, b"eth1\0")], None, &["eth0", "eth1"]);
        check(&[(1, b"lo\0"), (2, b"veth")], None, &["lo", "veth*"]);
        check(&[], Some(b"eth0\0"), &["eth0"]);
    }
}
