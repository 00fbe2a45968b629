//! What engine may do in the Kubernetes API against what it did while the tests ran, by the API server's audit log: a right
//! that nothing uses is as wrong as one that is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::root;

/// Rendered with all that a node has.
const MANIFESTS: &str = "manifests/rendered/node-standard.yaml";

/// Its name, as that of its account and roles.
const ENGINE: &str = "baetyl-engine";
const USER: &str = "system:serviceaccount:baetyl-edge-system:baetyl-engine";

/// Rights that no test on a cluster uses, or whose use is in no audit log, and what they are for.
const UNSEEN: &[(&str, &str, &str)] = &[
    (
        "pods",
        "get",
        "which containers an instance has, for its log",
    ),
    ("pods/log", "get", "logs of instances"),
    ("pods", "delete", "Jobs that are started anew"),
    (
        "nodes/stats",
        "get",
        "a kubelet asks for it when engine reads its figures",
    ),
];

/// Rights engine has not, and does well without, and when it tries.
const REFUSED: &[(&str, &str, &str)] = &[(
    "nodes/proxy",
    "get",
    "figures of a kubelet that does not answer engine itself",
)];

/// API group, resource with subresource, verb.
type Right = (String, String, String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// What was asked for.
#[derive(Default)]
struct Asked {
    used: BTreeSet<Right>,
    /// And refused, with an example.
    refused: BTreeMap<Right, String>,
}

impl Asked {
    fn add(&mut self, event: Event) {
        if event.user.username != USER {
            return;
        }
        let mut use_of = |group: &str, resource: String, verb: &str| {
            self.used
                .insert((group.to_owned(), resource, verb.to_owned()));
        };
        if event.impersonated_user.is_some() {
            // What follows is done with the rights of somebody else.
            return use_of("", "serviceaccounts".to_owned(), "impersonate");
        }
        let Some(object) = event.object_ref else {
            return;
        };
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            part => format!("{}/{part}", object.resource),
        };
        let code = event.response_status.map_or(0, |status| status.code);
        if code == 403 {
            let example = format!("{} {}/{}", event.verb, object.namespace, object.name);
            let right = (object.api_group, resource, event.verb);
            self.refused.insert(right, example);
            return;
        }
        if event.verb == "patch" && code == 201 {
            // What is applied and not there is created.
            use_of(&object.api_group, resource.clone(), "create");
        }
        use_of(&object.api_group, resource, &event.verb);
    }
}

fn granted() -> Result<BTreeSet<Right>> {
    let text = std::fs::read_to_string(root().join(MANIFESTS))?;
    let mut granted = BTreeSet::new();
    for document in serde_norway::Deserializer::from_str(&text) {
        let document = Value::deserialize(document)?;
        let is_role = matches!(document["kind"].as_str(), Some("Role" | "ClusterRole"));
        if !is_role || document["metadata"]["name"] != ENGINE {
            continue;
        }
        for rule in document["rules"].as_array().context("a role has rules")? {
            for (group, resource, verb) in every(rule) {
                granted.insert((group.to_owned(), resource.to_owned(), verb.to_owned()));
            }
        }
    }
    ensure!(!granted.is_empty(), "{MANIFESTS} has no role {ENGINE}");
    Ok(granted)
}

fn every(rule: &Value) -> impl Iterator<Item = (&str, &str, &str)> {
    let words = |part: &str| rule[part].as_array().into_iter().flatten();
    words("apiGroups").flat_map(move |group| {
        words("resources").flat_map(move |resource| {
            words("verbs")
                .filter_map(move |verb| Some((group.as_str()?, resource.as_str()?, verb.as_str()?)))
        })
    })
}

fn is_among((_, resource, verb): &Right, known: &[(&str, &str, &str)]) -> bool {
    known
        .iter()
        .any(|(known, may, _)| known == resource && may == verb)
}

/// Compares the audit log of a bed in which all tests ran with the roles.
///
/// # Errors
/// When engine was refused something, or may what it did not do.
pub(super) fn check(bed: &Path) -> Result<()> {
    let log = File::open(bed.join("audit.log")).context("the audit log of the bed")?;
    let mut asked = Asked::default();
    for line in BufReader::new(log).lines() {
        // The last line may be half written.
        if let Ok(event) = serde_json::from_str(&line?) {
            asked.add(event);
        }
    }
    let refused: Vec<_> = asked
        .refused
        .iter()
        .filter(|(right, _)| !is_among(right, REFUSED))
        .collect();
    ensure!(refused.is_empty(), "engine was refused: {refused:#?}");
    let unused: Vec<String> = granted()?
        .iter()
        .filter(|right| !asked.used.contains(*right) && !is_among(right, UNSEEN))
        .map(|(group, resource, verb)| format!("{verb} {resource}.{group}"))
        .collect();
    ensure!(
        unused.is_empty(),
        "engine may what it never did (manifests/base/baetyl-engine/rbac.yaml): {unused:#?}"
    );
    println!("engine used all rights it has, and was refused none");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(lines: &[&str]) -> Asked {
        let mut asked = Asked::default();
        for line in lines {
            asked.add(serde_json::from_str(line).unwrap());
        }
        asked
    }

    #[test]
    fn what_is_applied_is_patched_and_created_and_what_others_ask_is_nothing() {
        let asked = asked(&[
            r#"{"verb":"patch","user":{"username":"system:serviceaccount:baetyl-edge-system:baetyl-engine"},
                "objectRef":{"resource":"deployments","apiGroup":"apps","namespace":"baetyl-edge","name":"web"},
                "responseStatus":{"code":201}}"#,
            r#"{"verb":"list","user":{"username":"admin"},"objectRef":{"resource":"pods"},"responseStatus":{"code":200}}"#,
            r#"{"verb":"patch","user":{"username":"system:serviceaccount:baetyl-edge-system:baetyl-engine"},
                "impersonatedUser":{"username":"x"},"objectRef":{"resource":"robots"},"responseStatus":{"code":403}}"#,
            r#"{"verb":"get","user":{"username":"system:serviceaccount:baetyl-edge-system:baetyl-engine"},
                "objectRef":{"resource":"pods","subresource":"log","name":"a"},"responseStatus":{"code":403}}"#,
            r#"{"verb":"get","user":{"username":"system:serviceaccount:baetyl-edge-system:baetyl-engine"},
                "objectRef":{"resource":"nodes","subresource":"proxy","name":"edge0"},"responseStatus":{"code":403}}"#,
        ]);
        let used: Vec<String> = asked
            .used
            .iter()
            .map(|(_, what, verb)| format!("{verb} {what}"))
            .collect();
        assert_eq!(
            used,
            [
                "impersonate serviceaccounts",
                "create deployments",
                "patch deployments"
            ]
        );
        let refused: Vec<_> = asked.refused.keys().collect();
        assert_eq!(refused.len(), 2);
        assert!(is_among(refused[0], REFUSED) && !is_among(refused[1], REFUSED));
    }

    #[test]
    fn the_roles_of_engine_are_found() {
        let granted = granted().unwrap();
        let right = |group: &str, what: &str, verb: &str| {
            (group.to_owned(), what.to_owned(), verb.to_owned())
        };
        assert!(granted.contains(&right("apps", "deployments", "patch")));
        assert!(granted.contains(&right("", "nodes", "watch")));
    }
}
