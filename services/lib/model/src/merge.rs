//! JSON merge patch (RFC 7396): how shadows and property changes are combined. No depth limit: nothing recurses.

use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

/// Applies `patch` to `target`: objects merge, `null` removes, everything else replaces.
///
/// Depth is limited by memory only; a deep value read by `serde_json` is limited to 128 levels there.
pub fn apply(target: &mut Value, patch: Value) {
    // Pairs still to merge; a work list instead of recursion, so that depth cannot exhaust the stack.
    let mut work: Vec<(&mut Value, Value)> = vec![(target, patch)];
    while let Some((target, patch)) = work.pop() {
        let Value::Object(patch) = patch else {
            *target = patch;
            continue;
        };
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        let Value::Object(fields) = target else {
            continue;
        };
        let mut changes = Map::new();
        for (key, value) in patch {
            match value {
                Value::Null => {
                    fields.remove(&key);
                }
                value => {
                    fields.entry(key.as_str()).or_insert(Value::Null);
                    changes.insert(key, value);
                }
            }
        }
        for (key, field) in fields.iter_mut() {
            if let Some(change) = changes.remove(key) {
                work.push((field, change));
            }
        }
    }
}

/// The patch that makes `target` out of `source`: keys only in `source` become `null`, arrays travel whole.
///
/// Applying it gives `target`, except that a `null` inside an object of `target` means "absent" in this format.
pub fn create(source: &Value, target: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (source, target) else {
        return target.clone();
    };
    let mut patch = Value::Object(Map::new());
    let mut work = vec![(before, after, &mut patch)];
    while let Some((before, after, patch)) = work.pop() {
        let Value::Object(patch) = patch else {
            continue;
        };
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        let mut inner = Vec::new();
        for (key, value) in after {
            match (before.get(key), value) {
                (Some(old), new) if old == new => {}
                (Some(Value::Object(old)), Value::Object(new)) => {
                    patch.insert(key.clone(), Value::Object(Map::new()));
                    inner.push((key, old, new));
                }
                _ => {
                    patch.insert(key.clone(), value.clone());
                }
            }
        }
        for (key, slot) in patch.iter_mut() {
            if let Some(at) = inner.iter().position(|(name, ..)| *name == key) {
                let (_, old, new) = inner.swap_remove(at);
                work.push((old, new, slot));
            }
        }
    }
    patch
}

/// [`create`] without the `null`s, at every depth: Baetyl v2's "delta", which adds and changes but never removes.
pub fn create_without_nulls(source: &Value, target: &Value) -> Value {
    let mut patch = create(source, target);
    strip_nulls(&mut patch);
    patch
}

/// Removes every `null` member of every object; arrays are left as they are.
pub fn strip_nulls(value: &mut Value) {
    let mut work = vec![value];
    while let Some(value) = work.pop() {
        if let Value::Object(fields) = value {
            fields.retain(|_, field| !field.is_null());
            work.extend(fields.values_mut());
        }
    }
}
