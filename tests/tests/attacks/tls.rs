//! Certificates: the bottle's own, and those of destinations.

use std::fs;

use bottle_tests::raw::{Exchange, client_hello};

use super::{API, Fixture, MISNAMED, PINNED, UNTRUSTED, assert_refused, connect};

/// A tunnel that is passed through is known by the name in its first bytes. The name that is meant can be in them too,
/// and nobody but the destination can read it. (Fronting by Encrypted Client Hello.)
pub(crate) fn row_21_a_hidden_server_name(f: &Fixture) {
    const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
    let through = |name: &str, more: Option<u16>| Exchange {
        to: "egress:3128".to_owned(),
        connect: format!("{PINNED}:443"),
        send: vec![client_hello(name, more)],
        ..Exchange::default()
    };
    let led = |name: &str, more: Option<u16>| Exchange {
        to: format!("{PINNED}:443"),
        connect: String::new(),
        ..through(name, more)
    };
    let server_hello = "\u{16}\u{3}\u{3}";
    // The control: it is the destination that answers, whose certificate the bottle's CA did not sign.
    for exchange in [
        through(PINNED, None),
        led(PINNED, None),
        through(PINNED, Some(0x0a0a)),
    ] {
        let outcomes = f.bottle.raw(&[exchange]);
        assert!(outcomes[0].answer.starts_with(server_hello), "{outcomes:?}");
    }
    let pem = f.internet.ca_pem();
    for way in ["", "--direct"] {
        let script = format!(
            "cat > /tmp/pinned.pem <<'PEM'\n{pem}PEM\n\
             SSL_CERT_FILE=/tmp/pinned.pem exec bottle-testkit fetch {way} GET 'https://{PINNED}/bytes?n=5'"
        );
        let answer = f.bottle.exec(&["sh", "-c", &script]).json();
        assert_eq!(answer["body"], "xxxxx", "{way}: {answer}");
    }
    let hidden = Some(ENCRYPTED_CLIENT_HELLO);
    let refused = [
        (through(PINNED, hidden), "sni_hidden"),
        (led(PINNED, hidden), "sni_hidden"),
        (through(API, None), "authority_mismatch"),
        (through("other.example.org", None), "authority_mismatch"),
    ];
    for (exchange, reason) in refused {
        let outcomes = f.bottle.raw(&[exchange]);
        assert!(
            !outcomes[0].answer.starts_with(server_hello),
            "{outcomes:?}"
        );
        assert!(outcomes[0].closed, "{outcomes:?}");
        f.assert_recorded(PINNED, reason);
    }
}

/// The key that signs for every site the agent talks to.
pub(crate) fn row_58_the_key_of_the_ca(f: &Fixture) {
    let path = f.home.state(&f.bottle.slug).join("egress/mitmproxy-ca.pem");
    let pem = fs::read_to_string(path).expect("the CA");
    let key = pem.split("PRIVATE KEY-----").nth(1).expect("a key");
    let key = key
        .lines()
        .find(|line| line.len() > 40)
        .expect("its first line");
    let script = "cat /run/bottle/* /etc/bottle/* /proc/[0-9]*/environ 2>/dev/null; \
                  find / /tmp /run -xdev -type f -size -2M -readable -not -path '/usr/*' -exec cat {} + 2>/dev/null; true";
    let seen = f.bottle.exec(&["sh", "-c", script]).ok();
    assert!(
        seen.contains("-----BEGIN CERTIFICATE-----"),
        "the search found no certificate"
    );
    assert!(!seen.contains(key), "the agent has the key of the CA");
}

/// What the CA may sign: the hosts of the routes and nothing else, whoever has its key. Its own words are read back here;
/// that clients heed them is OpenSSL's word for it.
pub(crate) fn row_59_the_ca_signs_for_the_routes_alone(f: &Fixture) {
    let folder = f.home.state(&f.bottle.slug).join("egress");
    let certificate = folder.join("mitmproxy-ca-cert.pem").display().to_string();
    let openssl = |args: &[&str]| {
        let call = bottle_tests::Call::new("openssl").args(args.iter().copied());
        call.run()
    };
    let text = openssl(&["x509", "-in", &certificate, "-noout", "-text"]).ok();
    assert!(text.contains("X509v3 Name Constraints: critical"), "{text}");
    let scratch = f.home.cwd();
    let leaf = |name: &str| {
        let file = |ending: &str| {
            scratch
                .join(format!("{name}.{ending}"))
                .display()
                .to_string()
        };
        let ca = folder.join("mitmproxy-ca.pem").display().to_string();
        let names = format!("subjectAltName=DNS:{name}");
        let subject = "/CN=leaf";
        let (key, request, signed) = (file("key"), file("csr"), file("crt"));
        let make = [
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            subject,
        ];
        let _ = openssl(
            &[
                &make[..],
                &["-addext", &names, "-keyout", &key, "-out", &request],
            ]
            .concat(),
        )
        .ok();
        let sign = [
            "x509",
            "-req",
            "-days",
            "1",
            "-copy_extensions",
            "copy",
            "-CA",
            &ca,
            "-CAkey",
            &ca,
        ];
        let _ = openssl(&[&sign[..], &["-in", &request, "-out", &signed]].concat()).ok();
        openssl(&["verify", "-CAfile", &certificate, &signed])
    };
    assert_eq!(leaf("free.example.com").code(), 0);
    let stranger = leaf("bank.example.org");
    assert_ne!(stranger.code(), 0, "{}", stranger.stdout);
    assert!(
        stranger.stderr.contains("permitted subtree violation"),
        "{}",
        stranger.stderr
    );
}

/// A certificate is made for allowed names alone, so names without end cost nothing.
pub(crate) fn row_61_a_flood_of_server_names(f: &Fixture) {
    let exchanges: Vec<Exchange> = (0..300)
        .map(|number| Exchange {
            to: "egress:443".to_owned(),
            sni: format!("n{number}.flood.example.org"),
            ..Exchange::default()
        })
        .collect();
    for batch in exchanges.chunks(100) {
        for outcome in f.bottle.raw(batch) {
            assert!(
                outcome.error.to_lowercase().contains("accessdenied")
                    || outcome.error.contains("access_denied"),
                "{outcome:?}"
            );
        }
    }
    f.assert_recorded("n0.flood.example.org", "host_not_allowed");
    f.assert_works();
}

/// A destination with another's certificate, and one with nobody's. (A hijacked route or resolver.)
pub(crate) fn row_62_destinations_that_are_not_who_they_say(f: &Fixture) {
    let outcomes = f.bottle.raw(&[
        connect(&format!("{MISNAMED}:443")),
        connect(&format!("{UNTRUSTED}:443")),
    ]);
    for outcome in &outcomes {
        assert_refused(outcome, "upstream_tls");
    }
    // They were reached: it is the certificate that was refused.
    assert!(!f.untrusted.events_of("connection").is_empty());
    assert!(f.untrusted.events_of("request").is_empty());
}
