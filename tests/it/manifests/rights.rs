//! Who may do what in the Kubernetes API: the roles, evaluated as Kubernetes defines them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{EDGE, SYSTEM, Set, classes, list, set, sets, words};

/// Verbs that change nothing and give nobody rights.
const LOOKS: &[&str] = &["get", "list", "watch"];

/// One request.
struct Asked<'a> {
    group: &'a str,
    resource: &'a str,
    name: &'a str,
    verb: &'a str,
}

fn matches(values: &Value, one: &str) -> bool {
    words(values)
        .iter()
        .any(|word| *word == one || *word == "*")
}

fn allows(rules: &Value, asked: &Asked<'_>) -> bool {
    list(rules).any(|rule| {
        let named = rule.get("resourceNames");
        matches(&rule["apiGroups"], asked.group)
            && matches(&rule["resources"], asked.resource)
            && matches(&rule["verbs"], asked.verb)
            && named.is_none_or(|names| words(names).contains(&asked.name))
    })
}

/// The rules that bindings give to an account: in this namespace, or ("") in the whole cluster.
fn rules(set: &Set, account: &str, namespace: &str) -> Vec<Value> {
    let (binding, role) = match namespace {
        "" => ("ClusterRoleBinding", "ClusterRole"),
        _ => ("RoleBinding", "Role"),
    };
    set.of_kind(binding)
        .filter(|one| super::namespace_of(one) == namespace)
        .filter(|one| list(&one["subjects"]).any(|subject| subject["name"] == account))
        .map(|one| {
            assert_eq!(one["roleRef"]["kind"], role);
            let name = one["roleRef"]["name"].as_str().unwrap();
            let role = set.get(role, namespace, name);
            role.unwrap_or_else(|| panic!("{}: no {name}", set.name))["rules"].clone()
        })
        .collect()
}

fn may(set: &Set, account: &str, namespace: &str, asked: &Asked<'_>) -> bool {
    rules(set, account, namespace)
        .iter()
        .any(|rules| allows(rules, asked))
}

/// Group and plural of the kind of an object.
fn resource_of(document: &Value) -> (&str, String) {
    let version = document["apiVersion"].as_str().unwrap();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = document["kind"].as_str().unwrap().to_lowercase();
    let plural = match kind.as_bytes() {
        [.., b'y'] => format!("{}ies", &kind[..kind.len() - 1]),
        [.., b's'] => format!("{kind}es"),
        _ => format!("{kind}s"),
    };
    (group, plural)
}

#[test]
fn bindings_name_roles_and_accounts_that_are_there_and_nobody_elses() {
    for set in sets() {
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for binding in set.of_kind(kind) {
                for subject in list(&binding["subjects"]) {
                    assert_eq!(subject["kind"], "ServiceAccount", "{binding}");
                    let (namespace, name) = (&subject["namespace"], &subject["name"]);
                    let account = set.get(
                        "ServiceAccount",
                        namespace.as_str().unwrap(),
                        name.as_str().unwrap(),
                    );
                    assert!(account.is_some(), "{}: {binding}", set.name);
                    rules(&set, name.as_str().unwrap(), super::namespace_of(binding));
                }
            }
        }
    }
}

#[test]
fn no_rule_is_a_wildcard_and_none_changes_what_belongs_to_the_whole_cluster() {
    for set in classes() {
        for role in set.of_kind("Role").chain(set.of_kind("ClusterRole")) {
            for rule in list(&role["rules"]) {
                for part in ["apiGroups", "resources", "verbs"] {
                    assert!(!words(&rule[part]).contains(&"*"), "{}: {rule}", set.name);
                }
                if role["kind"] == "ClusterRole" {
                    let looks = words(&rule["verbs"])
                        .iter()
                        .all(|verb| LOOKS.contains(verb));
                    assert!(looks, "{}: {rule}", set.name);
                }
            }
        }
    }
}

#[test]
fn rights_are_given_by_upgrades_alone_and_to_named_roles_of_our_namespaces() {
    for set in sets() {
        for role in set.of_kind("Role").chain(set.of_kind("ClusterRole")) {
            let who = role["metadata"]["name"].as_str().unwrap();
            for rule in list(&role["rules"]) {
                let verbs = words(&rule["verbs"]);
                if verbs.contains(&"escalate") || verbs.contains(&"bind") {
                    assert_eq!((who, &role["kind"]), ("baetyl-upgrade", &"Role".into()));
                    assert!(rule.get("resourceNames").is_some(), "{rule}");
                }
                if verbs.contains(&"impersonate") {
                    assert_eq!((who, super::namespace_of(role)), ("baetyl-engine", EDGE));
                    assert_eq!(words(&rule["resources"]), ["serviceaccounts"]);
                    assert_eq!(words(&rule["resourceNames"]), ["baetyl-apply"]);
                }
            }
        }
    }
}

