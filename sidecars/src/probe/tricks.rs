//! Bytes no well-behaved client sends: what a proxy makes of them.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use super::net::{connect, failed, nonce, read_head};
use super::{Deadline, Outcome};

/// A TLS record of an answer to our greeting, and one that breaks it off.
const HANDSHAKE: u8 = 0x16;
const ALERT: u8 = 0x15;

/// Sends `bytes` and looks at the first line that comes back. Open means a 2xx, a tunnel or an upgrade; whatever is no
/// HTTP is told in its first bytes.
pub(super) fn send(server: SocketAddr, bytes: &[u8], deadline: Deadline) -> Outcome {
    let mut stream = match connect(server, deadline) {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    let head = stream
        .write_all(bytes)
        .and_then(|()| read_head(&mut stream, deadline));
    let head = match head {
        Ok(head) => head,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Outcome::closed("closed without an answer");
        }
        Err(error) => return failed(&error, deadline),
    };
    answer(&head)
}

fn answer(head: &str) -> Outcome {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let reason = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("x-bottle-reason"))
        .map(|(_, value)| format!("; x-bottle-reason: {}", value.trim()))
        .unwrap_or_default();
    let code: Option<u16> = status
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    match code {
        Some(101 | 200..=299) => Outcome::open(format!("{status}{reason}")),
        Some(_) => Outcome::closed(format!("{status}{reason}")),
        // Something talks to us in a protocol that was not to be there.
        None => Outcome::open(format!("{:?}", head.chars().take(24).collect::<String>())),
    }
}

/// Greets as a TLS client that wants `name`, or says no name. Open means that the server went on with the handshake.
pub(super) fn hello(server: SocketAddr, name: Option<&str>, deadline: Deadline) -> Outcome {
    let mut stream = match connect(server, deadline) {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    let mut first = [0; 7];
    let read = stream.write_all(&client_hello(name)).and_then(|()| {
        stream.set_read_timeout(Some(deadline.left().ok_or(ErrorKind::TimedOut)?))?;
        stream.read(&mut first)
    });
    match read {
        Ok(0) => Outcome::closed("closed without an answer"),
        Ok(_) if first[0] == HANDSHAKE => Outcome::open("the handshake went on"),
        Ok(_) if first[0] == ALERT => Outcome::closed(format!("TLS alert {}", first[6])),
        Ok(length) => Outcome::closed(format!("{length} bytes that are not TLS")),
        Err(error) if reset(&error) => Outcome::closed("reset"),
        Err(error) => failed(&error, deadline),
    }
}

fn reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// The least a TLS 1.2 server needs to go on: two suites, the groups and signatures that go with them, the name.
fn client_hello(name: Option<&str>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [&[0][..], &sized(name.as_bytes())].concat();
        extend(&mut extensions, 0x0000, &sized(&entry));
    }
    // P-256 and X25519; uncompressed points; ECDSA and RSA with SHA-256.
    extend(&mut extensions, 0x000a, &sized(&[0, 0x17, 0, 0x1d]));
    extend(&mut extensions, 0x000b, &[1, 0]);
    extend(&mut extensions, 0x000d, &sized(&[4, 3, 8, 4, 4, 1]));

    let mut body = vec![3, 3];
    (0..4).for_each(|_| body.extend(nonce().to_be_bytes()));
    body.push(0);
    body.extend(sized(&[0xc0, 0x2b, 0xc0, 0x2f]));
    body.extend([1, 0]);
    body.extend(sized(&extensions));

    let mut message = vec![1, 0];
    message.extend(sized(&body));
    [&[HANDSHAKE, 3, 1][..], &sized(&message)].concat()
}

fn extend(extensions: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    extensions.extend(kind.to_be_bytes());
    extensions.extend(sized(bytes));
}

/// `bytes` after their length in two bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

/// `%0d%0a` and the like as the bytes they stand for.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let (byte, more) = match (first, more) {
            (b'%', [high, low, more @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, more)
            }
            (b'%', _) => return None,
            (byte, more) => (*byte, more),
        };
        bytes.push(byte);
        rest = more;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_open() {
        assert!(answer("HTTP/1.1 200 OK\r\n\r\n").reached);
        assert!(answer("HTTP/1.1 101 Switching Protocols\r\n\r\n").reached);
        assert!(answer("SSH-2.0-x\r\n").reached);
        let refused = answer("HTTP/1.1 403 Forbidden\r\nX-Bottle-Reason: ip_literal\r\n\r\n");
        assert!(!refused.reached);
        assert!(
            refused.detail.ends_with("x-bottle-reason: ip_literal"),
            "{refused:?}"
        );
        assert!(!answer("HTTP/1.1 302 Found\r\n\r\n").reached);
    }

    #[test]
    fn escapes_are_bytes() {
        assert_eq!(
            unescape("GET%20/%0d%0a%00x").expect("sound"),
            b"GET /\r\n\0x"
        );
        for bad in ["%", "%0", "%zz"] {
            assert!(unescape(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_greeting_says_its_own_length() {
        let greeting = client_hello(Some("a.example.com"));
        let inside = u16::from_be_bytes([greeting[3], greeting[4]]);
        assert_eq!(usize::from(inside) + 5, greeting.len());
        assert!(
            greeting
                .windows(13)
                .any(|window| window == b"a.example.com")
        );
        assert!(client_hello(None).len() < greeting.len());
    }
}
