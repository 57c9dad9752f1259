//! One picture of a run: throughput beside Dramatiq, with its date and conditions, readable in light and dark.

use std::fmt::Write;

use super::conditions::Conditions;
use super::flood::Bars;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 262.0;
const RIGHT: f64 = 150.0;
const ROW: f64 = 34.0;
const TOP: f64 = 62.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}\
.small{font-size:11px;fill:#57606a}.ours{fill:#0969da}.other{fill:#8c959f}.back{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.ours{fill:#4493f8}.other{fill:#656c76}\
.back{fill:#0d1117}}";

/// The picture's text.
pub fn draw(bars: &Bars, conditions: &Conditions) -> String {
    let bars = bars.bars();
    let notes = ["date", "machine", "services", "fsync", "broker"];
    let bottom = TOP + ROW * bars.len() as f64;
    let height = bottom + 30.0 + 17.0 * notes.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\"><style>{STYLE}</style><rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    text(&mut svg, 16.0, 28.0, "title", "start", "Tasks per second, from the first start to the last recorded end");
    text(&mut svg, 16.0, 46.0, "small", "start", "medians; ratios to Dramatiq within a round");
    let most = bars.iter().map(|(_, rate, _)| *rate).fold(1.0, f64::max);
    for ((name, rate, ratio), row) in bars.iter().zip(0_u16..) {
        let y = TOP + ROW * f64::from(row);
        let width = (WIDTH - LEFT - RIGHT) * rate / most;
        let class = if matches!(*name, "Dramatiq" | "bare loop") { "other" } else { "ours" };
        let bar = ROW - 12.0;
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{bar}\" rx=\"2\"/>"
        );
        text(&mut svg, LEFT - 10.0, y + 16.0, "", "end", name);
        let ratio = ratio.map_or_else(String::new, |ratio| format!("  {ratio:.1} ×"));
        text(&mut svg, LEFT + width + 8.0, y + 16.0, "", "start", &format!("{rate:.0}{ratio}"));
    }
    for (note, line) in notes.iter().zip(0_u16..) {
        let words = format!("{note}: {}", conditions.get(note));
        text(&mut svg, 16.0, bottom + 24.0 + 17.0 * f64::from(line), "small", "start", &words);
    }
    svg + "</svg>\n"
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
    #[test]
    fn foreign_text_is_no_markup() {
        assert_eq!(super::escape("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;");
    }
}
