//! The bottle's CA: reads the key and certificate that `bottle-ca` made, and mints a certificate for each name
//! the policy lets through, when it is first asked for.

mod der;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bottle_plan::host::Host;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::program::say;

/// Leaves outlive any sane bottle's session but not a stolen key's usefulness.
const LIFETIME: Duration = Duration::days(2);
/// A leaf is made anew this long before it ends.
const MARGIN: Duration = Duration::hours(12);
/// Clocks in virtual machines are sometimes behind.
const SKEW: Duration = Duration::hours(1);
/// More names than this only come from a wildcard route being swept.
const MAX_LEAVES: usize = 256;

/// What is wrong with the CA file.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file does not hold what it should.
    #[error("{path}: {problem}")]
    Unusable {
        /// Which file.
        path: String,
        /// Why.
        problem: String,
    },
}

/// The CA and the leaves made so far.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// One key for all leaves: it never leaves this process, and a key each would only cost time.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn rustls::sign::SigningKey>,
    certificate: CertificateDer<'static>,
    leaves: Mutex<HashMap<Host, Leaf>>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    renew: OffsetDateTime,
}

impl Ca {
    /// Reads a file with a private key and a certificate in PEM, in any order.
    pub(crate) fn read(path: &Path) -> Result<Self, CaError> {
        let name = || path.display().to_string();
        let pem = fs::read(path)
            .map(Zeroizing::new)
            .map_err(|error| CaError::Read {
                path: name(),
                error,
            })?;
        Self::from_pem(&pem).map_err(|problem| CaError::Unusable {
            path: name(),
            problem,
        })
    }

    fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .map_err(|error| format!("no PKCS#8 private key: {error}"))?;
        let key = KeyPair::try_from(&key).map_err(|error| format!("private key: {error}"))?;
        let certificate = CertificateDer::from_pem_slice(pem)
            .map_err(|error| format!("no certificate: {error}"))?;
        let parts = der::read_certificate(&certificate).ok_or("the certificate cannot be read")?;
        if !parts.holds_key(rcgen::PublicKeyData::der_bytes(&key)) {
            return Err("the private key does not belong to the certificate".into());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = parts
            .subject
            .ok_or("the certificate's subject cannot be repeated exactly")?;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        if let Some(id) = parts.key_id {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        }
        let leaf_key = KeyPair::generate().map_err(|error| format!("leaf key: {error}"))?;
        let leaf_der = PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into());
        let leaf_signer = rustls::crypto::ring::sign::any_ecdsa_type(&leaf_der)
            .map_err(|error| format!("leaf key: {error}"))?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            leaf_key,
            leaf_signer,
            certificate,
            leaves: Mutex::default(),
        })
    }

    /// The certificate for this name: the one there is, or a new one. Ask the policy first.
    fn leaf(&self, host: &Host) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        self.leaf_at(host, OffsetDateTime::now_utc())
    }

    fn leaf_at(&self, host: &Host, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(host).filter(|leaf| now < leaf.renew) {
            return Ok(leaf.key.clone());
        }
        let key = self.mint(host, now)?;
        if leaves.len() >= MAX_LEAVES {
            leaves.clear();
        }
        leaves.insert(
            host.clone(),
            Leaf {
                key: key.clone(),
                renew: now + LIFETIME - MARGIN,
            },
        );
        Ok(key)
    }

    fn mint(&self, host: &Host, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let mut params = CertificateParams::new([host.as_str().to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        // The name proper is in the SAN; a common name is limited to 64 bytes.
        if host.as_str().len() <= 64 {
            params
                .distinguished_name
                .push(DnType::CommonName, host.as_str());
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = now - SKEW;
        params.not_after = now + LIFETIME;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(Arc::new(CertifiedKey::new(chain, self.leaf_signer.clone())))
    }
}

impl ResolvesServerCert for Ca {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = Host::parse(hello.server_name()?).ok()?;
        match self.leaf(&host) {
            Ok(key) => Some(key),
            Err(error) => {
                say!("no certificate for {host}: {error}");
                None
            }
        }
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca")
    }
}

/// 127 random bits: positive, and never the same for two certificates of one CA.
fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, DnValue};
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::{ServerName, UnixTime};

    fn ca(name: DnValue, key_id: Option<KeyIdMethod>) -> (Ca, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "bottle");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if let Some(method) = key_id {
            params.key_identifier_method = method;
        }
        let certificate = params.self_signed(&key).unwrap();
        let pem = key.serialize_pem() + &certificate.pem();
        (
            Ca::from_pem(pem.as_bytes()).unwrap(),
            certificate.der().clone(),
        )
    }

    #[test]
    fn leaves_verify_against_the_ca() {
        let printable = DnValue::PrintableString("bottle CA demo".try_into().unwrap());
        for (name, id) in [
            ("bottle CA demo-abcde".into(), None),
            (printable, Some(KeyIdMethod::PreSpecified(vec![7; 20]))),
            (
                DnValue::Utf8String("Fl\u{e4}schchen".into()),
                Some(KeyIdMethod::Sha384),
            ),
        ] {
            let (ca, root) = ca(name, id);
            let leaf = ca.leaf(&Host::parse("api.example.com").unwrap()).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(root).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .unwrap();
            let verify = |name: &'static str| {
                let name = ServerName::try_from(name).unwrap();
                verifier.verify_server_cert(
                    &leaf.cert[0],
                    &leaf.cert[1..],
                    &name,
                    &[],
                    UnixTime::now(),
                )
            };
            verify("api.example.com").unwrap();
            assert!(verify("example.com").is_err());
        }
    }

    #[test]
    fn a_leaf_is_made_once_and_the_cache_is_bounded() {
        let (ca, _) = ca("bottle CA".into(), None);
        let host = Host::parse("api.example.com").unwrap();
        let first = ca.leaf(&host).unwrap();
        assert!(Arc::ptr_eq(&first, &ca.leaf(&host).unwrap()));
        for number in 0..MAX_LEAVES {
            ca.leaf(&Host::parse(&format!("n{number}.example.com")).unwrap())
                .unwrap();
        }
        assert!(ca.leaves.lock().unwrap().len() <= MAX_LEAVES);
    }

    /// Whatever time it is, what is handed out goes on for a while.
    #[test]
    fn a_leaf_is_made_anew_before_it_ends() {
        let (ca, _) = ca("bottle CA".into(), None);
        let host = Host::parse("api.example.com").unwrap();
        let start = OffsetDateTime::now_utc();
        let mut last = ca.leaf_at(&host, start).unwrap();
        let mut made = 1;
        for hours in 1..200 {
            let leaf = ca.leaf_at(&host, start + Duration::hours(hours)).unwrap();
            made += usize::from(!Arc::ptr_eq(&leaf, &last));
            last = leaf;
        }
        // Each serves as long as it may, and no longer.
        let each = (LIFETIME - MARGIN).whole_hours();
        assert_eq!(made, usize::try_from(200 / each + 1).unwrap());
    }

    #[test]
    fn a_key_of_another_ca_is_refused() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default()
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        let pem = key.serialize_pem() + &certificate.pem();
        let problem = Ca::from_pem(pem.as_bytes()).map(|_| ()).unwrap_err();
        assert!(problem.contains("does not belong"), "{problem}");
    }
}
