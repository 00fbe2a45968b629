//! Arguments and what each verb does.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::client::Client;
use crate::context::{self, Contexts};
use crate::node::{self, NodeVerb};
use crate::output::{self, Format};
use crate::resources::Kind;
use crate::{apply, invoke};

#[derive(Parser)]
#[command(
    name = "baetylctl",
    version,
    about = "Talks to a Baetyl cloud: nodes, applications, configurations, secrets"
)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Context to use instead of the current one.
    #[arg(long, global = true, env = "BAETYLCTL_CONTEXT")]
    pub(crate) context: Option<String>,
    /// Address of the cloud's REST interface, e.g. http://127.0.0.1:9004.
    #[arg(long, global = true, env = "BAETYLCTL_SERVER")]
    pub(crate) server: Option<String>,
    /// File that holds the API token.
    #[arg(long, global = true, env = "BAETYLCTL_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with the authority of an https server.
    #[arg(long, global = true, env = "BAETYLCTL_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Remembers clouds: where they are and which token to use.
    Context {
        #[command(subcommand)]
        verb: ContextVerb,
    },
    /// Lists resources, or shows one.
    Get {
        /// node, app, config, secret, registry, certificate (plural and short forms too).
        kind: Kind,
        name: Option<String>,
        /// Label selector, e.g. `site=north,tier in (a,b)`.
        #[arg(short = 'l', long)]
        selector: Option<String>,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        /// Prints again whenever something changed, until interrupted.
        #[arg(short, long)]
        watch: bool,
    },
    /// Creates or updates what the files describe; everything is checked before the first write.
    Apply {
        /// YAML or JSON file with one or more documents; `-` is standard input; repeatable.
        #[arg(short, long = "file", required = true)]
        files: Vec<String>,
        /// Deletes what carries this label (`key=value`) and is not in the files; written documents get the label.
        #[arg(long)]
        prune: Option<String>,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Deletes by kind and name, or what the files describe.
    Delete {
        kind: Option<Kind>,
        name: Option<String>,
        #[arg(short, long = "file")]
        files: Vec<String>,
    },
    /// Shows a resource with what belongs to it, for people; `-o json` and `-o yaml` show it as it is.
    Describe {
        kind: Kind,
        name: String,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// About nodes.
    Node {
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Calls a function on an edge node, straight at its function proxy.
    Invoke(invoke::InvokeArgs),
    /// Prints a completion script, e.g. `baetylctl completion bash`.
    Completion { shell: clap_complete::Shell },
}

#[derive(Subcommand)]
enum ContextVerb {
    /// Adds or changes a context and makes it the current one.
    Set {
        name: String,
        /// Address of the cloud's REST interface.
        #[arg(long = "address")]
        address: String,
        /// File with the API token; its path is remembered, not its content.
        #[arg(long = "token")]
        token: PathBuf,
        /// PEM file with the authority of an https server.
        #[arg(long = "ca")]
        ca: Option<PathBuf>,
    },
    /// Makes a context the current one.
    Use { name: String },
    /// Lists contexts; the current one has a star.
    List,
    /// Forgets a context.
    Delete { name: String },
}

/// Parses the arguments and runs the verb.
///
/// # Errors
/// Whatever went wrong, in words for the user.
pub(crate) async fn run() -> Result<()> {
    let cli = Cli::parse();
    match cli.verb {
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "baetylctl", &mut script);
            write_out!("{}", String::from_utf8_lossy(&script));
            Ok(())
        }
        Verb::Context { verb } => run_context(verb),
        Verb::Invoke(args) => invoke::run(args, cli.server.ca_file.as_deref()).await,
        // The cluster is asked, and the cloud only when there is something to tell it.
        Verb::Node {
            verb: NodeVerb::Uninstall(args),
        } if !args.delete_node => args.run(None).await,
        verb => run_remote(verb, &Client::new(&context::resolve(&cli.server)?)?).await,
    }
}

fn run_context(verb: ContextVerb) -> Result<()> {
    let mut contexts = Contexts::load()?;
    match verb {
        ContextVerb::Set {
            name,
            address,
            token,
            ca,
        } => {
            let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
            contexts.set(
                &name,
                context::Target {
                    server: address,
                    token_file: absolute(token),
                    ca_file: ca.map(absolute),
                },
            );
        }
        ContextVerb::Use { name } => contexts.select(&name)?,
        ContextVerb::List => {
            for (name, target) in contexts.iter() {
                let star = if contexts.is_current(name) { "*" } else { " " };
                say!("{star} {name}\t{}", target.server);
            }
            return Ok(());
        }
        ContextVerb::Delete { name } => contexts.delete(&name)?,
    }
    contexts.save()
}

async fn run_remote(verb: Verb, client: &Client) -> Result<()> {
    match verb {
        Verb::Get {
            kind,
            name,
            selector,
            output,
            watch,
        } => {
            get(
                client,
                kind,
                name.as_deref(),
                selector.as_deref(),
                output,
                watch,
            )
            .await
        }
        Verb::Apply {
            files,
            prune,
            output,
        } => apply::apply(client, &files, prune.as_deref(), output).await,
        Verb::Delete {
            kind: Some(kind),
            name: Some(name),
            files,
        } if files.is_empty() => {
            client.delete(&kind.path(&name)).await?;
            say!("{kind}/{name} deleted");
            Ok(())
        }
        Verb::Delete {
            kind: None,
            name: None,
            files,
        } if !files.is_empty() => apply::delete(client, &files).await,
        Verb::Delete { .. } => bail!("say what to delete: `delete KIND NAME`, or `delete -f FILE`"),
        Verb::Describe { kind, name, output } => describe(client, kind, &name, output).await,
        Verb::Node { verb } => node::run(client, verb).await,
        Verb::Context { .. } | Verb::Invoke(_) | Verb::Completion { .. } => Ok(()),
    }
}

async fn get(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    selector: Option<&str>,
    format: Format,
    watch: bool,
) -> Result<()> {
    let path = match (name, selector) {
        (Some(name), _) => kind.path(name),
        (None, Some(selector)) => format!(
            "{}?selector={}",
            kind.list_path(),
            crate::client::encode(selector)
        ),
        (None, None) => kind.list_path().to_owned(),
    };
    let mut last = String::new();
    loop {
        let text = output::render(kind, &client.get(&path).await?, format)?;
        if text != last {
            write_out!("{text}");
            last = text;
        }
        if !watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn describe(client: &Client, kind: Kind, name: &str, format: Format) -> Result<()> {
    let body = client.get(&kind.path(name)).await?;
    if matches!(format, Format::Json | Format::Yaml) {
        write_out!("{}", output::render(kind, &body, format)?);
        return Ok(());
    }
    write_out!("{}", output::describe(kind, &body)?);
    for (title, path) in kind.related(name) {
        let Ok(related) = client.get(&path).await else {
            continue;
        };
        let text = output::related(&related);
        if !text.is_empty() {
            say!("{title}:\n{text}");
        }
    }
    Ok(())
}
