//! What a tree says: names, and what kind of thing each of them is.

use super::rules::{Refusal, printable};
use crate::reason::Reason;

/// Checks a tree object. Git's own fsck knows `.git` in all its spellings; it lets control characters pass, with which a
/// checkout can be led to another place than the one that was looked at (CVE-2025-48384).
pub(super) fn check(tree: &[u8], oid: &str) -> Result<(), Refusal> {
    let id_length = oid.len() / 2;
    let broken = || {
        Refusal::new(
            Reason::GitObjectInvalid,
            format!("the tree {oid} is damaged"),
        )
    };
    let mut rest = tree;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(broken)?;
        let (mode, name) = rest[..end].split_at(
            rest[..end]
                .iter()
                .position(|b| *b == b' ')
                .ok_or_else(broken)?,
        );
        let name = &name[1..];
        if !matches!(
            mode,
            b"40000" | b"100644" | b"100755" | b"120000" | b"160000" | b"100664"
        ) {
            return Err(broken());
        }
        if name.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
            let shown = printable(&String::from_utf8_lossy(name));
            return Err(Refusal::new(Reason::GitPathInvalid, format!("`{shown}`")));
        }
        rest = rest.get(end + 1 + id_length..).ok_or_else(broken)?;
    }
    Ok(())
}

/// Whether a blob is a git LFS pointer.
pub(super) fn is_lfs_pointer(blob: &[u8]) -> bool {
    const BEGINS: [&[u8]; 2] = [
        b"version https://git-lfs.github.com/spec/",
        b"version https://hawser.github.com/spec/",
    ];
    blob.len() < 1024 && BEGINS.iter().any(|begin| blob.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (mode, name) in entries {
            bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            bytes.extend_from_slice(&[7; 20]);
        }
        bytes
    }

    #[test]
    fn names_and_modes() {
        let reason = |entries: &[(&str, &str)]| {
            check(&tree(entries), OID)
                .err()
                .map(|refusal| refusal.reason)
        };
        assert_eq!(reason(&[]), None);
        assert_eq!(
            reason(&[("100644", "a b.txt"), ("40000", "ü"), ("160000", "sub")]),
            None
        );
        assert_eq!(
            reason(&[("100644", "a"), ("100644", "sub\r")]),
            Some(Reason::GitPathInvalid)
        );
        assert_eq!(
            reason(&[("100644", "a\u{1b}[2J")]),
            Some(Reason::GitPathInvalid)
        );
        assert_eq!(reason(&[("777", "a")]), Some(Reason::GitObjectInvalid));
        let cut = &tree(&[("100644", "a")])[..20];
        assert_eq!(
            check(cut, OID).err().map(|r| r.reason),
            Some(Reason::GitObjectInvalid)
        );
    }
}
