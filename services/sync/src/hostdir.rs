//! `baetyl-sync stage`: makes the directory of one configuration with objects on the machine a Pod runs on (kube mode).
//!
//! It is the program of the init container `baetyl-objects`. All directories of a machine lie side by side, each named by
//! the digest of its configuration; whoever comes first makes it, the others wait at its lock. Once it is complete nothing
//! is asked any more: not sync, not the network, not a hash. Start at [`stage`]; [`place`] owns the names on the disk,
//! [`fetch`] the conversation with sync, [`assemble`] what lies in the directory.
//!
//! Interrupted at any point it goes on when it runs again, with the bytes it has. What may pass (sync is away, the disk is
//! full) is waited for, for as long as the kubelet lets it; what cannot pass ends it with 1.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use baetyl_archive::ArchiveError;
use baetyl_kit::backoff::Backoff;
use baetyl_kit::crypto::SealKey;
use baetyl_kit::error::{BoxError, chain};
use baetyl_kit::fsio;
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::telemetry::{self, LogFormat};
use baetyl_ledger::is_full;
use baetyl_model::Digest;
use baetyl_model::objects::{PlanError, StagePlan, StagedObject};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

mod assemble;
mod fetch;
mod place;
#[cfg(test)]
mod tests;

use crate::blocking;
use crate::store::disk::RealDisk;
use crate::store::{Store, StoreError};
use place::{Lock, Place};

/// Longest plan that is read: a thousand objects have a quarter of it.
const MAX_PLAN: u64 = 1024 * 1024;

/// Bytes that stay free: applications write, too.
const RESERVE: u64 = 32 * 1024 * 1024;

/// The options of `baetyl-sync stage`.
#[derive(Args, Clone, Debug)]
pub struct StageArgs {
    /// Directory to make; its name is the 64 hex digits of the digest of the configuration
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Directory with the plain items of the configuration (a mounted ConfigMap)
    #[arg(long, value_name = "DIR")]
    pub items: Option<PathBuf>,
    /// JSON that says which objects belong into the directory
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// Where sync listens for applications, https://host:port
    #[arg(long, value_name = "URL")]
    pub server: Endpoint,
    /// Certificates of the authority of the node, PEM; needed for https
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The ticket of the application
    #[arg(long, value_name = "FILE")]
    pub ticket: PathBuf,
    /// error, warn, info, debug, trace, or target=level pairs
    #[arg(
        long,
        value_name = "LEVEL",
        env = "BAETYL_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
    /// How log lines look
    #[arg(
        long,
        value_name = "FORMAT",
        env = "BAETYL_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// Why a directory is not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// The name of the directory.
    #[error(
        "{0} is no directory of a configuration: the last part of its path must be the 64 hex digits of the digest"
    )]
    Name(PathBuf),
    /// The disk refuses.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another release made it.
    #[error(
        "{path} was made by a later release (it needs a reader of format {wanted}); use an image of that release"
    )]
    TooNew {
        /// Which directory.
        path: PathBuf,
        /// The format.
        wanted: u32,
    },
    /// The plan.
    #[error("the plan {path} cannot be used")]
    Plan {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: PlanError,
    },
    /// Address, authority or ticket.
    #[error("{server} cannot be asked as configured")]
    Server {
        /// Where sync is.
        server: Endpoint,
        /// Why.
        source: BoxError,
    },
    /// Sync does not give an object now.
    #[error("object {digest} cannot be fetched from {server} now: {reason}")]
    Unreachable {
        /// What is missing.
        digest: Digest,
        /// Where sync is.
        server: Endpoint,
        /// Why.
        reason: String,
        /// Bytes came before.
        progressed: bool,
    },
    /// An object, or the disk under it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An archive.
    #[error("object {file} cannot be unpacked")]
    Archive {
        /// Its file name.
        file: String,
        /// Why.
        source: ArchiveError,
    },
    /// Two things want one place.
    #[error(
        "{file} cannot be put into the directory: {place} is there already and is something else"
    )]
    Conflict {
        /// The object.
        file: String,
        /// The place in the directory.
        place: PathBuf,
    },
}

