//! The system calls that rustix does not wrap. The only `unsafe` of this crate.

#![allow(unsafe_code, reason = "system calls without a safe wrapper; each block says why it holds")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Turns an option of a netlink socket on (`setsockopt(fd, SOL_NETLINK, option, 1)`).
pub(crate) fn enable_netlink_option(fd: BorrowedFd<'_>, option: c_int) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: `on` outlives the call, and its size is the one passed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
