//! Reads the three things of our own CA's certificate that a leaf must repeat: the subject, byte for byte, the
//! key identifier, and the public key to compare with. A few lines of DER instead of a library of X.509.

use rcgen::{DistinguishedName, DnType, DnValue};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const BIT_STRING: u8 = 0x03;
const BOOLEAN: u8 = 0x01;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// 2.5.29.14, subjectKeyIdentifier.
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];

/// What a leaf needs of its issuer.
pub(super) struct Parts {
    /// `None` when it holds something that could not be written again the same way.
    pub(super) subject: Option<DistinguishedName>,
    pub(super) key_id: Option<Vec<u8>>,
    public_key: Vec<u8>,
}

impl Parts {
    pub(super) fn holds_key(&self, public_key: &[u8]) -> bool {
        self.public_key == public_key
    }
}

/// One element after another.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element, with its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(*short), rest),
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            0x82 => (
                usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)),
                &rest[2..],
            ),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, content)| content)
    }

    /// Reads the next element only if it has this tag.
    fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) {
            self.next().map(|(_, content)| content)
        } else {
            None
        }
    }
}

/// Reads a certificate.
pub(super) fn read_certificate(der: &[u8]) -> Option<Parts> {
    let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
    let mut body = Reader(certificate.expect(SEQUENCE)?);
    body.optional(VERSION);
    let _serial = body.next()?;
    let _algorithm = body.expect(SEQUENCE)?;
    let _issuer = body.expect(SEQUENCE)?;
    let _validity = body.expect(SEQUENCE)?;
    let subject = body.expect(SEQUENCE)?;
    let mut key = Reader(body.expect(SEQUENCE)?);
    let _algorithm = key.expect(SEQUENCE)?;
    // The first octet counts unused bits, of which a key has none.
    let public_key = key.expect(BIT_STRING)?.strip_prefix(&[0])?.to_vec();
    let mut key_id = None;
    while let Some((tag, content)) = body.next() {
        if tag == EXTENSIONS {
            key_id = find_key_id(Reader(content).expect(SEQUENCE)?);
        }
    }
    Some(Parts {
        subject: read_name(subject),
        key_id,
        public_key,
    })
}

fn find_key_id(extensions: &[u8]) -> Option<Vec<u8>> {
    let mut extensions = Reader(extensions);
    while let Some(extension) = extensions.expect(SEQUENCE) {
        let mut extension = Reader(extension);
        let id = extension.expect(OBJECT_ID)?;
        extension.optional(BOOLEAN);
        let value = extension.expect(OCTET_STRING)?;
        if id == SUBJECT_KEY_ID {
            return Reader(value).expect(OCTET_STRING).map(<[u8]>::to_vec);
        }
    }
    None
}

fn read_name(name: &[u8]) -> Option<DistinguishedName> {
    let mut name = Reader(name);
    let mut out = DistinguishedName::new();
    while !name.0.is_empty() {
        let mut set = Reader(name.expect(SET)?);
        let mut attribute = Reader(set.expect(SEQUENCE)?);
        let kind = DnType::from_oid(&read_id(attribute.expect(OBJECT_ID)?)?);
        let (tag, value) = attribute.next()?;
        let value = std::str::from_utf8(value).ok()?;
        let value = match tag {
            UTF8_STRING => DnValue::Utf8String(value.into()),
            PRINTABLE_STRING => DnValue::PrintableString(value.try_into().ok()?),
            IA5_STRING => DnValue::Ia5String(value.try_into().ok()?),
            _ => return None,
        };
        // A second value in one set, or a second attribute of one kind, would not come out the same.
        if !set.0.is_empty() || out.get(&kind).is_some() {
            return None;
        }
        out.push(kind, value);
    }
    Some(out)
}

fn read_id(content: &[u8]) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut number: u64 = 0;
    for byte in content {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(std::mem::take(&mut number));
        }
    }
    Some(numbers)
}
