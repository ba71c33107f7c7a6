//! Rust source with everything blanked that is not code.
//!
//! Not a parser: it knows comments, strings, characters and braces, which is what the checks need.
//! Macros that build items are left out: their content is read as if it were plain code.

/// Replaces comments and the content of strings and characters by spaces; lines stay where they
/// are.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !is_word(previous(bytes, at)) || is_prefix(bytes, at) => {
                match raw_string_end(bytes, at) {
                    Some(end) => end,
                    None => {
                        at += 1;
                        continue;
                    }
                }
            }
            b'\'' => char_end(bytes, at),
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole comments and literals were blanked, so what is left is still UTF-8.
    String::from_utf8(out).expect("literals begin and end at ASCII characters")
}

fn previous(bytes: &[u8], at: usize) -> u8 {
    at.checked_sub(1).map_or(b' ', |before| bytes[before])
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// The `r` of `br"` and `cr"`.
fn is_prefix(bytes: &[u8], at: usize) -> bool {
    matches!(previous(bytes, at), b'b' | b'c')
        && !is_word(at.checked_sub(2).map_or(b' ', |before| bytes[before]))
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut here = at;
    while here < bytes.len() {
        match bytes[here..] {
            [b'/', b'*', ..] => {
                depth += 1;
                here += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                here += 2;
                if depth == 0 {
                    return here;
                }
            }
            _ => here += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut here = open + 1;
    while here < bytes.len() {
        if bytes[here] == b'"'
            && bytes[here + 1..].iter().take_while(|byte| **byte == b'#').count() >= hashes
        {
            return Some(here + 1 + hashes);
        }
        here += 1;
    }
    Some(bytes.len())
}

/// The end of a character, or just behind the quote of a lifetime.
fn char_end(bytes: &[u8], at: usize) -> usize {
    let first = at + 1;
    if bytes.get(first) == Some(&b'\\') {
        // An escape: the closing quote follows within `'\u{10ffff}'`, and is not the escaped one.
        let rest = &bytes[(first + 2).min(bytes.len())..];
        return rest.iter().position(|byte| *byte == b'\'').map_or(at + 1, |n| first + 3 + n);
    }
    let width = match bytes.get(first) {
        Some(byte) if *byte >= 0xf0 => 4,
        Some(byte) if *byte >= 0xe0 => 3,
        Some(byte) if *byte >= 0xc0 => 2,
        _ => 1,
    };
    if bytes.get(first + width) == Some(&b'\'') { first + width + 1 } else { at + 1 }
}

/// `code` without `#[cfg(test)]` items, and without what stands in them.
pub(crate) fn shipped(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let rest = &out[start..];
        let brace = rest.find('{').unwrap_or(rest.len());
        let semicolon = rest.find(';').unwrap_or(rest.len());
        let end = if semicolon < brace { semicolon + 1 } else { block_end(rest, brace) };
        let blank: String =
            rest[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..start + end, &blank);
    }
    out
}

/// Just behind the brace that closes the one at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, character) in code[open..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth <= 1 => return open + at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Lines that are not blank.
pub(crate) fn lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Each function with a body: its name and its lines of code, signature included.
pub(crate) fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if is_word(previous(code.as_bytes(), at)) {
            continue;
        }
        let rest = &code[at..];
        let name: String =
            rest[3..].chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
        let Some(open) = body_start(rest) else { continue };
        // `fn(u8)` as a type has no name.
        if !name.is_empty() {
            found.push((name, lines(&rest[..block_end(rest, open)])));
        }
    }
    found
}

/// Where the body of the function opens; none where it is only declared.
fn body_start(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// Whether `word` stands in `code` as a word of its own.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    words(code).any(|found| found == word)
}

/// The identifiers and keywords of `code`.
pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// What `code` names of a crate: the word after `krate::`, or each in its braces.
pub(crate) fn parts_of(krate: &str, code: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let prefix = format!("{krate}::");
    for (at, _) in code.match_indices(&prefix) {
        if is_word(previous(code.as_bytes(), at)) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            parts.extend(words(rest).next().map(str::to_owned));
            continue;
        };
        // The first word of each entry at the outermost level of the braces.
        let mut depth = 0_usize;
        let mut entry = String::new();
        for character in group.chars() {
            match character {
                '}' | ',' if depth == 0 => {
                    parts.extend(words(&entry).next().map(str::to_owned));
                    entry.clear();
                    if character == '}' {
                        break;
                    }
                }
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            entry.push(if character == ',' { ' ' } else { character });
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let table = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"x("a\"b", 'c')"#, "x(      ,    )"),
            ("r#\"a \" b\"# c", "           c"),
            ("br\"a\" c", "b     c"),
            ("'\\'' '\\u{1f}' 'ä' x", "                   x"),
            ("&'a str", "& a str"),
            ("for r in y", "for r in y"),
        ];
        for (text, expected) in table {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_for_tests_is_not_shipped() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { {} }\n}\nfn c() {}\n";
        let shipped = shipped(text);
        assert_eq!(words(&shipped).collect::<Vec<_>>(), ["fn", "a", "fn", "c"]);
        assert_eq!(shipped.lines().count(), text.lines().count());
        assert_eq!(words(&super::shipped("#[cfg(test)]\nmod tests;\nfn d() {}")).count(), 2);
    }

    #[test]
    fn functions_are_measured() {
        let text =
            "trait T { fn a(&self); fn b(x: [u8; 4]) -> u8 {\n    1\n\n} }\nlet f: fn(u8);\n";
        assert_eq!(functions(text), [("b".to_owned(), 3)]);
    }
}
