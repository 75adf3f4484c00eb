//! One CA in memory: made, or taken from the DER of its two files. Both ways end in the same checks, so what was
//! minted is what will be read back.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_plan::failure::{Failure, Result};
use bottle_plan::host::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::PrivatePkcs8KeyDer;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::scope::Scope;
use crate::{MAX_DAYS, Request};

/// The organization in every CA of ours; makes them easy to find, and to delete, in a list of anchors.
const ORGANIZATION: &str = "bottle";

/// Clocks in containers and on other hosts differ; a certificate must not be "not yet valid" there.
const BACKDATE: Duration = Duration::hours(1);

/// RFC 5280's upper bound of a common name, in characters.
const MAX_COMMON_NAME: usize = 64;

/// A CA with its key.
#[derive(Clone)]
pub struct Authority {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    common_name: String,
    serial: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    scope: Scope,
}

impl Authority {
    /// The certificate, for those who shall trust it.
    #[must_use]
    pub fn cert_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The certificate in DER.
    #[must_use]
    pub fn cert_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key (PKCS#8), for the sidecar alone.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem("PRIVATE KEY", &self.key))
    }

    /// SHA-256 of the certificate as OpenSSL prints it: `AB:CD:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(digest(&SHA256, &self.certificate).as_ref(), ":")
    }

    /// The serial number as `openssl x509 -serial` prints it.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The subject's common name.
    #[must_use]
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// The first moment it is valid.
    #[must_use]
    pub const fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The last moment it is valid.
    #[must_use]
    pub const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// What it may sign.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Fails unless the certificate is valid at `now`.
    pub fn check_valid_at(&self, now: OffsetDateTime) -> Result<()> {
        if now > self.not_after {
            return Err(Failure::failed(format!(
                "the certificate expired at {}",
                rfc3339(self.not_after)
            )));
        }
        if now < self.not_before {
            return Err(Failure::failed(format!(
                "the certificate is not valid before {}",
                rfc3339(self.not_before)
            )));
        }
        Ok(())
    }

    /// Fails unless this is the CA that `request` would get, dates and key aside.
    pub(crate) fn check_matches(&self, request: &Request, scope: &Scope) -> Result<()> {
        if self.common_name != request.common_name {
            return Err(Failure::conflict(format!(
                "it belongs to `{}`, not to `{}`",
                self.common_name, request.common_name
            )));
        }
        if self.scope != *scope {
            return Err(Failure::conflict(difference(&self.scope, scope)));
        }
        Ok(())
    }

    /// Checks that `key` and `certificate` are one pair, and the pair one that [`mint`] could have made.
    pub(crate) fn from_der(key: &PrivatePkcs8KeyDer<'_>, certificate: &[u8]) -> Result<Self> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256).map_err(
            |error| {
                Failure::failed("the private key is not an ECDSA P-256 key in PKCS#8")
                    .because(error)
            },
        )?;
        let unreadable = || Failure::failed("the certificate cannot be read");
        let (rest, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| unreadable().because(error.to_string()))?;
        if !rest.is_empty() {
            return Err(unreadable().because("there is something after it"));
        }
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(Failure::failed(
                "the private key does not belong to the certificate",
            ));
        }
        let scope = check_profile(&parsed).map_err(|reason| {
            Failure::failed(format!(
                "the certificate is not one that bottle-ca makes: {reason}"
            ))
        })?;
        let common_name = parsed.subject().iter_common_name().next();
        Ok(Self {
            certificate: certificate.to_vec(),
            key: Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            common_name: common_name
                .and_then(|name| name.as_str().ok())
                .ok_or_else(|| unreadable().because("it has no common name"))?
                .to_owned(),
            // DER puts a zero in front of a number whose first bit would read as a sign.
            serial: hex(
                parsed
                    .raw_serial()
                    .strip_prefix(&[0])
                    .unwrap_or(parsed.raw_serial()),
                "",
            ),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            scope,
        })
    }
}

/// Without the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("common_name", &self.common_name)
            .field("fingerprint", &self.fingerprint())
            .field("not_after", &self.not_after)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Makes a CA, in memory only; [`ensure`](crate::ensure) puts one into its folder.
