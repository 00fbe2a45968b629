//! What somebody applied of a live object: Kubernetes notes for each field who manages it.

use baetyl_runtime_kube::Object;
use serde_json::{Map, Value, json};

#[cfg(test)]
mod tests;

/// The fields of a live object that this manager applied, as they are now: applying them changes nothing, and brings them
/// back later. None: it applied nothing of this object.
pub(super) fn owned(live: &Value, manager: &str) -> Option<Object> {
    let applied = live.pointer("/metadata/managedFields")?.as_array()?;
    let applied = applied.iter().find(|entry| {
        entry["manager"] == manager
            && entry["operation"] == "Apply"
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
    })?;
    let fields = applied.get("fieldsV1")?.as_object()?;
    let mut body = take(live, fields);
    for name in ["apiVersion", "kind"] {
        body[name] = live[name].clone();
    }
    let metadata = body.as_object_mut()?.entry("metadata").or_insert(json!({}));
    for name in ["name", "namespace"] {
        if let Some(value) = live["metadata"].get(name) {
            metadata[name] = value.clone();
        }
    }
    Object::read(body)
}

/// The part of a value that these fields name. `.` stands for the value itself, `f:` for a field, `k:` for the item of a
/// list with these keys, `v:` for an item that is this value. No fields: the whole value is one piece.
fn take(live: &Value, fields: &Map<String, Value>) -> Value {
    let inner = || {
        let named = fields.iter().filter(|(name, _)| *name != ".");
        named.filter_map(|(name, fields)| Some((name.as_str(), fields.as_object()?)))
    };
    match live {
        Value::Object(map) if !fields.is_empty() => {
            let mut taken = Map::new();
            for (name, fields) in inner() {
                let field = name.strip_prefix("f:");
                if let Some((name, value)) = field.and_then(|name| map.get_key_value(name)) {
                    taken.insert(name.clone(), take(value, fields));
                }
            }
            Value::Object(taken)
        }
        Value::Array(items) if !fields.is_empty() => {
            let taken = items.iter().filter_map(|item| {
                inner().find_map(|(name, fields)| take_item(item, name, fields))
            });
            taken.collect()
        }
        whole => whole.clone(),
    }
}

fn take_item(item: &Value, name: &str, fields: &Map<String, Value>) -> Option<Value> {
    if let Some(value) = name.strip_prefix("v:") {
        let value: Value = serde_json::from_str(value).ok()?;
        return (value == *item).then_some(value);
    }
    let keys: Map<String, Value> = serde_json::from_str(name.strip_prefix("k:")?).ok()?;
    if !keys.iter().all(|(key, value)| item.get(key) == Some(value)) {
        return None;
    }
    let mut taken = take(item, fields);
    // Also those that were left to their defaults: they say which item it is.
    if let Some(taken) = taken.as_object_mut() {
        taken.extend(keys);
    }
    Some(taken)
}
