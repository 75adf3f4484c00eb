use std::cell::Cell;
use std::net::IpAddr;

use crate::authority::parse_host;
use crate::dns_message::{Outcome, answer};

const HEADER: usize = 12;
/// A header, the longest name with its type and class, and one record with a pointer for its name.
const MAX_REPLY: usize = HEADER + 255 + 4 + 28;
const KNOWN: &str = "api.example.com";

/// A message to the bottle's name server.
pub fn dns(data: &[u8]) {
    for address in [
        IpAddr::from([10, 9, 0, 2]),
        IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, 2]),
    ] {
        let was_known = Cell::new(false);
        let knows = |name: &[u8]| {
            let knows = parse_host(name).is_ok_and(|host| host.as_str() == KNOWN);
            was_known.set(knows);
            knows
        };
        match answer(data, address, knows) {
            Outcome::Silence => {}
            Outcome::Answered(reply) => {
                assert!(was_known.get(), "an unknown name was answered");
                is_reply(data, &reply);
                assert_eq!(reply[3] & 15, 0);
                assert_eq!(asked(&reply).to_ascii_lowercase(), KNOWN.as_bytes());
                if reply[7] == 1 {
                    let octets = match address {
                        IpAddr::V4(address) => address.octets().to_vec(),
                        IpAddr::V6(address) => address.octets().to_vec(),
                    };
                    assert!(reply.ends_with(&octets));
                }
            }
            Outcome::Refused { reply, name } => {
                is_reply(data, &reply);
                assert_ne!(reply[3] & 15, 0, "a refusal says that there is none");
                assert_eq!(reply[7], 0, "a refusal has no record in it");
                assert!(name.len() <= 255);
            }
        }
    }
}

fn is_reply(question: &[u8], reply: &[u8]) {
    assert!(reply.len() <= MAX_REPLY);
    assert!(
        reply.len() <= question.len() + 28,
        "nobody else is flooded with its help"
    );
    assert_eq!(reply[..2], question[..2]);
    assert!(reply[4] == 0 && reply[5] <= 1 && reply[6] == 0 && reply[7] <= 1);
    assert_eq!(reply[8..HEADER], [0; 4]);
    // Two name servers must not talk to each other for ever.
    let again = answer(reply, IpAddr::from([10, 9, 0, 2]), |_| true);
    assert_eq!(again, Outcome::Silence);
}

/// The name in the question, read by other means.
fn asked(message: &[u8]) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut rest = &message[HEADER..];
    while let [length @ 1..=63, tail @ ..] = rest {
        let (label, tail) = tail.split_at(usize::from(*length));
        labels.push(label);
        rest = tail;
    }
    labels.join(&b'.')
}
