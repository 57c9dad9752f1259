//! Keys are taken out of whatever a provider sends. One that echoes a request into its answer or error would otherwise hand the
//! operator's key to the guest, and to every record of the call.

use super::types::ProviderSettings;
use agentry_defence::Defence;
use serde_json::Value;

/// Shorter ones are words: what a local server is given where it wants a key and does not look at it.
const SHORTEST: usize = 8;

/// Headers that an operator sets and everybody may know. Their values are words that an answer may have, too.
const PUBLIC: [&str; 8] = [
    "anthropic-beta",
    "http-referer",
    "openai-beta",
    "openai-organization",
    "referer",
    "user-agent",
    "x-openrouter-title",
    "x-title",
];

/// The operator's secrets for one provider.
pub(super) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    pub fn new(settings: &ProviderSettings) -> Redactor {
        let is_secret = |name: &&String| !PUBLIC.contains(&name.to_ascii_lowercase().as_str());
        let headers = settings.headers.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value);
        let mut secrets: Vec<String> = Vec::new();
        for secret in settings.key.iter().chain(headers) {
            let whole = secret.expose();
            secrets.push(whole.to_owned());
            // `Bearer KEY` is a secret, and so is the key.
            secrets.extend(whole.split_whitespace().skip(1).map(str::to_owned));
        }
        secrets.retain(|secret| secret.len() >= SHORTEST && Defence::LlmMask.stands());
        // One may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Redactor { secrets }
    }

    /// The text without secrets.
    pub fn text(&self, text: String) -> String {
        let found = |text: String, secret: &String| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), "***") } else { text }
        };
        self.secrets.iter().fold(text, found)
    }

    /// The JSON without secrets in its texts and names; after parsing, so that no escape hides one.
    pub fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Value::Object(members) => {
                members.into_iter().map(|(name, member)| (self.text(name), self.json(member))).collect()
            }
            other => other,
        }
    }
}
