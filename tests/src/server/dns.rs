//! A resolver that knows a few names and writes down every question.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use serde_json::json;

use super::log;

const A: u16 = 1;
const NXDOMAIN: u8 = 3;

/// What the resolver knows.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) names: Vec<String>,
    pub(super) address: Ipv4Addr,
}

pub(super) fn over_udp(socket: &UdpSocket, zone: &Zone) {
    let mut bytes = [0; 2048];
    while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
        if let Some(answer) = answer(&bytes[..length], zone, "udp", &peer.to_string()) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

pub(super) fn over_tcp(mut stream: TcpStream, zone: &Zone) -> io::Result<()> {
    let peer = stream.peer_addr()?.to_string();
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(answer) = answer(&query, zone, "tcp", &peer) else {
            break;
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
    }
    Ok(())
}

/// The answer to `query`: one address for an A question about a known name, nothing for its other types, and otherwise
/// that there is no such name. No answer when the bytes are not a question.
fn answer(query: &[u8], zone: &Zone, proto: &str, peer: &str) -> Option<Vec<u8>> {
    let (name, end) = name(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    log(&json!({"event": "question", "proto": proto, "name": name, "type": kind, "peer": peer}));
    let known = zone
        .names
        .iter()
        .any(|known| *known == name.to_ascii_lowercase());
    let mut answer = query.get(..end + 4)?.to_vec();
    answer[2] = 0x84 | (query[2] & 0x01); // an answer, from the authority, and whether recursion was wanted
    answer[3] = if known { 0 } else { NXDOMAIN };
    answer[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    if known && kind == A {
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend_from_slice(&zone.address.octets());
    }
    Some(answer)
}

/// The name of the question and where its type begins.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        // No pointers: in a question there is nothing to point at.
        let label = (length < 64)
            .then(|| query.get(at..at + length))
            .flatten()?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(kind: u8) -> Vec<u8> {
        let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(b"\x03api\x07Example\x03com\0");
        bytes.extend_from_slice(&[0, kind, 0, 1]);
        bytes
    }

    #[test]
    fn known_names_have_an_address_and_others_are_not_there() {
        let mut zone = Zone {
            names: vec!["api.example.com".into()],
            address: Ipv4Addr::new(10, 214, 0, 2),
        };
        let found = answer(&query(1), &zone, "udp", "").expect("an answer");
        assert_eq!((found[3], found[7]), (0, 1));
        assert!(found.ends_with(&[10, 214, 0, 2]));
        assert_eq!(
            answer(&query(16), &zone, "udp", "").expect("an answer")[7],
            0
        );
        zone.names.clear();
        assert_eq!(
            answer(&query(1), &zone, "udp", "").expect("an answer")[3],
            NXDOMAIN
        );
    }

    #[test]
    fn half_a_question_is_none() {
        let zone = Zone {
            names: vec![],
            address: Ipv4Addr::LOCALHOST,
        };
        let whole = query(1);
        for length in 0..whole.len() - 2 {
            assert!(
                answer(&whole[..length], &zone, "udp", "").is_none(),
                "{length}"
            );
        }
    }
}
