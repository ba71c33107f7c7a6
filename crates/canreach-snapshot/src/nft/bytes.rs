//! Raw bytes of registers, set elements and xt structures; in files, hexadecimal digits.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// As many as fit without an allocation of their own: an IPv6 address and a port, with padding. Sets
/// may have a million elements.
const INLINE: usize = 22;

/// Bytes as the kernel reports them.
#[derive(Clone)]
pub struct Bytes(Store);

#[derive(Clone)]
enum Store {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Bytes {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Store::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Store::Heap(bytes) => bytes,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self(Store::Inline { length: 0, bytes: [0; INLINE] })
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl From<&[u8]> for Bytes {
    fn from(slice: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..slice.len()), u8::try_from(slice.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(slice);
                Self(Store::Inline { length, bytes })
            }
            _ => Self(Store::Heap(slice.into())),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl<const N: usize> From<[u8; N]> for Bytes {
    fn from(bytes: [u8; N]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Bytes({self})")
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an even number of hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

fn parse(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
            _ => None,
        })
        .collect();
    Some(Bytes::from(bytes?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ones_need_no_allocation_and_compare_with_long_ones() {
        assert_eq!(size_of::<Bytes>(), 24);
        let of = |length: usize| Bytes::from(vec![7; length]);
        for length in [0, 1, INLINE, INLINE + 1, 64] {
            assert_eq!(of(length).as_slice(), vec![7; length]);
            assert!(of(length) < of(length + 1), "{length}");
            assert!(of(length) < Bytes::from([8]), "{length}");
        }
        assert!(matches!(of(INLINE).0, Store::Inline { .. }));
        assert!(matches!(of(INLINE + 1).0, Store::Heap(_)));
    }

    #[test]
    fn hexadecimal_there_and_back() {
        for bytes in [vec![], vec![0], vec![0xff, 0x01, 0xa0]] {
            let bytes = Bytes::from(bytes);
            assert_eq!(parse(&bytes.to_string()), Some(bytes));
        }
        for wrong in ["0", "0g", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
