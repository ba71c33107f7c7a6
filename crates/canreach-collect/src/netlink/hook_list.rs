//! What is registered at netfilter's hooks (net/netfilter/nfnetlink_hook.c, since Linux 5.14).
//!
//! One dump for each family and hook, and for each link at ingress and egress. The kernel lists
//! functions in the order in which packets meet them.

use canreach_snapshot::{HookEntry, HookOwner, NfFamily};

use super::attr::{Malformed, push, split_header};
use super::message::Message;
use super::nft::{Fields, family, family_number, hook};
use super::socket::NetlinkSocket;
use crate::error::ReadError;

/// `NFNL_SUBSYS_HOOK` and `NFNL_MSG_HOOK_GET`.
pub(crate) const GET: u16 = 12 << 8;

const HOOK_NUMBER: u16 = 1;
const PRIORITY: u16 = 2;
const DEVICE: u16 = 3;
const FUNCTION_NAME: u16 = 4;
const MODULE_NAME: u16 = 5;
const CHAIN_INFO: u16 = 6;
/// Inside `NFNLA_HOOK_CHAIN_INFO`.
const INFO_DESCRIPTION: u16 = 1;
const INFO_TYPE: u16 = 2;
/// Inside the description of a chain or a flowtable, and of a program.
const CHAIN_TABLE: u16 = 1;
const CHAIN_FAMILY: u16 = 2;
const CHAIN_NAME: u16 = 3;
const BPF_ID: u16 = 1;

/// How many hooks a family has. Those of `inet` are the hooks of both its families.
const HOOKS: [(NfFamily, u32); 4] =
    [(NfFamily::Ip, 5), (NfFamily::Ip6, 5), (NfFamily::Bridge, 5), (NfFamily::Arp, 3)];
/// `NF_NETDEV_INGRESS`, `NF_NETDEV_EGRESS`.
const NETDEV_HOOKS: u32 = 2;

/// Reads every hook: those of the namespace, and those of its links.
pub(crate) fn read<'a>(
    nfnetlink: &mut NetlinkSocket,
    links: impl Iterator<Item = &'a str> + Clone,
) -> Result<Vec<HookEntry>, ReadError> {
    let mut entries = Vec::new();
    for (family, count) in HOOKS {
        for number in 0..count {
            entries.extend(read_hook(nfnetlink, family, number, None)?);
        }
    }
    for number in 0..NETDEV_HOOKS {
        for link in links.clone() {
            entries.extend(read_hook(nfnetlink, NfFamily::Netdev, number, Some(link))?);
        }
    }
    Ok(entries)
}

fn read_hook(
    nfnetlink: &mut NetlinkSocket,
    family: NfFamily,
    number: u32,
    link: Option<&str>,
) -> Result<Vec<HookEntry>, ReadError> {
    let mut request = vec![family_number(family), 0, 0, 0];
    push(&mut request, HOOK_NUMBER, &number.to_be_bytes());
    if let Some(link) = link {
        push(&mut request, DEVICE, format!("{link}\0").as_bytes());
    }
    let (entries, error) =
        nfnetlink.dump("dump netfilter hooks", GET, &request, |message| decode(message, link));
    match error {
        None => Ok(entries),
        // A hook this kernel was built without, or a link that has gone meanwhile.
        Some(ReadError::Os { source, .. })
            if [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::ENODEV]
                .contains(&source.raw_os_error().unwrap_or(0)) =>
        {
            Ok(Vec::new())
        }
        Some(error) => Err(error),
    }
}

/// Decodes an entry. The link is the one that was asked about: the answer does not repeat it.
fn decode(message: &Message<'_>, link: Option<&str>) -> Result<Option<HookEntry>, Malformed> {
    let (header, attributes) = split_header::<4>(message.kind, message.payload)?;
    let [number, ..] = *header;
    let fields = Fields::read(attributes)?;
    let (Some(family), Some(number)) = (family(number), fields.be32(HOOK_NUMBER)?) else {
        return Ok(None);
    };
    let Some(hook) = hook(family, number) else { return Ok(None) };
    Ok(Some(HookEntry {
        family,
        hook,
        device: link.map(str::to_owned).or_else(|| fields.text(DEVICE)),
        priority: fields.be32(PRIORITY)?.unwrap_or(0).cast_signed(),
        // Without CONFIG_KALLSYMS functions have no names.
        function: fields.text(FUNCTION_NAME).unwrap_or_default(),
        module: fields.text(MODULE_NAME),
        owner: decode_owner(&Fields::read(fields.nested(CHAIN_INFO))?, family)?,
    }))
}

