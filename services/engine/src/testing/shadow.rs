//! Node's shadow as a test wants it.

use std::sync::{Arc, Mutex};

use baetyl_kit::tasks::Tasks;
use baetyl_model::name::{Epoch, Generation};
use baetyl_model::report::AppStatus;
use baetyl_model::{Desire, NodeStats, NodeStatus};
use baetyl_proto::shadow as wire;
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use super::Release;
use crate::ports::{Shadow, ShadowError, ShadowEvent};

#[derive(Debug, Default)]
struct State {
    statuses: Vec<NodeStatus>,
    stats: Vec<NodeStats>,
    keys: Vec<[u8; 32]>,
    refusing: bool,
}

/// The fake; cheap to clone, clones are one.
#[derive(Debug, Clone)]
pub(crate) struct FakeShadow {
    state: Arc<Mutex<State>>,
    /// What node says; None: it is not there.
    says: Arc<watch::Sender<Option<Option<Vec<u8>>>>>,
}

impl FakeShadow {
    /// A node that knows no desire.
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            says: Arc::new(watch::Sender::new(Some(None))),
        }
    }

    /// Node accepted a desire for these releases.
    pub(crate) fn desire(&self, generation: u64, releases: &[&Release]) {
        let mut desire = Desire {
            namespace: "default".try_into().unwrap(),
            node_name: "edge-1".try_into().unwrap(),
            node_uid: "uid-1".try_into().unwrap(),
            epoch: Epoch(0),
            generation: Generation(generation),
            digest: super::digest(b""),
            apps: releases
                .iter()
                .map(|release| release.desired.clone())
                .collect(),
            node_properties: Default::default(),
            core: None,
        };
        desire.sort();
        let desire = baetyl_proto::digest::complete_desire(desire);
        self.says
            .send_replace(Some(Some(wire::Desire::from(desire).encode_to_vec())));
    }

    /// Node says these bytes.
    pub(crate) fn say(&self, payload: Vec<u8>) {
        self.says.send_replace(Some(Some(payload)));
    }

    /// Node was restarted with an emptied directory.
    pub(crate) fn forget(&self) {
        self.says.send_replace(Some(None));
    }

    /// Node is away.
    pub(crate) fn leave(&self) {
        self.says.send_replace(None);
    }

    /// Node takes no reports.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.state.lock().unwrap().refusing = refusing;
    }

    pub(crate) fn status(&self) -> NodeStatus {
        self.state
            .lock()
            .unwrap()
            .statuses
            .last()
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn statuses(&self) -> Vec<NodeStatus> {
        self.state.lock().unwrap().statuses.clone()
    }

    pub(crate) fn stats(&self) -> Vec<NodeStats> {
        self.state.lock().unwrap().stats.clone()
    }

    pub(crate) fn keys(&self) -> Vec<[u8; 32]> {
        self.state.lock().unwrap().keys.clone()
    }

    /// The newest status of one application.
    pub(crate) fn app(&self, name: &str) -> Option<AppStatus> {
        self.status().apps.get(name).cloned()
    }

    /// `<phase> <version that runs>` of one application, e.g. `Healthy 7`.
    pub(crate) fn phase(&self, name: &str) -> String {
        let Some(app) = self.app(name) else {
            return String::new();
        };
        let phase = app.phase.map_or("", |phase| phase.as_str());
        let version = app
            .version
            .map_or_else(String::new, |version| version.to_string());
        format!("{phase} {version}")
    }
}

impl Shadow for FakeShadow {
    fn watch(&self, tasks: &Tasks) -> mpsc::Receiver<ShadowEvent> {
        let (sender, receiver) = mpsc::channel(16);
        let mut says = self.says.subscribe();
        tasks.spawn_until_shutdown("fake-shadow", async move {
            let mut open = false;
            loop {
                let said = says.borrow_and_update().clone();
                if let Some(desire) = said {
                    if !open && sender.send(ShadowEvent::Opened).await.is_err() {
                        return;
                    }
                    open = true;
                    if sender.send(ShadowEvent::Desire(desire)).await.is_err() {
                        return;
                    }
                } else {
                    open = false;
                }
                if says.changed().await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    async fn put_report(
        &self,
        status: Option<NodeStatus>,
        stats: Option<NodeStats>,
    ) -> Result<(), ShadowError> {
        let mut state = self.state.lock().unwrap();
        if state.refusing {
            return Err(ShadowError("node is away".to_owned()));
        }
        state.statuses.extend(status);
        state.stats.extend(stats);
        Ok(())
    }

    async fn trust_app_key(&self, key: [u8; 32]) -> Result<(), ShadowError> {
        let mut state = self.state.lock().unwrap();
        if state.refusing {
            return Err(ShadowError("node is away".to_owned()));
        }
        state.keys.push(key);
        Ok(())
    }
}
