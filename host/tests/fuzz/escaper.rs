//! Text from guests and messages on its way to a terminal.

use crate::{draw, while_testing};
use agentry::cli::escape::line;
use bolero::{Driver, ValueGenerator};

struct AnyText;

impl ValueGenerator for AnyText {
    type Output = String;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<String> {
        let mut text = draw::text(driver)?;
        for _ in 0..draw::below(driver, 4)? {
            text.push((char::MIN..=char::MAX).generate(driver)?);
        }
        Some(text)
    }
}

/// What must never reach a terminal, written down here a second time: every control character, and Unicode's
/// `Default_Ignorable_Code_Point` (DerivedCoreProperties, 17.0) with its line and paragraph separators and annotations. Two of them
/// stay: the variation selectors 15 and 16 choose between the two looks of a visible character.
fn steers_or_hides(c: char) -> bool {
    const IGNORABLE: [(u32, u32); 20] = [
        (0xad, 0xad),
        (0x34f, 0x34f),
        (0x61c, 0x61c),
        (0x115f, 0x1160),
        (0x17b4, 0x17b5),
        (0x180b, 0x180f),
        (0x200b, 0x200f),
        (0x2028, 0x202e),
        (0x2060, 0x206f),
        (0x3164, 0x3164),
        (0xfe00, 0xfe0d),
        (0xfeff, 0xfeff),
        (0xffa0, 0xffa0),
        (0xfff0, 0xfffb),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0000, 0xe0fff),
        (0x00, 0x1f),
        (0x7f, 0x7f),
        (0x80, 0x9f),
    ];
    IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

#[test]
fn nothing_that_steers_a_terminal_or_hides_text_is_shown_as_it_is() {
    bolero::check!().with_test_time(while_testing()).with_generator(AnyText).for_each(|text| {
        let shown = line(text);
        assert!(!shown.chars().any(steers_or_hides), "{shown:?}");
        assert_eq!(line(&shown), shown, "what was escaped is escaped again");
        // At its worst one byte becomes five: `\u{1}`; the longest, of a character of two or more bytes, is `\u{e0041}`.
        assert!(shown.len() <= 6 * text.len(), "{} bytes of {}", shown.len(), text.len());
        // What is visible stays, in its order.
        let visible = |text: &str| text.chars().filter(|c| !steers_or_hides(*c)).collect::<String>();
        let mut rest = shown.chars();
        assert!(visible(text).chars().all(|c| rest.any(|other| other == c)), "{text:?} became {shown:?}");
        if !text.chars().any(steers_or_hides) {
            assert_eq!(shown, *text);
        }
    });
}
