//! The name under which OpenSSL finds a CA in a folder of certificates.
//!
//! Programs that are pointed at no bundle look into `/etc/ssl/certs` for `HASH.0`, where the hash is that of the issuer's
//! name. `openssl rehash` makes such links; an image may not have it.

use bottle_plan::failure::{Failure, Result};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::pem::parse_x509_pem;
use x509_parser::x509::AttributeTypeAndValue;

const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The hash of a certificate's subject, eight hexadecimal digits, as `openssl x509 -subject_hash` prints it.
///
/// # Errors
/// When `cert_pem` is no certificate.
pub fn subject_hash(cert_pem: &str) -> Result<String> {
    let unreadable = |error: String| Failure::invalid("cannot read a certificate").because(error);
    let (_, pem) = parse_x509_pem(cert_pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
    let certificate = pem.parse_x509().map_err(|e| unreadable(e.to_string()))?;
    let mut name = Vec::new();
    for relative in certificate.subject().iter() {
        let mut attributes: Vec<Vec<u8>> = relative.iter().map(attribute).collect();
        // A set has no order of its own; DER sorts it.
        attributes.sort();
        name.extend(tlv(SET, &attributes.concat()));
    }
    // SHA-1 keeps nothing safe here: it is a file's name, and the format fixes it.
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &name);
    let first = hash.as_ref().iter().take(4).rev();
    Ok(first.map(|byte| format!("{byte:02x}")).collect())
}

/// One attribute in the form that is hashed: texts in UTF-8 and lower case, runs of blanks as one.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Vec<u8> {
    let value = attribute.attr_value();
    let value = match attribute.as_str() {
        Ok(text) => {
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            tlv(UTF8_STRING, words.join(" ").to_ascii_lowercase().as_bytes())
        }
        Err(_) => tlv(tag_byte(value.tag()), value.data),
    };
    let kind = tlv(OBJECT_IDENTIFIER, attribute.attr_type().as_bytes());
    tlv(SEQUENCE, &[kind, value].concat())
}

/// Attribute values are primitive and universal, so that the number is the byte.
fn tag_byte(tag: Tag) -> u8 {
    u8::try_from(tag.0).unwrap_or(UTF8_STRING)
}

/// DER: tag, length, value.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(value.len()) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => {
            let length = value.len().to_be_bytes();
            let used = length.iter().position(|byte| *byte != 0).unwrap_or(0);
            let length = &length[used..];
            bytes.push(0x80 | u8::try_from(length.len()).unwrap_or(0x7f));
            bytes.extend(length);
        }
    }
    bytes.extend(value);
    bytes
}
