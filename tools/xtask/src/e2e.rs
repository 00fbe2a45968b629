//! Tests on a real Kubernetes: makes one (`tools/kubebed`), or uses the one it is shown, and runs `tests/e2e` there.

mod bed;
mod interrupt;
mod prerequisites;
mod rights;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cargo_metadata::Message;

use self::bed::Bed;
use self::interrupt::Interrupts;
pub(crate) use self::prerequisites::missing_packages;
use crate::ci::again;
use crate::{ci, root, target_dir};

/// Images the tests run, in the bed's registry.
const IMAGES: [&str; 9] = [
    "baetyl-cloud",
    "baetyl-init",
    "baetyl-node",
    "baetyl-sync",
    "baetyl-engine",
    "baetyl-function-proxy",
    "baetyl-runtime-python",
    "baetyl-runtime-echo",
    "baetyl-helm",
];

/// Where `cargo xtask images` leaves them.
const LAYOUTS: &str = "target/images/oci";

/// What is tested end to end.
#[derive(clap::Subcommand)]
pub(crate) enum E2e {
    /// On a real API server, kubelet and containerd: those of the test bed, or with `--context` any cluster's.
    Kube(Kube),
}

/// How it is tested.
#[derive(clap::Args, Default)]
pub(crate) struct Kube {
    /// Runs only tests whose names contain this.
    #[arg(long)]
    filter: Option<String>,
    /// Uses the cluster of this kubeconfig context and no test bed.
    #[arg(long)]
    context: Option<String>,
    /// Leaves the test bed standing and says how to use it and how to take it down.
    #[arg(long, conflicts_with = "context")]
    keep: bool,
    /// Measures instead of testing, with images as they are released.
    #[arg(skip)]
    figures: bool,
    /// Few tests that fail are run once more, alone.
    #[arg(skip)]
    twice: bool,
}

/// Runs the tests in the test bed, as continuous integration does.
///
/// # Errors
/// As [`run`].
pub(crate) fn check() -> Result<()> {
    let options = Kube {
        twice: true,
        ..Kube::default()
    };
    on_bed(&options)
}

/// Measures kube mode in the test bed.
///
/// # Errors
/// As [`run`].
pub(crate) fn measure() -> Result<()> {
    let figures = Kube {
        figures: true,
        ..Kube::default()
    };
    on_bed(&figures)
}

/// Runs the tests.
///
/// # Errors
/// When the machine lacks something (the message says what and how to have it), something does not build, or a test fails.
pub(crate) fn run(what: &E2e) -> Result<()> {
    let E2e::Kube(options) = what;
    match &options.context {
        Some(context) => on_cluster(options, context),
        None => on_bed(options),
    }
}

fn on_cluster(options: &Kube, context: &str) -> Result<()> {
    prerequisites::check_cluster(context)?;
    let mut parts = Parts::default();
    let tests = parts.time("programs and tests", build)?;
    let interrupts = Interrupts::catch()?;
    let command = || {
        let mut command = Command::new(&tests);
        // What a test skips there it says in its output, which is shown of failed ones only otherwise.
        command
            .env("BAETYL_E2E_CONTEXT", context)
            .env_remove("BAETYL_E2E_BED")
            .arg("--show-output");
        Ok(command)
    };
    let outcome = parts.time("tests", || run_tests(&interrupts, command, options));
    parts.print();
    outcome
}

fn on_bed(options: &Kube) -> Result<()> {
    let sources = bed::programs_of_these_sources()?;
    prerequisites::check_bed(sources.is_none())?;
    let mut parts = Parts::default();
    let programs = match sources {
        Some(programs) => programs,
        None => parts.time("build of the bed", bed::build)?,
    };
    let tests = parts.time("programs and tests", build)?;
    parts.time("images", || build_images(options))?;
    bed::take_down_stale();
    let interrupts = Interrupts::catch()?;
    let outcome = in_bed(options, &interrupts, &programs, &tests, &mut parts);
    parts.print();
    outcome
}

