//! Tokens that are known by their form. Each begins with a literal, so that one pass for all literals finds the
//! few places that are looked at more closely; where an issuer put a checksum or a fixed length in, it counts.

use super::Kind;
use super::checks;

/// One form.
#[derive(Clone, Copy)]
pub(super) struct Pattern {
    pub(super) kind: Kind,
    /// What it begins with.
    pub(super) prefix: &'static str,
    /// What may follow.
    alphabet: fn(u8) -> bool,
    /// How many of them.
    length: (usize, usize),
    /// Whether all of it, with the prefix, holds together.
    check: fn(&[u8]) -> bool,
    /// Whether the prefix is so short that it must stand at the beginning of a word.
    word: bool,
    /// Whether it is a secret for certain. Others are often public (the key id of a signed link, the key of a web
    /// page) or made to be passed on (a signed claim); by default they are only noted.
    pub(super) certain: bool,
    /// Whether it is one only in an answer, and how much of the prefix is then not part of it: the field of a document
    /// is what it is for its name.
    pub(super) field: Option<usize>,
}

/// Whether there is a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes, of so many bytes.
    Token(usize),
    No,
    /// It depends on what follows.
    Unfinished,
}

const ANY: (usize, usize) = (24, 255);

const fn pattern(
    kind: Kind,
    prefix: &'static str,
    alphabet: fn(u8) -> bool,
    length: (usize, usize),
    check: fn(&[u8]) -> bool,
) -> Pattern {
    Pattern {
        kind,
        prefix,
        alphabet,
        length,
        check,
        word: false,
        certain: true,
        field: None,
    }
}

/// A field in which RFC 6749 has a destination hand out a token, whatever that looks like.
const fn field(beginning: &'static str) -> Pattern {
    Pattern {
        field: Some(beginning.len()),
        ..pattern(
            Kind::OAuth,
            beginning,
            checks::json_text,
            (16, 4096),
            |_| true,
        )
    }
}

/// All of the first line is the prefix: were it shorter, many beginnings in a row would each be looked at at length.
const fn private_key(first_line: &'static str) -> Pattern {
    pattern(
        Kind::PrivateKey,
        first_line,
        key_text,
        (80, 8192),
        checks::is_key,
    )
}

const fn word(pattern: Pattern) -> Pattern {
    Pattern {
        word: true,
        ..pattern
    }
}

const fn doubtful(pattern: Pattern) -> Pattern {
    Pattern {
        certain: false,
        ..pattern
    }
}

use checks::{alnum, alnum_dash, base32, dotted, hex, key_text, word_char};

