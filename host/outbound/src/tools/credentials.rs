//! The credentials in what the operator wrote about a server.

use super::Transport;
use crate::{proxy, secret};

/// Variables that every program has and that are no secret: taking their values out would spoil what a server says of files.
const PLAIN: [&str; 7] = ["HOME", "LANG", "LC_ALL", "PATH", "PWD", "TMPDIR", "TZ"];

/// Everything that was configured for the server's eyes alone.
pub(super) fn credentials(transport: &Transport) -> Vec<String> {
    match transport {
        Transport::Stdio { env, args, .. } => {
            let secrets = env.iter().filter(|(name, _)| !PLAIN.contains(&name.as_str()));
            let mut found: Vec<String> = secrets.map(|(_, value)| value.expose().to_owned()).collect();
            found.extend(env.values().flat_map(|value| of_address(value.expose())));
            found.extend(of_arguments(args));
            found
        }
        Transport::Http { url, headers, proxy, .. } => {
            let mut found: Vec<String> = headers.values().flat_map(|value| secret::of_header(value.expose())).collect();
            found.extend(proxy.iter().flat_map(crate::Proxy::secrets));
            found.extend(url.query().map(str::to_owned));
            found.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
            found.extend(url.query().into_iter().flat_map(|query| {
                query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value.to_owned())
            }));
            found
        }
    }
}

/// The password of an address, as it is written and as it is meant.
fn of_address(text: &str) -> Vec<String> {
    let url = url::Url::parse(text).ok();
    let password = url.as_ref().and_then(url::Url::password);
    password.map_or_else(Vec::new, |password| vec![password.to_owned(), proxy::decoded(password)])
}

/// Likely secrets in a program's arguments: `--api-key VALUE`, `--token=VALUE`, `--header "Authorization: VALUE"`, and a
/// password within an address. Other values are paths and names that results are full of.
fn of_arguments(args: &[String]) -> Vec<String> {
    let is_secret = |name: &str| {
        let name = name.to_lowercase();
        let is_place = ["dir", "file", "path"].iter().any(|end| name.ends_with(end));
        !is_place
            && ["authorization", "credential", "key", "passwd", "password", "secret", "token"]
                .iter()
                .any(|word| name.contains(word))
    };
    let mut found = Vec::new();
    let mut is_next = false;
    for arg in args {
        if arg.starts_with('-') {
            is_next = !arg.contains('=') && is_secret(arg);
        } else if std::mem::take(&mut is_next) {
            found.push(arg.clone());
        }
        let pairs = [arg.split_once('='), arg.split_once(':').filter(|(name, _)| !name.contains('/'))];
        for (_, value) in pairs.into_iter().flatten().filter(|(name, _)| is_secret(name)) {
            found.extend(secret::of_header(value.trim()));
        }
        let value = arg.split_once('=').filter(|_| arg.starts_with('-')).map_or(arg.as_str(), |(_, value)| value);
        found.extend(of_address(value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::secret::Redactor;
    use std::collections::BTreeMap;

    #[test]
    fn what_every_program_has_in_its_environment_is_no_credential() {
        let env = BTreeMap::from([("PATH", "/usr/bin:/bin"), ("KEY", "hunter2-hunter2")]);
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value))).collect();
        let stdio = Transport::Stdio { command: "x".into(), args: Vec::new(), env, dir: None, user: None };
        assert_eq!(credentials(&stdio), ["hunter2-hunter2"]);
    }

    #[test]
    fn secrets_in_arguments_and_addresses_are_credentials() {
        let env = BTreeMap::from([("DATABASE_URL".to_owned(), Secret::new("postgres://me:open%20sesame@db/app"))]);
        let args = [
            "/srv/data/files",
            "--root=/srv/data/other",
            "--api-key",
            "argument-1",
            "--token=argument-2",
            "--header",
            "Authorization: Bearer argument-3",
            "SECRET=argument-4",
            "https://me:argument-5@example.com/",
            "--verbose",
            "not-hidden",
            "--key-file",
            "/srv/keys/one",
            "/srv/keys:/srv/inside",
        ];
        let stdio = Transport::Stdio {
            command: "x".into(),
            args: args.map(str::to_owned).to_vec(),
            env,
            dir: None,
            user: None,
        };
        let redactor = Redactor::new(credentials(&stdio));
        for secret in
            ["open%20sesame", "open sesame", "argument-1", "argument-2", "argument-3", "argument-4", "argument-5"]
        {
            assert_eq!(redactor.text(secret), "***", "{secret}");
        }
        for plain in ["/srv/data/files", "/srv/data/other", "not-hidden", "/srv/keys/one", "/srv/inside"] {
            assert_eq!(redactor.text(plain), plain);
        }
    }

    #[test]
    fn a_bearer_token_is_a_credential_without_its_scheme() {
        let headers = BTreeMap::from([("authorization".to_owned(), Secret::new("Bearer abcdefghij"))]);
        let url = "https://mcp.example.com/?key=q%20r%20s%20t%20u".parse().unwrap();
        let redactor = Redactor::new(credentials(&Transport::Http { url, headers, proxy: None, ca_file: None }));
        for text in ["abcdefghij", "Bearer abcdefghij", "q r s t u", "key=q%20r%20s%20t%20u", "q%20r%20s%20t%20u"] {
            assert_eq!(redactor.text(text), "***", "{text}");
        }
    }
}
