//! The command line every program shares, and the way from there to a running service.

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{self, AdminConfig};
use crate::clock::Clock;
use crate::config::{self, Configuration};
use crate::error::{BoxError, chain};
use crate::fsio;
use crate::kit::Kit;
use crate::telemetry::{self, LogFormat};
use crate::tls::ServiceIdentity;

/// Exit code for a wrong command line or configuration: starting again changes nothing.
const EXIT_USAGE: u8 = 2;

/// The options of `run`. Programs with further subcommands put it into their own clap types.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Configuration file (.toml or .yaml)
    #[arg(long, value_name = "FILE", env = "BAETYL_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory for everything the service keeps
    #[arg(
        long,
        value_name = "DIR",
        env = "BAETYL_DATA_DIR",
        default_value = "/var/lib/baetyl"
    )]
    pub data_dir: PathBuf,
    /// error, warn, info, debug, trace, or target=level pairs
    #[arg(long, value_name = "LEVEL", env = "BAETYL_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", env = "BAETYL_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Print the configuration in effect as YAML and exit
    #[arg(long)]
    pub print_config: bool,
    /// Check the configuration, report every mistake and exit
    #[arg(long)]
    pub check_config: bool,
}

/// The sections of every configuration file that belong to the shell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShellConfig {
    /// The admin port.
    pub admin: AdminConfig,
    /// Log output.
    pub log: LogConfig,
    /// Threads and shutdown.
    pub process: ProcessConfig,
    /// Who the service is towards the others of its node.
    pub tls: TlsConfig,
}

/// The shell's sections as a program names them. [`ShellConfig`] unless the program has an `admin` section of its own.
pub trait Shell: Configuration {
    /// The section `log`, which the command line may override.
    fn log_mut(&mut self) -> &mut LogConfig;
    /// The sections under their usual names.
    fn into_shell(self) -> ShellConfig;
}

impl Shell for ShellConfig {
    fn log_mut(&mut self) -> &mut LogConfig {
        &mut self.log
    }

    fn into_shell(self) -> ShellConfig {
        self
    }
}

/// The section `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or `target=level` pairs.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// The section `process`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// Threads that run tasks; 0: as many as the program was made for.
    pub worker_threads: usize,
    /// Most threads for blocking work such as database writes.
    pub blocking_threads: usize,
    /// How long tasks may take to finish after a signal.
    #[serde(with = "config::duration")]
    pub drain: Duration,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            worker_threads: 0,
            blocking_threads: 4,
            drain: Duration::from_secs(10),
        }
    }
}

/// The section `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Directory with `tls.crt`, `tls.key` and `ca.crt`, which may be replaced while the service runs. Nothing: the
    /// services of the node talk over Unix sockets.
    pub dir: Option<PathBuf>,
}

impl TlsConfig {
    /// The kit with the identity in the directory, if one is named.
    #[must_use]
    pub fn identify(&self, kit: Kit) -> Kit {
        match &self.dir {
            Some(dir) => kit.with_identity(ServiceIdentity::mounted(&kit, dir)),
            None => kit,
        }
    }
}

/// The command line of a thin binary.
#[derive(Parser, Debug)]
#[command(
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What every program can do. Programs with further subcommands flatten it into their own clap type and give it to
/// [`Service::execute`].
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the service until SIGTERM or SIGINT; a second signal ends it at once
    Run(RunArgs),
    /// Print the version
    Version,
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// The whole of a thin binary: `baetyl-node run|version|completion`.
pub fn main<C, F, Fut, E>(name: &'static str, about: &'static str, run: F) -> ExitCode
where
    C: Configuration,
    F: FnOnce(C, Kit) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    Service::new(name).main(about, run)
}

/// Runs a service with arguments that were parsed already; for programs with their own subcommands.
pub fn run_service<C, F, Fut, E>(name: &'static str, args: &RunArgs, run: F) -> ExitCode
where
    C: Configuration,
    F: FnOnce(C, Kit) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    Service::new(name).run(args, run)
}

/// A program and how it wants to be run.
#[derive(Clone, Debug)]
pub struct Service {
    program: &'static str,
    worker_threads: usize,
}

impl Service {
    /// The program of that name (`"baetyl-node"`). One thread runs all its tasks unless told otherwise.
    pub fn new(program: &'static str) -> Self {
        Self {
            program,
            worker_threads: 1,
        }
    }

