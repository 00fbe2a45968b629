//! Why a call has no result, and what each protocol says then.
//!
//! The texts are for callers: they name service and function, and never carry a traceback.

use std::time::Duration;

use baetyl_kit::grpc::details;
use http::StatusCode;
use tonic::{Code, Status};

/// When a caller who found everything full should try again. How fast a queue gets shorter only its functions know;
/// a second keeps callers who wait from being the load.
const RETRY: Duration = Duration::from_secs(1);

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no function service {service} on this node")]
    UnknownService { service: String },
    #[error("service {service} has no functions")]
    NoFunctions { service: String },
    #[error("service {service} has no function {function}")]
    UnknownFunction { service: String, function: String },
    #[error("{0}")]
    Unauthenticated(String),
    #[error(
        "access to service {service} is {access:?}, which this proxy does not know; it knows token and anonymous"
    )]
    UnknownAccess { service: String, access: String },
    #[error("engine has not told yet which functions there are and whom to trust; try again")]
    NoEngine,
    #[error("the call cannot be read: {0}")]
    Malformed(String),
    #[error("the payload is longer than {limit} bytes")]
    PayloadTooLong { limit: usize },
    #[error("the metadata is longer than {limit} bytes")]
    MetadataTooLong { limit: usize },
    #[error("{waiting} calls wait for service {service} already; try again later")]
    QueueFull { service: String, waiting: usize },
    #[error("the proxy holds as many payloads as it may; try again later")]
    OutOfMemory,
    #[error("no runtime of service {service} registered within {}: {reason}", baetyl_kit::config::format_duration(*.waited))]
    NoRuntime {
        service: String,
        waited: Duration,
        reason: String,
    },
    #[error("service {service} cannot be started: {reason}")]
    NotStarted { service: String, reason: String },
    #[error("function {function} of service {service} gave no answer within {}", baetyl_kit::config::format_duration(*.timeout))]
    Deadline {
        service: String,
        function: String,
        timeout: Duration,
    },
    #[error("function {function} of service {service} failed: {message}")]
    Function {
        service: String,
        function: String,
        message: String,
    },
    #[error("what function {function} of service {service} returned cannot be sent: {message}")]
    Return {
        service: String,
        function: String,
        message: String,
    },
    #[error(
        "the worker of function {function} of service {service} ended without an answer: {message}"
    )]
    Worker {
        service: String,
        function: String,
        message: String,
    },
    #[error(
        "the runtime of service {service} went away while function {function} ran; it is not known how far it got"
    )]
    RuntimeGone { service: String, function: String },
    #[error("function {function} of service {service} was cancelled by its runtime: {message}")]
    Cancelled {
        service: String,
        function: String,
        message: String,
    },
    #[error(
        "the result of function {function} of service {service} is longer than {limit} bytes; call it with InvokeStream"
    )]
    ResultTooLong {
        service: String,
        function: String,
        limit: usize,
    },
    #[error("the caller of function {function} of service {service} does not take its chunks")]
    SlowCaller { service: String, function: String },
    #[error("the function proxy is stopping")]
    Stopping,
}

