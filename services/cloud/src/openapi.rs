//! The OpenAPI 3.1 document of the REST interface, made from its table of operations, and a page that shows it.
//!
//! Schemas are made from the types themselves: [`schema`] runs their `Deserialize` and writes down what it asks for. So
//! a field that can be read is in the document, and one that cannot is not.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use crate::rest::{Operation, PROBLEM_JSON, Versions, operations};

mod schema;

#[cfg(test)]
mod tests;

pub(crate) use schema::{Shape, shape};

/// Query parameters every list takes.
const LIST_QUERY: [&str; 4] = ["selector", "name", "pageNo", "pageSize"];

const PAGE: &str = include_str!("openapi/page.html");

/// `GET /openapi.json`
pub(crate) async fn document() -> Response {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    answer(
        "application/json; charset=utf-8",
        DOCUMENT.get_or_init(|| build().to_string()).as_str(),
    )
}

/// `GET /docs`
pub(crate) async fn page() -> Response {
    let mut response = answer("text/html; charset=utf-8", PAGE);
    // Nothing is loaded from anywhere else.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn answer(kind: &'static str, body: &'static str) -> Response {
    let mut response = Response::new(Body::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The whole document.
pub(crate) fn build() -> Value {
    let mut schemas = BTreeMap::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations() {
        let described = describe(&operation, &mut schemas);
        let methods = paths.entry(operation.path).or_default();
        methods.insert(operation.method.as_str().to_lowercase(), described);
    }
    for (path, methods) in &mut paths {
        if path.contains("{name}") {
            let name = json!({"name": "name", "in": "path", "required": true, "schema": {"type": "string"}});
            methods.insert("parameters".to_owned(), json!([name]));
        }
    }
    paths.insert("/v1/active", activation(&mut schemas));
    paths.extend(installation());
    schemas.insert("Error".to_owned(), error_schema());
    schemas.insert("Problem".to_owned(), problem_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Baetyl cloud",
            "version": baetyl_kit::VERSION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Nodes, applications, configurations and secrets of one namespace: that of the token. \
                Single resources carry their version as ETag; If-Match makes a write conditional (412). Unknown fields \
                of a body are answered with Warning headers, or refused with ?fieldValidation=Strict.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "install": {"type": "http", "scheme": "bearer", "description": "An install token"},
            },
            "schemas": schemas,
        },
    })
}

/// Activation of nodes: on a port of its own, not part of the table.
fn activation(schemas: &mut BTreeMap<String, Value>) -> Map<String, Value> {
    let (takes, gives) = crate::activation::shapes();
    let described = json!({
        "operationId": "postActive",
        "summary": "Exchange an install token and a signing request for an identity",
        "description": "For machines, with the token of an install command. The authority is pinned by that command.",
        "tags": ["active"],
        "security": [],
        "servers": activation_servers(),
        "requestBody": {"required": true, "content": {"application/json": {"schema": takes(schemas)}}},
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": gives(schemas)}}},
            "default": error_response("An error; problem+json for those who accept it"),
        },
    });
    Map::from_iter([("post".to_owned(), described)])
}

fn activation_servers() -> Value {
    json!([{
        "url": "https://{host}:{port}",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "9003"}},
    }])
}

/// What the install command of a cluster fetches, from where activation is.
fn installation() -> Vec<(&'static str, Map<String, Value>)> {
    let query = ["class", "registry", "pullSecret", "distribution"];
    let query =
        query.map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
    let of = |path, id: &str, summary: &str, kind: &str, parameters: &[Value]| {
        let mut described = json!({
            "operationId": id,
            "summary": summary,
            "description": "For clusters, with the token of an install command as bearer.",
            "tags": ["init"],
            "security": [{"install": []}],
            "servers": activation_servers(),
            "responses": {
                "200": {"description": "Done", "content": {kind: {}}},
                "429": error_response("Too many requests from one address"),
                "default": error_response("An error; problem+json for those who accept it"),
            },
        });
        if !parameters.is_empty() {
            described["parameters"] = json!(parameters);
        }
        (path, Map::from_iter([("get".to_owned(), described)]))
    };
    vec![
        of(
            "/v1/init/kube/install.sh",
            "getInitKubeInstall",
            "The script that makes a cluster a node",
            "text/x-shellscript",
            &[],
        ),
        of(
            "/v1/init/kube/manifests",
            "getInitKubeManifests",
            "The manifests of a node, for its class",
            "application/yaml",
            &query,
        ),
        of(
            "/v1/init/kube/state",
            "getInitKubeState",
            "Whether the node is there: uninstalled, online, offline",
            "application/json",
            &[],
        ),
    ]
}

