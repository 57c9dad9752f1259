//! The outline itself: one pass over the document's events.

use crate::anchor::Anchors;
use crate::words::Words;
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, LinkType, Options, Parser, Tag, TagEnd};
use std::collections::BTreeMap;

/// Words that a person reads in a minute (M. Brysbaert, "How many words do we read per minute?", 2019).
const WORDS_PER_MINUTE: usize = 238;
/// Entries kept of each list; the counts beside them are of all.
const MOST: usize = 500;
/// Languages of code that are told apart; what comes later is counted as [`OTHER`].
const MOST_LANGUAGES: usize = 100;
/// Bytes kept in all lists together, so that no document makes an output that the host refuses. What references repeat
/// counts each time.
const MOST_BYTES: usize = 128 << 10;
/// Characters kept of the text of a heading, link or image.
const TEXT: usize = 300;
/// Characters kept of a target: more is an image written into its own address.
const TARGET: usize = 2_000;
/// Characters kept of a language's name.
const LANGUAGE: usize = 40;
/// Code that names no language.
const NONE: &str = "text";
/// Languages beyond [`MOST_LANGUAGES`].
const OTHER: &str = "(other)";

/// What a document is made of.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
pub struct Outline {
    /// The first heading of the highest level.
    pub title: Option<String>,
    /// The first headings, in order.
    pub headings: Vec<Heading>,
    /// All headings, also those beyond the list.
    pub heading_count: usize,
    /// The first links, in order.
    pub links: Vec<Link>,
    /// All links.
    pub link_count: usize,
    /// The first images, in order.
    pub images: Vec<Image>,
    /// All images.
    pub image_count: usize,
    /// Code by language; `text` where none is named.
    pub code: BTreeMap<String, Code>,
    /// Words outside code blocks.
    pub words: usize,
    /// Seconds to read these words.
    pub reading_seconds: usize,
}

/// One heading.
#[derive(Debug, PartialEq, serde::Serialize)]
pub struct Heading {
    /// 1 to 6.
    pub level: u8,
    /// Without markup.
    pub text: String,
    /// As GitHub makes it.
    pub anchor: String,
}

/// One link. Bare addresses are text, as CommonMark has it.
#[derive(Debug, PartialEq, serde::Serialize)]
pub struct Link {
    /// Without markup.
    pub text: String,
    /// As written; of a reference, as written where it is defined.
    pub target: String,
    /// `inline`, `reference` or `autolink`.
    pub kind: &'static str,
}

/// One image.
#[derive(Debug, PartialEq, serde::Serialize)]
pub struct Image {
    /// What stands for it.
    pub alt: String,
    /// As written.
    pub target: String,
}

/// Blocks of code in one language.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
pub struct Code {
    /// Fenced or indented blocks.
    pub blocks: usize,
    /// Lines in them.
    pub lines: usize,
}

impl Outline {
    /// Reads a document. Never fails: any text is Markdown.
    pub fn of(markdown: &str) -> Outline {
        let options = Options::ENABLE_TABLES
            | Options::ENABLE_STRIKETHROUGH
            | Options::ENABLE_TASKLISTS
            | Options::ENABLE_FOOTNOTES;
        let mut reader = Reader { room: MOST_BYTES, ..Reader::default() };
        Parser::new_ext(body(markdown), options).for_each(|event| reader.read(event));
        reader.finish()
    }
}

/// The outline so far, and what the next event is within.
#[derive(Default)]
struct Reader {
    outline: Outline,
    anchors: Anchors,
    words: Words,
    /// Bytes that may still be kept.
    room: usize,
    title_level: Option<u8>,
    heading: Option<(u8, String)>,
    /// Links and images that are open, the innermost last. An image may hold links, and a link images.
    open: Vec<Open>,
    code: Option<Block>,
}

/// A link or an image whose text is being read.
struct Open {
    text: String,
    target: String,
    /// `None`: an image.
    link: Option<LinkType>,
}

/// A block of code that is being read.
struct Block {
    language: String,
    lines: usize,
    /// The last line has begun and not ended.
    line_open: bool,
}