impl CallError {
    /// The HTTP status and Baetyl v2's `errCode` (or one of the same style where v2 had none).
    pub(crate) fn http(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownService { .. } => (StatusCode::NOT_FOUND, "ERR_ADDRESS_RESOLVE"),
            Self::NoFunctions { .. } | Self::UnknownFunction { .. } => {
                (StatusCode::NOT_FOUND, "ERR_FUNCTION_NOT_FOUND")
            }
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "ERR_UNAUTHENTICATED"),
            Self::UnknownAccess { .. } => (StatusCode::FORBIDDEN, "ERR_PERMISSION_DENIED"),
            Self::NoEngine => (StatusCode::SERVICE_UNAVAILABLE, "ERR_ENGINE_UNAVAILABLE"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "ERR_BAD_REQUEST"),
            Self::PayloadTooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "ERR_BODY_TOO_LONG"),
            Self::MetadataTooLong { .. } => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "ERR_HEADERS_TOO_LONG",
            ),
            Self::QueueFull { .. } | Self::OutOfMemory => {
                (StatusCode::TOO_MANY_REQUESTS, "ERR_QUEUE_FULL")
            }
            Self::NoRuntime { .. } | Self::NotStarted { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "ERR_GET_GRPC_CONN")
            }
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "ERR_STOPPING"),
            Self::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, "ERR_DEADLINE"),
            Self::Function { .. } | Self::Return { .. } | Self::ResultTooLong { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "ERR_FUNCTION_CALL")
            }
            Self::Worker { .. }
            | Self::RuntimeGone { .. }
            | Self::Cancelled { .. }
            | Self::SlowCaller { .. } => (StatusCode::BAD_GATEWAY, "ERR_FUNCTION_CALL"),
        }
    }

    /// The word in metrics.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::QueueFull { .. } | Self::OutOfMemory => Outcome::Refused,
            Self::Deadline { .. } => Outcome::Deadline,
            Self::Function { .. } | Self::Return { .. } | Self::ResultTooLong { .. } => {
                Outcome::Function
            }
            Self::Worker { .. }
            | Self::RuntimeGone { .. }
            | Self::Cancelled { .. }
            | Self::SlowCaller { .. } => Outcome::Runtime,
            Self::NoRuntime { .. } | Self::NotStarted { .. } | Self::NoEngine | Self::Stopping => {
                Outcome::Unavailable
            }
            Self::UnknownService { .. }
            | Self::NoFunctions { .. }
            | Self::UnknownFunction { .. }
            | Self::Unauthenticated(_)
            | Self::UnknownAccess { .. }
            | Self::Malformed(_)
            | Self::PayloadTooLong { .. }
            | Self::MetadataTooLong { .. } => Outcome::Rejected,
        }
    }

    /// The status of `faas.Function/Call`, with the texts Baetyl v2's runtimes use.
    pub(crate) fn faas(&self) -> Status {
        match self {
            Self::NoFunctions { .. } => Status::unknown("no functions exist"),
            Self::UnknownFunction { .. } => Status::unknown("the function doesn't found"),
            Self::Function { .. } | Self::Worker { .. } => {
                Status::unknown(format!("[UserCodeInvoke] {self}"))
            }
            Self::Return { .. } | Self::ResultTooLong { .. } => {
                Status::unknown(format!("[UserCodeReturn] {self}"))
            }
            other => Status::from(other.clone()),
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::UnknownService { .. }
            | CallError::NoFunctions { .. }
            | CallError::UnknownFunction { .. } => Code::NotFound,
            CallError::Unauthenticated(_) => Code::Unauthenticated,
            CallError::UnknownAccess { .. } => Code::PermissionDenied,
            CallError::NoEngine
            | CallError::NoRuntime { .. }
            | CallError::NotStarted { .. }
            | CallError::RuntimeGone { .. }
            | CallError::Stopping => Code::Unavailable,
            CallError::Malformed(_)
            | CallError::PayloadTooLong { .. }
            | CallError::MetadataTooLong { .. } => Code::InvalidArgument,
            CallError::QueueFull { .. } | CallError::OutOfMemory | CallError::SlowCaller { .. } => {
                Code::ResourceExhausted
            }
            CallError::Deadline { .. } => Code::DeadlineExceeded,
            CallError::Cancelled { .. } => Code::Cancelled,
            CallError::Function { .. }
            | CallError::Return { .. }
            | CallError::Worker { .. }
            | CallError::ResultTooLong { .. } => Code::Unknown,
        };
        match &error {
            CallError::QueueFull { .. } | CallError::OutOfMemory => {
                details::retry_after(code, error.to_string(), RETRY)
            }
            CallError::PayloadTooLong { .. } => details::invalid("payload", error.to_string()),
            CallError::MetadataTooLong { .. } => details::invalid("metadata", error.to_string()),
            _ => Self::new(code, error.to_string()),
        }
    }
}

/// How a call ended, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// The function raised, or returned what cannot be sent.
    Function,
    /// Worker or runtime ended.
    Runtime,
    Deadline,
    /// Too much was waiting.
    Refused,
    Unavailable,
    /// Not a call that could be made.
    Rejected,
    /// The caller went away.
    Abandoned,
}

impl Outcome {
    pub(crate) const ALL: [Self; 8] = [
        Self::Ok,
        Self::Function,
        Self::Runtime,
        Self::Deadline,
        Self::Refused,
        Self::Unavailable,
        Self::Rejected,
        Self::Abandoned,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Function => "function",
            Self::Runtime => "runtime",
            Self::Deadline => "deadline",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Abandoned => "abandoned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_everything_full_is_told_when_to_try_again() {
        let full = [
            CallError::QueueFull {
                service: "greet".to_owned(),
                waiting: 1,
            },
            CallError::OutOfMemory,
        ];
        for error in full {
            for status in [Status::from(error.clone()), error.faas()] {
                assert_eq!(status.code(), Code::ResourceExhausted);
                assert_eq!(status.message(), error.to_string());
                assert_eq!(details::retry_delay(&status), Some(RETRY));
            }
        }
    }

    #[test]
    fn what_is_too_long_is_named() {
        let fields = [
            (CallError::PayloadTooLong { limit: 1 }, "payload"),
            (CallError::MetadataTooLong { limit: 1 }, "metadata"),
        ];
        for (error, field) in fields {
            let status = Status::from(error);
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(details::violations(&status)[0].field, field);
        }
    }
}
