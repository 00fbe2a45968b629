//! The smallest complete service, and the program the shell's own process tests run.
//!
//! `baetyl-greeter run --data-dir /tmp/g`, then look into `/tmp/g/run/rest.addr`.

use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use baetyl_kit::Kit;
use baetyl_kit::listen::Listen;
use baetyl_kit::serve::{self, ServeError};
use serde::{Deserialize, Serialize};

/// `greeter.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    rest: Rest,
    fault: Option<Fault>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rest {
    listen: Listen,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(),
        }
    }
}

/// What shall go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fault {
    /// A task does not end when it is asked to.
    Hang,
    /// A required task panics.
    Panic,
}

async fn run(config: Config, kit: Kit) -> Result<(), ServeError> {
    let starting = kit.readiness().register("start-up");
    let hits = kit.metrics().counter("hits_total", "Greetings given.", &[]);
    let greet = move || async move {
        hits.inc();
        "hello\n"
    };
    let router = Router::new().route("/", get(greet));
    serve::http(&kit, "rest", &config.rest.listen, None, router).await?;
    match config.fault {
        Some(Fault::Hang) => kit.tasks().spawn("stubborn", std::future::pending::<()>()),
        Some(Fault::Panic) => kit
            .tasks()
            .spawn_required("fragile", async { panic!("it broke") }),
        None => {}
    }
    // Dropped is ready, too; said here for the reader.
    starting.ready();
    kit.until_shutdown().await;
    Ok(())
}

fn main() -> ExitCode {
    baetyl_kit::main("baetyl-greeter", "Greets whoever asks", run)
}
