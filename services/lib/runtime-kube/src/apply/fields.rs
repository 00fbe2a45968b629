//! Where a field is that Kubernetes names in a conflict: `.spec.template.spec.containers[name="web"].image`.

use serde_json::Value;

/// The field as a JSON pointer into an object; None: the object does not have it.
pub(super) fn pointer(object: &Value, field: &str) -> Option<String> {
    let (mut pointer, mut value, mut rest) = (String::new(), object, field);
    while !rest.is_empty() {
        let step = if let Some(after) = rest.strip_prefix('.') {
            let key = longest_key(value, after)?;
            rest = &after[key.len()..];
            value = &value[key];
            key.replace('~', "~0").replace('/', "~1")
        } else {
            let inside = rest.strip_prefix('[')?;
            let end = closing(inside)?;
            let index = item(value, &inside[..end])?;
            rest = &inside[end + 1..];
            value = &value[index];
            index.to_string()
        };
        pointer.push('/');
        pointer.push_str(&step);
    }
    Some(pointer)
}

/// Keys may contain dots: the longest one there is that the text begins with.
fn longest_key<'a>(value: &Value, text: &'a str) -> Option<&'a str> {
    let keys = value.as_object()?.keys();
    let found = keys.filter(|key| {
        text.strip_prefix(key.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    });
    let longest = found.map(String::len).max()?;
    text.get(..longest)
}

/// Where the bracket ends; there may be one in a text in quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The item of a list that an index (`0`), a value (`="x"`) or keys (`name="web",protocol="TCP"`) mean. What an item does
/// not say, Kubernetes has filled in.
fn item(list: &Value, which: &str) -> Option<usize> {
    let items = list.as_array()?;
    if let Ok(index) = which.parse::<usize>() {
        return (index < items.len()).then_some(index);
    }
    let wanted: Vec<(&str, Value)> = split(which)
        .into_iter()
        .map(|part| {
            let (key, value) = part.split_once('=')?;
            Some((key, serde_json::from_str(value).ok()?))
        })
        .collect::<Option<_>>()?;
    items.iter().position(|item| {
        wanted.iter().all(|(key, value)| {
            if key.is_empty() {
                item == value
            } else {
                item.get(key).is_none_or(|own| own == value)
            }
        })
    })
}

/// Parts between commas that are in no text.
fn split(which: &str) -> Vec<&str> {
    let (mut parts, mut quoted, mut from) = (Vec::new(), false, 0);
    for (at, letter) in which.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&which[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&which[from..]);
    parts
}

/// Takes a field away; false: there is none.
pub(super) fn remove(object: &mut Value, pointer: &str) -> bool {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        return false;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(parent) {
        Some(Value::Object(fields)) => fields.remove(&last).is_some(),
        Some(Value::Array(items)) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_found_by_the_name_kubernetes_gives_it() {
        let mut object = json!({
            "metadata": {"labels": {"app": "x", "app.kubernetes.io/name": "y"}, "finalizers": ["a", "b"]},
            "spec": {"containers": [
                {"name": "a", "image": "one"},
                {"name": "w]b", "image": "two", "args": ["1"], "ports": [
                    {"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "hostPort": 1},
                ]},
            ]},
        });
        for (field, found) in [
            (".metadata.labels.app", "/metadata/labels/app"),
            (
                ".metadata.labels.app.kubernetes.io/name",
                "/metadata/labels/app.kubernetes.io~1name",
            ),
            (".metadata.finalizers[=\"b\"]", "/metadata/finalizers/1"),
            (
                ".spec.containers[name=\"w]b\"].image",
                "/spec/containers/1/image",
            ),
            (".spec.containers[0].image", "/spec/containers/0/image"),
            (
                ".spec.containers[name=\"w]b\"].ports[containerPort=80,protocol=\"TCP\"].hostPort",
                "/spec/containers/1/ports/1/hostPort",
            ),
        ] {
            assert_eq!(pointer(&object, field).as_deref(), Some(found), "{field}");
        }
        for absent in [
            ".spec.replicas",
            ".spec.containers[name=\"c\"]",
            ".spec.containers[7]",
            ".spec.containers[name=\"a\"",
            "spec",
        ] {
            assert_eq!(pointer(&object, absent), None, "{absent}");
        }
        assert!(remove(
            &mut object,
            "/metadata/labels/app.kubernetes.io~1name"
        ));
        assert!(remove(&mut object, "/spec/containers/0"));
        assert!(!remove(&mut object, "/spec/replicas"));
        assert_eq!(object["spec"]["containers"][0]["image"], "two");
        assert_eq!(object["metadata"]["labels"], json!({"app": "x"}));
    }
}
