//! Whether a service answers: not that a port is open (Docker opens it before the service does), but that the service says
//! its first words, which hold its version.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

fn connect(port: u16) -> Option<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// The version of a PostgreSQL that lets the user `postgres` in: its `server_version` parameter.
pub fn postgres(port: u16) -> Option<String> {
    let mut stream = connect(port)?;
    stream.write_all(&startup_message()).ok()?;
    let mut answer = Vec::new();
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        answer.resize(usize::try_from(length.checked_sub(4)?).ok().filter(|length| *length < 65_536)?, 0);
        stream.read_exact(&mut answer).ok()?;
        match head[0] {
            b'S' => {
                let mut words = answer.split(|byte| *byte == 0);
                if words.next()? == b"server_version" {
                    let version = String::from_utf8_lossy(words.next()?);
                    // "15.14 (Debian 15.14-0+deb12u1)"
                    return version.split_whitespace().next().map(str::to_owned);
                }
            }
            b'E' | b'Z' => return None, // "the database system is starting up"
            _ => {}
        }
    }
}

/// StartupMessage: length, protocol 3.0, parameters.
fn startup_message() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap_or_default();
    [&length.to_be_bytes()[..], body].concat()
}

/// The version of an AMQP 0-9-1 broker: `version` among the server properties of its `connection.start`.
pub fn amqp(port: u16) -> Option<String> {
    let mut stream = connect(port)?;
    stream.write_all(b"AMQP\0\0\x09\x01").ok()?;
    let mut head = [0; 7]; // type, channel, length
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut frame = vec![0; usize::try_from(length).ok().filter(|length| *length < 65_536)?];
    stream.read_exact(&mut frame).ok()?;
    let is_connection_start = head[0] == 1 && frame.starts_with(&[0, 10, 0, 10]);
    is_connection_start.then(|| version_property(&frame).unwrap_or_else(|| "of unknown version".to_owned()))
}

/// A table entry: short string `version`, type `S`, long string.
fn version_property(frame: &[u8]) -> Option<String> {
    let key = b"\x07versionS";
    let at = frame.windows(key.len()).position(|window| window == key)? + key.len();
    let length = u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?);
    let text = frame.get(at + 4..)?.get(..usize::try_from(length).ok()?)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that hears `expects` bytes and says `answer`.
    fn server(expects: usize, answer: Vec<u8>) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut vec![0; expects]).unwrap();
            stream.write_all(&answer).unwrap();
        });
        port
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
    }

    #[test]
    fn a_postgres_that_lets_us_in_tells_its_version() {
        let answer = [
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"application_name\0\0"),
            message(b'S', b"server_version\x0015.14 (Debian 15.14-0+deb12u1)\0"),
        ];
        let port = server(startup_message().len(), answer.concat());
        assert_eq!(postgres(port).as_deref(), Some("15.14"));
    }

    #[test]
    fn a_postgres_that_is_still_starting_does_not_count() {
        let port = server(startup_message().len(), message(b'E', b"SFATAL\0C57P03\0\0"));
        assert_eq!(postgres(port), None);
    }

    #[test]
    fn a_broker_that_greets_tells_its_version() {
        let mut frame =
            b"\0\x0a\0\x0a\0\x09\0\0\0\x30\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8".to_vec();
        frame.push(0xce);
        let head = [&[1, 0, 0][..], &u32::try_from(frame.len() - 1).unwrap().to_be_bytes()].concat();
        let port = server(8, [head, frame].concat());
        assert_eq!(amqp(port).as_deref(), Some("3.10.8"));
    }

    #[test]
    fn a_port_that_is_closed_at_once_does_not_count() {
        assert_eq!(amqp(server(8, Vec::new())), None);
    }
}
