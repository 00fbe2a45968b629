//! What the manifests say to the programs is what the programs understand: each is asked with the environment of its
//! container.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use baetyl_tests::world::program;
use serde_json::Value;

use super::{CLOUD, SYSTEM, Set, Workload, list, set, sets};

/// The one variable every program has.
const DATA_DIR: &str = "BAETYL_DATA_DIR";

/// Where each program says what a port is for, by the name of the port.
const LISTENERS: &[(&str, &[(&str, &str)])] = &[
    (
        "node",
        &[("core", "api"), ("apps", "apps"), ("admin", "admin")],
    ),
    (
        "sync",
        &[("core", "api"), ("apps", "apps"), ("admin", "admin")],
    ),
    ("engine", &[("core", "api"), ("admin", "admin")]),
    (
        "function-proxy",
        &[("http", "http"), ("grpc", "grpc"), ("admin", "admin")],
    ),
    ("init", &[("admin", "admin")]),
    (
        "cloud",
        &[
            ("activation", "activation"),
            ("rest", "admin"),
            ("link", "link"),
            ("admin", "metrics"),
        ],
    ),
];

type Env = BTreeMap<String, String>;

/// The variables of a container, with what the `ConfigMap`s beside it hold.
fn env(set: &Set, workload: &Workload<'_>) -> Env {
    let container = workload.container();
    let map = |name: &Value| {
        let map = set.get("ConfigMap", workload.namespace, name.as_str().unwrap());
        &map.unwrap_or_else(|| panic!("{}: no ConfigMap {name}", workload.name))["data"]
    };
    let mut env = Env::new();
    for from in list(&container["envFrom"]) {
        env.extend(super::labels(map(&from["configMapRef"]["name"])));
    }
    for variable in list(&container["env"]) {
        let key = variable.pointer("/valueFrom/configMapKeyRef");
        let value = match (variable.get("value"), key) {
            (Some(value), None) => value.as_str().unwrap().to_owned(),
            (None, Some(key)) => map(&key["name"])[key["key"].as_str().unwrap()]
                .as_str()
                .unwrap()
                .to_owned(),
            _ => {
                let from = &variable["valueFrom"]["secretKeyRef"];
                assert_eq!(from["name"], baetyl_manifests::TOKEN_SECRET);
                assert_eq!(from["key"], baetyl_manifests::TOKEN_KEY);
                "a-token".to_owned()
            }
        };
        let name = variable["name"].as_str().unwrap().to_owned();
        assert!(
            env.insert(name.clone(), value).is_none(),
            "{name} is there twice"
        );
    }
    env
}

/// What a program understands of its environment.
fn understood(service: &str, args: &[&str], env: &Env) -> Result<Value, String> {
    let output = Command::new(program(&format!("baetyl-{service}")).unwrap())
        .args(args)
        .arg("--print-config")
        .env_clear()
        .envs(env)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    Ok(serde_norway::from_slice(&output.stdout).unwrap())
}

fn args<'a>(workload: &'a Workload<'_>) -> Vec<&'a str> {
    super::words(&workload.container()["args"])
}

