//! Ways to see the credential, to use another, or to do without.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bottle_tests::Home;
use bottle_tests::engine::docker;

use super::{API, FREE, Fixture, TOKEN, assert_refused, get, headers, tunnel};

/// A destination that sends the credential back, again and again. (An echo endpoint; agent-vault #258.)
pub(crate) fn row_45_a_destination_that_keeps_echoing(f: &Fixture) {
    let host = "suspend.example.com";
    let mut reasons = Vec::new();
    for _ in 0..20 {
        let outcomes = f.in_tunnels(host, &[get(host, "/reflect")]);
        assert!(!outcomes[0].answer.contains(TOKEN), "{outcomes:?}");
        reasons.extend(
            outcomes[0]
                .reasons()
                .iter()
                .map(|&reason| reason.to_owned()),
        );
    }
    assert!(
        reasons.contains(&"route_suspended".to_owned()),
        "{reasons:?}"
    );
    f.assert_recorded(host, "credential_reflected");
}

/// The same in every form a destination writes it in, in the body and in the head.
pub(crate) fn row_46_reflected_in_other_forms(f: &Fixture) {
    let host = "reflect.example.com";
    let forms = [
        "raw",
        "base64",
        "base64url",
        "hex",
        "HEX",
        "percent",
        "multipart",
        "json",
        "chunks",
        "phrase",
        "location",
        "header",
    ];
    let needles = needles(TOKEN);
    for form in forms {
        let outcomes = f.in_tunnels(host, &[get(host, &format!("/reflect?form={form}"))]);
        let answer = &outcomes[0].answer;
        assert!(
            outcomes[0].reasons().is_empty() && answer.contains("HTTP/1.1 "),
            "{form}: {outcomes:?}"
        );
        // Chunks would hide what is in pieces.
        let joined: String = answer
            .split("\r\n")
            .filter(|line| line.len() != 1)
            .collect();
        for needle in &needles {
            assert!(
                !answer.contains(needle) && !joined.contains(needle),
                "{form}: {answer}"
            );
        }
    }
    let compressed = f.in_tunnels(host, &[get(host, "/reflect?form=gzip")]);
    assert_refused(&compressed[0], "encoded_response");
}

/// What must not come back: the value, and enough of its encodings.
fn needles(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let hex = |upper: bool, prefix: &str| -> String {
        let one = |byte: &u8| {
            if upper {
                format!("{prefix}{byte:02X}")
            } else {
                format!("{prefix}{byte:02x}")
            }
        };
        bytes.iter().map(one).collect()
    };
    let mut all = vec![
        value.to_owned(),
        hex(false, ""),
        hex(true, ""),
        hex(true, "%"),
    ];
    for shift in 0..3 {
        // The middle is the same whatever stands before and after.
        let encoded = STANDARD_NO_PAD.encode([&b"xxx"[..shift], bytes].concat());
        all.push(encoded[4..encoded.len() - 4].to_owned());
    }
    all
}

/// A key of the attacker's on an allowed host: what is uploaded with it is the attacker's. (PromptArmor, Cowork.)
pub(crate) fn row_48_a_key_of_the_attackers_own(f: &Fixture) {
    let with = |header: &str, mark: &str| {
        format!(
            "GET /bytes?n=3&mark={mark} HTTP/1.1\r\nHost: api.example.com\r\n{header}\r\nConnection: close\r\n\r\n"
        )
    };
    let outcomes = f.in_tunnels(
        API,
        &[
            with("Authorization: Bearer attackers-own-key-1", "row-48-own"),
            with(
                "Authorization: Basic YXR0YWNrZXI6a2V5LTEyMzQ=",
                "row-48-own",
            ),
        ],
    );
    for outcome in &outcomes {
        assert_refused(outcome, "foreign_credential");
    }
    f.assert_nothing_arrived("row-48-own");
    let others = [
        "X-Api-Key",
        "Cookie",
        "Api-Key",
        "X-Goog-Api-Key",
        "Private-Token",
    ];
    let requests = others.map(|name| with(&format!("{name}: attackers-own-key-2"), "row-48-other"));
    let _ = f.in_tunnels(API, &requests);
    for request in f.arrived("row-48-other") {
        assert_eq!(
            headers(&request, "authorization"),
            [format!("Bearer {TOKEN}")]
        );
    }
    f.assert_nothing_arrived("attackers-own-key");
}

