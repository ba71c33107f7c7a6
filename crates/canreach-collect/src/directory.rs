//! Reading directories of /proc and of control groups: one `getdents64` loop, nothing allocated per
//! entry. Machines have 100,000 descriptors; an allocation for each would cost more than the calls.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::path::Arg;

/// What the kernel is offered per call: some 1,000 entries of /proc.
const BUFFER: usize = 32 * 1024;

/// A buffer to read directories with, one after the other.
pub(crate) struct DirectoryBuffer(Box<[MaybeUninit<u8>]>);

/// One entry.
pub(crate) struct Entry<'a> {
    /// Its name.
    pub(crate) name: &'a CStr,
    /// The inode number as the directory has it.
    pub(crate) inode: u64,
    /// Whether it is a directory.
    pub(crate) directory: bool,
}

impl DirectoryBuffer {
    pub(crate) fn new() -> Self {
        Self(Box::new_uninit_slice(BUFFER))
    }

    /// Calls `each` for every entry but `.` and `..`, until it says that it has seen enough.
    pub(crate) fn read(
        &mut self,
        directory: impl AsFd,
        mut each: impl FnMut(&Entry<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut entries = RawDir::new(directory, &mut self.0);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let directory = entry.file_type() == FileType::Directory;
            each(&Entry { name, inode: entry.ino(), directory })?;
        }
        Ok(())
    }
}

/// Opens a directory below another.
pub(crate) fn open(parent: impl AsFd, path: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, path, flags, Mode::empty())
}

/// Reads a whole file below a directory into `contents`, which is emptied first.
pub(crate) fn read_file(
    parent: impl AsFd,
    path: impl Arg,
    contents: &mut Vec<u8>,
) -> Result<(), Errno> {
    read_until(parent, path, contents, |_| false)
}

/// Reads a file that the kernel writes in one piece, as all of `/proc/PID` but tables: a read that
/// leaves room in the buffer has reached the end, and is not asked again.
pub(crate) fn read_piece(
    parent: impl AsFd,
    path: impl Arg,
    contents: &mut Vec<u8>,
) -> Result<(), Errno> {
    read_until(parent, path, contents, |contents| contents.len() < contents.capacity())
}

fn read_until(
    parent: impl AsFd,
    path: impl Arg,
    contents: &mut Vec<u8>,
    is_all: impl Fn(&Vec<u8>) -> bool,
) -> Result<(), Errno> {
    contents.clear();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, path, flags, Mode::empty())?;
    loop {
        // Most files of /proc fit at once; those that do not are read in growing pieces.
        contents.reserve(4096);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(contents)) {
            Ok(0) => return Ok(()),
            Ok(_) if is_all(contents) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a whole file as text, in a few large pieces: the size of a file in /proc is not known before.
pub(crate) fn read_text(path: &str) -> io::Result<String> {
    let mut contents = Vec::with_capacity(8192);
    read_file(CWD, path, &mut contents)?;
    Ok(into_text(contents))
}

/// The same for a file that the kernel writes in one piece.
pub(crate) fn read_text_piece(path: &str) -> io::Result<String> {
    let mut contents = Vec::with_capacity(4096);
    read_piece(CWD, path, &mut contents)?;
    Ok(into_text(contents))
}

fn into_text(contents: Vec<u8>) -> String {
    String::from_utf8(contents)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_seen_once_with_its_kind() {
        let directory = open(CWD, "/proc/self").expect("a process has a directory");
        let mut seen = Vec::new();
        DirectoryBuffer::new()
            .read(&directory, |entry| {
                seen.push((entry.name.to_owned(), entry.directory));
                Ok(())
            })
            .expect("it can be read");
        let count = |name: &CStr| seen.iter().filter(|(seen, _)| **seen == *name).count();
        assert_eq!((count(c"fd"), count(c"comm"), count(c".")), (1, 1, 0));
        assert!(seen.contains(&(c"fd".to_owned(), true)));
        assert!(seen.contains(&(c"comm".to_owned(), false)));
    }

    #[test]
    fn reading_ends_when_enough_was_seen() {
        let directory = open(CWD, "/proc/self").expect("a process has a directory");
        let mut seen = 0;
        let result = DirectoryBuffer::new().read(&directory, |_| {
            seen += 1;
            Err(Errno::CANCELED)
        });
        assert_eq!((result, seen), (Err(Errno::CANCELED), 1));
    }

    #[test]
    fn files_longer_than_one_piece_come_back_whole() {
        let mut contents = b"old".to_vec();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
        read_file(CWD, file, &mut contents).expect("the workspace has a lock file");
        assert_eq!(contents, std::fs::read(file).expect("the same file"));
    }
}
