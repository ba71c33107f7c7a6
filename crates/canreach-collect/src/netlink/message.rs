//! Checked views of netlink messages (`struct nlmsghdr`): what one datagram holds.

use super::attr::{Attributes, Malformed};

/// `sizeof(struct nlmsghdr)`.
pub const HEADER: usize = 16;
/// `NLMSG_ALIGNTO`.
const ALIGNMENT: usize = 4;

/// `NLMSG_ERROR`: an errno, or an acknowledgement when that is 0.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;

/// `NLM_F_DUMP_INTR`: the kernel's tables changed between two parts of the dump.
pub const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_CAPPED`: an error message repeats the request's header only, not the request.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: an error message carries attributes.
const ACK_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const MESSAGE_TEXT: u16 = 1;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: that of the request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram.
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages that these bytes hold.
    #[must_use]
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.rest.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let kind = u16::from_ne_bytes([k0, k1]);
        let length = u32::from_ne_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = self.rest.get(HEADER..length) else {
            let malformed = Malformed {
                what: "message",
                number: kind,
                length: self.rest.len(),
                wanted: length.max(HEADER),
            };
            self.rest = &[];
            return Some(Err(malformed));
        };
        self.rest = self.rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Ok(Message {
            kind,
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        }))
    }
}

impl Message<'_> {
    /// The errno an error message or the end of a dump carries; 0 where all went well.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
    }

    /// What the kernel says about an error in words (`NLMSGERR_ATTR_MSG`).
    #[must_use]
    pub fn error_text(&self) -> Option<String> {
        if self.flags & ACK_ATTRIBUTES == 0 {
            return None;
        }
        let after_errno = self.payload.get(4..)?;
        let attributes = if self.kind == DONE {
            after_errno
        } else {
            let request = Messages::new(after_errno);
            let length = if self.flags & CAPPED == 0 {
                HEADER + request.clone().next()?.ok()?.payload.len()
            } else {
                HEADER
            };
            after_errno.get(length.next_multiple_of(ALIGNMENT)..)?
        };
        Attributes::new(attributes)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind == MESSAGE_TEXT)
            .map(|attribute| attribute.text())
    }
}

#[cfg(test)]
mod tests {
    use super::super::attr::push;
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&7_u32.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    #[test]
    fn a_datagram_of_two_is_read_as_two() {
        let mut datagram = message(20, 2, b"abcde");
        datagram.extend(message(DONE, 0, &0_i32.to_ne_bytes()));
        let read: Vec<_> = Messages::new(&datagram).map(Result::unwrap).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].sequence, read[0].payload), (20, 7, &b"abcde"[..]));
        assert_eq!((read[1].kind, read[1].errno()), (DONE, 0));
    }

    #[test]
    fn cuts_and_hostile_lengths_end_the_datagram() {
        let datagram = message(20, 2, b"abcdefgh");
        for cut in HEADER..datagram.len() {
            let read: Vec<_> = Messages::new(&datagram[..cut]).collect();
            assert_eq!(read.len(), 1, "cut at {cut}");
            assert!(read[0].is_err(), "cut at {cut}");
        }
        for length in [0_u32, 15, u32::MAX] {
            let mut hostile = datagram.clone();
            hostile[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(Messages::new(&hostile).next().unwrap().is_err(), "{length}");
        }
    }

    #[test]
    fn the_kernels_own_words_are_found_behind_the_request() {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend(message(26, 0, b"request!"));
        push(&mut payload, MESSAGE_TEXT, b"Invalid values in header\0");
        let error = message(ERROR, ACK_ATTRIBUTES, &payload);
        let error = Messages::new(&error).next().unwrap().unwrap();
        assert_eq!(error.errno(), 22);
        assert_eq!(error.error_text().as_deref(), Some("Invalid values in header"));
    }
}