/// A value with a line end in it would be two headers. Nothing is started with one.
pub(crate) fn row_54_a_value_with_line_ends(_: &Fixture) {
    for value in [
        "tok-broken-0001\r\nx-injected: yes",
        "tok-broken\u{1b}[0001",
    ] {
        let home = Home::with_env(&[("TEST_TOKEN", value)]);
        let route = "{host: api.example.com, auth: {scheme: Bearer, token_ref: TEST_TOKEN}}";
        home.bottle(
            "web",
            &format!("image: debian:trixie-slim\negress: {{routes: [{route}]}}\n"),
        );
        let slug = home.slug("bad");
        let compose = home.render(&home.plan("web", &slug));
        let done = home.tool("bottle-run").args(["up"]).stdin(compose).run();
        assert_eq!(done.code(), 2, "{value:?}: {}{}", done.stdout, done.stderr);
        assert!(
            done.stderr.contains("TEST_TOKEN") && !done.stderr.contains("tok-broken"),
            "{}",
            done.stderr
        );
        assert_eq!(home.left_of(&slug), Vec::<String>::new());
    }
}

/// The placeholder where it does not belong: a canary, and no oracle.
pub(crate) fn row_55_the_placeholder_elsewhere(f: &Fixture) {
    let placeholder = f.bottle.exec(&["printenv", "TEST_TOKEN"]).ok();
    let placeholder = placeholder.trim();
    let coded = STANDARD.encode(format!("key:{placeholder}"));
    let hex: String = placeholder
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let with = |host: &str, target: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let elsewhere = [
        with(FREE, &format!("/bytes?row-55&key={placeholder}"), "", ""),
        with(FREE, &format!("/bytes/{placeholder}?row-55"), "", ""),
        with(
            FREE,
            "/bytes?row-55",
            &format!("X-Key: {placeholder}\r\n"),
            "",
        ),
        with(
            FREE,
            "/bytes?row-55",
            &format!("Authorization: Basic {coded}\r\n"),
            "",
        ),
        with(FREE, "/bytes?row-55", &format!("X-Key: {hex}\r\n"), ""),
        with(
            FREE,
            "/bytes?row-55",
            "",
            &format!("{{\"env\": \"{placeholder}\"}}"),
        ),
        with(FREE, "/bytes?row-55", "", &coded),
    ];
    for outcome in f.in_tunnels(FREE, &elsewhere) {
        assert_refused(&outcome, "placeholder_misuse");
    }
    let own = [
        with(API, &format!("/bytes?row-55&key={placeholder}"), "", ""),
        with(API, &format!("/bytes/{placeholder}?row-55"), "", ""),
    ];
    for outcome in f.in_tunnels(API, &own) {
        assert_refused(&outcome, "placeholder_misuse");
    }
    for request in f.arrived("row-55") {
        assert!(!request.to_string().contains(placeholder), "{request}");
    }
    // In a name it goes nowhere either.
    let name = format!(
        "{}.example.com",
        placeholder.replace('_', "-").to_lowercase()
    );
    let lookup = f.bottle.probe(&[format!("resolve:{name}")]);
    lookup.assert_closed();
    assert!(!docker(["logs", &f.bottle.egress()]).stderr.contains(TOKEN));
}

