//! Environment of an instance, and `$(NAME)` in commands, arguments and values as Kubernetes has it.

use std::collections::BTreeMap;
use std::path::Path;

use baetyl_model::resource::{Service, path};
use baetyl_runtime_native::InstanceId;
use baetyl_runtime_native::spec::{InstancePort, Program};

use super::{INSTANCE_VARIABLE, Request, TOKEN_FILE};

/// What the service says, what it may override, and who it is (which it may not).
pub(super) fn environment(
    request: &Request<'_>,
    service: &Service,
    id: &InstanceId,
    dir: &Path,
    ports: &[InstancePort],
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        env.insert(name.to_owned(), value);
    };
    let inside = |path: &str| dir.join(path.trim_start_matches('/')).display().to_string();
    let conf = inside(&format!("{}/conf.yml", path::CONFIG));
    set("BAETYL_CONF_FILE", conf.clone());
    set("BAETYL_CODE_PATH", inside(path::CODE));
    if request.bodies.app.kind() == "function" {
        set("BAETYL_FUNCTIONS_FILE", conf);
    }
    for port in ports.iter().filter(|port| port.declared != 0) {
        set(
            &format!("BAETYL_PORT_{}", port.declared),
            port.port.to_string(),
        );
    }
    let identity = identity(request, id, dir, ports);
    for var in &service.env {
        let known = |name: &str| identity.get(name).or_else(|| env.get(name)).cloned();
        let value = expand(&var.value, &known);
        env.insert(var.name.clone(), value);
    }
    env.extend(identity);
    env
}

fn identity(
    request: &Request<'_>,
    id: &InstanceId,
    dir: &Path,
    ports: &[InstancePort],
) -> BTreeMap<String, String> {
    let (key, place) = (&id.workload, request.place);
    let mut env: BTreeMap<String, String> = [
        ("BAETYL_APP_NAME", key.app.to_string()),
        ("BAETYL_SERVICE_NAME", key.service.to_string()),
        ("BAETYL_APP_VERSION", key.version.to_string()),
        (INSTANCE_VARIABLE, id.to_string()),
        ("BAETYL_NODE_NAME", request.node.name.clone()),
        ("BAETYL_NODE_NAMESPACE", request.node.namespace.clone()),
        ("BAETYL_RUN_MODE", "native".to_owned()),
        ("BAETYL_HOST_PATH_LIB", place.data_dir.display().to_string()),
        (
            "BAETYL_RUN_DIR",
            place.data_dir.join("run").display().to_string(),
        ),
        (
            "BAETYL_TOKEN_FILE",
            dir.join(TOKEN_FILE).display().to_string(),
        ),
        (
            "BAETYL_NODE_SOCKET",
            place.node_socket.display().to_string(),
        ),
        (
            "BAETYL_FUNCTION_SOCKET",
            place.function_socket.display().to_string(),
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if let Some(port) = ports.first() {
        env.insert(
            "BAETYL_SERVICE_DYNAMIC_PORT".to_owned(),
            port.port.to_string(),
        );
    }
    env
}

/// Puts the environment into command and arguments.
pub(super) fn expand_command(
    program: Program,
    args: &[String],
    env: &BTreeMap<String, String>,
) -> (Program, Vec<String>) {
    let known = |name: &str| env.get(name).cloned();
    let all = |words: &[String]| words.iter().map(|word| expand(word, &known)).collect();
    let program = match program {
        Program::Command(words) => Program::Command(all(&words)),
        Program::Package => Program::Package,
    };
    (program, all(args))
}

/// `$(NAME)` becomes the value, stays as it is when there is none; `$$` is a plain dollar.
pub(super) fn expand(text: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(tail) = rest.strip_prefix("$$") {
            out.push('$');
            rest = tail;
            continue;
        }
        let name = rest
            .strip_prefix("$(")
            .and_then(|tail| tail.split_once(')'));
        match name.and_then(|(name, tail)| Some((known(name)?, tail))) {
            Some((value, tail)) => {
                out.push_str(&value);
                rest = tail;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}
