//! The models that a provider lists, for an operator: shows that it is reachable and takes the key, and costs no tokens.

use super::Llm;
use super::exchange::broken;
use super::provider::Provider;
use reqwest::StatusCode;
use serde_json::Value;

/// The longest list that is read, in bytes.
const LONGEST: usize = 4 << 20;

impl Llm {
    /// The names of the providers.
    pub fn providers(&self) -> Vec<String> {
        self.providers.keys().cloned().collect()
    }

    /// The names of a provider's models. `None`: it has no list, or not all of it in one response.
    ///
    /// # Errors
    /// It cannot be reached, rejects the key, or responds with an error. The text holds no key.
    pub async fn list(&self, provider: &str) -> Result<Option<Vec<String>>, String> {
        let provider = self.providers.get(provider).ok_or_else(|| format!("there is no provider {provider:?}"))?;
        list(provider).await
    }
}

async fn list(provider: &Provider) -> Result<Option<Vec<String>>, String> {
    let mut headers = provider.headers.clone();
    if let Some((name, value)) = provider.shape.list_header() {
        headers.entry(name).or_insert(value);
    }
    let request = provider.client.get(provider.shape.models(&provider.root)).headers(headers).send();
    let mut response = request.await.map_err(|error| broken(provider, &error).to_string())?;
    match response.status() {
        status if status.is_success() => {}
        // Servers that only resemble a provider have no list.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => return Ok(None),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(format!("it rejects the key (status {})", status.as_u16()));
        }
        status => return Err(format!("it responds with the status {}", status.as_u16())),
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(provider, &error).to_string())? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST {
            return Ok(None);
        }
    }
    let value: Value = serde_json::from_slice(&body).map_err(|_| "its list of models is not JSON".to_owned())?;
    Ok(names(&value))
}

/// `{"data": [{"id"}]}`, or Gemini's `{"models": [{"name": "models/…"}]}`.
fn names(value: &Value) -> Option<Vec<String>> {
    if value["has_more"] == true || value["nextPageToken"].is_string() {
        return None;
    }
    let (list, key) = match value["data"].as_array() {
        Some(list) => (list, "id"),
        None => (value["models"].as_array()?, "name"),
    };
    let name = |model: &Value| Some(model[key].as_str()?.trim_start_matches("models/").to_owned());
    list.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_models_are_read_from_every_kind_of_list() {
        let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names(&json!({"object": "list", "data": [{"id": "a"}, {"id": "b"}]})), some(&["a", "b"]));
        assert_eq!(names(&json!({"models": [{"name": "models/g"}]})), some(&["g"]));
        assert_eq!(names(&json!({"data": [{"id": "a"}], "has_more": true})), None, "the rest is not known");
        assert_eq!(names(&json!({"models": [], "nextPageToken": "x"})), None);
        assert_eq!(names(&json!({"data": [{"name": "a"}]})), None);
        assert_eq!(names(&json!([])), None);
    }
}
