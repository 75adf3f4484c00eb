//! The name server answers from the policy, over UDP and TCP, at once, and asks nobody.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;

use crate::world::{World, connect};

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

#[test]
fn names() {
    let world = World::new(&json!([
        {"host": "api.example.com", "ports": [443]},
        {"host": "*.wild.example.com", "ports": [443]},
    ]));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(world.bound.dns).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut tcp = connect(world.bound.dns);
    // (name, type, code, answers)
    let cases = [
        ("api.example.com", 1, 0, 1),
        ("API.example.COM", 1, 0, 1),
        ("a.b.wild.example.com", 1, 0, 1),
        ("api.example.com", 28, 0, 0),
        ("api.example.com", 65, 0, 0),
        ("wild.example.com", 1, 3, 0),
        ("c2VjcmV0.evil.test", 1, 3, 0),
        ("c2VjcmV0.evil.test", 16, 3, 0),
    ];
    for (name, kind, code, answers) in cases {
        let message = question(name, kind);
        udp.send(&message).unwrap();
        let mut reply = [0; 512];
        let length = udp.recv(&mut reply).unwrap();

        tcp.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes())
            .unwrap();
        tcp.write_all(&message).unwrap();
        let mut prefix = [0; 2];
        tcp.read_exact(&mut prefix).unwrap();
        let mut same = vec![0; usize::from(u16::from_be_bytes(prefix))];
        tcp.read_exact(&mut same).unwrap();

        assert_eq!(reply[..length], same);
        assert_eq!(
            (same[0], same[1], same[3] & 15, same[7]),
            (0x12, 0x34, code, answers),
            "{name} {kind}"
        );
    }
    assert!(world.network.log().is_empty());
    let records = world.records(6);
    assert_eq!(records.len(), 6);
    assert!(
        records
            .iter()
            .all(|record| record["way"] == "dns" && record["reason"] == "dns_refused")
    );
    assert_eq!(records[2]["host"], "c2VjcmV0.evil.test");
}
