//! What can be configured. `etc/function-proxy.toml` is the commented example.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use baetyl_kit::admin::AdminConfig;
use baetyl_kit::cli::{LogConfig, ProcessConfig, Shell, ShellConfig};
use baetyl_kit::config::{ByteSize, duration};
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::listen::Listen;
use serde::{Deserialize, Serialize};

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The gRPC listener.
    pub grpc: GrpcConfig,
    /// TLS of both listeners and the way to engine; without it the listeners are on loopback only.
    pub tls: TlsConfig,
    /// Where engine is.
    pub engine: EngineConfig,
    /// How long calls may take.
    pub call: CallConfig,
    /// What may wait.
    pub queue: QueueConfig,
    /// Registered runtimes.
    pub runtime: RuntimeConfig,
}

/// The section `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where `/<service>[/<function>]` is served.
    pub listen: Listen,
}

/// The section `grpc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Where `FunctionService` and `faas.Function` are served.
    pub listen: Listen,
}

/// The section `tls`. All files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Directory with `tls.crt`, `tls.key` and `ca.crt`, which may be replaced while the proxy runs: who it is towards
    /// engine and its callers, and the authority of applications' certificates.
    pub dir: Option<PathBuf>,
    /// The chain the listeners show, the proxy's own certificate first; instead of the one in `dir`. Read at the start.
    pub certificate: Option<PathBuf>,
    /// Its private key. Read at the start.
    pub key: Option<PathBuf>,
    /// The authority of applications beside `certificate`: who shows a certificate of it that names an application (by URI
    /// `spiffe://node.baetyl/app/<namespace>/<application>`, or by common name `<application>.<service>`) is that
    /// application, as with a token. Without it no certificate is asked for. Read at the start.
    pub client_ca: Option<PathBuf>,
}

/// The shell's sections but for `tls`, which is the proxy's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShellSections {
    /// Health, readiness and metrics.
    pub admin: AdminConfig,
    /// Log output.
    pub log: LogConfig,
    /// Threads and shutdown.
    pub process: ProcessConfig,
}

impl Shell for ShellSections {
    fn log_mut(&mut self) -> &mut LogConfig {
        &mut self.log
    }

    fn into_shell(self) -> ShellConfig {
        ShellConfig {
            admin: self.admin,
            log: self.log,
            process: self.process,
            ..ShellConfig::default()
        }
    }
}

/// The section `engine`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Engine's core socket; without it the one in the data directory.
    pub endpoint: Option<Endpoint>,
}

/// The section `call`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallConfig {
    /// For calls whose caller and function say nothing.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The most a caller can ask for when the function says nothing.
    #[serde(with = "duration")]
    pub max_timeout: Duration,
    /// How long a call waits for a runtime of its application to register.
    #[serde(with = "duration")]
    pub start_wait: Duration,
}

/// The section `queue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Calls that may wait, for each application.
    pub length: usize,
    /// Payloads held at one time, of all applications together.
    pub memory: ByteSize,
}

/// The section `runtime`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Period of heartbeats in both directions; three missed ones end the connection.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
}

const fn loopback(port: u16) -> Listen {
    Listen::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: loopback(50011),
        }
    }
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: loopback(50012),
        }
    }
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            // What Baetyl v2 gave each attempt.
            max_timeout: Duration::from_secs(300),
            start_wait: Duration::from_secs(20),
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            length: 256,
            memory: ByteSize(64 * 1024 * 1024),
        }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_shows_exactly_the_defaults() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/function-proxy.toml");
        let (shell, config) = baetyl_kit::config::load_both::<ShellSections, Config>(
            "function-proxy",
            Some(&file),
            [],
        )
        .unwrap();
        assert_eq!(
            (shell, config),
            (ShellSections::default(), Config::default())
        );
    }

    #[test]
    fn the_environment_can_name_the_certificates() {
        let env = [
            ("BAETYL_FUNCTION_PROXY__TLS__CERTIFICATE", "/c.pem"),
            ("BAETYL_FUNCTION_PROXY__TLS__KEY", "/k.pem"),
            ("BAETYL_FUNCTION_PROXY__TLS__DIR", "/etc/baetyl/tls"),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let (_, config) =
            baetyl_kit::config::load_both::<ShellSections, Config>("function-proxy", None, env)
                .unwrap();
        let expected = TlsConfig {
            dir: Some("/etc/baetyl/tls".into()),
            certificate: Some("/c.pem".into()),
            key: Some("/k.pem".into()),
            client_ca: None,
        };
        assert_eq!(config.tls, expected);
    }
}
