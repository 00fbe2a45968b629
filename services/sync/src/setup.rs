//! From a data directory to the parts of a running sync: opens, repairs, reports what was lost, wires.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_callers::connect;
use baetyl_kit::clock::Clock;
use baetyl_kit::crypto::{CryptoError, KeyFile, SealKey};
use baetyl_kit::grpc::{ConnectError, Endpoint};
use baetyl_kit::resume::Revisions;
use baetyl_kit::serve::ServeError;
use baetyl_kit::tls::{self, CertTime, Roots, ServerTrust, TlsError};
use baetyl_kit::{Kit, fsio};
use baetyl_ledger::medium::Medium;
use baetyl_proto::callers::Role;
use baetyl_proto::convert::time;
use baetyl_proto::shadow::Event;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use crate::command::Dispatcher;
use crate::config::{self, Config};
use crate::db::{self, Db, DbError};
use crate::identity::store::IdentityStore;
use crate::keep::Keeper;
use crate::link::{self, Link};
use crate::mirror::{Mirror, Offering, Restorer};
use crate::node::Node;
use crate::objects::AppKey;
use crate::outbox::Outbox;
use crate::outbox::results::Commands;
use crate::server::Server;
use crate::stage::source::Http;
use crate::stage::throttle::Throttle;
use crate::stage::{Limits, Stager};
use crate::store::disk::RealDisk;
use crate::store::gc::Watermark;
use crate::store::{Store, StoreError};
use crate::trust::TrustClock;
use crate::{blocking, put_event};

/// Results of commands that wait for the link.
const RESULTS: usize = 16;

