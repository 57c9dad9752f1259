//! Who may call: the lines `name scope token` of `api.tokens_file`.

use sha2::{Digest, Sha256};
use std::fmt;

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

/// A line that is no token. The line itself is not repeated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
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
    /// Read the file's text. Empty lines and those that begin with `#` are skipped.
    pub fn parse(text: &str) -> Result<Tokens, TokensError> {
        let mut tokens: Vec<Token> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let at = at + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parts: Vec<&str> = line.split_whitespace().collect();
            let [name, scope, token] = parts[..] else { return Err(TokensError::Line(at)) };
            let scope = match scope {
                "read" => Scope::Read,
                "full" => Scope::Full,
                _ => return Err(TokensError::Scope(at)),
            };
            if token.len() < 16 {
                return Err(TokensError::Short(at));
            }
            if tokens.iter().any(|t| t.name == name) {
                return Err(TokensError::Twice(at));
            }
            tokens.push(Token { name: name.to_owned(), scope, hash: Sha256::digest(token).into() });
        }
        if tokens.is_empty() { Err(TokensError::Empty) } else { Ok(Tokens(tokens)) }
    }

    /// What this token allows. Hashes of equal length are compared, all of them and in full, so that the time taken tells
    /// nothing.
    pub(super) fn scope(&self, token: &str) -> Option<Scope> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for known in &self.0 {
            let difference = known.hash.iter().zip(hash).fold(0u8, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(known.scope);
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
        let tokens =
            Tokens::parse("# who\n\ndash read 0123456789abcdef\nops\tfull  fedcba9876543210\n").unwrap();
        assert_eq!(tokens.scope("0123456789abcdef"), Some(Scope::Read));
        assert_eq!(tokens.scope("fedcba9876543210"), Some(Scope::Full));
        assert_eq!(tokens.scope("fedcba987654321"), None);
        assert_eq!(tokens.scope(""), None);
        assert!(!format!("{tokens:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_bad_line_is_named_and_not_repeated() {
        let cases = [
            ("a read", TokensError::Line(1)),
            ("\na write 0123456789abcdef", TokensError::Scope(2)),
            ("a read short", TokensError::Short(1)),
            ("a read 0123456789abcdef\na full 0123456789abcdeg", TokensError::Twice(2)),
            ("# nobody", TokensError::Empty),
        ];
        for (text, error) in cases {
            assert_eq!(Tokens::parse(text).unwrap_err(), error, "{text}");
        }
    }
}
