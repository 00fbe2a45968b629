//! What everybody may see of all applications: app tasks put their part up, report, endpoints and API read.

use std::collections::BTreeMap;
use std::sync::Arc;

use baetyl_model::NodeStatus;
use baetyl_model::name::{AppName, Version};
use baetyl_model::update::Update;
use baetyl_model::workload::WorkloadKey;
use tokio::sync::watch;

use crate::ports::{Progress, Remark};
use crate::shape::Shape;
use crate::store::Accepted;

/// One application as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AppView {
    /// Where its update stands.
    pub(crate) update: Update,
    /// True for applications of the system.
    pub(crate) system: bool,
    /// Shapes of the versions that are being run, newest wish last.
    pub(crate) shapes: BTreeMap<Version, Shape>,
    /// Found on this machine without a record of it: it is left alone until a desire is accepted.
    pub(crate) lost: Vec<WorkloadKey>,
    /// How far staging got.
    pub(crate) progress: Option<Progress>,
    /// It is being removed.
    pub(crate) removing: bool,
    /// What keeps engine from going on, as a sentence; empty when nothing does.
    pub(crate) trouble: String,
}

impl AppView {
    /// Shape of the version that runs.
    pub(crate) fn running_shape(&self) -> Option<&Shape> {
        self.shapes.get(&self.update.running()?.version)
    }
}

/// All applications by name.
pub(crate) type Views = Arc<BTreeMap<AppName, Arc<AppView>>>;

/// The board; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    views: Arc<watch::Sender<Views>>,
    accepted: Arc<watch::Sender<Option<Accepted>>>,
    rolled: Arc<watch::Sender<Arc<NodeStatus>>>,
    remark: Arc<watch::Sender<Option<Remark>>>,
}

impl Board {
    /// Empty, with what was accepted before the start.
    pub(crate) fn new(accepted: Option<Accepted>) -> Self {
        Self {
            views: Arc::new(watch::Sender::default()),
            accepted: Arc::new(watch::Sender::new(accepted)),
            rolled: Arc::new(watch::Sender::default()),
            remark: Arc::new(watch::Sender::default()),
        }
    }

    /// Puts one application up; wakes nobody when nothing changed.
    pub(crate) fn put(&self, view: AppView) {
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
    pub(crate) fn remove(&self, name: &AppName) {
        self.views
            .send_if_modified(|views| Arc::make_mut(views).remove(name).is_some());
    }

    /// All applications now.
    pub(crate) fn views(&self) -> Views {
        Arc::clone(&self.views.borrow())
    }

    /// Wakes at every change.
    pub(crate) fn watch(&self) -> watch::Receiver<Views> {
        self.views.subscribe()
    }

    /// The desire engine acts on.
    pub(crate) fn accepted(&self) -> Option<Accepted> {
        self.accepted.borrow().clone()
    }

    /// Another desire is acted on from now on.
    pub(crate) fn accept(&self, accepted: Accepted) {
        self.accepted.send_replace(Some(accepted));
    }

    /// Wakes when another desire is acted on.
    pub(crate) fn watch_accepted(&self) -> watch::Receiver<Option<Accepted>> {
        self.accepted.subscribe()
    }

    /// What is to be told about the core services of this node; wakes nobody when nothing changed.
    #[cfg(feature = "kube")]
    pub(crate) fn remark(&self, remark: Option<Remark>) {
        self.remark.send_if_modified(|before| {
            let changed = *before != remark;
            *before = remark;
            changed
        });
    }

    /// What is to be told about the core services of this node; wakes at every change.
    pub(crate) fn watch_remark(&self) -> watch::Receiver<Option<Remark>> {
        self.remark.subscribe()
    }

    /// The status that was rolled up last: it knows since when conditions hold.
    pub(crate) fn rolled(&self) -> Arc<NodeStatus> {
        Arc::clone(&self.rolled.borrow())
    }

    /// A status was rolled up.
    pub(crate) fn roll(&self, status: Arc<NodeStatus>) {
        self.rolled.send_replace(status);
    }
}
