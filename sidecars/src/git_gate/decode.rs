//! What is behind a simple coat: base64, hexadecimal, gzip, zlib, UTF-16. Scanners look at what is written, so it is
//! written out for them. A net, not a proof: an agent can always invent another coat.

use std::io::Read as _;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use flate2::read::{GzDecoder, ZlibDecoder};

/// Coats within coats.
const DEPTH: u32 = 3;
/// Shorter runs hold no secret anybody would look for.
const SHORTEST: usize = 24;
/// What one object may unfold to, all layers together.
const MOST: usize = 16 << 20;

/// Everything that is found behind `data`, as texts.
pub(super) fn layers(data: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut room = MOST;
    unfold(data, DEPTH, &mut room, &mut found);
    found
}

fn unfold(data: &[u8], depth: u32, room: &mut usize, found: &mut Vec<Vec<u8>>) {
    if depth == 0 {
        return;
    }
    let mut next = Vec::new();
    next.extend(inflated(data, *room));
    next.extend(wide(data));
    let mut texts = Vec::new();
    runs(data, *room, &mut |bytes| {
        if is_packed(&bytes) {
            next.push(bytes);
        } else if is_text(&bytes) {
            texts.extend_from_slice(&bytes);
            texts.push(b'\n');
        }
    });
    if !texts.is_empty() {
        next.push(texts);
    }
    // The small ones first, and each with its share of what is left: a bomb takes no room from what lies beside it.
    next.sort_by_key(Vec::len);
    for layer in &mut next {
        layer.truncate(*room);
        *room -= layer.len();
    }
    next.retain(|layer| !layer.is_empty());
    let mut left = next.len();
    for layer in next {
        let share = *room / left;
        let mut rest = share;
        unfold(&layer, depth - 1, &mut rest, found);
        *room -= share - rest;
        left -= 1;
        found.push(layer);
    }
}

fn is_packed(data: &[u8]) -> bool {
    data.starts_with(b"\x1f\x8b")
        || data.len() > 2 && data[0] == 0x78 && matches!(data[1], 0x01 | 0x5e | 0x9c | 0xda)
}

/// gzip or zlib, as far as it goes and there is room.
fn inflated(data: &[u8], room: usize) -> Option<Vec<u8>> {
    if !is_packed(data) {
        return None;
    }
    let mut out = Vec::new();
    let limit = room as u64;
    let gzip = data.starts_with(b"\x1f\x8b");
    // Whatever came out before it broke is worth a look.
    let _ = if gzip {
        GzDecoder::new(data).take(limit).read_to_end(&mut out)
    } else {
        ZlibDecoder::new(data).take(limit).read_to_end(&mut out)
    };
    (!out.is_empty()).then_some(out)
}

/// UTF-16 as plain bytes: every other byte is zero.
fn wide(data: &[u8]) -> Option<Vec<u8>> {
    let sample = &data[..data.len().min(4096)];
    let zeros = |odd: usize| {
        sample
            .iter()
            .skip(odd)
            .step_by(2)
            .filter(|byte| **byte == 0)
            .count()
    };
    let half = sample.len() / 2;
    if half < 8 {
        return None;
    }
    let keep = if zeros(1) * 10 > half * 8 {
        0
    } else if zeros(0) * 10 > half * 8 {
        1
    } else {
        return None;
    };
    Some(data.iter().skip(keep).step_by(2).copied().collect())
}

/// The runs of base64 and of hexadecimal digits, decoded. Line breaks within base64 are as in PEM and mail.
fn runs(data: &[u8], room: usize, hand: &mut dyn FnMut(Vec<u8>)) {
    let in_alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_');
    let mut left = room;
    let mut at = 0;
    while at < data.len() {
        if !in_alphabet(data[at]) {
            at += 1;
            continue;
        }
        let begin = at;
        while at < data.len() && in_alphabet(data[at]) {
            at += 1;
        }
        let mut run = data[begin..at].to_vec();
        // A full line goes on in the next one.
        while at - begin >= 60
            && data.get(at) == Some(&b'\n')
            && data.get(at + 1).is_some_and(|b| in_alphabet(*b))
        {
            let next = at + 1;
            at = next;
            while at < data.len() && in_alphabet(data[at]) {
                at += 1;
            }
            run.extend_from_slice(&data[next..at]);
            if at - next < 60 {
                break;
            }
        }
        if run.len() < SHORTEST || run.len() > left {
            continue;
        }
        left -= run.len();
        for bytes in decoded(&run) {
            hand(bytes);
        }
    }
}

