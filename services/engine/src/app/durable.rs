//! States are on disk before anything is done for them.

use std::mem::discriminant;

use baetyl_model::update::{Effect, State, Update};
use tokio::time::Instant;

use super::{App, Retry};
use crate::ports::Ports;

impl<P: Ports> App<P> {
    /// Takes the next state.
    pub(super) fn advance(&mut self, next: Update) {
        let before = self.record.update.state();
        if discriminant(&before) != discriminant(&next.state()) {
            let entered = self.entered.replace(Instant::now());
            if let Some(entered) = entered {
                self.ctx.meters.left(before, entered.elapsed());
            }
        }
        self.unsaved |= differs_on_disk(&self.record.update, &next);
        self.record.update = next;
    }

    /// Makes the state durable, then does what is to be done.
    pub(super) async fn commit(&mut self) {
        if self.unsaved {
            self.record.prune();
            self.ctx
                .registry
                .set(self.record.update.app(), self.record.needs());
            if let Err(error) = self.ctx.store.persist_app(&self.record).await {
                self.try_again(Retry::Save, &baetyl_kit::error::chain(&error));
                return self.go_back_unsaved().await;
            }
            self.saved();
        }
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Stage { release, after } => self.begin_staging(release, after),
                Effect::Run { release } => self.begin_run(release).await,
                Effect::Ended { phase } => self.ended(phase).await,
            }
        }
    }

    /// The last good release does not wait for the disk: what runs now has failed, and perhaps nothing runs. Killed
    /// before the state is written, engine tries the release that failed once more and goes back again.
    async fn go_back_unsaved(&mut self) {
        if self.record.update.state() != (State::Applying { back: true }) {
            return;
        }
        let good = self.record.update.good().cloned();
        let back = |effect: &Effect| matches!(effect, Effect::Run { release } if Some(release) == good.as_ref());
        if let Some(at) = self.effects.iter().position(back)
            && let Some(Effect::Run { release }) = self.effects.remove(at)
        {
            self.begin_run(release).await;
        }
    }

    fn saved(&mut self) {
        self.unsaved = false;
        self.calm(Retry::Save);
    }
}

/// Whether two states differ in more than time. Attempts to stage and their reasons are not worth a write to flash.
fn differs_on_disk(old: &Update, new: &Update) -> bool {
    let state = |update: &Update| match update.state() {
        State::Staging { .. } => State::Staging { attempts: 0 },
        state => state,
    };
    let failure = |update: &Update| match update.state() {
        State::Staging { .. } => None,
        _ => update.failure().cloned(),
    };
    state(old) != state(new)
        || old.target() != new.target()
        || old.running() != new.running()
        || old.good() != new.good()
        || failure(old) != failure(new)
        || old.failures() != new.failures()
        || old.resumes() != new.resumes()
}
