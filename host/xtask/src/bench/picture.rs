//! One picture of a run: throughput beside Dramatiq, with its date and conditions, readable in light and dark.

use std::fmt::Write;

use super::conditions::Conditions;
use super::flood::Bars;

/// The least width: a longer line makes the picture wider.
const WIDTH: f64 = 760.0;
/// Room at the left and right edges.
const EDGE: f64 = 16.0;
/// Between a bar and its texts.
const GAP: f64 = 10.0;
/// The longest bar, at least.
const BAR: f64 = 300.0;
const ROW: f64 = 34.0;
const TOP: f64 = 62.0;
/// Sizes of text.
const TITLE: f64 = 16.0;
const LABEL: f64 = 13.0;
const SMALL: f64 = 11.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}\
.small{font-size:11px;fill:#57606a}.ours{fill:#0969da}.other{fill:#8c959f}.back{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.ours{fill:#4493f8}.other{fill:#656c76}\
.back{fill:#0d1117}}";

/// A bar: its name, tasks per second, and ratio to Dramatiq.
type Bar = (&'static str, f64, Option<f64>);

/// The picture's text.
pub fn draw(bars: &Bars, conditions: &Conditions) -> String {
    let notes = ["date", "machine", "services", "fsync", "broker"];
    let notes: Vec<_> = notes.iter().map(|note| format!("{note}: {}", conditions.get(note))).collect();
    drawn(&bars.bars(), &notes)
}

fn drawn(bars: &[Bar], notes: &[String]) -> String {
    let title = "Tasks per second, from the first start to the last recorded end";
    let values: Vec<_> = bars.iter().map(|(_, rate, ratio)| value(*rate, *ratio)).collect();
    // Margins follow from the longest label on each side.
    let longest = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| room(text, LABEL)).fold(0.0, f64::max);
    let left = (EDGE + longest(&mut bars.iter().map(|(name, ..)| *name)) + GAP).ceil();
    let right = (GAP + longest(&mut values.iter().map(String::as_str)) + EDGE).ceil();
    let lines = notes.iter().map(|note| room(note, SMALL)).fold(room(title, TITLE), f64::max);
    let width = WIDTH.max(left + BAR + right).max((lines + 2.0 * EDGE).ceil());
    let bottom = TOP + ROW * bars.len() as f64;
    let height = bottom + 30.0 + 17.0 * notes.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\"><style>{STYLE}</style><rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    text(&mut svg, EDGE, 28.0, "title", "start", title);
    text(&mut svg, EDGE, 46.0, "small", "start", "medians; ratios to Dramatiq within a round");
    let most = bars.iter().map(|(_, rate, _)| *rate).fold(1.0, f64::max);
    for (((name, rate, _), value), row) in bars.iter().zip(&values).zip(0_u16..) {
        let y = TOP + ROW * f64::from(row);
        let length = (width - left - right) * rate / most;
        let class = if matches!(*name, "Dramatiq" | "bare loop") { "other" } else { "ours" };
        let bar = ROW - 12.0;
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{bar}\" rx=\"2\"/>"
        );
        text(&mut svg, left - GAP, y + 16.0, "", "end", name);
        text(&mut svg, left + length + GAP, y + 16.0, "", "start", value);
    }
    for (note, line) in notes.iter().zip(0_u16..) {
        text(&mut svg, EDGE, bottom + 24.0 + 17.0 * f64::from(line), "small", "start", note);
    }
    svg + "</svg>\n"
}

/// The label of a bar.
fn value(rate: f64, ratio: Option<f64>) -> String {
    let ratio = ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.1} ×)"));
    format!("{rate:.0}{ratio}")
}

/// The most room that a text of this size takes, whatever font the reader has: more than most fonts need.
fn room(words: &str, size: f64) -> f64 {
    words.chars().map(|c| if c.is_ascii() { 0.62 } else { 1.0 }).sum::<f64>() * size
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_no_markup() {
        assert_eq!(escape("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn every_label_is_within_the_picture() {
        let bars = [
            ("AMQP → Postgres, published meanwhile", 20_811.4, Some(10.1)),
            ("a name that is twice as long as the longest one is today", 1.0, None),
        ];
        let svg = drawn(&bars, &[format!("services: {}", "x".repeat(200))]);
        let number = |line: &str, name: &str| -> f64 {
            let text =
                line.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"')).expect("a number").0;
            text.parse().expect("a number")
        };
        let width = number(svg.lines().next().expect("a line"), "width");
        let texts: Vec<_> = svg.lines().filter(|line| line.starts_with("<text")).collect();
        assert_eq!(texts.len(), 7, "{svg}");
        for line in texts {
            let words = line.split_once('>').and_then(|(_, rest)| rest.split_once('<')).expect("a text").0;
            let size = if line.contains("\"title\"") {
                TITLE
            } else if line.contains("\"small\"") {
                SMALL
            } else {
                LABEL
            };
            let (x, room) = (number(line, "x"), room(words, size));
            let (from, to) = if line.contains("\"end\"") { (x - room, x) } else { (x, x + room) };
            assert!(from >= 0.0 && to <= width, "{words:?} from {from} to {to} of {width}");
        }
    }
}