/// All of them. A longer prefix wins over a shorter one at the same place.
pub(super) const ALL: &[Pattern] = &[
    doubtful(word(pattern(
        Kind::Aws,
        "AKIA",
        base32,
        (16, 16),
        checks::varied,
    ))),
    doubtful(word(pattern(
        Kind::Aws,
        "ASIA",
        base32,
        (16, 16),
        checks::varied,
    ))),
    pattern(Kind::Github, "ghp_", alnum, (36, 36), checks::crc_of_30),
    pattern(Kind::Github, "gho_", alnum, (36, 36), checks::crc_of_30),
    pattern(Kind::Github, "ghu_", alnum, (36, 36), checks::crc_of_30),
    pattern(Kind::Github, "ghs_", alnum, (36, 36), checks::crc_of_30),
    pattern(Kind::Github, "ghr_", alnum, (36, 36), checks::crc_of_30),
    pattern(
        Kind::Github,
        "github_pat_",
        word_char,
        (82, 82),
        checks::varied,
    ),
    pattern(Kind::Gitlab, "glpat-", dotted, (20, 300), checks::varied),
    pattern(Kind::Gitlab, "gldt-", dotted, (20, 300), checks::varied),
    pattern(Kind::Gitlab, "glrt-", dotted, (20, 300), checks::varied),
    pattern(Kind::Gitlab, "glptt-", alnum_dash, (40, 40), checks::varied),
    pattern(
        Kind::Anthropic,
        "sk-ant-",
        alnum_dash,
        (80, 200),
        checks::varied,
    ),
    word(pattern(
        Kind::OpenAi,
        "sk-",
        alnum_dash,
        (40, 255),
        checks::says_openai,
    )),
    pattern(Kind::Stripe, "sk_live_", alnum, ANY, checks::varied),
    pattern(Kind::Stripe, "rk_live_", alnum, ANY, checks::varied),
    pattern(Kind::Slack, "xoxb-", alnum_dash, ANY, checks::varied),
    pattern(Kind::Slack, "xoxp-", alnum_dash, ANY, checks::varied),
    pattern(Kind::Slack, "xoxa-", alnum_dash, ANY, checks::varied),
    pattern(Kind::Slack, "xoxr-", alnum_dash, ANY, checks::varied),
    pattern(Kind::Slack, "xoxs-", alnum_dash, ANY, checks::varied),
    pattern(Kind::Slack, "xapp-", alnum_dash, (40, 255), checks::varied),
    doubtful(word(pattern(
        Kind::Google,
        "AIza",
        alnum_dash,
        (35, 35),
        checks::varied,
    ))),
    pattern(
        Kind::Google,
        "GOCSPX-",
        alnum_dash,
        (28, 28),
        checks::varied,
    ),
    pattern(Kind::Google, "ya29.", dotted, (40, 512), checks::varied),
    pattern(Kind::Package, "npm_", alnum, (36, 36), checks::crc_of_30),
    pattern(
        Kind::Package,
        "pypi-AgE",
        alnum_dash,
        (80, 400),
        checks::varied,
    ),
    pattern(Kind::Package, "rubygems_", hex, (48, 48), checks::varied),
    pattern(
        Kind::Package,
        "dckr_pat_",
        alnum_dash,
        (27, 27),
        checks::varied,
    ),
    word(pattern(
        Kind::HuggingFace,
        "hf_",
        alnum,
        (34, 34),
        checks::varied,
    )),
    pattern(Kind::DigitalOcean, "dop_v1_", hex, (64, 64), checks::varied),
    word(pattern(
        Kind::SendGrid,
        "SG.",
        dotted,
        (66, 66),
        checks::is_send_grid,
    )),
    doubtful(word(pattern(
        Kind::Jwt,
        "eyJ",
        dotted,
        (40, 4096),
        checks::is_jwt,
    ))),
    private_key("-----BEGIN PRIVATE KEY-----"),
    private_key("-----BEGIN RSA PRIVATE KEY-----"),
    private_key("-----BEGIN EC PRIVATE KEY-----"),
    private_key("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
    private_key("-----BEGIN OPENSSH PRIVATE KEY-----"),
    private_key("-----BEGIN PGP PRIVATE KEY BLOCK-----"),
    field("\"access_token\":\""),
    field("\"access_token\": \""),
    field("\"refresh_token\":\""),
    field("\"refresh_token\": \""),
    field("\"client_secret\":\""),
    field("\"client_secret\": \""),
];

impl Pattern {
    /// Looks at `data`, which begins with the prefix; `before` is the end of what came before it, and `ended`
    /// says that nothing comes after it.
    pub(super) fn look(&self, before: &[u8], data: &[u8], ended: bool) -> Verdict {
        if self.word && !checks::is_word_start(before) {
            return Verdict::No;
        }
        let (min, max) = self.length;
        let rest = &data[self.prefix.len()..];
        let room = &rest[..rest.len().min(max + 1)];
        let found = room.iter().position(|&b| !(self.alphabet)(b));
        let length = match found {
            Some(length) => length,
            None if room.len() <= max && !ended => return Verdict::Unfinished,
            None => room.len(),
        };
        if length < min || (min == max && length > max) {
            return Verdict::No;
        }
        let token = &data[..self.prefix.len() + length.min(max)];
        if (self.check)(token) {
            Verdict::Token(token.len())
        } else {
            Verdict::No
        }
    }
}

#[cfg(test)]
#[path = "patterns_tests.rs"]
pub(super) mod tests;
