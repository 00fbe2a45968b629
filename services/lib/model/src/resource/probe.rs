//! Kubernetes probes, complete.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::is_default;

/// How to find out whether a service lives, serves or has started. Exactly one action is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Probe {
    /// Run a command: exit code 0 is good.
    #[serde(skip_serializing_if = "is_default")]
    pub exec: Option<ExecAction>,
    /// Ask over HTTP: a status from 200 to 399 is good.
    #[serde(skip_serializing_if = "is_default")]
    pub http_get: Option<HttpGetAction>,
    /// Open a TCP connection.
    #[serde(skip_serializing_if = "is_default")]
    pub tcp_socket: Option<TcpSocketAction>,
    /// Ask `grpc.health.v1.Health`.
    #[serde(skip_serializing_if = "is_default")]
    pub grpc: Option<GrpcAction>,
    /// Seconds from the start to the first question.
    #[serde(skip_serializing_if = "is_default")]
    pub initial_delay_seconds: i32,
    /// Seconds to wait for an answer; 0 means 1.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_seconds: i32,
    /// Seconds between questions; 0 means 10.
    #[serde(skip_serializing_if = "is_default")]
    pub period_seconds: i32,
    /// Good answers in a row until good; 0 means 1.
    #[serde(skip_serializing_if = "is_default")]
    pub success_threshold: i32,
    /// Bad answers in a row until bad; 0 means 3.
    #[serde(skip_serializing_if = "is_default")]
    pub failure_threshold: i32,
    /// Seconds a failed liveness probe gives before killing.
    #[serde(skip_serializing_if = "is_default")]
    pub termination_grace_period_seconds: Option<i64>,
}

/// Times of a probe in seconds and counts, with Kubernetes' defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeTiming {
    /// Seconds from the start to the first question.
    pub initial_delay: u32,
    /// Seconds to wait for an answer.
    pub timeout: u32,
    /// Seconds between questions.
    pub period: u32,
    /// Good answers in a row until good.
    pub success: u32,
    /// Bad answers in a row until bad.
    pub failure: u32,
}

impl Probe {
    /// Times with the defaults of Kubernetes filled in.
    pub fn timing(&self) -> ProbeTiming {
        let or = |given: i32, default: u32| {
            u32::try_from(given)
                .ok()
                .filter(|given| *given > 0)
                .unwrap_or(default)
        };
        ProbeTiming {
            initial_delay: or(self.initial_delay_seconds, 0),
            timeout: or(self.timeout_seconds, 1),
            period: or(self.period_seconds, 10),
            success: or(self.success_threshold, 1),
            failure: or(self.failure_threshold, 3),
        }
    }

    /// How many actions are set; a valid probe has exactly one.
    pub fn actions(&self) -> usize {
        usize::from(self.exec.is_some())
            + usize::from(self.http_get.is_some())
            + usize::from(self.tcp_socket.is_some())
            + usize::from(self.grpc.is_some())
    }
}

/// A command inside the instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExecAction {
    /// Program and arguments; no shell.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Vec<String>,
}

/// An HTTP GET.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpGetAction {
    /// Path; empty means `/`.
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// Number or name of a port.
    pub port: Port,
    /// Host; empty means the instance.
    #[serde(skip_serializing_if = "is_default")]
    pub host: String,
    /// `HTTP` (default) or `HTTPS` (certificate not checked, as Kubernetes does).
    #[serde(skip_serializing_if = "is_default")]
    pub scheme: String,
    /// Extra headers.
    #[serde(skip_serializing_if = "is_default")]
    pub http_headers: Vec<HttpHeader>,
}

/// One header of an HTTP probe.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpSocketAction {
    /// Number or name of a port.
    pub port: Port,
    /// Host; empty means the instance.
    #[serde(skip_serializing_if = "is_default")]
    pub host: String,
}

/// A gRPC health question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcAction {
    /// Port.
    pub port: i32,
    /// Service to ask for; absent means the server as a whole.
    #[serde(skip_serializing_if = "is_default")]
    pub service: Option<String>,
}

/// A port by number or by name, as Kubernetes' IntOrString.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    /// By number.
    Number(i32),
    /// By name.
    Name(String),
}

impl Default for Port {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Port {
    /// The number, also when it was written as text.
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Number(number) => u16::try_from(*number).ok().filter(|number| *number != 0),
            Self::Name(name) => name.parse().ok().filter(|number| *number != 0),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.pad(name),
        }
    }
}
