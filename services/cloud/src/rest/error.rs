//! What a caller is told when something is wrong: Baetyl v2's `{code, message, requestId}` with the right HTTP status,
//! or problem+json for those who ask for it.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use baetyl_kit::error::chain;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

use crate::auth::AuthError;
use crate::store::StoreError;

/// One thing that is wrong in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mistake {
    /// Where, e.g. `services[0].name`; empty when it is about the whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) field: String,
    /// What, and what is wanted instead.
    pub(super) message: String,
    /// Baetyl v2's code of this kind of mistake.
    #[serde(skip)]
    pub(super) code: Code,
}

impl Mistake {
    /// A mistake in a parameter.
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            code: Code::ErrRequestParamInvalid,
        }
    }

    /// The same with another code.
    #[must_use]
    pub(super) fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    fn sentence(&self) -> String {
        if self.field.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.field, self.message)
        }
    }
}

/// Baetyl v2's words for kinds of errors; each has one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(non_camel_case_types, reason = "the words on the wire")]
pub(super) enum Code {
    /// Something in the request is wrong.
    ErrRequestParamInvalid,
    /// No valid credentials.
    ErrRequestAccessDenied,
    /// No such path or method.
    ErrRequestMethodNotFound,
    /// No such thing in this namespace.
    ErrResourceNotFound,
    /// The role does not allow it.
    ErrResourceAccessForbidden,
    /// There is one of this name.
    ErrResourceConflict,
    /// In use, therefore not deleted.
    ErrResourceHasBeenUsed,
    /// A resource of the system.
    ErrResourceInvisible,
    /// It was changed since it was read.
    ErrUpdateCas,
    /// More bytes than are taken.
    ErrDataTooLarge,
    /// A name of the system.
    nonBaetyl,
    /// Two volumes or services of one name.
    ErrAppNameConflict,
    /// A mount without volume.
    ErrVolumeNotFoundWhenMount,
    /// Our fault.
    UnknownError,
}

impl Code {
    /// The HTTP status of this kind of error.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::ErrRequestParamInvalid
            | Self::nonBaetyl
            | Self::ErrAppNameConflict
            | Self::ErrVolumeNotFoundWhenMount
            | Self::ErrResourceInvisible => StatusCode::BAD_REQUEST,
            Self::ErrRequestAccessDenied => StatusCode::UNAUTHORIZED,
            Self::ErrRequestMethodNotFound | Self::ErrResourceNotFound => StatusCode::NOT_FOUND,
            Self::ErrResourceAccessForbidden | Self::ErrResourceHasBeenUsed => {
                StatusCode::FORBIDDEN
            }
            Self::ErrResourceConflict => StatusCode::CONFLICT,
            Self::ErrUpdateCas => StatusCode::PRECONDITION_FAILED,
            Self::ErrDataTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    /// Baetyl v2's word.
    pub(super) code: Code,
    /// HTTP status; that of the code unless HTTP has a better one.
    pub(super) status: StatusCode,
    /// A sentence for people.
    pub(super) message: String,
    /// The single mistakes, when there are some in fields.
    pub(super) mistakes: Vec<Mistake>,
}

impl ApiError {
    /// An error with its code's status.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            message: message.into(),
            mistakes: Vec::new(),
        }
    }

    /// All mistakes of a request at once. They must be at least one.
    pub(super) fn mistakes(mistakes: Vec<Mistake>) -> Self {
        // The first that v2 has a word of its own for.
        let mut codes = mistakes.iter().map(|mistake| mistake.code);
        let code = codes
            .find(|code| *code != Code::ErrRequestParamInvalid)
            .unwrap_or(Code::ErrRequestParamInvalid);
        let sentences: Vec<_> = mistakes.iter().map(Mistake::sentence).collect();
        let message = format!(
            "The request parameter is invalid. ({})",
            sentences.join("; ")
        );
        Self {
            mistakes,
            ..Self::new(code, message)
        }
    }

    /// One mistake in one field.
    pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::mistakes(vec![Mistake::new(field, message)])
    }

    /// There is no such thing in this namespace.
    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        Self::new(
            Code::ErrResourceNotFound,
            format!("The ({kind}) resource ({name}) is not found."),
        )
    }

    /// There is one of this name already.
    pub(super) fn duplicate(kind: &str, name: &str) -> Self {
        Self::new(
            Code::ErrResourceConflict,
            format!("The ({kind}) resource ({name}) exists already: this name is already in use."),
        )
    }

    /// It is used by others, therefore not deleted.
    pub(super) fn in_use(kind: &str, name: &str, users: &[String]) -> Self {
        let users = users.join(", ");
        Self::new(
            Code::ErrResourceHasBeenUsed,
            format!(
                "The ({kind}) resource ({name}) has been used by: {users}. Change or delete those first."
            ),
        )
    }

    /// The name belongs to the system.
    pub(super) fn reserved(field: &str, name: &str) -> Self {
        let message = format!(
            "\"{name}\" cannot contain baetyl (case insensitive), which is kept for the system"
        );
        Self::mistakes(vec![
            Mistake::new(field, message).with_code(Code::nonBaetyl),
        ])
    }

    /// The body is longer than `limit` bytes.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(
            Code::ErrDataTooLarge,
            format!(
                "The body is larger than {limit} bytes; put large files into an object (PUT /v1/objects/{{name}})."
            ),
        )
    }

    /// Our fault: the causes go to the log, the caller gets the request id to ask with.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "request failed");
        Self::new(
            Code::UnknownError,
            "The cloud could not do this; its log tells why, under this request id.",
        )
    }
}

