//! Patterns of refs and of paths.

/// Whether a ref fits. `*` is any text, `/` too, as in a refspec.
pub(super) fn fits_ref(pattern: &str, name: &str) -> bool {
    fits(pattern.as_bytes(), name.as_bytes(), true)
}

/// Whether a path fits, or is below what fits. As in .gitignore from the top of the repository: `*` and `?` stay within
/// one folder, `**` does not. Letters of either case are the same, as they are to some who check the tree out.
pub(super) fn fits_path(pattern: &str, path: &[u8]) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let pattern = pattern.trim_end_matches('/').as_bytes();
    let path = path.to_ascii_lowercase();
    let ends = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    let mut ends = ends;
    ends.any(|end| fits(pattern, &path[..end], false))
        // The folder of `folder/**` itself: a link or a submodule in its place has all that is below it.
        || pattern.strip_suffix(b"/**").is_some_and(|folder| fits(folder, &path, false))
}

/// The folder or file below which everything lies that fits; nothing when that is the whole repository.
pub(super) fn beginning(pattern: &str) -> Option<String> {
    let parts = pattern.trim_end_matches('/').split('/');
    let plain: Vec<&str> = parts
        .take_while(|part| !part.contains(['*', '?']))
        .collect();
    (!plain.is_empty()).then(|| plain.join("/"))
}

/// The usual walk with one place to come back to for each kind of star; its cost is the product of both lengths at most.
fn fits(pattern: &[u8], text: &[u8], star_takes_all: bool) -> bool {
    // What is reachable after each prefix of the pattern, as a row of flags over the text.
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    let mut rest = pattern;
    while let Some((&first, after)) = rest.split_first() {
        if first == b'*' {
            let double = after.first() == Some(&b'*');
            rest = if double { &after[1..] } else { after };
            let takes_all = star_takes_all || double;
            // `**/` is also no folder at all.
            if double && !star_takes_all && rest.first() == Some(&b'/') {
                rest = &rest[1..];
                row = after_folders(&row, text);
                continue;
            }
            for at in 0..text.len() {
                row[at + 1] |= row[at] && (takes_all || text[at] != b'/');
            }
        } else {
            let mut next = vec![false; row.len()];
            for at in 0..text.len() {
                let same =
                    text[at] == first || first == b'?' && !star_takes_all && text[at] != b'/';
                next[at + 1] = row[at] && same;
            }
            row = next;
            rest = after;
        }
    }
    row.last() == Some(&true)
}

fn after_folders(row: &[bool], text: &[u8]) -> Vec<bool> {
    let mut next = row.to_vec();
    let mut begun = false;
    for at in 0..text.len() {
        begun |= row[at];
        next[at + 1] |= begun && text[at] == b'/';
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_begins_with_holds_all_that_fits() {
        for (pattern, begins) in [
            (".github/workflows/**", Some(".github/workflows")),
            (".gitmodules", Some(".gitmodules")),
            ("a/b*/c", Some("a")),
            ("a/b/", Some("a/b")),
            ("**/x", None),
            ("*.yml", None),
        ] {
            assert_eq!(beginning(pattern).as_deref(), begins, "{pattern}");
        }
    }

    #[test]
    fn a_star_in_a_ref_is_any_text() {
        for (pattern, name, expected) in [
            ("refs/heads/agent/*", "refs/heads/agent/x", true),
            ("refs/heads/agent/*", "refs/heads/agent/fix/y", true),
            ("refs/heads/agent/*", "refs/heads/agent", false),
            ("refs/heads/agent/*", "refs/heads/main", false),
            ("refs/heads/main", "refs/heads/main", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("refs/tags/v*-rc*", "refs/tags/v1-rc2", true),
            ("refs/tags/v*-rc*", "refs/tags/v1", false),
            ("refs/heads/?", "refs/heads/a", false),
        ] {
            assert_eq!(fits_ref(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn paths_are_as_in_gitignore() {
        for (pattern, path, expected) in [
            (".github/workflows/**", ".github/workflows/ci.yml", true),
            (".github/workflows/**", ".github/workflows/a/b.yml", true),
            (".github/workflows/**", ".github/workflows", true),
            (".github/workflows/**", ".GitHub/Workflows/ci.yml", true),
            (".github/workflows/**", ".github/other/ci.yml", false),
            (
                ".github/workflows/**",
                "sub/.github/workflows/ci.yml",
                false,
            ),
            (".gitmodules", ".gitmodules", true),
            (".gitmodules", ".gitmodules/x", true),
            (".gitmodules", "a/.gitmodules", false),
            ("**/.gitmodules", "a/b/.gitmodules", true),
            ("**/.gitmodules", ".gitmodules", true),
            ("ci/*.yml", "ci/a.yml", true),
            ("ci/*.yml", "ci/a/b.yml", false),
            ("ci/", "ci/a/b.yml", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
        ] {
            assert_eq!(
                fits_path(pattern, path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn many_stars_cost_no_time() {
        assert!(!fits_ref(&"*a".repeat(200), &"a".repeat(199)));
    }
}
