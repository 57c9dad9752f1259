//! Numbers for a person: as many digits as mean something.

/// A rate, such as `1234/s`, `9.5/s` or `0.25/s`.
pub fn rate(per_second: f64) -> String {
    format!("{}/s", digits(per_second))
}

/// `1 task`, `2 tasks`.
pub fn tasks(count: u64) -> String {
    format!("{count} task{}", if count == 1 { "" } else { "s" })
}

/// Three significant digits below 1,000, without zeros at the end; whole numbers above.
pub fn digits(number: f64) -> String {
    let size = number.abs();
    if size >= 100.0 || size == 0.0 || !number.is_finite() {
        return format!("{number:.0}");
    }
    // At most nine: a smaller number has no use here.
    let places = (2.0 - size.log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{number:.places$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// For JSON: one digit after the point from 100 up, four below.
pub fn rounded(number: f64) -> f64 {
    let factor = if number.abs() >= 100.0 { 10.0 } else { 10_000.0 };
    (number * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_rates_keep_their_digits() {
        let shown = [
            (20_811.4, "20811/s"),
            (123.4, "123/s"),
            (99.94, "99.9/s"),
            (9.5, "9.5/s"),
            (5.0, "5/s"),
            (1.0 / 60.0, "0.0167/s"),
            (0.25, "0.25/s"),
            (0.0, "0/s"),
            (10.0, "10/s"),
        ];
        for (number, expected) in shown {
            assert_eq!(rate(number), expected);
        }
        assert_eq!((rounded(1.0 / 60.0), rounded(12.345_67), rounded(1_234.56)), (0.0167, 12.3457, 1_234.6));
    }
}
