//! One self-contained picture of a run: the latency histogram over a logarithmic axis, and throughput over time.

use super::plot::{TEXT, TITLE, fitted, label, log_ticks, room, row, text, ticks, upwards};
use super::report::{Report, histogram};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const RIGHT: f64 = 24.0;
/// Where text begins.
const EDGE: f64 = 16.0;
/// The height of each of the two plots, and where each begins.
const PLOT: f64 = 170.0;
const TOPS: [f64; 2] = [106.0, 368.0];
const HEIGHT: f64 = 580.0;

/// Colours of both schemes. Presentation follows the reader's preference.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}\
.axis{stroke:#57606a}.grid{stroke:#d0d7de}.bar{fill:#0969da}.line{fill:none;stroke:#0969da;stroke-width:2}\
.mark{stroke:#cf222e;stroke-dasharray:4 3}.back{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#9198a1}.grid{stroke:#3d444d}.bar{fill:#4493f8}\
.line{stroke:#4493f8}.mark{stroke:#f85149}.back{fill:#0d1117}}";

/// A plot: where it is, and its vertical axis.
struct Plot {
    top: f64,
    left: f64,
    ticks: Vec<f64>,
}

/// The picture's text.
pub fn draw(report: &Report) -> String {
    let mut svg = String::new();
    // Writing to a text does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\"><style>{STYLE}</style><rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    );
    let early = report.interrupted.is_some() || report.error.is_some();
    let interrupted = if early { "ended early: " } else { "" };
    let bound = report.in_flight.map(|bound| format!(", {bound} in flight at most")).unwrap_or_default();
    let title = format!("{interrupted}{}: {} over {}{bound}", report.plugin, report.shape.describe(), report.via);
    let under = format!("{} · {} · run {}", report.at.format("%Y-%m-%d %H:%M UTC"), report.server, report.run);
    text(&mut svg, EDGE, 28.0, "title", "start", &fitted(&title, TITLE, WIDTH - 2.0 * EDGE));
    text(&mut svg, EDGE, 50.0, "", "start", &fitted(&under, TEXT, WIDTH - 2.0 * EDGE));
    let bars = histogram(report);
    let (rates, part) = rates(report);
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or_default() as f64;
    let fastest = rates.iter().copied().fold(0.0, f64::max);
    // Tasks are counted in whole numbers.
    let scales = [ticks(most, (most as u32).clamp(1, 4)), ticks(fastest, 4)];
    // Both plots begin where the longest label of either ends.
    let longest = scales.iter().flatten().map(|tick| room(&label(*tick), TEXT)).fold(0.0, f64::max);
    let left = EDGE + TEXT + 12.0 + longest;
    let [counts, speeds] = scales;
    latency(&mut svg, &Plot { top: TOPS[0], left, ticks: counts }, report, &bars);
    throughput(&mut svg, &Plot { top: TOPS[1], left, ticks: speeds }, &rates, part);
    svg + "</svg>\n"
}

fn latency(svg: &mut String, plot: &Plot, report: &Report, bars: &[(f64, u64)]) {
    plot.frame(svg, "latency: tasks by the time in ms from send to recording of the end (logarithmic)", "tasks");
    let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) else { return };
    // A bar reaches down by one step of the histogram.
    let step = 10_f64.powf(0.1);
    let (low, high) = (first / step, *last);
    let x = |ms: f64| plot.left + plot.width() * (ms / low).log10() / (high / low).log10();
    let bottom = plot.top + PLOT;
    for (upper, count) in bars {
        let (from, to) = (x(upper / step), x(*upper));
        let y = plot.y(*count as f64);
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            from + 0.5,
            (to - from - 1.0).max(0.5),
            bottom - y
        );
    }
    for ms in log_ticks(low, high) {
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{bottom}\" y2=\"{1}\"/>",
            x(ms),
            bottom + 4.0
        );
    }
    row(svg, bottom + 19.0, log_ticks(low, high).into_iter().map(|ms| (x(ms), label(ms))));
    // One below the other, as they may lie close together.
    for (name, share, y) in [("p50", 0.5, bottom + 37.0), ("p99", 0.99, bottom + 54.0)] {
        let Some(time) = report.latency.percentile(share) else { continue };
        let ms = time.as_secs_f64() * 1e3;
        let at = x(ms.clamp(low, high));
        let _ = write!(svg, "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{bottom}\"/>", plot.top);
        let words = format!("{name} {} ms", label(ms));
        let half = room(&words, TEXT) / 2.0;
        text(svg, at.clamp(EDGE + half, WIDTH - EDGE - half), y, "", "middle", &words);
    }
}

