//! What these privileges let us read, as observed: never by asking who we are.

use crate::error::ReadError;
use crate::netlink::socket::NetlinkSocket;

/// `RTM_NEWNETCONF`: a kind the kernel sends and has no handler for.
const NOTIFICATION: u16 = 80;

/// Whether the reader has CAP_NET_ADMIN in the user namespace that owns this network namespace.
///
/// The kernel checks the capability of everything that is not a question before it looks at what it
/// is (net/core/rtnetlink.c, `rtnetlink_rcv_msg`). A kind that nothing handles is refused with EPERM
/// or with EOPNOTSUPP accordingly, and changes nothing either way.
pub(crate) fn net_admin(rtnetlink: &mut NetlinkSocket) -> bool {
    let answer = rtnetlink.ask("probe CAP_NET_ADMIN", NOTIFICATION, &[0; 4], |_| Ok(Some(())));
    match answer {
        Ok(_) => true,
        Err(ReadError::Os { source, .. }) => source.raw_os_error() == Some(libc::EOPNOTSUPP),
        Err(_) => false,
    }
}
