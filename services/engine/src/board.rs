//! What everybody may see of all applications: app tasks put their part up, report, endpoints and API read.

use std::collections::BTreeMap;
use std::sync::Arc;

use baetyl_model::name::{AppName, Version};
use baetyl_model::update::Update;
use baetyl_runtime_native::WorkloadKey;
use tokio::sync::watch;

use crate::ports::Progress;
use crate::shape::Shape;
use crate::store::Accepted;

/// One application as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct AppView {
    /// Where its update stands.
    pub update: Update,
    /// True for applications of the system.
    pub system: bool,
    /// Shapes of the versions that are being run, newest wish last.
    pub shapes: BTreeMap<Version, Shape>,
    /// Found on this machine without a record of it: it is left alone until a desire is accepted.
    pub lost: Vec<WorkloadKey>,
    /// How far staging got.
    pub progress: Option<Progress>,
    /// It is being removed.
    pub removing: bool,
    /// What keeps engine from going on, as a sentence; empty when nothing does.
    pub trouble: String,
}

impl AppView {
    /// Of an application of which nothing is known yet.
    pub fn new(update: Update) -> Self {
        Self {
            update,
            system: false,
            shapes: BTreeMap::new(),
            lost: Vec::new(),
            progress: None,
            removing: false,
            trouble: String::new(),
        }
    }

    /// Shape of the version that runs.
    pub fn running_shape(&self) -> Option<&Shape> {
        self.shapes.get(&self.update.running()?.version)
    }
}

/// All applications by name.
pub type Views = Arc<BTreeMap<AppName, Arc<AppView>>>;

/// The board; cheap to clone.
#[derive(Debug, Clone)]
pub struct Board {
    views: Arc<watch::Sender<Views>>,
    accepted: Arc<watch::Sender<Option<Accepted>>>,
}

impl Board {
    /// Empty, with what was accepted before the start.
    pub fn new(accepted: Option<Accepted>) -> Self {
        Self {
            views: Arc::new(watch::Sender::default()),
            accepted: Arc::new(watch::Sender::new(accepted)),
        }
    }

    /// Puts one application up; wakes nobody when nothing changed.
    pub fn put(&self, view: AppView) {
        let name = view.update.app().clone();
        self.views.send_if_modified(|views| {
            if views.get(&name).is_some_and(|old| **old == view) {
                return false;
            }
            Arc::make_mut(views).insert(name, Arc::new(view));
            true
        });
    }

    /// Takes one application down.
    pub fn remove(&self, name: &AppName) {
        self.views.send_if_modified(|views| Arc::make_mut(views).remove(name).is_some());
    }

    /// All applications now.
    pub fn views(&self) -> Views {
        Arc::clone(&self.views.borrow())
    }

    /// Wakes at every change.
    pub fn watch(&self) -> watch::Receiver<Views> {
        self.views.subscribe()
    }

    /// The desire engine acts on.
    pub fn accepted(&self) -> Option<Accepted> {
        self.accepted.borrow().clone()
    }

    /// Another desire is acted on from now on.
    pub fn accept(&self, accepted: Accepted) {
        self.accepted.send_replace(Some(accepted));
    }

    /// Wakes when another desire is acted on.
    pub fn watch_accepted(&self) -> watch::Receiver<Option<Accepted>> {
        self.accepted.subscribe()
    }
}
