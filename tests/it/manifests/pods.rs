//! Habits of our Pods that no profile asks for.

use std::collections::BTreeSet;

use baetyl_kit::Kit;
use bytes::Bytes;
use http_body_util::Empty;
use serde_json::Value;
use tower::ServiceExt as _;

use super::{EDGE, Workload, labels, list, sets};

/// Every workload of every set, with words that say which.
fn each(mut check: impl FnMut(&str, &Workload<'_>)) {
    let mut seen = 0;
    for set in sets() {
        for workload in set.workloads() {
            check(&format!("{}: {}", set.name, workload.name), &workload);
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen} workloads");
}

/// What the programs answer on their admin port.
async fn answers(path: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let router = baetyl_kit::admin::router(Kit::for_test(dir.path()), None);
    let request = http::Request::get(path)
        .body(Empty::<Bytes>::new())
        .unwrap();
    router.oneshot(request).await.unwrap().status().is_success()
}

#[tokio::test]
async fn probes_ask_for_pages_there_are_on_the_admin_port() {
    let mut paths = BTreeSet::new();
    each(|who, workload| {
        let container = workload.container();
        if workload.kind == "Job" {
            return;
        }
        for (probe, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/readyz"),
        ] {
            let asked = &container[probe]["httpGet"];
            assert_eq!(
                (&asked["path"], &asked["port"]),
                (&path.into(), &"admin".into()),
                "{who}"
            );
            // From the machine itself when the port is on its loopback address.
            let host = (workload.pod["hostNetwork"] == true).then(|| Value::from("127.0.0.1"));
            assert_eq!(asked.get("host"), host.as_ref(), "{who}");
            paths.insert(path);
        }
    });
    assert_eq!(paths.len(), 2);
    for path in paths {
        assert!(answers(path).await, "{path}");
    }
    assert!(!answers("/healthz").await);
}

#[test]
fn one_of_each_and_never_two_at_a_time() {
    for set in sets() {
        for deployment in set.of_kind("Deployment") {
            assert_eq!(deployment["spec"]["replicas"], 1);
            assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
        }
    }
}

#[test]
fn the_selector_of_a_deployment_is_its_name_and_nothing_that_changes() {
    for set in sets() {
        for deployment in set.of_kind("Deployment") {
            let selector = labels(&deployment["spec"]["selector"]["matchLabels"]);
            let name = deployment["metadata"]["name"].as_str().unwrap();
            let all: Vec<_> = selector
                .iter()
                .map(|(key, value)| (&**key, &**value))
                .collect();
            assert_eq!(all, [("app.kubernetes.io/name", name)]);
        }
    }
    each(|who, workload| {
        assert_eq!(
            workload.labels["app.kubernetes.io/name"], workload.name,
            "{who}"
        );
        assert_eq!(
            workload.labels["app.kubernetes.io/part-of"], "baetyl",
            "{who}"
        );
        // Engine prunes by the first and knows applications by the second.
        for label in ["app.kubernetes.io/managed-by", "baetyl-app-name"] {
            assert!(!workload.labels.contains_key(label), "{who}");
        }
    });
}

#[test]
fn every_image_is_one_of_our_programs_in_a_fixed_version() {
    each(|who, workload| {
        let (name, tag) = workload.image().rsplit_once(':').unwrap();
        assert!(
            !tag.contains('/') && tag != "latest" && !tag.is_empty(),
            "{who}"
        );
        let (registry, name) = name.rsplit_once('/').unwrap();
        assert!(!registry.is_empty(), "{who}");
        assert!(
            baetyl_tests::world::program(name).is_ok(),
            "{who}: no program {name}"
        );
        assert_eq!(
            workload.container()["imagePullPolicy"],
            "IfNotPresent",
            "{who}"
        );
    });
}

#[test]
fn exactly_engine_and_init_mount_a_service_account_token() {
    each(|who, workload| {
        // Said in the Pod, whatever the account says.
        let mounts = workload.pod["automountServiceAccountToken"]
            .as_bool()
            .unwrap();
        let may = matches!(workload.name, "baetyl-engine" | "baetyl-init");
        assert_eq!(mounts, may, "{who}");
    });
    for set in sets() {
        for account in set.of_kind("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{account}");
        }
        for workload in set.workloads() {
            let Some(account) = workload.pod["serviceAccountName"].as_str() else {
                assert_eq!(workload.namespace, EDGE, "{}", workload.name);
                continue;
            };
            assert_eq!(account, workload.name, "an account for each");
            assert!(
                set.get("ServiceAccount", workload.namespace, account)
                    .is_some()
            );
        }
    }
}

#[test]
fn no_variable_of_a_service_stands_between_those_of_the_configuration() {
    each(|who, workload| assert_eq!(workload.pod["enableServiceLinks"], false, "{who}"));
}

#[test]
fn core_pods_stay_on_the_machine_their_files_are_on() {
    each(|who, workload| {
        if workload.service() == "cloud" {
            return;
        }
        assert_eq!(
            workload.pod["nodeSelector"][baetyl_manifests::CORE_LABEL],
            "true",
            "{who}"
        );
        if workload.kind == "Deployment" {
            let stays = |taint: &str| {
                list(&workload.pod["tolerations"]).any(|one| {
                    one["key"] == taint
                        && one["effect"] == "NoExecute"
                        && one.get("tolerationSeconds").is_none()
                })
            };
            assert!(stays("node.kubernetes.io/unreachable"), "{who}");
            assert!(stays("node.kubernetes.io/not-ready"), "{who}");
        }
    });
}

#[test]
fn every_container_says_what_it_needs_and_has_a_limit_of_memory() {
    each(|who, workload| {
        let resources = &workload.container()["resources"];
        for (kind, name) in [
            ("requests", "cpu"),
            ("requests", "memory"),
            ("limits", "memory"),
        ] {
            assert!(resources[kind][name].is_string(), "{who}: {kind} {name}");
        }
        // Throttled probes would end a service that only waits for its turn.
        assert!(resources["limits"].get("cpu").is_none(), "{who}");
    });
}

#[test]
fn the_smallest_class_asks_for_no_more_than_a_machine_of_1_gb_has() {
    let mebibytes = |pod: &Workload<'_>, kind: &str| -> u64 {
        let text = pod.container()["resources"][kind]["memory"]
            .as_str()
            .unwrap();
        text.strip_suffix("Mi").unwrap().parse().unwrap()
    };
    let set = super::set("node-1gb");
    let workloads = set.workloads();
    let services = workloads.iter().filter(|one| one.kind == "Deployment");
    assert!(
        services
            .clone()
            .map(|one| mebibytes(one, "requests"))
            .sum::<u64>()
            <= 64
    );
    assert!(services.map(|one| mebibytes(one, "limits")).sum::<u64>() <= 256);
}

