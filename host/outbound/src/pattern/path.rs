//! The path prefix of a pattern.

use agentry_defence::Defence;

/// How often a path is decoded until it has to stay as it is. Servers decode once, or once more behind a proxy.
const PASSES: usize = 3;

/// As the URL Standard writes it, without a slash at its end; empty: any path.
pub(super) fn parse(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "/" {
        return Ok(String::new());
    }
    if text.contains('*') {
        return Err("a path has no *: it is a prefix already".into());
    }
    if text.contains("//") {
        return Err("a segment of its path is empty".into());
    }
    if ambiguous(text.as_bytes()) {
        return Err(
            "its path can be read in more than one way; write it without dot segments and encoded slashes".into()
        );
    }
    let url = url::Url::parse(&format!("http://host{text}")).map_err(|e| format!("{text:?} is no path: {e}"))?;
    Ok(url.path().trim_end_matches('/').to_owned())
}

/// Whether a URL's path lies under a prefix. `is_plain` is asked only where that matters.
pub(super) fn allows(prefix: &str, path: &str, is_plain: impl FnOnce() -> bool) -> bool {
    prefix.is_empty() || (is_under(prefix, path) && is_plain())
}

/// Whether every server reads the same segments in a URL's path.
pub(super) fn is_plain(path: &str) -> bool {
    !ambiguous(path.as_bytes()) || !Defence::PathSpelling.stands()
}

/// The longer, if it lies under the other.
pub(super) fn meet<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    match (is_under(a, b), is_under(b, a)) {
        (true, _) => Some(b),
        (_, true) => Some(a),
        _ => None,
    }
}

fn is_under(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a server that decodes the path may see other segments than the URL has, or the path is encoded more often than that.
/// Servlet containers drop what follows a `;`, so that `..;` is a dot segment to them.
fn ambiguous(path: &[u8]) -> bool {
    let slashes = |path: &[u8]| path.iter().filter(|c| **c == b'/').count();
    let dots = |segment: &[u8]| matches!(segment.split(|c| *c == b';').next(), Some(b"." | b".."));
    let mut path = path.to_vec();
    for _ in 0..PASSES {
        if path.split(|c| *c == b'/').any(dots) || path.iter().any(|c| *c == b'\\' || c.is_ascii_control()) {
            return true;
        }
        let decoded = decoded(&path);
        if slashes(&decoded) > slashes(&path) {
            return true;
        }
        if decoded == path {
            return false;
        }
        path = decoded;
    }
    true
}

/// Percent-decoded once.
fn decoded(path: &[u8]) -> Vec<u8> {
    let digit = |c: Option<&u8>| c.and_then(|c| char::from(*c).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        match (digit(path.get(at + 1)), digit(path.get(at + 2))) {
            (Some(high), Some(low)) if *byte == b'%' => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}