impl ApiError {
    /// Not now.
    fn busy(error: &StoreError) -> Self {
        tracing::warn!(error = %chain(error), "request not done: the database is busy");
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..Self::new(
                Code::UnknownError,
                "The cloud is busy and did not do this; try again in a moment.",
            )
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            error if error.is_busy() => Self::busy(error),
            StoreError::NoNamespace(name) => Self::not_found("namespace", name.as_str()),
            StoreError::Query { .. } | StoreError::Row { .. } | StoreError::Seal { .. } => {
                Self::internal(&error)
            }
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match &error {
            AuthError::Missing | AuthError::Invalid => Self::new(
                Code::ErrRequestAccessDenied,
                format!("The request access is denied: {error}."),
            ),
            AuthError::Unavailable(source) if source.is_busy() => Self::busy(source),
            AuthError::Unavailable(_) => Self::internal(&error),
        }
    }
}

impl IntoResponse for ApiError {
    /// The body is written by [`render`], which knows the request id and what the caller accepts.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plain<'a> {
    code: Code,
    message: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Mistake],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Mistake],
}

/// The media type of RFC 9457.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// True when the caller asks for problem+json.
pub(crate) fn wants_problem(request: &HeaderMap) -> bool {
    request.get_all(ACCEPT).iter().any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains(PROBLEM_JSON))
    })
}

/// Gives an error its body; also those the framework made. Other answers pass.
pub(super) fn render(response: Response, request: &HeaderMap, request_id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let error = match response.extensions().get::<ApiError>() {
        Some(error) => error.clone(),
        None => of_framework(status),
    };
    let (kind, body) = if wants_problem(request) {
        let problem = Problem {
            r#type: "about:blank",
            title: error.status.canonical_reason().unwrap_or("Error"),
            status: error.status.as_u16(),
            detail: &error.message,
            code: error.code,
            request_id,
            errors: &error.mistakes,
        };
        (PROBLEM_JSON, serde_json::to_vec(&problem))
    } else {
        let plain = Plain {
            code: error.code,
            message: &error.message,
            request_id,
            errors: &error.mistakes,
        };
        (
            "application/json; charset=utf-8",
            serde_json::to_vec(&plain),
        )
    };
    // Texts and numbers always serialise.
    let mut rendered = Response::new(Body::from(body.unwrap_or_default()));
    *rendered.status_mut() = error.status;
    rendered
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if error.status == StatusCode::UNAUTHORIZED {
        rendered
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if error.status == StatusCode::SERVICE_UNAVAILABLE {
        rendered
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    for name in [ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    rendered
}

fn of_framework(status: StatusCode) -> ApiError {
    let error = match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => ApiError::new(
            Code::ErrRequestMethodNotFound,
            "The request method is not found.",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(Code::ErrDataTooLarge, "The body is too large.")
        }
        status if status.is_client_error() => {
            let reason = status.canonical_reason().unwrap_or("Bad request");
            ApiError::new(
                Code::ErrRequestParamInvalid,
                format!("The request parameter is invalid. ({reason})"),
            )
        }
        _ => ApiError::new(
            Code::UnknownError,
            "The cloud could not do this; its log tells why.",
        ),
    };
    ApiError { status, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_database_is_503_with_the_time_to_try_again() {
        let busy = || StoreError::Query {
            doing: "test",
            source: sqlx::Error::PoolTimedOut,
        };
        for error in [
            ApiError::from(busy()),
            ApiError::from(AuthError::Unavailable(busy())),
        ] {
            let answer = render(error.into_response(), &HeaderMap::new(), "r1");
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.headers()[RETRY_AFTER], "1");
        }
        let broken = StoreError::Query {
            doing: "test",
            source: sqlx::Error::WorkerCrashed,
        };
        assert_eq!(
            ApiError::from(broken).status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
}
