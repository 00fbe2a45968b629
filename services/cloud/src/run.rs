//! From configuration to running servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_kit::readiness::ReadinessHandle;
use baetyl_kit::serve::{self, ServeError};
use baetyl_kit::{Kit, fsio};

use crate::activation::{self, ActivationServeError, Activator, KubeDoor};
use crate::auth::{self, Authenticator, TokenError, Tokens};
use crate::catalog::applications::Runtimes;
use crate::config::{AuthMethod, Config};
use crate::desire::DesireFeed;
use crate::install::InstallTokens;
use crate::install::kube::KubeInstall;
use crate::link::{self, LinkDeps, LinkServeError, Links};
use crate::lock::{DataDirLock, LockError};
use crate::objects::{ObjectError, Objects};
use crate::pki::{Pki, PkiError};
use crate::report::{ReportTask, Reports};
use crate::rest::{self, Deps};
use crate::seal::{Seal, SealError};
use crate::store::{By, OpenError, Store};

#[cfg(test)]
mod tests;

/// Name of the database in the data directory.
pub const DATABASE_FILE: &str = "cloud.db";

/// Name of the directory of uploaded files in the data directory.
pub(crate) const OBJECTS_DIR: &str = "objects";

/// How often the database is asked whether it answers: as often as probes usually look.
const DATABASE_CHECK: Duration = Duration::from_secs(10);

