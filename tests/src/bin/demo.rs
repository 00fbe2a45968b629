//! Tells the main job on this machine; `--check` asserts and exits, otherwise everything stays up to be played with.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use baetyl_tests::story::{NODE, Narrator, Story};
use baetyl_tests::world::{Shape, programs_dir};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "A cloud, an edge node, applications, functions and faults, all on this machine")]
struct Args {
    /// Asserts every step and exits.
    #[arg(long)]
    check: bool,
    /// All edge roles in one process instead of separate programs.
    #[arg(long)]
    one: bool,
}

struct Printer {
    last: Instant,
}

impl Printer {
    fn took(&self) {
        println!("   ({:.1?})", self.last.elapsed());
    }
}

impl Narrator for Printer {
    fn step(&mut self, number: usize, title: &str) {
        if number > 1 {
            self.took();
        }
        self.last = Instant::now();
        println!("\n{number:>2}. {title}");
    }
    fn say(&mut self, line: &str) {
        println!("   {line}");
    }
    fn end(&mut self) {
        self.took();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Whatever ends the demo, dropping the story ends its processes and removes its directory.
    let ended = tokio::select! {
        biased;
        ended = run(&args) => ended.map(|()| ExitCode::SUCCESS),
        signal = interrupted() => signal.map(|()| {
            println!("\ncleaning up");
            ExitCode::from(130)
        }),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nthe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn run(args: &Args) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("baetyl-demo-").tempdir()?;
    let shape = if args.one { Shape::One } else { Shape::Five };
    let start = Instant::now();
    let mut story = Story::begin(dir.path().to_path_buf(), shape, Printer { last: start }).await?;
    let told = story.tell().await;
    if told.is_err() {
        for service in story.edge.services() {
            eprintln!("--- log of {service}\n{}", story.edge.log(service));
        }
        eprintln!(
            "--- log of the cloud\n{}",
            baetyl_tests::world::tail(&story.cloud.dir.join("cloud.log"))
        );
    }
    told?;
    println!("\nall steps are as told, in {:.1?}", start.elapsed());
    if args.check {
        return Ok(());
    }
    let bin = programs_dir()?;
    println!(
        "\nEverything stays up until you press Ctrl-C. Try, in another terminal:\n\
         \n  export PATH={}:$PATH\n  export BAETYLCTL_SERVER={} BAETYLCTL_TOKEN_FILE={}\n\
         \n  baetylctl get nodes\n  baetylctl describe node {NODE}\n  baetylctl get apps -o wide\n  \
         curl -d '{{\"name\":\"you\"}}' http://{}/greet\n\n\
         Look at {}/docs for the REST interface.\n",
        bin.display(),
        story.cloud.address(),
        story.cloud.token_file().display(),
        story.edge.address("function-proxy-http")?,
        story.cloud.address(),
    );
    interrupted().await?;
    println!("\ncleaning up");
    Ok(())
}
