//! Nodes.

use super::{FieldError, Findings};
use crate::name::NodeName;
use crate::resource::node::{NODE_MODES, NodeInput, SYS_APPS};

/// All mistakes of a node; none: it is acceptable as far as it tells by itself.
pub fn validate_node(node: &NodeInput) -> Vec<FieldError> {
    let mut found = Vec::new();
    let mut findings = Findings {
        path: String::new(),
        found: &mut found,
    };
    findings.name("name", NodeName::new(node.name.as_str()));
    findings.labels(&node.labels);
    findings.one_of("nodeMode", &node.node_mode, &NODE_MODES);
    if node.cluster && node.mode() == "native" {
        findings.add(
            "cluster",
            "a native node is one machine; a cluster needs nodeMode kube",
        );
    }
    for app in &node.sys_apps {
        if !SYS_APPS.contains(&app.as_str()) {
            findings.add("sysApps", format!("sysapp ({app}) is not supported"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(body: serde_json::Value) -> Vec<String> {
        let node: NodeInput = serde_json::from_value(body).unwrap();
        validate_node(&node)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_node_needs_a_name_and_nothing_else() {
        assert_eq!(found(json!({"name": "n1"})), [""; 0]);
        assert_eq!(found(json!({})).len(), 1);
        assert_eq!(
            found(json!({"name": "n1", "nodeMode": "native", "sysApps": ["baetyl-rule"]})),
            [""; 0]
        );
    }

    #[test]
    fn every_mistake_of_a_node_is_named_with_its_field() {
        let wrong = found(json!({
            "name": "UPPER", "labels": {"a b": "c"}, "nodeMode": "docker", "sysApps": ["x", "y"],
        }));
        let fields: Vec<_> = wrong
            .iter()
            .map(|error| error.split(':').next().unwrap())
            .collect();
        assert_eq!(fields, ["name", "labels", "nodeMode", "sysApps", "sysApps"]);
        assert_eq!(wrong[2], "nodeMode: \"docker\" is not one of kube, native");
    }

    #[test]
    fn a_cluster_is_not_native() {
        let wrong = found(json!({"name": "n1", "cluster": true, "nodeMode": "native"}));
        assert_eq!(
            wrong,
            ["cluster: a native node is one machine; a cluster needs nodeMode kube"]
        );
        assert_eq!(found(json!({"name": "n1", "cluster": true})), [""; 0]);
    }
}
