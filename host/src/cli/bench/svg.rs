//! One self-contained picture of a run: the latency histogram over a logarithmic axis, and throughput over time.

use super::report::{Report, histogram};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
/// The height of each of the two plots, and where each begins.
const PLOT: f64 = 170.0;
const TOPS: [f64; 2] = [84.0, 330.0];
const HEIGHT: f64 = 560.0;

/// Colours of both schemes. Presentation follows the reader's preference.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}\
.axis{stroke:#57606a}.grid{stroke:#d0d7de}.bar{fill:#0969da}.line{fill:none;stroke:#0969da;stroke-width:2}\
.mark{stroke:#cf222e;stroke-dasharray:4 3}.back{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#9198a1}.grid{stroke:#3d444d}.bar{fill:#4493f8}\
.line{stroke:#4493f8}.mark{stroke:#f85149}.back{fill:#0d1117}}";

/// The picture's text.
pub fn draw(report: &Report) -> String {
    let mut svg = String::new();
    // Writing to a text does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\"><style>{STYLE}</style><rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    );
    let title = format!("{}: {}", report.plugin, report.shape.describe());
    text(&mut svg, LEFT, 28.0, "title", "start", &title);
    let under = format!("{} · {} · run {}", report.at.format("%Y-%m-%d %H:%M UTC"), report.server, report.run);
    text(&mut svg, LEFT, 48.0, "", "start", &under);
    latency(&mut svg, report);
    throughput(&mut svg, report);
    svg + "</svg>\n"
}

fn latency(svg: &mut String, report: &Report) {
    let top = TOPS[0];
    text(svg, LEFT, top - 12.0, "", "start", "latency in ms: tasks by time from send to recorded end");
    let bars = histogram(report);
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or_default();
    frame(svg, top, most as f64);
    let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) else { return };
    // A bar reaches down by one step of the histogram.
    let step = 10_f64.powf(0.1);
    let (low, high) = ((first / step).log10(), last.log10());
    let x = |ms: f64| LEFT + (WIDTH - LEFT - RIGHT) * (ms.log10() - low) / (high - low);
    for (upper, count) in &bars {
        let (from, to) = (x(upper / step), x(*upper));
        let height = PLOT * *count as f64 / most.max(1) as f64;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            from + 0.5,
            top + PLOT - height,
            (to - from - 1.0).max(0.5)
        );
    }
    for power in (low.ceil() as i32)..=(high.floor() as i32) {
        let ms = 10_f64.powi(power);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{top}\" y2=\"{1}\"/>",
            x(ms),
            top + PLOT
        );
        text(svg, x(ms), top + PLOT + 18.0, "", "middle", &format!("{ms}"));
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let Some(time) = report.latency.percentile(share) else { continue };
        let ms = time.as_secs_f64() * 1e3;
        let at = x(ms.max(first / step));
        let _ = write!(svg, "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{}\"/>", top + PLOT);
        text(svg, at, top + PLOT + 36.0, "", "middle", &format!("{name} {ms:.1}"));
    }
}

fn throughput(svg: &mut String, report: &Report) {
    let top = TOPS[1];
    text(svg, LEFT, top - 12.0, "", "start", "tasks ended per second, over time");
    let (counts, part) = &report.over_time;
    let seconds = part.as_secs_f64();
    let rates: Vec<f64> = counts.iter().map(|count| *count as f64 / seconds.max(1e-9)).collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    frame(svg, top, most);
    let width = (WIDTH - LEFT - RIGHT) / rates.len().max(1) as f64;
    let points: Vec<String> = rates
        .iter()
        .zip(0..)
        .map(|(rate, n)| {
            let height = PLOT * rate / most.max(1e-9);
            format!("{:.1},{:.1}", LEFT + width * (f64::from(n) + 0.5), top + PLOT - height)
        })
        .collect();
    let _ = write!(svg, "<polyline class=\"line\" points=\"{}\"/>", points.join(" "));
    text(svg, LEFT, top + PLOT + 18.0, "", "start", "0 s");
    let end = format!("{:.1} s", seconds * rates.len() as f64);
    text(svg, WIDTH - RIGHT, top + PLOT + 18.0, "", "end", &end);
}

/// Axes, and the upper bound of the vertical one.
fn frame(svg: &mut String, top: f64, most: f64) {
    let (bottom, right) = (top + PLOT, WIDTH - RIGHT);
    let _ = write!(
        svg,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{top}\" y2=\"{top}\"/>\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
    );
    text(svg, LEFT - 6.0, top + 5.0, "", "end", &format!("{most:.0}"));
    text(svg, LEFT - 6.0, bottom, "", "end", "0");
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let words = escape(words);
    let _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// Text that is no markup, without characters that XML does not allow.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in super::super::escape::line(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn foreign_text_is_no_markup() {
        let svg = draw(&report(Some("completed")));
        assert!(svg.contains("a&lt;b&gt;&amp;&quot;c&quot;"), "{svg}");
        assert!(!svg.contains("a<b>"), "{svg}");
        assert_eq!(escape("x\u{1b}\u{0}"), "x\\u{1b}\\u{0}");
    }

    #[test]
    fn the_picture_needs_nothing_around_it_and_shows_every_bar() {
        let report = report(Some("completed"));
        let svg = draw(&report);
        let bars = histogram(&report).len();
        assert_eq!(svg.matches("<rect class=\"bar\"").count(), bars);
        assert!(bars > 1 && svg.contains("prefers-color-scheme:dark") && svg.ends_with("</svg>\n"));
        assert!(
            !svg.contains("href") && !svg.contains("url(") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
    }
}
