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

/// Controls (C0, DEL, C1), and Unicode's invisible formatting: bidirectional overrides and isolates can make a line read
/// as another (CVE-2021-42574), zero-width characters and tags hide in it.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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
    fn everything_else_stays_as_it_is() {
        let text = "naïve 日本語 🙂 «quotes» \\n";
        assert_eq!(line(text), text);
    }
}
