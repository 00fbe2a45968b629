//! `baetyl.function.v1.RuntimeService`: runtimes dial in, prove who they are, and are given calls.

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::Tasks;
use baetyl_kit::grpc::details;
use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::register_response::Message as Down;
use baetyl_proto::function::runtime_service_server::RuntimeService;
use baetyl_proto::function::{
    Heartbeat, RegisterRequest, RegisterResponse, Registered, Registration,
};
use baetyl_proto::token::Claims;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::app::{App, NewRuntime, ToRuntime};
use crate::auth;
use crate::call::Proxy;
use crate::directory::Caller;
use crate::reply::{Answer, Finish};

/// The protocol this proxy speaks.
const PROTOCOL: u32 = 1;
/// What it can do beyond the protocol: nothing yet.
const FEATURES: &[&str] = &[];
/// Calls one runtime may offer to run at the same time.
const MAX_CONCURRENCY: u32 = 1024;
/// Functions one runtime may have.
const MAX_FUNCTIONS: usize = 1000;
/// How long a runtime may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// Heartbeats that may be missed in a row.
const MISSED: u32 = 3;
/// How long all calls of a runtime may wait because one caller does not take its chunks.
const SLOW_CALLER: Duration = Duration::from_secs(5);

/// Serves the contract.
#[derive(Clone, Debug)]
pub(crate) struct Runtimes {
    pub(crate) proxy: Arc<Proxy>,
    /// Owner of the connections.
    pub(crate) tasks: Tasks,
    pub(crate) heartbeat: Duration,
}

#[tonic::async_trait]
impl RuntimeService for Runtimes {
    type RegisterStream = ReceiverStream<Result<RegisterResponse, Status>>;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let Caller::App(claims) = auth::of(&request)? else {
            return Err(Status::permission_denied(
                "only a runtime with its application token can register",
            ));
        };
        let mut incoming = request.into_inner();
        let first = timeout(HELLO, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no registration came"))??;
        let Some(Up::Registration(registration)) = first.and_then(|first| first.message) else {
            return Err(details::invalid(
                "registration",
                "the first message must be the registration",
            ));
        };
        check(&registration, &claims)?;
        let (out, outgoing) = mpsc::channel(room(registration.concurrency));
        let registered = Registered {
            protocol: PROTOCOL,
            heartbeat_period_ms: u32::try_from(self.heartbeat.as_millis()).unwrap_or(u32::MAX),
            features: shared_features(&registration.features),
        };
        // Cannot be full or closed: it was made above.
        let _ = out.try_send(Ok(down(Down::Registered(registered))));
        let name = format!("runtime {}", registration.instance);
        let connection = self.admit(registration, out);
        self.tasks
            .spawn_until_shutdown(&name, connection.run(incoming));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl Runtimes {
    fn admit(&self, registration: Registration, out: ToRuntime) -> Connection {
        let Registration {
            runtime,
            runtime_version,
            app,
            instance,
            functions,
            concurrency,
            ..
        } = registration;
        let end = CancellationToken::new();
        let new = NewRuntime {
            instance: instance.clone(),
            kind: runtime.clone(),
            functions,
            places: places(concurrency),
            out: out.clone(),
            end: end.clone(),
        };
        let (app, id) = self.proxy.apps.with(&app, |app| app.add(new));
        tracing::info!(
            app = app.name,
            instance,
            runtime,
            version = runtime_version,
            concurrency,
            "a runtime registered"
        );
        Connection {
            proxy: Arc::clone(&self.proxy),
            app,
            id,
            instance,
            out,
            end,
            heartbeat: self.heartbeat,
            concurrency,
        }
    }
}

/// What both sides know, in the runtime's order.
fn shared_features(asked: &[String]) -> Vec<String> {
    let known = |word: &&String| FEATURES.contains(&word.as_str());
    asked.iter().filter(known).cloned().collect()
}

/// The calls a runtime can have unread, each with its cancellation, and some heartbeats.
fn room(concurrency: u32) -> usize {
    places(concurrency) * 2 + 16
}

fn places(concurrency: u32) -> usize {
    usize::try_from(concurrency.min(MAX_CONCURRENCY)).unwrap_or(1)
}

fn check(registration: &Registration, claims: &Claims) -> Result<(), Status> {
    let Registration {
        protocol_min,
        protocol_max,
        app,
        service,
        instance,
        functions,
        concurrency,
        ..
    } = registration;
    // Instances of one application may share a proof that names the application alone.
    let covers = |claimed: &str, said: &str| claimed == said || claimed.is_empty();
    if *app != claims.app
        || !covers(&claims.service, service)
        || !covers(&claims.instance, instance)
    {
        return Err(Status::permission_denied(format!(
            "the token is that of {}/{}/{}, the registration that of {app}/{service}/{instance}",
            claims.app, claims.service, claims.instance
        )));
    }
    if instance.is_empty() {
        return Err(details::invalid(
            "registration.instance",
            "the registration names no instance",
        ));
    }
    if !(*protocol_min..=*protocol_max).contains(&PROTOCOL) {
        return Err(Status::failed_precondition(format!(
            "the runtime speaks protocols {protocol_min} to {protocol_max}, this proxy speaks {PROTOCOL}"
        )));
    }
    if !(1..=MAX_CONCURRENCY).contains(concurrency) {
        return Err(details::invalid(
            "registration.concurrency",
            format!("concurrency {concurrency} is not between 1 and {MAX_CONCURRENCY}"),
        ));
    }
    if functions.is_empty() || functions.len() > MAX_FUNCTIONS {
        let count = functions.len();
        return Err(details::invalid(
            "registration.functions",
            format!("{count} functions are not between 1 and {MAX_FUNCTIONS}"),
        ));
    }
    let mut names: Vec<&str> = functions
        .iter()
        .map(|function| function.name.as_str())
        .collect();
    names.sort_unstable();
    let fault = match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => format!("function {} is registered twice", twice[0]),
        None if names[0].is_empty() => "a function has no name".to_owned(),
        None => return Ok(()),
    };
    Err(details::invalid("registration.functions", fault))
}

/// One registered runtime. Dropping it takes the runtime out and fails what it ran.
struct Connection {
    proxy: Arc<Proxy>,
    app: Arc<App>,
    id: u64,
    instance: String,
    out: ToRuntime,
    end: CancellationToken,
    heartbeat: Duration,
    concurrency: u32,
}

impl Connection {
    async fn run(self, mut incoming: Streaming<RegisterRequest>) {
        let mut beat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let why = loop {
            tokio::select! {
                biased;
                received = incoming.message() => match received {
                    Ok(Some(RegisterRequest { message })) => {
                        if let Some(message) = message {
                            self.receive(message).await;
                        }
                        // After the message: time spent on it is not silence of the runtime.
                        heard = Instant::now();
                    }
                    Ok(None) => break "it ended the connection".to_owned(),
                    Err(status) => break format!("the connection broke: {}", status.message()),
                },
                _ = beat.tick() => {
                    if heard.elapsed() > self.heartbeat * MISSED {
                        let status = Status::deadline_exceeded(format!("silent for {MISSED} heartbeats"));
                        let _ = self.out.try_send(Err(status));
                        break format!("it was silent for {MISSED} heartbeats");
                    }
                    // Full: then the runtime has enough to read.
                    let _ = self.out.try_send(Ok(down(Down::Heartbeat(Heartbeat {}))));
                }
                () = self.end.cancelled() => {
                    let _ = self.out.try_send(Err(Status::aborted("another connection of this instance took its place")));
                    break "another connection took its place".to_owned();
                }
            }
        };
        tracing::info!(
            app = self.app.name,
            instance = self.instance,
            reason = why,
            "a runtime is gone"
        );
    }

