//! What a producer may ask of a task: the `options` of a message.

use super::instant;
use super::limits::{LABEL_BYTES, LABELS, MAX_ATTEMPTS, MessageLimits, PRIORITY};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeMap;
use std::fmt;

/// Options of a task; without one, the values of the plugin and the operator hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Time limit of one attempt, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "timeout_seconds")]
    #[schema(minimum = 1)]
    pub timeout_seconds: Option<u32>,
    /// Attempts that there may be.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "max_attempts")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<u32>,
    /// Priority, 0 to 9; higher ones run first.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "priority")]
    #[schema(minimum = 0, maximum = 9)]
    pub priority: Option<u8>,
    /// It runs not before this time.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "run_at")]
    pub run_at: Option<DateTime<Utc>>,
    /// It begins not after this time.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "deadline")]
    pub deadline: Option<DateTime<Utc>>,
    /// Labels of the producer, for filters: at most 16, keys and values of at most 64 bytes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique_labels")]
    pub labels: BTreeMap<String, String>,
}

fn timeout_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole("timeout_seconds", "1 to limits.max.timeout_seconds", deserializer)
}

fn max_attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole("max_attempts", "1 to 100", deserializer)
}

fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    whole("priority", "0 to 9", deserializer)
}

fn run_at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    instant::optional("run_at", deserializer)
}

fn deadline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    instant::optional("deadline", deserializer)
}

/// A whole number of the field `name`, which errors name. Some languages write one as `30.0`.
fn whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
    name: &str,
    allowed: &str,
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(value) = Option::<serde_json::Value>::deserialize(deserializer)? else { return Ok(None) };
    let integral = |v: f64| (v.fract() == 0.0 && (0.0..9e15).contains(&v)).then_some(v as u64);
    let number = value.as_u64().or_else(|| value.as_f64().and_then(integral));
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(number) => Ok(Some(number)),
        None => {
            let what = match &value {
                serde_json::Value::Array(_) => "an array".to_owned(),
                serde_json::Value::Object(_) => "an object".to_owned(),
                other => other.to_string(),
            };
            Err(de::Error::custom(format_args!("{name} is {what}; expected a whole number, {allowed}")))
        }
    }
}

/// A map in which a key stands twice is an error, not a silent choice.
fn unique_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Labels;
    impl<'de> de::Visitor<'de> for Labels {
        type Value = BTreeMap<String, String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of text to text")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut labels = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if labels.contains_key(&key) {
                    return Err(de::Error::custom(format_args!("duplicate label {key:?}")));
                }
                labels.insert(key, value);
            }
            Ok(labels)
        }
    }
    deserializer.deserialize_map(Labels)
}

impl Options {
    /// Whether every wish is in its range; otherwise which is not, what it is and what is allowed.
    pub fn check(&self, limits: &MessageLimits) -> Result<(), String> {
        let options = self;
        let refuse = |detail: String| Err(detail);
        if let Some(seconds) = options.timeout_seconds
            && !(1..=limits.timeout_seconds).contains(&seconds)
        {
            return refuse(format!(
                "options.timeout_seconds is {seconds}; allowed are 1 to {} (limits.max.timeout_seconds)",
                limits.timeout_seconds
            ));
        }
        if let Some(attempts) = options.max_attempts
            && !MAX_ATTEMPTS.contains(&attempts)
        {
            return refuse(format!(
                "options.max_attempts is {attempts}; allowed are {} to {}",
                MAX_ATTEMPTS.start(),
                MAX_ATTEMPTS.end()
            ));
        }
        if let Some(priority) = options.priority
            && !PRIORITY.contains(&priority)
        {
            return refuse(format!(
                "options.priority is {priority}; allowed are {} to {}",
                PRIORITY.start(),
                PRIORITY.end()
            ));
        }
        if let (Some(run_at), Some(deadline)) = (options.run_at, options.deadline)
            && deadline <= run_at
        {
            return refuse(format!("options.deadline ({deadline}) is not after options.run_at ({run_at})"));
        }
        if options.labels.len() > LABELS {
            return refuse(format!("options.labels has {} entries; allowed are {LABELS}", options.labels.len()));
        }
        for (key, value) in &options.labels {
            if key.is_empty() || key.len() > LABEL_BYTES || value.len() > LABEL_BYTES {
                return refuse(format!("options.labels: {key:?} or its value is empty or over {LABEL_BYTES} bytes"));
            }
            if key.contains('\0') || value.contains('\0') {
                return refuse(format!("options.labels: {key:?} or its value holds a NUL character"));
            }
        }
        Ok(())
    }
}