#[test]
fn volumes_and_mounts_are_the_same_and_claims_are_there() {
    for set in sets() {
        for workload in set.workloads() {
            let names = |value: &Value| -> BTreeSet<String> {
                list(value)
                    .map(|one| one["name"].as_str().unwrap().to_owned())
                    .collect()
            };
            let volumes = &workload.pod["volumes"];
            assert_eq!(names(volumes), names(&workload.container()["volumeMounts"]));
            for volume in list(volumes) {
                if let Some(claim) = volume.pointer("/persistentVolumeClaim/claimName") {
                    let claim = claim.as_str().unwrap();
                    let there = set.get("PersistentVolumeClaim", workload.namespace, claim);
                    assert!(there.is_some(), "{}: {claim}", set.name);
                }
            }
        }
    }
}

#[test]
fn a_static_volume_is_for_one_claim_on_the_machine_of_the_core_in_a_directory_that_is_made() {
    let mut seen = 0;
    for set in sets() {
        let prepare = set.get("Job", EDGE, "baetyl-prepare");
        let made: BTreeSet<&str> = prepare
            .into_iter()
            .flat_map(|job| list(&job["spec"]["template"]["spec"]["volumes"]))
            .map(|volume| &volume["hostPath"])
            .inspect(|path| assert_eq!(path["type"], "DirectoryOrCreate"))
            .map(|path| path["path"].as_str().unwrap())
            .collect();
        let mut used = BTreeSet::new();
        for volume in set.of_kind("PersistentVolume") {
            let spec = &volume["spec"];
            let claim = &spec["claimRef"];
            let (namespace, name) = (claim["namespace"].as_str(), claim["name"].as_str());
            let claim = set.get("PersistentVolumeClaim", namespace.unwrap(), name.unwrap());
            let claim = &claim.unwrap()["spec"];
            assert_eq!(claim["storageClassName"], spec["storageClassName"]);
            assert_eq!(claim["resources"]["requests"], spec["capacity"]);
            let on = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0];
            assert_eq!(
                on["matchExpressions"][0]["key"],
                baetyl_manifests::CORE_LABEL
            );
            used.insert(spec["local"]["path"].as_str().unwrap());
            seen += 1;
        }
        assert_eq!(made, used, "{}", set.name);
    }
    assert_eq!(seen, 4 * 3, "three services in four classes");
}

#[test]
fn a_node_can_change_its_class_where_the_storage_stays_the_same() {
    let claims = |set: &super::Set| -> Vec<Value> {
        set.of_kind("PersistentVolumeClaim")
            .map(|claim| claim["spec"].clone())
            .collect()
    };
    let standard = claims(&super::set("node-standard"));
    for class in ["node-1gb", "node-gpu", "cluster"] {
        // Kubernetes makes no claim smaller and gives none another class.
        assert_eq!(claims(&super::set(class)), standard, "{class}");
    }
    assert_ne!(claims(&super::set("k3s")), standard);
}
