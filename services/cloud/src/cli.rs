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
use crate::lock::DataDirLock;
use crate::objects::Objects;
use crate::run::{DATABASE_FILE, Error, OBJECTS_DIR, lock, open_existing, open_store, run};
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
    /// Write a consistent copy of the database, also while the cloud runs
    ///
    /// The copy is of use only together with <data-dir>/seal.key, and does not hold the uploaded files: copy the
    /// directory <data-dir>/objects, too, after this command.
    Backup {
        #[command(flatten)]
        data_dir: DataDir,
        /// File that must not exist
        file: PathBuf,
    },
    /// Put a backup in the place of the database; the cloud must not run
    ///
    /// The database before is kept beside it. Put back a copy of <data-dir>/objects, too: files the backup names and
    /// the directory does not hold cannot be fetched. Files it does not name stay for 7 days, in case the database
    /// before is wanted after all.
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
        Err(error) => complain(error.as_ref()),
    }
}

fn serve(args: &RunArgs) -> ExitCode {
    // Before anything else: a second program must not even write over the addresses of the first.
    let _lock = match hold(args) {
        Ok(lock) => lock,
        Err(error) => return complain(&error),
    };
    // One thread per CPU: links and REST share them.
    Service::new(PROGRAM)
        .worker_threads(0)
        .run_with::<ShellSections, Config, _, _, _>(args, run)
}

/// The data directory, for a program that is going to run.
fn hold(args: &RunArgs) -> Result<Option<DataDirLock>, Error> {
    let only_looks = args.check_config || args.print_config;
    (!only_looks).then(|| lock(&args.data_dir)).transpose()
}

fn complain(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {}", chain(error));
    ExitCode::FAILURE
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
                let _lock = lock(&dir.data_dir)?;
                open_store(&dir.data_dir).await?.0.close().await;
                Ok("the database has the schema of this program\n".to_owned())
            }
            Command::Backup { data_dir, file } => {
                let store = existing(&data_dir.data_dir).await?;
                store.backup(&file).await?;
                store.close().await;
                Ok(format!(
                    "written to {}; keep it together with seal.key and a copy of objects/\n",
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
    Ok(open_existing(data_dir).await?)
}

async fn restore(data_dir: &Path, file: &Path) -> anyhow::Result<String> {
    let _lock = lock(data_dir)?;
    let database = data_dir.join(DATABASE_FILE);
    let now = clock::now();
    // First: a start after a crash in between must not take files the old database needs.
    Objects::keep_unknown(&data_dir.join(OBJECTS_DIR), now)?;
    let kept = store::restore(file, &database, now)
        .await
        .with_context(|| format!("nothing was restored from {}", file.display()))?;
    let before = kept.map_or_else(String::new, |kept| {
        format!("; the database before is {}", kept.display())
    });
    Ok(format!(
        "restored {}{before}. Nodes that know newer wishes are brought back to these when they connect\n",
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
    fn a_second_cloud_on_the_same_data_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display().to_string();
        let args = |more: &[&str]| {
            let words = [&[PROGRAM, "serve", "--data-dir", &at], more].concat();
            match Cli::try_parse_from(words).unwrap().command {
                Command::Serve(args) => args,
                other => panic!("{other:?}"),
            }
        };
        let first = hold(&args(&[])).unwrap();
        assert!(first.is_some());
        let error = hold(&args(&[])).unwrap_err();
        assert!(
            error.to_string().contains("another baetyl-cloud"),
            "{error}"
        );
        assert!(
            hold(&args(&["--check-config"])).unwrap().is_none(),
            "looking disturbs nobody"
        );
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
        let taken = lock(dir.path()).unwrap();
        let refused = call(&["restore", &backup]).unwrap_err();
        assert!(refused.to_string().contains("another"), "{refused}");
        drop(taken);
        call(&["restore", &backup]).unwrap();
        assert!(call(&["restore", "/dev/null"]).is_err());
    }
}
