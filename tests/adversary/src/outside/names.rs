//! A name server that lies: what a name leads to may be another thing when it is asked again.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Leads to this machine.
pub const INSIDE: &str = "inside.test";
/// Leads to [`NOWHERE`], and to this machine whenever it is asked again.
pub const REBOUND: &str = "rebound.test";
/// A global address (RFC 4291) in a range that was given back (RFC 3701): it passes every judge, and no packet arrives.
pub const NOWHERE: Ipv6Addr = Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 1);

const A: u16 = 1;
const AAAA: u16 = 28;

/// Serves until it is dropped.
pub struct Names {
    /// Where it listens.
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Names {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Names {
    /// On a port of its own.
    pub async fn start() -> Names {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("its address");
        let serving = tokio::spawn(async move {
            let (mut asked, mut buffer) = (HashMap::new(), [0; 1_500]);
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = answer(&buffer[..length], &mut asked) {
                    let _ = socket.send_to(&answer, from).await; // whoever asked may be gone
                }
            }
        });
        Names { address, serving }
    }
}

/// The answer to a question (RFC 1035, section 4).
fn answer(question: &[u8], asked: &mut HashMap<(String, u16), u32>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let name = labels.join(".");
    let times = asked.entry((name.clone(), kind)).or_default();
    *times += 1;
    let found: Option<IpAddr> = match (name.as_str(), kind, *times) {
        (INSIDE, A, _) | (REBOUND, A, 2..) => Some(Ipv4Addr::LOCALHOST.into()),
        (REBOUND, AAAA, 1) => Some(NOWHERE.into()),
        _ => None,
    };
    let mut answer = [&question[..2], &[0x81, 0x80, 0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]].concat();
    answer.extend_from_slice(&question[12..at + 4]);
    let record = |data: &[u8]| {
        let head = [0xc0, 12, (kind >> 8) as u8, kind as u8, 0, 1, 0, 0, 0, 0, 0, data.len() as u8];
        [&head, data].concat()
    };
    match found {
        Some(IpAddr::V4(address)) => answer.extend(record(&address.octets())),
        Some(IpAddr::V6(address)) => answer.extend(record(&address.octets())),
        None => {}
    }
    Some(answer)
}
