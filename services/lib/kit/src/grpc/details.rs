//! What a caller can act on, beside code and message: `google.rpc` details in a status.
//!
//! The messages are for people and may change; programs decide by code and details. See `proto/README.md`.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "baetyl";

/// Faults told at most: a status travels in headers, of which peers take 16 KiB.
const MAX_VIOLATIONS: usize = 20;

/// A fault of one field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `changes[3].key`.
    pub field: String,
    /// A sentence.
    pub description: String,
}

impl Violation {
    /// Of this field.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// A refusal with a reason for programs (`google.rpc.ErrorInfo`), an UPPER_SNAKE_CASE word.
#[must_use]
pub fn refused(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// The reason of a refusal by one of our services.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == DOMAIN).then_some(info.reason)
}

/// Says when trying again makes sense (`google.rpc.RetryInfo`).
#[must_use]
pub fn retry_after(code: Code, message: impl Into<String>, delay: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(delay));
    Status::with_error_details(code, message, details)
}

/// When trying again makes sense, if the service said so.
#[must_use]
pub fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// `INVALID_ARGUMENT` for one field (`google.rpc.BadRequest`).
#[must_use]
pub fn invalid(field: &str, message: impl Into<String>) -> Status {
    invalid_fields(vec![Violation::new(field, message)])
}

/// `INVALID_ARGUMENT` with all faults at once (`google.rpc.BadRequest`); the message is their sentences.
#[must_use]
pub fn invalid_fields(mut violations: Vec<Violation>) -> Status {
    let more = violations.len().saturating_sub(MAX_VIOLATIONS);
    violations.truncate(MAX_VIOLATIONS);
    let mut sentences: Vec<String> = violations
        .iter()
        .map(|violation| violation.description.clone())
        .collect();
    if more > 0 {
        sentences.push(format!("and {more} more"));
    }
    let mut details = ErrorDetails::new();
    for Violation { field, description } in violations {
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, sentences.join("; "), details)
}

/// The faults of fields a service told.
#[must_use]
pub fn violations(status: &Status) -> Vec<Violation> {
    let request = status.get_details_bad_request();
    request.map_or_else(Vec::new, |request| {
        let violations = request.field_violations.into_iter();
        violations
            .map(|violation| Violation::new(violation.field, violation.description))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_wire_and_only_ours_is_read() {
        let status = refused(Code::FailedPrecondition, "STALE", "the desire is older");
        let headers = status.into_http::<()>().into_parts().0.headers;
        let read = Status::from_header_map(&headers).unwrap();
        assert_eq!(read.code(), Code::FailedPrecondition);
        assert_eq!(read.message(), "the desire is older");
        assert_eq!(reason(&read).as_deref(), Some("STALE"));
        let foreign = Status::with_error_details(
            Code::FailedPrecondition,
            "",
            ErrorDetails::with_error_info("STALE", "example.org", HashMap::new()),
        );
        assert_eq!(reason(&foreign), None);
        assert_eq!(reason(&Status::failed_precondition("STALE: old")), None);
    }

    #[test]
    fn a_delay_is_read_as_it_was_told() {
        let delay = Duration::from_millis(1500);
        let status = retry_after(Code::ResourceExhausted, "full", delay);
        assert_eq!(retry_delay(&status), Some(delay));
        assert_eq!(retry_delay(&Status::resource_exhausted("full")), None);
    }

    #[test]
    fn all_faults_are_told_at_once_but_no_more_than_fit_in_headers() {
        let one = invalid("owner", "1 to 64 characters are wanted");
        assert_eq!(one.code(), Code::InvalidArgument);
        assert_eq!(one.message(), "1 to 64 characters are wanted");
        assert_eq!(violations(&one)[0].field, "owner");

        let many = (0..25)
            .map(|i| Violation::new(format!("changes[{i}].key"), format!("key {i} is empty")))
            .collect();
        let status = invalid_fields(many);
        assert_eq!(violations(&status).len(), MAX_VIOLATIONS);
        assert!(
            status
                .message()
                .starts_with("key 0 is empty; key 1 is empty")
        );
        assert!(status.message().ends_with("and 5 more"));
    }
}
