//! Parts of a picture: text with room for it, and axes with round numbers.

use super::numbers;
use std::fmt::Write;

/// The size of ordinary text.
pub const TEXT: f64 = 13.0;
/// The size of the title.
pub const TITLE: f64 = 16.0;

/// The most room that a text of this size takes, whatever font the reader has: more than most fonts need.
pub fn room(words: &str, size: f64) -> f64 {
    words.chars().map(|c| if c.is_ascii() { 0.62 } else { 1.0 }).sum::<f64>() * size
}

/// The text, or as much of it as has room.
pub fn fitted(words: &str, size: f64, width: f64) -> String {
    if room(words, size) <= width {
        return words.to_owned();
    }
    let mut cut = String::new();
    for c in words.chars() {
        if room(&cut, size) + 2.0 * size > width {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}

/// Round numbers from zero that reach `most`: a few of 1, 2 or 5 times a power of ten, the last one at or above `most`.
pub fn ticks(most: f64, about: u32) -> Vec<f64> {
    let raw = most.max(f64::MIN_POSITIVE) / f64::from(about.max(1));
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= raw * 0.999_999);
    let step = step.unwrap_or(raw);
    let count = (most / step - 1e-9).ceil().max(1.0) as u32;
    (0..=count).map(|n| f64::from(n) * step).collect()
}

/// Round numbers of a logarithmic axis: powers of ten, and between them 2 and 5 times these where there are few.
pub fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let factors: &[f64] = if (high / low).log10() < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    all.filter(|tick| (low..=high).contains(tick)).collect()
}

/// The label of a round number.
pub fn label(number: f64) -> String {
    numbers::digits(number)
}

/// Labels below a horizontal axis: one that would touch the one before is left out.
pub fn row(svg: &mut String, y: f64, labels: impl IntoIterator<Item = (f64, String)>) {
    let mut free = f64::MIN;
    for (x, words) in labels {
        let half = room(&words, TEXT) / 2.0;
        if x - half >= free {
            text(svg, x, y, "", "middle", &words);
            free = x + half + 6.0;
        }
    }
}

/// A text at a place.
pub fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let words = escape(words);
    // Writing to a text does not fail.
    let _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// A text that runs upwards, centred at a place.
pub fn upwards(svg: &mut String, x: f64, y: f64, words: &str) {
    let words = escape(words);
    let _ = write!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x:.1} {y:.1})\">{words}</text>"
    );
}

/// Text that is no markup, without characters that XML does not allow.
pub fn escape(text: &str) -> String {
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
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_largest_value() {
        assert_eq!(ticks(970.0, 4), [0.0, 500.0, 1_000.0]);
        assert_eq!(ticks(1_000.0, 4), [0.0, 500.0, 1_000.0]);
        assert_eq!(ticks(20_811.0, 4).last(), Some(&30_000.0));
        assert_eq!(ticks(0.4, 4).len(), 5);
        for most in [1e-3, 0.7, 1.0, 3.0, 99.0, 12_345.0, 5e6] {
            let ticks = ticks(most, 4);
            assert!(ticks.len() <= 6 && ticks.last().is_some_and(|last| *last >= most * 0.999), "{most}: {ticks:?}");
        }
    }

    #[test]
    fn a_logarithmic_axis_has_ticks_in_a_narrow_range_too() {
        assert_eq!(log_ticks(1.5, 12.0), [2.0, 5.0, 10.0]);
        assert_eq!(log_ticks(0.5, 2_000.0), [1.0, 10.0, 100.0, 1_000.0]);
    }

    #[test]
    fn a_text_without_room_is_cut() {
        assert_eq!(fitted("short", TEXT, 500.0), "short");
        let cut = fitted(&"x".repeat(200), TEXT, 100.0);
        assert!(cut.ends_with('…') && room(&cut, TEXT) <= 100.0, "{cut}");
    }

    #[test]
    fn labels_do_not_touch() {
        let mut svg = String::new();
        row(&mut svg, 0.0, [(0.0, "1000".to_owned()), (5.0, "2000".to_owned()), (90.0, "3000".to_owned())]);
        assert!(svg.contains("1000") && !svg.contains("2000") && svg.contains("3000"), "{svg}");
    }
}
