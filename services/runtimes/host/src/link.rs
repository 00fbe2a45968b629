//! The runtime's connection to the function proxy: registered, kept alive, opened again for ever.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::error::chain;
use baetyl_kit::grpc::{Connect, ConnectError, Endpoint};
use baetyl_kit::tls::{self, Ageless, Identity, Roots, ServerTrust, TlsError};
use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::register_response::Message as Down;
use baetyl_proto::function::runtime_service_client::RuntimeServiceClient;
use baetyl_proto::function::{
    FunctionSpec, Heartbeat, Invocation, RegisterRequest, RegisterResponse, Registration,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::call::{Call, Open};
use crate::identity::{IdentityError, Proof};

/// The protocol this runtime speaks.
const PROTOCOL: u32 = 1;
/// A payload and its metadata in one message; the proxy has the same limit.
const MAX_MESSAGE: usize = crate::MAX_PAYLOAD + 256 * 1024;
/// How long the proxy may take to answer a registration.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeats that may be missed in a row.
const MISSED: u32 = 3;

/// Runs invocations: a pool of workers, or a runtime written in Rust.
pub trait Executor: Send + Sync + 'static {
    /// Takes one invocation. Returns soon; the answer goes through [`Call::answer`], now or later.
    fn start(&self, call: Call) -> impl Future<Output = ()> + Send;
}

impl<E: Executor> Executor for Arc<E> {
    fn start(&self, call: Call) -> impl Future<Output = ()> + Send {
        E::start(self, call)
    }
}

/// What the runtime tells the proxy about itself.
#[derive(Clone, Debug)]
pub struct Profile {
    /// `python3`, `echo` …
    pub runtime: String,
    /// Of the interpreter.
    pub version: String,
    /// In the order of the application; the first is the default.
    pub functions: Vec<FunctionSpec>,
    /// Invocations at the same time.
    pub concurrency: u32,
}

/// Where the proxy is and how to prove who we are.
#[derive(Clone, Debug)]
pub struct Door {
    /// How to get there.
    pub way: Way,
    /// The token of the instance or its application (`BAETYL_TOKEN_FILE`); read again for every connection.
    pub token_file: PathBuf,
    /// Our service, if the token names none.
    pub service: String,
    /// Our instance, if the token names none.
    pub instance: String,
    /// Time the invocations in progress get when the runtime is asked to stop.
    pub drain: Duration,
}

/// How to get to the proxy.
#[derive(Clone, Debug)]
pub enum Way {
    /// Its socket for applications (`BAETYL_FUNCTION_SOCKET`).
    Socket(PathBuf),
    /// Its gRPC listener (`BAETYL_FUNCTION_ADDRESS`). All files are read again for every connection.
    Tls {
        /// `https://host:port`; the certificate of the proxy must be good for the host.
        address: Endpoint,
        /// The authorities that may vouch for it (`BAETYL_CA_FILE`).
        ca_file: PathBuf,
        /// A certificate to show and its key (`BAETYL_CERT_FILE`, `BAETYL_KEY_FILE`).
        own: Option<(PathBuf, PathBuf)>,
    },
}

impl Way {
    fn connect(&self) -> Result<Connect, TlsError> {
        match self {
            Self::Socket(path) => Ok(Connect::new(Endpoint::unix(path))),
            Self::Tls {
                address,
                ca_file,
                own,
            } => {
                let trust = ServerTrust::Roots(Roots::load(ca_file)?);
                let own = own
                    .as_ref()
                    .map(|(certificate, key)| Identity::load(certificate, key))
                    .transpose()?;
                let config = tls::client_config(&trust, own, Some(Arc::new(Ageless)))?;
                Ok(Connect::new(address.clone()).tls(config))
            }
        }
    }
}

/// Why a connection to the proxy ended or did not come about. All of these are tried again.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot prove who this runtime is")]
    Identity(#[from] IdentityError),
    #[error("the certificates for the way to the function proxy cannot be used")]
    Tls(#[from] TlsError),
    #[error("the way to the function proxy cannot be used")]
    Connect(#[from] ConnectError),
    #[error("the function proxy is away or refused the registration: {}", .0.message())]
    Refused(tonic::Status),
    #[error("the function proxy did not answer the registration within {REGISTER_TIMEOUT:?}")]
    Silent,
    #[error(
        "the function proxy answered the registration with something else; is it older than this runtime?"
    )]
    NotRegistered,
    #[error("the function proxy was silent for {MISSED} heartbeats")]
    Lost,
    #[error("the connection to the function proxy broke: {}", .0.message())]
    Broken(tonic::Status),
    #[error("the function proxy ended the connection")]
    Ended,
}

/// Registers with the proxy and serves it until `stop` is cancelled and the invocations in progress are done.
pub async fn serve<E: Executor>(
    door: &Door,
    profile: &Profile,
    executor: &E,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::local();
    let mut last = String::new();
    while !stop.is_cancelled() {
        let session = Session {
            door,
            profile,
            executor,
            stop,
            open: Open::default(),
        };
        let ended = session.run(&mut backoff).await;
        session.open.cancel_all();
        match ended {
            Ok(()) => return,
            Err(error) => {
                let error = chain(&error);
                // The log of an instance is small: the same trouble is told once.
                if backoff.attempt() == 0 || error != last {
                    tracing::warn!(error, "not connected to the function proxy; trying again");
                    last = error;
                }
            }
        }
        let _ = stop.run_until_cancelled(backoff.wait()).await;
    }
}

