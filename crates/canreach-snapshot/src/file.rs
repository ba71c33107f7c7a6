//! The versioned file format of a snapshot: bytes in, bytes out.
//!
//! A file is one JSON object: `{"schema":"canreach.snapshot/1","version":1,"machine":...}`, the
//! fields of [`Snapshot`] beside the two that say what it is. Whatever the bytes, reading them ends
//! in a snapshot that contradicts itself nowhere ([`Snapshot::validate`]), or in a [`FileError`].

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;

use crate::compat::{FIX_UPS, upgrade};
use crate::{Inconsistency, Snapshot};

/// The version this build writes. A larger one is refused; see [`FileError::NewerVersion`].
pub const FORMAT_VERSION: u32 = 1;

/// What the file says it is. The number changes only when old programs could misread new files.
const SCHEMA: &str = "canreach.snapshot/1";

/// The part of [`SCHEMA`] that stays.
const SCHEMA_FAMILY: &str = "canreach.snapshot/";

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing in it.
    #[error("it is an empty file")]
    NoBytes,
    /// It ends in the middle of a value.
    #[error("it is cut short: {0}; copy it again, or make a new one with `canreach snapshot`")]
    Truncated(serde_json::Error),
    /// Not JSON, or a value that the format does not allow.
    #[error("it is not a canreach snapshot: {0}")]
    Malformed(serde_json::Error),
    /// JSON, but something else.
    #[error("it is JSON, but not a canreach snapshot{0}")]
    OtherSchema(OtherSchema),
    /// Written by a later canreach.
    #[error(
        "it was written by a newer canreach (format {found}; this one reads up to {FORMAT_VERSION}): \
         update canreach to read it"
    )]
    NewerVersion {
        /// The version it names.
        found: u64,
    },
    /// It names a version that never was, or none.
    #[error("it does not say which version of the format it has (1 to {FORMAT_VERSION})")]
    NoVersion,
    /// It holds no network namespace.
    #[error("it holds no network namespace, so there is nothing to ask of it")]
    Empty,
    /// It contradicts itself.
    #[error("it contradicts itself: {0}")]
    Inconsistent(#[from] Inconsistency),
}

/// What a JSON file says it is instead of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherSchema(pub Option<String>);

impl fmt::Display for OtherSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // The text is a stranger's: escaped, and no longer than a real schema's name.
            Some(schema) => {
                let start: String = schema.chars().take(60).collect();
                write!(formatter, " (its schema is {start:?})")
            }
            None => formatter.write_str(" (it has no field `schema`)"),
        }
    }
}

/// What is read first: the rest is not looked at before this fits.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    schema: Value,
    #[serde(default)]
    version: Value,
}

#[derive(Serialize)]
struct File<'a> {
    schema: &'static str,
    version: u32,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
}

impl Snapshot {
    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&File { schema: SCHEMA, version: FORMAT_VERSION, snapshot: self })
            .expect("a snapshot is plain data with string keys")
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// If they are not a snapshot this build can read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(FileError::NoBytes);
        }
        let version = version_of(bytes)?;
        let snapshot: Self = if version == FORMAT_VERSION {
            serde_json::from_slice(bytes).map_err(malformed)?
        } else {
            let mut file: Value = serde_json::from_slice(bytes).map_err(malformed)?;
            upgrade(&mut file, version, FIX_UPS);
            serde_json::from_value(file).map_err(malformed)?
        };
        if snapshot.namespaces.is_empty() {
            return Err(FileError::Empty);
        }
        snapshot.validate()?;
        Ok(snapshot)
    }
}

fn version_of(bytes: &[u8]) -> Result<u32, FileError> {
    let header: Header = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        // A number, a text or a list: whole JSON, and certainly not one of our files.
        Category::Data => FileError::OtherSchema(OtherSchema(None)),
        Category::Io | Category::Syntax | Category::Eof => malformed(error),
    })?;
    let schema = header.schema.as_str();
    let Some(number) = schema.and_then(|schema| schema.strip_prefix(SCHEMA_FAMILY)) else {
        return Err(FileError::OtherSchema(OtherSchema(schema.map(str::to_owned))));
    };
    if schema != Some(SCHEMA) {
        return Err(match number.parse() {
            Ok(found) if found > 1 => FileError::NewerVersion { found },
            Ok(_) | Err(_) => FileError::NoVersion,
        });
    }
    match header.version.as_u64() {
        Some(found) if found > u64::from(FORMAT_VERSION) => Err(FileError::NewerVersion { found }),
        Some(found @ 1..) => u32::try_from(found).map_err(|_| FileError::NoVersion),
        Some(0) | None => Err(FileError::NoVersion),
    }
}

