//! Development commands of the workspace: `cargo xtask help` lists them.
#![allow(
    clippy::print_stdout,
    reason = "a command line program talks to its user"
)]

mod ci;
mod codegen;
mod contracts;
mod e2e;
mod images;
mod manifests;
mod tidy;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of the workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job on this machine: a cloud, an edge node, applications, functions, faults.
    Demo {
        /// Asserts every step, needs no terminal, and exits.
        #[arg(long)]
        check: bool,
        /// All edge roles in one process instead of separate programs.
        #[arg(long)]
        one: bool,
    },
    /// Runs all tests that need nothing but this machine; says what it skipped and why.
    Test,
    /// Runs the tests that need a Kubernetes, on a test bed it makes for them (needs root).
    E2e {
        #[command(subcommand)]
        what: e2e::E2e,
    },
    /// Measures speed and size with release builds; prints a table and JSON.
    Bench {
        /// What to measure, e.g. `idle`, `links --nodes 5000`, `kube` (in the test bed of `e2e kube`); nothing = everything
        /// that needs no cluster.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Everything continuous integration checks.
    Ci {
        /// Without the images of all architectures and the tests on a real Kubernetes (which need root)
        #[arg(long)]
        short: bool,
    },
    /// Generates Rust code from the contracts in `proto/`.
    Codegen {
        /// Only says whether the checked-in code is up to date.
        #[arg(long)]
        check: bool,
    },
    /// Lints the contracts and refuses breaking changes against the baseline.
    Contracts {
        /// Writes the baseline anew when nothing broke.
        #[arg(long)]
        accept: bool,
    },
    /// Builds the images of all services and runtimes without a container engine.
    Images(Box<images::Args>),
    /// Renders the node classes of `manifests/` with kustomize.
    Manifests {
        /// Only says whether the checked-in manifests are up to date.
        #[arg(long)]
        check: bool,
    },
    /// Checks crate directions, orphan files, cited paths, licences and lengths.
    Tidy,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where continuous integration puts grpcurl when the machine has none.
pub(crate) fn grpcurl() -> PathBuf {
    root().join("target/tools/grpcurl")
}

/// Builds the programs and runs the demo.
///
/// # Errors
/// When something does not build or, with `--check`, a step is not as told.
pub(crate) fn demo(args: &[&str]) -> Result<()> {
    ci::sh(&built_demo()?, args, &[])
}

/// Builds the programs; the path of the demo.
fn built_demo() -> Result<String> {
    println!("building the programs (the first time takes some minutes)");
    ci::build_programs()?;
    Ok(target_dir()?
        .join("debug/baetyl-demo")
        .display()
        .to_string())
}

/// Becomes the demo: signals then reach it, and the prompt returns when it has cleaned up.
fn become_demo(check: bool, one: bool) -> Result<()> {
    let args = [(check, "--check"), (one, "--one")];
    let args = args.into_iter().filter(|(wanted, _)| *wanted);
    let error = std::process::Command::new(built_demo()?)
        .args(args.map(|(_, arg)| arg))
        .exec();
    Err(error.into())
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo cannot read the workspace.
pub(crate) fn target_dir() -> Result<PathBuf> {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir.clone());
    }
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()?;
    let dir = metadata.target_directory.into_std_path_buf();
    Ok(DIR.get_or_init(|| dir).clone())
}

fn bench(args: &[String]) -> Result<()> {
    if args.first().is_some_and(|what| what == "kube") {
        return e2e::measure();
    }
    ci::sh(
        "cargo",
        &["build", "--release", "--workspace", "--bins", "--locked"],
        &[],
    )?;
    let program = target_dir()?
        .join("release/baetyl-bench")
        .display()
        .to_string();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    ci::sh(&program, &args, &[])
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nfailed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo { check, one } => become_demo(check, one),
        Command::Test => ci::test(false),
        Command::E2e { what } => e2e::run(&what),
        Command::Bench { args } => bench(&args),
        Command::Ci { short } => ci::run(short),
        Command::Codegen { check } => codegen::run(check),
        Command::Contracts { accept } => contracts::run(accept),
        Command::Images(args) => images::run(&args),
        Command::Manifests { check } => manifests::run(check),
        Command::Tidy => tidy::run(),
    }
}
