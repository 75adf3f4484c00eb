use bottle_plan::policy::{Auth, AuthScheme};
use hyper::Request;

use super::*;

const SECRET: &str = "sk-real-0123456789";
const PLACEHOLDER: &str = "bottle-placeholder-1";

fn auth(scheme: AuthScheme, header: &str) -> Auth {
    let (slot, header) = ("EGRESS_TOKEN_0".into(), header.into());
    Auth {
        scheme,
        header,
        slot,
        user: Some("bot".into()),
        placeholder: Some(PLACEHOLDER.into()),
    }
}

fn credential(auth: &Auth, value: Option<&str>) -> Result<Credential, String> {
    let slots = |_: &str| value.map(|value| Zeroizing::new(value.as_bytes().to_vec()));
    Credential::new(auth, &slots)
}

fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn inject(auth: &Auth, uri: &str, headers: &[(&str, &str)]) -> Result<Parts, Reason> {
    let credential = credential(auth, Some(SECRET)).unwrap();
    let mut parts = parts(uri, headers);
    credential.inject(&mut parts).map(|()| parts)
}

#[test]
fn every_scheme_writes_its_own_form() {
    let cases = [
        (
            AuthScheme::Bearer,
            "authorization",
            "Bearer sk-real-0123456789",
        ),
        (
            AuthScheme::Token,
            "authorization",
            "token sk-real-0123456789",
        ),
        (
            AuthScheme::Basic,
            "authorization",
            "Basic Ym90OnNrLXJlYWwtMDEyMzQ1Njc4OQ==",
        ),
        (AuthScheme::Header, "x-api-key", "sk-real-0123456789"),
    ];
    for (scheme, header, expected) in cases {
        let parts = inject(&auth(scheme, header), "/", &[]).unwrap();
        assert_eq!(parts.headers[header], expected);
        assert!(parts.headers[header].is_sensitive());
        assert!(!format!("{:?}", parts.headers).contains(SECRET));
    }
    let query = auth(AuthScheme::Query, "key");
    assert_eq!(
        inject(&query, "/a", &[]).unwrap().uri,
        "/a?key=sk-real-0123456789"
    );
    assert_eq!(
        inject(&query, "/a?x=1&key=bottle-placeholder-1&y", &[])
            .unwrap()
            .uri,
        "/a?x=1&y&key=sk-real-0123456789"
    );
}

#[test]
fn the_agents_own_credentials_are_taken_out() {
    let sent = [
        ("x-api-key", PLACEHOLDER),
        ("authorization", "Bearer x"),
        ("cookie", "s=1"),
        ("private-token", "t"),
    ];
    let parts = inject(&auth(AuthScheme::Header, "x-api-key"), "/", &sent).unwrap();
    assert_eq!(parts.headers.len(), 1);
    assert_eq!(parts.headers["x-api-key"], SECRET);
}

#[test]
fn a_foreign_credential_in_the_slot_is_refused() {
    let bearer = auth(AuthScheme::Bearer, "authorization");
    let fine = [
        "",
        PLACEHOLDER,
        "Bearer bottle-placeholder-1",
        "token  bottle-placeholder-1",
        // x:bottle-placeholder-1
        "Basic eDpib3R0bGUtcGxhY2Vob2xkZXItMQ==",
    ];
    for value in fine {
        let got = inject(&bearer, "/", &[("authorization", value)]);
        assert!(got.is_ok(), "{value}");
    }
    for value in [
        "Bearer other",
        "Bearer bottle-placeholder-1x",
        "Basic eDp5",
        "bottle-placeholder-1 x",
    ] {
        let got = inject(&bearer, "/", &[("authorization", value)]).map(|_| ());
        assert_eq!(got, Err(Reason::ForeignCredential), "{value}");
    }
    let query = auth(AuthScheme::Query, "key");
    assert_eq!(
        inject(&query, "/?key=mine", &[]).map(|_| ()),
        Err(Reason::ForeignCredential)
    );
    assert_eq!(
        inject(&query, "/?%6bey=mine", &[]).map(|_| ()),
        Err(Reason::ForeignCredential)
    );
}

#[test]
fn an_unusable_slot_fails_closed() {
    let bearer = auth(AuthScheme::Bearer, "authorization");
    for value in [
        None,
        Some(""),
        Some("short"),
        Some("with\nnewline"),
        Some("with\rreturn"),
        Some("nul\0nul-nul"),
        Some("sch\u{f6}n-lang"),
    ] {
        let credential = credential(&bearer, value).unwrap();
        assert_eq!(
            credential.inject(&mut parts("/", &[])),
            Err(Reason::CredentialUnavailable),
            "{value:?}"
        );
    }
    assert!(
        credential(&bearer, Some("sk-real-0123456789\n"))
            .unwrap()
            .is_available()
    );
}

#[test]
fn places_that_steer_the_message_cannot_hold_a_credential() {
    for header in [
        "host",
        "content-length",
        "connection",
        "transfer-encoding",
        "x-forwarded-for",
        "a b",
        "",
    ] {
        assert!(
            credential(&auth(AuthScheme::Header, header), None).is_err(),
            "{header}"
        );
    }
    assert!(credential(&auth(AuthScheme::Query, "a&b"), None).is_err());
}

#[test]
fn heads_are_looked_through() {
    let own = credential(&auth(AuthScheme::Bearer, "authorization"), Some(SECRET)).unwrap();
    let all = Needles::of_bottle(std::iter::once(&own)).unwrap();
    let base64 = "eC5ib3QtYm90dGxlLXBsYWNlaG9sZGVyLTE=";
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<(), Reason>);
    let cases: &[Case<'_>] = &[
        (
            "/",
            &[("authorization", "Bearer bottle-placeholder-1")],
            Ok(()),
        ),
        ("/", &[("x-api-key", PLACEHOLDER)], Ok(())),
        (
            "/",
            &[("x-other", PLACEHOLDER)],
            Err(Reason::PlaceholderMisuse),
        ),
        ("/", &[("x-other", base64)], Err(Reason::PlaceholderMisuse)),
        (
            "/?q=bottle-placeholder-1",
            &[],
            Err(Reason::PlaceholderMisuse),
        ),
        (
            "/bottle%2Dplaceholder%2D1",
            &[],
            Err(Reason::PlaceholderMisuse),
        ),
        (
            "/",
            &[("authorization", "Bearer sk-real-0123456789")],
            Err(Reason::SecretLeak),
        ),
        ("/?q=sk%2dreal-%30123456789", &[], Err(Reason::SecretLeak)),
        (
            "/?q=736b2d7265616c2d30313233343536373839",
            &[],
            Err(Reason::SecretLeak),
        ),
        ("/harmless?q=1", &[("x-other", "harmless")], Ok(())),
    ];
    for (uri, headers, expected) in cases {
        assert_eq!(
            check_head(&parts(uri, headers), &all, Some(&own)),
            *expected,
            "{uri} {headers:?}"
        );
    }
    // On a route without this credential even its usual place is wrong.
    let elsewhere = parts("/", &[("authorization", "Bearer bottle-placeholder-1")]);
    assert_eq!(
        check_head(&elsewhere, &all, None),
        Err(Reason::PlaceholderMisuse)
    );
}
