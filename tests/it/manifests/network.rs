//! Who reaches whom: the NetworkPolicies, evaluated as Kubernetes defines them, against the table of callers.
//!
//! That a cluster enforces them is not tested here: it takes a network plugin that does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use baetyl_proto::callers::{Role, TABLE};
use serde_json::Value;

use super::{CLOUD, EDGE, SYSTEM, Set, classes, labels, list, set};

type Labels = BTreeMap<String, String>;

/// One end of a connection.
#[derive(Clone, Debug)]
enum End {
    Pod {
        namespace: String,
        labels: Labels,
    },
    /// Something that is no Pod.
    Outside(Ipv4Addr),
}

impl End {
    fn pod(namespace: &str, pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self::Pod {
            namespace: namespace.to_owned(),
            labels: pairs.collect(),
        }
    }
}

/// A label selector: nothing in it selects everything.
fn selects(selector: &Value, labels: &Labels) -> bool {
    let by_label = self::labels(&selector["matchLabels"]);
    by_label
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && list(&selector["matchExpressions"]).all(|one| {
            let value = labels.get(one["key"].as_str().unwrap());
            match one["operator"].as_str().unwrap() {
                "Exists" => value.is_some(),
                "In" => value.is_some_and(|value| super::words(&one["values"]).contains(&&**value)),
                other => panic!("this test does not know the operator {other}"),
            }
        })
}

fn namespace_labels(set: &Set, namespace: &str) -> Labels {
    let object = set.get("Namespace", "", namespace);
    let mut all = object
        .map(|one| labels(&one["metadata"]["labels"]))
        .unwrap_or_default();
    // Kubernetes puts it on every namespace.
    all.insert(
        "kubernetes.io/metadata.name".to_owned(),
        namespace.to_owned(),
    );
    all
}

fn in_block(cidr: &str, address: Ipv4Addr) -> bool {
    let (network, bits) = cidr.split_once('/').unwrap();
    let bits: u32 = bits.parse().unwrap();
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    let network: Ipv4Addr = network.parse().unwrap();
    u32::from(network) & mask == u32::from(address) & mask
}

/// Whether one entry of `from` or `to` of a policy in `policy_namespace` means this end.
fn is_peer(set: &Set, policy_namespace: &str, peer: &Value, end: &End) -> bool {
    match end {
        End::Outside(address) => {
            let cidr = peer.pointer("/ipBlock/cidr").and_then(Value::as_str);
            cidr.is_some_and(|cidr| in_block(cidr, *address))
        }
        End::Pod { .. } if peer.get("ipBlock").is_some() => false,
        End::Pod { namespace, labels } => {
            let at = match peer.get("namespaceSelector") {
                Some(selector) => selects(selector, &namespace_labels(set, namespace)),
                None => namespace == policy_namespace,
            };
            at && peer
                .get("podSelector")
                .is_none_or(|selector| selects(selector, labels))
        }
    }
}

/// Whether policies let a connection through at one of its ends: `pod` is that end, `other` the other.
fn passes(set: &Set, direction: &str, pod: &End, other: &End, port: u64) -> bool {
    let End::Pod { namespace, labels } = pod else {
        return true;
    };
    let (rules, peers) = match direction {
        "Ingress" => ("ingress", "from"),
        _ => ("egress", "to"),
    };
    let mut isolated = false;
    for policy in set.of_kind("NetworkPolicy") {
        let at = super::namespace_of(policy);
        let spec = &policy["spec"];
        if at != namespace
            || !super::words(&spec["policyTypes"]).contains(&direction)
            || !selects(&spec["podSelector"], labels)
        {
            continue;
        }
        isolated = true;
        let open = list(&spec[rules]).any(|rule| {
            let any = |key: &str| rule.get(key).is_none();
            (any("ports") || list(&rule["ports"]).any(|one| one["port"] == port))
                && (any(peers) || list(&rule[peers]).any(|peer| is_peer(set, at, peer, other)))
        });
        if open {
            return true;
        }
    }
    !isolated
}

fn reaches(set: &Set, from: &End, to: &End, port: u64) -> bool {
    passes(set, "Egress", from, to, port) && passes(set, "Ingress", to, from, port)
}

