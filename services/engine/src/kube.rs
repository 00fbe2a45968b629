//! The runtime port over [`baetyl_runtime_kube`], and what engine does for the core Pods of its cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baetyl_callers::connect;
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::tls::{Credentials, ServiceIdentity};
use baetyl_kit::{CancellationToken, Kit};
use baetyl_model::Digest;
use baetyl_model::name::{AppName, ServiceName, Version};
use baetyl_model::report::{MachineStats, RunMode};
use baetyl_model::upgrade::JOB;
use baetyl_model::workload::{InstanceId, Observed, Usage, WHOLE, WorkloadKey};
use baetyl_proto::callers::Role;
use baetyl_runtime_kube::render::{Node, Place, Request};
use baetyl_runtime_kube::{self as kube, KubeConfig, KubeError, KubeRuntime, Rendered, names};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;

use crate::Error;
use crate::config::Config;
use crate::ports::{LogError, LogPosition, LogStart, Machines, Remark, Runtime, RuntimeError};
use crate::release::{Contents, Handed, Resolved, SYSTEM_NAMESPACE, namespace_of};
use crate::shape::Shape;

pub(crate) mod core;
mod identity;
pub(crate) mod mirror;
pub(crate) mod secrets;
#[cfg(test)]
mod testing;
mod upgrade;

use identity::AppIdentity;
use secrets::{Data, Secrets};

/// Pods of a cluster; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Kube {
    runtime: KubeRuntime,
    place: Arc<Place>,
}

/// One version of an application, ready to be applied.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    rendered: Rendered,
    identity: AppIdentity,
}

impl Kube {
    /// Finds the way to the API server, which need not answer.
    pub(crate) async fn open(
        config: &Config,
        shutdown: CancellationToken,
    ) -> Result<Self, kube::OpenError> {
        let settings = &config.kube;
        let access = KubeConfig {
            kubeconfig: settings.kubeconfig.clone(),
            context: settings.context.clone(),
            ..KubeConfig::default()
        };
        let place = Place {
            sync_image: settings.sync_image.clone().unwrap_or_default(),
            helm_image: settings.helm_image.clone().unwrap_or_default(),
            init_image: settings.init_image.clone().unwrap_or_default(),
            runtimes: config.runtime_images(),
            devices: settings.devices.clone(),
            pull_secrets: settings.pull_secrets.clone(),
            ..Place::default()
        };
        Ok(Self {
            runtime: KubeRuntime::open(access, shutdown).await?,
            place: Arc::new(place),
        })
    }

    /// Waits until the API server answers, when what failed may pass with that.
    async fn until_known(&self) {
        let mut watch = self.runtime.watch();
        // An error: engine is stopping, and whoever waits is dropped.
        let _ = watch.wait_for(|observed| observed.unknown.is_none()).await;
    }

