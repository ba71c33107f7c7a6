//! Lines of styled text: width, shortening, and what must not reach a terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How to print: the width, and whether in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether escape sequences for colours are wanted.
    pub color: bool,
}

/// Lines are never longer than this, however wide the terminal: they are read, not scanned.
pub const WIDTH_MAX: usize = 80;

impl Look {
    /// The columns to use.
    #[must_use]
    pub fn columns(self) -> usize {
        /// Narrower terminals wrap.
        const WIDTH_MIN: usize = 40;
        self.width.clamp(WIDTH_MIN, WIDTH_MAX)
    }
}

/// `ok` and `Yes`.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// The STOP step.
pub(crate) const STOP: Style = AnsiColor::Red.on_default().bold();
/// What cannot be told.
pub(crate) const UNKNOWN: Style = AnsiColor::Cyan.on_default();
/// Wider than it looks.
pub(crate) const WIDE: Style = AnsiColor::Yellow.on_default().bold();
/// Codes, and what matters less.
pub(crate) const DIM: Style = Style::new().dimmed();
/// The first word of an answer.
pub(crate) const STRONG: Style = Style::new().bold();
/// Everything else.
pub(crate) const PLAIN: Style = Style::new();

/// One line: pieces of text, each in a style.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    pieces: Vec<(Style, String)>,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn plain(text: &str) -> Self {
        Self::new().add(PLAIN, text)
    }

    #[must_use]
    pub(crate) fn add(mut self, style: Style, text: &str) -> Self {
        self.pieces.push((style, text.to_owned()));
        self
    }

    pub(crate) fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| text.width()).sum()
    }

    /// Fills up with spaces to a column; at least one space if the column is already passed.
    #[must_use]
    pub(crate) fn pad_to(self, column: usize) -> Self {
        let missing = column.saturating_sub(self.width()).max(usize::from(column > 0));
        self.add(PLAIN, &" ".repeat(missing))
    }

    /// Puts a text at the right edge; on a line of its own if there is no room.
    pub(crate) fn with_right(self, style: Style, text: &str, look: Look) -> Vec<Self> {
        let column = look.columns().saturating_sub(text.width());
        if self.width() + 1 < column {
            return vec![self.pad_to(column).add(style, text)];
        }
        vec![self, Self::new().pad_to(column).add(style, text)]
    }

    pub(crate) fn print(&self, look: Look, out: &mut String) {
        let mut line = String::new();
        for (style, text) in &self.pieces {
            if look.color && *style != PLAIN && !text.trim().is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(line, "{style}{text}{style:#}");
            } else {
                line.push_str(text);
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Prints lines.
pub(crate) fn print(lines: &[Line], look: Look) -> String {
    let mut out = String::new();
    for line in lines {
        line.print(look, &mut out);
    }
    out
}

/// Breaks a text at spaces. Words that are too long stay whole.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for word in text.split(' ') {
        if !current.is_empty() && current.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut current));
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(current);
    lines
}

/// A text that is safe to print: control characters and those that turn the direction of writing are
/// shown as escapes. Names of programs, directories and Wi-Fi networks hold whatever others wrote.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}')
            || ('\u{202a}'..='\u{202e}').contains(&character)
            || ('\u{2066}'..='\u{2069}').contains(&character);
        if character.is_control() || turns || matches!(character, '\u{2028}' | '\u{2029}') {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Shortens a text in its middle to a width.
#[must_use]
pub fn shorten(text: &str, width: usize) -> String {
    const MARK: &str = "...";
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(MARK.len());
    let take = |characters: &mut dyn Iterator<Item = char>, room: usize| {
        let mut used = 0;
        let mut taken = Vec::new();
        for character in characters {
            used += character.width().unwrap_or(0);
            if used > room {
                break;
            }
            taken.push(character);
        }
        taken
    };
    let head: String = take(&mut text.chars(), room / 2).into_iter().collect();
    let tail: String = take(&mut text.chars().rev(), room - room / 2).into_iter().rev().collect();
    format!("{head}{MARK}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[31mb"), "a\\u{1b}[31mb");
        assert_eq!(printable("x\ny\tz\u{7f}"), "x\\ny\\tz\\u{7f}");
        assert_eq!(printable("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(printable("home \u{7f51}\u{7edc}"), "home \u{7f51}\u{7edc}");
    }

    #[test]
    fn shortened_in_the_middle_by_columns_not_bytes() {
        assert_eq!(shorten("abcdefghij", 10), "abcdefghij");
        assert_eq!(shorten("abcdefghijk", 10), "abc...hijk");
        // Each of these takes two columns.
        assert_eq!(shorten("\u{7f51}\u{7f51}\u{7f51}\u{7f51}\u{7f51}", 8).width(), 7);
        assert_eq!(shorten("abcdef", 0), "...");
    }

    #[test]
    fn wrapped_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible", 5), ["incomprehensible"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
