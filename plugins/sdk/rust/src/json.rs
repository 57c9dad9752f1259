//! From the input's text to a type, and from a type to the output's text: what [`plugin!`](crate::plugin) does around a
//! typed function.

use crate::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

/// Reads an input.
///
/// # Errors
/// [`Failure::InvalidInput`] with what was expected, what was found and, where serde knows it, a pointer to the place.
pub fn read<T: DeserializeOwned>(input: &str) -> Result<T, Failure> {
    let mut deserializer = serde_json::Deserializer::from_str(input);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let failure = Failure::invalid_input(error.into_inner().to_string());
        if pointer.is_empty() { failure } else { failure.with_pointer(pointer) }
    })?;
    deserializer.end().map_err(|error| Failure::invalid_input(error.to_string()))?;
    Ok(value)
}

/// Writes an output.
///
/// # Errors
/// [`Failure::Permanent`] for what JSON cannot hold, such as a map whose keys are no text; the next attempt would do no
/// better.
pub fn write<T: Serialize + ?Sized>(output: &T) -> Result<String, Failure> {
    serde_json::to_string(output)
        .map_err(|error| Failure::permanent(format!("the output cannot be written as JSON: {error}")))
}

/// serde's path as a JSON Pointer (RFC 6901), as far as it is known.
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            // An enum's variant is the key around its content.
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => break,
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Input {
        documents: Vec<Document>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum Document {
        Page { url: String },
    }

    /// Message and pointer of the failure with which `input` is refused.
    fn refused<T: DeserializeOwned + std::fmt::Debug>(input: &str) -> (String, Option<String>) {
        match read::<T>(input) {
            Err(Failure::InvalidInput { message, pointer }) => (message, pointer),
            other => panic!("{input}: {other:?}"),
        }
    }

    #[test]
    fn an_input_that_fits_is_read() {
        let read = read::<Input>(r#"{"documents": [{"page": {"url": "a"}}]}"#);
        let page = Document::Page { url: "a".into() };
        assert_eq!(read, Ok(Input { documents: vec![page] }));
    }

    #[test]
    fn an_input_that_does_not_fit_says_where_and_why() {
        let (message, pointer) = refused::<Input>(r#"{"documents": [{"page": {"url": "a"}}, {"page": {"url": 7}}]}"#);
        assert_eq!(pointer.as_deref(), Some("/documents/1/page/url"));
        assert!(message.contains("integer `7`, expected a string"), "{message}");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let (message, pointer) = refused::<Input>(r#"{"documents": [], "docs": 1}"#);
        assert_eq!(pointer.as_deref(), Some("/docs"));
        assert!(message.contains("unknown field `docs`, expected `documents`"), "{message}");
    }

    #[test]
    fn what_is_wrong_with_the_whole_has_no_pointer() {
        let (message, pointer) = refused::<Input>("{}");
        assert_eq!(pointer, None);
        assert!(message.contains("missing field `documents`"), "{message}");
        assert_eq!(refused::<u32>("1 2").1, None);
    }

    #[test]
    fn a_pointer_escapes_what_pointers_are_made_of() {
        assert_eq!(refused::<BTreeMap<String, u32>>(r#"{"a/b~c": "x"}"#).1.as_deref(), Some("/a~1b~0c"));
    }

    #[test]
    fn an_input_nested_beyond_reason_is_refused_and_not_a_crash() {
        let (message, _) = refused::<serde_json::Value>(&"[".repeat(100_000));
        assert!(message.contains("recursion limit"), "{message}");
    }

    #[test]
    fn an_output_that_json_cannot_hold_is_a_permanent_failure() {
        let output = BTreeMap::from([((1, 2), "a tuple is no key")]);
        assert!(matches!(write(&output), Err(Failure::Permanent { .. })));
        assert_eq!(write(&()), Ok("null".to_owned()));
    }
}
