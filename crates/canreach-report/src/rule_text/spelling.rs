//! Quotes, and how much is shown.

/// Longer rules are cut in their middle. The longest that people write by hand fit.
pub const RULE_LENGTH_MAX: usize = 400;

/// More elements of a set than this are counted.
pub(super) const ELEMENTS_SHOWN_MAX: usize = 40;

/// A text with quotes, as nft and iptables write comments and prefixes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn cut(text: String) -> String {
    crate::text::line::shorten(&text, RULE_LENGTH_MAX)
}
