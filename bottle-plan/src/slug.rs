//! Slugs: the name of one bottle on this host. It becomes part of paths, container names and labels.

use crate::failure::{Failure, Result};

/// Checks that `slug` is `[a-z0-9][a-z0-9-]{0,39}`. Nothing is repaired: two spellings must not mean one bottle.
///
/// # Errors
/// When it is anything else.
pub fn check(slug: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=40).contains(&slug.len()) && !slug.starts_with('-') && slug.bytes().all(plain) {
        return Ok(());
    }
    Err(
        Failure::invalid(format!("`{}` is not a slug", slug.escape_debug()))
            .hint("a slug is 1 to 40 of a-z, 0-9 and `-`, and does not begin with `-`"),
    )
}

/// `name-xxxxx`, the five characters random base36.
///
/// # Errors
/// When the system gives no random bytes.
#[cfg(feature = "manifest")]
pub fn random(name: &str) -> Result<String> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    let mut number = u64::from_le_bytes(bytes);
    let mut slug = format!("{name}-");
    for _ in 0..5 {
        slug.push(char::from(ALPHABET[(number % 36) as usize]));
        number /= 36;
    }
    Ok(slug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_slugs_are_slugs() {
        for _ in 0..100 {
            let slug = random("demo").expect("random");
            check(&slug).expect("valid");
            assert_eq!(slug.len(), "demo-".len() + 5);
        }
    }
}
