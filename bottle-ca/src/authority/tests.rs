use std::collections::HashSet;

use time::macros::datetime;
use x509_parser::extensions::ParsedExtension;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00:00.75 UTC);

fn request() -> Request {
    Request {
        dir: "/nowhere".into(),
        common_name: "bottle egress CA demo-x1y2z".to_owned(),
        hosts: vec!["api.example.com".to_owned(), "*.example.org".to_owned()],
        any_host: false,
        addresses: Vec::new(),
        days: 30,
    }
}

#[test]
fn a_minted_ca_is_what_was_asked_for() {
    let authority = mint(&request(), NOW).unwrap();
    assert_eq!(authority.common_name(), "bottle egress CA demo-x1y2z");
    assert_eq!(authority.not_before(), datetime!(2026-11-23 11:00 UTC));
    assert_eq!(authority.not_after(), datetime!(2026-12-23 12:00 UTC));
    assert_eq!(*authority.scope(), request().scope().unwrap());
    assert_eq!(authority.fingerprint().len(), 95);
    assert!(
        authority
            .key_pem()
            .starts_with("-----BEGIN PRIVATE KEY-----\n")
    );
    assert!(
        authority
            .cert_pem()
            .ends_with("-----END CERTIFICATE-----\n")
    );
}

#[test]
fn its_extensions_are_those_of_the_profile_and_critical_where_they_must_be() {
    let authority = mint(&request(), NOW).unwrap();
    let (_, certificate) = X509Certificate::from_der(authority.cert_der()).unwrap();
    let mut extensions: Vec<_> = certificate
        .extensions()
        .iter()
        .map(|e| (e.oid.to_id_string(), e.critical))
        .collect();
    extensions.sort();
    let expected = [
        ("2.5.29.14", false), // subject key identifier
        ("2.5.29.15", true),  // key usage
        ("2.5.29.19", true),  // basic constraints
        ("2.5.29.30", true),  // name constraints
        ("2.5.29.35", false), // authority key identifier
        ("2.5.29.37", false), // extended key usage
    ];
    assert_eq!(
        extensions,
        expected.map(|(oid, critical)| (oid.to_owned(), critical))
    );
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign());
    assert_eq!(usage.flags.count_ones(), 2);
    let (own, issuer) = certificate
        .extensions()
        .iter()
        .fold((None, None), |(own, issuer), e| {
            match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => (Some(id.0), issuer),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    (own, id.key_identifier.as_ref().map(|id| id.0))
                }
                _ => (own, issuer),
            }
        });
    let point = &certificate.public_key().subject_public_key.data;
    let expected = digest(&SHA1_FOR_LEGACY_USE_ONLY, point);
    assert_eq!(
        (own, issuer),
        (Some(expected.as_ref()), Some(expected.as_ref()))
    );
}

#[test]
fn serials_are_positive_random_and_never_twice() {
    let mut seen = HashSet::new();
    for _ in 0..64 {
        let authority = mint(&request(), NOW).unwrap();
        let (_, certificate) = X509Certificate::from_der(authority.cert_der()).unwrap();
        let serial = certificate.raw_serial();
        assert!(serial.len() <= 17 && serial.len() >= 12, "{serial:?}");
        assert_eq!(serial[0] & 0x80, 0, "negative: {serial:?}");
        assert!(seen.insert(serial.to_vec()));
    }
}

