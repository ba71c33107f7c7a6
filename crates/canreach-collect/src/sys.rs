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

/// `bpf(2)` commands.
const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;

/// What BPF numbers: loaded programs, or links that hold them in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BpfObject {
    /// A program.
    Program,
    /// A link.
    Link,
}

/// The part of `union bpf_attr` for `BPF_*_GET_NEXT_ID` and `BPF_*_GET_FD_BY_ID`.
#[repr(C)]
struct BpfIdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
    fd: u32,
}

/// The part of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct BpfInfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// The part of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct BpfQueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    unused: [u64; 4],
}

/// Calls `bpf(2)`.
///
/// # Safety
/// `attributes` must be the structure that `command` takes, and any address in it must be that of
/// memory which the kernel may use as the command says, for as long as the call lasts.
unsafe fn bpf<Attributes>(
    command: libc::c_long,
    attributes: &mut Attributes,
) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` outlives the call and its size is the one passed; what it points to is
    // for the caller to vouch for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<Attributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The number after `id`; `None` after the last.
pub(crate) fn next_bpf_id(object: BpfObject, id: u32) -> io::Result<Option<u32>> {
    let command = match object {
        BpfObject::Program => BPF_PROG_GET_NEXT_ID,
        BpfObject::Link => BPF_LINK_GET_NEXT_ID,
    };
    let mut attributes = BpfIdAttributes { id, next_id: 0, open_flags: 0, fd: 0 };
    // SAFETY: the structure is the one of these commands and holds no address.
    match unsafe { bpf(command, &mut attributes) } {
        Ok(_) => Ok(Some(attributes.next_id)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens what has this number.
pub(crate) fn open_bpf(object: BpfObject, id: u32) -> io::Result<OwnedFd> {
    let command = match object {
        BpfObject::Program => BPF_PROG_GET_FD_BY_ID,
        BpfObject::Link => BPF_LINK_GET_FD_BY_ID,
    };
    let mut attributes = BpfIdAttributes { id, next_id: 0, open_flags: 0, fd: 0 };
    // SAFETY: the structure is the one of these commands and holds no address.
    let fd = unsafe { bpf(command, &mut attributes) }?;
    let fd = c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads the description of an object (`struct bpf_prog_info`, `struct bpf_link_info`) as far as
/// `info` reaches. It must be zero: it also holds what is asked for.
pub(crate) fn read_bpf_info(object: BorrowedFd<'_>, info: &mut [u8]) -> io::Result<()> {
    let mut attributes = BpfInfoAttributes {
        fd: object.as_raw_fd().cast_unsigned(),
        length: u32::try_from(info.len()).map_err(io::Error::other)?,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the structure is the one of this command; `info` is as long as it says, and outlives
    // the call. Being zero, it holds no address that the kernel would write to.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }.map(drop)
}

/// Lists the programs at one place into `ids`, as many as fit, and says how many that are.
///
/// `target` is an ifindex, or the descriptor of a control group or of a network namespace, as the
/// place requires.
pub(crate) fn query_bpf(
    target: u32,
    attach_type: u32,
    query_flags: u32,
    ids: &mut [u32],
) -> io::Result<usize> {
    let mut attributes = BpfQueryAttributes {
        target,
        attach_type,
        query_flags,
        attach_flags: 0,
        program_ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).map_err(io::Error::other)?,
        padding: 0,
        unused: [0; 4],
    };
    // SAFETY: the structure is the one of this command; `ids` has room for as many numbers as it
    // says, and outlives the call.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attributes) } {
        Ok(_) => Ok(ids.len().min(attributes.count as usize)),
        // There are more than fit; those that do are there.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(ids.len()),
        Err(error) => Err(error),
    }
}

/// Puts programs in place for tests: nothing else of this crate changes the machine.
#[cfg(test)]
pub(crate) mod attach {
    use super::*;

    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_ATTACH: libc::c_long = 8;
    const BPF_LINK_CREATE: libc::c_long = 28;

    #[repr(C)]
    #[derive(Default)]
    struct LoadAttributes {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        /// Log and kernel version: four words and one.
        unused: [u32; 5],
        flags: u32,
        name: [u8; 16],
        ifindex: u32,
        expected_attach_type: u32,
    }

    /// Loads a program that returns `value`.
    pub(crate) fn load(program_type: u32, attach_type: u32, value: i32) -> io::Result<OwnedFd> {
        // `r0 = value`, `exit`: operation, registers, offset, immediate.
        let value = u64::from(value.cast_unsigned());
        let instructions = [0xb7 | value << 32, 0x95];
        let mut attributes = LoadAttributes {
            program_type,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            name: *b"canreach_test\0\0\0",
            expected_attach_type: attach_type,
            ..LoadAttributes::default()
        };
        // SAFETY: the structure is the one of this command; instructions and licence outlive it.
        let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }?;
        let fd = c_int::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the call has just opened it for us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Attaches a program to a control group; it goes with the group.
    pub(crate) fn to_group(
        program: BorrowedFd<'_>,
        group: BorrowedFd<'_>,
        attach_type: u32,
    ) -> io::Result<()> {
        let [group, program] = [group, program].map(|fd| fd.as_raw_fd().cast_unsigned());
        let mut attributes = [group, program, attach_type, 0];
        // SAFETY: four numbers are the structure of this command, and none is an address.
        unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
    }

    /// Links a program to a place; it goes with the descriptor. `more` follows the common part.
    pub(crate) fn link(
        program: BorrowedFd<'_>,
        target: u32,
        attach_type: u32,
        more: [u32; 4],
    ) -> io::Result<OwnedFd> {
        let program = program.as_raw_fd().cast_unsigned();
        let [a, b, c, d] = more;
        let mut attributes = [program, target, attach_type, 0, a, b, c, d];
        // SAFETY: eight numbers are the structure of this command, and none is an address.
        let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }?;
        let fd = c_int::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the call has just opened it for us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
