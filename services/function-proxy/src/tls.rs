//! TLS of the listeners for callers, and which application a client certificate speaks for.

use std::path::Path;
use std::sync::Arc;

use baetyl_callers::CallerId;
use baetyl_kit::Kit;
use baetyl_kit::listen::Listen;
use baetyl_kit::serve::ServerTls;
use baetyl_kit::tls::{
    self, Ageless, CertificateInfo, ClientAuth, Clients, Identity, Roots, TlsError,
};
use baetyl_proto::callers::may_call;
use baetyl_proto::token::Claims;
use rustls_pki_types::CertificateDer;

use crate::config::{Config, TlsConfig};
use crate::directory::Caller;
use crate::error::CallError;

/// What a core service must be allowed to call for counting as a caller of functions.
const INVOKE: &str = "/baetyl.function.v1.FunctionService/Invoke";

/// TLS of the two listeners; None: plaintext, which is for loopback and Unix sockets.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) http: Option<ServerTls>,
    pub(crate) grpc: Option<ServerTls>,
}

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
    /// A key of the section `tls` that says nothing without another one.
    #[error("tls.{given} says nothing without tls.{missing}; give both, or neither")]
    Half {
        /// The key that is there.
        given: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// The section `tls`.
    #[error("the section tls cannot be used")]
    Tls(#[from] TlsError),
}

/// Reads the certificates that are not followed, and refuses plaintext on addresses other machines reach.
pub(crate) fn servers(config: &Config, kit: &Kit) -> Result<Tls, ListenError> {
    if let Some(own) = own(&config.tls)? {
        return Ok(Tls {
            http: Some(own.clone()),
            grpc: Some(own),
        });
    }
    let server = |key: &'static str, listen: &Listen| {
        // Who has no certificate may show a token, or call what is open to everybody.
        ServerTls::in_node(kit, key, listen, Clients::Optional).map_err(|_| {
            let listen = listen.clone();
            ListenError::Plaintext { key, listen }
        })
    };
    Ok(Tls {
        http: server("http.listen", &config.http.listen)?,
        grpc: server("grpc.listen", &config.grpc.listen)?,
    })
}

/// The certificate of the listeners alone, if there is one.
fn own(config: &TlsConfig) -> Result<Option<ServerTls>, ListenError> {
    let half = |given, missing| Err(ListenError::Half { given, missing });
    match (&config.certificate, &config.key, &config.client_ca) {
        (Some(certificate), Some(key), client_ca) => {
            Ok(Some(load(certificate, key, client_ca.as_deref())?))
        }
        (Some(_), None, _) => half("certificate", "key"),
        (None, Some(_), _) => half("key", "certificate"),
        (None, None, Some(_)) => half("client_ca", "certificate"),
        (None, None, None) => Ok(None),
    }
}

fn load(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerTls, TlsError> {
    let identity = Identity::load(certificate, key)?;
    let clients = match client_ca {
        Some(path) => ClientAuth::Optional(Roots::load(path)?),
        None => ClientAuth::None,
    };
    Ok(tls::server_config(identity, &clients, Some(Arc::new(Ageless)))?.into())
}

/// Who a verified certificate speaks for: a service of the node that may call functions, or an application.
pub(crate) fn caller(certificate: &CertificateDer<'_>) -> Result<Caller, CallError> {
    let info = CertificateInfo::parse(certificate)
        .map_err(|error| CallError::Unauthenticated(error.to_string()))?;
    if info.uris.is_empty() {
        return claims(&info.common_name.unwrap_or_default());
    }
    match CallerId::of(certificate) {
        Ok(CallerId::App { app, .. }) => Ok(app_caller(app.as_str(), "")),
        Ok(CallerId::Core(role)) if may_call(role, INVOKE) => Ok(Caller::Core),
        Ok(CallerId::Core(role)) => Err(CallError::Unauthenticated(format!(
            "{role} does not call functions"
        ))),
        Err(error) => Err(CallError::Unauthenticated(error.to_string())),
    }
}

/// Whether a verified certificate is that of a service of this node, or of its administrator.
pub(crate) fn is_core(certificate: &CertificateDer<'_>) -> bool {
    matches!(CallerId::of(certificate), Ok(CallerId::Core(_)))
}

/// The application in the common name `<application>.<service>`, as Baetyl v2 has it.
fn claims(name: &str) -> Result<Caller, CallError> {
    // Names of applications may have dots, those of services have none.
    match name.rsplit_once('.') {
        Some((app, service)) if !app.is_empty() && !service.is_empty() => {
            Ok(app_caller(app, service))
        }
        _ => Err(CallError::Unauthenticated(format!(
            "the certificate is that of {name:?} and not of an application (<application>.<service>)"
        ))),
    }
}

fn app_caller(app: &str, service: &str) -> Caller {
    Caller::App(Arc::new(Claims {
        app: app.to_owned(),
        service: service.to_owned(),
        instance: String::new(),
        iat: 0,
    }))
}
