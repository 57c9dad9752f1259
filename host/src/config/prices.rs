//! `[metrics]`, and the prices of models in `[llm.models.NAME]`.

use super::file::{Section, Table, TableValue};
use super::layers::Layers;
use super::origin::Problem;
use super::reader::Reader;
use crate::metrics::{Price, Prices};
use std::collections::BTreeSet;

/// More values would be more series than a label is to have.
const MOST_VALUES: usize = 100;
/// The largest price of a million tokens, in any currency.
const MOST: f64 = 1e9;

const KEYS: [&str; 4] = ["price_input", "price_output", "price_cached", "price_cache_write"];

pub(super) fn read(read: &mut Reader, layers: &Layers) -> Result<Prices, Problem> {
    let takes = "a currency's name of 1 to 16 letters, such as USD";
    let is_currency = |text: &str| (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphabetic());
    let currency = read.word("metrics.currency", takes, is_currency)?;
    let label = read.text("metrics.label")?;
    let values: BTreeSet<String> = read.list_or_none("metrics.label_values")?.into_iter().collect();
    let invalid = |key: &str, what: String| Err(Problem::invalid(key, &read.origin(key), what));
    if values.len() > MOST_VALUES {
        let what = format!("{} values exceed {MOST_VALUES}: each is a series of its own; name fewer", values.len());
        return invalid("metrics.label_values", what);
    }
    // Without values every task would be `other`.
    if label.is_none() && !values.is_empty() {
        let what =
            format!("metrics.label is not set; set it too: it takes values of that label, at most {MOST_VALUES}");
        return invalid("metrics.label_values", what);
    }
    if label.is_some() && values.is_empty() {
        let what = "metrics.label_values is not set; it takes the key of a label, and metrics.label_values the values to tell apart";
        return invalid("metrics.label", what.into());
    }
    let models = layers.tables_of(Section::LlmModels).into_iter();
    let models = models.map(|table| Ok((table.name.clone(), price(table)?))).collect::<Result<_, Problem>>()?;
    Ok(Prices { models, currency, label, values })
}

/// The prices of one model; `None`: it has none.
fn price(table: &Table) -> Result<Option<Price>, Problem> {
    let named: Vec<&str> = table.values.keys().map(String::as_str).filter(|key| key.starts_with("price_")).collect();
    if let Some(unknown) = named.iter().find(|key| !KEYS.contains(*key)) {
        let origin = table.values.get(*unknown).map_or(&table.origin, |(_, origin)| origin);
        let what = format!("unknown setting {unknown} in {}; known are {}", table.title(), KEYS.join(", "));
        return Err(Problem(format!("{origin}: {what}")));
    }
    let number = |key: &str| {
        let Some((TableValue(value), origin)) = table.values.get(key) else { return Ok(None) };
        match value.as_f64().filter(|price| (0.0..=MOST).contains(price)) {
            Some(price) => Ok(Some(price)),
            None => {
                let what = format!("{value} is not allowed; it takes a number from 0 to {MOST}, for a million tokens");
                Err(table.invalid(key, origin, what))
            }
        }
    };
    let [input, output, cached, cache_write] = KEYS.map(number);
    match (input?, output?, cached?, cache_write?) {
        (Some(input), Some(output), cached, cache_write) => Ok(Some(Price {
            input,
            output,
            cached: cached.unwrap_or(input),
            cache_write: cache_write.unwrap_or(input),
        })),
        (None, None, None, None) => Ok(None),
        _ => {
            let what = "prices need price_input and price_output; set both, or none";
            Err(Problem(format!("{}: {}: {what}", table.origin, table.title())))
        }
    }
}
