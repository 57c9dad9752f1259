//! Who may call: the lines `name scope token` of `api.tokens_file`.

use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Reading.
    Read,
    /// Everything.
    Full,
}

/// The tokens that are accepted. Only their hashes are kept.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Token>);

#[derive(Clone)]
struct Token {
    name: String,
    scope: Scope,
    hash: [u8; 32],
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|t| (&t.name, t.scope))).finish()
    }
}

/// Why nobody could call.
#[derive(Debug, thiserror::Error)]
#[error("read the tokens of {} (api.tokens_file): {cause}", path.display())]
pub struct TokensError {
    path: PathBuf,
    cause: Unusable,
}

/// A line that is no token. The line itself is not repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not `name scope token`.
    #[error("line {0} is not `name scope token`")]
    Line(usize),
    /// Neither `read` nor `full`.
    #[error("line {0}: the scope is neither read nor full")]
    Scope(usize),
    /// Easily guessed.
    #[error("line {0}: the token has fewer than 16 characters")]
    Short(usize),
    /// Two lines with one name.
    #[error("line {0}: the name stands there twice")]
    Twice(usize),
    /// Nobody could call.
    #[error("it holds no token; add a line `name scope token`, scope read or full")]
    Empty,
}

impl Tokens {
    /// Read `api.tokens_file`, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is no token, a file without any.
    pub fn load(path: Option<&Path>) -> Result<Option<Tokens>, TokensError> {
        let Some(path) = path else { return Ok(None) };
        let read = std::fs::read_to_string(path).map_err(Unusable::from).and_then(|text| Tokens::parse(&text));
        read.map(Some).map_err(|cause| TokensError { path: path.to_owned(), cause })
    }

    /// Empty lines and those that begin with `#` are skipped.
    pub(super) fn parse(text: &str) -> Result<Tokens, Unusable> {
        let mut tokens: Vec<Token> = Vec::new();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let at = at + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parts: Vec<&str> = line.split_whitespace().collect();
            let [name, scope, token] = parts[..] else { return Err(Unusable::Line(at)) };
            let scope = match scope {
                "read" => Scope::Read,
                "full" => Scope::Full,
                _ => return Err(Unusable::Scope(at)),
            };
            if token.len() < 16 {
                return Err(Unusable::Short(at));
            }
            if tokens.iter().any(|t| t.name == name) {
                return Err(Unusable::Twice(at));
            }
            tokens.push(Token { name: name.to_owned(), scope, hash: Sha256::digest(token).into() });
        }
        if tokens.is_empty() { Err(Unusable::Empty) } else { Ok(Tokens(tokens)) }
    }

    /// The name of a token.
    pub(super) fn name(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(|token| token.name.as_str())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which token this is, and what it allows. Hashes of equal length are compared, all of them and in full, so that the time
    /// taken tells nothing.
    pub(super) fn find(&self, token: &str) -> Option<(usize, Scope)> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (at, known) in self.0.iter().enumerate() {
            let difference = known.hash.iter().zip(hash).fold(0u8, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some((at, known.scope));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_allows_what_its_line_says() {
        let tokens = Tokens::parse("# who\n\ndash read 0123456789abcdef\nops\tfull  fedcba9876543210\n").unwrap();
        assert_eq!(tokens.find("0123456789abcdef").map(|(_, scope)| scope), Some(Scope::Read));
        assert_eq!(tokens.find("fedcba9876543210").map(|(_, scope)| scope), Some(Scope::Full));
        assert_eq!(tokens.find("fedcba987654321"), None);
        let marked = Tokens::parse("\u{feff}ops full fedcba9876543210\r\n").unwrap();
        assert!(
            marked.find("fedcba9876543210").is_some(),
            "a byte order mark and carriage returns are no part of a line"
        );
        assert_eq!(tokens.find(""), None);
        assert!(!format!("{tokens:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = Tokens::load(Some(Path::new("/no/such/tokens"))).unwrap_err().to_string();
        assert!(error.contains("/no/such/tokens (api.tokens_file)"), "{error}");
        assert!(Tokens::load(None).unwrap().is_none());
    }

    #[test]
    fn a_bad_line_is_named_and_not_repeated() {
        let cases = [
            ("a read", "line 1 is not"),
            ("\na write 0123456789abcdef", "line 2: the scope"),
            ("a read short", "line 1: the token has fewer"),
            ("a read 0123456789abcdef\na full 0123456789abcdeg", "line 2: the name"),
            ("# nobody", "it holds no token"),
        ];
        for (text, says) in cases {
            let error = Tokens::parse(text).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("0123456789"), "{text}: {error}");
        }
    }
}
