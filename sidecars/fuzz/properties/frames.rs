use super::egress_frames::{BadFrame, Frames, Kind, apply};

/// One direction of a WebSocket: the first byte says which and how it is cut, the rest is what comes.
pub fn frames(data: &[u8]) {
    let [first, stream @ ..] = data else {
        return;
    };
    let from_client = first & 1 == 0;
    let size = usize::from(first >> 1).max(1);
    let whole = read(stream, stream.len().max(1), from_client);
    let cut = read(stream, size, from_client);
    let single = read(stream, 1, from_client);
    assert_eq!(cut, single);
    assert_eq!(whole, single);
    assert_eq!(whole, by_the_book(stream, from_client));
}

/// What a reader makes of a stream.
#[derive(Debug, Default, PartialEq)]
struct Read {
    data: Vec<u8>,
    control: Vec<u8>,
    /// Where in `data` messages end, and in `control` frames.
    ends: Vec<(bool, usize)>,
    is_bad: bool,
}

impl Read {
    fn take(&mut self, is_control: bool, bytes: &[u8], is_last: bool) {
        let place = if is_control {
            &mut self.control
        } else {
            &mut self.data
        };
        place.extend_from_slice(bytes);
        if is_last {
            self.ends.push((is_control, place.len()));
        }
    }
}

fn read(stream: &[u8], size: usize, from_client: bool) -> Read {
    let mut frames = Frames::new(from_client);
    let mut out = Read::default();
    for chunk in stream.chunks(size) {
        let mut at = 0;
        loop {
            let piece = match frames.next(chunk, at) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(BadFrame) => {
                    out.is_bad = true;
                    return out;
                }
            };
            // Nothing is left out and nothing comes twice.
            assert_eq!(piece.range.start, at);
            at = piece.range.end;
            let mut bytes = chunk[piece.range].to_vec();
            apply(piece.mask, &mut bytes);
            match piece.kind {
                Kind::Head => {}
                kind => out.take(kind == Kind::Control, &bytes, piece.is_last),
            }
        }
        assert_eq!(at, chunk.len());
    }
    out
}

/// The same, of a stream that is all there: RFC 6455, section 5.2, from top to bottom.
fn by_the_book(mut rest: &[u8], from_client: bool) -> Read {
    let mut out = Read::default();
    while let [first, second, tail @ ..] = rest {
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = opcode >= 8;
        let short = second & 0x7f;
        out.is_bad = first & 0x70 != 0
            || !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10)
            || (second & 0x80 != 0) != from_client
            || (is_control && (!is_final || short > 125));
        if out.is_bad {
            break;
        }
        let width = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((wide, tail)) = tail.split_at_checked(width) else {
            break;
        };
        let wide = wide.iter().fold(0_u64, |sum, &b| sum << 8 | u64::from(b));
        let length = if width == 0 { u64::from(short) } else { wide };
        // The highest bit must be zero.
        out.is_bad = length >> 63 != 0;
        let Some((mask, tail)) = tail.split_at_checked(if from_client { 4 } else { 0 }) else {
            break;
        };
        if out.is_bad {
            break;
        }
        let there = usize::try_from(length).map_or(tail.len(), |length| length.min(tail.len()));
        let mut payload = tail[..there].to_vec();
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask.get(index % 4).unwrap_or(&0);
        }
        let is_over = there as u64 == length;
        out.take(is_control, &payload, is_over && is_final);
        rest = &tail[there..];
        if !is_over {
            break;
        }
    }
    out
}
