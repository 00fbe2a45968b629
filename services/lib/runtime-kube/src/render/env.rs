//! Environment of a container. Kubernetes itself puts `$(NAME)` into values, commands and arguments, for names that
//! stand before.

use std::collections::BTreeMap;

use baetyl_model::resource::{Service, path};
use serde_json::{Value, json};

use super::build::Build;
use super::fields::Fields;

/// A variable of ours.
pub(super) fn own(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// One that Kubernetes fills in.
fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// Who it is (which the service may not override), what the service may override, what the service says: in this order,
/// so that the service can refer to the others.
pub(super) fn environment(
    build: &mut Build<'_>,
    service: &Service,
    identity_path: Option<&str>,
) -> Vec<Value> {
    let identity = identity(build, service, identity_path);
    let name = |variable: &Value| variable["name"].as_str().map(str::to_owned);
    let taken: Vec<String> = identity.iter().filter_map(name).collect();
    // The last one counts, as everywhere; applying refuses a name that is there twice.
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, variable) in service.env.iter().enumerate() {
        if taken.contains(&variable.name) {
            build.warn(format!(
                "service {}: {} is set by Baetyl; the value of the application does not count",
                service.name, variable.name
            ));
        } else if last.insert(&variable.name, at).is_some() {
            build.warn(format!(
                "service {}: {} is there twice; the last value counts",
                service.name, variable.name
            ));
        }
    }
    let mut env = identity;
    let defaults = defaults(build);
    env.extend(
        defaults
            .into_iter()
            .filter(|(name, _)| !last.contains_key(name))
            .map(|(name, value)| own(name, &value)),
    );
    let given = service.env.iter().enumerate();
    env.extend(
        given
            .filter(|(at, variable)| last.get(variable.name.as_str()) == Some(at))
            .map(|(_, variable)| {
                let entry = Fields::new()
                    .with("name", variable.name.as_str())
                    .given("value", variable.value.as_str());
                entry.into()
            }),
    );
    env
}

fn defaults(build: &Build<'_>) -> Vec<(&'static str, String)> {
    let conf = format!("{}/conf.yml", path::CONFIG);
    let mut defaults = vec![
        ("BAETYL_CONF_FILE", conf.clone()),
        ("BAETYL_CODE_PATH", path::CODE.to_owned()),
    ];
    if build.app.kind() == "function" {
        defaults.push(("BAETYL_FUNCTIONS_FILE", conf));
    }
    defaults
}

fn identity(build: &Build<'_>, service: &Service, path: Option<&str>) -> Vec<Value> {
    let (place, node) = (build.request.place, build.request.node);
    let mut env = vec![
        own("BAETYL_APP_NAME", build.name),
        own("BAETYL_APP_VERSION", build.version),
        own("BAETYL_SERVICE_NAME", &service.name),
        field("BAETYL_INSTANCE_NAME", "metadata.name"),
        field("KUBE_NODE_NAME", "spec.nodeName"),
        own("BAETYL_NODE_NAME", &node.name),
        own("BAETYL_NODE_NAMESPACE", &node.namespace),
        own("BAETYL_RUN_MODE", "kube"),
        own("BAETYL_HOST_PATH_LIB", &place.host_path_lib),
        own("BAETYL_NODE_ADDRESS", &place.node_address),
        own("BAETYL_FUNCTION_ADDRESS", &place.function_address),
    ];
    if let Some(path) = path {
        env.push(own("BAETYL_TOKEN_FILE", &format!("{path}/token")));
        env.push(own("BAETYL_CA_FILE", &format!("{path}/ca.pem")));
    }
    env
}
