//! Wi-Fi links, and the networks they are joined to: over nl80211, as `iw dev` asks.
//!
//! To the rest of the kernel a Wi-Fi link is an Ethernet device; only nl80211 (generic netlink,
//! net/wireless/nl80211.c) tells them apart and knows the network's name. Needs no privilege. Left
//! out: networks in reach, signal strength, and drivers older than nl80211.

use std::path::Path;

use canreach_snapshot::{Ifindex, Link, LinkKind, Wireless};

use crate::netlink::attr::{Malformed, push, split_header};
use crate::netlink::message::Message;
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};

/// There once Wi-Fi is in use. Asking for a family that is absent would make the kernel load a
/// module (net/netlink/genetlink.c, `ctrl_getfamily`), and reading changes nothing.
const IN_USE: &str = "/sys/module/cfg80211";

/// `GENL_ID_CTRL`: the family that knows the others.
const CONTROL: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `NL80211_CMD_GET_INTERFACE`.
const GET_INTERFACE: u8 = 5;
/// `NL80211_ATTR_IFINDEX`, `NL80211_ATTR_SSID`.
const IFINDEX: u16 = 3;
const SSID: u16 = 52;

/// Marks the Wi-Fi links of the calling thread's namespace and names their networks. What cannot be
/// read stays as it was: nothing but words hangs on it.
pub(crate) fn read(links: &mut [Link]) {
    if !links.iter().any(|link| link.kind == LinkKind::Ethernet) || !Path::new(IN_USE).exists() {
        return;
    }
    let Ok(mut generic) = NetlinkSocket::open(NetlinkFamily::Generic) else { return };
    let mut request = command(GET_FAMILY);
    push(&mut request, FAMILY_NAME, b"nl80211\0");
    let family = generic.ask("look nl80211 up", CONTROL, &request, decode_family);
    let Ok(Some(family)) = family else { return };
    let operation = "dump Wi-Fi links";
    let (rows, _) = generic.dump(operation, family, &command(GET_INTERFACE), decode_interface);
    for (ifindex, wireless) in rows {
        if let Some(link) = links.iter_mut().find(|link| link.ifindex == ifindex) {
            link.kind = LinkKind::Wifi;
            link.wireless = Some(wireless);
        }
    }
}

/// `struct genlmsghdr`: command, version, and two bytes that are not used.
fn command(number: u8) -> Vec<u8> {
    vec![number, 1, 0, 0]
}

fn decode_family(message: &Message<'_>) -> Result<Option<u16>, Malformed> {
    let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
    let mut id = None;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == FAMILY_ID {
            id = Some(attribute.u16()?);
        }
    }
    Ok(id)
}

/// One Wi-Fi link. Devices without a link (peer-to-peer control) have no index.
fn decode_interface(message: &Message<'_>) -> Result<Option<(Ifindex, Wireless)>, Malformed> {
    let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
    let mut ifindex = None;
    let mut wireless = Wireless::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFINDEX => ifindex = Some(Ifindex(attribute.u32()?)),
            // Up to 32 bytes that are text by custom only; zeros for a network that hides its name.
            SSID if attribute.payload.iter().any(|byte| *byte != 0) => {
                wireless.ssid = Some(String::from_utf8_lossy(attribute.payload).into_owned());
            }
            _ => {}
        }
    }
    Ok(ifindex.map(|ifindex| (ifindex, wireless)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(attributes: &[(u16, &[u8])], expect: Option<(u32, Option<&str>)>) {
        let mut payload = command(7);
        for (kind, bytes) in attributes {
            push(&mut payload, *kind, bytes);
        }
        let message = Message { kind: 30, flags: 2, sequence: 1, payload: &payload };
        let expect = expect
            .map(|(ifindex, ssid)| (Ifindex(ifindex), Wireless { ssid: ssid.map(str::to_owned) }));
        assert_eq!(decode_interface(&message), Ok(expect));
    }

    #[test]
    fn links_are_named_with_their_networks() {
        let index: &[u8] = &3_u32.to_ne_bytes();
        check(&[(IFINDEX, index), (4, b"wlan0\0"), (SSID, b"Home 5G")], Some((3, Some("Home 5G"))));
        check(&[(IFINDEX, index)], Some((3, None)));
        check(&[(IFINDEX, index), (SSID, &[0, 0, 0])], Some((3, None)));
        check(&[(IFINDEX, index), (SSID, b"")], Some((3, None)));
        check(&[(IFINDEX, index), (SSID, b"caf\xe9")], Some((3, Some("caf\u{fffd}"))));
        check(&[(SSID, b"Home 5G")], None);
    }

    #[test]
    fn answers_cut_short_are_no_links() {
        let message = Message { kind: 30, flags: 2, sequence: 1, payload: &[7, 1, 0] };
        assert!(decode_interface(&message).is_err());
        let mut payload = command(7);
        push(&mut payload, IFINDEX, &[1, 2]);
        let message = Message { payload: &payload, ..message };
        assert!(decode_interface(&message).is_err());
    }

    /// The same question, about a family that every kernel has.
    #[test]
    fn the_kernel_knows_its_families() {
        let mut generic = NetlinkSocket::open(NetlinkFamily::Generic).expect("built in");
        let mut request = command(GET_FAMILY);
        push(&mut request, FAMILY_NAME, b"nlctrl\0");
        let family = generic.ask("look nlctrl up", CONTROL, &request, decode_family);
        assert_eq!(family.expect("it answers"), Some(CONTROL));
    }
}
