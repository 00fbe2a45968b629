//! The profile `restricted` of the Pod Security Standards, control by control as of Kubernetes 1.34, for the Pods of every
//! namespace that enforces it.

use serde_json::{Value, json};

use super::{SYSTEM, list, sets};

/// Kinds of volumes the profile knows.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What the profile says against a Pod.
fn faults(pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut refuse = |is: bool, what: &str| {
        if is {
            faults.push(what.to_owned());
        }
    };
    for space in ["hostNetwork", "hostPID", "hostIPC"] {
        refuse(pod[space] == true, space);
    }
    for volume in list(&pod["volumes"]) {
        let kinds = volume.as_object().into_iter().flatten();
        for (kind, _) in kinds.filter(|(key, _)| *key != "name") {
            refuse(!VOLUMES.contains(&&**kind), kind);
        }
    }
    let whole = &pod["securityContext"];
    refuse(whole.get("sysctls").is_some(), "sysctls");
    refuse(whole["runAsUser"] == 0, "runAsUser 0");
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&pod[kind]) {
            let own = &container["securityContext"];
            // What a container does not say the Pod says for it.
            let said = |key: &str| {
                own.get(key)
                    .or_else(|| whole.get(key))
                    .cloned()
                    .unwrap_or_default()
            };
            refuse(said("runAsNonRoot") != true, "runAsNonRoot");
            refuse(own["runAsUser"] == 0, "runAsUser 0");
            let profile = &said("seccompProfile")["type"];
            refuse(
                profile != "RuntimeDefault" && profile != "Localhost",
                "seccompProfile",
            );
            refuse(own["privileged"] == true, "privileged");
            refuse(
                own["allowPrivilegeEscalation"] != false,
                "allowPrivilegeEscalation",
            );
            let drops = list(&own["capabilities"]["drop"]).any(|one| one == "ALL");
            refuse(!drops, "capabilities.drop");
            let adds = list(&own["capabilities"]["add"]).any(|one| one != "NET_BIND_SERVICE");
            refuse(adds, "capabilities.add");
            for key in ["seLinuxOptions", "appArmorProfile", "windowsOptions"] {
                refuse(!said(key).is_null(), key);
            }
            let mask = own.get("procMount").is_some_and(|mount| mount != "Default");
            refuse(mask, "procMount");
            refuse(
                list(&container["ports"]).any(|port| port.get("hostPort").is_some()),
                "hostPort",
            );
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                refuse(
                    container
                        .pointer(&format!("/{probe}/httpGet/host"))
                        .is_some(),
                    "probe host",
                );
            }
        }
    }
    faults
}

fn enforced(namespace: &Value) -> bool {
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
}

#[test]
fn every_pod_passes_where_the_profile_is_enforced() {
    let mut judged = 0;
    for set in sets() {
        for namespace in set.of_kind("Namespace").filter(|one| enforced(one)) {
            let name = namespace["metadata"]["name"].as_str().unwrap();
            for workload in set.workloads().iter().filter(|one| one.namespace == name) {
                assert_eq!(
                    faults(workload.pod),
                    [""; 0],
                    "{}: {}",
                    set.name,
                    workload.name
                );
                judged += 1;
            }
        }
    }
    assert!(judged > 5 * 4, "{judged} Pods");
}

#[test]
fn it_is_enforced_for_the_core_of_every_class_and_for_the_cloud() {
    for set in sets() {
        let enforced: Vec<&str> = set
            .of_kind("Namespace")
            .filter(|one| enforced(one))
            .map(|one| one["metadata"]["name"].as_str().unwrap())
            .collect();
        let wanted: &[&str] = match &*set.name {
            "cloud" => &["baetyl-cloud"],
            // It says why: the network of the machine.
            "example-workshop" => &[],
            _ => &[SYSTEM],
        };
        assert_eq!(enforced, wanted, "{}", set.name);
    }
}

#[test]
fn what_needs_more_needs_one_thing_more() {
    for set in sets() {
        for workload in set.workloads() {
            let faults = faults(workload.pod);
            match workload.name {
                "baetyl-prepare" => assert_eq!(faults, ["hostPath"; 3], "{}", set.name),
                _ if workload.pod["hostNetwork"] == true => {
                    assert_eq!(
                        faults,
                        ["hostNetwork", "probe host", "probe host", "probe host"]
                    );
                }
                _ => assert_eq!(faults, [""; 0], "{}: {}", set.name, workload.name),
            }
        }
    }
}

#[test]
fn nobody_is_root_or_writes_to_the_files_of_the_image() {
    for set in sets() {
        for workload in set.workloads() {
            let who = format!("{}: {}", set.name, workload.name);
            let pod = &workload.pod["securityContext"];
            assert_eq!(
                (&pod["runAsUser"], &pod["runAsGroup"]),
                (&json!(65532), &json!(65532)),
                "{who}"
            );
            let own = &workload.container()["securityContext"];
            assert_eq!(own["readOnlyRootFilesystem"], true, "{who}");
            // Secrets are for this group alone.
            let secret = |volume: &Value| {
                volume
                    .get("secret")
                    .or_else(|| volume.get("projected"))
                    .cloned()
            };
            for volume in list(&workload.pod["volumes"]).filter_map(secret) {
                assert_eq!(volume["defaultMode"], 0o440, "{who}");
                assert_eq!(pod["fsGroup"], 65532, "{who}");
            }
        }
    }
}

#[test]
fn each_control_of_the_profile_finds_what_breaks_it() {
    let fine = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        }}],
    });
    assert_eq!(faults(&fine), [""; 0]);
    let breaks: &[(&str, Value, &str)] = &[
        ("/hostNetwork", json!(true), "hostNetwork"),
        ("/hostPID", json!(true), "hostPID"),
        ("/volumes/0/hostPath", json!({"path": "/"}), "hostPath"),
        ("/securityContext/runAsUser", json!(0), "runAsUser 0"),
        (
            "/securityContext/runAsNonRoot",
            json!(false),
            "runAsNonRoot",
        ),
        (
            "/securityContext/seccompProfile/type",
            json!("Unconfined"),
            "seccompProfile",
        ),
        ("/securityContext/sysctls", json!([]), "sysctls"),
        (
            "/containers/0/securityContext/privileged",
            json!(true),
            "privileged",
        ),
        (
            "/containers/0/securityContext/allowPrivilegeEscalation",
            json!(true),
            "allowPrivilegeEscalation",
        ),
        (
            "/containers/0/securityContext/capabilities/drop",
            json!([]),
            "capabilities.drop",
        ),
        (
            "/containers/0/securityContext/capabilities/add",
            json!(["SYS_ADMIN"]),
            "capabilities.add",
        ),
        (
            "/containers/0/securityContext/procMount",
            json!("Unmasked"),
            "procMount",
        ),
        ("/containers/0/ports", json!([{"hostPort": 80}]), "hostPort"),
        ("/initContainers", json!([{}]), "allowPrivilegeEscalation"),
    ];
    for (at, value, fault) in breaks {
        let mut pod = fine.clone();
        let (parent, key) = at.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value.clone();
        let found = faults(&pod);
        assert!(found.iter().any(|one| one == fault), "{at}: {found:?}");
    }
}