fn error_response(description: &str) -> Value {
    json!({
        "description": description,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Error"}},
            PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
    })
}

fn mistakes_schema() -> Value {
    let text = json!({"type": "string"});
    let mistake = json!({"type": "object", "properties": {"field": text, "message": text}});
    json!({"type": "array", "items": mistake})
}

/// RFC 9457, with Baetyl v2's code and the request id.
fn problem_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "requestId"],
        "properties": {
            "type": text, "title": text, "status": {"type": "integer"}, "detail": text, "code": text,
            "requestId": text, "errors": mistakes_schema(),
        },
    })
}

/// What an operation says in headers about versions.
fn add_versions(described: &mut Value, versions: Versions) {
    let mut headers = Vec::new();
    let mut add = |name: &str, description: &str| {
        headers.push(json!({
            "name": name, "in": "header", "description": description, "schema": {"type": "string"},
        }));
    };
    if versions.if_match {
        add("If-Match", "Write only to this version");
        described["responses"]["412"] = error_response("It was changed since it was read");
    }
    if versions.if_none_match {
        add("If-None-Match", "Answer only when there is another version");
        described["responses"]["304"] = json!({
            "description": "It is this version; no body", "headers": etag_header(),
        });
    }
    if versions.tagged {
        described["responses"]["200"]["headers"] = etag_header();
    }
    if !headers.is_empty() {
        match described["parameters"].as_array_mut() {
            Some(parameters) => parameters.extend(headers),
            None => described["parameters"] = Value::Array(headers),
        }
    }
}

fn etag_header() -> Value {
    json!({"ETag": {"description": "The version, in quotes", "schema": {"type": "string"}}})
}

fn error_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["code", "message", "requestId"],
        "properties": {
            "code": text, "message": text, "requestId": text,
            "errors": mistakes_schema(),
        },
    })
}

fn describe(operation: &Operation, schemas: &mut BTreeMap<String, Value>) -> Value {
    use crate::rest::{Input, Output};
    let mut query: Vec<&str> = operation.query.to_vec();
    let ok = match &operation.output {
        Output::Json(shape) => json!({"application/json": {"schema": shape(schemas)}}),
        Output::List(shape) => {
            query.extend(LIST_QUERY);
            let items = json!({"type": "array", "items": shape(schemas)});
            let list = json!({
                "type": "object",
                "required": ["total", "items"],
                "properties": {"total": {"type": "integer"}, "items": items},
            });
            json!({"application/json": {"schema": list}})
        }
        Output::Html => json!({"text/html": {}}),
    };
    let error = error_response("An error; problem+json for those who accept it");
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "tags": [tag(operation.path)],
        "responses": {"200": {"description": "Done", "content": ok}, "default": error},
    });
    match operation.role {
        Some(role) => described["description"] = json!(format!("Needs the role {role}.")),
        None => described["security"] = json!([]),
    }
    let body = match &operation.input {
        Input::None => None,
        Input::Json(shape) => {
            query.push("fieldValidation");
            Some(json!({"application/json": {"schema": shape(schemas)}}))
        }
        Input::Bytes => Some(json!({"application/octet-stream": {}})),
    };
    if let Some(content) = body {
        described["requestBody"] = json!({"required": true, "content": content});
    }
    if !query.is_empty() {
        let parameter =
            |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
        described["parameters"] = query.iter().map(parameter).collect();
    }
    add_versions(&mut described, operation.versions);
    described
}

/// "getNodesNameStats"
fn operation_id(operation: &Operation) -> String {
    let words = operation
        .path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !matches!(*word, "" | "v1"));
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    operation.method.as_str().to_lowercase() + &words.map(capital).collect::<String>()
}

/// The kind of thing a path is about.
fn tag(path: &str) -> &str {
    path.strip_prefix("/v1/")
        .map_or("cloud", |rest| rest.split('/').next().unwrap_or(rest))
}
