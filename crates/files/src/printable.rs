//! Text of files on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with every character written out that would steer a terminal, such as the escape of a colour or of a change in
/// the direction of writing; line ends and tabs stay.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        let _ = match steers(c) {
            true => write!(out, "{}", c.escape_unicode()), // a String takes all
            false => out.write_char(c),
        };
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\r\u{202e}d"), "a\\u{1b}[2Jb\\u{9b}c\\u{d}\\u{202e}d");
        assert!(matches!(printable("añ\t1\n"), Cow::Borrowed(_)));
    }
}
