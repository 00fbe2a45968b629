//! Where the API server is and what proves who we are: a service account of the Pod, or a context of a kubeconfig.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::kubeconfig;
use crate::config::{KubeConfig, OpenError};

/// Where the kubelet puts the token and the authority of a Pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The way to an API server. No `Debug`: it holds a key or a token.
pub(super) struct Access {
    /// `https://host:port` with a path at most.
    pub(super) server: String,
    /// Name in the server's certificate, when it is not that of the URL.
    pub(super) server_name: Option<String>,
    /// PEM.
    pub(super) authority: Vec<u8>,
    /// Where the authority is read again when it was replaced.
    pub(super) authority_file: Option<PathBuf>,
    /// PEM.
    pub(super) certificate: Option<Vec<u8>>,
    /// PEM.
    pub(super) key: Option<Vec<u8>>,
    pub(super) token: Token,
}

/// What is sent with each request.
pub(super) enum Token {
    None,
    Fixed(String),
    /// The kubelet replaces it before it ends.
    File(PathBuf),
}

impl Access {
    pub(super) fn open(config: &KubeConfig) -> Result<Self, OpenError> {
        match &config.kubeconfig {
            Some(path) => kubeconfig::read(path, config.context.as_deref()),
            None => Self::of_pod(Path::new(SERVICE_ACCOUNT), |name| env::var(name).ok()),
        }
    }

    /// From what every Pod with a service account has.
    pub(super) fn of_pod(
        directory: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, OpenError> {
        let given = |name: &'static str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(OpenError::NoServiceAccount(name))
        };
        let host = given("KUBERNETES_SERVICE_HOST")?;
        let port = given("KUBERNETES_SERVICE_PORT")?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let authority_file = directory.join("ca.crt");
        let authority = fs::read(&authority_file).map_err(|source| OpenError::Read {
            path: authority_file.clone(),
            source,
        })?;
        let token = directory.join("token");
        if !token.exists() {
            return Err(OpenError::NoServiceAccount("no token is mounted"));
        }
        Ok(Self {
            server: format!("https://{host}:{port}"),
            server_name: None,
            authority,
            authority_file: Some(authority_file),
            certificate: None,
            key: None,
            token: Token::File(token),
        })
    }

    /// What TLS needs, with this authority.
    pub(super) fn tls(&self, authority: &[u8]) -> Result<ClientConfig, OpenError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority) {
            let certificate = certificate.map_err(|error| wrong("the authority", error))?;
            let added = roots.add(certificate);
            added.map_err(|error| wrong("the authority", error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS", error))?
            .with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong("the client certificate", error))?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("the client key", error))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| wrong("the client certificate", error))
    }
}

fn wrong(
    what: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> OpenError {
    OpenError::Tls {
        what,
        source: source.into(),
    }
}
