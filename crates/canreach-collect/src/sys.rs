//! The system calls that rustix does not wrap. The only `unsafe` of this crate.

#![allow(unsafe_code, reason = "system calls without a safe wrapper; each block says why it holds")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// The handle of a kernfs directory as `open_by_handle_at(2)` takes it.
#[repr(C)]
struct KernfsHandle {
    header: libc::file_handle,
    /// `struct file_handle` ends here in a flexible array; a kernfs handle is the inode number
    /// (include/linux/kernfs.h, `kernfs_node_id`).
    id: u64,
}

/// `FILEID_KERNFS` of include/linux/exportfs.h.
const FILEID_KERNFS: c_int = 0xfe;

/// Opens a directory of the file system that `mount` is on, by its inode number. For kernfs only:
/// other file systems refuse the kind of handle. Needs CAP_DAC_READ_SEARCH.
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, id: u64) -> io::Result<OwnedFd> {
    let mut handle = KernfsHandle {
        header: libc::file_handle {
            handle_bytes: size_of::<u64>() as libc::c_uint,
            handle_type: FILEID_KERNFS,
            f_handle: [],
        },
        id,
    };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the handle is as long as its header says, laid out as C does, and outlives the call,
    // which does not keep it.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads an option of a socket into `value`, which also holds what is asked for
/// (`getsockopt(2)`). Returns how many bytes the kernel wrote.
pub(crate) fn read_socket_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is that long, and the
    // length to `length`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}
