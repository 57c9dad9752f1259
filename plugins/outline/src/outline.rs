//! The outline itself: one pass over the document's events.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, LinkType, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, HashMap};

/// Words that a person reads in a minute (M. Brysbaert, "How many words do we read per minute?", 2019).
const WORDS_PER_MINUTE: usize = 238;
/// Entries kept of each list; the counts beside them are of all.
const MOST: usize = 500;

/// What a document is made of.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
pub struct Outline {
    /// The first heading of the highest level.
    pub title: Option<String>,
    /// Headings in order.
    pub headings: Vec<Heading>,
    /// Links in order.
    pub links: Vec<Link>,
    /// All links, also those beyond the list.
    pub link_count: usize,
    /// Images.
    pub images: usize,
    /// Lines of fenced and indented code by language; `text` where none is named.
    pub code: BTreeMap<String, usize>,
    /// Words outside code.
    pub words: usize,
    /// Seconds to read it, code apart.
    pub reading_seconds: usize,
}

/// One heading.
#[derive(Debug, PartialEq, serde::Serialize)]
pub struct Heading {
    /// 1 to 6.
    pub level: u8,
    /// Without markup.
    pub text: String,
    /// As the common forges make it, made unique with `-1`, `-2` ….
    pub anchor: String,
}

/// One link.
#[derive(Debug, PartialEq, serde::Serialize)]
pub struct Link {
    /// Without markup.
    pub text: String,
    /// As written.
    pub target: String,
    /// `inline`, `reference` or `autolink`.
    pub kind: &'static str,
}

impl Outline {
    /// Read a document. Never fails: any text is Markdown.
    pub fn of(markdown: &str) -> Outline {
        let mut outline = Outline::default();
        let mut anchors: HashMap<String, usize> = HashMap::new();
        let mut heading: Option<(u8, String)> = None;
        let mut links: Vec<Link> = Vec::new();
        let mut code: Option<String> = None;
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
            match event {
                Event::Start(Tag::Heading { level, .. }) => heading = Some((number(level), String::new())),
                Event::End(TagEnd::Heading(_)) => {
                    if let Some((level, text)) = heading.take() {
                        outline.heading(level, text.trim().to_owned(), &mut anchors);
                    }
                }
                Event::Start(Tag::Link { link_type, dest_url, .. }) => {
                    links.push(Link { text: String::new(), target: dest_url.into_string(), kind: kind(link_type) });
                }
                Event::End(TagEnd::Link) => {
                    if let Some(link) = links.pop() {
                        outline.link_count += 1;
                        if outline.links.len() < MOST {
                            outline.links.push(link);
                        }
                    }
                }
                Event::Start(Tag::Image { .. }) => outline.images += 1,
                Event::Start(Tag::CodeBlock(block)) => code = Some(language(&block)),
                Event::End(TagEnd::CodeBlock) => code = None,
                Event::Text(text) => match &code {
                    Some(language) => *outline.code.entry(language.clone()).or_default() += text.lines().count(),
                    None => outline.text(&text, &mut heading, &mut links),
                },
                Event::Code(text) => outline.text(&text, &mut heading, &mut links),
                Event::SoftBreak | Event::HardBreak => {
                    if let Some((_, text)) = &mut heading {
                        text.push(' ');
                    }
                }
                _ => {}
            }
        }
        outline.title = outline.headings.iter().min_by_key(|h| h.level).map(|h| h.text.clone());
        outline.reading_seconds = (outline.words * 60).div_ceil(WORDS_PER_MINUTE);
        outline
    }

    fn text(&mut self, text: &str, heading: &mut Option<(u8, String)>, links: &mut [Link]) {
        self.words += text.split_whitespace().count();
        if let Some((_, whole)) = heading {
            whole.push_str(text);
        }
        if let Some(link) = links.last_mut() {
            link.text.push_str(text);
        }
    }

    fn heading(&mut self, level: u8, text: String, anchors: &mut HashMap<String, usize>) {
        if self.headings.len() >= MOST {
            return;
        }
        let base = anchor(&text);
        let seen = anchors.entry(base.clone()).or_default();
        let anchor = if *seen == 0 { base } else { format!("{base}-{seen}") };
        *seen += 1;
        self.headings.push(Heading { level, text, anchor });
    }
}

fn number(level: HeadingLevel) -> u8 {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}

fn kind(link: LinkType) -> &'static str {
    match link {
        LinkType::Inline => "inline",
        LinkType::Autolink | LinkType::Email => "autolink",
        _ => "reference",
    }
}

/// The first word of a fence's info string, in lower case.
fn language(block: &CodeBlockKind<'_>) -> String {
    let info = match block {
        CodeBlockKind::Fenced(info) => info.as_ref(),
        CodeBlockKind::Indented => "",
    };
    let word = info.split(|c: char| c == ',' || c.is_whitespace()).next().unwrap_or_default();
    if word.is_empty() { "text".into() } else { word.to_lowercase() }
}

fn anchor(text: &str) -> String {
    text.to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_taken_apart() {
        let outline = Outline::of(
            "# The *Title*\n\nSome words, a [link](https://example.org) and <https://auto.example>.\n\n\
             ## Use `it`\n\n```rust,no_run\nfn main() {}\n// two lines\n```\n\n## Use it\n\n![picture](a.png)\n",
        );
        assert_eq!(outline.title.as_deref(), Some("The Title"));
        let headings: Vec<_> = outline.headings.iter().map(|h| (h.level, h.anchor.as_str())).collect();
        assert_eq!(headings, [(1, "the-title"), (2, "use-it"), (2, "use-it-1")]);
        let links: Vec<_> = outline.links.iter().map(|l| (l.text.as_str(), l.kind)).collect();
        assert_eq!(links, [("link", "inline"), ("https://auto.example", "autolink")]);
        assert_eq!(outline.code, BTreeMap::from([("rust".to_owned(), 2)]));
        assert_eq!((outline.images, outline.link_count), (1, 2));
        assert!(outline.words > 5 && outline.reading_seconds > 0);
    }

    #[test]
    fn hostile_documents_are_only_documents() {
        for text in ["", "\0\0", &"[".repeat(5_000), &"> ".repeat(2_000), &"#\n".repeat(2_000), &"`".repeat(5_000)] {
            let outline = Outline::of(text);
            assert!(outline.headings.len() <= MOST);
        }
    }
}
