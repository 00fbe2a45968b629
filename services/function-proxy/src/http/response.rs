//! Results and errors as HTTP responses.

use axum::body::Body;
use baetyl_proto::function::FunctionEntry;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::IgnoredAny;

use super::INVOKE_ID;
use crate::error::CallError;
use crate::reply::Answer;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const ALLOW: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
/// Seconds after which a caller that was refused may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

const STATUS_KEY: &str = "http.status";
const HEADER_KEY: &str = "http.header.";

/// What the function returned.
pub(super) fn answer(answer: Answer, invoke_id: &str) -> Response<Body> {
    let Answer { payload, metadata } = answer;
    let content_type = content_type(&payload);
    let mut response = Response::new(Body::from(payload));
    for (key, value) in &metadata {
        if key == STATUS_KEY {
            *response.status_mut() = status(value);
        } else if let Some((name, value)) = key
            .strip_prefix(HEADER_KEY)
            .and_then(|name| header_of(name, value))
        {
            response.headers_mut().insert(name, value);
        }
    }
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_TYPE).or_insert(content_type);
    add_invoke_id(&mut response, invoke_id);
    response
}

/// What a function may say; anything else is not its business or no status.
fn status(text: &str) -> StatusCode {
    let code = text.parse().ok().filter(|code| (200..600).contains(code));
    code.and_then(|code: u16| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::OK)
}

fn header_of(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let of_the_connection = matches!(
        name,
        header::CONNECTION | header::TRANSFER_ENCODING | header::CONTENT_LENGTH | header::UPGRADE
    );
    let value = HeaderValue::from_str(value).ok()?;
    (!of_the_connection).then_some((name, value))
}

/// As Baetyl v2 has it: JSON when it is JSON, else text. What is no text is not called so.
fn content_type(payload: &Bytes) -> HeaderValue {
    if serde_json::from_slice::<IgnoredAny>(payload).is_ok() {
        JSON
    } else if std::str::from_utf8(payload).is_ok() {
        TEXT
    } else {
        BINARY
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    err_code: &'a str,
    message: &'a str,
}

/// Why there is no result.
pub(super) fn error(error: &CallError, invoke_id: Option<&str>) -> Response<Body> {
    let (status, code) = error.http();
    let mut response = refusal(status, code, &error.to_string());
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        StatusCode::UNAUTHORIZED => {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    if let Some(invoke_id) = invoke_id {
        add_invoke_id(&mut response, invoke_id);
    }
    response
}

/// 405 with what is allowed.
pub(super) fn method_not_allowed(method: &Method) -> Response<Body> {
    let message = format!("{method} is not a way to call a function; use GET, POST, PUT or DELETE");
    let mut response = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "ERR_METHOD_NOT_ALLOWED",
        &message,
    );
    response.headers_mut().insert(header::ALLOW, ALLOW);
    response
}

fn refusal(status: StatusCode, err_code: &str, message: &str) -> Response<Body> {
    // A struct of texts always serialises.
    let body = serde_json::to_vec(&ErrorBody { err_code, message }).unwrap_or_default();
    json(status, body)
}

#[derive(Serialize)]
struct List<'a> {
    functions: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    service: &'a str,
    function: &'a str,
    runtime: &'a str,
    runtimes: u32,
    in_flight: u32,
    queued: u32,
    access: &'a str,
}

impl<'a> From<&'a FunctionEntry> for Item<'a> {
    fn from(entry: &'a FunctionEntry) -> Self {
        Self {
            service: &entry.service,
            function: &entry.function,
            runtime: &entry.runtime,
            runtimes: entry.runtimes,
            in_flight: entry.in_flight,
            queued: entry.queued,
            access: &entry.access,
        }
    }
}

/// All functions.
pub(super) fn list(entries: &[FunctionEntry]) -> Response<Body> {
    let functions = entries.iter().map(Item::from).collect();
    json(
        StatusCode::OK,
        serde_json::to_vec(&List { functions }).unwrap_or_default(),
    )
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn add_invoke_id(response: &mut Response<Body>, invoke_id: &str) {
    if let Ok(value) = HeaderValue::from_str(invoke_id) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(INVOKE_ID), value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn answered(payload: &'static [u8], metadata: &[(&str, &str)]) -> Response<Body> {
        let metadata: BTreeMap<String, String> = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        answer(
            Answer {
                payload: Bytes::from_static(payload),
                metadata,
            },
            "id-1",
        )
    }

    fn kind(response: &Response<Body>) -> &str {
        response.headers()[header::CONTENT_TYPE].to_str().unwrap()
    }

    #[test]
    fn the_content_type_says_what_the_payload_is() {
        for json in [&b"{\"a\": [1, null]}"[..], b"\"text\"", b"1", b" true "] {
            assert_eq!(kind(&answered(json, &[])), "application/json");
        }
        for text in [&b""[..], b"hello", b"{\"a\":", b"{} {}"] {
            assert_eq!(kind(&answered(text, &[])), "text/plain; charset=utf-8");
        }
        assert_eq!(
            kind(&answered(b"\xff\x00", &[])),
            "application/octet-stream"
        );
    }

    #[test]
    fn a_function_sets_status_and_headers() {
        let metadata = [
            ("http.status", "404"),
            ("http.header.content-type", "image/png"),
            ("http.header.X-Kind", "demo"),
            ("http.header.content-length", "7"),
            ("http.header.bad name", "x"),
            ("http.header.x-bad", "a\nb"),
            ("other", "ignored"),
        ];
        let response = answered(b"abc", &metadata);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(kind(&response), "image/png");
        assert_eq!(response.headers()["x-kind"], "demo");
        assert_eq!(response.headers()["invokeid"], "id-1");
        assert_eq!(response.headers().len(), 3);
    }

    #[test]
    fn a_status_that_is_none_is_not_taken() {
        for wrong in ["99", "101", "600", "ok", ""] {
            assert_eq!(
                answered(b"", &[("http.status", wrong)]).status(),
                StatusCode::OK,
                "{wrong}"
            );
        }
    }
}
