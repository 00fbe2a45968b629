//! The Job of an upgrade.

use baetyl_kit::config::format_duration;
use baetyl_model::upgrade::{Core, EXIT_FAILED, JOB};
use baetyl_runtime_kube::Object;
use serde_json::{Value, json};

use crate::config::Kube as Settings;
use crate::release::SYSTEM_NAMESPACE;

/// How often its Pod may fail; what it does is written down, so that the next one goes on.
const RETRIES: u32 = 6;
/// How long it stays to be looked at, in seconds.
const KEPT: u32 = 24 * 3600;

/// The Job that makes this the core of the node. Its Pod is like that of the Job `baetyl-init` in the manifests, in the name
/// of an account that may do more.
pub(super) fn job(settings: &Settings, to: &Core) -> Object {
    let labels = json!({
        "app.kubernetes.io/name": "baetyl-init",
        "app.kubernetes.io/part-of": "baetyl",
    });
    let body = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": JOB, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {
            "backoffLimit": RETRIES,
            "ttlSecondsAfterFinished": KEPT,
            // One that ended for good is not started again, and two are never there at once.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [
                {"action": "FailJob", "onExitCodes": {
                    "containerName": "baetyl-init", "operator": "In", "values": [2, EXIT_FAILED]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]},
            "template": {"metadata": {"labels": labels}, "spec": pod(settings, to)},
        },
    });
    Object {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: JOB.to_owned(),
        body,
    }
}

fn pod(settings: &Settings, to: &Core) -> Value {
    let secrets = settings.pull_secrets.iter();
    let secrets: Vec<_> = secrets.map(|name| json!({"name": name})).collect();
    json!({
        "serviceAccountName": "baetyl-upgrade",
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "priorityClassName": "baetyl-core",
        "restartPolicy": "Never",
        "nodeSelector": {"baetyl.io/core": "true"},
        // Where the core runs it runs, too, whatever is the matter with that machine.
        "tolerations": [{"operator": "Exists"}],
        "imagePullSecrets": secrets,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(settings, to)],
        "volumes": [
            {"name": "tls", "secret": {"secretName": "baetyl-tls-init", "defaultMode": 0o440}},
            {"name": "data", "emptyDir": {"sizeLimit": "1Mi"}},
        ],
    })
}

fn container(settings: &Settings, to: &Core) -> Value {
    let deadline = format_duration(settings.upgrade_deadline);
    let mut args = vec!["upgrade", "--to", &to.version, "--class", &to.class];
    args.extend(["--registry", &to.registry, "--deadline", &deadline]);
    if let Some(secret) = settings.pull_secrets.first() {
        args.extend(["--pull-secret", secret]);
    }
    json!({
        "name": "baetyl-init",
        "image": format!("{}/baetyl-init:{}", to.registry, to.version),
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "env": [
            {"name": "BAETYL_INIT__MODE", "value": "kube"},
            {"name": "BAETYL_INIT__TLS__DIR", "value": "/etc/baetyl/tls"},
            {"name": "BAETYL_INIT__PEERS__SYNC", "value": "https://baetyl-sync.baetyl-edge-system:50030"},
        ],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/baetyl"},
            {"name": "tls", "mountPath": "/etc/baetyl/tls", "readOnly": true},
        ],
    })
}
