//! A WebSocket that sends back what it gets. Frames are short and whole; nothing else is asked of it.

use std::io::{self, BufReader, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::http::Request;

/// RFC 6455, 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

/// The most of a frame; its length then fits the two-byte form.
const MOST: usize = u16::MAX as usize;

pub(super) fn converse<S: Read + Write>(
    stream: &mut BufReader<S>,
    request: &Request,
) -> io::Result<()> {
    let key = request
        .header("sec-websocket-key")
        .ok_or_else(|| io::Error::other("no sec-websocket-key"))?;
    let accept = accept_for(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.get_mut().write_all(head.as_bytes())?;
    stream.get_mut().flush()?;
    loop {
        let (kind, payload) = read_frame(stream)?;
        match kind {
            PING => write_frame(stream.get_mut(), PONG, &payload)?,
            CLOSE => return write_frame(stream.get_mut(), CLOSE, &payload),
            kind => write_frame(stream.get_mut(), kind, &payload)?,
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
            return Err(io::Error::other(format!(
                "a frame of more than {MOST} bytes"
            )));
        }
        short => usize::from(short),
    };
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
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(short),
        _ => {
            frame.push(126);
            frame.extend_from_slice(
                &u16::try_from(payload.len())
                    .map_err(io::Error::other)?
                    .to_be_bytes(),
            );
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
