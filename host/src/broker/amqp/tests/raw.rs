//! A publisher that AMQP allows and no Rust type does: it writes the bytes itself.

use super::Prefix;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Raw(TcpStream);

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn method(class: u16, method: u16, arguments: &[&[u8]]) -> Vec<u8> {
    [&class.to_be_bytes(), &method.to_be_bytes(), arguments.concat().as_slice()].concat()
}

impl Raw {
    async fn send(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let frame = [&[kind], &channel.to_be_bytes()[..], &long(payload), b"\xce"].concat();
        self.0.write_all(&frame).await.expect("written");
    }

    /// The next frame; that it is the expected method.
    async fn expect(&mut self, class: u16, method: u16) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; length as usize + 1];
        self.0.read_exact(&mut payload).await.expect("its payload");
        let got = (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
        assert_eq!(got, (class, method), "{}", String::from_utf8_lossy(&payload));
    }
}

/// Publish to the logical queue `q` with a content header of these property flags and bytes.
pub(super) async fn publish(place: &Prefix, flags: u16, properties: &[u8], body: &[u8]) {
    let (host, port) = (place.url.host_str().expect("a host"), place.url.port().unwrap_or(5672));
    let mut raw = Raw(TcpStream::connect((host, port)).await.expect("connected"));
    let login = [b"\0", place.url.username().as_bytes(), b"\0", place.url.password().unwrap_or("guest").as_bytes()];
    raw.0.write_all(b"AMQP\0\0\x09\x01").await.expect("written");
    raw.expect(10, 10).await;
    raw.send(1, 0, &method(10, 11, &[&long(b""), &short(b"PLAIN"), &long(&login.concat()), &short(b"en_US")])).await;
    raw.expect(10, 30).await;
    raw.send(1, 0, &method(10, 31, &[&[0, 1], &131_072u32.to_be_bytes(), &[0, 0]])).await;
    raw.send(1, 0, &method(10, 40, &[&short(b"/"), &short(b""), &[0]])).await;
    raw.expect(10, 41).await;
    raw.send(1, 1, &method(20, 10, &[&short(b"")])).await;
    raw.expect(20, 11).await;
    raw.send(1, 1, &method(85, 10, &[&[0]])).await;
    raw.expect(85, 11).await;
    raw.send(1, 1, &method(60, 40, &[&[0, 0], &short(place.name.as_bytes()), &short(b"q"), &[0]])).await;
    let size = (body.len() as u64).to_be_bytes();
    raw.send(2, 1, &[&[0, 60, 0, 0], &size[..], &flags.to_be_bytes(), properties].concat()).await;
    raw.send(3, 1, body).await;
    raw.expect(60, 80).await;
}

/// `correlation_id`, and nothing else.
pub(super) fn correlation_id(bytes: &[u8]) -> (u16, Vec<u8>) {
    (1 << 10, short(bytes))
}

/// Headers that nest as deep as they can in one frame: a table in a table in a table.
pub(super) fn deep_headers(depth: usize) -> (u16, Vec<u8>) {
    let mut table = Vec::with_capacity(6 * depth + 4);
    for inside in (1..=depth).rev() {
        // How long what is within is; a name of nothing; a table.
        table.extend((6 * inside as u32).to_be_bytes());
        table.extend(b"\0F");
    }
    table.extend([0; 4]);
    (1 << 13, table)
}

/// One header, a long string.
pub(super) fn header(name: &[u8], value: &[u8]) -> (u16, Vec<u8>) {
    (1 << 13, long(&[&short(name), &b"S"[..], &long(value)].concat()))
}
