//! `--input`: JSON, `@file`, or `-` for standard input.

use super::Failed;
use serde_json::value::RawValue;
use std::io::Read;

/// Read it, check that it is JSON, keep it as it is.
pub fn read(argument: &str) -> Result<Box<RawValue>, Failed> {
    let (text, place) = if argument == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|e| Failed::usage(format!("failed to read the input from standard input: {e}")))?;
        (text, "standard input".to_owned())
    } else if let Some(path) = argument.strip_prefix('@') {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failed::usage(format!("failed to read the input from {path}: {e}")))?;
        (text, path.to_owned())
    } else {
        (argument.to_owned(), "--input".to_owned())
    };
    RawValue::from_string(text.trim().to_owned())
        .map_err(|e| Failed::usage(format!("{place} is not JSON: {e}; give JSON, @file, or - for standard input")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_is_and_the_rest_is_refused_by_place() {
        assert_eq!(read(r#"{"a" : 1.0}"#).unwrap().get(), r#"{"a" : 1.0}"#);
        assert!(read("{").unwrap_err().message.starts_with("--input is not JSON"));
        assert!(read("@/no/such/file").unwrap_err().message.contains("/no/such/file"));
    }
}
