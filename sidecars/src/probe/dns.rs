//! One DNS question, written and read by hand: the system's resolver would hide which server answered, and how.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::net::{any_like, connect, failed, nonce};
use super::{Deadline, Outcome};

/// A compressed name points backwards; more jumps than this are a loop.
const MOST_LABELS: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordType {
    A,
    Aaaa,
    Txt,
    Ptr,
}

impl RecordType {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "A" => Some(Self::A),
            "AAAA" => Some(Self::Aaaa),
            "TXT" => Some(Self::Txt),
            "PTR" => Some(Self::Ptr),
            _ => None,
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ptr => 12,
            Self::Txt => 16,
            Self::Aaaa => 28,
        }
    }

    /// The name to ask for, checked; for PTR an IPv4 address is turned round.
    pub(super) fn question(self, name: &str) -> Option<String> {
        if let (Self::Ptr, Ok(ip)) = (self, name.parse::<Ipv4Addr>()) {
            let [a, b, c, d] = ip.octets();
            return Some(format!("{d}.{c}.{b}.{a}.in-addr.arpa"));
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let sound =
            name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()));
        sound.then(|| name.to_owned())
    }
}

/// Asks `server`. Open means an answer with a record of the kind that was asked for: data came in, so data went out.
pub(super) fn ask(
    server: SocketAddr,
    name: &str,
    kind: RecordType,
    over_tcp: bool,
    deadline: Deadline,
) -> Outcome {
    let id = nonce().to_be_bytes();
    let query = query([id[0], id[1]], name, kind);
    let answer = if over_tcp {
        match connect(server, deadline) {
            Ok(mut stream) => {
                let mut framed = u16::try_from(query.len())
                    .unwrap_or(u16::MAX)
                    .to_be_bytes()
                    .to_vec();
                framed.extend_from_slice(&query);
                stream.write_all(&framed).and_then(|()| {
                    stream.set_read_timeout(Some(deadline.left().ok_or(ErrorKind::TimedOut)?))?;
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut answer)?;
                    Ok(answer)
                })
            }
            Err(outcome) => return outcome,
        }
    } else {
        exchange(server, &query, deadline)
    };
    match answer {
        Err(error) => failed(&error, deadline),
        Ok(bytes) => match read(&bytes, [id[0], id[1]], kind) {
            Some(answer) => answer.outcome(deadline),
            None => Outcome::closed(format!("{} bytes that are no answer", bytes.len())),
        },
    }
}

fn exchange(server: SocketAddr, query: &[u8], deadline: Deadline) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(SocketAddr::new(any_like(server.ip()), 0))?;
    socket.connect(server)?;
    socket.send(query)?;
    let mut bytes = vec![0; 4096];
    loop {
        socket.set_read_timeout(Some(deadline.left().ok_or(ErrorKind::TimedOut)?))?;
        let length = socket.recv(&mut bytes)?;
        if bytes.starts_with(&query[..2]) {
            bytes.truncate(length);
            return Ok(bytes);
        }
    }
}

fn query(id: [u8; 2], name: &str, kind: RecordType) -> Vec<u8> {
    // Recursion wanted, one question.
    let mut bytes = vec![id[0], id[1], 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.number().to_be_bytes());
    bytes.extend_from_slice(&[0, 1]); // the Internet
    bytes
}

struct Answer {
    rcode: u8,
    /// Records of the kind that was asked for, as text.
    records: Vec<String>,
}

impl Answer {
    fn outcome(self, deadline: Deadline) -> Outcome {
        let rcode = match self.rcode {
            0 => "NOERROR".to_owned(),
            1 => "FORMERR".to_owned(),
            2 => "SERVFAIL".to_owned(),
            3 => "NXDOMAIN".to_owned(),
            4 => "NOTIMP".to_owned(),
            5 => "REFUSED".to_owned(),
            other => format!("RCODE{other}"),
        };
        let found: String = self
            .records
            .iter()
            .flat_map(|record| [" ", record])
            .collect();
        Outcome {
            reached: self.rcode == 0 && !self.records.is_empty(),
            detail: format!("{rcode}{found} in {} ms", deadline.elapsed_ms()),
        }
    }
}

