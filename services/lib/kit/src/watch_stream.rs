//! A server stream that outlives its connections.
//!
//! Every watch between services works the same way: open the stream with the last resume token, take items,
//! and when it breaks open it again after a backoff. `OUT_OF_RANGE` means that the token is too old: open
//! again at once without one, and start over. The server's side is [`resume`](crate::resume). [`events`] tells all of that; [`latest`] is for watches of which
//! only the newest item counts.

use std::future::Future;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};

use crate::backoff::Backoff;
use crate::tasks::Tasks;

/// What happens to a watch.
#[derive(Clone, Debug)]
pub enum Event<T> {
    /// A stream is open. `resumed` is false when it starts over: what was known before must be forgotten.
    Opened {
        /// Whether it goes on where the last one broke.
        resumed: bool,
    },
    /// The next item.
    Item(T),
    /// The stream broke or could not be opened; another attempt follows by itself.
    Lost(Status),
}

/// Keeps a stream open as a task named `name` and gives its [`Event`]s through a channel of `capacity`.
///
/// `open(token)` makes the call; `token_of(item)` gives the token to resume after that item (None: items
/// cannot be resumed after, each stream starts over). Ends when the receiver is dropped or at shutdown.
pub fn events<T, K, S, Open, Fut, TokenOf>(
    tasks: &Tasks,
    name: &str,
    backoff: Backoff,
    capacity: usize,
    open: Open,
    token_of: TokenOf,
) -> mpsc::Receiver<Event<T>>
where
    T: Send + 'static,
    K: Clone + Send + 'static,
    S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static,
    Open: FnMut(Option<K>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<S, Status>> + Send + 'static,
    TokenOf: Fn(&T) -> Option<K> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let watch = Watch {
        name: name.to_owned(),
        backoff,
        open,
        token_of,
        token: None,
        sender,
    };
    tasks.spawn_until_shutdown(name, watch.run());
    receiver
}

/// Keeps a stream open as a task named `name` and shows its newest item; None until there is one. The last
/// item stays while the stream is broken. `open` and `token_of` are those of [`events`]. Ends when all receivers are dropped or at shutdown.
pub fn latest<T, K, S, Open, Fut, TokenOf>(
    tasks: &Tasks,
    name: &str,
    backoff: Backoff,
    open: Open,
    token_of: TokenOf,
) -> watch::Receiver<Option<T>>
where
    T: Send + Sync + 'static,
    K: Clone + Send + 'static,
    S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static,
    Open: FnMut(Option<K>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<S, Status>> + Send + 'static,
    TokenOf: Fn(&T) -> Option<K> + Send + 'static,
{
    let (sender, receiver) = watch::channel(None);
    let mut events = events(tasks, name, backoff, 1, open, token_of);
    tasks.spawn_until_shutdown(&format!("{name}-latest"), async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                event = events.recv() => match event {
                    Some(Event::Item(item)) => {
                        sender.send_replace(Some(item));
                    }
                    Some(Event::Opened { .. } | Event::Lost(_)) => {}
                    None => return,
                },
            }
        }
    });
    receiver
}

/// The token of a message: None when its service is of a release that gives none.
#[must_use]
pub fn token(resume_token: &str) -> Option<String> {
    (!resume_token.is_empty()).then(|| resume_token.to_owned())
}

struct Watch<T, K, Open, TokenOf> {
    name: String,
    backoff: Backoff,
    open: Open,
    token_of: TokenOf,
    token: Option<K>,
    sender: mpsc::Sender<Event<T>>,
}

/// Nobody reads the events any more.
struct Unread;

impl<T, K, S, Open, Fut, TokenOf> Watch<T, K, Open, TokenOf>
where
    K: Clone,
    S: Stream<Item = Result<T, Status>> + Unpin,
    Open: FnMut(Option<K>) -> Fut,
    Fut: Future<Output = Result<S, Status>>,
    TokenOf: Fn(&T) -> Option<K>,
{
    async fn run(mut self) {
        let sender = self.sender.clone();
        // Not only a failing send ends it: a quiet stream of a reader who left must end, too.
        tokio::select! {
            () = sender.closed() => {}
            _ = self.keep_open() => {}
        }
    }

    async fn keep_open(&mut self) -> Result<(), Unread> {
        loop {
            let status = match (self.open)(self.token.clone()).await {
                Ok(stream) => self.drain(stream).await?,
                Err(status) => status,
            };
            let too_old = status.code() == Code::OutOfRange && self.token.take().is_some();
            tracing::debug!(watch = %self.name, code = ?status.code(), reason = status.message(),
                attempt = self.backoff.attempt(), "stream is lost");
            self.tell(Event::Lost(status)).await?;
            if !too_old {
                self.backoff.wait().await;
            }
        }
    }

    /// Takes items until the stream ends; gives the status it ended with.
    async fn drain(&mut self, mut stream: S) -> Result<Status, Unread> {
        let resumed = self.token.is_some();
        self.tell(Event::Opened { resumed }).await?;
        loop {
            match stream.next().await {
                Some(Ok(item)) => {
                    self.backoff.reset();
                    if let Some(token) = (self.token_of)(&item) {
                        self.token = Some(token);
                    }
                    self.tell(Event::Item(item)).await?;
                }
                Some(Err(status)) => return Ok(status),
                None => return Ok(Status::unavailable("the stream ended")),
            }
        }
    }

    async fn tell(&mut self, event: Event<T>) -> Result<(), Unread> {
        self.sender.send(event).await.map_err(|_| Unread)
    }
}

#[cfg(test)]
mod tests;
