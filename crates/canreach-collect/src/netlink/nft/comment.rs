//! Comments: what `nft` keeps for itself with rules and elements (`NFTA_*_USERDATA`).
//!
//! The kernel does not look at it: a row of type, length, bytes (libnftnl, `struct nftnl_udata`).

/// `NFTNL_UDATA_RULE_COMMENT`, `NFTNL_UDATA_SET_ELEM_COMMENT`.
const COMMENT: u8 = 0;

/// The comment in it, if there is one.
pub(super) fn read(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, behind) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        userdata = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_others() {
        assert_eq!(read(b"\x01\x04abcd\x00\x03hi\0").as_deref(), Some("hi"));
        assert_eq!(read(b"\x00\x02hi").as_deref(), Some("hi"));
        for without in [&b""[..], b"\x00", b"\x00\x05hi", b"\x01\x00", b"\x01\x01a\x00"] {
            assert_eq!(read(without), None, "{without:?}");
        }
    }
}
