//! Whether a load may be put on a daemon without confirmation.

use super::super::{Failed, escape, output};
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use url::{Host, Url};

/// Where an address leads, seen from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A loopback address or localhost.
    Loopback,
    /// Another address of this machine, or a name of such addresses alone.
    Own,
    /// Anything else.
    Elsewhere,
}

/// Asks before something is done to a daemon or broker whose address is not loopback.
pub fn confirm(address: &str, yes: bool, what: &str) -> Result<(), Failed> {
    if yes {
        return Ok(());
    }
    let host = shown(address);
    let problem = match place(address) {
        Place::Loopback => return Ok(()),
        Place::Own => format!("{host} is an address of this machine, but not loopback"),
        Place::Elsewhere => format!("{host} is not on this machine"),
    };
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Failed::usage(format!("{problem}; --yes is required to {what} it")));
    }
    let mut err = std::io::stderr().lock();
    let asked = write!(err, "{problem}. Really {what} it? [y/N] ").and_then(|()| err.flush());
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

/// Where an address leads. A name is looked up; what it leads to may change, so only localhost is loopback by its name.
pub fn place(address: &str) -> Place {
    let url = Url::parse(address).ok();
    let name = match url.as_ref().and_then(Url::host) {
        Some(Host::Ipv4(ip)) => return of_ip(ip.into()),
        Some(Host::Ipv6(ip)) => return of_ip(ip.into()),
        Some(Host::Domain(name)) => name,
        None => return Place::Elsewhere,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return Place::Loopback;
    }
    // The URL standard does not read numbers in addresses of other schemes than HTTP's.
    if let Ok(ip) = name.trim_start_matches('[').trim_end_matches(']').parse() {
        return of_ip(ip);
    }
    let Ok(found) = (name, 0).to_socket_addrs() else { return Place::Elsewhere };
    let mut found = found.map(|address| of_ip(address.ip())).peekable();
    match found.peek().is_some() && found.all(|place| place != Place::Elsewhere) {
        true => Place::Own,
        false => Place::Elsewhere,
    }
}

/// A socket can be bound to the addresses of this machine's interfaces and to no other.
fn of_ip(ip: IpAddr) -> Place {
    let ip = ip.to_canonical();
    match ip.is_loopback() {
        true => Place::Loopback,
        false if UdpSocket::bind((ip, 0)).is_ok() => Place::Own,
        false => Place::Elsewhere,
    }
}

/// Host and port, without user and password.
fn shown(address: &str) -> String {
    let url = Url::parse(address).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or("the address");
    let port = url.as_ref().and_then(Url::port).map(|port| format!(":{port}")).unwrap_or_default();
    escape::line(&format!("{host}{port}"))
}

/// Prints on standard error what the figures cannot show.
pub fn note(text: &str) {
    output::say(&format!("note: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address of an interface other than loopback, where this machine has one.
    fn own() -> Option<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        // Sends nothing: it only chooses the interface.
        socket.connect("192.0.2.1:9").ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    }

    #[test]
    fn only_loopback_is_loaded_without_confirmation() {
        for here in ["http://127.0.0.1:7070", "http://localhost", "http://[::1]:1", "amqp://u:p@127.8.9.1/%2f"] {
            assert_eq!(place(here), Place::Loopback, "{here}");
        }
        for there in ["http://192.0.2.1:7070", "http://localhost.invalid", "amqp://u:p@broker.invalid", "nonsense", ""]
        {
            assert_eq!(place(there), Place::Elsewhere, "{there}");
        }
    }

    #[test]
    fn an_address_of_an_interface_is_on_this_machine_and_needs_yes() {
        let Some(ip) = own() else { return };
        let address = format!("http://{ip}:7070");
        assert_eq!(place(&address), Place::Own);
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            let error = confirm(&address, false, "put a load on").unwrap_err().message;
            assert!(
                error.contains("is an address of this machine, but not loopback") && error.contains("--yes"),
                "{error}"
            );
        }
    }

    #[test]
    fn without_a_terminal_a_remote_target_needs_yes_and_no_password_is_shown() {
        // Tests may run on a terminal; then the question would wait for a person.
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            let error = confirm("amqp://user:secret@192.0.2.1:5672/%2f", false, "put a load on").unwrap_err();
            assert_eq!(error.code, 2);
            assert!(error.message.contains("192.0.2.1:5672") && error.message.contains("--yes"), "{error:?}");
            assert!(!error.message.contains("secret"), "{error:?}");
        }
        assert!(confirm("http://192.0.2.1:7070", true, "put a load on").is_ok());
    }

    #[test]
    fn only_yes_agrees() {
        assert!(agrees("y\n") && agrees(" YES "));
        assert!(!agrees("\n") && !agrees("no\n") && !agrees("yep"));
    }
}
