//! What continuous integration does, stage by stage, with the minutes each took.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{codegen, contracts, manifests, root, tidy};

pub(crate) mod again;

/// Cargo features that test builds have: the clock can be shifted from outside.
pub(crate) const TEST_FEATURES: &str = "baetyl-kit/test-clock";

/// Runs one program in the root of the workspace and fails when it fails.
///
/// # Errors
/// When it cannot be started or ends with another code than 0.
pub(crate) fn sh(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    println!("$ {program} {}", args.join(" "));
    let status = command(program)
        .args(args)
        .envs(env.iter().copied())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("`{program} {}` failed: {status}", args.join(" "));
    }
    Ok(())
}

/// A program in the root of the workspace, with the environment of a shell.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if is_about_xtask(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// What cargo told this program about its own package. Build scripts of others watch these variables: with them in its
/// environment a cargo that we start would build half of everything anew.
fn is_about_xtask(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || name == "CARGO_PRIMARY_PACKAGE"
}

/// One stage.
type Stage = fn() -> Result<()>;

/// Runs every stage in order and prints a table of the minutes; `short` leaves out images and the tests on a real
/// Kubernetes.
///
/// # Errors
/// At the first stage that fails; the table is printed all the same.
pub(crate) fn run(short: bool) -> Result<()> {
    let stages: &[(&str, Stage)] = &[
        ("install", install),
        ("format", || sh("cargo", &["fmt", "--all", "--check"], &[])),
        ("codegen", || codegen::run(true)),
        ("contracts", || contracts::run(false)),
        ("manifests", || manifests::run(true)),
        ("tidy", tidy::run),
        ("clippy", clippy),
        ("test", || test(true)),
        ("demo", || crate::demo(&["--check"])),
        ("demo --one", || crate::demo(&["--check", "--one"])),
    ];
    let long_stages: &[(&str, Stage)] = if short {
        &[]
    } else {
        &[("images", images), ("e2e kube", e2e_kube)]
    };
    let mut rows = Vec::new();
    let mut outcome = Ok(());
    for (name, stage) in stages.iter().chain(long_stages) {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = stage().with_context(|| format!("stage {name}"));
        rows.push((*name, start.elapsed().as_secs_f64() / 60.0, result.is_ok()));
        if result.is_err() {
            outcome = result;
            break;
        }
    }
    print_table(&rows, &budget()?);
    outcome
}

/// Minutes each stage may take, by name.
fn budget() -> Result<BTreeMap<String, f64>> {
    let path = root().join(".ci/budget.toml");
    let text = std::fs::read_to_string(&path).context(".ci/budget.toml")?;
    toml::from_str(&text).context(".ci/budget.toml")
}

/// Minutes of each stage beside what it may take. Too long is told and fails nothing: machines are noisy.
fn print_table(rows: &[(&str, f64, bool)], budget: &BTreeMap<String, f64>) {
    println!("\nstage        minutes  budget");
    let line = |name: &str, minutes: f64, budget: Option<f64>, ok: bool| {
        let over = budget.is_none_or(|budget| minutes > budget);
        let budget = budget.map_or_else(|| "none".to_owned(), |budget| format!("{budget:.1}"));
        let remark = match (ok, over) {
            (false, _) => "FAILED",
            (true, true) => "over budget",
            (true, false) => "",
        };
        println!("{name:<12} {minutes:>7.1} {budget:>7} {remark}");
    };
    for (name, minutes, ok) in rows {
        line(name, *minutes, budget.get(*name).copied(), *ok);
    }
    let all = rows.iter().map(|row| row.1).sum();
    let budgets = rows.iter().filter_map(|row| budget.get(row.0));
    line("all", all, Some(budgets.sum()), true);
}

/// Installs what tests need beyond Rust and Python; on a user's machine nobody calls this.
fn install() -> Result<()> {
    let mut packages = Vec::new();
    if !has_faketime() {
        packages.extend(["faketime", "libfaketime"]);
    }
    if !has_systemd_analyze() {
        packages.push("systemd");
    }
    packages.extend(missing(&[
        ("busybox", "busybox-static"),
        ("curl", "curl"),
        ("docker-registry", "docker-registry"),
        ("wget", "wget"),
    ]));
    apt_install(&packages)?;
    if !has_grpcurl() {
        let bin = root().join("target/tools");
        std::fs::create_dir_all(&bin)?;
        let bin = bin.canonicalize()?;
        sh(
            "go",
            &[
                "install",
                "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",
            ],
            &[("GOBIN", &bin.to_string_lossy()), ("GOFLAGS", "-mod=mod")],
        )?;
    }
    Ok(())
}

