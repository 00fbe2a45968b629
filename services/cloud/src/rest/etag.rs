//! Entity tags: the version of a resource in quotes; optimistic locking and cheap polling.

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use baetyl_model::Revision;

use super::error::{ApiError, Code};

/// What a caller knows of the resource it asks for or writes to.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    /// Write only to one of these versions.
    matches: Option<Vec<String>>,
    /// Answer only when it is none of these versions.
    none_matches: Option<Vec<String>>,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let (matches, none_matches) = (
            tags(&parts.headers, IF_MATCH),
            tags(&parts.headers, IF_NONE_MATCH),
        );
        Ok(Self {
            matches,
            none_matches,
        })
    }
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Option<Vec<String>> {
    headers.contains_key(&name).then(|| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let tags = values.flat_map(|value| value.split(','));
        tags.map(|tag| {
            tag.trim()
                .trim_start_matches("W/")
                .trim_matches('"')
                .to_owned()
        })
        .collect()
    })
}

impl Conditions {
    /// Refuses a write (412) when the caller wants to write over another version than the current one.
    pub(super) fn check_write(
        &self,
        kind: &str,
        name: &str,
        current: Option<Revision>,
    ) -> Result<(), ApiError> {
        let Some(tags) = &self.matches else {
            return Ok(());
        };
        let current = current.map(|version| version.to_string());
        let is_current = |tag: &String| match &current {
            Some(version) => tag == "*" || tag == version,
            None => false,
        };
        if tags.iter().any(is_current) {
            return Ok(());
        }
        let message = match current {
            Some(version) => format!(
                "The ({kind}) resource ({name}) was changed since it was read: its version is {version}. Read it again."
            ),
            None => format!("The ({kind}) resource ({name}) is not there (any more)."),
        };
        Err(ApiError::new(Code::ErrUpdateCas, message))
    }

    /// True when the caller has this version already (304).
    pub(super) fn has(&self, version: Revision) -> bool {
        let version = version.to_string();
        self.none_matches
            .as_ref()
            .is_some_and(|tags| tags.iter().any(|tag| tag == "*" || *tag == version))
    }
}

/// Adds the version as entity tag.
pub(super) fn tagged(mut response: Response, version: Revision) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// "You have it already."
pub(super) fn not_modified(version: Revision) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tagged(response, version)
}
