//! One text for one set of objects, whatever wrote them down: sorted, without comments, in the order to be applied in.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::Value;

/// Kinds in the order in which they are applied: what others live in, refer to or are admitted by comes first. A kind that
/// is missing here is refused, so that somebody thinks about its place.
const ORDER: &[&str] = &[
    "Namespace",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "NetworkPolicy",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Service",
    "Deployment",
    "Job",
];

/// The documents of `built` in their order, keys sorted.
///
/// # Errors
/// When it is not YAML, or an object has no kind, no name, or a kind without a place.
pub(super) fn text(built: &str) -> Result<String> {
    let mut documents = Vec::new();
    for document in serde_norway::Deserializer::from_str(built) {
        let value = Value::deserialize(document).context("not YAML")?;
        documents.push((key(&value)?, value));
    }
    documents.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut text = String::new();
    for (_, mut value) in documents {
        value.sort_all_objects();
        text.push_str("---\n");
        text.push_str(&serde_norway::to_string(&value)?);
    }
    Ok(text)
}

/// Place of the kind, kind, namespace, name.
fn key(value: &Value) -> Result<(usize, String, String, String)> {
    let word = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let kind = word("/kind").context("an object without a kind")?;
    let name = word("/metadata/name").with_context(|| format!("a {kind} without a name"))?;
    let place = ORDER.iter().position(|one| *one == kind);
    ensure!(
        place.is_some(),
        "{kind} {name}: say in tools/xtask/src/manifests/canonical.rs when a {kind} is applied"
    );
    let namespace = word("/metadata/namespace").unwrap_or_default();
    Ok((
        place.unwrap_or_default(),
        kind.to_owned(),
        namespace.to_owned(),
        name.to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: &str = "kind: PersistentVolumeClaim\nmetadata: {namespace: b, name: n}\n";
    const SPACE: &str = "metadata: # a comment\n  name: b\nkind: Namespace\n";

    #[test]
    fn the_order_and_the_hand_of_the_writer_do_not_show() {
        let one = text(&format!("{CLAIM}---\n{SPACE}")).unwrap();
        let other = "# from elsewhere\nkind: Namespace\nmetadata:\n    name: \"b\"\n---\n"
            .to_owned()
            + "metadata:\n  name: n\n  namespace: 'b'\nkind: PersistentVolumeClaim\n";
        assert_eq!(one, text(&other).unwrap());
        assert!(one.starts_with("---\nkind: Namespace\nmetadata:\n  name: b\n---\n"));
    }

    #[test]
    fn a_text_that_looks_like_something_else_stays_a_text() {
        let label =
            "kind: Namespace\nmetadata: {name: b, labels: {core: \"true\", port: \"80\"}}\n";
        let text = text(label).unwrap();
        let back: Value = serde_norway::from_str(&text).unwrap();
        assert_eq!(back["metadata"]["labels"]["core"], "true");
        assert_eq!(back["metadata"]["labels"]["port"], "80");
    }

    #[test]
    fn a_kind_without_a_place_is_refused() {
        let error = text("kind: Gateway\nmetadata: {name: g}\n").unwrap_err();
        assert!(error.to_string().contains("when a Gateway is applied"));
    }
}
