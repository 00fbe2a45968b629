//! Making certificates: authorities, server certificates, node certificates. Time is an argument, randomness comes from
//! the operating system, nothing is stored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use baetyl_kit::crypto;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::PkiError;
use super::csr::NodeCsr;
use super::identity::NodeIdentity;

/// How far back a new certificate begins: clocks of nodes and of this machine differ a little.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// Authorities hold for as long as the installation; RFC 5280 4.1.2.5 gives this value for "no end".
const NO_END: i64 = 253_402_300_799;

/// Authorities begin long ago, so that a clock that was wrong at the first start does no harm. 2000-01-01.
const AUTHORITY_BEGIN: i64 = 946_684_800;

/// A certificate with its private key.
#[derive(Clone, Debug)]
pub(super) struct KeyedCertificate {
    pub(super) certificate: CertificateDer<'static>,
    /// PKCS#8 DER. Secret.
    pub(super) key: Vec<u8>,
}

/// An authority that signs.
pub(super) struct Authority {
    pub(super) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// From what [`new_authority`] made.
    pub(super) fn from_parts(parts: &KeyedCertificate) -> Result<Self, PkiError> {
        let issuer = Issuer::from_ca_cert_der(&parts.certificate, key_pair(&parts.key)?)
            .map_err(PkiError::Certificate)?;
        Ok(Self {
            certificate: parts.certificate.clone(),
            issuer,
        })
    }
}

/// A new self-signed authority; `role` goes into its name with eight random digits, so that two installations differ.
pub(super) fn new_authority(role: &str) -> Result<KeyedCertificate, PkiError> {
    let random = crypto::random_hex::<4>().map_err(PkiError::Randomness)?;
    let mut params = params(AUTHORITY_BEGIN, NO_END)?;
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Baetyl");
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Baetyl {role} authority {random}"),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(PkiError::Certificate)?;
    let certificate = params.self_signed(&key).map_err(PkiError::Certificate)?;
    Ok(KeyedCertificate {
        certificate: certificate.der().clone(),
        key: key.serialize_der(),
    })
}

/// A new server certificate for these names and addresses, beginning five minutes before `now`.
pub(super) fn new_server_certificate(
    authority: &Authority,
    names: &[ServerName],
    now: Timestamp,
    life: SignedDuration,
) -> Result<KeyedCertificate, PkiError> {
    let mut params = params((now - BACKDATE).as_second(), (now + life).as_second())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "baetyl-cloud");
    params.subject_alt_names = names
        .iter()
        .map(ServerName::san)
        .collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(PkiError::Certificate)?;
    let certificate = params
        .signed_by(&key, &authority.issuer)
        .map_err(PkiError::Certificate)?;
    Ok(KeyedCertificate {
        certificate: certificate.der().clone(),
        key: key.serialize_der(),
    })
}

/// A certificate for the key of `csr`; all names are those of `node`.
pub(super) fn new_node_certificate(
    authority: &Authority,
    csr: &NodeCsr,
    node: &NodeIdentity,
    trust_domain: &str,
    now: Timestamp,
    life: SignedDuration,
) -> Result<CertificateDer<'static>, PkiError> {
    let mut params = params((now - BACKDATE).as_second(), (now + life).as_second())?;
    if let Some(common_name) = node.common_name() {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
    }
    let uri = node
        .spiffe(trust_domain)
        .try_into()
        .map_err(PkiError::Certificate)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params
        .signed_by(&csr.key, &authority.issuer)
        .map_err(PkiError::Certificate)?;
    Ok(certificate.der().clone())
}

/// A name or address clients use to reach this cloud.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ServerName {
    Dns(String),
    Ip(IpAddr),
}

impl ServerName {
    /// `host` as an address if it is one, as a name otherwise.
    pub(super) fn parse(host: &str) -> Self {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse()
            .map_or_else(|_| Self::Dns(host.to_ascii_lowercase()), Self::Ip)
    }

    /// The configured hosts and the names of this machine for itself, sorted.
    pub(super) fn all(hosts: &[String]) -> Vec<Self> {
        let own = [
            Self::Dns("localhost".to_owned()),
            Self::Ip(Ipv4Addr::LOCALHOST.into()),
            Self::Ip(Ipv6Addr::LOCALHOST.into()),
        ];
        let mut names: Vec<_> = hosts
            .iter()
            .map(|host| Self::parse(host))
            .chain(own)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The names a certificate is for, sorted; none when it is damaged.
    pub(super) fn of_certificate(der: &CertificateDer<'_>) -> Option<Vec<Self>> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let names = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(Self::Dns((*name).to_owned())),
                GeneralName::IPAddress(bytes) => match bytes.len() {
                    4 => <[u8; 4]>::try_from(*bytes)
                        .ok()
                        .map(|bytes| Self::Ip(bytes.into())),
                    _ => <[u8; 16]>::try_from(*bytes)
                        .ok()
                        .map(|bytes| Self::Ip(bytes.into())),
                },
                _ => None,
            });
        let mut names: Vec<_> = names.collect();
        names.sort();
        Some(names)
    }

    fn san(&self) -> Result<SanType, PkiError> {
        Ok(match self {
            Self::Dns(name) => {
                SanType::DnsName(name.clone().try_into().map_err(PkiError::Certificate)?)
            }
            Self::Ip(address) => SanType::IpAddress(*address),
        })
    }
}

fn key_pair(pkcs8: &[u8]) -> Result<KeyPair, PkiError> {
    KeyPair::try_from(pkcs8).map_err(PkiError::Certificate)
}

/// Validity and a random serial number; everything else empty. Seconds since 1970.
fn params(begin: i64, end: i64) -> Result<CertificateParams, PkiError> {
    let mut serial = crypto::random_bytes::<16>().map_err(PkiError::Randomness)?;
    // Positive and of full length: RFC 5280 4.1.2.2.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(begin.try_into().unwrap_or(0));
    params.not_after = epoch + Duration::from_secs(end.clamp(0, NO_END).try_into().unwrap_or(0));
    Ok(params)
}