impl Reader {
    fn read(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(block) => block.read(&text),
                None => self.text(&text),
            },
            Event::Code(text) => self.text(&text),
            Event::SoftBreak | Event::HardBreak => self.text(" "),
            Event::Rule => self.words.end(),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        if !is_inline(&tag) {
            self.words.end();
        }
        match tag {
            Tag::Heading { level, .. } => self.heading = Some((number(level), String::new())),
            Tag::Link { link_type, dest_url, .. } => self.open(&dest_url, Some(link_type)),
            Tag::Image { dest_url, .. } => self.open(&dest_url, None),
            Tag::CodeBlock(kind) => {
                self.code = Some(Block { language: language(&kind), lines: 0, line_open: false });
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                if let Some((level, text)) = self.heading.take() {
                    self.keep_heading(level, text.trim());
                }
            }
            TagEnd::Link | TagEnd::Image => {
                if let Some(open) = self.open.pop() {
                    self.keep_open(open);
                }
            }
            TagEnd::CodeBlock => {
                if let Some(block) = self.code.take() {
                    self.keep_code(block);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, target: &str, link: Option<LinkType>) {
        let mut kept = String::new();
        append(&mut kept, target, TARGET);
        self.open.push(Open { text: String::new(), target: kept, link });
    }

    /// Text belongs to the heading and to the link that it is in. To the innermost one only: what an image shows is
    /// handed on when it ends.
    fn text(&mut self, text: &str) {
        self.words.read(text);
        if let Some(open) = self.open.last_mut() {
            append(&mut open.text, text, TEXT);
        }
        if let Some((_, whole)) = &mut self.heading {
            append(whole, text, TEXT);
        }
    }

    fn keep_heading(&mut self, level: u8, text: &str) {
        self.outline.heading_count += 1;
        if self.title_level.is_none_or(|so_far| level < so_far) {
            self.title_level = Some(level);
            self.outline.title = Some(text.to_owned());
        }
        // The anchor is about as long as the text.
        if self.outline.headings.len() < MOST && self.take(2 * text.len()) {
            let anchor = self.anchors.give(text);
            self.outline.headings.push(Heading { level, text: text.to_owned(), anchor });
        }
    }

    fn keep_open(&mut self, Open { text, target, link }: Open) {
        // What stands for an image within a link is the link's text.
        if let Some(outer) = self.open.last_mut() {
            append(&mut outer.text, &text, TEXT);
        }
        let (count, kept) = match link {
            Some(_) => (&mut self.outline.link_count, self.outline.links.len()),
            None => (&mut self.outline.image_count, self.outline.images.len()),
        };
        *count += 1;
        if kept >= MOST || !self.take(text.len() + target.len()) {
            return;
        }
        match link {
            Some(link) => self.outline.links.push(Link { text, target, kind: kind(link) }),
            None => self.outline.images.push(Image { alt: text, target }),
        }
    }

    fn keep_code(&mut self, block: Block) {
        let known = self.outline.code.contains_key(&block.language) || self.outline.code.len() < MOST_LANGUAGES;
        let language = if known { block.language } else { OTHER.to_owned() };
        let code = self.outline.code.entry(language).or_default();
        code.blocks += 1;
        code.lines += block.lines + usize::from(block.line_open);
    }

    /// Takes room for so many bytes, if there is as much. Once there is not, nothing more is kept, so that each list is
    /// a beginning without gaps.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(0);
        left.is_some()
    }

    fn finish(mut self) -> Outline {
        self.outline.words = self.words.count();
        self.outline.reading_seconds = (self.outline.words * 60).div_ceil(WORDS_PER_MINUTE);
        self.outline
    }
}

impl Block {
    fn read(&mut self, text: &str) {
        self.lines += text.matches('\n').count();
        if !text.is_empty() {
            self.line_open = !text.ends_with('\n');
        }
    }
}

/// The document without front matter: YAML between two lines of `---` at the very beginning. The parser's own option takes
/// such lines for front matter anywhere in the document.
fn body(markdown: &str) -> &str {
    let markdown = markdown.strip_prefix('\u{feff}').unwrap_or(markdown);
    let mut lines = markdown.split_inclusive('\n');
    let mut end = match lines.next() {
        Some(first) if first.trim_end() == "---" => first.len(),
        _ => return markdown,
    };
    for (number, line) in lines.enumerate() {
        end += line.len();
        match line.trim_end() {
            "---" | "..." if number > 0 => return &markdown[end..],
            "" if number == 0 => return markdown, // a rule
            _ => {}
        }
    }
    markdown
}

/// Appends to a text that is kept up to `most` characters; an ellipsis says that there was more.
fn append(text: &mut String, more: &str, most: usize) {
    let length = text.chars().count();
    if length > most {
        return; // ends in its ellipsis
    }
    let mut rest = more.chars();
    text.extend(rest.by_ref().take(most - length));
    if rest.next().is_some() {
        text.push('…');
    }
}

/// Whether words go on across this.
fn is_inline(tag: &Tag<'_>) -> bool {
    use Tag::{Emphasis, Image, Link, Strikethrough, Strong, Subscript, Superscript};
    matches!(tag, Emphasis | Strong | Strikethrough | Superscript | Subscript | Link { .. } | Image { .. })
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

/// The first word of a fence's info string, in lower case: `rust` of `rust,no_run`, and of `{.rust}`.
fn language(block: &CodeBlockKind<'_>) -> String {
    let info = match block {
        CodeBlockKind::Fenced(info) => info.as_ref(),
        CodeBlockKind::Indented => "",
    };
    let mut words = info
        .split(|c: char| matches!(c, ',' | '{' | '}') || c.is_whitespace())
        .map(|word| word.trim_start_matches('.'));
    let word = words.find(|word| !word.is_empty());
    let mut language = String::new();
    append(&mut language, &word.unwrap_or(NONE).to_lowercase(), LANGUAGE);
    language
}

#[cfg(test)]
#[path = "outline_tests.rs"]
mod tests;
