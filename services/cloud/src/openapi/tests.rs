use std::collections::BTreeSet;

use baetyl_model::resource::{Application, ConfigurationView, Registry, SecretView};
use serde_json::Value;

use super::*;

/// All `$ref`s below a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                found.insert(target.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = build();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn operation_ids_are_unique_and_every_operation_says_who_may_do_it() {
    let document = build();
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods
            .as_object()
            .unwrap()
            .iter()
            .filter(|(method, _)| *method != "parameters")
        {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{method} {path}"
            );
            if path == "/v1/active" || path.starts_with("/v1/init/") {
                assert!(operation["servers"].is_array(), "{path}");
                continue;
            }
            let is_open = operation["security"] == json!([]);
            assert_eq!(is_open, !path.starts_with("/v1/"), "{method} {path}");
            assert_ne!(
                is_open,
                operation["description"].is_string(),
                "{method} {path}"
            );
        }
    }
    assert_eq!(ids.len(), operations().len() + 4, "and activation");
}

#[test]
fn versions_in_headers_and_both_forms_of_errors_are_described() {
    let document = build();
    let of = |path: &str, method: &str| document["paths"][path][method].clone();
    let names = |operation: &Value| -> Vec<String> {
        let parameters = operation["parameters"].as_array().cloned();
        let headers = parameters.unwrap_or_default().into_iter();
        let headers = headers.filter(|parameter| parameter["in"] == "header");
        headers
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let get = of("/v1/apps/{name}", "get");
    assert_eq!(names(&get), ["If-None-Match"]);
    assert!(get["responses"]["200"]["headers"]["ETag"].is_object());
    assert!(get["responses"]["304"].is_object());
    let put = of("/v1/nodes/{name}/properties", "put");
    assert_eq!(names(&put), ["If-Match"]);
    assert!(put["responses"]["412"].is_object());
    let node = of("/v1/nodes/{name}", "get");
    assert!(node["responses"]["200"]["headers"]["ETag"].is_object());
    assert!(
        node["responses"]["304"].is_null(),
        "its report changes without"
    );
    assert!(of("/v1/apps", "get")["responses"]["200"]["headers"].is_null());
    for operation in [&get, &of("/v1/active", "post")] {
        let content = &operation["responses"]["default"]["content"];
        assert!(content["application/problem+json"].is_object());
    }
    assert_eq!(
        document["components"]["schemas"]["ActiveRequest"]["properties"]["installToken"]["type"],
        "string"
    );
}

#[test]
fn the_resources_are_described_to_their_end() {
    assert!(schema::is_traceable::<Application>());
    assert!(schema::is_traceable::<ConfigurationView>());
    assert!(schema::is_traceable::<SecretView>());
    assert!(schema::is_traceable::<Registry>());
    let document = build();
    let at = |pointer: &str| {
        document
            .pointer(&format!("/components/schemas/{pointer}"))
            .unwrap_or(&Value::Null)
            .clone()
    };
    assert_eq!(
        at("Application/properties/services"),
        json!({"type": "array", "items": {"$ref": "#/components/schemas/Service"}})
    );
    assert_eq!(at("Application/properties/type"), json!({"type": "string"}));
    assert_eq!(
        at("Service/properties/livenessProbe"),
        json!({"$ref": "#/components/schemas/Probe"})
    );
    assert_eq!(
        at("Volume/properties/config"),
        json!({"$ref": "#/components/schemas/Reference"})
    );
    assert_eq!(at("NodeView/properties/ready/type"), json!("integer"));
    assert_eq!(
        at("SecretView/properties/data"),
        json!({"type": "object", "additionalProperties": {"type": "string"}})
    );
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    assert!(!PAGE.contains("http://") && !PAGE.contains("https://"));
    assert!(PAGE.contains("/openapi.json"));
}