fn malformed(error: serde_json::Error) -> FileError {
    match error.classify() {
        Category::Eof => FileError::Truncated(error),
        Category::Io | Category::Syntax | Category::Data => FileError::Malformed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Netns;

    fn snapshot() -> Snapshot {
        Snapshot {
            machine: crate::Machine { kernel_release: "6.12.9".into(), ..Default::default() },
            namespaces: vec![Netns { own: true, ..Default::default() }],
            processes: Vec::new(),
            cgroups: Vec::new(),
            gaps: Vec::new(),
        }
    }

    #[test]
    fn a_snapshot_survives_the_way_through_a_file() {
        let bytes = snapshot().to_bytes();
        assert!(bytes.starts_with(br#"{"schema":"canreach.snapshot/1","version":1,"#));
        assert_eq!(Snapshot::from_bytes(&bytes).expect("just written"), snapshot());
    }

    #[test]
    fn a_file_cut_anywhere_says_so() {
        let bytes = snapshot().to_bytes();
        for length in 1..bytes.len() {
            match Snapshot::from_bytes(&bytes[..length]) {
                Err(FileError::Truncated(_)) => {}
                other => panic!("{length} bytes: {other:?}"),
            }
        }
    }

    fn check(text: &str, message: &str) {
        let error = Snapshot::from_bytes(text.as_bytes()).expect_err(text).to_string();
        assert_eq!(error, message, "{text}");
    }

    #[test]
    fn other_files_are_told_apart() {
        check("", "it is an empty file");
        check("\n", "it is an empty file");
        check("hello", "it is not a canreach snapshot: expected value at line 1 column 1");
        let other = "it is JSON, but not a canreach snapshot";
        check("7", &format!("{other} (it has no field `schema`)"));
        check("[]", &format!("{other} (it has no field `schema`)"));
        check("{}", &format!("{other} (it has no field `schema`)"));
        check(r#"{"schema":7}"#, &format!("{other} (it has no field `schema`)"));
        check(
            r#"{"schema":"canreach.why/1"}"#,
            &format!("{other} (its schema is \"canreach.why/1\")"),
        );
        check(r#"{"schema":"a\u001b[1m"}"#, &format!("{other} (its schema is \"a\\u{{1b}}[1m\")"));
    }

    #[test]
    fn other_versions_are_refused() {
        let newer = |found: &str| {
            format!(
                "it was written by a newer canreach (format {found}; this one reads up to 1): \
                 update canreach to read it"
            )
        };
        check(r#"{"schema":"canreach.snapshot/1","version":2}"#, &newer("2"));
        check(
            r#"{"schema":"canreach.snapshot/1","version":18446744073709551615}"#,
            &newer("18446744073709551615"),
        );
        check(r#"{"schema":"canreach.snapshot/3","version":1}"#, &newer("3"));
        let none = "it does not say which version of the format it has (1 to 1)";
        for version in ["0", "-1", "1.5", "\"1\"", "null", "[1]", "1e400000"] {
            let text = format!(r#"{{"schema":"canreach.snapshot/1","version":{version}}}"#);
            let error = Snapshot::from_bytes(text.as_bytes()).expect_err(version);
            assert!(
                matches!(error, FileError::NoVersion | FileError::Malformed(_)),
                "{version}: {error}"
            );
        }
        check(r#"{"schema":"canreach.snapshot/1"}"#, none);
        check(r#"{"schema":"canreach.snapshot/x","version":1}"#, none);
    }

    #[test]
    fn a_file_without_a_namespace_answers_nothing() {
        let empty = Snapshot { namespaces: Vec::new(), ..snapshot() };
        let error = Snapshot::from_bytes(&empty.to_bytes()).expect_err("no namespace");
        assert!(matches!(error, FileError::Empty), "{error}");
    }

    #[test]
    fn numbers_out_of_range_name_their_place() {
        let text = String::from_utf8(snapshot().to_bytes()).expect("JSON is text");
        for (from, to) in [
            (r#""collected_at_ms":0"#, r#""collected_at_ms":-1"#),
            (r#""collected_at_ms":0"#, r#""collected_at_ms":1e99"#),
            (r#""id":0"#, r#""id":99999999999999999999999"#),
            (r#""own":true"#, r#""own":1"#),
            (r#""fib_layout":"unknown""#, r#""fib_layout":"round""#),
            (r#""links":[]"#, r#""links":[[]]"#),
            (r#""routes":[]"#, r#""routes":[{"destination":"10.0.0.0/33"}]"#),
        ] {
            assert!(text.contains(from), "{from} is in {text}");
            let error = Snapshot::from_bytes(text.replace(from, to).as_bytes()).expect_err(to);
            assert!(matches!(error, FileError::Malformed(_)), "{to}: {error}");
            assert!(error.to_string().contains("line 1 column"), "{error}");
        }
    }

    #[test]
    fn fields_of_a_later_build_are_passed_over() {
        let text = String::from_utf8(snapshot().to_bytes()).expect("JSON is text");
        let later = text.replacen('{', r#"{"later":[{"deep":[[[]]]}],"#, 1);
        assert_eq!(Snapshot::from_bytes(later.as_bytes()).expect("known fields"), snapshot());
    }

    #[test]
    fn nesting_without_end_is_refused_and_does_not_overflow() {
        for open in ["[", r#"{"namespaces":"#] {
            let error = Snapshot::from_bytes(open.repeat(200_000).as_bytes()).expect_err("no end");
            assert!(!error.to_string().is_empty());
        }
    }
}