/// A value with line ends or spaces between its letters, as they are and as JSON and URLs write them. (A file in folded
/// base64; an agent that was told to spell it.)
pub(crate) fn row_55_a_value_in_pieces(f: &Fixture) {
    let letters = |gap: &str| -> String {
        let letters: Vec<String> = TOKEN.chars().map(String::from).collect();
        letters.join(gap)
    };
    let coded = STANDARD.encode(format!("a file that holds {TOKEN} and goes on"));
    let folded: Vec<&str> = [0, 16, 32, 48]
        .iter()
        .map(|&at| &coded[at..coded.len().min(at + 16)])
        .chain([&coded[64..]])
        .collect();
    let post = |target: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {target} HTTP/1.1\r\nHost: {FREE}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let requests = [
        post("/bytes?row-55-pieces", "", &letters(" ")),
        post("/bytes?row-55-pieces", "", &letters("\n")),
        post("/bytes?row-55-pieces", "", &letters("\r\n  ")),
        post(
            "/bytes?row-55-pieces",
            "",
            &format!("{{\"text\":\"{}\"}}", letters(r"\n")),
        ),
        post(
            "/bytes?row-55-pieces",
            "",
            &format!("text={}", letters("%0A")),
        ),
        post("/bytes?row-55-pieces", "", &folded.join("\r\n")),
        post("/bytes?row-55-pieces", "", &folded.join(r"\n")),
        post(
            &format!("/bytes?row-55-pieces&q={}", letters("%20")),
            "",
            "",
        ),
        post(&format!("/bytes?row-55-pieces&q={}", letters("+")), "", ""),
        post(
            "/bytes?row-55-pieces",
            &format!("X-Note: {}\r\n", letters(" ")),
            "",
        ),
    ];
    for (request, outcome) in requests.iter().zip(f.in_tunnels(FREE, &requests)) {
        assert_eq!(outcome.reasons(), ["secret_leak"], "{request}: {outcome:?}");
    }
    // Piece by piece: what was sent before it showed is not enough of it.
    let head = format!(
        "POST /bytes?row-55-pieces HTTP/1.1\r\nHost: {FREE}\r\nContent-Length: 1000\r\n\r\n"
    );
    let mut pieces = vec![head];
    pieces.extend(TOKEN.chars().map(|letter| format!("{letter}\n")));
    let mut exchange = tunnel(FREE, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
    exchange.pause_ms = 20;
    let outcomes = f.bottle.raw(&[exchange]);
    assert_refused(&outcomes[0], "secret_leak");
    f.assert_nothing_arrived("row-55-pieces");
    // The control: as many letters and line ends that are nothing.
    let harmless = post(
        "/bytes?n=3&mark=row-55-words",
        "",
        &letters("\n").replace('t', "T"),
    );
    let outcomes = f.in_tunnels(FREE, &[harmless]);
    assert_eq!(outcomes[0].statuses(), [200], "{outcomes:?}");
    assert_eq!(f.arrived("row-55-words").len(), 1);
}

/// A session that the destination opens for the credential is as good as the credential.
pub(crate) fn row_56_cookies_of_a_session(f: &Fixture) {
    let host = "reflect.example.com";
    let outcomes = f.in_tunnels(host, &[get(host, "/reflect?form=cookie")]);
    let answer = outcomes[0].answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(!answer.contains("set-cookie"), "{answer}");
}

/// What a destination makes for the credential is as good as the credential, and nobody knew its value. (OAuth's refresh,
/// a forge's installation tokens.)
pub(crate) fn row_50_a_token_the_destination_mints(f: &Fixture) {
    let minted = ["ghs_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat();
    let opaque = "opaque.5d41402abc4b2a76/b9719d911017c592==";
    let host = "mint.example.com";
    let outcomes = f.in_tunnels(host, &[get(host, "/reflect?form=minted")]);
    let in_h2 = f.bottle.raw(&[super::h2::in_h2(
        host,
        &[&super::h2::request(
            host,
            "GET",
            "/reflect?form=minted",
            &[],
        )],
    )]);
    for outcome in outcomes.iter().chain(&in_h2) {
        let answer = &outcome.answer;
        assert!(
            !answer.contains(&minted) && !answer.contains(opaque),
            "{outcome:?}"
        );
        // As long as it was, and still JSON.
        let stars = format!(
            r#"{{"token":"{}","access_token":"{}","refresh_token": "{}","expires_in":3600}}"#,
            "*".repeat(minted.len()),
            "*".repeat(opaque.len()),
            "*".repeat(opaque.len())
        );
        assert!(answer.contains(&stars), "{outcome:?}");
    }
    f.assert_recorded(host, "credential_minted");
    // The control: it is what the destination sends, and where there is no credential nothing is changed.
    let plain = f.in_tunnels(FREE, &[get(FREE, "/reflect?form=minted")]);
    assert!(
        plain[0].answer.contains(&minted) && plain[0].answer.contains(opaque),
        "{plain:?}"
    );
}

/// A route whose credential is missing answers nothing, rather than without it.
pub(crate) fn row_57_without_its_value_nothing_passes(f: &Fixture) {
    let host = "gone.example.com";
    f.reload(|routes| {
        let find = |name: &str| {
            routes
                .iter()
                .position(|route| route["host"] == name)
                .expect("its route")
        };
        let (from, to) = (find(API), find(host));
        let mut auth = routes[from]["auth"].clone();
        auth["slot"] = "EGRESS_TOKEN_99".into();
        auth["placeholder"] = "placeholder-of-nothing-at-all".into();
        routes[to]["auth"] = auth;
    });
    let with = format!(
        "GET /bytes?row-57 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer placeholder-of-nothing-at-all\r\n\
         Connection: close\r\n\r\n"
    );
    for outcome in f.in_tunnels(host, &[get(host, "/bytes?row-57"), with]) {
        assert_refused(&outcome, "credential_unavailable");
    }
    f.assert_nothing_arrived("row-57");
}
