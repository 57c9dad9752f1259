//! Anchors of headings, as GitHub makes them.

use std::collections::HashMap;

/// The anchors given so far in a document.
#[derive(Default)]
pub struct Anchors {
    /// Each with the last number that was put behind it.
    given: HashMap<String, usize>,
}

impl Anchors {
    /// The anchor of the next heading: its text in lower case with hyphens for spaces and without punctuation; made unique
    /// with `-1`, `-2` ….
    pub fn give(&mut self, heading: &str) -> String {
        let base: String = heading.to_lowercase().chars().filter_map(letter).collect();
        let mut anchor = base.clone();
        let mut number = self.given.get(&base).copied().unwrap_or_default();
        // A heading may be called like the second of two others: `a`, `a-1`, `a`.
        while self.given.contains_key(&anchor) {
            number += 1;
            anchor = format!("{base}-{number}");
        }
        self.given.insert(base, number);
        self.given.entry(anchor.clone()).or_default();
        anchor
    }
}

fn letter(c: char) -> Option<char> {
    match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() || is_mark(c) => Some(c),
        _ => None,
    }
}

/// The blocks of marks that belong to the character before them: an accent of its own, the variation of an emoji.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(headings: &[&str]) -> Vec<String> {
        let mut anchors = Anchors::default();
        headings.iter().map(|heading| anchors.give(heading)).collect()
    }

    #[test]
    fn an_anchor_is_lower_case_without_punctuation() {
        assert_eq!(
            given(&["What's new?", "C++ & snake_case", "Über uns", "e\u{301}te\u{301}", "日本語 2"]),
            ["whats-new", "c--snake_case", "über-uns", "e\u{301}te\u{301}", "日本語-2"]
        );
    }

    #[test]
    fn the_same_heading_twice_has_two_anchors() {
        assert_eq!(given(&["Use", "use", "Use!"]), ["use", "use-1", "use-2"]);
    }

    #[test]
    fn a_heading_called_like_anothers_second_anchor_is_unique_too() {
        assert_eq!(given(&["a", "a-1", "a", "a-1", "a"]), ["a", "a-1", "a-2", "a-1-1", "a-3"]);
        assert_eq!(given(&["a", "a", "a-1"]), ["a", "a-1", "a-1-1"]);
    }

    #[test]
    fn headings_of_punctuation_alone_are_told_apart() {
        assert_eq!(given(&["!", "?"]), ["", "-1"]);
    }
}
