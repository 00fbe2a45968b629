//! Reading bodies: a limit that answers instead of breaking off, unknown fields named, all mistakes at once.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use baetyl_model::resource::FieldError;
use baetyl_model::strict;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::CONTENT_LENGTH;
use serde::de::DeserializeOwned;

use super::error::{ApiError, Code, Mistake};

/// Largest body of JSON, in bytes: what Baetyl v2 takes for the data of a configuration.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;

/// How much of a body that is too large is read and thrown away, so that its sender reads the answer: a sender that is
/// cut off in the middle sees a broken connection instead.
const MAX_DRAIN: usize = 4 * MAX_BODY;

/// Most warnings in one answer.
const MAX_WARNINGS: usize = 20;

/// Warnings for the caller, put into headers when the answer is written.
#[derive(Debug, Clone, Default)]
pub(super) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Each becomes a header; more than [`MAX_WARNINGS`] are not read by anybody.
    fn push(&self, warning: String) {
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match warnings.len() {
            0..MAX_WARNINGS => warnings.push(warning),
            MAX_WARNINGS => warnings.push("and more".to_owned()),
            _ => {}
        }
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is done about unknown fields: Kubernetes' `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    fn of(query: &str) -> Result<Self, ApiError> {
        match super::list::last_value(query, "fieldValidation").as_deref() {
            None | Some("" | "Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => Err(ApiError::invalid(
                "fieldValidation",
                format!("\"{other}\" is not one of Ignore, Warn, Strict"),
            )),
        }
    }
}

/// A body that was read but not accepted yet: [`Input::accept`] or [`Input::check`] it.
#[derive(Debug)]
pub(super) struct Input<T> {
    /// What was given.
    pub(super) value: T,
    unknown: Vec<String>,
    strict: bool,
}

impl<T> Input<T> {
    /// The value, when neither the rules nor unknown fields (with `fieldValidation=Strict`) speak against it.
    pub(super) fn accept(self, check: impl FnOnce(&T) -> Vec<Mistake>) -> Result<T, ApiError> {
        let mut mistakes = check(&self.value);
        if self.strict {
            mistakes.extend(
                self.unknown
                    .into_iter()
                    .map(|field| Mistake::new(field, "unknown field")),
            );
        }
        if mistakes.is_empty() {
            Ok(self.value)
        } else {
            Err(ApiError::mistakes(mistakes))
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let validation = FieldValidation::of(request.uri().query().unwrap_or_default())?;
        let warnings = request
            .extensions()
            .get::<Warnings>()
            .cloned()
            .unwrap_or_default();
        let body = read(request).await?;
        match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
            // What begins otherwise may be valid JSON all the same: an array would be taken as the fields in order.
            Some(b'{') => {}
            Some(_) => return Err(ApiError::invalid("", "the body is not a JSON object")),
            None => {
                return Err(ApiError::invalid(
                    "",
                    "the body is empty; a JSON object is wanted",
                ));
            }
        }
        let parsed: strict::Parsed<T> = strict::parse(&body).map_err(|error| match error {
            strict::ParseError::Syntax(message) => {
                ApiError::invalid("", format!("the body is not valid JSON: {message}"))
            }
            strict::ParseError::Field { path, message } => ApiError::invalid(path, message),
        })?;
        if validation == FieldValidation::Warn {
            for field in &parsed.unknown {
                warnings.push(format!("unknown field \"{field}\""));
            }
        }
        let strict = validation == FieldValidation::Strict;
        Ok(Self {
            value: parsed.value,
            unknown: parsed.unknown,
            strict,
        })
    }
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = Vec::with_capacity(announced.unwrap_or(0usize).min(MAX_BODY));
    let mut stream: BodyDataStream = Body::into_data_stream(request.into_body());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::invalid("", "the body broke off"))?;
        if body.len() + chunk.len() > MAX_BODY {
            drain(stream, body.len() + chunk.len()).await;
            return Err(ApiError::too_large(MAX_BODY));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

async fn drain(mut stream: BodyDataStream, mut seen: usize) {
    while seen < MAX_DRAIN
        && let Some(Ok(chunk)) = stream.next().await
    {
        seen += chunk.len();
    }
}

/// The model's findings as mistakes, with Baetyl v2's codes where it had some of its own.
pub(super) fn mistakes(findings: Vec<FieldError>) -> Vec<Mistake> {
    findings.into_iter().map(Mistake::from).collect()
}

impl From<FieldError> for Mistake {
    fn from(FieldError { field, message }: FieldError) -> Self {
        let code = code_of(&field, &message);
        Self::new(field, message).with_code(code)
    }
}

/// Baetyl v2 told some kinds of mistakes apart by code.
fn code_of(field: &str, message: &str) -> Code {
    let part = |list: &str| field.starts_with(list) && field.ends_with("].name");
    if field == "name" && message.contains("kept for the system") {
        Code::nonBaetyl
    } else if message.contains("is used twice")
        && (part("volumes[") || part("services[") || part("initServices["))
    {
        Code::ErrAppNameConflict
    } else if message.contains("the application has no volume") {
        Code::ErrVolumeNotFoundWhenMount
    } else {
        Code::ErrRequestParamInvalid
    }
}
