//! A runtime from its command line to its end.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::telemetry::{self, LogFormat, TelemetryError};
use baetyl_proto::function::FunctionSpec;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::functions::{self, Function, FunctionsError};
use crate::link::{Door, Profile, Way, serve};
use crate::pool::{Pool, PoolError, PoolSettings};
use crate::worker::Program;

/// What engine tells every runtime, by environment.
#[derive(Clone, Debug, clap::Args)]
pub struct DoorArgs {
    /// Socket of the function proxy for applications
    #[arg(
        long,
        env = "BAETYL_FUNCTION_SOCKET",
        value_name = "PATH",
        required_unless_present = "address"
    )]
    pub socket: Option<PathBuf>,
    /// gRPC listener of the function proxy, https://host:port; counts more than the socket
    #[arg(
        long,
        env = "BAETYL_FUNCTION_ADDRESS",
        value_name = "URL",
        requires = "ca_file"
    )]
    pub address: Option<Endpoint>,
    /// File with the authorities (PEM) that vouch for the proxy at that address
    #[arg(long, env = "BAETYL_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// File with a certificate (PEM) to show there besides the token
    #[arg(
        long,
        env = "BAETYL_CERT_FILE",
        value_name = "FILE",
        requires = "key_file"
    )]
    pub cert_file: Option<PathBuf>,
    /// File with the key of that certificate (PEM)
    #[arg(
        long,
        env = "BAETYL_KEY_FILE",
        value_name = "FILE",
        requires = "cert_file"
    )]
    pub key_file: Option<PathBuf>,
    /// File with the application token of this instance
    #[arg(long, env = "BAETYL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Service of the application, where the token does not name it
    #[arg(long, env = "BAETYL_SERVICE_NAME", value_name = "NAME")]
    pub service: Option<String>,
    /// This instance, where the token does not name it
    #[arg(long, env = "BAETYL_INSTANCE_NAME", value_name = "NAME")]
    pub instance: Option<String>,
    /// List of the functions
    #[arg(
        long,
        env = "BAETYL_FUNCTIONS_FILE",
        value_name = "FILE",
        default_value = "etc/baetyl/conf.yml"
    )]
    pub functions_file: PathBuf,
    /// Seconds that invocations in progress get when the runtime is asked to stop
    #[arg(
        long,
        env = "BAETYL_RUNTIME_DRAIN_SECONDS",
        value_name = "N",
        default_value_t = 10
    )]
    pub drain_seconds: u64,
    /// Log level, or target=level pairs
    #[arg(
        long,
        env = "BAETYL_RUNTIME_LOG",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log: String,
}

/// What a runtime for an interpreted language can be told besides.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the proxy is and who we are
    #[command(flatten)]
    pub door: DoorArgs,
    /// Directory with the code; the functions' codedir is relative to it
    #[arg(
        long,
        env = "BAETYL_CODE_PATH",
        value_name = "DIR",
        default_value = "var/lib/baetyl/code"
    )]
    pub code: PathBuf,
    /// Worker processes, that is invocations at the same time
    #[arg(long, env = "BAETYL_RUNTIME_WORKERS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Seconds that loading the functions may take
    #[arg(
        long,
        env = "BAETYL_RUNTIME_LOAD_SECONDS",
        value_name = "N",
        default_value_t = 60
    )]
    pub load_seconds: u64,
}

/// An interpreted language.
#[derive(Debug)]
pub struct Language {
    /// `python3`, `node` …
    pub name: &'static str,
    /// How to start a worker.
    pub program: Program,
}