/// From a bed that comes up to one that is gone.
fn in_bed(
    options: &Kube,
    interrupts: &Interrupts,
    programs: &Path,
    tests: &Path,
    parts: &mut Parts,
) -> Result<()> {
    let mut bed = Bed::new()?;
    let up = parts.time("bed up", || bed.up(interrupts, programs));
    let outcome = up.and_then(|()| {
        for image in IMAGES {
            bed.push(&root().join(LAYOUTS).join(image), image)?;
        }
        let command = || bed.command(tests);
        parts.time("tests", || run_tests(interrupts, command, options))?;
        // A part of the tests does not do everything.
        if options.filter.is_none() && !options.figures {
            rights::check(bed.dir())?;
        }
        Ok(())
    });
    if outcome.is_err() && !interrupts.came() {
        match bed.collect() {
            Ok(dir) => println!("logs and what the cluster said: {}", dir.display()),
            Err(error) => println!("could not collect the logs: {error:#}"),
        }
    }
    if options.keep {
        bed.keep();
    }
    parts.time("bed down", || drop(bed));
    outcome
}

fn run_tests(
    interrupts: &Interrupts,
    command: impl Fn() -> Result<Command>,
    options: &Kube,
) -> Result<()> {
    let programs = target_dir()?.join("debug");
    let run = |names: &[String]| {
        let mut command = command()?;
        if options.figures {
            command.args(["--ignored", "--nocapture", "figures_of_kube_mode"]);
        }
        if options.twice {
            command.env("BAETYL_TEST_NO_SKIP", "1");
        }
        if !names.is_empty() {
            command.arg("--exact").args(names);
        }
        command
            .args(&options.filter)
            .current_dir(root().join("tests"))
            .env("BAETYL_PROGRAMS_DIR", &programs);
        if std::env::var_os("RUST_TEST_THREADS").is_none() {
            // They wait for Pods most of the time.
            command.env("RUST_TEST_THREADS", "6");
        }
        run_and_tell(interrupts, command)
    };
    if options.twice {
        return again::twice(run);
    }
    let (ok, failed) = run(&[])?;
    ensure!(ok, "the tests failed: {}", failed.join(", "));
    Ok(())
}

/// Runs tests; tells whether all is well, and the names of those that failed.
fn run_and_tell(interrupts: &Interrupts, mut command: Command) -> Result<again::Outcome> {
    let (output, input) = std::io::pipe()?;
    let reader = std::thread::spawn(move || again::failed_tests(output));
    command.stdout(input);
    let status = interrupts.run(&mut command);
    // It has the other end of the pipe.
    drop(command);
    let failed = reader
        .join()
        .map_err(|_| anyhow!("the tests' output could not be read"))??;
    Ok((status?.success(), failed))
}

/// Builds the programs of the workspace and the tests; answers the tests' program.
fn build() -> Result<PathBuf> {
    ci::build_programs()?;
    let args = [
        "test",
        "--workspace",
        "--test",
        "e2e",
        "--no-run",
        "--features",
        ci::TEST_FEATURES,
        "--locked",
        "--message-format=json-render-diagnostics",
    ];
    println!("$ cargo {}", args.join(" "));
    let output = ci::command("cargo")
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build: {}", output.status);
    }
    let built = Message::parse_stream(output.stdout.as_slice()).find_map(|message| match message {
        Ok(Message::CompilerArtifact(built)) if built.target.name == "e2e" => built.executable,
        _ => None,
    });
    let program = built.context("cargo does not say where it put the tests")?;
    Ok(program.into_std_path_buf())
}

/// Builds the images for this machine's architecture.
fn build_images(options: &Kube) -> Result<()> {
    let how = if options.figures {
        &["--profile", "release"][..]
    } else {
        // As continuous integration builds them before.
        &[
            "--profile",
            "images-ci",
            "--features",
            ci::TEST_FEATURES,
            "--compression",
            "zstd-quick",
        ]
    };
    let args = [&["xtask", "images", "--only"], &IMAGES[..], how].concat();
    ci::sh("cargo", &args, &[])
}

/// How long each part took.
#[derive(Default)]
struct Parts(Vec<(&'static str, f64)>);

impl Parts {
    fn time<T>(&mut self, name: &'static str, part: impl FnOnce() -> T) -> T {
        println!("\n=== {name}");
        let start = Instant::now();
        let value = part();
        self.0.push((name, start.elapsed().as_secs_f64() / 60.0));
        value
    }

    fn print(&self) {
        println!("\npart                 minutes");
        for (name, minutes) in &self.0 {
            println!("{name:<20} {minutes:>7.1}");
        }
    }
}