struct Session<'a, E> {
    door: &'a Door,
    profile: &'a Profile,
    executor: &'a E,
    stop: &'a CancellationToken,
    open: Open,
}

impl<E: Executor> Session<'_, E> {
    /// One connection, from registration to its end. Ok only after a drain.
    async fn run(&self, backoff: &mut Backoff) -> Result<(), LinkError> {
        let door = self.door;
        let identity = Proof::read(&door.token_file, &door.service, &door.instance)?;
        // Twice the concurrency for answers and their chunks; senders wait when the proxy is slow.
        let (out, outgoing) = mpsc::channel(self.profile.concurrency as usize * 2 + 16);
        // Cannot be full or closed: it was made above.
        let _ = out.try_send(message(Up::Registration(
            self.registration(&identity, self.profile.concurrency),
        )));
        let registering = timeout(REGISTER_TIMEOUT, self.register(&identity, outgoing));
        let Some(registering) = self.stop.run_until_cancelled(registering).await else {
            return Ok(());
        };
        let (incoming, period) = registering.map_err(|_| LinkError::Silent)??;
        tracing::info!(
            app = identity.claims.app,
            instance = identity.claims.instance,
            "registered with the function proxy"
        );
        backoff.reset();
        self.exchange(&identity, incoming, out, period).await
    }

    async fn register(
        &self,
        identity: &Proof,
        outgoing: mpsc::Receiver<RegisterRequest>,
    ) -> Result<(Streaming<RegisterResponse>, Duration), LinkError> {
        let channel = self.door.way.connect()?.bearer(&identity.token).lazy()?;
        let mut client = RuntimeServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut incoming = client
            .register(ReceiverStream::new(outgoing))
            .await
            .map_err(LinkError::Refused)?
            .into_inner();
        match incoming
            .message()
            .await
            .map_err(LinkError::Refused)?
            .and_then(|response| response.message)
        {
            Some(Down::Registered(registered)) if registered.protocol == PROTOCOL => {
                let period =
                    Duration::from_millis(u64::from(registered.heartbeat_period_ms.max(100)));
                Ok((incoming, period))
            }
            _ => Err(LinkError::NotRegistered),
        }
    }

    async fn exchange(
        &self,
        identity: &Proof,
        mut incoming: Streaming<RegisterResponse>,
        out: mpsc::Sender<RegisterRequest>,
        period: Duration,
    ) -> Result<(), LinkError> {
        let mut beat = interval_at(Instant::now() + period, period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut until = None;
        loop {
            tokio::select! {
                received = incoming.message() => {
                    heard = Instant::now();
                    let response = received.map_err(LinkError::Broken)?.ok_or(LinkError::Ended)?;
                    if let Some(message) = response.message {
                        self.receive(message, &out).await;
                    }
                }
                _ = beat.tick() => {
                    if heard.elapsed() > period * MISSED {
                        return Err(LinkError::Lost);
                    }
                    // Full: then there is traffic, which is as good as a heartbeat.
                    let _ = out.try_send(message(Up::Heartbeat(Heartbeat {})));
                }
                () = self.stop.cancelled(), if until.is_none() => {
                    // No more invocations from now on; those in progress may end.
                    until = Some(Instant::now() + self.door.drain);
                    let _ = out.send(message(Up::Registration(self.registration(identity, 0)))).await;
                }
                () = self.open.empty(), if until.is_some() => break,
                () = sleep_until(until.unwrap_or(heard)), if until.is_some() => break,
            }
        }
        // Ends our half; what is still on its way gets there before the proxy ends its own.
        drop(out);
        let ending = async { while let Ok(Some(_)) = incoming.message().await {} };
        let _ = timeout(FAREWELL, ending).await;
        Ok(())
    }

    async fn receive(&self, message: Down, out: &mpsc::Sender<RegisterRequest>) {
        match message {
            Down::Invoke(invocation) => {
                let Invocation {
                    invocation,
                    function,
                    payload,
                    metadata,
                    deadline_ms,
                } = invocation;
                let (answer, cancelled) = self.open.begin(invocation, out.clone());
                let deadline = (deadline_ms > 0)
                    .then(|| Instant::now() + Duration::from_millis(deadline_ms.into()));
                self.executor
                    .start(Call {
                        function,
                        payload,
                        metadata,
                        deadline,
                        cancelled,
                        answer,
                    })
                    .await;
            }
            Down::Cancel(cancel) => self.open.cancel(cancel.invocation),
            Down::Heartbeat(Heartbeat {}) | Down::Registered(_) => {}
        }
    }

    fn registration(&self, identity: &Proof, concurrency: u32) -> Registration {
        Registration {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            runtime: self.profile.runtime.clone(),
            runtime_version: self.profile.version.clone(),
            app: identity.claims.app.clone(),
            service: identity.claims.service.clone(),
            instance: identity.claims.instance.clone(),
            functions: self.profile.functions.clone(),
            concurrency,
            // None yet: a later release names here what it can do beyond the protocol.
            features: Vec::new(),
        }
    }
}

/// How long the proxy may take to notice that we are done.
const FAREWELL: Duration = Duration::from_secs(1);
fn message(message: Up) -> RegisterRequest {
    RegisterRequest {
        message: Some(message),
    }
}
