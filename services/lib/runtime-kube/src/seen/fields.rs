//! Which fields of an object are ours, as one number: it is another one when somebody takes a field or lets it go.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::or_none;
use crate::names;

/// The fields that were applied in our name, whatever their values are; nothing: none was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fields(Option<u64>);

impl Fields {
    /// Whether these are others than those of before, as far as it is known which these were.
    pub(crate) fn differ_from(self, before: Self) -> bool {
        before.0.is_some() && self != before
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Manager {
    manager: Box<str>,
    operation: Box<str>,
    subresource: Box<str>,
    #[serde(rename = "fieldsV1")]
    fields: Digest,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let managers: Vec<Manager> = or_none(deserializer)?;
        let own = managers.iter().find(|manager| {
            &*manager.manager == names::FIELD_MANAGER
                && &*manager.operation == "Apply"
                && manager.subresource.is_empty()
        });
        Ok(Self(own.map(|own| own.fields.0)))
    }
}

/// Of a tree of names, whatever their order. Nothing of it is kept while it is read.
#[derive(Default)]
struct Digest(u64);

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tree of names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Digest, A::Error> {
        let mut sum = 1_u64;
        while let Some((Name(name), Digest(inside))) = map.next_entry()? {
            let mut hasher = DefaultHasher::new();
            (name, inside).hash(&mut hasher);
            sum = sum.wrapping_add(hasher.finish());
        }
        Ok(Digest(sum))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Digest, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Digest(0))
    }

    fn visit_unit<E>(self) -> Result<Digest, E> {
        Ok(Digest(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Digest, E> {
        Ok(Digest(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Digest, E> {
        Ok(Digest(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Digest, E> {
        Ok(Digest(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Digest, E> {
        Ok(Digest(0))
    }

    fn visit_str<E>(self, _: &str) -> Result<Digest, E> {
        Ok(Digest(0))
    }
}

struct Name(u64);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Word)
    }
}

struct Word;

impl Visitor<'_> for Word {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Ok(Name(hasher.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fields(own: Value) -> Fields {
        let managers = json!([
            {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:x": {}}}},
            {"manager": "baetyl-engine", "operation": "Update", "fieldsV1": {"f:status": {}}},
            {"manager": "baetyl-engine", "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": own},
        ]);
        // From text, as from an API server.
        serde_json::from_str(&managers.to_string()).unwrap()
    }

    #[test]
    fn fields_are_the_same_whatever_their_order_and_others_when_one_is_gone() {
        let text = r#"[{"manager": "baetyl-engine", "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:ports": {"k:{\"port\":80}": {".": {}, "f:port": {}}}, "f:selector": {}}}}]"#;
        let one: Fields = serde_json::from_str(text).unwrap();
        let same = fields(
            json!({"f:spec": {"f:selector": {}, "f:ports": {"k:{\"port\":80}": {"f:port": {}, ".": {}}}}}),
        );
        assert_eq!(one, same);
        assert!(!one.differ_from(same));
        for other in [
            json!({"f:spec": {"f:selector": {}, "f:ports": {"k:{\"port\":80}": {"f:port": {}}}}}),
            json!({"f:spec": {"f:ports": {"k:{\"port\":80}": {"f:port": {}, ".": {}}}}}),
            json!({"f:selector": {}, "f:spec": {"f:ports": {"k:{\"port\":80}": {"f:port": {}, ".": {}}}}}),
            json!({}),
        ] {
            assert!(fields(other.clone()).differ_from(one), "{other}");
        }
        let gone: Fields = serde_json::from_str("null").unwrap();
        assert_eq!(gone, Fields::default());
        assert!(gone.differ_from(one));
        // Of what was never known nobody can tell.
        assert!(!one.differ_from(gone));
    }

    #[test]
    fn what_is_no_tree_is_read_all_the_same() {
        for strange in [
            json!(null),
            json!([{"a": 1}]),
            json!({"f:x": [1, true, 0.5, -1, "x"]}),
        ] {
            assert_ne!(fields(strange), Fields::default());
        }
    }
}
