//! As much of DNS as a server needs that answers from a list: one question in, a reply out.

use std::net::IpAddr;

const HEADER: usize = 12;
const MAX_NAME: usize = 255;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const NAME_ERROR: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

/// Seconds. The address never changes, but a name may be taken off the list.
const TTL: u32 = 30;

/// What to do about a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not a question: answering it could start two servers talking to each other for ever.
    Silence,
    /// Send this.
    Answered(Vec<u8>),
    /// Send this and record that the name was asked for.
    Refused { reply: Vec<u8>, name: Vec<u8> },
}

/// Answers a message. Allowed names have `address` and no records of other types.
pub(crate) fn answer(message: &[u8], address: IpAddr, knows: impl Fn(&[u8]) -> bool) -> Outcome {
    let Some(header) = message.first_chunk::<HEADER>() else {
        return Outcome::Silence;
    };
    if header[2] & 0x80 != 0 {
        return Outcome::Silence;
    }
    if header[2] & 0x78 != 0 {
        return Outcome::Refused {
            reply: reply(header, &[], NOT_IMPLEMENTED, None),
            name: Vec::new(),
        };
    }
    let Some(question) = Question::parse(header, &message[HEADER..]) else {
        return Outcome::Refused {
            reply: reply(header, &[], FORMAT_ERROR, None),
            name: Vec::new(),
        };
    };
    if question.class != CLASS_IN || !knows(&question.name) {
        return Outcome::Refused {
            reply: reply(header, question.bytes, NAME_ERROR, None),
            name: question.name,
        };
    }
    let wanted = match address {
        IpAddr::V4(_) => TYPE_A,
        IpAddr::V6(_) => TYPE_AAAA,
    };
    let address = (question.kind == wanted).then_some(address);
    Outcome::Answered(reply(header, question.bytes, NO_ERROR, address))
}

struct Question<'a> {
    /// The labels joined by dots.
    name: Vec<u8>,
    kind: u16,
    class: u16,
    /// As it stood in the message.
    bytes: &'a [u8],
}

impl<'a> Question<'a> {
    fn parse(header: &[u8; HEADER], rest: &'a [u8]) -> Option<Self> {
        if header[4..6] != [0, 1] {
            return None;
        }
        let mut name = Vec::new();
        let mut at = 0;
        loop {
            let length = usize::from(*rest.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // The two highest bits would make it a pointer; there is nothing yet that it could point to.
            if length > 63 || at + length > MAX_NAME {
                return None;
            }
            let label = rest.get(at..at + length)?;
            if !name.is_empty() {
                name.push(b'.');
            }
            // A dot inside a label must not look like two labels.
            name.extend(label.iter().map(|&b| if b == b'.' { 0 } else { b }));
            at += length;
        }
        let [k1, k2, c1, c2] = *rest.get(at..)?.first_chunk::<4>()?;
        let (kind, class) = (u16::from_be_bytes([k1, k2]), u16::from_be_bytes([c1, c2]));
        Some(Self {
            name,
            kind,
            class,
            bytes: &rest[..at + 4],
        })
    }
}

fn reply(header: &[u8; HEADER], question: &[u8], code: u8, address: Option<IpAddr>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + question.len() + 28);
    out.extend_from_slice(&header[..2]);
    // A response, authoritative, with the client's wish for recursion; "recursion available" keeps resolvers
    // from looking for a better server.
    out.push(0x84 | (header[2] & 1));
    out.push(0x80 | code);
    out.extend_from_slice(&[0, u8::from(!question.is_empty())]);
    out.extend_from_slice(&[0, u8::from(address.is_some()), 0, 0, 0, 0]);
    out.extend_from_slice(question);
    let (kind, data) = match address {
        None => return out,
        Some(IpAddr::V4(address)) => (TYPE_A, address.octets().to_vec()),
        Some(IpAddr::V6(address)) => (TYPE_AAAA, address.octets().to_vec()),
    };
    // The name is the question's: a pointer to the end of the header.
    out.extend_from_slice(&[0xc0, 12]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&TTL.to_be_bytes());
    out.extend_from_slice(&[0, if kind == TYPE_A { 4 } else { 16 }]);
    out.extend_from_slice(&data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(labels: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend_from_slice(label);
        }
        out.push(0);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out
    }

    fn ask(message: &[u8]) -> Outcome {
        answer(message, "10.9.0.2".parse().unwrap(), |name| {
            name == b"api.example.com"
        })
    }

    #[test]
    fn an_allowed_name_is_here() {
        let Outcome::Answered(reply) = ask(&query(&[b"api", b"example", b"com"], TYPE_A)) else {
            panic!()
        };
        assert_eq!(reply[..4], [0xab, 0xcd, 0x85, 0x80]);
        assert_eq!(reply[6..8], [0, 1]);
        assert_eq!(reply[reply.len() - 6..], [0, 4, 10, 9, 0, 2]);
    }

    #[test]
    fn an_allowed_name_has_nothing_else() {
        for kind in [TYPE_AAAA, 16, 15, 65, 255, 12] {
            let Outcome::Answered(reply) = ask(&query(&[b"api", b"example", b"com"], kind)) else {
                panic!()
            };
            assert_eq!(
                (reply[3] & 15, &reply[6..8]),
                (NO_ERROR, &[0, 0][..]),
                "{kind}"
            );
        }
    }

    #[test]
    fn other_names_do_not_exist() {
        let names: &[&[&[u8]]] = &[
            &[b"c2VjcmV0", b"evil", b"com"],
            &[b"api.example", b"com"],
            &[b"example", b"com"],
            &[],
        ];
        for labels in names {
            for kind in [TYPE_A, TYPE_AAAA, 16, 65] {
                let Outcome::Refused { reply, .. } = ask(&query(labels, kind)) else {
                    panic!()
                };
                assert_eq!((reply[3] & 15, &reply[6..8]), (NAME_ERROR, &[0, 0][..]));
            }
        }
    }

    #[test]
    fn answers_are_not_answered() {
        let mut message = query(&[b"api", b"example", b"com"], TYPE_A);
        message[2] |= 0x80;
        assert_eq!(ask(&message), Outcome::Silence);
        assert_eq!(ask(&[0; 11]), Outcome::Silence);
    }

    proptest! {
        #[test]
        fn takes_anything(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            ask(&message);
        }
    }
}
