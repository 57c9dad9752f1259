//! Whether a load may be put on a daemon without asking.

use super::super::{Failed, output};
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use url::{Host, Url};

/// Asks before something is done to a daemon or broker that is not on this machine.
pub fn confirm(address: &str, yes: bool, what: &str) -> Result<(), Failed> {
    if yes || is_loopback(address) {
        return Ok(());
    }
    let place = place(address);
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Failed::usage(format!("{place} is not on this machine; --yes is required to {what} it")));
    }
    let mut err = std::io::stderr().lock();
    let asked = write!(err, "{place} is not on this machine. Really {what} it? [y/N] ").and_then(|()| err.flush());
    let mut line = String::new();
    match asked.and_then(|()| std::io::stdin().read_line(&mut line)) {
        Ok(_) if agrees(&line) => Ok(()),
        Ok(_) => Err(Failed::usage("not confirmed; nothing was sent")),
        Err(error) => Err(Failed::usage(format!("failed to ask: {error}; use --yes"))),
    }
}

fn agrees(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Whether an address names this machine. A name other than localhost may lead anywhere.
pub fn is_loopback(address: &str) -> bool {
    match Url::parse(address).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Host and port, without user and password.
fn place(address: &str) -> String {
    let url = Url::parse(address).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or("the address");
    let port = url.as_ref().and_then(Url::port).map(|port| format!(":{port}")).unwrap_or_default();
    super::super::escape::line(&format!("{host}{port}"))
}

/// Says on standard error what the figures cannot show.
pub fn note(text: &str) {
    output::say(&format!("note: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loaded_without_asking() {
        for here in ["http://127.0.0.1:7070", "http://localhost", "http://[::1]:1", "amqp://u:p@127.8.9.1/%2f"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["http://10.0.0.1:7070", "http://localhost.example.com", "amqp://u:p@broker", "nonsense", ""] {
            assert!(!is_loopback(there), "{there}");
        }
    }

    #[test]
    fn without_a_terminal_a_remote_target_needs_yes_and_no_password_is_shown() {
        // Tests may run on a terminal; then the question would wait for a person.
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            let error = confirm("amqp://user:secret@10.0.0.1:5672/%2f", false, "put a load on").unwrap_err();
            assert_eq!(error.code, 2);
            assert!(error.message.contains("10.0.0.1:5672") && error.message.contains("--yes"), "{error:?}");
            assert!(!error.message.contains("secret"), "{error:?}");
        }
        assert!(confirm("http://10.0.0.1:7070", true, "put a load on").is_ok());
    }

    #[test]
    fn only_yes_agrees() {
        assert!(agrees("y\n") && agrees(" YES "));
        assert!(!agrees("\n") && !agrees("no\n") && !agrees("yep"));
    }
}
