//! One invocation on its way through a runtime: what is asked, and where the answer goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baetyl_proto::function::register_request::Message;
use baetyl_proto::function::{Chunk, Failure, RegisterRequest, Result as FunctionResult, failure};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use failure::Kind;

/// One invocation.
#[derive(Debug)]
pub struct Call {
    /// Name of the function.
    pub function: String,
    /// What the caller sent.
    pub payload: Bytes,
    /// `serviceName`, `functionName`, `invokeId` and what the caller gave.
    pub metadata: BTreeMap<String, String>,
    /// After this nobody wants the answer.
    pub deadline: Option<Instant>,
    /// Cancelled when the caller or the proxy is gone.
    pub cancelled: CancellationToken,
    /// Where the answer goes.
    pub answer: Answer,
}

impl Call {
    /// A call that came over no connection, and where its answer comes out: for tests of runtimes.
    pub fn for_test(
        function: &str,
        payload: impl Into<Bytes>,
        metadata: BTreeMap<String, String>,
        timeout: Duration,
    ) -> (Self, mpsc::Receiver<RegisterRequest>) {
        let (out, answers) = mpsc::channel(64);
        let (answer, cancelled) = Open::default().begin(1, out);
        let call = Self {
            function: function.to_owned(),
            payload: payload.into(),
            metadata,
            deadline: Some(Instant::now() + timeout),
            cancelled,
            answer,
        };
        (call, answers)
    }
}

/// Invocations of one connection that have no answer yet, each with the token that cancels it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Arc<OpenCalls>);

#[derive(Debug, Default)]
struct OpenCalls {
    tokens: Mutex<HashMap<u64, CancellationToken>>,
    ended: Notify,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, CancellationToken>> {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller is gone.
    pub(crate) fn cancel(&self, invocation: u64) {
        if let Some(token) = self.lock().get(&invocation) {
            token.cancel();
        }
    }

    /// The proxy is gone: nobody waits for any of them.
    pub(crate) fn cancel_all(&self) {
        for token in self.lock().values() {
            token.cancel();
        }
    }

    fn end(&self, invocation: u64) {
        self.lock().remove(&invocation);
        self.0.ended.notify_one();
    }

    /// Returns when none is open. For one waiter.
    pub(crate) async fn empty(&self) {
        while !self.lock().is_empty() {
            self.0.ended.notified().await;
        }
    }

    /// Opens one; dropping the answer without a word tells the proxy that the worker is gone.
    pub(crate) fn begin(
        &self,
        invocation: u64,
        out: mpsc::Sender<RegisterRequest>,
    ) -> (Answer, CancellationToken) {
        let token = CancellationToken::new();
        self.lock().insert(invocation, token.clone());
        (
            Answer {
                invocation,
                out,
                open: self.clone(),
                given: false,
            },
            token,
        )
    }
}

/// The proxy is not there any more; the answer went nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the function proxy is not connected any more")]
pub struct Gone;

/// Takes the answer to one invocation: any number of chunks, then one result or failure.
#[derive(Debug)]
pub struct Answer {
    invocation: u64,
    out: mpsc::Sender<RegisterRequest>,
    open: Open,
    given: bool,
}

impl Answer {
    /// The end, with all of the payload or (after chunks) the rest of it.
    pub async fn result(mut self, payload: Bytes, metadata: BTreeMap<String, String>) {
        let invocation = self.invocation;
        self.end(Message::Result(FunctionResult {
            invocation,
            payload,
            metadata,
        }))
        .await;
    }

    /// The end without a result; `message` is one line for the caller.
    pub async fn failure(mut self, kind: Kind, message: impl Into<String>) {
        let failure = Failure {
            invocation: self.invocation,
            kind: kind.into(),
            message: message.into(),
        };
        self.end(Message::Failure(failure)).await;
    }

    /// A part of the payload. Waits while the proxy is slow to take it.
    ///
    /// # Errors
    /// When the proxy is gone; the function may as well stop.
    pub async fn chunk(&self, payload: Bytes) -> Result<(), Gone> {
        let message = Message::Chunk(Chunk {
            invocation: self.invocation,
            payload,
        });
        self.out
            .send(RegisterRequest {
                message: Some(message),
            })
            .await
            .map_err(|_| Gone)
    }

    async fn end(&mut self, message: Message) {
        self.given = true;
        // Gone: then nobody waits for it.
        let _ = self
            .out
            .send(RegisterRequest {
                message: Some(message),
            })
            .await;
        // Only now: a runtime that stops waits until nothing is open.
        self.open.end(self.invocation);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.given {
            return;
        }
        self.open.end(self.invocation);
        let failure = Failure {
            invocation: self.invocation,
            kind: Kind::Worker.into(),
            message: "the runtime stopped".to_owned(),
        };
        let _ = self.out.try_send(RegisterRequest {
            message: Some(Message::Failure(failure)),
        });
    }
}
