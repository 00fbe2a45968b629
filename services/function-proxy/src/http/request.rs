//! What an HTTP request says about a call.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use baetyl_kit::trace::{TRACEPARENT, TraceContext};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::{INVOKE_ID, TIMEOUT};
use crate::error::CallError;

/// Keys and values of the metadata together, in bytes.
pub(crate) const MAX_METADATA: usize = 128 * 1024;

/// Longest invocation id a caller may give; longer ones are replaced.
const MAX_INVOKE_ID: usize = 256;

/// What the path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) service: Cow<'a, str>,
    /// Empty: the default.
    pub(super) function: Cow<'a, str>,
    /// What comes behind, with its slash; `/` when there is nothing.
    pub(super) rest: &'a str,
}

/// `/<service>[/<function>[/<rest>]]`
pub(super) fn route(path: &str) -> Route<'_> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (service, path) = path.split_once('/').unwrap_or((path, ""));
    let (function, rest) = match path.find('/') {
        Some(at) => path.split_at(at),
        None => (path, "/"),
    };
    Route {
        service: percent_decoded(service),
        function: percent_decoded(function),
        rest,
    }
}

/// The text; as it is when an escape is wrong or it would not be UTF-8.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let escape = after.split_at_checked(2).and_then(|(digits, after)| {
            let decoded = baetyl_kit::crypto::unhex(std::str::from_utf8(digits).ok()?)?;
            Some((*decoded.first()?, after))
        });
        let Some((byte, after)) = escape else {
            return Cow::Borrowed(text);
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The caller's id of the invocation, or a new one.
pub(super) fn invoke_id(headers: &HeaderMap) -> Cow<'_, str> {
    let given = headers.get(INVOKE_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if !id.is_empty() && id.len() <= MAX_INVOKE_ID => Cow::Borrowed(id),
        _ => Cow::Owned(crate::id::invocation()),
    }
}

/// How long the caller waits, if it says so.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, CallError> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let milliseconds = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    match milliseconds {
        Some(milliseconds) if milliseconds > 0 => {
            Ok(Some(Duration::from_millis(milliseconds.into())))
        }
        _ => Err(CallError::Malformed(format!(
            "{TIMEOUT} is a number of milliseconds above 0"
        ))),
    }
}

/// Method, path behind the function, query and headers.
pub(super) fn metadata(parts: &Parts, rest: &str) -> Result<BTreeMap<String, String>, CallError> {
    let mut metadata = BTreeMap::new();
    metadata.insert("httpMethod".to_owned(), parts.method.as_str().to_owned());
    metadata.insert("httpPath".to_owned(), rest.to_owned());
    metadata.insert(
        "httpQuery".to_owned(),
        parts.uri.query().unwrap_or("").to_owned(),
    );
    let mut size = rest.len() + parts.uri.query().map_or(0, str::len);
    for (name, value) in &parts.headers {
        if stays_here(name) {
            continue;
        }
        let value = text(value);
        size += name.as_str().len() + value.len();
        let key = format!("header.{name}");
        match metadata.get_mut(&key) {
            None => {
                metadata.insert(key, value.into_owned());
            }
            // Several headers of one name are one list.
            Some(list) => {
                list.push_str(", ");
                list.push_str(&value);
            }
        }
    }
    if size > MAX_METADATA {
        return Err(CallError::MetadataTooLong {
            limit: MAX_METADATA,
        });
    }
    if TraceContext::from_headers(&parts.headers).is_some()
        && let Some(value) = parts.headers.get(TRACEPARENT)
    {
        metadata.insert(TRACEPARENT.to_owned(), text(value).into_owned());
    }
    Ok(metadata)
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Headers of the connection, and the caller's credentials, which are no business of the function.
fn stays_here(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AUTHORIZATION
            | header::PROXY_AUTHORIZATION
            | header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::CONTENT_LENGTH
            | header::UPGRADE
            | header::TE
            | header::TRAILER
            | header::EXPECT
    ) || name == "keep-alive"
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_path_names_service_function_and_what_is_left_for_the_function() {
        let cases = [
            ("/", "", "", "/"),
            ("/shop", "shop", "", "/"),
            ("/shop/", "shop", "", "/"),
            ("/shop/pay", "shop", "pay", "/"),
            ("/shop/pay/", "shop", "pay", "/"),
            ("/shop/pay/a/b", "shop", "pay", "/a/b"),
            ("/shop//a/b", "shop", "", "/a/b"),
            ("//", "", "", "/"),
            ("/sh%6Fp/p%C3%A4y/%6F", "shop", "päy", "/%6F"),
            ("/bad%zz/%", "bad%zz", "%", "/"),
            ("/%ff", "%ff", "", "/"),
        ];
        for (path, service, function, rest) in cases {
            let found = route(path);
            assert_eq!(
                (&*found.service, &*found.function, found.rest),
                (service, function, rest),
                "{path}"
            );
        }
    }

    fn parts(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Parts {
        build(Request::builder().uri("/shop/pay/x?a=1&b=%20"))
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn the_function_learns_how_it_was_asked_but_not_the_credentials() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parts = parts(|request| {
            request
                .method("PUT")
                .header("authorization", "Bearer secret")
                .header("Content-Type", "text/csv")
                .header("x-many", "one")
                .header("x-many", "two")
                .header("traceparent", trace)
                .header("connection", "close")
        });
        let found = metadata(&parts, "/x").unwrap();
        let expected = [
            ("header.content-type", "text/csv"),
            ("header.traceparent", trace),
            ("header.x-many", "one, two"),
            ("httpMethod", "PUT"),
            ("httpPath", "/x"),
            ("httpQuery", "a=1&b=%20"),
            ("traceparent", trace),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn metadata_has_a_limit() {
        let parts = parts(|request| request.header("x-long", "x".repeat(MAX_METADATA)));
        assert!(matches!(
            metadata(&parts, "/"),
            Err(CallError::MetadataTooLong { .. })
        ));
    }

    #[test]
    fn a_timeout_is_a_number_of_milliseconds() {
        let asked =
            |value: &'static str| timeout(&parts(|request| request.header(TIMEOUT, value)).headers);
        assert_eq!(asked("1500").unwrap(), Some(Duration::from_millis(1500)));
        for wrong in ["0", "-1", "1.5", "5s", "", "99999999999"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn an_invocation_id_is_kept_or_made() {
        let given = parts(|request| request.header(INVOKE_ID, "mine"));
        assert_eq!(invoke_id(&given.headers), "mine");
        let none = HeaderMap::new();
        assert_ne!(invoke_id(&none), invoke_id(&none));
        let long = parts(|request| request.header(INVOKE_ID, "x".repeat(MAX_INVOKE_ID + 1)));
        assert_eq!(invoke_id(&long.headers).len(), 36);
    }
}
