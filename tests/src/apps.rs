//! Applications that demo and tests deploy, as `baetylctl` documents and as REST bodies.

use anyhow::Result;
use serde_json::{Value, json};

use crate::rest::Rest;

/// The program of application `web`.
pub const WEB_PY: &str = include_str!("../../docs/examples/demo/web.py");
/// The functions of application `greet`.
pub const GREET_PY: &str = include_str!("../../docs/examples/demo/greet.py");
const DEMO_YAML: &str = include_str!("../../docs/examples/demo/demo.yaml");

/// The documents of the demo, with the programs in place of `${file}`.
#[must_use]
pub fn demo_yaml() -> String {
    let quote = |text: &str| Value::from(text).to_string();
    DEMO_YAML
        .replace("\"${web.py}\"", &quote(WEB_PY))
        .replace("\"${greet.py}\"", &quote(GREET_PY))
}

/// A configuration of plain keys.
#[must_use]
pub fn config(name: &str, data: &[(&str, &str)]) -> Value {
    let items: Vec<Value> = data
        .iter()
        .map(|(key, value)| json!({"key": key, "value": {"type": "kv", "value": value}}))
        .collect();
    json!({"name": name, "data": items})
}

/// A native application that runs `sh -c script` on nodes with the selector.
#[must_use]
pub fn shell_app(name: &str, selector: &str, script: &str) -> Value {
    json!({
        "name": name, "type": "container", "mode": "native", "selector": selector,
        "services": [{"name": name, "command": ["/bin/sh"], "args": ["-c", script]}],
        "volumes": [],
    })
}

/// Sets an environment variable of the first service.
pub fn set_env(app: &mut Value, name: &str, value: &str) {
    let env = &mut app["services"][0]["env"];
    if !env.is_array() {
        *env = json!([]);
    }
    if let Some(list) = env.as_array_mut() {
        list.retain(|item| item["name"] != name);
        list.push(json!({"name": name, "value": value}));
    }
}

/// Creates a Python function application with this code: `f.handler` is its function `f`; anyone on the node may call it.
///
/// # Errors
/// When the cloud refuses.
pub async fn create_function(rest: &Rest, name: &str, selector: &str, code: &str) -> Result<Value> {
    let config_name = format!("{name}-code");
    rest.post("/v1/configs", &config(&config_name, &[("f.py", code)]))
        .await?;
    let volume = format!("baetyl-function-code-{name}");
    let app = json!({
        "name": name, "type": "function", "mode": "native", "selector": selector,
        "labels": {"baetyl-function-access": "anonymous"},
        "services": [{
            "name": name,
            "functionConfig": {"name": config_name, "runtime": "python3"},
            "functions": [{"name": "f", "handler": "f.handler", "codedir": "."}],
            "volumeMounts": [{"name": volume, "mountPath": "/var/lib/baetyl/code", "readOnly": true}],
        }],
        "volumes": [{"name": volume, "config": {"name": config_name}}],
    });
    rest.post("/v1/apps", &app).await
}
