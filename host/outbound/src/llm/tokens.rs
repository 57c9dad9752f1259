//! Tokens as providers count them, and as budgets book them.

use super::types::{TokenUsage, Tokens};
use serde_json::Value;

/// Token counts of an answer; `None`: it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Of the request, those from a cache and for a cache included.
    pub input: Option<u32>,
    /// Of the answer, thoughts included.
    pub output: Option<u32>,
    /// Of both.
    pub total: Option<u32>,
    pub cached: Option<u32>,
    pub cache_written: Option<u32>,
    pub reasoning: Option<u32>,
}

impl Counted {
    /// Puts in what follows from a total: the part that is missing, or thoughts or cached tokens that are in the total alone.
    pub fn within(mut self, total: Option<u32>) -> Counted {
        let Some(total) = total.filter(|total| *total > 0) else { return self };
        self.total = Some(total);
        if let (Some(input), Some(output)) = (self.input, self.output)
            && let Some(rest) = total.checked_sub(input.saturating_add(output)).filter(|rest| *rest > 0)
            && self.reasoning != Some(rest)
            && (self.cached == Some(rest) || sum(&[self.cached, self.cache_written]) == Some(rest))
        {
            self.input = Some(input + rest);
            return self;
        }
        match (self.input.filter(|n| *n > 0), self.output.filter(|n| *n > 0)) {
            (Some(input), output) if total > input => {
                self.output = Some((total - input).max(output.unwrap_or(0)));
            }
            (None, Some(output)) if total > output => self.input = Some(total - output),
            _ => {}
        }
        self
    }

    /// As the provider counted; 0 where it did not.
    pub fn usage(&self) -> TokenUsage {
        TokenUsage { input: self.input.unwrap_or(0), output: self.output.unwrap_or(0) }
    }

    /// Tokens to book: the provider's numbers, and the estimate where there are none. No request has 0 tokens, and no answer
    /// with content has.
    pub fn booked(&self, (input, output): (u32, u32), has_content: bool) -> Tokens {
        // Some servers count both together alone.
        let whole = self.total.filter(|_| self.input.is_none_or(|n| n == 0) && self.output.is_none_or(|n| n == 0));
        if let Some(whole) = whole {
            let input = input.min(whole);
            return Tokens { input, output: whole - input, is_estimated: true, ..self.exact() };
        }
        let counted_input = self.input.filter(|n| *n > 0);
        // What the model was blocked at before it began to answer costs its input alone.
        let counted_output = self.output.filter(|n| *n > 0 || !(has_content || counted_input.is_none()));
        Tokens {
            input: counted_input.unwrap_or(input),
            output: counted_output.unwrap_or(output),
            is_estimated: counted_input.is_none() || counted_output.is_none(),
            ..self.exact()
        }
    }

    /// Tokens to book where the provider's numbers hold, whatever they are.
    pub fn exact(&self) -> Tokens {
        let TokenUsage { input, output } = self.usage();
        let Counted { cached, cache_written, reasoning, .. } = *self;
        Tokens { input, output, is_estimated: false, cached, cache_written, reasoning }
    }
}

/// The first of some members that is a number of tokens. A name with a `/` is a path.
pub(super) fn first(usage: &Value, names: &[&str]) -> Option<u32> {
    names.iter().find_map(|name| number(name.split('/').fold(usage, |value, member| &value[member])))
}

/// The sum of those that are there; `None`: none is.
pub(super) fn sum(numbers: &[Option<u32>]) -> Option<u32> {
    numbers.iter().copied().flatten().reduce(u32::saturating_add)
}

/// A number of tokens, also as `12.0` or `"12"`.
pub(super) fn number(value: &Value) -> Option<u32> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let is_count = number.is_finite() && number >= 0.0;
    // Beyond the range `as` gives the largest.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
    let count = number.ceil() as u32;
    is_count.then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counted(input: Option<u32>, output: Option<u32>) -> Counted {
        Counted { input, output, ..Counted::default() }
    }

    #[test]
    fn numbers_are_read_in_every_spelling() {
        for (value, expected) in [
            (json!(12), Some(12)),
            (json!(12.0), Some(12)),
            (json!(12.2), Some(13)),
            (json!("12"), Some(12)),
            (json!(1e30), Some(u32::MAX)),
            (json!(-1), None),
            (json!("many"), None),
            (json!(null), None),
            (json!([12]), None),
        ] {
            assert_eq!(number(&value), expected, "{value}");
        }
    }

    #[test]
    fn a_total_gives_the_part_that_is_missing() {
        let within = |counted: Counted, total| {
            let Counted { input, output, .. } = counted.within(Some(total));
            (input, output)
        };
        assert_eq!(within(counted(Some(10), None), 15), (Some(10), Some(5)));
        assert_eq!(within(counted(None, Some(5)), 15), (Some(10), Some(5)));
        assert_eq!(within(counted(Some(10), Some(5)), 115), (Some(10), Some(105)));
        assert_eq!(within(counted(Some(10), Some(5)), 3), (Some(10), Some(5)));
        assert_eq!(within(counted(None, None), 15), (None, None));
        let cached = Counted { cached: Some(80), cache_written: Some(20), ..counted(Some(10), Some(5)) };
        assert_eq!(within(cached, 95), (Some(90), Some(5)));
        assert_eq!(within(cached, 115), (Some(110), Some(5)));
        assert_eq!(within(cached, 105), (Some(10), Some(95)));
        assert_eq!(within(Counted { reasoning: Some(80), ..cached }, 95), (Some(10), Some(85)));
    }

    #[test]
    fn the_estimate_is_booked_where_there_is_no_number() {
        let booked = |counted: Counted, has_content| {
            let Tokens { input, output, is_estimated, .. } = counted.booked((7, 100), has_content);
            (input, output, is_estimated)
        };
        assert_eq!(booked(counted(None, None), true), (7, 100, true));
        assert_eq!(booked(counted(Some(0), Some(0)), true), (7, 100, true));
        assert_eq!(booked(counted(Some(0), Some(0)), false), (7, 100, true));
        assert_eq!(booked(counted(Some(10), None), true), (10, 100, true));
        assert_eq!(booked(counted(Some(10), Some(0)), true), (10, 100, true));
        assert_eq!(booked(counted(Some(10), Some(0)), false), (10, 0, false));
        assert_eq!(booked(counted(None, Some(5)), true), (7, 5, true));
        assert_eq!(booked(counted(Some(10), Some(5)), true), (10, 5, false));
        assert_eq!(booked(counted(None, None).within(Some(15)), true), (7, 8, true));
        assert_eq!(booked(counted(Some(0), Some(0)).within(Some(5)), true), (5, 0, true));
    }
}
