//! `baetyl-runtime-echo run`: every function answers what it is sent. For benchmarks, and the smallest example of a
//! runtime in Rust.

use std::process::ExitCode;

use baetyl_runtime_host::{Call, DoorArgs, Executor, Profile, functions, program, serve, specs};
use clap::Parser;

#[derive(Parser)]
#[command(
    name = "baetyl-runtime-echo",
    version,
    about = "Answers what it is sent"
)]
enum Cli {
    /// Serve the functions until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        door: DoorArgs,
        /// Invocations at the same time
        #[arg(long, env = "BAETYL_RUNTIME_WORKERS", value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
        workers: u32,
    },
}

struct Echo;

impl Executor for Echo {
    async fn start(&self, call: Call) {
        let Call {
            payload, answer, ..
        } = call;
        answer.result(payload, Default::default()).await;
    }
}

fn main() -> ExitCode {
    let Cli::Run { door, workers } = Cli::parse();
    program("baetyl-runtime-echo", &door.log, async |stop| {
        let way = door.door()?;
        let profile = Profile {
            runtime: "echo".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            functions: specs(&functions::load(&door.functions_file)?),
            concurrency: workers,
        };
        serve(&way, &profile, &Echo, &stop).await;
        Ok(())
    })
}
