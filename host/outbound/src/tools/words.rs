//! A server's words, made fit for a log, an error or a guest: without credentials, printable, of bounded length.

use crate::secret::Redactor;

/// The longest reason in an error.
const REASON_BYTES: usize = 1_024;

impl Redactor {
    /// A reason for an error or a log line: without credentials, on one line, printable, bounded.
    pub(super) fn reason(&self, words: &str) -> String {
        bounded(&printable(&self.text(words), Lines::One), REASON_BYTES)
    }
}

/// An error with what caused it.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

/// Whether a text may have lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// Line ends are escaped like other control characters.
    One,
    /// Line ends and tabs stay.
    Many,
}

/// The text with control characters escaped, and with them those that turn the direction of what follows.
pub(super) fn printable(text: &str, lines: Lines) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let stays = lines == Lines::Many && matches!(letter, '\n' | '\t');
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (letter.is_control() || turns) && !stays {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// At most so many bytes of the text; an ellipsis says that it was cut.
pub(super) fn bounded(text: &str, most: usize) -> String {
    const CUT: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(CUT.len()));
    format!("{}{CUT}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_lines_stay_where_they_may() {
        assert_eq!(printable("a\u{1b}[31m\nb\u{202e}", Lines::One), "a\\u{1b}[31m\\nb\\u{202e}");
        assert_eq!(printable("a\n\tb\r", Lines::Many), "a\n\tb\\r");
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        assert_eq!(bounded("äöü", 6), "äöü");
        assert_eq!(bounded("äöüß", 6), "ä…");
    }
}
