//! A destination that gives away what it was given: the token of the `Authorization` header, in the form that was asked
//! for. Whoever looks for it must know the form.

use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::http::{Request, whole};

/// `/reflect?form=FORM`.
pub(super) fn answer(out: &mut impl Write, request: &Request) -> io::Result<()> {
    let header = request.header("authorization").unwrap_or_default();
    let token = header.rsplit(' ').next().unwrap_or_default();
    let form = request.asked("form");
    let redirect = format!("https://api.example.com/echo?key={token}");
    let cookie = format!("session={token}; Path=/");
    // As an honest server does: compressed for those who ask for it.
    let wants_gzip = request
        .header("accept-encoding")
        .is_some_and(|codings| codings.contains("gzip"));
    let form = match form {
        "negotiated" if wants_gzip => "gzip",
        form => form,
    };
    match form {
        "chunks" => chunks(out, token),
        "gzip" => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::default());
            packed.write_all(token.as_bytes())?;
            let headers = [("content-encoding", "gzip")];
            whole(out, "200 OK", &headers, &packed.finish()?)
        }
        "minted" => {
            let headers = [("x-token", minted("ghs_"))];
            let headers = headers
                .each_ref()
                .map(|(name, value)| (*name, value.as_str()));
            let opaque = "opaque.5d41402abc4b2a76/b9719d911017c592==";
            let body = format!(
                r#"{{"token":"{}","access_token":"{opaque}","refresh_token": "{opaque}","expires_in":3600}}"#,
                minted("ghs_")
            );
            whole(out, "200 OK", &headers, body.as_bytes())
        }
        "phrase" => whole(out, &format!("200 {token}"), &[], b"see the phrase"),
        "location" => whole(out, "302 Found", &[("location", &redirect)], b""),
        "cookie" => whole(out, "200 OK", &[("set-cookie", &cookie)], b""),
        "header" => whole(out, "200 OK", &[("x-debug", header)], b""),
        _ => whole(out, "200 OK", &[], encoded(form, token).as_bytes()),
    }
}

/// A token as a forge makes one, its checksum in order; put together here, so that no scanner of repositories finds it.
fn minted(prefix: &str) -> String {
    [prefix, "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat()
}

fn encoded(form: &str, token: &str) -> String {
    match form {
        "base64" => STANDARD.encode(format!("user:{token}")),
        "base64url" => URL_SAFE_NO_PAD.encode(format!("x{token}")),
        "hex" => bytes(token, |text, byte| write!(text, "{byte:02x}")),
        "HEX" => bytes(token, |text, byte| write!(text, "{byte:02X}")),
        "percent" => bytes(token, |text, byte| write!(text, "%{byte:02X}")),
        "multipart" => format!("--x\r\ncontent-disposition: form-data\r\n\r\n{token}\r\n--x--\r\n"),
        "json" => format!("{{\"error\":\"bad token '{token}'\"}}"),
        _ => token.to_owned(),
    }
}

fn bytes(token: &str, mut one: impl FnMut(&mut String, u8) -> std::fmt::Result) -> String {
    let mut text = String::new();
    for byte in token.bytes() {
        // Writing to a string does not fail.
        let _ = one(&mut text, byte);
    }
    text
}

/// A few bytes at a time, each flushed on its own.
fn chunks(out: &mut impl Write, token: &str) -> io::Result<()> {
    out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    for piece in token.as_bytes().chunks(5) {
        write!(out, "{:x}\r\n", piece.len())?;
        out.write_all(piece)?;
        out.write_all(b"\r\n")?;
        out.flush()?;
    }
    out.write_all(b"0\r\n\r\n")?;
    out.flush()
}