impl StageError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    /// True when there is no room on the disk.
    fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source),
            Self::Store(error) => matches!(error, StoreError::Full { .. }),
            Self::Archive { source, .. } => {
                matches!(source, ArchiveError::Io { source, .. } if is_full(source))
            }
            _ => false,
        }
    }

    /// True when waiting may help.
    fn may_pass(&self) -> bool {
        self.is_full() || matches!(self, Self::Unreachable { .. })
    }

    fn progressed(&self) -> bool {
        matches!(self, Self::Unreachable { progressed, .. } if *progressed)
    }
}

/// How patient it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Shortest pause between two attempts.
    pub(crate) min: Duration,
    /// Longest pause between two attempts.
    pub(crate) max: Duration,
    /// Silence after which sync counts as gone. It hashes a large object before its first byte.
    pub(crate) silence: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(500),
            max: Duration::from_secs(30),
            silence: Duration::from_secs(300),
        }
    }
}

/// The whole of the subcommand: 0 when the directory is complete, 1 when it cannot be, 2 for wrong arguments, 143 when it
/// was told to stop.
pub fn main(args: &StageArgs) -> ExitCode {
    let prepared = telemetry::init(&args.log_level, args.log_format)
        .map_err(BoxError::from)
        .and_then(|()| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            Ok(builder.enable_all().build()?)
        });
    let runtime = match prepared {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(io::stderr(), "baetyl-sync stage: {}", chain(error.as_ref()));
            return ExitCode::from(2);
        }
    };
    let code = runtime.block_on(async {
        tokio::select! {
            staged = Box::pin(stage(args, Pace::default())) => match staged {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the objects of this Pod cannot be had");
                    ExitCode::FAILURE
                }
            },
            () = told_to_stop() => ExitCode::from(143),
        }
    });
    // A thread that waits for a lock must not keep the process.
    runtime.shutdown_background();
    code
}

/// The first process of a container dies of no signal that it does not handle.
async fn told_to_stop() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Makes the directory unless it is complete, and removes directories nobody needs any more.
///
/// # Errors
/// What waiting does not mend.
pub(crate) async fn stage(args: &StageArgs, pace: Pace) -> Result<(), StageError> {
    let place = Place::of(&args.dir)?;
    let mut backoff = Backoff::new(pace.min, pace.max);
    let lock = loop {
        let wanted = place.clone();
        match blocking(move || wanted.lock()).await {
            Ok(lock) => break lock,
            // A full or read-only disk is no reason to keep an application from what is complete.
            Err(_) if place.is_complete()? => return Ok(()),
            Err(error) => wait_or_give_up(error, &mut backoff).await?,
        }
    };
    lock.touch();
    if place.is_complete()? {
        tracing::info!(dir = %args.dir.display(), "the directory is complete already");
        blocking(move || place.tidy()).await;
        return Ok(());
    }
    let plan = Arc::new(read_plan(&args.plan)?);
    let mut store = None;
    while let Err(error) = attempt(args, &place, &plan, &mut store, pace).await {
        if error.progressed() {
            backoff.reset();
        }
        if error.is_full() {
            clean(args, &lock).await;
            store = None;
            give_room_back(&place).await?;
        }
        wait_or_give_up(error, &mut backoff).await?;
    }
    tracing::info!(dir = %args.dir.display(), objects = plan.objects.len(), "the directory is complete");
    clean(args, &lock).await;
    Ok(())
}

async fn wait_or_give_up(error: StageError, backoff: &mut Backoff) -> Result<(), StageError> {
    if !error.may_pass() {
        return Err(error);
    }
    let pause = backoff.next_delay();
    tracing::warn!(error = %chain(&error), again_in_ms = pause.as_millis(), "waiting");
    tokio::time::sleep(pause).await;
    Ok(())
}