/// Which workload and port serve a method, in kube mode.
fn server(method: &str) -> (&'static str, u64) {
    let service = method.split('/').nth(1).unwrap();
    match service {
        "baetyl.node.v1.NodeService" => ("baetyl-node", 50020),
        "baetyl.node.v1.LocalService" => ("baetyl-node", 50021),
        "baetyl.sync.v1.SyncService" => ("baetyl-sync", 50030),
        // With its ticket, for the init container of an application.
        "baetyl.sync.v1.ObjectService" => ("baetyl-sync", 50031),
        "baetyl.engine.v1.EngineService" => ("baetyl-engine", 50040),
        "baetyl.function.v1.FunctionService"
        | "baetyl.function.v1.RuntimeService"
        | "faas.Function" => ("baetyl-function", 50012),
        "baetyl.activation.v1.ActivationService" => ("baetyl-cloud", 9003),
        "baetyl.link.v1.LinkService" => ("baetyl-cloud", 9005),
        other => panic!("say where {other} is served"),
    }
}

/// What is reached besides methods of the table.
const BESIDES: &[(Role, &str, u64)] = &[
    // Functions over HTTP.
    (Role::App, "baetyl-function", 50011),
    // init asks each service whether it is ready.
    (Role::Init, "baetyl-node", 50020),
    (Role::Init, "baetyl-sync", 50030),
    (Role::Init, "baetyl-engine", 50040),
    (Role::Init, "baetyl-function", 50012),
];

/// Everything a role may reach, by the table of callers and the list above.
fn wanted(role: Role) -> BTreeSet<(&'static str, u64)> {
    let rows = TABLE.iter().filter(|(_, roles)| roles.contains(&role));
    let besides = BESIDES.iter().filter(|(one, ..)| *one == role);
    rows.map(|(method, _)| server(method))
        .chain(besides.map(|(_, workload, port)| (*workload, *port)))
        .collect()
}

const SCRAPER: &[(&str, &str)] = &[("baetyl.io/metrics", "true")];

/// Who knocks, and what shall open; `None`: nothing but what the set's own scrapers get.
fn callers(set: &Set) -> Vec<(&'static str, End, Option<Role>)> {
    let core = |name: &'static str, role| {
        let workload = set.workloads().into_iter().find(|one| one.name == name);
        workload.map(|one| {
            let end = End::Pod {
                namespace: one.namespace.to_owned(),
                labels: one.labels,
            };
            (name, end, Some(role))
        })
    };
    let mut all: Vec<_> = [
        core("baetyl-init", Role::Init),
        core("baetyl-node", Role::Node),
        core("baetyl-sync", Role::Sync),
        core("baetyl-engine", Role::Engine),
        core("baetyl-function", Role::Proxy),
    ]
    .into_iter()
    .flatten()
    .collect();
    let app: &[(&str, &str)] = &[("baetyl-app-name", "shop")];
    all.extend([
        ("an application", End::pod(EDGE, app), Some(Role::App)),
        (
            "a Pod of a YAML application",
            End::pod(EDGE, &[]),
            Some(Role::App),
        ),
        (
            "a system application",
            End::pod(SYSTEM, app),
            Some(Role::App),
        ),
        (
            "something in the system namespace",
            End::pod(SYSTEM, &[]),
            None,
        ),
        (
            "something in another namespace",
            End::pod("default", app),
            None,
        ),
        (
            "something outside",
            End::Outside(Ipv4Addr::new(192, 0, 2, 7)),
            None,
        ),
    ]);
    all
}

#[test]
fn every_port_of_the_core_opens_for_exactly_those_who_may_call_what_is_behind_it() {
    for set in classes() {
        let mut opened = 0;
        for (who, from, role) in callers(&set) {
            let wanted = role.map(wanted).unwrap_or_default();
            for workload in set.workloads().iter().filter(|one| one.namespace == SYSTEM) {
                let to = End::Pod {
                    namespace: SYSTEM.to_owned(),
                    labels: workload.labels.clone(),
                };
                for port in workload.ports().into_values() {
                    let may = wanted.contains(&(workload.name, port));
                    let class = &set.name;
                    let reached = reaches(&set, &from, &to, port);
                    assert_eq!(reached, may, "{class}: {who} to {} {port}", workload.name);
                    opened += usize::from(may);
                }
            }
        }
        assert!(opened > 10, "{}: {opened} holes", set.name);
    }
}

