//! The runtime as engine knows it: what is watched in the background, and everything it can be asked to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use baetyl_model::Digest;
use baetyl_model::report::{MachineStats, NodeInfo};
use baetyl_model::workload::{InstanceId, Observed, Usage, WorkloadKey};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ask;
use crate::client::Api;
use crate::config::{KubeConfig, OpenError};
use crate::error::KubeError;
use crate::logs::{LogPosition, LogStart};
use crate::machines;
use crate::object::Object;
use crate::observe::{self, Memory};
use crate::render::{Place, Rendered};
use crate::secrets::JobState;
use crate::usage::Meter;
use crate::watch as watching;
use crate::world::{Shared, Watch, What};

#[cfg(test)]
mod tests;

/// Changes that come in one burst are looked at once.
const BURST: Duration = Duration::from_millis(50);

/// Applications of this node as Pods; cheap to clone. What is watched ends with the token given to [`Self::open`], or
/// with the last clone.
#[derive(Clone)]
pub struct KubeRuntime(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    meter: Meter,
    views: Views,
    /// Ends what watches.
    _task: Task,
}

/// What every operation needs.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) api: Api,
    pub(crate) config: Arc<KubeConfig>,
    pub(crate) shared: Arc<Shared>,
}

/// What is told of what is watched.
struct Views {
    observed: watch::Receiver<Arc<Observed>>,
    machines: watch::Receiver<Arc<BTreeMap<String, NodeInfo>>>,
    version: watch::Receiver<Arc<str>>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for KubeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KubeRuntime({})", self.0.cluster.api.server())
    }
}

impl KubeRuntime {
    /// Finds the way to the API server and begins to watch. The API server need not answer: until it does,
    /// [`Observed::unknown`] says why.
    ///
    /// # Errors
    /// When there is no way: no service account, no usable kubeconfig.
    pub async fn open(config: KubeConfig, shutdown: CancellationToken) -> Result<Self, OpenError> {
        let api = Api::open(&config).await?;
        Ok(Self::over(api, config, shutdown))
    }

    pub(crate) fn over(api: Api, config: KubeConfig, shutdown: CancellationToken) -> Self {
        let cluster = Cluster {
            api,
            config: Arc::new(config),
            shared: Arc::default(),
        };
        let before = Observed {
            unknown: Some("the API server was not asked yet".to_owned()),
            ..Observed::default()
        };
        let (observed, observed_view) = watch::channel(Arc::new(before));
        let (machines, machines_view) = watch::channel(Arc::default());
        let (version, version_view) = watch::channel(Arc::from(""));
        let background = Background {
            cluster: cluster.clone(),
            watches: BTreeMap::new(),
            tasks: JoinSet::new(),
            observed,
            machines,
            version,
        };
        let task = tokio::spawn(shutdown.run_until_cancelled_owned(background.run()));
        Self(Arc::new(Inner {
            meter: Meter::new(cluster.clone()),
            cluster,
            views: Views {
                observed: observed_view,
                machines: machines_view,
                version: version_view,
            },
            _task: Task(task.abort_handle()),
        }))
    }

    /// What runs and how it does.
    pub fn watch(&self) -> watch::Receiver<Arc<Observed>> {
        self.0.views.observed.clone()
    }

    /// Applies the objects of a version. What was made from equal objects before is not touched.
    ///
    /// # Errors
    /// In Kubernetes' words, with the object; [`KubeError::is_later`] tells whether trying again helps. What was applied
    /// before the error stays applied.
    pub async fn apply(&self, rendered: &Rendered) -> Result<(), KubeError> {
        self.0.cluster.apply(rendered).await
    }

    /// Deletes the workload objects that carry the labels of a version and waits until its Pods are gone.
    ///
    /// # Errors
    /// When something cannot be deleted, or does not go in time.
    pub async fn stop(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        self.0.cluster.stop(key).await
    }