fn decoded(run: &[u8]) -> Vec<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let mut all = Vec::new();
    if run.iter().all(u8::is_ascii_hexdigit) {
        let nibble = |b: u8| {
            char::from(b)
                .to_digit(16)
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(0)
        };
        all.push(
            run.chunks_exact(2)
                .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
                .collect(),
        );
    }
    let is_url = run.iter().any(|b| matches!(b, b'-' | b'_'));
    let alphabet = if is_url { &URL_SAFE } else { &STANDARD };
    let engine = GeneralPurpose::new(alphabet, lenient);
    // One character too many is no base64; it may be the one before or after it.
    let whole = if run.len() % 4 == 1 {
        &run[..run.len() - 1]
    } else {
        run
    };
    all.extend(engine.decode(whole).ok());
    all
}

/// Whether it can be read: random bytes are not worth a scanner's time.
fn is_text(data: &[u8]) -> bool {
    let readable = data
        .iter()
        .filter(|b| (b' '..=b'~').contains(*b) || matches!(**b, b'\n' | b'\r' | b'\t'));
    readable.count() * 10 >= data.len() * 9
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD as PLAIN;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    const TEXT: &str = "token = \"not-a-real-secret-0123456789\"";

    fn shows(data: &[u8]) -> bool {
        layers(data)
            .iter()
            .any(|layer| String::from_utf8_lossy(layer).contains(TEXT))
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::default());
        out.write_all(data).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn coats_come_off() {
        let base64 = PLAIN.encode(TEXT);
        let hex: String = TEXT.bytes().map(|b| format!("{b:02x}")).collect();
        let utf16: Vec<u8> = TEXT.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for coat in [
            format!("x: \"{base64}\"").into_bytes(),
            format!("x: {hex}").into_bytes(),
            gzip(TEXT.as_bytes()),
            utf16,
            PLAIN.encode(format!("- {base64} -")).into_bytes(),
            PLAIN.encode(gzip(TEXT.as_bytes())).into_bytes(),
            gzip(base64.as_bytes()),
        ] {
            assert!(shows(&coat), "{}", coat.escape_ascii());
        }
    }

    #[test]
    fn folded_base64_is_one_run() {
        let long = PLAIN.encode(format!("{} {TEXT}", "padding ".repeat(20)));
        let folded: Vec<&str> = long
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        assert!(shows(folded.join("\n").as_bytes()));
    }

    #[test]
    fn a_bomb_unfolds_to_no_more_than_there_is_room_for() {
        let bomb = gzip(&gzip(&vec![b'a'; 64 << 20]));
        let total: usize = layers(&bomb).iter().map(Vec::len).sum();
        assert!(total <= MOST, "{total}");
    }

    #[test]
    fn a_bomb_hides_nothing_that_lies_beside_it() {
        let bomb = PLAIN.encode(gzip(&vec![b'a'; 64 << 20]));
        let coated = PLAIN.encode(PLAIN.encode(TEXT));
        let long = PLAIN.encode("padding ".repeat(20_000));
        assert!(shows(format!("{bomb}\n{coated}\n").as_bytes()));
        assert!(shows(format!("{bomb} {long} {coated}").as_bytes()));
        assert!(shows(&gzip(format!("{coated} {bomb}").as_bytes())));
    }

    #[test]
    fn plain_text_has_nothing_behind_it() {
        assert!(layers(b"fn main() { println!(\"hello\"); }").is_empty());
    }
}
