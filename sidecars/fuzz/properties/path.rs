use std::fmt::Write;

use crate::path::{Path, decode_lossy};

/// The path of a request target.
pub fn path(data: &[u8]) {
    let Some(path) = Path::parse(data) else {
        return;
    };
    let decoded = path.bytes();
    assert_eq!(decoded.first(), Some(&b'/'));
    assert!(decoded.iter().all(|&b| b != b'\\' && !b.is_ascii_control()));
    let is_dots = |segment: &[u8]| {
        let name = segment.split(|&b| b == b';').next();
        matches!(name, Some(b"." | b".."))
    };
    assert!(!decoded.split(|&b| b == b'/').any(is_dots));
    assert_eq!(*decode_lossy(data), *decoded, "two decoders disagree");
    if path.is_doubtful() {
        return;
    }
    // A rule looks at this one: it reads the same to a server that decodes twice, and has no segment more or less.
    assert_eq!(*decode_lossy(decoded), *decoded);
    let slashes = |text: &[u8]| text.iter().filter(|&&b| b == b'/').count();
    assert_eq!(slashes(data), slashes(decoded));
    // However it is spelled, it is the same path.
    let mut spelled = String::new();
    for &byte in decoded {
        // Writing to a string does not fail.
        let _ = match byte {
            b'/' => spelled.write_char('/'),
            _ => write!(spelled, "%{byte:02x}"),
        };
    }
    let again = Path::parse(spelled.as_bytes());
    assert_eq!(
        again
            .as_ref()
            .map(|path| (path.bytes(), path.is_doubtful())),
        Some((decoded, false))
    );
}
