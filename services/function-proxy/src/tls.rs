//! TLS of the listeners beyond this machine, and which application a client certificate speaks for.

use std::sync::Arc;

use baetyl_kit::listen::Listen;
use baetyl_kit::tls::{self, CertTime, CertificateInfo, ClientAuth, Roots, TlsError, Validity};
use baetyl_proto::token::Claims;
use rustls_pki_types::CertificateDer;

use crate::config::{Config, TlsConfig};
use crate::error::CallError;

/// The configuration of the listeners; None: plaintext, which is for loopback and Unix sockets.
pub(crate) type Tls = Option<Arc<rustls::ServerConfig>>;

/// Why the listeners cannot be what the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Plaintext that others could read.
    #[error(
        "{key} = {listen} is reachable from other machines; give the proxy a certificate (section tls), or listen on \
         127.0.0.1"
    )]
    Plaintext {
        /// The key of the configuration.
        key: &'static str,
        /// Where.
        listen: Listen,
    },
    /// The section `tls`.
    #[error("the section tls cannot be used")]
    Tls(#[from] TlsError),
}

/// Reads the certificates, and refuses plaintext on addresses other machines reach.
pub(crate) fn server(config: &Config) -> Result<Tls, ListenError> {
    let Some(tls) = &config.tls else {
        for (key, listen) in [
            ("http.listen", &config.http.listen),
            ("grpc.listen", &config.grpc.listen),
        ] {
            if let Listen::Tcp(address) = listen
                && !address.ip().is_loopback()
            {
                let listen = listen.clone();
                return Err(ListenError::Plaintext { key, listen });
            }
        }
        return Ok(None);
    };
    Ok(Some(load(tls)?))
}

fn load(config: &TlsConfig) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let identity = tls::Identity::load(&config.certificate, &config.key)?;
    // Who has none may still show a token, or call what is open to everybody.
    let clients = match &config.client_ca {
        Some(path) => ClientAuth::Optional(Roots::load(path)?),
        None => ClientAuth::None,
    };
    tls::server_config(identity, &clients, Some(Arc::new(Ageless)))
}

/// Certificates inside a node are judged by chain and name: its wall clock is no authority, and they are replaced by age.
#[derive(Debug)]
struct Ageless;

impl CertTime for Ageless {
    fn judge_at(&self, chain: Validity, _wall: i64) -> i64 {
        chain.not_before
    }
}

/// The application in the common name `<application>.<service>` of a verified certificate.
pub(crate) fn claims(certificate: &CertificateDer<'_>) -> Result<Claims, CallError> {
    let name = CertificateInfo::parse(certificate)
        .ok()
        .and_then(|info| info.common_name)
        .unwrap_or_default();
    // Names of applications may have dots, those of services have none.
    match name.rsplit_once('.') {
        Some((app, service)) if !app.is_empty() && !service.is_empty() => Ok(Claims {
            app: app.to_owned(),
            service: service.to_owned(),
            instance: String::new(),
            iat: 0,
        }),
        _ => Err(CallError::Unauthenticated(format!(
            "the certificate is that of {name:?} and not of an application (<application>.<service>)"
        ))),
    }
}
