//! A URL in the three parts that `wasi:http` wants. Not a parser of URLs: the host judges every part of it.

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// `https`; otherwise `http`.
    pub(super) tls: bool,
    /// Host and port, as they were written.
    pub(super) authority: &'a str,
    /// From the `/` on.
    pub(super) path_with_query: String,
}

impl<'a> Target<'a> {
    /// Takes a URL apart.
    pub(super) fn parse(url: &'a str) -> Result<Target<'a>, String> {
        // What is wrong is shown without what may be secret in it: the query.
        let shown = || url.split(['?', '#']).next().unwrap_or_default().chars().take(256).collect::<String>();
        if let Some(odd) = url.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("{:?} is no URL: it must not contain {odd:?}; write %20 for a space", shown()));
        }
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| format!("{:?} is no absolute URL; it must begin with https:// or http://", shown()))?;
        let tls = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err(format!("{:?} has another scheme than https and http", shown())),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?', '\\']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("the URL has a user or a password, which the host refuses; use a header".into());
        }
        if authority.is_empty() || path.starts_with('\\') {
            return Err(format!("{:?} has no host", shown()));
        }
        let path_with_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Target { tls, authority, path_with_query })
    }

    /// `https://example.com`.
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "said by the errors of the component"))]
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }

    /// The URL without its query, which may hold what is not for messages.
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "said by the errors of the component"))]
    pub(super) fn without_query(&self) -> String {
        format!("{}{}", self.origin(), self.path_with_query.split('?').next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_scheme_authority_and_path() {
        for (url, tls, authority, path) in [
            ("https://example.com", true, "example.com", "/"),
            ("HTTP://example.com:8080/a/b?c=d#e", false, "example.com:8080", "/a/b?c=d"),
            ("https://[::1]:8443?q", true, "[::1]:8443", "/?q"),
            ("https://example.com/@me", true, "example.com", "/@me"),
            ("https://example.com/a?u=http://b/", true, "example.com", "/a?u=http://b/"),
            ("https://example.com#e/f", true, "example.com", "/"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                (target.tls, target.authority, target.path_with_query.as_str()),
                (tls, authority, path),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_no_url_is_refused_and_says_why() {
        for (url, why) in [
            ("example.com/a", "absolute"),
            ("", "absolute"),
            ("ftp://example.com", "scheme"),
            ("https://", "host"),
            ("https:///path", "host"),
            ("https://\\\\example.com", "host"),
            ("https://me:secret@example.com", "password"),
            ("https://example.com/a b", "%20"),
            ("https://example.com/\n", "must not contain"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn messages_leave_the_query_out() {
        assert_eq!(Target::parse("https://a.b/c?key=1").unwrap().without_query(), "https://a.b/c");
        assert!(!Target::parse("htp://a.b/c?key=1").unwrap_err().contains("key"));
    }
}