/// Reads an answer. Nothing when the bytes are not one to this question.
fn read(bytes: &[u8], id: [u8; 2], kind: RecordType) -> Option<Answer> {
    let flags = *bytes.get(2)?;
    if !bytes.starts_with(&id) || flags & 0x80 == 0 {
        return None;
    }
    let rcode = bytes.get(3)? & 0x0f;
    let questions = number(bytes, 4)?;
    let answers = number(bytes, 6)?;
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(bytes, at)? + 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        at = skip_name(bytes, at)?;
        let found = number(bytes, at)?;
        let length = usize::from(number(bytes, at + 8)?);
        at += 10;
        let data = bytes.get(at..at + length)?;
        if found == kind.number() {
            records.push(text_of(kind, data)?);
        }
        at += length;
    }
    Some(Answer { rcode, records })
}

fn text_of(kind: RecordType, data: &[u8]) -> Option<String> {
    Some(match kind {
        RecordType::A => IpAddr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        RecordType::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        // What is in it is the server's; that it came is what counts.
        RecordType::Txt | RecordType::Ptr => format!("{} bytes", data.len()),
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..MOST_LABELS {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            // A pointer ends the name here; where it leads does not matter to us.
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    const LOCAL: &str = "127.0.0.1:0";

    /// Answers a query with `rcode` and, for A, one address by a compressed name.
    fn answered(query: &[u8], rcode: u8, with_address: bool) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2] = 0x81;
        bytes[3] = 0x80 | rcode;
        if with_address {
            bytes[7] = 1;
            bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7]);
        }
        bytes
    }

    fn over_udp(rcode: u8, with_address: bool) -> Outcome {
        let server = UdpSocket::bind(LOCAL).expect("binds");
        let address = server.local_addr().expect("bound");
        let thread = thread::spawn(move || {
            let mut bytes = [0; 512];
            let (length, from) = server.recv_from(&mut bytes).expect("a question");
            // Somebody else's answer first: it must be passed over.
            server.send_to(b"\0\0stray", from).expect("sends");
            server
                .send_to(&answered(&bytes[..length], rcode, with_address), from)
                .expect("sends");
        });
        let outcome = ask(
            address,
            "x.example.com",
            RecordType::A,
            false,
            Deadline::new(Duration::from_secs(2)),
        );
        thread.join().expect("no panic");
        outcome
    }

    #[test]
    fn only_an_answer_with_an_address_is_open() {
        let outcome = over_udp(0, true);
        assert!(
            outcome.reached && outcome.detail.starts_with("NOERROR 203.0.113.7 in "),
            "{outcome:?}"
        );
        let outcome = over_udp(3, false);
        assert!(
            !outcome.reached && outcome.detail.starts_with("NXDOMAIN in "),
            "{outcome:?}"
        );
        assert!(!over_udp(0, false).reached);
        assert!(!over_udp(5, true).reached);
    }

    #[test]
    fn the_same_over_tcp() {
        let listener = TcpListener::bind(LOCAL).expect("binds");
        let address = listener.local_addr().expect("bound");
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("length");
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).expect("question");
            let answer = answered(&query, 0, true);
            stream
                .write_all(&u16::try_from(answer.len()).expect("short").to_be_bytes())
                .expect("writes");
            stream.write_all(&answer).expect("writes");
        });
        let outcome = ask(
            address,
            "x.example.com",
            RecordType::A,
            true,
            Deadline::new(Duration::from_secs(2)),
        );
        thread.join().expect("no panic");
        assert!(outcome.reached, "{outcome:?}");
    }

    #[test]
    fn a_question_for_something_else_is_not_answered_by_an_address() {
        let query = query([1, 2], "x.example.com", RecordType::Txt);
        let answer = read(&answered(&query, 0, true), [1, 2], RecordType::Txt).expect("an answer");
        assert!(answer.records.is_empty());
    }

    #[test]
    fn broken_answers_are_no_answers() {
        let query = query([1, 2], "x.example.com", RecordType::A);
        let good = answered(&query, 0, true);
        for length in 0..good.len() {
            assert!(
                read(&good[..length], [1, 2], RecordType::A).is_none(),
                "{length}"
            );
        }
        assert!(read(&good, [9, 9], RecordType::A).is_none());
        assert!(read(&query, [1, 2], RecordType::A).is_none());
    }

    #[test]
    fn names_and_addresses_are_turned_into_questions() {
        assert_eq!(
            RecordType::Ptr.question("10.1.2.3").as_deref(),
            Some("3.2.1.10.in-addr.arpa")
        );
        assert_eq!(
            RecordType::A.question("x.example.com.").as_deref(),
            Some("x.example.com")
        );
        for bad in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(RecordType::A.question(bad).is_none(), "{bad}");
        }
    }
}