/// Why a runtime does not run. What can be mended by waiting (a proxy that is away) is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The list of functions is missing or wrong.
    #[error("the functions are not known")]
    Functions(#[from] FunctionsError),
    /// The workers cannot be told what to load.
    #[error("the workers cannot be started")]
    Pool(#[from] PoolError),
    /// What engine tells every runtime is not all there.
    #[error("the way to the function proxy is not known: {0} is missing")]
    Way(&'static str),
    /// Threads or signals are refused.
    #[error("the operating system refuses what a process needs")]
    Process(#[source] std::io::Error),
    /// Logging cannot be set up.
    #[error("cannot set up the log")]
    Log(#[from] TelemetryError),
}

impl DoorArgs {
    /// Where the proxy is and how to prove who we are.
    ///
    /// # Errors
    /// When no way to the proxy is named, or one that nobody can take.
    pub fn door(&self) -> Result<Door, RuntimeError> {
        Ok(Door {
            way: self.way()?,
            token_file: self.token_file.clone(),
            service: self.service.clone().unwrap_or_default(),
            instance: self.instance.clone().unwrap_or_default(),
            drain: Duration::from_secs(self.drain_seconds),
        })
    }

    fn way(&self) -> Result<Way, RuntimeError> {
        let own = self.cert_file.clone().zip(self.key_file.clone());
        match (&self.address, &self.ca_file, &self.socket) {
            (Some(address @ Endpoint::Https(_)), Some(ca_file), _) => Ok(Way::Tls {
                address: address.clone(),
                ca_file: ca_file.clone(),
                own,
            }),
            (Some(_), None, _) => Err(RuntimeError::Way("BAETYL_CA_FILE")),
            // The token shall be readable for nobody else.
            (Some(_), Some(_), _) => Err(RuntimeError::Way("an address that begins with https://")),
            (None, _, Some(socket)) => Ok(Way::Socket(socket.clone())),
            (None, _, None) => Err(RuntimeError::Way(
                "BAETYL_FUNCTION_ADDRESS or BAETYL_FUNCTION_SOCKET",
            )),
        }
    }
}

/// Loads the functions and serves the proxy until `stop` is cancelled.
///
/// # Errors
/// When the functions are not known. Functions that cannot be loaded fail when they are called.
pub async fn run(
    args: &Args,
    language: Language,
    stop: &CancellationToken,
) -> Result<(), RuntimeError> {
    let door = args.door.door()?;
    let functions = functions::load(&args.door.functions_file)?;
    let settings = PoolSettings {
        workers: args.workers.into(),
        load_timeout: Duration::from_secs(args.load_seconds),
        ..PoolSettings::default()
    };
    let pool = Pool::start(
        language.program,
        &args.code.to_string_lossy(),
        &functions,
        settings,
    )?;
    let Some(version) = stop.run_until_cancelled(pool.loaded()).await else {
        return Ok(());
    };
    let profile = Profile {
        runtime: language.name.to_owned(),
        version,
        functions: specs(&functions),
        concurrency: args.workers.into(),
    };
    serve(&door, &profile, &pool, stop).await;
    Ok(())
}

/// The functions as the proxy wants them.
pub fn specs(functions: &[Function]) -> Vec<FunctionSpec> {
    functions
        .iter()
        .map(|function| FunctionSpec {
            name: function.name.clone(),
            handler: function.handler.clone(),
            timeout_ms: function.timeout_ms,
        })
        .collect()
}

/// Runs a runtime as a process of its own: one thread, log to standard error, SIGTERM and SIGINT stop it.
pub fn program<F>(name: &str, log: &str, run: F) -> ExitCode
where
    F: AsyncFnOnce(CancellationToken) -> Result<(), RuntimeError>,
{
    match until_signal(log, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Also for a log that could not be set up.
            let _ = writeln!(std::io::stderr(), "{name}: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn until_signal<F>(log: &str, run: F) -> Result<(), RuntimeError>
where
    F: AsyncFnOnce(CancellationToken) -> Result<(), RuntimeError>,
{
    telemetry::init(log, LogFormat::Text)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RuntimeError::Process)?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut term = signal(SignalKind::terminate()).map_err(RuntimeError::Process)?;
        let mut int = signal(SignalKind::interrupt()).map_err(RuntimeError::Process)?;
        let running = run(stop.clone());
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return ended,
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
        running.await
    })
}
