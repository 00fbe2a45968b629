//! A certificate authority for tests and what it issues.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use std::time::Duration;

use baetyl_kit::tls::{ClientAuth, Identity, Roots, ServerTrust};
use jiff::Timestamp;

/// A certificate authority.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a certificate shall say. Valid from 2000 to 2100 unless told otherwise.
#[derive(Clone, Debug)]
pub struct Leaf {
    common_name: String,
    names: Vec<String>,
    uris: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    for_clients: bool,
}

/// A key with its certificate.
#[derive(Clone, Debug)]
pub struct TestIdentity {
    /// Leaf and CA certificate in PEM.
    pub chain_pem: String,
    /// The leaf alone.
    pub certificate: CertificateDer<'static>,
    /// The private key in PEM (PKCS#8).
    pub key_pem: String,
}

impl Leaf {
    /// With this common name.
    pub fn new(common_name: &str) -> Self {
        Self {
            common_name: common_name.to_owned(),
            names: Vec::new(),
            uris: Vec::new(),
            not_before: "2000-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2100-01-01T00:00:00Z".parse().unwrap(),
            for_clients: true,
        }
    }

    /// Also for this DNS name or IP address.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Also with this URI, such as a SPIFFE id.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.uris.push(uri.to_owned());
        self
    }

    /// Valid in this time only (RFC 3339 texts).
    #[must_use]
    pub fn valid(mut self, not_before: &str, not_after: &str) -> Self {
        self.not_before = not_before.parse().expect("an RFC 3339 time");
        self.not_after = not_after.parse().expect("an RFC 3339 time");
        self
    }

    /// For servers only; other certificates are for both sides of a connection.
    #[must_use]
    pub fn for_servers(mut self) -> Self {
        self.for_clients = false;
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(self.names.clone()).expect("valid names");
        for uri in &self.uris {
            let uri = uri.as_str().try_into().expect("an ASCII URI");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(self.not_before);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(self.not_after);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if self.for_clients {
            let clients = ExtendedKeyUsagePurpose::ClientAuth;
            params.extended_key_usages.push(clients);
        }
        params
    }
}

impl TestCa {
    /// A new authority of that name.
    pub fn new(name: &str) -> Self {
        let mut params = Leaf::new(name).params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = Vec::new();
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA can be made");
        Self { issuer }
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Issues a certificate for a new key.
    pub fn issue(&self, leaf: &Leaf) -> TestIdentity {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = leaf
            .params()
            .signed_by(&key, &self.issuer)
            .expect("a certificate can be issued");
        TestIdentity {
            chain_pem: format!("{}{}", certificate.pem(), self.pem()),
            certificate: certificate.der().clone(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Issues a certificate for the key of a signing request (DER); what else the request says is not read.
    pub fn sign_request(&self, request: &[u8], leaf: &Leaf) -> CertificateDer<'static> {
        let request = CertificateSigningRequestParams::from_der(&request.into())
            .expect("a signing request in DER");
        leaf.params()
            .signed_by(&request.public_key, &self.issuer)
            .expect("a certificate can be issued")
            .der()
            .clone()
    }

    /// A server certificate for `localhost`, `127.0.0.1` and `::1`.
    pub fn server(&self) -> TestIdentity {
        let leaf = Leaf::new("localhost").name("localhost");
        self.issue(&leaf.name("127.0.0.1").name("::1"))
    }

    /// A client certificate with this SPIFFE id.
    pub fn client(&self, spiffe_id: &str) -> TestIdentity {
        self.issue(&Leaf::new("client").uri(spiffe_id))
    }

    /// As the roots a peer trusts.
    pub fn roots(&self) -> Roots {
        Roots::new(&[self.certificate()]).expect("a CA certificate")
    }

    /// Servers that want a client certificate of this authority.
    pub fn clients_required(&self) -> ClientAuth {
        ClientAuth::Required(self.roots())
    }

    /// Clients that trust servers of this authority.
    pub fn trust(&self) -> ServerTrust {
        ServerTrust::Roots(self.roots())
    }
}

impl std::fmt::Debug for TestCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestCa")
    }
}

impl TestIdentity {
    /// As what TLS configurations are made of.
    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.chain_pem.as_bytes(), self.key_pem.as_bytes()).expect("valid PEM")
    }
}

fn since_epoch(time: Timestamp) -> Duration {
    let seconds = u64::try_from(time.as_second()).expect("a time after 1970");
    Duration::from_secs(seconds)
}
