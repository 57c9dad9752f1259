//! What cases are made of. Every choice is drawn from the driver, so that a coverage-guided engine can steer each.

use bolero::{Driver, ValueGenerator};

/// A number below this.
pub fn below<D: Driver>(driver: &mut D, end: usize) -> Option<usize> {
    (0..end).generate(driver)
}

/// Once in so many times.
pub fn once_in<D: Driver>(driver: &mut D, times: usize) -> Option<bool> {
    Some(below(driver, times)? == 0)
}

/// One of these.
pub fn one_of<'a, D: Driver, T: ?Sized>(driver: &mut D, choices: &[&'a T]) -> Option<&'a T> {
    Some(choices[below(driver, choices.len())?])
}

/// One of these, or none.
pub fn perhaps<D: Driver>(driver: &mut D, choices: &[&str]) -> Option<Option<String>> {
    if once_in(driver, 3)? {
        return Some(Some(text_or(driver, choices)?));
    }
    Some(None)
}

/// Mostly one of these, else any text.
pub fn text_or<D: Driver>(driver: &mut D, choices: &[&str]) -> Option<String> {
    if once_in(driver, 5)? { text(driver) } else { one_of(driver, choices).map(str::to_owned) }
}

/// Pieces that have broken readers of text before: what steers a terminal, what hides, what ends a string early, what has two
/// encodings, what is long.
const PIECES: &[&str] = &[
    "",
    "a",
    "-",
    "_",
    ".",
    ",",
    ":",
    "/",
    "@",
    "*",
    "%",
    "#",
    "?",
    "=",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "\u{1b}[2J",
    "\u{7f}",
    "\u{85}",
    "\u{9b}31m",
    "\u{ad}",
    "\u{200b}",
    "\u{200d}",
    "\u{2028}",
    "\u{202e}",
    "\u{2066}",
    "\u{feff}",
    "\u{e0041}",
    "\u{e0101}",
    "\u{fe0f}",
    "é",
    "e\u{301}",
    "日本",
    "🙂",
    "\u{10ffff}",
    "\\",
    "\\\\",
    "\"",
    "'",
    "\"\"\"",
    "{",
    "}",
    "[",
    "]",
    "[[",
    "{}",
    "null",
    "true",
    "nan",
    "-inf",
    "0",
    "1",
    "-1",
    "01",
    "1e9",
    "1e400",
    "4294967296",
    "9223372036854775808",
    "0x10",
    "1_000",
    "../",
    "C:\\",
    "$HOME",
    "%00",
    "\\u0000",
    "\\ud800",
    "\\u{1b}",
];

/// Any text, mostly short.
pub fn text<D: Driver>(driver: &mut D) -> Option<String> {
    let mut text = String::new();
    for _ in 0..below(driver, 8)? {
        match below(driver, 12)? {
            0 => text.push((char::MIN..=char::MAX).generate(driver)?),
            1 => text.push_str(&one_of(driver, PIECES)?.repeat([2, 20, 200, 3_000][below(driver, 4)?])),
            _ => text.push_str(one_of(driver, PIECES)?),
        }
    }
    Some(text)
}

/// A text with some of it gone, doubled, moved, or replaced by one of these pieces or by any text: mostly still well formed
/// enough to be read far.
pub fn bent<D: Driver>(driver: &mut D, mut text: String, pieces: &[&str]) -> Option<String> {
    for _ in 0..below(driver, 4)? {
        let (from, to) = range(driver, &text)?;
        match below(driver, 6)? {
            0 => text.replace_range(from..to, ""),
            1 => {
                let again = text[from..to].to_owned();
                text.insert_str(to, &again);
            }
            2 => {
                let moved = text[from..to].to_owned();
                let at = place(driver, &text)?;
                text.insert_str(at, &moved);
            }
            3 => text.truncate(to),
            4 => text.insert_str(from, one_of(driver, pieces)?),
            _ => text.replace_range(from..to, &self::text(driver)?),
        }
    }
    Some(text)
}

fn place<D: Driver>(driver: &mut D, text: &str) -> Option<usize> {
    let at = below(driver, text.len() + 1)?;
    Some(text.floor_char_boundary(at))
}

/// From here to there; short ranges are the more likely, since they leave more of the text whole.
fn range<D: Driver>(driver: &mut D, text: &str) -> Option<(usize, usize)> {
    let from = place(driver, text)?;
    let longest = if once_in(driver, 4)? { text.len() } else { 12 };
    let to = (from + below(driver, longest + 1)?).min(text.len());
    Some((from, text.ceil_char_boundary(to)))
}

/// JSON of any shape: correct by its grammar, unkind in everything that the grammar leaves open.
pub fn json<D: Driver>(driver: &mut D, depth: usize) -> Option<String> {
    let kinds = if depth == 0 { 5 } else { 8 };
    Some(match below(driver, kinds)? {
        0 => one_of(driver, &["null", "true", "false", "\"\"", "{}", "[]"])?.to_owned(),
        1 => one_of(driver, NUMBERS)?.to_owned(),
        2 | 3 => string(driver)?,
        4 => "9".repeat(1 + below(driver, 400)?),
        5 => {
            let items = (0..below(driver, 4)?).map(|_| json(driver, depth - 1)).collect::<Option<Vec<_>>>()?;
            format!("[{}]", items.join(spaced(driver, ",")?))
        }
        6 => {
            let deep = 1 + below(driver, 300)?;
            format!("{}{}{}", "[".repeat(deep), json(driver, depth - 1)?, "]".repeat(deep))
        }
        _ => {
            let mut members = Vec::new();
            for _ in 0..below(driver, 4)? {
                // The same key twice is JSON too.
                let key = if once_in(driver, 2)? { "\"a\"".to_owned() } else { string(driver)? };
                members.push(format!("{key}{}{}", spaced(driver, ":")?, json(driver, depth - 1)?));
            }
            format!("{{{}}}", members.join(spaced(driver, ",")?))
        }
    })
}

const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "1.0",
    "1e5",
    "1E-400",
    "1e999999",
    "-0.0000000000000000000000000000000000001",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740993",
    "-9223372036854775809",
    "3.141592653589793238462643383279",
];

fn spaced<D: Driver>(driver: &mut D, mark: &str) -> Option<&'static str> {
    let marks: &[&'static str] = if mark == ":" { &[":", ": ", " :\n"] } else { &[",", ", ", "\r\n,\t"] };
    one_of(driver, marks)
}

/// A JSON string, some of it escaped that need not be.
pub fn string<D: Driver>(driver: &mut D) -> Option<String> {
    let mut string = String::from("\"");
    for c in text(driver)?.chars() {
        match c {
            '"' => string.push_str("\\\""),
            '\\' => string.push_str("\\\\"),
            c if c < ' ' => string.push_str(&format!("\\u{:04X}", c as u32)),
            c => string.push(c),
        }
    }
    string.push_str(one_of(driver, &["", "", "\\u0000", "\\ud83d\\ude42", "\\ud800", "\\/", "\\u0061"])?);
    string.push('"');
    Some(string)
}
