//! Who calls, and who may call which gRPC method, on which listener.

use std::sync::Arc;

use baetyl_kit::grpc::{Authorize, CallerInfo};
use baetyl_kit::listen::Peer;
use baetyl_proto::callers::{Role, may_call};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tonic::{Request, Status};

use crate::call::Proxy;
use crate::directory::Caller;
use crate::error::CallError;
use crate::tls;

/// Methods that decide by the application that is called: its access may be anonymous.
const BY_APPLICATION: [&str; 3] = [
    "/baetyl.function.v1.FunctionService/Invoke",
    "/baetyl.function.v1.FunctionService/InvokeStream",
    "/faas.Function/Call",
];

/// For the core socket, and core services that come over TLS.
pub(crate) fn core() -> Authorize {
    let core = baetyl_callers::core();
    Arc::new(move |peer, path, headers| Ok(core(peer, path, headers)?.with_detail(Caller::Core)))
}

/// For the application socket and the gRPC listener: the role is `app`, but for the certificate of a core service, which
/// comes over TLS alone.
pub(crate) fn outside(proxy: Arc<Proxy>) -> Authorize {
    let core = core();
    Arc::new(move |peer, path, headers| {
        if !headers.contains_key(AUTHORIZATION) && peer.certificate().is_some_and(tls::is_core) {
            return core(peer, path, headers);
        }
        if !may_call(Role::App, path) {
            return Err(Status::permission_denied(format!(
                "an application may not call {path}"
            )));
        }
        let caller = caller(&proxy, headers, Some(peer))?;
        let info = CallerInfo::new(Role::App.as_str());
        Ok(match &caller {
            Caller::App(claims) => info.subject(&claims.app),
            Caller::Anonymous if !BY_APPLICATION.contains(&path) => {
                return Err(Status::unauthenticated(
                    "an application token is wanted (the file named by BAETYL_TOKEN_FILE)",
                ));
            }
            Caller::Anonymous | Caller::Core => info,
        }
        .with_detail(caller))
    })
}

/// Who makes a request on a listener for applications: by its token, else by its certificate.
pub(crate) fn caller(
    proxy: &Proxy,
    headers: &HeaderMap,
    peer: Option<&Peer>,
) -> Result<Caller, CallError> {
    if let Some(header) = headers.get(AUTHORIZATION) {
        return proxy.known.get()?.caller(Some(header.as_bytes()));
    }
    match peer.and_then(Peer::certificate) {
        Some(certificate) => tls::caller(certificate),
        None => Ok(Caller::Anonymous),
    }
}

/// Who makes this request, as one of the functions above found out.
pub(crate) fn of<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = CallerInfo::of(request)?.detail::<Caller>().cloned();
    caller
        .ok_or_else(|| Status::internal("the request did not pass the authorisation of the proxy"))
}