/// Every workload that runs a service, with the set it is in; not the Job that only wants its volumes.
fn each(mut check: impl FnMut(&Set, &Workload<'_>)) {
    let mut seen = 0;
    for set in sets() {
        for workload in set.workloads() {
            if workload.name != "baetyl-prepare" {
                check(&set, &workload);
                seen += 1;
            }
        }
    }
    assert!(seen > 25, "{seen} workloads");
}

#[test]
fn every_program_takes_the_environment_of_its_container() {
    each(|set, workload| {
        let env = env(set, workload);
        let prefix = format!(
            "BAETYL_{}__",
            workload.service().replace('-', "_").to_uppercase()
        );
        for name in env.keys() {
            let known = name.starts_with(&prefix) || name == DATA_DIR;
            assert!(known, "{}: {name}", workload.name);
        }
        if let Err(error) = understood(workload.service(), &args(workload), &env) {
            panic!("{} {}: {error}", set.name, workload.name);
        }
    });
}

#[test]
fn the_job_that_only_wants_its_volumes_ends_well() {
    for set in sets() {
        for workload in set
            .workloads()
            .iter()
            .filter(|one| one.name == "baetyl-prepare")
        {
            let program = program(&format!("baetyl-{}", workload.service())).unwrap();
            let status = Command::new(program)
                .args(args(workload))
                .env_clear()
                .status();
            assert!(status.unwrap().success(), "{}", set.name);
        }
    }
}

/// Where a container listens: the name of the port and the address.
fn listeners(set: &Set, workload: &Workload<'_>) -> BTreeMap<&'static str, SocketAddr> {
    let service = workload.service();
    let env = env(set, workload);
    let printed = understood(service, &args(workload), &env).unwrap();
    let (_, sections) = LISTENERS.iter().find(|(name, _)| *name == service).unwrap();
    let address = |section: &str| {
        let text = printed[section]["listen"].as_str().unwrap();
        text.parse()
            .unwrap_or_else(|_| panic!("{service} {section} listens at {text}"))
    };
    sections
        .iter()
        .map(|(port, section)| (*port, address(section)))
        .collect()
}

#[test]
fn a_container_has_exactly_the_ports_its_program_listens_at() {
    each(|set, workload| {
        let listeners = listeners(set, workload);
        let numbers: BTreeMap<&str, u64> = listeners
            .iter()
            .map(|(name, address)| (*name, address.port().into()))
            .collect();
        assert_eq!(numbers, workload.ports(), "{} {}", set.name, workload.name);
        let on_host = workload.pod["hostNetwork"] == true;
        for (name, address) in &listeners {
            // In the network of the machine everybody around it would see health and metrics.
            let hidden = on_host && *name == "admin";
            assert_eq!(
                address.ip().is_loopback(),
                hidden,
                "{} {name}",
                workload.name
            );
            if *name == "admin" && !on_host {
                assert_eq!(address.port(), 9100, "{}", workload.name);
            }
        }
    });
}

#[test]
fn a_service_leads_to_ports_of_its_workload_under_their_own_numbers() {
    for set in sets() {
        let workloads = set.workloads();
        for service in set.of_kind("Service") {
            let selector = super::labels(&service["spec"]["selector"]);
            let selected: Vec<&Workload<'_>> = workloads
                .iter()
                .filter(|one| one.namespace == super::namespace_of(service))
                .filter(|one| {
                    selector
                        .iter()
                        .all(|(key, value)| one.labels.get(key) == Some(value))
                })
                .collect();
            assert_eq!(
                selected.len(),
                1,
                "{}: {}",
                set.name,
                service["metadata"]["name"]
            );
            for port in list(&service["spec"]["ports"]) {
                let name = port["targetPort"].as_str().unwrap();
                assert_eq!(Some(name), port["name"].as_str());
                assert_eq!(
                    port["port"].as_u64(),
                    selected[0].ports().get(name).copied()
                );
                assert_ne!(name, "admin", "health and metrics are asked of each Pod");
            }
        }
    }
}

#[test]
fn every_peer_a_program_is_told_of_is_a_service_of_the_same_set() {
    let mut seen = 0;
    each(|set, workload| {
        for (name, value) in env(set, workload) {
            let Some(rest) = value.strip_prefix("https://") else {
                continue;
            };
            let Some((service, port)) = rest.split_once(&format!(".{SYSTEM}:")) else {
                assert!(name.ends_with("__ACTIVATE__URL"), "{name} is {value}");
                continue;
            };
            let service = set.get("Service", SYSTEM, service);
            let service = service.unwrap_or_else(|| panic!("{}: {name} is {value}", set.name));
            let there = list(&service["spec"]["ports"]).any(|one| {
                one["port"]
                    .as_u64()
                    .is_some_and(|number| number.to_string() == port)
            });
            assert!(there, "{}: {name} is {value}", set.name);
            seen += 1;
        }
    });
    assert!(seen > 30, "{seen} peers");
}

#[test]
fn a_program_keeps_its_files_in_the_volume_that_is_mounted_for_them() {
    each(|_, workload| {
        let words: Vec<&str> = args(workload).into_iter().chain(["--help"]).collect();
        let program = program(&format!("baetyl-{}", workload.service())).unwrap();
        let help = Command::new(program)
            .args(words)
            .env_clear()
            .output()
            .unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let mut mounts = list(&workload.container()["volumeMounts"]);
        let data = mounts.find(|mount| mount["name"] == "data").unwrap();
        let wanted = format!("[default: {}]", data["mountPath"].as_str().unwrap());
        assert!(help.contains(&wanted), "{}: {help}", workload.name);
        assert!(data.get("readOnly").is_none());
    });
}

/// The rows of a table in a document: workload, Service, listener, port.
fn documented() -> Vec<(String, String, u64)> {
    let text = include_str!("../../../docs/flows/kube-mode.md");
    let mut rows = Vec::new();
    let mut last = String::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let [_, workload, _, listener, port, _, _] = cells[..] else {
            continue;
        };
        if !workload.is_empty() {
            workload.clone_into(&mut last);
        }
        if let Ok(port) = port.parse() {
            rows.push((last.clone(), listener.to_lowercase(), port));
        }
    }
    rows
}

#[test]
fn ports_are_those_the_documentation_names() {
    let set = set("node-standard");
    let mut there = Vec::new();
    for workload in set.workloads() {
        let ports = workload.ports();
        let ports = ports.iter().filter(|(name, _)| **name != "admin");
        there.extend(
            ports.map(|(name, port)| (workload.name.to_owned(), (*name).to_owned(), *port)),
        );
    }
    let mut documented = documented();
    documented.sort();
    there.sort();
    assert_eq!(there, documented);
}

#[test]
fn the_cloud_is_told_its_name_by_the_one_config_map() {
    let set = set("cloud");
    let workloads = set.workloads();
    let [cloud] = &workloads[..] else {
        panic!("{} workloads", workloads.len());
    };
    assert_eq!((cloud.namespace, cloud.service()), (CLOUD, "cloud"));
    let printed = understood("cloud", &args(cloud), &env(&set, cloud)).unwrap();
    assert_eq!(printed["public"]["host"], "cloud.example.com");
}
