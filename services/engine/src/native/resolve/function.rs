//! Function services: the runtime that is started, its functions file and its code.

use baetyl_model::resource::{Service, path};
use baetyl_runtime_native::spec::{Content, FileSpec, Mount};
use serde::Serialize;

use super::mounts::config_mount;
use super::{Request, ResolveError};

/// The command of the runtime a function service runs on; None: it is started as any program.
pub(super) fn runtime(
    request: &Request<'_>,
    service: &Service,
) -> Result<Option<Vec<String>>, ResolveError> {
    if request.bodies.app.kind() != "function" || !service.command.is_empty() {
        return Ok(None);
    }
    let wanted = service
        .function_config
        .as_ref()
        .map_or("", |config| config.runtime.as_str());
    if let Some(command) = request.place.runtimes.get(wanted) {
        return Ok(Some(command.clone()));
    }
    if service.mount_at(path::PROGRAM).is_some() {
        // A package that brings its own runtime, as those of Baetyl v2 do.
        return Ok(None);
    }
    let known: Vec<&str> = request.place.runtimes.keys().map(String::as_str).collect();
    Err(ResolveError::Runtime {
        service: service.name.clone(),
        runtime: wanted.to_owned(),
        known: if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        },
    })
}

#[derive(Serialize)]
struct Conf<'a> {
    functions: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    handler: &'a str,
    codedir: &'a str,
    #[serde(rename = "timeoutMs", skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u32>,
}

/// The cloud sends a functions file at `/etc/baetyl` and the author mounts the code; what is missing of the two is made
/// from the application itself.
pub(super) fn add_code_and_conf(
    request: &Request<'_>,
    service: &Service,
    mounts: &mut Vec<Mount>,
    files: &mut Vec<FileSpec>,
) -> Result<(), ResolveError> {
    if service.mount_at(path::CODE).is_none()
        && let Some(config) = service
            .function_config
            .as_ref()
            .filter(|config| !config.name.is_empty())
    {
        mounts.push(config_mount(request, "code", path::CODE, "", &config.name)?);
    }
    if service.mount_at(path::CONFIG).is_none() {
        let functions = service
            .functions
            .iter()
            .map(|function| Entry {
                name: &function.name,
                handler: &function.handler,
                codedir: &function.code_dir,
                timeout_ms: function.timeout_ms,
            })
            .collect();
        // Texts always serialise. JSON is YAML.
        let text = serde_json::to_vec(&Conf { functions }).unwrap_or_default();
        files.push(FileSpec {
            path: format!("{}/conf.yml", path::CONFIG.trim_start_matches('/')),
            content: Content::Bytes(text.into()),
            mode: Some(0o644),
        });
    }
    Ok(())
}
