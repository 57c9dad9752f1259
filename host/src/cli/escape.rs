//! Text from a guest or a message, made harmless for a terminal. The one place that does it.

/// On one line: every control character, and what reorders or hides text, becomes visible.
pub fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_hostile(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// Controls (C0, DEL, C1), line and paragraph separators, annotations, and what Unicode has drawn as nothing
/// (`Default_Ignorable_Code_Point`): bidirectional overrides and isolates can make a line read as another (CVE-2021-42574), and
/// zero-width characters, fillers, tags and variation selectors hide text in it, the last a whole file behind one letter. The
/// selectors 15 and 16 stay: they choose how the visible character before them looks, as in ❤️.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_shown_instead() {
        assert_eq!(line("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(line("over\rwrite\nnext\tcolumn"), "over\\rwrite\\nnext\\tcolumn");
        assert_eq!(line("\0\u{7f}\u{9b}31m"), "\\u{0}\\u{7f}\\u{9b}31m");
        assert_eq!(line("user\u{202e}nimda"), "user\\u{202e}nimda");
    }

    #[test]
    fn what_is_drawn_as_nothing_cannot_hide_text() {
        assert_eq!(line("a\u{e0141}\u{e0142}b"), "a\\u{e0141}\\u{e0142}b");
        assert_eq!(line("pass\u{ad}word\u{3164}"), "pass\\u{ad}word\\u{3164}");
        assert_eq!(line("\u{2764}\u{fe0f}"), "\u{2764}\u{fe0f}");
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = "naïve 日本語 🙂 «quotes» \\n";
        assert_eq!(line(text), text);
    }
}
