//! What an earlier start leaves behind for a later one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_tests::{Bottle, Home, need_engine};
use sha2::{Digest as _, Sha256};

use crate::PLAIN;

/// Certificates in a bundle, by their SHA-256.
fn fingerprints(pem: &str) -> Vec<String> {
    let end = "-----END CERTIFICATE-----";
    let bodies = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    bodies
        .map(|rest| {
            let body: String = rest
                .split(end)
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let der = STANDARD.decode(body).expect("base64");
            Sha256::digest(der)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        })
        .collect()
}

/// The CA of an earlier start is trusted no longer: a snapshot that is gone on from has exactly one, and it is the new one.
#[test]
fn row_60_after_resume_one_ca_is_trusted() {
    if !need_engine("row_60_after_resume_one_ca_is_trusted") {
        return;
    }
    let home = Home::new();
    home.bottle("web", PLAIN);
    let slug = home.slug("again");
    let mut bottle = home.up("web", &slug);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let own = bottle.handle["ca_fingerprint"]
            .as_str()
            .expect("a fingerprint")
            .replace(':', "")
            .to_lowercase();
        let own = own.trim_start_matches("sha256").to_owned();
        assert!(!seen.contains(&own), "a new start has a new CA");
        seen.push(own.clone());
        // The image has no roots of its own, so whatever is in a bundle is a bottle's.
        for bundle in [
            "/etc/bottle/ca-bundle.pem",
            "/etc/ssl/certs/ca-certificates.crt",
        ] {
            let pem = bottle.exec(&["cat", bundle]).ok();
            assert_eq!(fingerprints(&pem), [own.as_str()], "{bundle}");
        }
        let anchors = bottle
            .exec(&[
                "sh",
                "-c",
                "cat /usr/local/share/ca-certificates/* /etc/ssl/certs/*.0",
            ])
            .ok();
        assert!(
            fingerprints(&anchors).iter().all(|found| *found == own),
            "{anchors}"
        );
        let _ = home
            .tool("bottle-snapshot")
            .args(["commit", &slug])
            .run()
            .ok();
        home.down(&slug);
        let plan = home.tool("bottle-plan").args(["--resume", &slug]).run();
        let compose = home.render(&plan.ok());
        let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
        bottle = Bottle::started(&home, &slug, up.json());
    }
    home.down(&slug);
}
