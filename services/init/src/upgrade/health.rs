//! Whether the core services work.

use baetyl_runtime_kube::{KubeError, Object};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Cluster, LOOK, SETTLED};

/// Waits until all Deployments of a set are available, and the cloud is reached where it must be, for a while without a
/// break.
///
/// # Errors
/// When they are not before `end`; what was missing last.
pub(super) async fn until_well<C: Cluster>(
    cluster: &C,
    set: &[Object],
    online: bool,
    end: Instant,
) -> Result<(), String> {
    let mut since = None;
    let mut told = String::new();
    loop {
        let missing = match missing(cluster, set, online).await {
            Ok(missing) => missing,
            Err(error) => Some(error.to_string()),
        };
        let now = Instant::now();
        let Some(missing) = missing else {
            if now.duration_since(*since.get_or_insert(now)) >= SETTLED {
                return Ok(());
            }
            sleep(LOOK).await;
            continue;
        };
        since = None;
        if missing != told {
            tracing::info!(missing, "waiting");
            told.clone_from(&missing);
        }
        if now >= end {
            return Err(missing);
        }
        sleep(LOOK).await;
    }
}

/// The first thing that is not as it should be.
async fn missing<C: Cluster>(
    cluster: &C,
    set: &[Object],
    online: bool,
) -> Result<Option<String>, KubeError> {
    for object in set.iter().filter(|object| object.kind == "Deployment") {
        let live = cluster.live(object).await?;
        if live.as_ref().is_some_and(is_available) {
            continue;
        }
        let name = &object.name;
        let trouble = cluster.trouble(name).await;
        let trouble = trouble
            .map(|words| format!(": {words}"))
            .unwrap_or_default();
        return Ok(Some(format!("{name} is not available{trouble}")));
    }
    if online && !cluster.reaches_cloud().await {
        return Ok(Some("the cloud is not reached any more".to_owned()));
    }
    Ok(None)
}

/// Whether all Pods of a Deployment are of its current template and available.
pub(super) fn is_available(live: &Value) -> bool {
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_i64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let count = |name: &str| number(&format!("/status/{name}")).unwrap_or(0);
    count("observedGeneration") >= number("/metadata/generation").unwrap_or(0)
        && count("updatedReplicas") >= wanted
        && count("availableReplicas") >= wanted
        && count("replicas") == count("updatedReplicas")
}