#[test]
fn accounts_without_work_in_the_api_have_no_rights() {
    for set in sets() {
        for account in set.of_kind("ServiceAccount") {
            let name = account["metadata"]["name"].as_str().unwrap();
            let has = [SYSTEM, EDGE, ""]
                .iter()
                .any(|at| !rules(&set, name, at).is_empty());
            let works = [
                "baetyl-engine",
                "baetyl-init",
                "baetyl-upgrade",
                "baetyl-apply",
            ];
            assert_eq!(has, works.contains(&name), "{}: {name}", set.name);
        }
    }
}

#[test]
fn engine_applies_and_watches_what_applications_are_made_of_in_both_namespaces() {
    let set = set("node-standard");
    let made = [
        ("apps", "deployments"),
        ("apps", "statefulsets"),
        ("apps", "daemonsets"),
        ("batch", "jobs"),
        ("batch", "cronjobs"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("", "services"),
        ("", "configmaps"),
        ("", "secrets"),
    ];
    for namespace in [SYSTEM, EDGE] {
        for (group, resource) in made {
            // Nobody looks at these but when they are written. `cargo xtask e2e kube` compares with what engine asks for.
            let is_watched = !["services", "horizontalpodautoscalers"].contains(&resource);
            let watch = is_watched.then_some("watch");
            // Server-side apply is a patch, and a create when there is nothing yet.
            let verbs = ["get", "list", "create", "patch", "delete"];
            for verb in verbs.into_iter().chain(watch) {
                let asked = Asked {
                    group,
                    resource,
                    name: "x",
                    verb,
                };
                assert!(
                    may(&set, "baetyl-engine", namespace, &asked),
                    "{verb} {resource}"
                );
            }
        }
        for (resource, verb) in [
            ("pods", "create"),
            ("pods/exec", "create"),
            ("roles", "patch"),
        ] {
            let asked = Asked {
                group: "",
                resource,
                name: "x",
                verb,
            };
            assert!(
                !may(&set, "baetyl-engine", namespace, &asked),
                "{verb} {resource}"
            );
        }
    }
}

#[test]
fn init_writes_one_secret_and_reads_no_other() {
    let set = set("node-standard");
    let asked = |name, verb| Asked {
        group: "",
        resource: "secrets",
        name,
        verb,
    };
    for verb in ["get", "create", "patch"] {
        assert!(may(
            &set,
            "baetyl-init",
            SYSTEM,
            &asked("baetyl-core-identity", verb)
        ));
        assert!(!may(
            &set,
            "baetyl-init",
            SYSTEM,
            &asked("baetyl-core-authority", verb)
        ));
    }
    assert!(!may(
        &set,
        "baetyl-init",
        SYSTEM,
        &asked("baetyl-core-identity", "list")
    ));
}

#[test]
fn an_upgrade_replaces_what_is_in_our_namespaces_and_looks_at_the_rest() {
    let account = "baetyl-upgrade";
    for set in classes() {
        for document in &set.documents {
            let namespace = super::namespace_of(document);
            let name = document["metadata"]["name"].as_str().unwrap();
            let (group, plural) = resource_of(document);
            let resource = &*plural;
            let can = |verb| {
                let asked = Asked {
                    group,
                    resource,
                    name,
                    verb,
                };
                may(&set, account, namespace, &asked)
            };
            let who = format!("{}: {resource} {name}", set.name);
            assert!(can("get"), "{who}");
            assert_eq!(can("patch"), !namespace.is_empty(), "{who}");
            if resource == "jobs" {
                assert!(can("delete") && can("create"), "{who}");
            }
            if resource == "roles" {
                assert!(can("escalate") && can("bind"), "{who}");
            }
        }
    }
}

#[test]
fn a_yaml_application_gets_the_ordinary_kinds_of_its_namespace_and_all_with_any_kind() {
    let may_apply = |set: &Set, namespace, group, resource| {
        let asked = Asked {
            group,
            resource,
            name: "x",
            verb: "patch",
        };
        may(set, "baetyl-apply", namespace, &asked)
    };
    let plain = set("k3s");
    let wide = set("example-workshop");
    assert!(may_apply(&plain, EDGE, "apps", "deployments"));
    for (group, resource) in [
        ("rbac.authorization.k8s.io", "roles"),
        ("example.com", "widgets"),
    ] {
        assert!(!may_apply(&plain, EDGE, group, resource), "{resource}");
        assert!(may_apply(&wide, EDGE, group, resource), "{resource}");
    }
    let crds = ("apiextensions.k8s.io", "customresourcedefinitions");
    assert!(!may_apply(&plain, "", crds.0, crds.1) && may_apply(&wide, "", crds.0, crds.1));
    for set in [&plain, &wide] {
        assert!(
            !may_apply(set, SYSTEM, "apps", "deployments"),
            "not among the core"
        );
        assert!(!may_apply(set, "", "", "nodes"));
    }
    let verbs: BTreeSet<String> = rules(&wide, "baetyl-apply", EDGE)
        .iter()
        .flat_map(|rules| {
            list(rules)
                .flat_map(|rule| words(&rule["verbs"]))
                .collect::<Vec<_>>()
        })
        .map(ToOwned::to_owned)
        .collect();
    assert!(
        !verbs.contains("*") && !verbs.contains("escalate"),
        "{verbs:?}"
    );
}
