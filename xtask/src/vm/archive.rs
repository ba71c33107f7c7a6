//! An archive as the kernel unpacks it at boot: cpio, "newc".
//!
//! Kernel: Documentation/driver-api/early-userspace/buffer-format.rst. Written here because device
//! nodes need root on a disk, but not in an archive.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// S_IFDIR, S_IFREG and S_IFCHR of stat(2).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that is being written. Folders come by themselves, before what is in them.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    out: W,
    written: u32,
    names: BTreeSet<String>,
}

/// What is in a header, apart from the name.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    mode: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// Starts one.
    pub(crate) const fn new(out: W) -> Self {
        Self { out, written: 0, names: BTreeSet::new() }
    }

    /// Adds an empty folder.
    pub(crate) fn add_folder(&mut self, path: &str) -> Result<()> {
        self.add_parents(path)?;
        self.add_entry(path, Header { mode: FOLDER | 0o755, ..Header::default() }, &[])
    }

    /// Adds a copy of a file, with its permissions. What a symbolic link leads to is copied.
    pub(crate) fn add_copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let reading = || format!("read {}", from.display());
        let permissions = std::fs::metadata(from).with_context(reading)?.permissions();
        let content = std::fs::read(from).with_context(reading)?;
        self.add_file(path, permissions.mode() & 0o777, &content)
    }

    /// Adds a file.
    pub(crate) fn add_file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.add_parents(path)?;
        self.add_entry(path, Header { mode: FILE | permissions, ..Header::default() }, content)
    }

    /// Adds a character device.
    pub(crate) fn add_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.add_parents(path)?;
        let header = Header { mode: CHARACTER_DEVICE | 0o600, device: (major, minor) };
        self.add_entry(path, header, &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.add_entry("TRAILER!!!", Header::default(), &[])?;
        self.out.flush().context("write an archive")
    }

    fn add_parents(&mut self, path: &str) -> Result<()> {
        for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
            let header = Header { mode: FOLDER | 0o755, ..Header::default() };
            self.add_entry(&path[..end], header, &[])?;
        }
        Ok(())
    }

    /// What is there already stays.
    fn add_entry(&mut self, path: &str, header: Header, content: &[u8]) -> Result<()> {
        let name = path.trim_start_matches('/');
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        self.written += 1;
        let size = u32::try_from(content.len()).context("a file is too large for an archive")?;
        let name_size = u32::try_from(name.len() + 1).context("a name is too long")?;
        let Header { mode, device: (major, minor) } = header;
        let links = 1;
        // inode, mode, user, group, links, time, size, two numbers of the disk, two of the device,
        // length of the name, checksum.
        let numbers = [self.written, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        let mut head = String::from("070701");
        for number in numbers {
            head.push_str(&format!("{number:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        for bytes in [head.as_bytes(), content] {
            self.out.write_all(bytes).context("write an archive")?;
            let padding = bytes.len().next_multiple_of(4) - bytes.len();
            self.out.write_all(&[0; 4][..padding]).context("write an archive")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_first() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.add_file("/a/b/c", 0o755, b"hello").expect("memory can be written to");
        archive.add_folder("/a/d").expect("memory can be written to");
        archive.finish().expect("memory can be written to");
        let text = String::from_utf8(bytes).expect("all of it is text");
        let entries: Vec<&str> = text.split("070701").skip(1).collect();
        let names: Vec<&str> = entries
            .iter()
            .map(|entry| entry[104..].split('\0').next().expect("a name ends with a zero"))
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/d", "TRAILER!!!"]);
        assert!(entries.iter().all(|entry| (entry.len() + 6) % 4 == 0), "{entries:?}");
        assert_eq!(&entries[2][..16], "00000003000081ed");
        assert!(entries[2].contains("hello\0\0\0"));
    }
}
