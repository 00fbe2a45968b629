//! Pins and garbage: tells sync what must stay and whose tickets count, and removes engine's own copies of what nobody
//! needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use baetyl_kit::backoff::Backoff;
use baetyl_model::Digest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::ports::{Content as _, ContentError, ContentEvent, Ports, Runtime as _};

/// What the task is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Declare what is needed now; answer when sync knows.
    Declare(oneshot::Sender<Result<(), ContentError>>),
    /// Something is no longer needed.
    Sweep,
}

/// Where the task is asked; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Housekeeping(mpsc::Sender<Ask>);

impl Housekeeping {
    /// The asking end and the task's.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    /// Returns when sync knows everything that is registered now.
    pub(crate) async fn declare(&self) -> Result<(), ContentError> {
        let stopping = || ContentError::Later("engine is stopping".to_owned());
        let (sender, receiver) = oneshot::channel();
        self.0
            .send(Ask::Declare(sender))
            .await
            .map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }

    /// Says that something is no longer needed. A full queue holds such a word already.
    pub(crate) fn sweep(&self) {
        let _ = self.0.try_send(Ask::Sweep);
    }
}

struct Keeper<P: Ports> {
    ctx: Arc<Context<P>>,
    /// What sync was told last; None: it may have forgotten.
    declared: Option<BTreeSet<Digest>>,
    /// Sync knows the key of tickets; it keeps it in memory only.
    key_told: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

/// Runs until the queue is closed.
pub(crate) async fn keep<P: Ports>(ctx: Arc<Context<P>>, mut asked: mpsc::Receiver<Ask>) {
    let mut events = ctx.content.watch(&ctx.tasks);
    let mut keeper = Keeper {
        ctx,
        declared: None,
        key_told: false,
        retry_at: None,
        backoff: Backoff::local(),
    };
    loop {
        let retry_at = keeper.retry_at;
        tokio::select! {
            ask = asked.recv() => match ask {
                Some(Ask::Declare(reply)) => {
                    let declared = keeper.declare().await;
                    let _ = reply.send(declared);
                }
                Some(Ask::Sweep) => keeper.sweep().await,
                None => return,
            },
            Some(event) = events.recv() => keeper.note(event).await,
            () = async { sleep_until(retry_at.unwrap_or_else(Instant::now)).await }, if retry_at.is_some() => {
                keeper.retry_at = None;
                keeper.redeclare().await;
            }
        }
    }
}

impl<P: Ports> Keeper<P> {
    async fn note(&mut self, event: ContentEvent) {
        match event {
            ContentEvent::Opened => {
                self.declared = None;
                self.key_told = false;
                self.redeclare().await;
            }
            ContentEvent::Online(online) => {
                self.ctx
                    .online
                    .send_if_modified(|known| std::mem::replace(known, online) != online);
            }
        }
    }

    async fn declare(&mut self) -> Result<(), ContentError> {
        let needed = self.ctx.registry.union();
        // After the loss of our own records nothing is known: what sync keeps for us must stay.
        let ignorant = needed.is_empty() && self.ctx.board.accepted().is_none();
        if ignorant || self.declared.as_ref() == Some(&needed) {
            return Ok(());
        }
        self.declared = None;
        self.ctx
            .content
            .set_pins(needed.iter().copied().collect())
            .await?;
        self.declared = Some(needed);
        self.backoff.reset();
        Ok(())
    }

    async fn tell_key(&mut self) -> Result<(), ContentError> {
        if !self.key_told {
            let key = self.ctx.tokens.public_key();
            self.ctx.content.trust_app_key(key).await?;
            self.key_told = true;
        }
        Ok(())
    }

    async fn redeclare(&mut self) {
        let told = self.tell_key().await;
        if let Err(error) = self.declare().await.and(told) {
            tracing::debug!(%error, "sync could not be told what is needed, or the key of tickets");
            self.retry_at = Some(Instant::now() + self.backoff.next_delay());
        }
    }

    /// Whether everything that runs is in our own records: what an application needs that has none is not known.
    fn knows_all(&self) -> bool {
        let board = &self.ctx.board;
        board.accepted().is_some() && board.views().values().all(|view| view.lost.is_empty())
    }

    async fn sweep(&mut self) {
        self.redeclare().await;
        if let Err(error) = self.ctx.store.retain_bodies(&self.ctx.registry).await {
            tracing::warn!(
                error = baetyl_kit::error::chain(&error),
                "stored bodies could not be removed"
            );
        }
        let (objects, registry) = (self.ctx.objects.clone(), self.ctx.registry.clone());
        let swept = tokio::task::spawn_blocking(move || objects.retain(&registry)).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(%error, "objects could not be removed");
        }
        if self.knows_all()
            && let Err(error) = self.ctx.runtime.sweep(self.ctx.registry.union()).await
        {
            tracing::warn!(%error, "the runtime could not remove what nobody needs");
        }
    }
}
