//! The parsers and scanners that meet what a stranger wrote, each with what must hold whatever that was.
//!
//! `sidecars/fuzz` calls these functions with what libFuzzer thinks up; the test below calls them with the seeds kept
//! there, so that they cannot rot. They are only compiled for the two.

// A property that fails is a panic: that is how a fuzzer is told. Fixtures are not input, so they may be expected.
#![allow(clippy::expect_used)]

use crate::egress::{frames as egress_frames, hello as egress_hello};

#[path = "../fuzz/properties/authority.rs"]
mod authority;
#[path = "../fuzz/properties/dns.rs"]
mod dns;
#[path = "../fuzz/properties/fixture.rs"]
mod fixture;
#[path = "../fuzz/properties/frames.rs"]
mod frames;
#[path = "../fuzz/properties/head.rs"]
mod head;
#[path = "../fuzz/properties/hello.rs"]
mod hello;
#[path = "../fuzz/properties/needles.rs"]
mod needles;
#[path = "../fuzz/properties/path.rs"]
mod path;
#[path = "../fuzz/properties/policy.rs"]
mod policy;
#[path = "../fuzz/properties/tokens.rs"]
mod tokens;

pub use authority::authority;
pub use dns::dns;
pub use frames::frames;
pub use head::head;
pub use hello::hello;
pub use needles::needles;
pub use path::path;
pub use policy::policy;
pub use tokens::tokens;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    type Property = fn(&[u8]);

    const TARGETS: &[(&str, Property)] = &[
        ("authority", super::authority),
        ("dns", super::dns),
        ("frames", super::frames),
        ("head", super::head),
        ("hello", super::hello),
        ("needles", super::needles),
        ("path", super::path),
        ("policy", super::policy),
        ("tokens", super::tokens),
    ];

    fn names(folder: &str) -> BTreeSet<String> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(folder);
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_seeds_hold() {
        for (target, property) in TARGETS {
            let seeds = names(&format!("corpus/{target}"));
            assert!(!seeds.is_empty(), "{target} has no seeds");
            for seed in seeds {
                let path = format!("{}/fuzz/corpus/{target}/{seed}", env!("CARGO_MANIFEST_DIR"));
                let seed = fs::read(&path).unwrap();
                eprintln!("{path}");
                property(&seed);
                // What a connection breaks off in the middle of is input too.
                for end in 0..seed.len().min(400) {
                    property(&seed[..end]);
                }
            }
        }
    }

    #[test]
    fn every_target_is_in_the_table() {
        let table: BTreeSet<String> = TARGETS
            .iter()
            .map(|(target, _)| format!("{target}.rs"))
            .collect();
        assert_eq!(names("fuzz_targets"), table);
    }
}
