//! What a YAML application consists of: a ConfigMap that says, for each of its versions, of which kinds there are objects
//! and in which namespaces. Which objects these are the labels say. It is written before the first object, so that
//! nothing is left behind whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use baetyl_model::workload::WorkloadKey;
use serde_json::json;

use crate::names;
use crate::object::Object;
use crate::seen::INVENTORY;

/// Kinds and the namespaces they are in.
pub(crate) type Kinds = BTreeSet<Kind>;

/// A kind of which there are objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Empty: of the cluster.
    pub(crate) namespace: String,
}

/// Stands for no namespace.
const CLUSTER: &str = "-";

/// Name of the ConfigMap.
pub(crate) fn name(app: &str) -> String {
    format!("baetyl-inventory-{app}")
}

/// Kinds of some objects.
pub(crate) fn kinds(objects: &[Object]) -> Kinds {
    let kinds = objects.iter().map(|object| Kind {
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        namespace: object.namespace.clone(),
    });
    kinds.collect()
}

/// The kinds as one entry of the ConfigMap.
pub(crate) fn write(kinds: &Kinds) -> String {
    let line = |kind: &Kind| {
        let namespace = match kind.namespace.as_str() {
            "" => CLUSTER,
            namespace => namespace,
        };
        format!("{} {} {namespace}\n", kind.api_version, kind.kind)
    };
    kinds.iter().map(line).collect()
}

/// The kinds of one entry; lines that are none are left out.
pub(crate) fn read(entry: &str) -> Kinds {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (api_version, kind, namespace) = (words.next()?, words.next()?, words.next()?);
        let namespace = if namespace == CLUSTER {
            String::new()
        } else {
            namespace
        };
        Some(Kind {
            api_version,
            kind,
            namespace,
        })
    };
    entry.lines().filter_map(line).collect()
}

/// Namespaces it tells of.
pub(crate) fn namespaces(data: &BTreeMap<String, String>) -> BTreeSet<String> {
    let kinds = data.values().flat_map(|entry| read(entry));
    kinds
        .map(|kind| kind.namespace)
        .filter(|namespace| !namespace.is_empty())
        .collect()
}

/// The ConfigMap. `last` is the version that was applied last.
pub(crate) fn object(key: &WorkloadKey, last: &str, data: &BTreeMap<String, String>) -> Object {
    let name = name(key.app.as_str());
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": key.namespace,
            "labels": {
                names::MANAGED_BY: names::MANAGER,
                names::APP_NAME: key.app,
                names::APP_VERSION: last,
                INVENTORY: "true",
            },
        },
        "data": data,
    });
    Object {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: key.namespace.to_string(),
        name,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_were_written() {
        let kinds = Kinds::from([
            Kind {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                namespace: "shop".to_owned(),
            },
            Kind {
                api_version: "v1".to_owned(),
                kind: "Namespace".to_owned(),
                namespace: String::new(),
            },
        ]);
        let text = write(&kinds);
        assert_eq!(text, "apps/v1 Deployment shop\nv1 Namespace -\n");
        assert_eq!(read(&text), kinds);
        assert_eq!(read("nonsense\n\napps/v1 Deployment shop\n").len(), 1);
        let data = BTreeMap::from([("7".to_owned(), text)]);
        assert_eq!(namespaces(&data), BTreeSet::from(["shop".to_owned()]));
    }
}