    /// Tries until the API server has answered. What it refuses stays refused.
    async fn answered<T, F>(&self, ask: impl Fn() -> F + Send) -> Result<T, RuntimeError>
    where
        F: Future<Output = Result<T, KubeError>> + Send,
    {
        let mut backoff = baetyl_kit::backoff::Backoff::local();
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_later() => {
                    tracing::debug!(%error, "the API server is asked again");
                    self.until_known().await;
                    backoff.wait().await;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    async fn put_identity(&self, workload: &Workload) -> Result<(), KubeError> {
        let key = &workload.rendered.key;
        let (namespace, name) = (key.namespace.as_str(), names::identity(key.app.as_str()));
        let held = self.runtime.secret(namespace, &name).await?;
        let Some(data) = workload.identity.next(held.as_ref()).or(held) else {
            return Ok(());
        };
        // Also when only the version in its labels is another: what belongs to the one before is removed.
        let mut labels = names::labels(key.app.as_str(), key.version.as_str());
        let chart = workload.rendered.helm_namespace();
        labels.extend(chart.map(|chart| (names::HELM_NAMESPACE.to_owned(), chart.to_owned())));
        self.runtime
            .put_secret(namespace, &name, &data, &labels)
            .await
    }
}

fn failed(error: &KubeError) -> RuntimeError {
    RuntimeError::Failed(error.to_string())
}

impl Secrets for Kube {
    async fn get(&self, namespace: &str, name: &str) -> Result<Option<Data>, RuntimeError> {
        let asked = self.runtime.secret(namespace, name).await;
        asked.map_err(|error| failed(&error))
    }

    async fn put(
        &self,
        namespace: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        data: &Data,
    ) -> Result<(), RuntimeError> {
        let put = self.runtime.put_secret(namespace, name, data, labels).await;
        put.map_err(|error| failed(&error))
    }

    async fn remove(&self, namespace: &str, name: &str) -> Result<(), RuntimeError> {
        let removed = self.runtime.delete_secret(namespace, name).await;
        removed.map_err(|error| failed(&error))
    }
}

impl upgrade::Jobs for Kube {
    async fn job(&self) -> Result<Option<kube::JobState>, RuntimeError> {
        let job = self.runtime.job(SYSTEM_NAMESPACE, JOB).await;
        job.map_err(|error| failed(&error))
    }

    async fn trouble(&self) -> Result<Option<String>, RuntimeError> {
        let selector = format!("batch.kubernetes.io/job-name={JOB}");
        let trouble = self.runtime.trouble(SYSTEM_NAMESPACE, &selector).await;
        trouble.map_err(|error| failed(&error))
    }

    async fn start(&self, job: kube::Object) -> Result<(), RuntimeError> {
        let started = self.runtime.put(&job).await;
        started.map_err(|error| failed(&error))
    }

    async fn delete(&self) -> Result<(), RuntimeError> {
        let deleted = self.runtime.delete_job(SYSTEM_NAMESPACE, JOB).await;
        deleted.map_err(|error| failed(&error))
    }
}

fn identity(contents: &Contents<'_>) -> Result<AppIdentity, String> {
    let app = &contents.release.app.name;
    let namespace = namespace_of(contents.release.system);
    let own = contents.release.objects.iter().map(|object| object.digest);
    let named = identity::objects_of_ticket(own.collect(), contents.reachable);
    let ticket = contents
        .tokens
        .ticket(app.as_str(), named, contents.taken_at);
    let certificates = contents.authority.issue_app(app, &namespace);
    Ok(AppIdentity {
        // All Pods of an application are one to the core services: which of them calls is nobody's business.
        token: contents
            .tokens
            .issue(app.as_str(), "", "", contents.taken_at),
        ticket: ticket.map_err(|error| error.to_string())?,
        certificates: certificates.map_err(|error| baetyl_kit::error::chain(&error))?,
    })
}

impl Runtime for Kube {
    type Workload = Workload;
    type Seen = Arc<Observed>;

    const IN_PLACE: bool = true;
    const MODE: RunMode = RunMode::Kube;
    const TAKES_OBJECTS: bool = false;

    fn key(workload: &Workload) -> &WorkloadKey {
        &workload.rendered.key
    }

    fn key_of(
        &self,
        app: &AppName,
        system: bool,
        version: &Version,
        _: &str,
    ) -> Option<WorkloadKey> {
        Some(WorkloadKey {
            namespace: namespace_of(system),
            app: app.clone(),
            version: version.clone(),
            service: ServiceName::new(WHOLE).ok()?,
        })
    }

    fn resolve(
        &self,
        contents: &Contents<'_>,
        _: &mut Handed,
    ) -> Result<Resolved<Workload>, String> {
        let node = Node {
            namespace: contents.node.namespace.clone(),
            name: contents.node.name.clone(),
        };
        let request = Request {
            release: contents.release,
            app: &contents.bodies.app,
            configurations: &contents.bodies.configurations,
            secrets: &contents.bodies.secrets,
            node: &node,
            place: &self.place,
        };
        let rendered = kube::render(&request).map_err(|error| baetyl_kit::error::chain(&error))?;
        for warning in &rendered.warnings {
            tracing::warn!(app = %contents.release.app.name, warning, "the application runs otherwise than it is written");
        }
        let workload = Workload {
            rendered,
            identity: identity(contents)?,
        };
        Ok(Resolved {
            init: Vec::new(),
            services: vec![workload],
            shape: Shape::of(&contents.bodies.app),
        })
    }

    fn bring_back(&self, _: &AppName, _: &Handed) {}

    fn release(&self, _: &AppName) {}

    async fn run(&self, workload: Workload) -> Result<(), RuntimeError> {
        self.answered(|| self.put_identity(&workload)).await?;
        self.answered(|| self.runtime.apply(&workload.rendered))
            .await
    }

    async fn stop(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        self.answered(|| self.runtime.stop(key)).await
    }

    async fn remove(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        self.answered(|| self.runtime.uninstall(key, &self.place))
            .await?;
        self.answered(|| self.runtime.remove(key)).await
    }

    async fn restart(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        let restarted = self.runtime.restart(key).await;
        restarted.map_err(|error| failed(&error))
    }

    fn watch(&self) -> watch::Receiver<Arc<Observed>> {
        self.runtime.watch()
    }

    fn observed(&self) -> Arc<Observed> {
        self.runtime.watch().borrow().clone()
    }

    async fn found(&self) -> Result<Vec<WorkloadKey>, RuntimeError> {
        let found = self.runtime.found().await;
        found.map_err(|error| failed(&error))
    }

    fn shares_directory(&self) -> bool {
        false
    }

    fn remarks(&self) -> Vec<Remark> {
        let unknown = self.observed().unknown.clone();
        let remark = unknown.map(|message| Remark {
            condition: "ClusterUnreachable",
            reason: "NoAnswer",
            message,
        });
        remark.into_iter().collect()
    }

    fn unsupervised_logs(&self, _: &WorkloadKey) -> Vec<InstanceId> {
        Vec::new()
    }

    fn logs(
        &self,
        id: &InstanceId,
        start: LogStart,
        follow: bool,
    ) -> BoxStream<'static, Result<(Bytes, LogPosition), LogError>> {
        let start = match start {
            LogStart::Tail(lines) => kube::LogStart::Tail(lines),
            LogStart::After(position) => match position.0.parse() {
                Ok(position) => kube::LogStart::After(position),
                Err(_) => return stream::iter([Err(LogError::TooOld)]).boxed(),
            },
        };
        let log = self.runtime.logs(id, None, start, follow);
        let pieces = log.map(|piece| {
            let (bytes, position) = piece?;
            Ok((bytes, LogPosition(position.to_string())))
        });
        pieces.boxed()
    }

    async fn usage(&self) -> BTreeMap<InstanceId, Usage> {
        self.runtime.usage().await
    }

    fn machines(&self) -> Option<Machines> {
        Some(Machines {
            nodes: self.runtime.machines().borrow().clone(),
            mode_info: self.runtime.version().borrow().to_string(),
        })
    }

    async fn machine_stats(&self) -> Vec<MachineStats> {
        self.runtime.machine_stats().await
    }

    async fn sweep(&self, needed: BTreeSet<Digest>) -> Result<(), RuntimeError> {
        let swept = self.runtime.sweep(&needed).await;
        swept.map_err(|error| failed(&error))
    }
}

/// Runs engine over a cluster until shutdown.
pub(crate) async fn run(config: Config, kit: &Kit) -> Result<(), Error> {
    let opened = Kube::open(&config, kit.shutdown().clone()).await;
    let kube = opened.map_err(|error| Error::Runtime(error.into()))?;
    let dir = kit.state_dir()?;
    core::bring_back_authority(&kube, &dir).await?;
    let (own, identity) = ServiceIdentity::channel("engine makes its own identity");
    let kit = kit.with_identity(identity);
    let peer = |given: &Option<Endpoint>, to| connect(&kit, given.as_ref(), to, Role::Engine);
    let (node, sync) = (
        peer(&config.peers.node, Role::Node)?,
        peer(&config.peers.sync, Role::Sync)?,
    );
    let (tasks, secrets) = (kit.tasks().clone(), kube.clone());
    crate::run_with(config, &kit, kube, move |ctx| {
        let names = core::host_names("baetyl-engine");
        let made = ctx.certificates.issue_core(Role::Engine, &names)?;
        let made = Credentials::from_pem(&made.certificate, &made.key, &made.ca)?;
        own.replace(made)?;
        mirror::spawn(&tasks, secrets.clone(), node, sync);
        let upgrades = upgrade::keep(secrets.clone(), ctx.config.kube.clone(), ctx.board.clone());
        tasks.spawn_until_shutdown("core-upgrade", upgrades);
        let ctx = Arc::clone(ctx);
        tasks.spawn_until_shutdown("core-identities", async move {
            core::keep_identities(secrets, &ctx.certificates, &dir).await;
        });
        Ok(())
    })
    .await
}