pub fn mint(request: &Request, now: OffsetDateTime) -> Result<Authority> {
    let scope = request.scope()?;
    let failed = |error: rcgen::Error| Failure::failed("cannot make the CA").because(error);

    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| Failure::failed("the system gives no random numbers"))?;
    let start = now.replace_nanosecond(0).unwrap_or(now);
    let (not_before, not_after) = start
        .checked_sub(BACKDATE)
        .zip(start.checked_add(Duration::days(request.days.into())))
        .ok_or_else(|| Failure::failed("the clock shows a time no certificate can carry"))?;

    // A name of its own: rcgen's default is one and the same for CA and leaf, which OpenSSL then calls self-signed.
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name.push(DnType::CommonName, request.common_name.as_str());

    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = not_before;
    params.not_after = not_after;
    params.distinguished_name = name;
    // Path length 0: it signs leaves, never another CA that would be out of sight.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // On a CA this narrows every leaf below it (OpenSSL, NSS, Go and Windows all look): no code signing, no client
    // certificates. RFC 5280 speaks of it for leaves only; `openssl verify -x509_strict` and Python accept it.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(scope.to_extension());
    // The subject key identifier comes with every CA. The authority key identifier is off by default, and
    // VERIFY_X509_STRICT, the default from Python 3.13 on, wants both.
    params.use_authority_key_identifier_extension = true;

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    // Not rcgen's default, a truncated SHA-256: mitmproxy computes the identifier of its issuer anew in this older way
    // (RFC 5280 §4.2.1.2, method 1), and a leaf that names another one has no issuer for OpenSSL. Nothing rests on the
    // strength of the digest.
    let identifier = digest(&SHA1_FOR_LEGACY_USE_ONLY, key.public_key_raw());
    params.key_identifier_method = KeyIdMethod::PreSpecified(identifier.as_ref().to_vec());
    let certificate = params.self_signed(&key).map_err(failed)?;
    let key = Zeroizing::new(key.serialize_der());
    Authority::from_der(&PrivatePkcs8KeyDer::from(key.as_slice()), certificate.der())
}

impl Request {
    /// What the CA shall sign; fails if anything in the request is wrong.
    pub fn scope(&self) -> Result<Scope> {
        let name = &self.common_name;
        if name.is_empty()
            || name.chars().count() > MAX_COMMON_NAME
            || name.chars().any(char::is_control)
        {
            return Err(
                Failure::invalid(format!("bad common name {name:?}")).hint(format!(
                    "1 to {MAX_COMMON_NAME} characters, none of them a control character"
                )),
            );
        }
        // Software that still matches hosts by common name must find none to match.
        if Host::parse(name).is_ok() {
            return Err(
                Failure::invalid(format!("bad common name `{name}`: it could be a host")).hint(
                    format!("put a space in it, such as \"bottle egress CA {name}\""),
                ),
            );
        }
        if !(1..=MAX_DAYS).contains(&self.days) {
            return Err(
                Failure::invalid(format!("bad number of days {}", self.days))
                    .hint(format!("from 1 to {MAX_DAYS}")),
            );
        }
        let scope = Scope::new(&self.hosts, &self.addresses)?;
        Ok(if self.any_host {
            scope.with_any_host()
        } else {
            scope
        })
    }
}

/// What makes a certificate ours besides its names. The signature is part of it: trust anchors are not verified by
/// those who trust them, so a changed constraint would go unnoticed everywhere but here.
fn check_profile(certificate: &X509Certificate<'_>) -> Result<Scope, &'static str> {
    let constraints = certificate.basic_constraints().ok().flatten();
    if !constraints
        .is_some_and(|e| e.critical && e.value.ca && e.value.path_len_constraint == Some(0))
    {
        return Err("it is no CA with path length 0");
    }
    let usage = certificate.key_usage().ok().flatten();
    if !usage.is_some_and(|e| e.critical && e.value.key_cert_sign() && !e.value.digital_signature())
    {
        return Err("its key usage is not to sign certificates only");
    }
    let purposes = certificate.extended_key_usage().ok().flatten();
    if !purposes.is_some_and(|e| {
        e.value.server_auth && !e.value.any && !e.value.client_auth && !e.value.code_signing
    }) {
        return Err("its extended key usage is not TLS servers only");
    }
    if certificate.verify_signature(None).is_err() {
        return Err("its signature is wrong");
    }
    let names = certificate.name_constraints().ok().flatten();
    names
        .filter(|e| e.critical)
        .and_then(|e| Scope::from_extension(e.value))
        .ok_or("its name constraints are missing or others than ours")
}

fn difference(own: &Scope, wanted: &Scope) -> String {
    fn names(scope: &Scope) -> Vec<String> {
        let addresses = scope.addresses().map(|range| range.to_string());
        let host = |host: &str| match host {
            "" => "every host".to_owned(),
            host => host.to_owned(),
        };
        scope.hosts().map(host).chain(addresses).collect()
    }
    let (own, wanted) = (names(own), names(wanted));
    let only_in = |these: &[String], those: &[String]| {
        let rest: Vec<_> = these
            .iter()
            .filter(|name| !those.contains(name))
            .cloned()
            .collect();
        if rest.is_empty() {
            "nothing".to_owned()
        } else {
            rest.join(", ")
        }
    };
    format!(
        "its hosts are not the policy's: it lacks {} and has {} too many",
        only_in(&wanted, &own),
        only_in(&own, &wanted)
    )
}

/// RFC 7468. One encoder for what was minted and what was read, so that the files hold nothing but the item.
fn pem(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
    let _ = writeln!(text, "-----BEGIN {label}-----");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    let _ = writeln!(text, "-----END {label}-----");
    text
}

fn hex(bytes: &[u8], separator: &str) -> String {
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(separator)
}

/// The time as every document of the bottle tools writes it.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    // Only years beyond 9999 cannot be written, and X.509 cannot write those either.
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

#[cfg(test)]
mod tests;
