//! Certificates of applications: an authority of this node, and for each service a key of its own.
//!
//! Programs made for Baetyl v2 look for `var/lib/baetyl/system/certs/{ca,crt,key}.pem` and talk TLS among themselves
//! with them. Trust is by chain and name alone: the node may not know the time, so everything holds from 2000 on and
//! without an end. Only the authority is kept on disk. A service gets another key when engine was started again, at its
//! own next start: both are good under the same authority, so nothing is restarted for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use baetyl_callers::CallerId;
use baetyl_kit::crypto::{self, CryptoError};
use baetyl_kit::fsio;
use baetyl_model::name::{AppName, Namespace, ServiceName};
use baetyl_proto::callers::Role;
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

/// Where an application finds its certificates, relative to its directory.
pub const CERTIFICATES: &str = "var/lib/baetyl/system/certs";

/// What Baetyl v2's programs want to read in a certificate of their node.
const UNIT: &str = "BAETYL";

const MAX_FILE: u64 = 64 * 1024;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The authority's file.
    #[error("{path} cannot be used; check the disk and the permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// The system has no randomness.
    #[error(transparent)]
    Randomness(#[from] CryptoError),
}

/// What a service gets, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The authority.
    pub ca: Bytes,
    /// The service's certificate.
    pub certificate: Bytes,
    /// Its key. Secret.
    pub key: Bytes,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

type Service = (AppName, Namespace, ServiceName);

/// The authority of this node. Owns its file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Bytes,
    /// What services were given in this life: resolving a version again gives the same files.
    issued: Mutex<BTreeMap<Service, Certificates>>,
}

impl Authority {
    /// Reads the file, or makes it. A damaged one is put aside and replaced. Blocks.
    ///
    /// # Errors
    /// When the file can neither be read nor written.
    pub fn open(path: &Path) -> Result<Self, CertificateError> {
        let fail = |source| CertificateError::File {
            path: path.to_owned(),
            source,
        };
        match fsio::read_limited(path, MAX_FILE) {
            Ok(pem) => match Self::from_pem(&String::from_utf8_lossy(&pem)) {
                Ok(authority) => return Ok(authority),
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "the authority of this node is damaged; a new one is made");
                    fsio::quarantine(path).map_err(fail)?;
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let pem = new_authority()?;
        fsio::atomic_write(path, pem.as_bytes(), 0o600).map_err(fail)?;
        Ok(Self::from_pem(&pem)?)
    }

    /// From its key and certificate, in this order.
    fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        let at = pem
            .find("-----BEGIN CERTIFICATE-----")
            .ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let (key, certificate) = pem.split_at(at);
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Self {
            issuer,
            certificate: Bytes::copy_from_slice(certificate.as_bytes()),
            issued: Mutex::default(),
        })
    }

    /// What a service gets; the same as long as this program runs.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn issue(
        &self,
        app: &AppName,
        namespace: &Namespace,
        service: &ServiceName,
    ) -> Result<Certificates, CertificateError> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let whose = (app.clone(), namespace.clone(), service.clone());
        if let Some(known) = issued.get(&whose) {
            return Ok(known.clone());
        }
        let names = names(app.as_str(), namespace.as_str(), service.as_str());
        let made = self.sign(&leaf(&format!("{app}.{service}"), &names)?)?;
        issued.insert(whose, made.clone());
        Ok(made)
    }

    /// The authority's own certificate, in PEM.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// A new identity of a core service that is reached by these names.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn issue_core(
        &self,
        role: Role,
        names: &[String],
    ) -> Result<Certificates, CertificateError> {
        let mut params = leaf(&format!("core.{role}"), names)?;
        let id = CallerId::Core(role).to_string();
        params.subject_alt_names.push(SanType::URI(id.try_into()?));
        self.sign(&params)
    }

    /// A new identity of an application as a whole, whatever Pod it is in.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn issue_app(
        &self,
        app: &AppName,
        namespace: &Namespace,
    ) -> Result<Certificates, CertificateError> {
        let names = names(app.as_str(), namespace.as_str(), app.as_str());
        let mut params = leaf(app.as_str(), &names)?;
        let id = CallerId::App {
            namespace: namespace.clone(),
            app: app.clone(),
        };
        let id = id.to_string();
        params.subject_alt_names.push(SanType::URI(id.try_into()?));
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Certificates, CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = params.clone().signed_by(&key, &self.issuer)?;
        Ok(Certificates {
            ca: self.certificate.clone(),
            certificate: certificate.pem().into(),
            key: key.serialize_pem().into(),
        })
    }

    /// The application is gone.
    pub fn forget(&self, app: &AppName) {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.retain(|(of, _, _), _| of != app);
    }
}