fn throughput(svg: &mut String, plot: &Plot, rates: &[f64], part: f64) {
    plot.frame(svg, "throughput: tasks ended per second, over the time in s since the first send", "tasks/s");
    let width = plot.width() / rates.len().max(1) as f64;
    let bottom = plot.top + PLOT;
    let mut points = format!("{:.1},{bottom}", plot.left);
    for (rate, n) in rates.iter().zip(0..) {
        let (from, to, y) = (plot.left + width * f64::from(n), plot.left + width * f64::from(n + 1), plot.y(*rate));
        let _ = write!(points, " {from:.1},{y:.1} {to:.1},{y:.1}");
    }
    let _ = write!(svg, "<polyline class=\"line\" points=\"{points}\"/>");
    let whole = part * rates.len() as f64;
    if whole > 0.0 {
        let at = |time: f64| (plot.left + plot.width() * time / whole, label(time));
        let times = ticks(whole, 6).into_iter().filter(|time| *time <= whole * 1.001);
        row(svg, bottom + 19.0, times.map(at));
    }
}

/// Tasks per second in each part of the run, and how long a part is, in seconds.
fn rates(report: &Report) -> (Vec<f64>, f64) {
    let (counts, part) = report.shown_over_time();
    let seconds = part.as_secs_f64();
    (counts.iter().map(|count| *count as f64 / seconds.max(1e-9)).collect(), seconds)
}

impl Plot {
    fn width(&self) -> f64 {
        WIDTH - RIGHT - self.left
    }

    fn y(&self, value: f64) -> f64 {
        let most = self.ticks.last().copied().unwrap_or(1.0);
        self.top + PLOT * (1.0 - value / most.max(f64::MIN_POSITIVE))
    }

    /// The heading, and the vertical axis with its unit, labels and lines.
    fn frame(&self, svg: &mut String, heading: &str, unit: &str) {
        let (left, right, bottom) = (self.left, WIDTH - RIGHT, self.top + PLOT);
        text(svg, EDGE, self.top - 16.0, "", "start", heading);
        upwards(svg, EDGE + TEXT / 2.0 + 2.0, self.top + PLOT / 2.0, unit);
        for tick in &self.ticks {
            let y = self.y(*tick);
            let _ = write!(svg, "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            text(svg, left - 6.0, y + 4.5, "", "end", &label(*tick));
        }
        let _ = write!(svg, "<line class=\"axis\" x1=\"{left:.1}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::super::plot::escape;
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

    /// Every text with its x, its anchor and its words.
    fn texts(svg: &str) -> Vec<(f64, String, String)> {
        let value =
            |tag: &str, name: &str| Some(tag.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.to_owned());
        let parts = svg.split("<text ").skip(1).filter(|part| !part.contains("rotate("));
        let one = |part: &str| {
            let (tag, words) = part.split_once('>')?;
            let words = words.split_once('<')?.0.replace("&lt;", "<").replace("&gt;", ">");
            Some((value(tag, " x")?.parse().ok()?, value(tag, "text-anchor")?, words))
        };
        parts.map(|part| one(part).expect("a text")).collect()
    }

    #[test]
    fn every_text_is_within_the_picture() {
        let mut report = report(Some("completed"));
        report.plugin = "a".repeat(63) + "@>=1.2.3, <2.0.0-alpha.beta";
        report.server = format!("http://{}:7070", "host.".repeat(40));
        // One part of a millisecond makes the largest figures.
        report.over_time = (vec![123_456_789, 1], std::time::Duration::from_millis(1));
        let svg = draw(&report);
        let all = texts(&svg);
        assert!(all.len() > 10, "{svg}");
        for (x, anchor, words) in all {
            let size = if words.starts_with("aaa") { TITLE } else { TEXT };
            let (before, after) = match anchor.as_str() {
                "start" => (0.0, 1.0),
                "middle" => (0.5, 0.5),
                _ => (1.0, 0.0),
            };
            let room = room(&words, size);
            assert!(x - before * room >= 0.0 && x + after * room <= WIDTH, "{words:?} at {x} {anchor}");
        }
    }

    #[test]
    fn both_vertical_axes_have_labels_and_a_unit() {
        let svg = draw(&report(Some("completed")));
        assert!(svg.contains(">tasks</text>") && svg.contains(">tasks/s</text>"), "{svg}");
        // 4 tasks in one part of 50 ms.
        for tick in ["0", "1", "20", "80"] {
            assert!(svg.contains(&format!("text-anchor=\"end\">{tick}</text>")), "{tick} in {svg}");
        }
    }
}
