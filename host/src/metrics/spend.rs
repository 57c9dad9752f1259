//! Tokens of language models by model, and what they cost.

use super::ends::OTHER;
use super::table::register;
use crate::task::settle::Call;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;

/// Group of tasks that lack the label.
const NONE: &str = "none";

/// Prices of a model, for each million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Of the request.
    pub input: f64,
    /// Of the answer.
    pub output: f64,
    /// Of those of the request that came from the provider's cache.
    pub cached: f64,
    /// Of those of the request that were written to it.
    pub cache_write: f64,
}

/// The settings that labels and prices come from.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// The operator's names for models, with their prices as far as they are set.
    pub models: BTreeMap<String, Option<Price>>,
    /// Currency of the prices.
    pub currency: String,
    /// The label of tasks by which costs are added up; `None`: they are not.
    pub label: Option<String>,
    /// The values that are told apart.
    pub values: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTokens {
    plugin: String,
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCost {
    plugin: String,
    model: String,
    group: String,
    currency: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

pub(super) struct Spend {
    prices: Prices,
    tokens: Family<OfTokens, Counter>,
    cost: Family<OfCost, Counter<f64, AtomicU64>>,
    unpriced: Family<OfModel, Counter>,
}

impl Spend {
    pub fn new(to: &mut Registry, prices: Prices) -> Spend {
        let spend = Spend { prices, tokens: Family::default(), cost: Family::default(), unpriced: Family::default() };
        // A counter that begins with 1 does not show its first increase.
        for (model, _) in spend.prices.models.iter().filter(|(_, price)| price.is_none()) {
            drop(spend.unpriced.get_or_create(&OfModel { model: model.clone() }));
        }
        register(to, "llm_model_tokens", spend.tokens.clone());
        register(to, "llm_cost", spend.cost.clone());
        register(to, "llm_unpriced_calls", spend.unpriced.clone());
        spend
    }

    /// The group of a task by the value of its label. Of values that the operator does not name there may be any number.
    pub fn group<'l>(&'l self, labels: &BTreeMap<String, String>) -> Option<&'l str> {
        let label = self.prices.label.as_ref()?;
        Some(match labels.get(label) {
            None => NONE,
            Some(value) => self.prices.values.get(value).map_or(OTHER, String::as_str),
        })
    }

    /// Counts one chat. Its tokens are those that were booked for it.
    pub fn count(&self, plugin: &str, call: &Call, group: Option<&str>) {
        let tokens = |name: &str| call.detail[name].as_u64().unwrap_or(0);
        let (input, output) = (tokens("input_tokens"), tokens("output_tokens"));
        if input == 0 && output == 0 {
            return;
        }
        let cached = tokens("cached_tokens").min(input);
        let written = tokens("cache_write_tokens").min(input - cached);
        // A guest may ask for any name.
        let known = self.prices.models.get_key_value(&call.target);
        let (model, price) = known.map_or((OTHER, None), |(name, price)| (name.as_str(), *price));
        for (kind, number) in [("input", input), ("output", output), ("cached", cached), ("cache_write", written)] {
            if number > 0 {
                let of = OfTokens { plugin: plugin.to_owned(), model: model.to_owned(), kind };
                self.tokens.get_or_create(&of).inc_by(number);
            }
        }
        let Some(price) = price else {
            self.unpriced.get_or_create(&OfModel { model: model.to_owned() }).inc();
            return;
        };
        let parts = [
            (input - cached - written, price.input),
            (cached, price.cached),
            (written, price.cache_write),
            (output, price.output),
        ];
        let cost = parts.iter().map(|(tokens, price)| *tokens as f64 * price).sum::<f64>() / 1e6;
        let of = OfCost {
            plugin: plugin.to_owned(),
            model: model.to_owned(),
            group: group.unwrap_or_default().to_owned(),
            currency: self.prices.currency.clone(),
        };
        self.cost.get_or_create(&of).inc_by(cost);
    }
}