/// Why sync cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory cannot be made or cleaned.
    #[error("cannot use {path}; check its owner and the disk")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key that seals secrets.
    #[error("the key that seals secrets cannot be used")]
    Seal(#[from] CryptoError),
    /// The database or the store.
    #[error("the state of sync cannot be opened")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The endpoint of another service.
    #[error("the section peers of the configuration cannot be used")]
    Peer(#[from] ConnectError),
    /// The authorities of web servers.
    #[error("the key web.authorities of the configuration cannot be used")]
    Web(#[source] TlsError),
    /// The socket.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        Self::State(error.into())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::State(error.into())
    }
}

/// The parts of a running sync.
pub(crate) struct Parts {
    pub(crate) server: Server,
    pub(crate) link: Link,
    pub(crate) keeper: Arc<Keeper>,
    /// Why there is no identity where there should be one.
    pub(crate) missing: Option<String>,
    /// Where an identity and a desire can be restored from.
    pub(crate) copies: Option<Copies>,
}

/// What is restored while sync runs.
pub(crate) struct Copies {
    pub(crate) restorer: Restorer,
    pub(crate) offering: Offering,
}

/// What is on disk.
struct State {
    db: Arc<Db>,
    store: Arc<Store>,
    identity: Arc<IdentityStore>,
    commands: Commands,
    untold: Vec<baetyl_proto::link::CommandResult>,
    lost: Option<String>,
    /// What was put aside, as sentences.
    put_aside: Vec<String>,
}

/// Opens everything and wires it.
///
/// # Errors
/// When the state cannot be opened or the configuration names something unusable.
pub(crate) async fn open(
    medium: Arc<dyn Medium>,
    config: Config,
    kit: &Kit,
) -> Result<Parts, Error> {
    // Others are told where objects are, and they run elsewhere.
    let data_dir = kit.data_dir();
    let dir = std::path::absolute(data_dir)
        .map_err(directory(data_dir))?
        .join("sync");
    let state = blocking(move || open_state(medium, &dir)).await?;
    let clock = kit.clock().clone();
    let trust = Arc::new(TrustClock::open(Arc::clone(&state.db), clock.clone())?);
    let restorer = config.identity.mirror.as_deref().map(|dir| Restorer {
        mirror: Mirror::new(dir),
        identity: Arc::clone(&state.identity),
        trust: Arc::clone(&trust),
    });
    let missing = match &restorer {
        Some(restorer) => restorer
            .restore()
            .await
            .err()
            .or_else(|| state.lost.clone()),
        None => state.lost.clone(),
    };
    let outbox = Outbox::new(Arc::clone(&state.db), config.outbox.events);
    for message in state.put_aside.iter().chain(&state.lost) {
        tell_loss(&outbox, &clock, message).await;
    }

    let peer = |to, given: &Option<Endpoint>| connect(kit, given.as_ref(), to, Role::Sync);
    let client = peer(Role::Node, &config.peers.node)?;
    let node = Node::follow(kit.tasks(), client, state.identity.watch());
    let (results, told) = mpsc::channel(RESULTS);
    let dispatcher = Dispatcher::new(
        state.commands,
        peer(Role::Engine, &config.peers.engine)?,
        peer(Role::Proxy, &config.peers.function_proxy)?,
        results,
        kit.tasks().clone(),
    );
    let keeper = Arc::new(Keeper::new(
        Arc::clone(&state.db),
        Arc::clone(&state.store),
        node.held(),
        watermark(&config.store),
    ));
    let (uplink, channel) = watch::channel(None);
    let web = web_tls(&config.web, &trust)?;
    let stager = stager(&config.store, kit, &state.store, &keeper, channel, &web);
    let parts = link::Parts {
        config: config.link,
        clock: clock.clone(),
        identity: Arc::clone(&state.identity),
        trust: Arc::clone(&trust),
        node: node.clone(),
        outbox: outbox.clone(),
        dispatcher,
        metrics: kit.metrics().clone(),
    };
    let link = Link::new(parts, told, state.untold, uplink);
    let copies = restorer.map(|restorer| Copies {
        offering: Offering {
            mirror: restorer.mirror.clone(),
            identity: state.identity.watch(),
            node,
            link: link.state(),
        },
        restorer,
    });
    let server = Server {
        clock,
        db: state.db,
        store: state.store,
        keeper: Arc::clone(&keeper),
        stager: Arc::new(stager),
        identity: state.identity,
        trust,
        outbox,
        link: link.state(),
        link_states: Revisions::new(),
        app_key: Arc::new(AppKey::default()),
    };
    Ok(Parts {
        server,
        link,
        keeper,
        missing,
        copies,
    })
}

async fn tell_loss(outbox: &Outbox, clock: &Clock, message: &str) {
    let event = Event {
        time: Some(time::to_wire(clock.now())),
        reason: "StateLost".to_owned(),
        message: message.to_owned(),
        about: "sync".to_owned(),
        r#type: "Warning".to_owned(),
        ..Event::default()
    };
    put_event(outbox, event).await;
}

fn stager(
    config: &config::Store,
    kit: &Kit,
    store: &Arc<Store>,
    keeper: &Arc<Keeper>,
    uplink: watch::Receiver<Option<Channel>>,
    web: &Arc<ClientConfig>,
) -> Stager {
    let received = kit.metrics().counter(
        "fetched_bytes_total",
        "Bytes of bodies and objects that were received.",
        &[],
    );
    Stager::new(
        Arc::clone(store),
        Arc::clone(keeper),
        uplink,
        Http::new(web, config.patience),
        Throttle::new(config.bandwidth.bytes()).counting(received),
        limits(config),
        kit.tasks().clone(),
    )
}

fn open_state(medium: Arc<dyn Medium>, dir: &Path) -> Result<State, Error> {
    fsio::create_dir_private(dir).map_err(directory(dir))?;
    let mut put_aside = Vec::new();
    let seal = open_seal(dir, &mut put_aside)?;
    let opened = Db::open_on(medium, &dir.join("sync.redb"), db::RULES)?;
    if let Some(kept) = &opened.put_aside {
        put_aside.push(format!(
            "sync.redb was damaged and is kept as {}; sync began with an empty one",
            kept.display()
        ));
    }
    let db = Arc::new(opened.file);
    let store = Store::open(dir, Arc::new(RealDisk), seal.clone())?;
    let (identity, lost) = IdentityStore::open(dir, Arc::clone(&db), seal)?;
    let (commands, untold) = Commands::open(Arc::clone(&db))?;
    Ok(State {
        db,
        store: Arc::new(store),
        identity: Arc::new(identity),
        commands,
        untold,
        lost,
        put_aside,
    })
}

/// The key of secrets. With a damaged one nothing sealed can be opened any more: all of it is put aside.
fn open_seal(dir: &Path, put_aside: &mut Vec<String>) -> Result<SealKey, Error> {
    let path = dir.join("seal.key");
    match KeyFile::load_or_create(&path) {
        Err(CryptoError::BadKey { .. }) => {
            for lost in [path.clone(), dir.join("sealed")] {
                if lost.exists() {
                    let kept = fsio::quarantine(&lost).map_err(directory(&lost))?;
                    put_aside.push(format!(
                        "the key of secrets was damaged; {} is kept as {}",
                        lost.display(),
                        kept.display()
                    ));
                }
            }
            Ok(KeyFile::load_or_create(&path)?)
        }
        other => Ok(other?),
    }
}

fn directory(path: &Path) -> impl Fn(io::Error) -> Error + use<'_> {
    move |source| Error::Directory {
        path: path.to_owned(),
        source,
    }
}

fn watermark(config: &config::Store) -> Watermark {
    Watermark {
        high: config.high_watermark.bytes(),
        low: config
            .low_watermark
            .bytes()
            .min(config.high_watermark.bytes()),
        min_free: config.min_free.bytes(),
    }
}

fn limits(config: &config::Store) -> Limits {
    Limits {
        reserve: config.reserve.bytes(),
        max_body: config.max_body.bytes(),
        max_object: config.max_object.bytes(),
        patience: config.patience,
    }
}

/// Web servers are judged at the trusted time, too: an object must not need a clock that is right.
fn web_tls(config: &config::Web, trust: &Arc<TrustClock>) -> Result<Arc<ClientConfig>, Error> {
    let roots = match &config.authorities {
        Some(path) => Roots::load(path).map_err(Error::Web)?,
        None => Roots::from_store(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        }),
    };
    let time: Arc<dyn CertTime> = trust.clone();
    tls::client_config_with(&ServerTrust::Roots(roots), None, Some(time), &[]).map_err(Error::Web)
}