    /// How many threads run tasks when the configuration does not say (1: the main thread alone, which
    /// needs the least memory; 0: one for each CPU).
    #[must_use]
    pub fn worker_threads(mut self, count: usize) -> Self {
        self.worker_threads = count;
        self
    }

    /// The service name: the program's without `baetyl-`.
    pub fn name(&self) -> &'static str {
        self.program.strip_prefix("baetyl-").unwrap_or(self.program)
    }

    /// As [`main`].
    pub fn main<C, F, Fut, E>(self, about: &'static str, run: F) -> ExitCode
    where
        C: Configuration,
        F: FnOnce(C, Kit) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        self.main_with::<ShellConfig, C, F, Fut, E>(about, run)
    }

    /// As [`Service::main`], for a program whose configuration names the shell's sections otherwise.
    pub fn main_with<S, C, F, Fut, E>(self, about: &'static str, run: F) -> ExitCode
    where
        S: Shell,
        C: Configuration,
        F: FnOnce(C, Kit) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let mut command = Cli::command().name(self.program).about(about);
        match parse(&mut command, std::env::args_os()) {
            Ok(parsed) => self.execute_with::<S, C, F, Fut, E>(parsed, command, run),
            Err(error) => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
            }
        }
    }

    /// Does what the command line says; `program` is the whole of it, for completion scripts.
    pub fn execute<C, F, Fut, E>(self, command: Command, program: clap::Command, run: F) -> ExitCode
    where
        C: Configuration,
        F: FnOnce(C, Kit) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        self.execute_with::<ShellConfig, C, F, Fut, E>(command, program, run)
    }

    fn execute_with<S, C, F, Fut, E>(
        self,
        command: Command,
        mut program: clap::Command,
        run: F,
    ) -> ExitCode
    where
        S: Shell,
        C: Configuration,
        F: FnOnce(C, Kit) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        match command {
            Command::Run(args) => self.run_with::<S, C, F, Fut, E>(&args, run),
            Command::Version => print(&format!("{} {}\n", self.program, crate::VERSION)),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut program, self.program, &mut script);
                print(&String::from_utf8_lossy(&script))
            }
        }
    }

    /// As [`run_service`].
    pub fn run<C, F, Fut, E>(self, args: &RunArgs, run: F) -> ExitCode
    where
        C: Configuration,
        F: FnOnce(C, Kit) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        self.run_with::<ShellConfig, C, F, Fut, E>(args, run)
    }

    /// As [`Service::run`], for a program whose configuration names the shell's sections otherwise.
    pub fn run_with<S, C, F, Fut, E>(self, args: &RunArgs, run: F) -> ExitCode
    where
        S: Shell,
        C: Configuration,
        F: FnOnce(C, Kit) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        match self.prepare::<S, C>(args) {
            Ok(Prepared::Done(text)) => print(&text),
            Ok(Prepared::Run(shell, config)) => self.run_prepared(args, shell, *config, run),
            Err(error) => self.complain(error.as_ref(), EXIT_USAGE),
        }
    }

    fn prepare<S: Shell, C: Configuration>(&self, args: &RunArgs) -> Result<Prepared<C>, BoxError> {
        let file = args.config.as_deref();
        let (mut shell, config) = config::load_both::<S, C>(self.name(), file, std::env::vars())?;
        let log = shell.log_mut();
        if let Some(level) = &args.log_level {
            log.level.clone_from(level);
        }
        if let Some(format) = args.log_format {
            log.format = format;
        }
        telemetry::check_level(&log.level)?;
        if args.check_config {
            return Ok(Prepared::Done("the configuration is valid\n".to_owned()));
        }
        if args.print_config {
            let text = config::render(&shell)? + &config::render(&config)?;
            return Ok(Prepared::Done(text));
        }
        let shell = shell.into_shell();
        telemetry::init(&shell.log.level, shell.log.format)?;
        Ok(Prepared::Run(shell, Box::new(config)))
    }

    fn run_prepared<C, F, Fut, E>(
        &self,
        args: &RunArgs,
        shell: ShellConfig,
        config: C,
        run: F,
    ) -> ExitCode
    where
        F: FnOnce(C, Kit) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let runtime = match self.runtime(&shell.process) {
            Ok(runtime) => runtime,
            Err(error) => return self.complain(&error, 1),
        };
        let kit = Kit::new(self.name(), &args.data_dir, Clock::system());
        tracing::info!(service = self.name(), version = crate::VERSION, data_dir = %args.data_dir.display(), "starting");
        let ended = runtime.block_on(Box::pin(live(shell, config, kit, run)));
        // Blocking work that does not end must not keep the process.
        runtime.shutdown_background();
        match ended {
            Ok(()) => {
                tracing::info!(service = self.name(), "stopped");
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!(service = self.name(), error = %chain(error.as_ref()), "ended");
                ExitCode::FAILURE
            }
        }
    }

    fn runtime(&self, process: &ProcessConfig) -> std::io::Result<tokio::runtime::Runtime> {
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match (process.worker_threads, self.worker_threads) {
            (0, 0) => cpus(),
            (0, made_for) => made_for,
            (configured, _) => configured,
        };
        let mut builder = if threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        builder
            .worker_threads(threads)
            .max_blocking_threads(process.blocking_threads.max(1))
            .thread_keep_alive(Duration::from_secs(2))
            .enable_all()
            .build()
    }

    /// To stderr and not to the log, which does not exist yet.
    fn complain(&self, error: &(dyn std::error::Error + 'static), code: u8) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "{}: {}", self.program, chain(error));
        ExitCode::from(code)
    }
}