    async fn receive(&self, message: Up) {
        match message {
            Up::Result(result) => {
                let answer = Answer {
                    payload: result.payload,
                    metadata: result.metadata,
                };
                self.app
                    .finish(self.id, result.invocation, Finish::Result(answer));
            }
            Up::Failure(failure) => {
                let finish = Finish::Failure(failure.kind(), one_line(failure.message));
                self.app.finish(self.id, failure.invocation, finish);
            }
            Up::Chunk(chunk) => {
                let Some(blocked) = self.app.chunk(self.id, chunk.invocation, chunk.payload) else {
                    return;
                };
                if timeout(SLOW_CALLER, blocked.send()).await.is_err() {
                    self.app.give_up_slow(self.id, chunk.invocation);
                }
            }
            // A runtime that is about to stop offers 0; more than at first would not fit its channel.
            Up::Registration(again) => self
                .app
                .resize(self.id, places(again.concurrency.min(self.concurrency))),
            Up::Heartbeat(Heartbeat {}) => {}
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.app.remove(self.id);
        let directory = self.proxy.known.get().ok();
        self.proxy.apps.forget(&self.app.name, directory.as_deref());
    }
}

/// Callers get one line, whatever the runtime sent.
fn one_line(message: String) -> String {
    const MOST: usize = 2000;
    if message.len() <= MOST && !message.contains(['\n', '\r']) {
        return message;
    }
    let line = message.lines().next().unwrap_or("");
    line.chars().take(MOST).collect()
}

fn down(message: Down) -> RegisterResponse {
    RegisterResponse {
        message: Some(message),
    }
}
