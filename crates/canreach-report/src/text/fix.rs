//! Fixes as text: what each does, the lines to type, how to take it back.

use crate::report::why::Fix;
use crate::text::line::{Line, Look, PLAIN, STRONG, printable, wrap};

/// In front of what is typed.
const INDENT: &str = "          ";

/// Every fix. What follows the first either does the same, or is needed as well.
pub(super) fn fixes(fixes: &[Fix], look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, fix) in fixes.iter().enumerate() {
        let label = match (index, fix.alternative) {
            (0, _) => "Fix:  ",
            (_, true) => "  or  ",
            (_, false) => "And:  ",
        };
        // Alternatives belong together, and a page is short.
        if index == 0 || !fix.alternative {
            lines.push(Line::new());
        }
        let width = look.columns().saturating_sub(label.len());
        if fix.speaks_for_itself {
            lines.extend(labelled(label, &fix.command, look));
            lines.extend(notes(fix, width));
            lines.extend(undo(fix, look));
            continue;
        }
        let end = if fix.command.is_empty() { "." } else { ":" };
        let sentence = wrap(&format!("{}{end}", printable(&fix.text)), width);
        for (part, text) in sentence.iter().enumerate() {
            let label = if part == 0 { label } else { "      " };
            lines.push(Line::new().add(STRONG, label).add(PLAIN, text));
        }
        for command in fix.command.lines() {
            for part in broken(&printable(command), look.columns().saturating_sub(INDENT.len())) {
                lines.push(Line::plain(INDENT).add(STRONG, &part));
            }
        }
        lines.extend(notes(fix, width));
        lines.extend(undo(fix, look));
    }
    lines
}

fn notes(fix: &Fix, width: usize) -> Vec<Line> {
    let texts = fix.notes.iter().flat_map(|note| wrap(&printable(note), width));
    texts.map(|part| Line::plain("      ").add(PLAIN, &part)).collect()
}

fn undo(fix: &Fix, look: Look) -> Vec<Line> {
    fix.undo.as_ref().map(|undo| labelled("Undo: ", undo, look)).unwrap_or_default()
}

/// Commands behind a label, line by line.
fn labelled(label: &str, commands: &str, look: Look) -> Vec<Line> {
    let width = look.columns().saturating_sub(label.len());
    let parts = commands.lines().flat_map(|line| broken(&printable(line), width));
    let labels = std::iter::once(label).chain(std::iter::repeat("      "));
    parts
        .zip(labels)
        .map(|(part, label)| Line::new().add(STRONG, label).add(PLAIN, &part))
        .collect()
}

/// A command in lines that a shell reads as one: broken at blanks outside quotes, with a backslash.
/// A word wider than the page stays whole.
fn broken(command: &str, width: usize) -> Vec<String> {
    use unicode_width::UnicodeWidthStr;

    if command.width() <= width {
        return vec![command.to_owned()];
    }
    let mut lines: Vec<String> = vec![String::new()];
    for word in shell_words(command) {
        let line = lines.last_mut().map_or(0, |line| line.width());
        // Room for a blank, the word, and ` \\`.
        if line > 0 && line + 1 + word.width() + 2 > width {
            lines.push("  ".to_owned());
        }
        if let Some(last) = lines.last_mut() {
            if !last.trim().is_empty() {
                last.push(' ');
            }
            last.push_str(&word);
        }
    }
    let last = lines.len() - 1;
    for line in &mut lines[..last] {
        line.push_str(" \\");
    }
    lines
}

/// The words of a command, quotes kept.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for letter in command.chars() {
        match quote {
            None if letter == ' ' => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            None | Some(_) => {}
        }
        word.push(letter);
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_broken_where_a_shell_may() {
        let check = |command: &str, width: usize, lines: &[&str]| {
            assert_eq!(broken(command, width), lines, "{command}");
        };
        check("npm run dev", 20, &["npm run dev"]);
        check("sudo sysctl -w a=1 b=2", 18, &["sudo sysctl -w \\", "  a=1 b=2"]);
        check("echo 'a b c d' e", 10, &["echo \\", "  'a b c d' \\", "  e"]);
        check("aaaaaaaaaaaaaaa", 10, &["aaaaaaaaaaaaaaa"]);
    }
}