    /// Takes away what a Helm application installed, when that was its version installed last: a Job runs
    /// `helm uninstall` to its end. Nothing happens for all others.
    ///
    /// # Errors
    /// When Helm cannot, in its words; when the node has no image of Helm.
    pub async fn uninstall(&self, key: &WorkloadKey, place: &Place) -> Result<(), KubeError> {
        self.0.cluster.uninstall(key, place).await
    }

    /// Deletes everything that carries the labels of a version and waits until its Pods are gone. Releases of Helm are
    /// not among it: [`Self::uninstall`] takes them away, before.
    ///
    /// # Errors
    /// When something cannot be deleted, or does not go in time.
    pub async fn remove(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        self.0.cluster.remove(key).await
    }

    /// Ends and starts all Pods of a version, as `kubectl rollout restart` does: new ones first where the workload has
    /// them so. A Job begins from the start.
    ///
    /// # Errors
    /// When there is nothing to restart, or Kubernetes refuses it.
    pub async fn restart(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        self.0.cluster.restart(key).await
    }

    /// Every version there is something of in the cluster.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub async fn found(&self) -> Result<Vec<WorkloadKey>, KubeError> {
        self.0.cluster.found().await
    }

    /// Deletes the ConfigMaps and Secrets of versions of configurations and secrets that nobody needs.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub async fn sweep(&self, needed: &BTreeSet<Digest>) -> Result<(), KubeError> {
        self.0.cluster.sweep(needed).await
    }

    /// Lines of one container of a Pod (None: of all, each line with the container's name in front when there are
    /// several), and with `follow` what comes, also after the container was started again. Each piece has whole lines and
    /// the position after it. Ends with the Pod.
    pub fn logs(
        &self,
        instance: &InstanceId,
        container: Option<&str>,
        start: LogStart,
        follow: bool,
    ) -> BoxStream<'static, io::Result<(Bytes, LogPosition)>> {
        self.0.cluster.logs(instance, container, start, follow)
    }

    /// What each Pod uses, as far as anybody measures it.
    pub async fn usage(&self) -> BTreeMap<InstanceId, Usage> {
        self.0.meter.usage().await
    }

    /// The machines of the cluster, by name.
    pub fn machines(&self) -> watch::Receiver<Arc<BTreeMap<String, NodeInfo>>> {
        self.0.views.machines.clone()
    }

    /// Figures of each machine, as far as anybody measures them.
    pub async fn machine_stats(&self) -> Vec<MachineStats> {
        self.0.meter.machines().await
    }

    /// Version of Kubernetes, e.g. `v1.34.4`; empty until the API server has told it.
    pub fn version(&self) -> watch::Receiver<Arc<str>> {
        self.0.views.version.clone()
    }

    /// The content of a Secret; None: there is none of that name.
    ///
    /// # Errors
    /// When the API server does not answer or refuses it.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, KubeError> {
        self.0.cluster.secret(namespace, name).await
    }

    /// Makes a Secret have this content and these labels, besides those of ours; what is as it should be is not written.
    /// Values of keys that others of ours wrote are replaced.
    ///
    /// # Errors
    /// When there is one of that name that is not ours, or Kubernetes refuses it.
    pub async fn put_secret(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, Vec<u8>>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), KubeError> {
        let secrets = &self.0.cluster;
        secrets.put_secret(namespace, name, data, labels).await
    }

    /// Deletes a Secret of ours; that there is none is fine.
    ///
    /// # Errors
    /// When it is not ours, or Kubernetes refuses it.
    pub async fn delete_secret(&self, namespace: &str, name: &str) -> Result<(), KubeError> {
        self.0.cluster.delete_secret(namespace, name).await
    }

    /// How a Job does; None: there is none of that name.
    ///
    /// # Errors
    /// When the API server does not answer or refuses it.
    pub async fn job(&self, namespace: &str, name: &str) -> Result<Option<JobState>, KubeError> {
        self.0.cluster.job(namespace, name).await
    }

    /// What the newest Pod of a namespace with these labels waits for or died of, in Kubernetes' words; None: nothing is
    /// told of.
    ///
    /// # Errors
    /// When the API server does not answer or refuses it.
    pub async fn trouble(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Option<String>, KubeError> {
        self.0.cluster.trouble(namespace, selector).await
    }

    /// Applies one object as [`Self::apply`] does: a Job that is other than before is deleted and made anew.
    ///
    /// # Errors
    /// In Kubernetes' words, with the object.
    pub async fn put(&self, object: &Object) -> Result<(), KubeError> {
        let put = self.0.cluster.put(object, None).await;
        put.map_err(|error| error.about(object))
    }

    /// Deletes a Job of ours and its Pods, and waits until they are gone; that there is none is fine.
    ///
    /// # Errors
    /// When it is not ours, does not go in time, or Kubernetes refuses it.
    pub async fn delete_job(&self, namespace: &str, name: &str) -> Result<(), KubeError> {
        self.0.cluster.delete_job(namespace, name).await
    }
}