#[test]
fn health_and_metrics_open_for_scrapers_alone_wherever_they_run() {
    for set in classes().iter().chain([&set("cloud")]) {
        for workload in set.workloads().iter().filter(|one| one.namespace != EDGE) {
            let to = End::Pod {
                namespace: workload.namespace.to_owned(),
                labels: workload.labels.clone(),
            };
            let scraper = End::pod("monitoring", SCRAPER);
            assert!(reaches(set, &scraper, &to, 9100), "{}", workload.name);
            let other = End::pod("monitoring", &[]);
            assert!(!reaches(set, &other, &to, 9100), "{}", workload.name);
            for port in workload.ports().into_values().filter(|port| *port != 9100) {
                let open = port == 9003 || port == 9005;
                assert_eq!(reaches(set, &scraper, &to, port), open, "{}", workload.name);
            }
        }
    }
}

#[test]
fn only_sync_and_init_go_out_and_engine_to_machines_of_the_cluster() {
    let outside = End::Outside(Ipv4Addr::new(192, 0, 2, 7));
    for set in classes() {
        for workload in set.workloads() {
            let from = End::Pod {
                namespace: workload.namespace.to_owned(),
                labels: workload.labels.clone(),
            };
            let open: Vec<u64> = [80, 443, 6443, 9003, 9005, 10250]
                .into_iter()
                .filter(|port| reaches(&set, &from, &outside, *port))
                .collect();
            let wanted: &[u64] = match workload.name {
                "baetyl-sync" | "baetyl-init" => &[80, 443, 6443, 9003, 9005, 10250],
                "baetyl-engine" => &[443, 6443, 10250],
                _ => &[],
            };
            assert_eq!(open, wanted, "{}: {}", set.name, workload.name);
        }
    }
}

#[test]
fn whoever_has_a_peer_can_ask_for_its_address() {
    let dns = End::pod("kube-system", &[("k8s-app", "kube-dns")]);
    let cache = End::Outside(Ipv4Addr::new(169, 254, 20, 10));
    for set in classes() {
        for workload in set.workloads() {
            let from = End::Pod {
                namespace: workload.namespace.to_owned(),
                labels: workload.labels.clone(),
            };
            let asks = !matches!(workload.name, "baetyl-node" | "baetyl-prepare");
            for to in [&dns, &cache] {
                assert_eq!(reaches(&set, &from, to, 53), asks, "{}", workload.name);
            }
        }
    }
}

#[test]
fn the_cloud_is_open_to_nodes_and_its_rest_interface_to_what_is_put_before_it() {
    let set = set("cloud");
    let to = End::pod(CLOUD, &[("app.kubernetes.io/name", "baetyl-cloud")]);
    let outside = End::Outside(Ipv4Addr::new(192, 0, 2, 7));
    let stranger = End::pod("default", &[]);
    let before = End::pod("ingress", &[("baetyl.io/cloud-admin", "true")]);
    for port in [9003, 9005] {
        assert!(reaches(&set, &outside, &to, port) && reaches(&set, &stranger, &to, port));
    }
    assert!(reaches(&set, &before, &to, 9004));
    assert!(!reaches(&set, &outside, &to, 9004) && !reaches(&set, &stranger, &to, 9004));
    assert!(!reaches(&set, &to, &outside, 443), "the cloud asks nobody");
}

#[test]
fn with_the_network_of_the_machine_engine_still_finds_sync() {
    let set = set("example-workshop");
    let engine = End::pod(SYSTEM, &[("app.kubernetes.io/name", "baetyl-engine")]);
    let machine = End::Outside(Ipv4Addr::new(192, 0, 2, 7));
    assert!(reaches(&set, &engine, &machine, 50030));
    assert!(!reaches(&set, &engine, &machine, 50020));
}
