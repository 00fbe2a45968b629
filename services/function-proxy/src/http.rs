//! `GET|POST|PUT|DELETE /<service>[/<function>]`: Baetyl v2's door, with what HTTP offers besides.
//!
//! The body is the payload as it is; what the function returns is the body of the answer. Method, path behind the
//! function, query and headers travel in the metadata; `http.status` and `http.header.<name>` in the metadata of the
//! answer become the status and headers of the response. Errors are JSON `{errCode, message}`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use baetyl_kit::listen::Peer;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};

use crate::app::Call;
use crate::auth;
use crate::call::{Held, Proxy};
use crate::directory::Caller;
use crate::error::CallError;
use crate::reply::{Answer, MAX_PAYLOAD};

mod request;
mod response;

pub(crate) use request::MAX_METADATA;

/// A caller that has not sent its body by then is not going to.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Header of Baetyl v2: id of the invocation, made up when missing, and returned.
const INVOKE_ID: &str = "invokeid";
/// Milliseconds the caller waits.
const TIMEOUT: &str = "x-baetyl-timeout-ms";

/// All paths of the HTTP listener.
pub(crate) fn router(proxy: Arc<Proxy>) -> Router {
    Router::new().fallback(serve).with_state(proxy)
}

async fn serve(State(proxy): State<Arc<Proxy>>, request: Request<Body>) -> Response<Body> {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    if !matches!(
        parts.method,
        Method::GET | Method::POST | Method::PUT | Method::DELETE
    ) {
        return response::method_not_allowed(&parts.method);
    }
    if let Some(list) = listing(&proxy, &parts) {
        return list.unwrap_or_else(|error| response::error(&error, None));
    }
    let invoke_id = request::invoke_id(&parts.headers);
    match call(&proxy, &parts, body, began, &invoke_id).await {
        Ok(answer) => response::answer(answer, &invoke_id),
        Err(error) => response::error(&error, Some(&invoke_id)),
    }
}

/// `GET /` lists the functions for an application that asks for JSON; for all others the path does not exist.
fn listing(proxy: &Proxy, parts: &Parts) -> Option<Result<Response<Body>, CallError>> {
    let asked =
        parts.uri.path() == "/" && parts.method == Method::GET && wants_json(&parts.headers);
    if !asked {
        return None;
    }
    match caller(proxy, parts) {
        Ok(Caller::Anonymous) => None,
        caller => Some(caller.map(|_| response::list(&crate::grpc::entries(proxy)))),
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    accept.split(',').any(|kind| {
        kind.split(';')
            .next()
            .is_some_and(|kind| kind.trim() == "application/json")
    })
}

fn caller(proxy: &Proxy, parts: &Parts) -> Result<Caller, CallError> {
    auth::caller(proxy, &parts.headers, parts.extensions.get::<Peer>())
}

async fn call(
    proxy: &Arc<Proxy>,
    parts: &Parts,
    body: Body,
    began: Instant,
    invoke_id: &str,
) -> Result<Answer, CallError> {
    let caller = caller(proxy, parts)?;
    let route = request::route(parts.uri.path());
    let target = proxy.admit(&route.service, &caller)?;
    let timeout = request::timeout(&parts.headers)?;
    let mut metadata = request::metadata(parts, route.rest)?;
    metadata.insert("invokeId".to_owned(), invoke_id.to_owned());
    let (payload, _held) = read(proxy, &parts.headers, body, began).await?;
    let function = route.function.into_owned();
    proxy
        .call(
            &target,
            Call {
                function,
                payload,
                metadata,
                began,
                timeout,
            },
        )
        .await
}

/// Takes the whole body; nothing of one that is announced as too long.
async fn read(
    proxy: &Proxy,
    headers: &HeaderMap,
    body: Body,
    began: Instant,
) -> Result<(Bytes, Held), CallError> {
    let too_long = CallError::PayloadTooLong { limit: MAX_PAYLOAD };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let expected = match announced {
        Some(length) if length > MAX_PAYLOAD => return Err(too_long),
        Some(length) => length,
        None if axum::body::HttpBody::is_end_stream(&body) => 0,
        None => MAX_PAYLOAD,
    };
    let mut held = proxy.memory.take(expected)?;
    let collected = timeout_at(
        began + BODY_TIMEOUT,
        Limited::new(body, MAX_PAYLOAD).collect(),
    )
    .await;
    let payload = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long),
        Ok(Err(error)) => return Err(CallError::Malformed(error.to_string())),
        Err(_) => {
            return Err(CallError::Malformed(format!(
                "no whole body came within {BODY_TIMEOUT:?}"
            )));
        }
    };
    held.shrink(payload.len());
    Ok((payload, held))
}
