//! Pins and garbage: tells sync what must stay and whose tickets count, has it fetch again what it lost, and removes
//! engine's own copies of what nobody needs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_model::Digest;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::ports::{Content as _, ContentError, ContentEvent, Ports, Runtime};

#[cfg(test)]
mod tests;

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
    /// Sync may have lost what Pods fetch from it, and is not asked to fetch it again yet.
    suspect: bool,
    /// True once what ran before the start was taken up again.
    adopted: watch::Receiver<bool>,
    /// What asks it.
    restoring: Option<BoxFuture<'static, ()>>,
}

/// Runs until the queue is closed.
pub(crate) async fn keep<P: Ports>(
    ctx: Arc<Context<P>>,
    mut asked: mpsc::Receiver<Ask>,
    adopted: watch::Receiver<bool>,
) {
    let mut events = ctx.content.watch(&ctx.tasks);
    let mut keeper = Keeper {
        ctx,
        declared: None,
        key_told: false,
        retry_at: None,
        backoff: Backoff::local(),
        suspect: false,
        adopted,
        restoring: None,
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
            () = restored(&mut keeper.restoring) => keeper.restoring = None,
            () = async { sleep_until(retry_at.unwrap_or_else(Instant::now)).await }, if retry_at.is_some() => {
                keeper.retry_at = None;
                keeper.redeclare().await;
            }
        }
    }
}

async fn restored(restoring: &mut Option<BoxFuture<'static, ()>>) {
    match restoring {
        Some(restoring) => restoring.await,
        None => std::future::pending().await,
    }
}

/// Has sync hold the objects of every version that may run; what it holds costs nothing. It may have lost its volume,
/// and a Pod on a machine without them has nobody else to ask. Tries until it has them or says that it never will.
pub(crate) async fn restore<P: Ports>(ctx: Arc<Context<P>>, mut adopted: watch::Receiver<bool>) {
    // Before that nobody has said what is needed.
    if adopted.wait_for(|adopted| *adopted).await.is_err() {
        return;
    }
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));
    let mut wanted = ctx.registry.objects();
    while !wanted.is_empty() {
        let mut left = BTreeSet::new();
        for (app, objects) in wanted {
            match ctx.content.stage(Vec::new(), objects, |_| ()).await {
                Ok(()) => {}
                Err(error) if error.is_permanent() => {
                    tracing::warn!(%error, %app, "sync does not hold the objects of an application any more: its Pods start only where they were before");
                }
                Err(error) => {
                    tracing::debug!(%error, %app, "sync is asked again for the objects of an application");
                    left.insert(app);
                }
            }
        }
        if !left.is_empty() {
            backoff.wait().await;
        }
        wanted = ctx.registry.objects();
        wanted.retain(|app, _| left.contains(app));
    }
}

impl<P: Ports> Keeper<P> {
    async fn note(&mut self, event: ContentEvent) {
        match event {
            ContentEvent::Opened => {
                self.declared = None;
                self.key_told = false;
                self.suspect = !<P::Runtime as Runtime>::TAKES_OBJECTS;
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
        } else if std::mem::take(&mut self.suspect) {
            // After the pins: what is fetched is not thrown away again.
            let restoring = restore(Arc::clone(&self.ctx), self.adopted.clone());
            self.restoring = Some(Box::pin(restoring));
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
