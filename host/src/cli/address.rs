//! The address of a daemon: `--server` or `AGENTRY_SERVER`.

use super::{Failed, escape};

/// An address with its scheme. `HOST:PORT` means `http://HOST:PORT` on loopback and `https://HOST:PORT` elsewhere: a token must not
/// be sent in plaintext because a scheme was left out.
pub fn address(text: &str) -> Result<String, Failed> {
    // Files of variables have quotes around values, and what reads them may leave those.
    let text = text.trim().trim_matches(['"', '\'']);
    let invalid = |problem: &str| {
        // What is behind a `?` may be a secret.
        let text = text.split_inclusive('?').next().unwrap_or_default();
        let (text, takes) = (escape::line(text), "http://HOST:PORT, https://HOST:PORT or HOST:PORT");
        Failed::usage(format!("--server is \"{text}\": {problem}; expected {takes}"))
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((_, host)) = authority.rsplit_once('@') {
        // It would be shown wherever the address is, and may be a password.
        let host = escape::line(host);
        return Err(Failed::usage(format!(
            "--server (or AGENTRY_SERVER) holds a user or a password before @{host}; the API takes neither: set AGENTRY_TOKEN, and \
             give the address alone"
        )));
    }
    let rest = rest.trim_end_matches('/');
    match scheme {
        "http" | "https" => {}
        "" => {
            let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return Err(invalid("the port is missing or invalid"));
            }
        }
        other => return Err(invalid(&format!("the scheme {} is not supported", escape::line(other)))),
    }
    let address = match scheme {
        "" if is_loopback(&format!("http://{rest}")) => format!("http://{rest}"),
        "" => format!("https://{rest}"),
        scheme => format!("{scheme}://{rest}"),
    };
    match url::Url::parse(&address) {
        Ok(url) if scheme.is_empty() && !matches!(url.path(), "" | "/") => Err(invalid("the scheme is missing")),
        // Paths of the API are appended, and would become a part of these.
        Ok(url) if url.query().is_some() => Err(invalid("it has a query (`?…`)")),
        Ok(url) if url.fragment().is_some() => Err(invalid("it has a fragment (`#…`)")),
        Ok(_) => Ok(address),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

/// Whether the host of an address is `localhost` or a loopback address.
pub fn is_loopback(address: &str) -> bool {
    match url::Url::parse(address).as_ref().map(url::Url::host) {
        Ok(Some(url::Host::Domain(name))) => name == "localhost",
        Ok(Some(url::Host::Ipv4(ip))) => ip.is_loopback(),
        Ok(Some(url::Host::Ipv6(ip))) => ip.to_canonical().is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_http_on_this_machine_and_https_elsewhere() {
        let same = ["http://127.0.0.1:7070", "https://box", "http://[::1]:1", "http://box/agentry"];
        for text in same {
            assert_eq!(address(text).unwrap(), text);
        }
        assert_eq!(address("http://box:1//").unwrap(), "http://box:1");
        for (text, expected) in [
            ("localhost:8080", "http://localhost:8080"),
            ("[::1]:7070/", "http://[::1]:7070"),
            ("box:7070", "https://box:7070"),
            ("10.0.0.1:7070", "https://10.0.0.1:7070"),
        ] {
            assert_eq!(address(text).unwrap(), expected);
        }
        let problems = [
            ("localhost", "port"),
            ("", "port"),
            ("box:99999", "port"),
            ("box:0", "port"),
            ("::x", "port"),
            ("ftp://box:1", "the scheme ftp is not supported"),
            ("box/a:1", "the scheme is missing"),
            ("a b:1", "domain name"),
            ("http://", "host"),
            ("http://box:1/?a=b", "it has a query"),
            ("http://box:1?", "it has a query"),
            ("http://box:1/a#b", "it has a fragment"),
        ];
        for (text, problem) in problems {
            let error = address(text).unwrap_err();
            assert!(error.code == 2 && error.message.contains(problem), "{text}: {error:?}");
            assert!(error.message.contains("http://HOST:PORT"), "{error:?}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_rejected_and_not_shown() {
        for text in ["http://u:SECRET@box:1", "u:SECRET@box:1", "https://SECRET@box:99999/", "ftp://u:SE@CRET@box"] {
            let error = address(text).unwrap_err();
            assert!(error.code == 2 && error.message.contains("AGENTRY_TOKEN"), "{error:?}");
            assert!(!error.message.contains("SECRET") && !error.message.contains("CRET@"), "{error:?}");
        }
        assert_eq!(address("http://box/a@b").unwrap(), "http://box/a@b");
    }
}