#[test]
fn no_hosts_no_addresses_and_many_hosts_all_come_back_from_the_certificate() {
    let many = (0..500).map(|n| format!("h{n}.example")).collect();
    for (hosts, addresses) in [
        (vec![], vec![]),
        (vec![], vec!["10.0.0.0/8".parse().unwrap()]),
        (
            vec!["a.example".to_owned()],
            vec!["::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
        ),
        (many, vec![]),
    ] {
        let request = Request {
            hosts,
            addresses,
            ..request()
        };
        let scope = request.scope().unwrap();
        assert_eq!(*mint(&request, NOW).unwrap().scope(), scope);
    }
}

#[test]
fn wrong_requests_are_refused_before_anything_is_made() {
    let bad = [
        Request {
            common_name: String::new(),
            ..request()
        },
        Request {
            common_name: "x ".repeat(33),
            ..request()
        },
        Request {
            common_name: "a\nb".to_owned(),
            ..request()
        },
        Request {
            common_name: "github.com".to_owned(),
            ..request()
        },
        Request {
            days: 0,
            ..request()
        },
        Request {
            days: MAX_DAYS + 1,
            ..request()
        },
        Request {
            hosts: vec!["*".to_owned()],
            ..request()
        },
    ];
    for request in bad {
        assert_eq!(
            mint(&request, NOW).unwrap_err().kind().code(),
            2,
            "{request:?}"
        );
    }
}

#[test]
fn an_impossible_clock_is_an_error_and_no_panic() {
    let end = datetime!(9999-12-31 23:59:59 UTC);
    assert!(mint(&request(), end).is_err());
}

#[test]
fn validity_ends_on_both_sides() {
    let authority = mint(&request(), NOW).unwrap();
    assert!(authority.check_valid_at(NOW).is_ok());
    assert!(authority.check_valid_at(authority.not_after()).is_ok());
    assert!(
        authority
            .check_valid_at(authority.not_after() + Duration::SECOND)
            .is_err()
    );
    assert!(
        authority
            .check_valid_at(authority.not_before() - Duration::SECOND)
            .is_err()
    );
}

#[test]
fn another_ca_of_the_same_form_has_another_key() {
    let (one, two) = (
        mint(&request(), NOW).unwrap(),
        mint(&request(), NOW).unwrap(),
    );
    let key = PrivatePkcs8KeyDer::from(one.key.as_slice());
    let failure = Authority::from_der(&key, two.cert_der()).unwrap_err();
    assert!(
        failure.chain().contains("does not belong"),
        "{}",
        failure.chain()
    );
}

#[test]
fn a_constraint_changed_afterwards_breaks_the_signature() {
    let authority = mint(&request(), NOW).unwrap();
    let mut der = authority.cert_der().to_vec();
    let at = der
        .windows(15)
        .position(|w| w == b"api.example.com")
        .unwrap();
    der[at..at + 15].copy_from_slice(b"evi.example.com");
    let failure =
        Authority::from_der(&PrivatePkcs8KeyDer::from(authority.key.as_slice()), &der).unwrap_err();
    assert!(failure.chain().contains("signature"), "{}", failure.chain());
}

/// A certificate like ours but for what `change` does to it, and its key.
fn altered(change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, Vec<u8>) {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "bottle egress CA x");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(request().scope().unwrap().to_extension());
    change(&mut params);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    (
        key.serialize_der(),
        params.self_signed(&key).unwrap().der().to_vec(),
    )
}

fn take(pair: &(Vec<u8>, Vec<u8>)) -> Result<Authority> {
    Authority::from_der(&PrivatePkcs8KeyDer::from(pair.0.as_slice()), &pair.1)
}

#[test]
fn a_ca_that_may_sign_more_than_ours_is_not_taken_over() {
    assert!(take(&altered(|_| ())).is_ok());
    type Change = (&'static str, fn(&mut CertificateParams));
    let changes: [Change; 8] = [
        ("no constraints", |p| p.name_constraints = None),
        ("no exclusions", |p| {
            if let Some(c) = &mut p.name_constraints {
                c.excluded_subtrees.clear();
            }
        }),
        ("no permitted names", |p| {
            if let Some(c) = &mut p.name_constraints {
                c.permitted_subtrees.clear();
            }
        }),
        ("no e-mail limit", |p| {
            if let Some(c) = &mut p.name_constraints {
                c.permitted_subtrees
                    .retain(|s| !matches!(s, rcgen::GeneralSubtree::Rfc822Name(_)));
            }
        }),
        ("longer paths", |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        }),
        ("no CA", |p| p.is_ca = IsCa::ExplicitNoCa),
        ("any purpose", |p| p.extended_key_usages.clear()),
        ("usable as a leaf", |p| {
            p.key_usages.push(KeyUsagePurpose::DigitalSignature);
        }),
    ];
    for (what, change) in changes {
        let failure = take(&altered(change)).unwrap_err();
        assert!(
            failure.chain().contains("not one that bottle-ca makes"),
            "{what}: {}",
            failure.chain()
        );
    }
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    let authority = mint(&request(), NOW).unwrap();
    let key = PrivatePkcs8KeyDer::from(authority.key.as_slice());
    let der = authority.cert_der();
    for length in 0..der.len() {
        assert!(Authority::from_der(&key, &der[..length]).is_err());
    }
    let longer = [der, b"x"].concat();
    assert!(Authority::from_der(&key, &longer).is_err());
    assert!(Authority::from_der(&PrivatePkcs8KeyDer::from(&b"no key"[..]), der).is_err());
}

#[test]
fn debug_output_has_no_key() {
    let authority = mint(&request(), NOW).unwrap();
    let text = format!("{authority:?}");
    assert!(text.contains("fingerprint") && !text.contains("key:") && !text.contains("key_pem"));
}
