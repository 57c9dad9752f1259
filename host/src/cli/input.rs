//! `--input`: JSON, `@file`, or `-` for standard input.

use super::{Failed, escape};
use serde_json::value::RawValue;
use std::fs::File;
use std::io::Read;

/// The most bytes that are read: the highest value of limits.max.message_kib. A device or a pipe may never end.
const MOST: u64 = 131_072 << 10;

/// Read it, check that it is JSON, keep it as it is.
pub fn read(argument: &str) -> Result<Box<RawValue>, Failed> {
    let (text, place) = if argument == "-" {
        (bounded(std::io::stdin().lock(), "standard input", MOST)?, "standard input".to_owned())
    } else if let Some(path) = argument.strip_prefix('@') {
        let place = escape::line(path);
        if path.is_empty() {
            return Err(Failed::usage("--input is \"@\" without the name of a file; give @FILE"));
        }
        let file =
            File::open(path).map_err(|e| Failed::usage(format!("failed to read the input from {place}: {e}")))?;
        (bounded(file, &place, MOST)?, place)
    } else {
        (argument.to_owned(), "--input".to_owned())
    };
    RawValue::from_string(text.trim().to_owned())
        .map_err(|e| Failed::usage(format!("{place} is not JSON: {e}; give JSON, @file, or - for standard input")))
}

/// The whole text, unless it exceeds `most` bytes.
fn bounded(from: impl Read, place: &str, most: u64) -> Result<String, Failed> {
    let mut bytes = Vec::new();
    let read = from.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failed::usage(format!("failed to read the input from {place}: {e}")))?;
    if bytes.len() as u64 > most {
        return Err(Failed::usage(format!(
            "the input from {place} exceeds {most} bytes, the most that limits.max.message_kib can allow; give a smaller one"
        )));
    }
    String::from_utf8(bytes).map_err(|e| Failed::usage(format!("the input from {place} is not UTF-8: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_is_and_the_rest_is_refused_by_place() {
        assert_eq!(read(r#"{"a" : 1.0}"#).unwrap().get(), r#"{"a" : 1.0}"#);
        assert!(read("{").unwrap_err().message.starts_with("--input is not JSON"));
        assert!(read("@/no/such/file").unwrap_err().message.contains("/no/such/file"));
        assert!(read("@").unwrap_err().message.contains("without the name of a file"));
    }

    #[test]
    fn an_input_without_end_is_read_up_to_the_bound() {
        assert_eq!(bounded(std::io::repeat(b'1').take(10), "x", 10).unwrap().len(), 10);
        let error = bounded(std::io::repeat(0), "/dev/zero", 10).unwrap_err();
        assert!(error.code == 2 && error.message.contains("/dev/zero exceeds 10 bytes"), "{error:?}");
        assert!(bounded(&[0xff][..], "x", 10).unwrap_err().message.contains("not UTF-8"));
    }
}
