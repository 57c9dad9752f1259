//! HTML to its text, token by token.

use crate::{Page, printable};
use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};

/// What is inside these is no text of the page.
const SILENT: [&[u8]; 9] =
    [b"script", b"style", b"noscript", b"template", b"svg", b"math", b"iframe", b"object", b"select"];

/// These begin and end a line.
const BLOCKS: [&[u8]; 37] = [
    b"address",
    b"article",
    b"aside",
    b"blockquote",
    b"body",
    b"caption",
    b"dd",
    b"details",
    b"dialog",
    b"div",
    b"dl",
    b"dt",
    b"fieldset",
    b"figcaption",
    b"figure",
    b"footer",
    b"form",
    b"h1",
    b"h2",
    b"h3",
    b"h4",
    b"h5",
    b"h6",
    b"header",
    b"hr",
    b"li",
    b"main",
    b"nav",
    b"ol",
    b"p",
    b"pre",
    b"section",
    b"summary",
    b"table",
    b"tr",
    b"ul",
    b"title",
];

/// Reads HTML.
pub(crate) fn read(source: &str) -> Page {
    let mut emitter = DefaultEmitter::default();
    // `<title>` and `<script>` hold text in which `<` means nothing.
    emitter.naively_switch_states(true);
    let mut reader = Reader::default();
    for Ok(token) in Tokenizer::new_with_emitter(source, emitter) {
        match token {
            Token::StartTag(tag) => reader.start(&tag.name),
            Token::EndTag(tag) => reader.end(&tag.name),
            Token::String(text) => reader.text(&String::from_utf8_lossy(&text)),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    title: Option<String>,
    in_title: bool,
    text: String,
    /// What stands between the last word and the next one.
    gap: Gap,
    /// The silent element that we are in, and how many of its kind are open.
    silence: Option<(Vec<u8>, usize)>,
    /// How many `pre` are open.
    verbatim: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Line,
}

impl Reader {
    fn start(&mut self, name: &[u8]) {
        if let Some((silent, depth)) = &mut self.silence {
            if silent == name {
                *depth += 1;
            }
            return;
        }
        if SILENT.contains(&name) {
            self.silence = Some((name.to_vec(), 1));
            return;
        }
        match name {
            b"title" if self.title.is_none() => {
                self.title = Some(String::new());
                self.in_title = true;
            }
            b"br" => self.widen(Gap::Line),
            b"td" | b"th" => self.widen(Gap::Space),
            b"pre" => self.verbatim += 1,
            _ => {}
        }
        if BLOCKS.contains(&name) {
            self.widen(Gap::Line);
        }
        if name == b"li" {
            self.word("-");
            self.widen(Gap::Space);
        }
    }

    fn end(&mut self, name: &[u8]) {
        if let Some((silent, depth)) = &mut self.silence {
            if silent == name {
                *depth -= 1;
            }
            if *depth == 0 {
                self.silence = None;
            }
            return;
        }
        match name {
            b"title" => self.in_title = false,
            b"pre" => self.verbatim = self.verbatim.saturating_sub(1),
            _ => {}
        }
        if BLOCKS.contains(&name) {
            self.widen(Gap::Line);
        }
    }

    fn text(&mut self, text: &str) {
        if self.silence.is_some() {
            return;
        }
        if self.in_title {
            if let Some(title) = &mut self.title {
                title.push_str(text);
            }
            return;
        }
        if self.verbatim > 0 {
            self.word(text);
            return;
        }
        if text.starts_with(char::is_whitespace) {
            self.widen(Gap::Space);
        }
        for (nth, word) in text.split_whitespace().enumerate() {
            if nth > 0 {
                self.widen(Gap::Space);
            }
            self.word(word);
        }
        if text.ends_with(char::is_whitespace) {
            self.widen(Gap::Space);
        }
    }

    fn widen(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn word(&mut self, word: &str) {
        let gap = std::mem::take(&mut self.gap);
        if !self.text.is_empty() {
            match gap {
                Gap::None => {}
                Gap::Space => self.text.push(' '),
                Gap::Line => self.text.push('\n'),
            }
        }
        self.text.push_str(word);
    }

    fn finish(self) -> Page {
        let title = self.title.map(|title| title.split_whitespace().collect::<Vec<_>>().join(" "));
        let title = title.map(|title| printable(&title)).filter(|title| !title.is_empty());
        Page { title, text: printable(self.text.trim()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        read(source).text
    }

    #[test]
    fn a_page_is_its_title_and_a_line_for_each_block() {
        let page = read(
            "<!doctype html><html><head><title> Bread &amp;\n butter </title><meta charset=utf-8></head><body>\
             <h1>Bread</h1><p>Flour,  water,\n <b>salt</b>.</p><ul><li>Mix</li><li>Bake</li></ul>\
             <table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>one<br>two</body></html>",
        );
        assert_eq!(page.title.as_deref(), Some("Bread & butter"));
        assert_eq!(page.text, "Bread\nFlour, water, salt.\n- Mix\n- Bake\na b\nc\none\ntwo");
    }

    #[test]
    fn scripts_and_styles_are_no_text() {
        assert_eq!(text("a<script>if (1 < 2) { '<p>b</p>' }</script><style>c{}</style><!-- d --><p>e"), "a\ne");
        assert_eq!(text("a<svg><title>b</title><svg>c</svg>d</svg>e<noscript>f</noscript>"), "ae");
    }

    #[test]
    fn entities_are_letters_and_control_characters_are_gone() {
        assert_eq!(text("&lt;b&gt; &eacute; &#x1F35E; &#27;x\u{7}"), "<b> \u{e9} \u{1f35e} x");
    }

    #[test]
    fn what_is_preformatted_keeps_its_lines() {
        assert_eq!(text("<p>a</p><pre>fn b() {\n    c\n}</pre><p>d  e</p>"), "a\nfn b() {\n    c\n}\nd e");
    }

    #[test]
    fn words_stay_whole_across_tags() {
        assert_eq!(text("un<b>believ</b>able <i>x</i> <i>y</i>"), "unbelievable x y");
    }

    #[test]
    fn broken_and_hostile_pages_are_read_all_the_same() {
        assert_eq!(text("<p>a<p <b>c</i></p></p></pre>d<"), "a\nc\nd<");
        let deep = format!("{}x{}", "<div>".repeat(200_000), "</div>".repeat(200_000));
        assert_eq!(text(&deep), "x");
        assert_eq!(text(&"<".repeat(100_000)).len(), 100_000);
        assert_eq!(text("a<script>b"), "a");
    }
}
