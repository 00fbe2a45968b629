//! Who calls: roles on core listeners, application tokens and certificates on application listeners.
//!
//! [`core`] and [`apps`] make the [`Authorize`] functions that servers of the edge are given; both end at the table of
//! [`baetyl_proto::callers`]; tokens are those of [`baetyl_proto::token`], certificates name a [`CallerId`], and
//! [`tickets`] are for the objects of Pods. [`connect`] is the other side: the way from one core service to another.
//! See `docs/adr/0003-roles-on-sockets.md`, `docs/adr/0004-application-tokens.md` and `docs/adr/0014-core-pods.md`.

use std::sync::Arc;

use baetyl_kit::Kit;
use baetyl_kit::grpc::{Authorize, CallerInfo, Client, ConnectError, Endpoint, ROLE};
use baetyl_kit::listen::{Peer, PeerAddr};
use baetyl_proto::callers::{Role, may_call};
use baetyl_proto::token::{self, Claims};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use tonic::Status;

mod id;
mod tickets;

pub use id::{CallerId, CallerIdError};
pub use tickets::tickets;

/// For a core listener. On a Unix socket the peer must be our own user or root, and names its role itself; without a role
/// it is `admin`. Over TCP the role is that of its certificate, and a role it names must be the same.
pub fn core() -> Authorize {
    Arc::new(|peer, path, headers| {
        let role = match peer.addr {
            PeerAddr::Unix { .. } => {
                if !peer.is_same_user() {
                    return Err(Status::unauthenticated(
                        "this socket is for the services of the node and their administrator",
                    ));
                }
                named_role(headers)?.unwrap_or(Role::Admin)
            }
            PeerAddr::Tcp(_) => {
                let role = certified_role(peer)?;
                if let Some(named) = named_role(headers)?.filter(|named| *named != role) {
                    return Err(Status::permission_denied(format!(
                        "the certificate is that of {role}, and the call says {named}"
                    )));
                }
                role
            }
        };
        allow(role, path).map(|()| CallerInfo::new(role.as_str()))
    })
}

/// For an application listener: the role is always `app`, whatever is claimed, and a token of engine's key is wanted.
/// Over TCP an application's certificate of the node's authority does as well.
/// `key` answers engine's public key, once it is known.
pub fn apps(key: impl Fn() -> Option<Vec<u8>> + Send + Sync + 'static) -> Authorize {
    Arc::new(move |peer, path, headers| {
        let claims = match peer.certificate() {
            Some(certificate) if !headers.contains_key(AUTHORIZATION) => {
                certified_app(certificate)?
            }
            _ => bearer(headers, key().as_deref())?,
        };
        allow(Role::App, path)?;
        Ok(CallerInfo::new(Role::App.as_str())
            .subject(claims.app.clone())
            .with_detail(claims))
    })
}

/// The way from the service in the role `own` to the one in the role `to`: as `configured`, else its core socket. Over
/// `https` it must show the certificate of that role.
///
/// # Errors
/// When what is configured cannot be used.
pub fn connect(
    kit: &Kit,
    configured: Option<&Endpoint>,
    to: Role,
    own: Role,
) -> Result<Client, ConnectError> {
    let socket = match to {
        Role::Proxy => "function-proxy",
        other => other.as_str(),
    };
    kit.peer(configured, socket)?
        .server_id(CallerId::Core(to).to_string())
        .role(own.as_str())
        .lazy()
}

/// The role in the metadata, if it names one.
fn named_role(headers: &HeaderMap) -> Result<Option<Role>, Status> {
    match headers.get(ROLE).map(|role| role.to_str()) {
        None => Ok(None),
        Some(Ok(word)) => match word.parse() {
            Ok(role) => Ok(Some(role)),
            Err(error) => Err(Status::unauthenticated(format!("{error}"))),
        },
        Some(Err(_)) => Err(Status::unauthenticated("the role is not plain text")),
    }
}

/// The role in the certificate of a peer.
fn certified_role(peer: &Peer) -> Result<Role, Status> {
    let Some(certificate) = peer.certificate() else {
        return Err(Status::unauthenticated(
            "a certificate of a service of this node is wanted",
        ));
    };
    match CallerId::of(certificate) {
        Ok(CallerId::Core(role)) => Ok(role),
        Ok(app @ CallerId::App { .. }) => Err(Status::unauthenticated(format!(
            "{app} is an application; this listener is for the services of the node"
        ))),
        Err(error) => Err(Status::unauthenticated(error.to_string())),
    }
}

/// What the certificate of an application says of its owner: the application, of any of its services and instances.
///
/// # Errors
/// `UNAUTHENTICATED` for every other certificate.
pub fn certified_app(certificate: &CertificateDer<'_>) -> Result<Claims, Status> {
    match CallerId::of(certificate) {
        Ok(CallerId::App { app, .. }) => Ok(Claims {
            app: app.into(),
            service: String::new(),
            instance: String::new(),
            iat: 0,
        }),
        Ok(core @ CallerId::Core(_)) => Err(Status::unauthenticated(format!(
            "{core} is no application; this listener is for applications"
        ))),
        Err(error) => Err(Status::unauthenticated(error.to_string())),
    }
}

/// The claims of the bearer token in the headers.
///
/// # Errors
/// `UNAUTHENTICATED` without a valid token, `UNAVAILABLE` while engine's key is not known.
pub fn bearer(headers: &HeaderMap, key: Option<&[u8]>) -> Result<Claims, Status> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| {
            Status::unauthenticated(
                "an application token is wanted (the file named by BAETYL_TOKEN_FILE)",
            )
        })?;
    let key = key.ok_or_else(|| {
        Status::unavailable("tokens cannot be checked yet: engine has not told its key")
    })?;
    token::verify(token, key).map_err(|error| Status::unauthenticated(error.to_string()))
}

fn allow(role: Role, path: &str) -> Result<(), Status> {
    if may_call(role, path) {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "{role} may not call {path}"
    )))
}

#[cfg(test)]
mod tests;
