//! The command line: `serve`, and what an operator does on the machine of the cloud itself.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use baetyl_kit::error::chain;
use baetyl_kit::{RunArgs, Service, clock};
use baetyl_model::Namespace;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::auth;
use crate::config::{Config, ShellSections};
use crate::run::{DATABASE_FILE, open_store, run};
use crate::store::{self, By, Role, Store};

const PROGRAM: &str = "baetyl-cloud";
const DEFAULT_DATA_DIR: &str = "/var/lib/baetyl-cloud";

#[derive(Parser, Debug)]
#[command(name = PROGRAM, version, about = "Cloud management suite: nodes, applications, configurations, secrets")]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the cloud until SIGTERM or SIGINT; a second signal ends it at once
    #[command(mut_arg("data_dir", |arg| arg.default_value(DEFAULT_DATA_DIR)))]
    Serve(RunArgs),
    /// API tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Bring the database to the schema of this program, and end
    Migrate(DataDir),
    /// Write a consistent copy of the database, also while the cloud runs. The copy needs seal.key to be of use
    Backup {
        #[command(flatten)]
        data_dir: DataDir,
        /// File that must not exist
        file: PathBuf,
    },
    /// Put a backup in the place of the database; the cloud must not run
    Restore {
        #[command(flatten)]
        data_dir: DataDir,
        /// A file `backup` wrote
        file: PathBuf,
    },
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
struct DataDir {
    /// Directory for everything the cloud keeps
    #[arg(long, value_name = "DIR", env = "BAETYL_DATA_DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

#[derive(Subcommand, Debug)]
enum TokenCommand {
    /// Make a token and print it; it cannot be had again
    Create {
        #[command(flatten)]
        data_dir: DataDir,
        /// Name, for lists and for the audit log
        name: String,
        /// admin, operator or viewer
        #[arg(long, default_value = "operator")]
        role: Role,
        /// Tenant its holder acts in; made when it is not there
        #[arg(long, default_value = "default")]
        namespace: Namespace,
    },
    /// List tokens without their secrets
    List(DataDir),
    /// Refuse a token from now on
    Revoke {
        #[command(flatten)]
        data_dir: DataDir,
        /// Its name
        name: String,
        /// Its tenant
        #[arg(long, default_value = "default")]
        namespace: Namespace,
    },
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Command::Serve(args) = &cli.command {
        return serve(args);
    }
    match once(cli.command) {
        Ok(text) => print(&text),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{PROGRAM}: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &RunArgs) -> ExitCode {
    // One thread per CPU: links and REST share them.
    Service::new(PROGRAM)
        .worker_threads(0)
        .run_with::<ShellSections, Config, _, _, _>(args, run)
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A command that ends by itself: what it prints.
fn once(command: Command) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Serve(_) => Ok(String::new()),
            Command::Token(command) => token(command).await,
            Command::Migrate(dir) => {
                open_store(&dir.data_dir).await?.0.close().await;
                Ok("the database has the schema of this program\n".to_owned())
            }
            Command::Backup { data_dir, file } => {
                let store = existing(&data_dir.data_dir).await?;
                store.backup(&file).await?;
                Ok(format!(
                    "written to {}; keep it together with seal.key\n",
                    file.display()
                ))
            }
            Command::Restore { data_dir, file } => restore(&data_dir.data_dir, &file).await,
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
                Ok(String::from_utf8_lossy(&script).into_owned())
            }
        }
    })
}

/// A database that was made before: a wrong directory must not quietly become a new cloud.
async fn existing(data_dir: &Path) -> anyhow::Result<Store> {
    let file = data_dir.join(DATABASE_FILE);
    if !file.exists() {
        bail!(
            "there is no database {}; is --data-dir right?",
            file.display()
        );
    }
    Ok(open_store(data_dir).await?.0)
}

async fn restore(data_dir: &Path, file: &Path) -> anyhow::Result<String> {
    let database = data_dir.join(DATABASE_FILE);
    store::restore(file, &database)
        .await
        .with_context(|| format!("nothing was restored from {}", file.display()))?;
    Ok(format!(
        "restored {}; the database before is beside it (.before-restore). Nodes that know newer wishes are brought \
         back to these when they connect\n",
        database.display()
    ))
}

fn by() -> By {
    By {
        actor: "command line".to_owned(),
        request_id: String::new(),
        time: clock::now(),
    }
}

async fn token(command: TokenCommand) -> anyhow::Result<String> {
    match command {
        TokenCommand::Create {
            data_dir,
            name,
            role,
            namespace,
        } => {
            let store = existing(&data_dir.data_dir).await?;
            let token = auth::create_token(&store, &namespace, &name, role, &by()).await?;
            Ok(format!("{token}\n"))
        }
        TokenCommand::List(dir) => {
            let store = existing(&dir.data_dir).await?;
            let rows = store.tokens().await?;
            let lines = rows.iter().map(|row| {
                format!(
                    "{:<20} {:<20} {:<9} {}\n",
                    row.namespace, row.name, row.role, row.create_time
                )
            });
            Ok(format!(
                "{:<20} {:<20} {:<9} {}\n",
                "NAMESPACE", "NAME", "ROLE", "CREATED"
            ) + &lines.collect::<String>())
        }
        TokenCommand::Revoke {
            data_dir,
            name,
            namespace,
        } => {
            let store = existing(&data_dir.data_dir).await?;
            if !store.revoke_token(&namespace, &name).await? {
                bail!(
                    "namespace \"{namespace}\" has no token \"{name}\"; see `{PROGRAM} token list`"
                );
            }
            Ok(format!("revoked {name}\n"))
        }
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
    fn serve_has_a_data_directory_of_its_own() {
        let cli = Cli::try_parse_from([PROGRAM, "serve", "--check-config"]).unwrap();
        let Command::Serve(args) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(args.data_dir, Path::new(DEFAULT_DATA_DIR));
        assert!(args.check_config);
    }

    #[test]
    fn a_token_is_made_listed_and_revoked_on_the_machine_of_the_cloud() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display().to_string();
        let call = |words: &[&str]| {
            let words = [&[PROGRAM], words, &["--data-dir", &at]].concat();
            once(Cli::try_parse_from(words).unwrap().command)
        };
        let early = call(&["token", "create", "ci"]).unwrap_err();
        assert!(early.to_string().contains("no database"), "{early}");
        call(&["migrate"]).unwrap();
        let token = call(&["token", "create", "ci", "--role", "viewer"]).unwrap();
        assert!(token.starts_with("bct_"), "{token}");
        let list = call(&["token", "list"]).unwrap();
        assert!(
            list.contains("ci") && list.contains("viewer") && !list.contains(token.trim()),
            "{list}"
        );
        call(&["token", "revoke", "ci"]).unwrap();
        assert!(call(&["token", "revoke", "ci"]).is_err());
        let backup = dir.path().join("copy.db").display().to_string();
        call(&["backup", &backup]).unwrap();
        call(&["restore", &backup]).unwrap();
        assert!(call(&["restore", "/dev/null"]).is_err());
    }
}
