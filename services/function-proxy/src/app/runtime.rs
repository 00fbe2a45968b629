//! One registered runtime: what it offers and what it runs.

use std::collections::HashMap;
use std::time::Duration;

use baetyl_proto::function::register_response::Message as Down;
use baetyl_proto::function::{Cancel, FunctionSpec, Invocation, RegisterResponse};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Call;
use crate::error::CallError;
use crate::reply::{Asked, Reply};

/// Towards one runtime.
pub(crate) type ToRuntime = mpsc::Sender<Result<RegisterResponse, Status>>;

/// A runtime as it registers.
#[derive(Debug)]
pub(crate) struct NewRuntime {
    pub(crate) instance: String,
    pub(crate) kind: String,
    pub(crate) functions: Vec<FunctionSpec>,
    pub(crate) places: usize,
    pub(crate) out: ToRuntime,
    pub(crate) end: CancellationToken,
}

/// A registered runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) id: u64,
    pub(super) instance: String,
    pub(super) kind: String,
    pub(super) functions: Vec<FunctionSpec>,
    /// Calls it runs at the same time; 0 = it takes no more.
    pub(super) places: usize,
    pub(super) out: ToRuntime,
    /// Calls it has not answered, those included whose caller is gone.
    pub(super) open: HashMap<u64, Open>,
    /// The last call it was given; calls are numbered.
    pub(super) last: u64,
    /// Ends its connection.
    pub(super) end: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) function: String,
    pub(super) timeout: Duration,
    /// None: the caller is gone.
    pub(super) reply: Option<Reply>,
}

impl Open {
    pub(super) fn asked<'a>(&'a self, service: &'a str) -> Asked<'a> {
        Asked {
            service,
            function: &self.function,
            timeout: self.timeout,
        }
    }
}

impl Runtime {
    pub(super) fn new(id: u64, new: NewRuntime) -> Self {
        let NewRuntime {
            instance,
            kind,
            functions,
            places,
            out,
            end,
        } = new;
        let open = HashMap::with_capacity(places.min(64));
        Self {
            id,
            instance,
            kind,
            functions,
            places,
            out,
            last: 0,
            open,
            end,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.open.len() < self.places
    }

    pub(super) fn has(&self, function: &str) -> bool {
        self.spec(function).is_some()
    }

    pub(super) fn spec(&self, function: &str) -> Option<&FunctionSpec> {
        self.functions.iter().find(|spec| spec.name == function)
    }

    pub(super) fn give(&mut self, id: u64, call: Call, reply: Reply, timeout: Duration) {
        let Call {
            function,
            payload,
            metadata,
            began,
            ..
        } = call;
        let left = timeout.saturating_sub(began.elapsed()).as_millis();
        self.last = id;
        self.open.insert(
            id,
            Open {
                function: function.clone(),
                timeout,
                reply: Some(reply),
            },
        );
        self.send(Down::Invoke(Invocation {
            invocation: id,
            function,
            payload,
            metadata,
            // 0 would mean none.
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX).max(1),
        }));
    }

    /// The caller is told the error, the runtime that nobody waits for the rest.
    pub(super) fn give_up(&mut self, id: u64, error: CallError) {
        if let Some(reply) = self.open.get_mut(&id).and_then(|open| open.reply.take()) {
            reply.fail(error);
        }
        self.cancel(id);
    }

    /// Nobody waits for this call any more.
    pub(super) fn cancel(&self, id: u64) {
        self.send(Down::Cancel(Cancel { invocation: id }));
    }

    /// The channel has room for what a runtime that keeps to its places can have unread. One that does not read at all
    /// is ended; its calls then fail when it is removed.
    pub(super) fn send(&self, message: Down) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.out.try_send(Ok(RegisterResponse {
            message: Some(message),
        })) {
            tracing::warn!(
                instance = self.instance,
                "a runtime does not read; its connection is ended"
            );
            self.end.cancel();
        }
    }
}
