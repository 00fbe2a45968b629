//! `baetyl-init`: activates an edge node.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use baetyl_init::upgrade::{Ended, UpgradeError, Wanted};
use baetyl_kit::cli::Service;
use baetyl_model::upgrade::{Core, EXIT_FAILED};
use clap::{Args, Parser};

#[derive(Parser)]
#[command(
    name = "baetyl-init",
    version,
    about = "Activates an edge node and hands its identity to sync"
)]
enum Cli {
    /// Activate if needed, wait until the core services are ready, exit
    Run(Run),
    /// Put the core services of this version in the place of those that run; for the Job that engine makes
    Upgrade(Upgrade),
    /// Forgets that a Helm was at work on a release, for the next one, which would not begin; for the Jobs of Helm
    /// applications
    Release(Release),
    /// Removes what an edge node kept in a directory of a machine: the last step of an uninstallation
    Purge {
        /// The directory; it goes with everything in it.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    shell: baetyl_kit::RunArgs,
    /// Activation server of the cloud, https://host:port
    #[arg(long)]
    activate_url: Option<String>,
    /// sha256 of the authority certificate of that server
    #[arg(long)]
    activate_ca_pin: Option<String>,
}

#[derive(Args)]
struct Release {
    /// Namespace of the release
    #[arg(long)]
    namespace: String,
    /// Name of the release
    #[arg(long)]
    name: String,
}

#[derive(Args)]
struct Upgrade {
    #[command(flatten)]
    shell: baetyl_kit::RunArgs,
    /// Version of the images
    #[arg(long, value_name = "VERSION")]
    to: String,
    /// Node class
    #[arg(long)]
    class: String,
    /// Registry, with path, of the images
    #[arg(long)]
    registry: String,
    /// Secret that opens the registry
    #[arg(long, value_name = "NAME")]
    pull_secret: Option<String>,
    /// How long the new version may take to work, and after it how long the old, e.g. 10m
    #[arg(long, value_parser = baetyl_kit::config::parse_duration, default_value = "10m")]
    deadline: Duration,
}

impl Upgrade {
    fn wanted(&self) -> Wanted {
        Wanted {
            to: Core {
                version: self.to.clone(),
                class: self.class.clone(),
                registry: self.registry.clone(),
            },
            pull_secret: self.pull_secret.clone(),
            deadline: self.deadline,
        }
    }
}

/// The exit code says whether another start could change anything.
fn upgrade(args: &Upgrade) -> ExitCode {
    let (ended, end) = std::sync::mpsc::channel();
    let wanted = args.wanted();
    let code = Service::new("baetyl-init").run(
        &args.shell,
        |config: baetyl_init::Config, kit| async move {
            let result = baetyl_init::upgrade::run(config, kit, wanted).await?;
            match &result {
                Ended::Upgraded => tracing::info!("the new version runs"),
                Ended::Failed(why) => tracing::error!(why, "the upgrade failed"),
            }
            // Nobody left to be told is nobody who minds.
            let _ = ended.send(result);
            Ok::<_, UpgradeError>(())
        },
    );
    match end.try_recv() {
        Ok(Ended::Failed(_)) => ExitCode::from(EXIT_FAILED),
        _ => code,
    }
}

fn main() -> ExitCode {
    let args = match Cli::parse() {
        Cli::Run(args) => args,
        Cli::Upgrade(args) => return upgrade(&args),
        Cli::Release(Release { namespace, name }) => {
            return baetyl_init::release::main(&namespace, &name);
        }
        Cli::Purge { dir } => return baetyl_init::purge::main(&dir),
    };
    Service::new("baetyl-init").run(
        &args.shell.clone(),
        |mut config: baetyl_init::Config, kit| {
            config.activate.url = args.activate_url.or(config.activate.url);
            config.activate.ca_pin = args.activate_ca_pin.or(config.activate.ca_pin);
            baetyl_init::run(config, kit)
        },
    )
}