fn decode_owner(info: &Fields<'_>, of_hook: NfFamily) -> Result<HookOwner, Malformed> {
    let description = Fields::read(info.nested(INFO_DESCRIPTION))?;
    let number = description.of(CHAIN_FAMILY).map(|attribute| attribute.u8()).transpose();
    let names = || {
        let table = description.text(CHAIN_TABLE).unwrap_or_default();
        let name = description.text(CHAIN_NAME).unwrap_or_default();
        Ok((number?.and_then(family).unwrap_or(of_hook), table, name))
    };
    // `NFNL_HOOK_TYPE_*`.
    Ok(match info.be32(INFO_TYPE)? {
        Some(1) => {
            let (family, table, name) = names()?;
            HookOwner::Chain(family, table, name)
        }
        Some(2) => HookOwner::Bpf(description.be32(BPF_ID)?.unwrap_or(0)),
        // Since 6.17.
        Some(3) => {
            let (family, table, name) = names()?;
            HookOwner::Flowtable(family, table, name)
        }
        None | Some(_) => HookOwner::Function,
    })
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::NfHook;

    use super::*;

    /// Attributes, each of them in front of the next.
    fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        list.iter().for_each(|(kind, payload)| push(&mut bytes, *kind, payload));
        bytes
    }

    fn read(family: u8, number: u32, link: Option<&str>, more: &[(u16, &[u8])]) -> HookEntry {
        let mut payload = vec![family, 0, 0, 0];
        payload.extend(attributes(more));
        payload.extend(attributes(&[
            (HOOK_NUMBER, &number.to_be_bytes()),
            (PRIORITY, &(-200_i32).to_be_bytes()),
        ]));
        let message = Message { kind: GET, flags: 0, sequence: 0, payload: &payload };
        decode(&message, link).expect("it is well formed").expect("it is one")
    }

    fn owner(kind: u32, description: &[u8]) -> Vec<u8> {
        attributes(&[(INFO_TYPE, &kind.to_be_bytes()), (INFO_DESCRIPTION, description)])
    }

    #[test]
    fn functions_of_the_kernel_have_names() {
        let more: [(u16, &[u8]); 2] =
            [(FUNCTION_NAME, b"ipv4_conntrack_in\0"), (MODULE_NAME, b"nf_conntrack\0")];
        let expected = HookEntry {
            family: NfFamily::Ip,
            hook: NfHook::Prerouting,
            device: None,
            priority: -200,
            function: "ipv4_conntrack_in".to_owned(),
            module: Some("nf_conntrack".to_owned()),
            owner: HookOwner::Function,
        };
        assert_eq!(read(2, 0, None, &more), expected);
    }

    #[test]
    fn chains_flowtables_and_programs_say_which() {
        let named = attributes(&[
            (CHAIN_TABLE, b"filter\0"),
            (CHAIN_NAME, b"input\0"),
            (CHAIN_FAMILY, &[1]),
        ]);
        let names = || (NfFamily::Inet, "filter".to_owned(), "input".to_owned());
        let (family, table, name) = names();
        let entry = read(10, 1, None, &[(CHAIN_INFO, &owner(1, &named))]);
        assert_eq!((entry.family, entry.hook), (NfFamily::Ip6, NfHook::Input));
        assert_eq!(entry.owner, HookOwner::Chain(family, table, name));
        let entry = read(5, 0, Some("eth0"), &[(CHAIN_INFO, &owner(3, &named))]);
        assert_eq!((entry.hook, entry.device.as_deref()), (NfHook::Ingress, Some("eth0")));
        let (family, table, name) = names();
        assert_eq!(entry.owner, HookOwner::Flowtable(family, table, name));
        let program = attributes(&[(BPF_ID, &77_u32.to_be_bytes())]);
        let entry = read(5, 1, Some("eth0"), &[(CHAIN_INFO, &owner(2, &program))]);
        assert_eq!((entry.hook, entry.owner), (NfHook::Egress, HookOwner::Bpf(77)));
        let entry = read(2, 3, None, &[(CHAIN_INFO, &owner(9, &[]))]);
        assert_eq!((entry.hook, entry.owner), (NfHook::Output, HookOwner::Function));
    }
}