fn read_plan(path: &Path) -> Result<StagePlan, StageError> {
    let json = fsio::read_limited(path, MAX_PLAN).map_err(StageError::io("read", path))?;
    StagePlan::from_json(&json).map_err(|source| StageError::Plan {
        path: path.to_owned(),
        source,
    })
}

/// Everything once: what is missing is fetched, then the directory is put together and moved to its place. `store` holds
/// the objects from one attempt to the next.
async fn attempt(
    args: &StageArgs,
    place: &Place,
    plan: &Arc<StagePlan>,
    store: &mut Option<Arc<Store>>,
    pace: Pace,
) -> Result<(), StageError> {
    let store = match store {
        Some(store) => Arc::clone(store),
        None => {
            let work = place.work();
            let opened = blocking(move || open_store(&work)).await?;
            Arc::clone(store.insert(Arc::new(opened)))
        }
    };
    let (wanted, stored) = (Arc::clone(plan), Arc::clone(&store));
    let missing = blocking(move || missing(&wanted, &stored)).await?;
    if !missing.is_empty() {
        let client = fetch::connect(args)?;
        for object in missing {
            fetch::fetch(&client, &args.server, &store, &object, pace.silence).await?;
        }
    }
    let (items, place, plan) = (args.items.clone(), place.clone(), Arc::clone(plan));
    blocking(move || {
        let tree = assemble::assemble(items.as_deref(), &plan, &store, &place.work())?;
        place.publish(&tree)
    })
    .await
}

/// The part of the content store that holds objects and goes on with parts of them. It holds no secrets: the key that
/// would seal them is none.
fn open_store(dir: &Path) -> Result<Store, StageError> {
    fsio::create_dir_private(dir).map_err(StageError::io("create", dir))?;
    Ok(Store::open(
        dir,
        Arc::new(RealDisk),
        SealKey::from_bytes(&[0; 32]),
    )?)
}

/// Objects of the plan that are not here complete, each once.
fn missing(plan: &StagePlan, store: &Store) -> Result<Vec<StagedObject>, StageError> {
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for object in plan
        .objects
        .iter()
        .filter(|object| seen.insert(object.digest))
    {
        if store.object(&object.digest)?.is_none() {
            missing.push(object.clone());
        }
    }
    Ok(missing)
}

/// What is half made must not keep the disk of the machine full.
async fn give_room_back(place: &Place) -> Result<(), StageError> {
    let place = place.clone();
    blocking(move || {
        let free =
            fsio::free_space(place.root()).map_err(StageError::io("look at", place.root()))?;
        if free.free >= RESERVE {
            return Ok(());
        }
        tracing::warn!(
            free = free.free,
            "the disk is full; what was fetched so far is given up"
        );
        place
            .give_up()
            .map_err(StageError::io("remove", &place.work()))
    })
    .await
}

/// Removes directories of other configurations: those that sync says nothing on the node needs, for which no Pod has asked
/// for a while, and at which nobody works. When sync cannot tell, all stay.
async fn clean(args: &StageArgs, lock: &Lock) {
    let idle = match lock.idle_others() {
        Ok(idle) if idle.is_empty() => return,
        Ok(idle) => idle,
        Err(error) => {
            return tracing::warn!(%error, "the directories of objects cannot be listed");
        }
    };
    let needed = match fetch::select_needed(args, &idle).await {
        Ok(needed) => needed,
        Err(reason) => {
            return tracing::info!(reason, "directories that may be of no use any more stay");
        }
    };
    for digest in idle.into_iter().filter(|digest| !needed.contains(digest)) {
        let place = lock.place().clone();
        match blocking(move || place.remove_other(&digest)).await {
            Ok(true) => {
                tracing::info!(%digest, "nobody needs this configuration any more; its directory is removed")
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%digest, %error, "a directory that nobody needs cannot be removed")
            }
        }
    }
}
