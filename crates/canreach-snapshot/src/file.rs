//! The versioned file format of a snapshot: bytes in, bytes out.

use serde::{Deserialize, Serialize};

use crate::Snapshot;

/// The version this build writes. A larger one is refused; see [`FileError::NewerVersion`].
pub const FORMAT_VERSION: u32 = 1;

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not JSON, cut short, or a value that the format does not allow.
    #[error("it is not a whole canreach snapshot: {0}")]
    Malformed(#[from] serde_json::Error),
    /// JSON, but something else.
    #[error("it is JSON, but not a canreach snapshot")]
    OtherSchema,
    /// Written by a later canreach.
    #[error(
        "it was written by a newer canreach (format {found}; this one reads up to {FORMAT_VERSION})"
    )]
    NewerVersion {
        /// The version it names.
        found: u64,
    },
    /// It holds no network namespace.
    #[error("it holds no network namespace, so there is nothing to ask of it")]
    Empty,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    snapshot: Snapshot,
}

impl Snapshot {
    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&File { version: FORMAT_VERSION, snapshot: self.clone() })
            .expect("a snapshot is plain data with string keys")
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// If they are not a snapshot this build can read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let file: File = serde_json::from_slice(bytes)?;
        Ok(file.snapshot)
    }
}