/// Packages whose programs are not there.
fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let absent = programs
        .iter()
        .filter(|(program, _)| !crate::images::run::has(program));
    absent.map(|(_, package)| *package).collect()
}

fn apt_install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    sh("apt-get", &["update", "-q"], &[])?;
    let install = ["install", "-y", "-q", "--no-install-recommends"];
    sh("apt-get", &[&install[..], packages].concat(), &[])
}

fn has_faketime() -> bool {
    let library = "faketime/libfaketimeMT.so.1";
    ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .iter()
        .map(|triple| format!("/usr/lib/{triple}/{library}"))
        .chain([
            format!("/usr/lib/{library}"),
            format!("/usr/lib64/{library}"),
        ])
        .any(|path| std::path::Path::new(&path).exists())
}

fn has_systemd_analyze() -> bool {
    Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_ok()
}

fn has_grpcurl() -> bool {
    crate::grpcurl().exists() || Command::new("grpcurl").arg("--version").output().is_ok()
}

/// Says what will be skipped on this machine and how to have it.
fn tell_skips() {
    for (is_there, what, how) in [
        (
            has_faketime(),
            "nodes whose system has a wrong date",
            "apt-get install libfaketime",
        ),
        (
            has_systemd_analyze(),
            "units as systemd reads them",
            "apt-get install systemd",
        ),
        (
            has_grpcurl(),
            "servers as grpcurl sees them",
            "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",
        ),
    ] {
        if !is_there {
            println!("skipped: {what}; to run these tests: {how}");
        }
    }
}

fn clippy() -> Result<()> {
    // `--all-targets` leaves out the tests on a cluster: they are no part of the ordinary test run.
    for targets in [&["--all-targets"][..], &["--test", "e2e"]] {
        let before = ["clippy", "--workspace"];
        let after = [
            "--features",
            TEST_FEATURES,
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        sh("cargo", &[&before, targets, &after].concat(), &[])?;
    }
    Ok(())
}

/// Builds all programs, then runs all tests. In CI a test that would skip itself fails.
///
/// # Errors
/// When something does not build or a test fails.
pub(crate) fn test(in_ci: bool) -> Result<()> {
    build_programs()?;
    let mut env = Vec::new();
    if in_ci {
        env.push(("BAETYL_TEST_NO_SKIP", "1"));
    } else {
        tell_skips();
    }
    let args = [
        "test",
        "--workspace",
        "--features",
        TEST_FEATURES,
        "--locked",
    ];
    if !in_ci {
        sh("cargo", &args, &env)?;
        tell_skips();
        return Ok(());
    }
    again::test(&args, &env)
}

/// Builds the images of edge nodes for every architecture, cloud and `baetylctl` for this machine's, and Helm; sends them to
/// a registry and back, starts what is in them, makes some of it again and builds the Dockerfile. Tests on a cluster take them from `target/images/oci`.
fn images() -> Result<()> {
    let how = [
        "--profile",
        "images-ci",
        "--foreign-profile",
        "images-quick",
    ];
    let quick = ["--compression", "zstd-quick"];
    let args = [
        &[
            "xtask",
            "images",
            "--arch",
            "amd64,arm64,arm/v7",
            "--install",
        ][..],
        &how,
        &["--features", TEST_FEATURES],
        &quick,
        &["--check-start", "--check-again", "--dockerfile-check"],
    ];
    // By cargo: what was built since may have put another program in the place of this one.
    sh("cargo", &args.concat(), &[])?;
    let helm = ["xtask", "images", "--only", "baetyl-helm", "--check-start"];
    sh("cargo", &[&helm[..], &quick].concat(), &[])
}

/// Tests on a real Kubernetes, with a part of the load; `BAETYL_E2E_FULL=1 cargo xtask e2e kube` has all of it.
fn e2e_kube() -> Result<()> {
    apt_install(&crate::e2e::missing_packages())?;
    crate::e2e::check()
}

/// Builds every program of the workspace for tests and demo.
///
/// # Errors
/// When something does not build.
pub(crate) fn build_programs() -> Result<()> {
    sh(
        "cargo",
        &[
            "build",
            "--workspace",
            "--bins",
            "--features",
            TEST_FEATURES,
            "--locked",
        ],
        &[],
    )
}
