use super::*;

const DOCUMENT: &str = "---\ntitle: not a heading\n---\n\n\
    # The *Title*\n\nSome words, a [li**nk**](https://example.org), <https://auto.example> and a [reference].\n\n\
    ## Use `it`\n\n```rust,no_run\nfn main() {}\n\n// three lines\n```\n\n## Use it\n\n\
    [![build](badge.svg)](https://ci.example)\n\n    indented\n\n| a | b |\n|---|---|\n| c | d |\n\n\
    [reference]: ../elsewhere.md\n";

fn links(outline: &Outline) -> Vec<(&str, &str, &str)> {
    outline.links.iter().map(|link| (link.text.as_str(), link.target.as_str(), link.kind)).collect()
}

#[test]
fn headings_have_level_text_and_anchor() {
    let outline = Outline::of(DOCUMENT);
    let headings: Vec<_> = outline.headings.iter().map(|h| (h.level, h.text.as_str(), h.anchor.as_str())).collect();
    assert_eq!(headings, [(1, "The Title", "the-title"), (2, "Use it", "use-it"), (2, "Use it", "use-it-1")]);
    assert_eq!(outline.heading_count, 3);
}

#[test]
fn the_title_is_the_first_heading_of_the_highest_level() {
    assert_eq!(Outline::of(DOCUMENT).title.as_deref(), Some("The Title"));
    assert_eq!(Outline::of("### a\n## b\n## c\n#### d\n").title.as_deref(), Some("b"));
    assert_eq!(Outline::of("no heading").title, None);
}

#[test]
fn links_have_text_target_and_kind() {
    assert_eq!(
        links(&Outline::of(DOCUMENT)),
        [
            ("link", "https://example.org", "inline"),
            ("https://auto.example", "https://auto.example", "autolink"),
            ("reference", "../elsewhere.md", "reference"),
            ("build", "https://ci.example", "inline"),
        ]
    );
}

#[test]
fn an_image_within_a_link_is_both() {
    let outline = Outline::of(DOCUMENT);
    assert_eq!(outline.images, [Image { alt: "build".into(), target: "badge.svg".into() }]);
    assert_eq!((outline.image_count, outline.link_count), (1, 4));
}

#[test]
fn code_is_counted_by_language_in_blocks_and_lines() {
    let code = |blocks, lines| Code { blocks, lines };
    let outline = Outline::of(DOCUMENT);
    assert_eq!(outline.code, BTreeMap::from([("rust".into(), code(1, 3)), ("text".into(), code(1, 1))]));
    let windows = Outline::of("```Rust\r\na\r\nb\r\n```\r\n\r\n> ```{.rust}\n> c\n> ```\n\n```rust title=x\nunclosed");
    assert_eq!(windows.code, BTreeMap::from([("rust".into(), code(3, 4))]));
}

#[test]
fn words_are_counted_outside_code_and_front_matter() {
    // The Title, Some words a link https://auto.example and a reference, Use it, Use it, build, a b c d.
    assert_eq!(Outline::of(DOCUMENT).words, 2 + 8 + 4 + 1 + 4);
    assert_eq!(Outline::of("one\ntwo **th**ree\\\nfour\n\n---\n\n- five\n- six\n").words, 6);
}

#[test]
fn front_matter_stands_at_the_beginning_only() {
    assert_eq!(body("---\na: b\n---\n# x\n"), "# x\n");
    assert_eq!(body("\u{feff}---\r\na: b\r\n...\r\n# x"), "# x");
    for whole in ["---\n\n# x\n\n---\n", "---\na: b\n", "---\n---\n", "# x\n\n---\na\n---\n", "---", ""] {
        assert_eq!(body(whole), whole);
    }
}

#[test]
fn reading_time_is_rounded_up() {
    assert_eq!(Outline::of("").reading_seconds, 0);
    assert_eq!(Outline::of("word").reading_seconds, 1);
    assert_eq!(Outline::of(&"word ".repeat(WORDS_PER_MINUTE)).reading_seconds, 60);
}

#[test]
fn lists_are_cut_and_their_counts_are_not() {
    let many = |piece: &str| Outline::of(&piece.repeat(MOST + 7));
    let outline = many("# a [b](c) ![d](e)\n");
    assert_eq!((outline.headings.len(), outline.links.len(), outline.images.len()), (MOST, MOST, MOST));
    assert_eq!((outline.heading_count, outline.link_count, outline.image_count), (MOST + 7, MOST + 7, MOST + 7));
}

#[test]
fn long_texts_and_targets_are_cut_with_an_ellipsis() {
    let long = "x".repeat(5_000);
    let outline = Outline::of(&format!("# {long}\n\n[{long}](data:{long})\n\n```{long}\n```\n"));
    assert_eq!(outline.headings[0].text, format!("{}…", "x".repeat(TEXT)));
    assert_eq!(outline.links[0].text.chars().count(), TEXT + 1);
    assert_eq!(outline.links[0].target.chars().count(), TARGET + 1);
    assert!(outline.code.keys().all(|language| language.chars().count() == LANGUAGE + 1));
}

#[test]
fn languages_beyond_reason_are_counted_together() {
    let document: String = (0..MOST_LANGUAGES + 5).map(|n| format!("```l{n}\nx\n```\n")).collect();
    let outline = Outline::of(&document);
    assert_eq!(outline.code.len(), MOST_LANGUAGES + 1);
    assert_eq!(outline.code[OTHER], Code { blocks: 5, lines: 5 });
}

#[test]
fn references_cannot_blow_up_the_output() {
    let document = format!("[a]: <{}>\n\n{}", "x".repeat(1_999), "[a] ".repeat(20_000));
    let outline = Outline::of(&document);
    assert!(!outline.links.is_empty());
    let bytes: usize = outline.links.iter().map(|link| link.text.len() + link.target.len()).sum();
    assert!(bytes <= MOST_BYTES, "{bytes}");
}

#[test]
fn hostile_documents_are_only_documents() {
    let pieces = [
        "\0", "[", "![", "](", "> ", "- ", "#\n", "`", "*a **b ", "<", "&", "|", "|\n|-\n", "~~~\n", "[^a]: ", "\\",
        "[a](<b", "    ", "\u{feff}", "\r", "1. ", "_", "---\n", "<!--", "]: ", "a\u{0}b",
    ];
    for piece in pieces {
        for times in [1, 2, 3_000] {
            let markdown = piece.repeat(times);
            let outline = Outline::of(&markdown);
            assert!(outline.words <= markdown.len(), "{piece:?}");
            assert!(outline.headings.len() <= MOST, "{piece:?}");
        }
    }
}