/// What goes on all the time.
struct Background {
    cluster: Cluster,
    watches: BTreeMap<Watch, AbortHandle>,
    tasks: JoinSet<()>,
    observed: watch::Sender<Arc<Observed>>,
    machines: watch::Sender<Arc<BTreeMap<String, NodeInfo>>>,
    version: watch::Sender<Arc<str>>,
}

impl Background {
    async fn run(mut self) {
        let mut changes = self.cluster.shared.changes();
        let mut memory = Memory::default();
        let machines = Watch {
            what: What::Machines,
            namespace: String::new(),
        };
        self.begin(machines.clone(), false);
        self.spread(&BTreeSet::new());
        let version = self.version.clone();
        self.tasks
            .spawn(machines::tell_version(self.cluster.clone(), version));
        self.tasks.spawn(ask::ask(self.cluster.clone()));
        loop {
            changes.mark_unchanged();
            let now = Instant::now();
            let look = {
                let world = self.cluster.shared.look();
                self.tell_machines(&world);
                let server = self.cluster.api.server();
                observe::observe(&world, &self.cluster.config, server, &mut memory, now)
            };
            self.tell(look.observed);
            self.spread(&look.namespaces);
            let wake = look.again.map(|again| again.max(now + BURST));
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
                Some(ended) = self.tasks.join_next() => {
                    // Watches go on for ever; one that was stopped is told of as cancelled.
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a watch of the Kubernetes API broke down");
                    }
                }
            }
            sleep(BURST).await;
        }
    }

    fn tell(&self, observed: Observed) {
        self.observed.send_if_modified(|before| {
            let changed = **before != observed;
            if changed {
                *before = Arc::new(observed);
            }
            changed
        });
    }

    fn tell_machines(&self, world: &crate::world::World) {
        let infos = machines::infos(world);
        self.machines.send_if_modified(|before| {
            let changed = **before != infos;
            if changed {
                *before = Arc::new(infos);
            }
            changed
        });
    }

    /// Watches our namespaces and these, and no others.
    fn spread(&mut self, foreign: &BTreeSet<String>) {
        let ours = self.cluster.config.namespaces().map(str::to_owned);
        for namespace in ours.iter().chain(foreign) {
            for what in What::OF_NAMESPACE {
                let watch = Watch {
                    what,
                    namespace: namespace.clone(),
                };
                if !self.watches.contains_key(&watch) {
                    self.begin(watch, ours.contains(namespace));
                }
            }
        }
        let wanted = |watch: &Watch| {
            watch.namespace.is_empty()
                || ours.contains(&watch.namespace)
                || foreign.contains(&watch.namespace)
        };
        let shared = &self.cluster.shared;
        self.watches.retain(|watch, task| {
            let keep = wanted(watch);
            if !keep {
                task.abort();
                shared.end(watch);
            }
            keep
        });
    }

    fn begin(&mut self, watch: Watch, ours: bool) {
        let (api, shared) = (self.cluster.api.clone(), self.cluster.shared.clone());
        let task = watching::watch(api, watch.clone(), ours, shared);
        let task = self.tasks.spawn(task);
        self.watches.insert(watch, task);
    }
}
