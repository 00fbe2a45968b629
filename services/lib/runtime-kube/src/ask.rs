//! Objects of kinds that nothing watches, and those in namespaces of others that may not be watched: each is asked for
//! once in a while.

use tokio::time::{Duration, sleep};

use crate::apply::applier_in;
use crate::ledger::Unwatched;
use crate::runtime::Cluster;

/// How often each is asked for,
const ROUND: Duration = Duration::from_secs(600);
/// but never more than two requests a minute for all of them.
const PAUSE: Duration = Duration::from_secs(30);
/// How often it is looked whether there are any.
const LOOK: Duration = Duration::from_secs(60);

/// Asks for ever; ends when it is dropped.
pub(crate) async fn ask(cluster: Cluster) {
    loop {
        let unwatched = cluster.shared.look().unwatched();
        let Ok(count @ 1..) = u32::try_from(unwatched.len()) else {
            sleep(LOOK).await;
            continue;
        };
        let pause = (ROUND / count).max(PAUSE);
        for object in unwatched {
            sleep(pause).await;
            cluster.ask_for(&object).await;
        }
    }
}

impl Cluster {
    async fn ask_for(&self, object: &Unwatched) {
        let user = object.authored.then(|| applier_in(&object.namespace));
        match self.api.meta(&object.path, user.as_deref()).await {
            Ok(live) => self
                .shared
                .found(object, live.map(|live| live.managed_fields)),
            // It is asked for again.
            Err(error) => tracing::debug!(%error, path = object.path, "cannot be looked at"),
        }
    }
}