/// Key and certificate of a new authority.
fn new_authority() -> Result<String, CertificateError> {
    // Two nodes, or two lives of one, differ by name.
    let name = format!("baetyl node {}", crypto::random_hex::<4>()?);
    let mut params = params(&name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

fn leaf(common_name: &str, names: &[String]) -> Result<CertificateParams, CertificateError> {
    let mut params = params(common_name)?;
    params.subject_alt_names = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST]
        .map(|address| SanType::IpAddress(IpAddr::V4(address)))
        .into();
    for name in names {
        let name = name.as_str().try_into()?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The names under which Baetyl v2 reaches a service, each once.
fn names(app: &str, namespace: &str, service: &str) -> Vec<String> {
    let mut names = Vec::new();
    for name in [app, service] {
        for name in [name.to_owned(), format!("{name}-nodeport")] {
            names.push(format!("{name}.{namespace}"));
            names.push(name);
        }
    }
    names.push("localhost".to_owned());
    names.sort();
    names.dedup();
    names
}

fn params(common_name: &str) -> Result<CertificateParams, CertificateError> {
    let mut serial = crypto::random_bytes::<16>()?;
    // Positive and of full length: RFC 5280 4.1.2.2.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, UNIT);
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    fn issue(authority: &Authority, service: &str) -> Certificates {
        let (app, namespace) = (
            "shop".try_into().unwrap(),
            "baetyl-edge".try_into().unwrap(),
        );
        authority
            .issue(&app, &namespace, &service.try_into().unwrap())
            .unwrap()
    }

    /// Whether the certificate is good for a name in the year given, by its authority.
    fn verify(ca: &[u8], certificate: &[u8], name: &str, year: u64) -> Result<(), rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(certificate).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let seconds = (year - 1970) * 365 * 24 * 3600;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier
            .verify_server_cert(&leaf, &[], &name, &[], now)
            .map(|_| ())
    }

    #[test]
    fn a_certificate_is_good_for_the_names_of_its_service_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let given = issue(&Authority::open(&dir.path().join("ca.pem")).unwrap(), "web");
        for name in [
            "shop",
            "web",
            "shop.baetyl-edge",
            "web.baetyl-edge",
            "web-nodeport",
            "shop-nodeport.baetyl-edge",
            "localhost",
            "127.0.0.1",
            "0.0.0.0",
        ] {
            for year in [2001, 2026, 2100] {
                verify(&given.ca, &given.certificate, name, year).unwrap();
            }
        }
        verify(&given.ca, &given.certificate, "till", 2026).unwrap_err();
        let der = CertificateDer::from_pem_slice(&given.certificate).unwrap();
        let (_, read) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(read.subject().to_string(), "OU=BAETYL, CN=shop.web");
        assert!(!format!("{given:?}").contains("PRIVATE"));
    }

    #[test]
    fn the_authority_outlives_engine_and_a_service_has_one_key_in_one_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let authority = Authority::open(&path).unwrap();
        let (web, db) = (issue(&authority, "web"), issue(&authority, "db"));
        assert_eq!(issue(&authority, "web"), web);
        assert_ne!(db.key, web.key);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = issue(&Authority::open(&path).unwrap(), "web");
        assert_eq!(again.ca, web.ca);
        verify(&again.ca, &web.certificate, "web", 2026).unwrap();
        authority.forget(&"shop".try_into().unwrap());
        assert_ne!(issue(&authority, "web"), web);
    }

    #[test]
    fn a_damaged_authority_is_put_aside_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let before = issue(&Authority::open(&path).unwrap(), "web");
        std::fs::write(&path, "rubbish").unwrap();
        let after = issue(&Authority::open(&path).unwrap(), "web");
        assert_ne!(after.ca, before.ca);
        verify(&after.ca, &before.certificate, "web", 2026).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