enum Prepared<C> {
    Done(String),
    Run(ShellConfig, Box<C>),
}

fn parse(
    command: &mut clap::Command,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Command, clap::Error> {
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map(|cli| cli.command)
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Admin port, signals, the service, and its end within the drain deadline.
async fn live<C, F, Fut, E>(shell: ShellConfig, config: C, kit: Kit, run: F) -> Result<(), BoxError>
where
    F: FnOnce(C, Kit) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    if !kit.data_dir().exists() {
        fsio::create_dir_mode(kit.data_dir(), 0o755)?;
    }
    watch_signals(&kit)?;
    let kit = shell.tls.identify(kit);
    let mut running = Box::pin(run(config, kit.clone()));
    // As far as it gets at once: what it waits for is registered before anybody can ask whether it is ready.
    let at_once = std::future::poll_fn(|context| Poll::Ready(running.as_mut().poll(context)));
    if let Poll::Ready(ended) = at_once.await {
        kit.stop(shell.process.drain).await?;
        return ended.map_err(Into::into);
    }
    admin::serve(&kit, &shell.admin).await?;
    let drain = shell.process.drain;
    let late = async {
        kit.until_shutdown().await;
        tokio::time::sleep(drain).await;
    };
    let ended = tokio::select! {
        ended = &mut running => ended.map_err(Into::into),
        () = late => {
            tracing::warn!("the service did not finish within the drain deadline");
            kit.stop(Duration::ZERO).await?;
            return Ok(());
        }
    };
    let stopped = kit.stop(drain).await;
    ended?;
    Ok(stopped?)
}

/// The first signal begins the shutdown, the second ends the process.
fn watch_signals(kit: &Kit) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = kit.shutdown().clone();
    // Not one of the service's tasks: it has to be there until the very end.
    tokio::spawn(async move {
        let name = next_signal(&mut terminate, &mut interrupt).await.0;
        tracing::info!(
            signal = name,
            "stopping; a second signal ends the process at once"
        );
        token.cancel();
        let (name, number) = next_signal(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "second signal; ending at once");
        std::process::exit(128 + number);
    });
    Ok(())
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 15),
        _ = interrupt.recv() => ("SIGINT", 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_its_options() {
        let args = ["x", "run", "--data-dir", "/tmp/d", "--log-format", "json"];
        let command = parse(&mut Cli::command(), args.map(OsString::from)).unwrap();
        let Command::Run(args) = command else {
            panic!("{command:?}");
        };
        assert_eq!(args.data_dir, PathBuf::from("/tmp/d"));
        assert_eq!(args.log_format, Some(LogFormat::Json));
    }

    #[test]
    fn the_service_name_is_the_program_name_without_the_product() {
        assert_eq!(
            Service::new("baetyl-function-proxy").name(),
            "function-proxy"
        );
    }
}
