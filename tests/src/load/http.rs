//! As much of HTTP/1.1 as it takes to find the end of an answer.

use std::io::{self, BufRead, Read as _};

/// A head of an answer that is longer is not one.
const LONGEST_LINE: u64 = 64 << 10;

/// What a request led to.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The server ends the connection after it.
    pub(super) closes: bool,
    /// Of the body.
    pub(super) bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) closes: bool,
    length: Length,
}

#[derive(Debug, PartialEq, Eq)]
enum Length {
    Known(u64),
    Chunked,
    UntilClose,
}

/// Reads a head; `line` is scratch space.
pub(super) fn read_head(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Head> {
    let status = status(read_line(from, line)?).ok_or_else(|| broken("no status line"))?;
    let mut head = Head {
        status,
        closes: false,
        length: Length::UntilClose,
    };
    loop {
        let field = read_line(from, line)?;
        if field.is_empty() {
            break;
        }
        let (name, value) = field
            .split_once(':')
            .ok_or_else(|| broken("a header without a colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_| broken("a length"))?;
            head.length = Length::Known(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.length = Length::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    if matches!(status, 204 | 304) {
        head.length = Length::Known(0);
    }
    head.closes |= head.length == Length::UntilClose;
    Ok(head)
}

fn status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

/// Reads the body that belongs to a head to its end, and says how long it was.
pub(super) fn read_body(
    from: &mut impl BufRead,
    head: &Head,
    line: &mut Vec<u8>,
) -> io::Result<u64> {
    match head.length {
        Length::Known(length) => skip(from, length).map(|()| length),
        Length::UntilClose => io::copy(from, &mut io::sink()),
        Length::Chunked => {
            let mut total = 0;
            loop {
                let size = read_line(from, line)?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| broken("a chunk size"))?;
                if size == 0 {
                    break;
                }
                skip(from, size)?;
                total += size;
                if !read_line(from, line)?.is_empty() {
                    return Err(broken("a chunk without an end"));
                }
            }
            // Trailers, up to the empty line.
            while !read_line(from, line)?.is_empty() {}
            Ok(total)
        }
    }
}

fn skip(from: &mut impl BufRead, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let there = from.fill_buf()?.len();
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = usize::try_from(left).unwrap_or(there).min(there);
        from.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

fn read_line<'line>(from: &mut impl BufRead, line: &'line mut Vec<u8>) -> io::Result<&'line str> {
    line.clear();
    from.take(LONGEST_LINE).read_until(b'\n', line)?;
    let text = line
        .strip_suffix(b"\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    std::str::from_utf8(text).map_err(|_| broken("a line that is not text"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> io::Result<(Head, u64, usize)> {
        let mut line = Vec::new();
        let head = read_head(&mut bytes, &mut line)?;
        let length = read_body(&mut bytes, &head, &mut line)?;
        Ok((head, length, bytes.len()))
    }

    #[test]
    fn a_length_is_kept_to() {
        let (head, length, rest) =
            read(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP").expect("an answer");
        assert_eq!((head.status, head.closes), (200, false));
        assert_eq!((length, rest), (3, 4));
    }

    #[test]
    fn chunks_are_followed() {
        let answer =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\nnext";
        let (_, length, rest) = read(answer).expect("an answer");
        assert_eq!((length, rest), (13, 4));
    }

    #[test]
    fn the_end_of_the_connection_may_be_the_end_of_the_body() {
        let (head, length, _) = read(b"HTTP/1.0 403 Forbidden\r\n\r\nwhy").expect("an answer");
        assert_eq!((head.status, head.closes, length), (403, true, 3));
        let (head, length, _) =
            read(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").expect("an answer");
        assert!(head.closes);
        assert_eq!(length, 0);
    }

    #[test]
    fn what_ends_too_early_is_an_error() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"",
        ] {
            assert!(read(answer).is_err(), "{}", String::from_utf8_lossy(answer));
        }
    }
}
