//! What tells a token from a word that looks like one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Fewer different characters than this are an example in a manual.
const MIN_DIFFERENT: usize = 8;

pub(super) fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

pub(super) fn alnum_dash(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

pub(super) fn word_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

pub(super) fn dotted(b: u8) -> bool {
    alnum_dash(b) || b == b'.'
}

pub(super) fn hex(b: u8) -> bool {
    b.is_ascii_hexdigit()
}

pub(super) fn base32(b: u8) -> bool {
    b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b)
}

/// What a text in JSON is made of, if nothing in it is escaped.
pub(super) fn json_text(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'"' && b != b'\\'
}

/// What a key file is made of between its first and its last line, also as a string in JSON.
pub(super) fn key_text(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"+/=\\ \r\n\t".contains(&b)
}

/// Whether a word can begin after `before`, the last few bytes: also after an escaped line end or a
/// percent-encoded character, whose last letter belongs to the escape.
pub(super) fn is_word_start(before: &[u8]) -> bool {
    match before {
        [.., b'\\', b'n' | b'r' | b't'] => true,
        [.., b'%', a, b] if hex(*a) && hex(*b) => true,
        [.., last] => !alnum_dash(*last),
        [] => true,
    }
}

/// Not the same few characters again and again.
pub(super) fn varied(token: &[u8]) -> bool {
    let mut seen = [false; 256];
    // The prefix is always the same and says nothing.
    let tail = &token[token.len() / 4..];
    tail.iter().for_each(|&b| seen[usize::from(b)] = true);
    seen.iter().filter(|seen| **seen).count() >= MIN_DIFFERENT
}

/// Thirty random characters and their CRC-32 in base 62: what GitHub's and npm's tokens end with.
pub(super) fn crc_of_30(token: &[u8]) -> bool {
    let Some((rest, sum)) = token.split_last_chunk::<6>() else {
        return false;
    };
    let Some((_, random)) = rest.split_last_chunk::<30>() else {
        return false;
    };
    let mut left = crc32(random);
    let digit = |left: &mut u32| {
        let digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
            [(*left % 62) as usize];
        *left /= 62;
        digit
    };
    sum.iter().rev().all(|&b| b == digit(&mut left))
}

/// Bit by bit: it is asked for once in a blue moon, and for thirty bytes.
fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), step)
    })
}

/// OpenAI writes its name, in base64, into the middle of its keys.
pub(super) fn says_openai(token: &[u8]) -> bool {
    token.windows(8).any(|window| window == b"T3BlbkFJ")
}

/// `SG.`, 22 characters, a dot, 43 characters.
pub(super) fn is_send_grid(token: &[u8]) -> bool {
    let dots = token.iter().filter(|&&b| b == b'.').count();
    dots == 2 && token.get(25) == Some(&b'.') && varied(token)
}

/// A header in JSON that names an algorithm, claims in JSON, a signature.
pub(super) fn is_jwt(token: &[u8]) -> bool {
    let mut parts = token.split(|&b| b == b'.');
    let (Some(header), Some(claims), Some(signature)) = (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let names_algorithm = URL_SAFE_NO_PAD
        .decode(header)
        .is_ok_and(|header| header.windows(5).any(|window| window == b"\"alg\""));
    names_algorithm && claims.starts_with(b"eyJ") && signature.len() >= 16
}

/// Enough letters and digits to be a key, and not `...`.
pub(super) fn is_key(token: &[u8]) -> bool {
    token.iter().filter(|&&b| alnum(b)).count() >= 80 && varied(token)
}