/// Why the cloud does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory.
    #[error("cannot use the data directory {path}", path = .path.display())]
    DataDir {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another program has the data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The sealing key.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The first admin token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The object directory.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The REST interface.
    #[error("the REST interface does not start; set admin.listen to a free address")]
    Rest(#[source] ServeError),
    /// The link.
    #[error("the link does not start; set link.listen to a free address")]
    Link(#[source] LinkServeError),
    /// Activation.
    #[error("activation does not start; set activation.listen to a free address")]
    Activation(#[source] ActivationServeError),
}

/// Takes a data directory for this program alone; makes it when it is not there.
///
/// # Errors
/// When another program has it, or it cannot be used.
pub fn lock(data_dir: &Path) -> Result<DataDirLock, Error> {
    make_private(data_dir)?;
    Ok(DataDirLock::take(data_dir)?)
}

/// Keys, tokens and the database lie here: nobody else's business.
fn make_private(data_dir: &Path) -> Result<(), Error> {
    fsio::create_dir_private(data_dir).map_err(|source| Error::DataDir {
        path: data_dir.to_owned(),
        source,
    })
}

/// Opens the database of a data directory, with its sealing key, at the schema of this program. Makes both when neither
/// is there.
///
/// # Errors
/// When one of them cannot be used.
pub async fn open_store(data_dir: &Path) -> Result<(Store, Seal), Error> {
    make_private(data_dir)?;
    let database = data_dir.join(DATABASE_FILE);
    let seal = Seal::of_database(data_dir, &database)?;
    let store = Store::open(&database, seal.clone()).await?;
    Ok((store, seal))
}

/// As [`open_store`], for a database that is there; its schema is left as it is: the cloud may run, or be about to be
/// put back to an older release.
///
/// # Errors
/// When it is not there or cannot be used.
pub async fn open_existing(data_dir: &Path) -> Result<Store, Error> {
    let database = data_dir.join(DATABASE_FILE);
    let seal = Seal::of_database(data_dir, &database)?;
    Ok(Store::open_existing(&database, seal).await?)
}

/// Runs the cloud until it shall stop. The caller has the data directory ([`lock`]): two clouds on one database would each
/// give out the revisions of the other.
///
/// # Errors
/// When something it needs cannot be opened or bound.
pub async fn run(config: Config, kit: Kit) -> Result<(), Error> {
    let starting = kit.readiness().register("listeners");
    forget_addresses(&kit);
    let cloud = Parts::open(&config, &kit).await?;
    cloud.serve(&config, &kit).await?;
    starting.ready();
    kit.until_shutdown().await;
    Ok(())
}

/// Removes the addresses of an earlier run: with port 0 they are wrong, and whoever waits for them would take them.
fn forget_addresses(kit: &Kit) {
    for name in ["admin", "link", "activation"] {
        // Not there at the first start.
        let _ = std::fs::remove_file(kit.data_dir().join(format!("run/{name}.addr")));
    }
}

/// Ready means that the database answers.
async fn watch_database(store: Store, database: ReadinessHandle) {
    let mut every = tokio::time::interval(DATABASE_CHECK);
    loop {
        every.tick().await;
        match store.ping().await {
            Ok(()) => database.ready(),
            Err(error) => database.not_ready(chain(&error)),
        }
    }
}

/// What goes on beside the servers.
fn spawn_upkeep(kit: &Kit, store: &Store, pki: &Pki, reports: ReportTask) {
    let database = kit.readiness().register("database");
    let watch = watch_database(store.clone(), database);
    let (tasks, stop) = (kit.tasks(), kit.shutdown().clone());
    tasks.spawn_until_shutdown("database check", watch);
    tasks.spawn_required("reports", reports.run(stop.clone()));
    tasks.spawn_required("certificate renewal", pki.clone().run_renewal(stop));
}

/// Everything that is opened before anything listens.
struct Parts {
    store: Store,
    pki: Pki,
    objects: Objects,
    reports: Reports,
    report_task: ReportTask,
    authenticator: Arc<dyn Authenticator>,
}

impl Parts {
    async fn open(config: &Config, kit: &Kit) -> Result<Self, Error> {
        let (store, seal) = open_store(kit.data_dir()).await?;
        let by = By {
            actor: "start".to_owned(),
            request_id: String::new(),
            time: kit.clock().now(),
        };
        if auth::ensure_admin_token(&store, kit.data_dir(), &config.namespace, &by).await? {
            let file = kit.data_dir().join(auth::ADMIN_TOKEN_FILE);
            tracing::info!(file = %file.display(), "first start: the admin token is in this file");
        }
        let objects = Objects::open(&kit.data_dir().join(OBJECTS_DIR), &config.objects)?;
        objects.sweep(&store, kit.clock().now()).await?;
        let names = config.public.certificate_names();
        let pki = Pki::open(
            &store,
            &seal,
            config.pki.clone(),
            &names,
            kit.clock().clone(),
        )
        .await?;
        let (reports, report_task) =
            Reports::new(store.clone(), config.report.clone(), kit.clock().clone());
        let authenticator: Arc<dyn Authenticator> = match config.auth.method {
            AuthMethod::Token => Arc::new(Tokens::new(store.clone())),
        };
        Ok(Self {
            store,
            pki,
            objects,
            reports,
            report_task,
            authenticator,
        })
    }

    async fn serve(self, config: &Config, kit: &Kit) -> Result<(), Error> {
        let Self {
            store,
            pki,
            objects,
            reports,
            report_task,
            authenticator,
        } = self;
        spawn_upkeep(kit, &store, &pki, report_task);
        let links = Links::new(kit.metrics());
        let deps = LinkDeps {
            store: store.clone(),
            pki: pki.clone(),
            feed: DesireFeed::new(store.clone(), kit.tasks().clone()),
            reports: reports.clone(),
            links: links.clone(),
            objects: objects.clone(),
        };
        let bound = link::serve(kit, &config.link.listen, deps)
            .await
            .map_err(Error::Link)?;
        let link_urls = config.public.link_urls(&bound);
        let install = InstallTokens::new(pki.clone(), store.clone(), config.install.clone());
        let activator = Activator::new(
            store.clone(),
            pki.clone(),
            install.clone(),
            links,
            link_urls,
        );
        // Bound first: commands and manifests name its port.
        let listener = activation::bind(&config.activation.listen).await;
        let (listener, bound) = listener.map_err(Error::Activation)?;
        let activate_url = config.public.activation_url(&bound);
        let door = KubeDoor {
            store: store.clone(),
            tokens: install.clone(),
            install: KubeInstall::new(pki, config.core.clone(), activate_url),
            reports: reports.clone(),
        };
        let kube = door.install.clone();
        activation::serve(kit, listener, activator, door).map_err(Error::Activation)?;
        let router = rest::router(Deps {
            store,
            objects,
            authenticator,
            runtimes: Runtimes::new(config.functions.runtimes.clone()),
            reports,
            install,
            kube,
            clock: kit.clock().clone(),
            metrics: kit.metrics().clone(),
        });
        serve::http(kit, "admin", &config.admin.listen, None, router)
            .await
            .map_err(Error::Rest)?;
        Ok(())
    }
}
