//! [`Kit`]: what a running service is given besides its configuration.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::fsio;
use crate::grpc::{Connect, ConnectError, Endpoint};
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::tasks::{Failure, Tasks};
use crate::tls::ServiceIdentity;

/// The surroundings of a service: its name, directories, tasks, readiness, metrics and clock. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Kit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    data_dir: PathBuf,
    tasks: Tasks,
    readiness: Readiness,
    metrics: Metrics,
    clock: Clock,
    identity: Option<ServiceIdentity>,
}

impl Kit {
    /// For the service `name` (`"node"`, without `baetyl-`) with its files under `data_dir`. A relative directory is
    /// taken from the current one, once: programs that are started with another one are told whole paths.
    pub fn new(name: &str, data_dir: impl Into<PathBuf>, clock: Clock) -> Self {
        let data_dir = data_dir.into();
        // Only an empty path or a current directory that is gone has no absolute form; using it as it is says so.
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        Self(Arc::new(Inner {
            name: name.to_owned(),
            data_dir,
            tasks: Tasks::new(name),
            readiness: Readiness::new(),
            metrics: Metrics::new(name),
            clock,
            identity: None,
        }))
    }

    /// For tests: a service named `test` with the system clock.
    pub fn for_test(data_dir: impl Into<PathBuf>) -> Self {
        Self::new("test", data_dir, Clock::system())
    }

    /// Another service in this process. It has its own name, tasks, latches and metric names; it shares the
    /// data directory, the clock, the identity and the shutdown of this one, and can be [stopped](Self::stop) alone.
    pub fn child(&self, name: &str) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            data_dir: self.0.data_dir.clone(),
            tasks: self.0.tasks.child(name),
            readiness: self.0.readiness.child(name),
            metrics: self.0.metrics.child(name),
            clock: self.0.clock.clone(),
            identity: self.0.identity.clone(),
        }))
    }

    /// The same service with tasks of their own, which do not stop with these: for what has to outlive the
    /// beginning of a shutdown, such as connections that carry answers to calls in progress. Whoever asks for
    /// it has to [stop](Self::stop) it.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Arc::new(Inner {
            name: self.0.name.clone(),
            data_dir: self.0.data_dir.clone(),
            tasks: Tasks::new(&self.0.name),
            readiness: self.0.readiness.clone(),
            metrics: self.0.metrics.clone(),
            clock: self.0.clock.clone(),
            identity: self.0.identity.clone(),
        }))
    }

    /// The same service, which shows this identity to the others of its node from now on.
    #[must_use]
    pub fn with_identity(&self, identity: ServiceIdentity) -> Self {
        Self(Arc::new(Inner {
            name: self.0.name.clone(),
            data_dir: self.0.data_dir.clone(),
            tasks: self.0.tasks.clone(),
            readiness: self.0.readiness.clone(),
            metrics: self.0.metrics.clone(),
            clock: self.0.clock.clone(),
            identity: Some(identity),
        }))
    }

    /// Who this service is towards the others of its node over TCP (section `tls` of the configuration). None: they talk
    /// over Unix sockets.
    pub fn identity(&self) -> Option<&ServiceIdentity> {
        self.0.identity.as_ref()
    }

    /// The way to another service of this node: as `configured`, else its core socket. `https` is spoken with the
    /// [identity](Self::identity) of this service.
    ///
    /// # Errors
    /// For `https` without an identity.
    pub fn peer(
        &self,
        configured: Option<&Endpoint>,
        service: &str,
    ) -> Result<Connect, ConnectError> {
        let socket = || Endpoint::unix(self.core_socket(service));
        let endpoint = configured.cloned().unwrap_or_else(socket);
        if !matches!(endpoint, Endpoint::Https(_)) {
            return Ok(Connect::new(endpoint));
        }
        match &self.0.identity {
            Some(identity) => Ok(Connect::new(endpoint).tls(identity.clone())),
            None => Err(ConnectError::NoIdentity(endpoint)),
        }
    }

    /// The service name, without `baetyl-`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The directory all edge services share (`--data-dir`).
    pub fn data_dir(&self) -> &Path {
        &self.0.data_dir
    }

    /// The directory this service alone owns, `<data-dir>/<name>` with mode 0700; made if missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn state_dir(&self) -> io::Result<PathBuf> {
        self.state_dir_with(0o700)
    }

    /// The same with another mode: a service whose programs run as other users lets these pass (0711), and closes what
    /// lies in it one by one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn state_dir_with(&self, mode: u32) -> io::Result<PathBuf> {
        let path = self.0.data_dir.join(&self.0.name);
        fsio::create_dir_mode(&path, mode)?;
        Ok(path)
    }

    /// `<data-dir>/run`, where sockets and addresses are; made if missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn run_dir(&self) -> io::Result<PathBuf> {
        let path = self.0.data_dir.join("run");
        if !path.exists() {
            fsio::create_dir_mode(&path, 0o755)?;
        }
        Ok(path)
    }

    /// The socket on which `service` serves the other core services: `<data-dir>/run/core/<service>.sock`.
    pub fn core_socket(&self, service: &str) -> PathBuf {
        self.0.data_dir.join(format!("run/core/{service}.sock"))
    }

    /// The socket on which `service` serves applications: `<data-dir>/run/apps/<service>.sock`.
    pub fn app_socket(&self, service: &str) -> PathBuf {
        self.0.data_dir.join(format!("run/apps/{service}.sock"))
    }

    /// Where tasks are spawned.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Where latches are registered.
    pub fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    /// Where metrics are registered.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Wall time and uptime.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Cancelled when the service shall stop.
    pub fn shutdown(&self) -> &CancellationToken {
        self.0.tasks.shutdown()
    }

    /// Returns when the service shall stop: by signal, by [`stop`](Self::stop), or because a required task
    /// ended. The last line of most `run` functions.
    pub async fn until_shutdown(&self) {
        self.shutdown().cancelled().await;
    }

    /// Stops the service and waits up to `deadline` for its tasks.
    ///
    /// # Errors
    /// The failure that ended the service, or the names of the tasks that had to be aborted.
    pub async fn stop(&self, deadline: Duration) -> Result<(), Failure> {
        self.0.tasks.stop(deadline).await
    }

    /// Writes the bound address of a listener to `<data-dir>/run/<name>.addr`, for people and tests.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_addr(&self, name: &str, addr: &dyn std::fmt::Display) -> io::Result<()> {
        let path = self.run_dir()?.join(format!("{name}.addr"));
        fsio::atomic_write(&path, format!("{addr}\n").as_bytes(), 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_service_owns_a_private_directory() {
        let dir = tempfile::tempdir().unwrap();
        let kit = Kit::for_test(dir.path()).child("node");
        let state = kit.state_dir().unwrap();
        assert_eq!(state, dir.path().join("node"));
        let mode = std::fs::metadata(&state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_relative_directory_is_made_whole() {
        let kit = Kit::for_test("some/where");
        assert!(kit.data_dir().is_absolute() && kit.data_dir().ends_with("some/where"));
    }

    #[test]
    fn the_address_of_a_listener_is_written_where_tests_look() {
        let dir = tempfile::tempdir().unwrap();
        let kit = Kit::for_test(dir.path());
        kit.write_addr("rest", &"127.0.0.1:7").unwrap();
        let text = std::fs::read_to_string(dir.path().join("run/rest.addr")).unwrap();
        assert_eq!(text, "127.0.0.1:7\n");
    }
}
