//! Sync's content store as a test wants it: what the cloud has, what is staged, whether anybody can be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use baetyl_kit::tasks::Tasks;
use baetyl_model::Digest;
use baetyl_model::desire::{ObjectRef, ResourceRef};
use tokio::sync::{mpsc, watch};

use super::Release;
use crate::ports::{CloudEvent, Content, ContentError, ContentEvent, Progress};

#[derive(Debug, Default)]
struct State {
    cloud: BTreeMap<Digest, Vec<u8>>,
    staged: BTreeMap<Digest, Vec<u8>>,
    /// Staging any of these waits until it is let go.
    held: BTreeSet<Digest>,
    failing: Option<ContentError>,
    stages: usize,
    pins: Option<BTreeSet<Digest>>,
    key: Option<[u8; 32]>,
    events: Vec<CloudEvent>,
    watchers: Vec<mpsc::Sender<ContentEvent>>,
    dir: PathBuf,
}

/// The fake; cheap to clone, clones are one.
#[derive(Debug, Clone)]
pub(crate) struct FakeContent {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

impl FakeContent {
    pub(crate) fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let state = State {
            dir,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.send_modify(|count| *count += 1);
    }

    /// The cloud has it from now on.
    pub(crate) fn publish(&self, release: &Release) {
        self.change(|state| state.cloud.extend(release.bytes.clone()));
    }

    /// Staging this release does not end until it is let go.
    pub(crate) fn hold(&self, release: &Release) {
        self.change(|state| state.held.extend(release.bytes.keys()));
    }

    /// Staging these large files does not end until they are let go.
    pub(crate) fn hold_objects(&self, release: &Release) {
        let objects = release.desired.objects.iter();
        self.change(|state| state.held.extend(objects.map(|object| object.digest)));
    }

    pub(crate) fn let_go(&self) {
        self.change(|state| state.held.clear());
    }

    /// Staging fails with this from now on; None: it works.
    pub(crate) fn fail(&self, failing: Option<ContentError>) {
        self.change(|state| state.failing = failing);
    }

    /// Everything that was staged is gone: the data directory was emptied.
    pub(crate) fn lose_everything(&self) {
        self.change(|state| {
            state.staged.clear();
            state.pins = None;
            state.key = None;
        });
    }

    /// The link came up (or went down).
    pub(crate) fn tell(&self, event: ContentEvent) {
        let watchers = self.state.lock().unwrap().watchers.clone();
        for watcher in watchers {
            let _ = watcher.try_send(event);
        }
    }

    /// Sync has it on disk.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.state.lock().unwrap().staged.contains_key(digest)
    }

    pub(crate) fn stages(&self) -> usize {
        self.state.lock().unwrap().stages
    }

    pub(crate) fn pins(&self) -> Option<BTreeSet<Digest>> {
        self.state.lock().unwrap().pins.clone()
    }

    pub(crate) fn key(&self) -> Option<[u8; 32]> {
        self.state.lock().unwrap().key
    }

    pub(crate) fn events(&self) -> Vec<CloudEvent> {
        self.state.lock().unwrap().events.clone()
    }
}

impl Content for FakeContent {
    async fn stage(
        &self,
        resources: Vec<ResourceRef>,
        objects: Vec<ObjectRef>,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<(), ContentError> {
        let digests: Vec<Digest> = resources
            .iter()
            .map(|reference| reference.digest)
            .chain(objects.iter().map(|object| object.digest))
            .collect();
        self.change(|state| state.stages += 1);
        progress(Progress {
            items_total: 1,
            ..Progress::default()
        });
        let mut changed = self.changed.subscribe();
        let free = |state: &State| !digests.iter().any(|digest| state.held.contains(digest));
        loop {
            changed.borrow_and_update();
            if free(&self.state.lock().unwrap()) {
                break;
            }
            changed.changed().await.unwrap();
        }
        let mut state = self.state.lock().unwrap();
        if let Some(error) = &state.failing {
            return Err(error.clone());
        }
        for digest in digests {
            let Some(bytes) = state.cloud.get(&digest).cloned() else {
                return Err(ContentError::Later(format!(
                    "the cloud is not reachable and {digest} is missing"
                )));
            };
            state.staged.insert(digest, bytes);
        }
        Ok(())
    }

    async fn set_pins(&self, digests: Vec<Digest>) -> Result<(), ContentError> {
        self.change(|state| state.pins = Some(digests.into_iter().collect()));
        Ok(())
    }

    async fn trust_app_key(&self, key: [u8; 32]) -> Result<(), ContentError> {
        let failing = self.state.lock().unwrap().failing.clone();
        failing.map_or(Ok(()), Err)?;
        self.change(|state| state.key = Some(key));
        Ok(())
    }

    async fn read_resource(&self, digest: &Digest) -> Result<Vec<u8>, ContentError> {
        let state = self.state.lock().unwrap();
        state
            .staged
            .get(digest)
            .cloned()
            .ok_or_else(|| ContentError::Later("it is not staged".to_owned()))
    }

    async fn open_object(&self, digest: &Digest, _: &Path) -> Result<PathBuf, ContentError> {
        let state = self.state.lock().unwrap();
        let path = state.dir.join(digest.hex());
        std::fs::write(&path, &state.staged[digest]).unwrap();
        Ok(path)
    }

    async fn put_event(&self, event: &CloudEvent) -> Result<(), ContentError> {
        self.change(|state| state.events.push(event.clone()));
        Ok(())
    }

    fn watch(&self, _: &Tasks) -> mpsc::Receiver<ContentEvent> {
        let (sender, receiver) = mpsc::channel(16);
        sender.try_send(ContentEvent::Opened).unwrap();
        self.state.lock().unwrap().watchers.push(sender);
        receiver
    }
}
