//! Who may call: the lines `name scope token` of `api.tokens_file`.

use super::share::Share;
use sha2::{Digest, Sha256};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Reading.
    Read,
    /// Everything.
    Full,
}

/// The tokens that are accepted. Only their hashes are kept. Clones share them.
#[derive(Clone)]
pub struct Tokens(Arc<Accepted>);

struct Accepted {
    /// The tokens of the file as it was last valid.
    current: RwLock<Arc<[Token]>>,
    file: Mutex<File>,
}

/// The file that tokens are read from.
struct File {
    path: PathBuf,
    /// State of the file when it was last read.
    read: Option<Stamp>,
    /// Why it cannot be used as it is now.
    trouble: Option<String>,
}

/// State of a file: time of change, length and inode. A file that was replaced has another inode, whatever its times are.
type Stamp = (SystemTime, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = path.metadata().ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

/// One token.
#[derive(Clone)]
pub(super) struct Token {
    /// Its name.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    hash: [u8; 32],
    /// Its places, which it keeps when the file is read again.
    pub share: Arc<OnceLock<Share>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.current().iter().map(|t| (&t.name, t.scope))).finish()
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
    /// Reads `api.tokens_file`, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, an invalid line, a file without tokens.
    pub fn load(path: Option<&Path>) -> Result<Option<Tokens>, TokensError> {
        let Some(path) = path else { return Ok(None) };
        let file = File { path: path.to_owned(), read: stamp(path), trouble: None };
        let current = read(path)?;
        Ok(Some(Tokens(Arc::new(Accepted { current: RwLock::new(current.into()), file: Mutex::new(file) }))))
    }

    /// Reads the file again if it has changed. If it is invalid, the former tokens stay in use, and [`Tokens::trouble`] says why.
    /// Blocks on the file system.
    pub(super) fn look(&self) {
        // A panic under the lock leaves whole values: every change is one assignment.
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the file is read: a change while it is read is seen the next time.
        let stamp = stamp(&file.path);
        if stamp == file.read {
            return;
        }
        file.read = stamp;
        match read(&file.path) {
            Ok(tokens) => {
                let tokens = self.with_shares(tokens);
                let names = tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>().join(", ");
                tracing::info!(tokens = names, "tokens of the API reloaded");
                *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
                file.trouble = None;
            }
            Err(error) => {
                let trouble = format!("the former tokens of the API stay in use: failed to {error}");
                if file.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}");
                }
                file.trouble = Some(trouble);
                // A right to read it may come without a change of the file.
                file.read = None;
            }
        }
    }

    /// Why the file cannot be used as it is now.
    pub fn trouble(&self) -> Option<String> {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// A token of the same name keeps its places, which requests under way occupy.
    fn with_shares(&self, tokens: Vec<Token>) -> Vec<Token> {
        let former = self.current();
        let share = |name: &str| former.iter().find(|token| token.name == name).map(|token| token.share.clone());
        tokens.into_iter().map(|token| Token { share: share(&token.name).unwrap_or_default(), ..token }).collect()
    }

    fn current(&self) -> Arc<[Token]> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The token, if it is accepted. Hashes of equal length are compared, all of them and in full, so that the time taken tells
    /// nothing.
    pub(super) fn find(&self, token: &str) -> Option<Token> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for known in self.current().iter() {
            let difference = known.hash.iter().zip(hash).fold(0u8, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(known.clone());
            }
        }
        found
    }

    /// The tokens of a text, for tests.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Tokens {
        let file = File { path: PathBuf::new(), read: None, trouble: None };
        let current = parse(text).unwrap();
        Tokens(Arc::new(Accepted { current: RwLock::new(current.into()), file: Mutex::new(file) }))
    }
}

fn read(path: &Path) -> Result<Vec<Token>, TokensError> {
    let text = std::fs::read_to_string(path).map_err(Unusable::from);
    text.and_then(|text| parse(&text)).map_err(|cause| TokensError { path: path.to_owned(), cause })
}

/// Empty lines and those that begin with `#` are skipped.
fn parse(text: &str) -> Result<Vec<Token>, Unusable> {
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
        tokens.push(Token { name: name.to_owned(), scope, hash: Sha256::digest(token).into(), share: Arc::default() });
    }
    if tokens.is_empty() { Err(Unusable::Empty) } else { Ok(tokens) }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
