//! Where the result of one call goes: whole to a caller that waits for all of it, or piece by piece.

use std::collections::BTreeMap;
use std::time::Duration;

use baetyl_proto::function::failure::Kind;
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use crate::error::CallError;

/// Longest payload in either direction.
pub(crate) const MAX_PAYLOAD: usize = 4 * 1024 * 1024;

/// Chunks that may wait for a caller that reads more slowly than the function writes.
pub(crate) const CHUNKS_AHEAD: usize = 16;

/// A result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) payload: Bytes,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// One thing a caller that takes pieces is given.
#[derive(Debug)]
pub(crate) enum Part {
    Chunk(Bytes),
    /// The last: what is left of the payload, and the metadata.
    End(Result<Answer, CallError>),
}

/// How a runtime ended a call.
#[derive(Debug)]
pub(crate) enum Finish {
    Result(Answer),
    Failure(Kind, String),
}

/// A whole result beyond [`MAX_PAYLOAD`].
#[derive(Debug)]
pub(crate) struct TooLong;

/// Where the result goes.
#[derive(Debug)]
pub(crate) enum Reply {
    Whole {
        to: oneshot::Sender<Result<Answer, CallError>>,
        chunks: BytesMut,
    },
    Pieces(mpsc::Sender<Part>),
}

impl Reply {
    /// For a caller that waits for all of it.
    pub(crate) fn whole() -> (Self, oneshot::Receiver<Result<Answer, CallError>>) {
        let (to, receiver) = oneshot::channel();
        (
            Self::Whole {
                to,
                chunks: BytesMut::new(),
            },
            receiver,
        )
    }

    /// For a caller that takes pieces. There is always room for the last one.
    pub(crate) fn pieces() -> (Self, mpsc::Receiver<Part>) {
        let (to, receiver) = mpsc::channel(CHUNKS_AHEAD + 1);
        (Self::Pieces(to), receiver)
    }

    /// Keeps a chunk, or says where it has to be sent to by somebody who can wait.
    ///
    /// # Errors
    /// When all chunks together are too long.
    pub(crate) fn take_chunk(&mut self, chunk: Bytes) -> Result<Option<Blocked>, TooLong> {
        match self {
            Self::Whole { chunks, .. } => {
                if chunks.len() + chunk.len() > MAX_PAYLOAD {
                    return Err(TooLong);
                }
                chunks.extend_from_slice(&chunk);
                Ok(None)
            }
            Self::Pieces(to) => {
                // One place stays free for the end.
                if to.capacity() > 1 {
                    // Closed: the caller is gone, which its ticket tells as well.
                    let _ = to.try_send(Part::Chunk(chunk));
                    return Ok(None);
                }
                Ok(Some(Blocked {
                    to: to.clone(),
                    chunk,
                }))
            }
        }
    }

    pub(crate) fn fail(self, error: CallError) {
        self.give(Err(error));
    }

    /// Tells the caller how it ended.
    pub(crate) fn end(self, asked: &Asked<'_>, finish: Finish) {
        let result = match finish {
            Finish::Result(answer) => Ok(answer),
            Finish::Failure(kind, message) => Err(asked.error(kind, message)),
        };
        match self {
            Self::Whole { ref chunks, .. } if chunks.is_empty() => self.give(result),
            Self::Whole { to, mut chunks } => {
                let joined = result.and_then(|answer| {
                    if chunks.len() + answer.payload.len() > MAX_PAYLOAD {
                        return Err(asked.too_long());
                    }
                    chunks.extend_from_slice(&answer.payload);
                    Ok(Answer {
                        payload: chunks.freeze(),
                        ..answer
                    })
                });
                let _ = to.send(joined);
            }
            Self::Pieces(_) => self.give(result),
        }
    }

    /// A caller that is gone does not mind.
    fn give(self, result: Result<Answer, CallError>) {
        match self {
            Self::Whole { to, .. } => {
                let _ = to.send(result);
            }
            Self::Pieces(to) => {
                let _ = to.try_send(Part::End(result));
            }
        }
    }
}

/// What was asked, for error texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) service: &'a str,
    pub(crate) function: &'a str,
    pub(crate) timeout: Duration,
}

impl Asked<'_> {
    fn error(&self, kind: Kind, message: String) -> CallError {
        let (service, function) = (self.service.to_owned(), self.function.to_owned());
        match kind {
            Kind::Return => CallError::Return {
                service,
                function,
                message,
            },
            Kind::NotFound => CallError::UnknownFunction { service, function },
            Kind::Deadline => self.overdue(),
            Kind::Cancelled => CallError::Cancelled {
                service,
                function,
                message,
            },
            Kind::Worker => CallError::Worker {
                service,
                function,
                message,
            },
            Kind::Function | Kind::Unspecified => CallError::Function {
                service,
                function,
                message,
            },
        }
    }

    pub(crate) fn overdue(&self) -> CallError {
        CallError::Deadline {
            service: self.service.to_owned(),
            function: self.function.to_owned(),
            timeout: self.timeout,
        }
    }

    pub(crate) fn too_long(&self) -> CallError {
        CallError::ResultTooLong {
            service: self.service.to_owned(),
            function: self.function.to_owned(),
            limit: MAX_PAYLOAD,
        }
    }

    pub(crate) fn gone(&self) -> CallError {
        CallError::RuntimeGone {
            service: self.service.to_owned(),
            function: self.function.to_owned(),
        }
    }

    pub(crate) fn slow(&self) -> CallError {
        CallError::SlowCaller {
            service: self.service.to_owned(),
            function: self.function.to_owned(),
        }
    }
}

/// A chunk for which there is no room yet.
#[derive(Debug)]
pub(crate) struct Blocked {
    to: mpsc::Sender<Part>,
    chunk: Bytes,
}

impl Blocked {
    /// Waits for room and leaves one place free for the end.
    pub(crate) async fn send(self) {
        if let Ok(mut places) = self.to.reserve_many(2).await
            && let Some(place) = places.next()
        {
            place.send(Part::Chunk(self.chunk));
        }
    }
}
