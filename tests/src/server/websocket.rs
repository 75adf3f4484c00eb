//! A WebSocket that sends back what it gets, or what a model says to it. Messages come in one frame; nothing else is
//! asked of it.

use std::io::{self, BufReader, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;

use super::http::Request;
use super::log;
use crate::model::Conversation;

/// RFC 6455, 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

/// The most of a frame: agents send whole conversations.
const MOST: usize = 16 << 20;

pub(super) fn converse<S: Read + Write>(
    stream: &mut BufReader<S>,
    request: &Request,
) -> io::Result<()> {
    shake_hands(stream, request)?;
    messages(stream, |kind, payload| vec![(kind, payload)])
}

/// Says what a model would; see [`crate::model`]. What it is told is one event a message in the log.
pub(super) fn converse_as_model<S: Read + Write>(
    stream: &mut BufReader<S>,
    request: &Request,
) -> io::Result<()> {
    shake_hands(stream, request)?;
    let mut conversation = Conversation::default();
    messages(stream, |_, payload| {
        log(&json!({"event": "message", "body": String::from_utf8_lossy(&payload)}));
        let events = conversation.answer(&payload).into_iter();
        events
            .map(|event| (TEXT, event.to_string().into_bytes()))
            .collect()
    })
}

fn shake_hands<S: Read + Write>(stream: &mut BufReader<S>, request: &Request) -> io::Result<()> {
    let key = request
        .header("sec-websocket-key")
        .ok_or_else(|| io::Error::other("no sec-websocket-key"))?;
    let accept = accept_for(key);
    // Of the subprotocols offered the first is as good as any.
    let offered = request.header("sec-websocket-protocol");
    let protocol = offered.and_then(|all| all.split(',').next());
    let protocol = protocol.map_or(String::new(), |name| {
        format!("sec-websocket-protocol: {}\r\n", name.trim())
    });
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n{protocol}\r\n"
    );
    stream.get_mut().write_all(head.as_bytes())?;
    stream.get_mut().flush()
}

/// Every message is answered by some, until the other side closes.
fn messages<S: Read + Write>(
    stream: &mut BufReader<S>,
    mut answer: impl FnMut(u8, Vec<u8>) -> Vec<(u8, Vec<u8>)>,
) -> io::Result<()> {
    loop {
        let (kind, payload) = read_frame(stream)?;
        match kind {
            PING => write_frame(stream.get_mut(), PONG, &payload)?,
            CLOSE => return write_frame(stream.get_mut(), CLOSE, &payload),
            kind => {
                for (kind, payload) in answer(kind, payload) {
                    write_frame(stream.get_mut(), kind, &payload)?;
                }
            }
        }
    }
}

fn accept_for(key: &str) -> String {
    STANDARD.encode(digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    ))
}

fn read_frame(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            usize::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            usize::try_from(u64::from_be_bytes(length)).map_err(io::Error::other)?
        }
        short => usize::from(short),
    };
    if length > MOST {
        return Err(io::Error::other(format!(
            "a frame of more than {MOST} bytes"
        )));
    }
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok((head[0] & 0x0f, payload))
}

fn write_frame(out: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![FINAL | kind];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    out.write_all(&frame)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        assert_eq!(
            accept_for("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_masked_frame_is_read_and_sent_back_plain() {
        let mask = [1, 2, 3, 4];
        let masked: Vec<u8> = b"hello"
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect();
        let frame = [&[0x81, 0x85][..], &mask, &masked].concat();
        let (kind, payload) = read_frame(&mut frame.as_slice()).expect("a frame");
        let mut out = Vec::new();
        write_frame(&mut out, kind, &payload).expect("writes");
        assert_eq!(out, b"\x81\x05hello");
    }
}
