//! What is wrong with documents, as far as they tell by themselves, and what they reference. Both are pure.
//!
//! The rules are those of the model, which the cloud asks too; what only the cloud can judge (the PEM of a certificate,
//! the content of uploaded objects) is left to it.

use baetyl_model::resource::validate::{MAX_CONFIGURATION_BYTES, MAX_SECRET_BYTES};
use baetyl_model::resource::{
    Application, Certificate, ConfigurationView, FieldError, Registry, Rules, SecretView,
    validate_application, validate_certificate, validate_configuration, validate_node,
    validate_registry, validate_secret,
};
use baetyl_model::strict;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::Document;
use crate::resources::Kind;

#[cfg(test)]
mod tests;

/// Volumes the cloud makes for function applications, and makes anew when they are written back.
const GENERATED: &str = "baetyl-function-config-";

/// All mistakes of a document. `exists`: the cloud has it already, and keeps passwords and keys that are left out.
pub(crate) fn mistakes(document: &Document, exists: bool) -> Vec<FieldError> {
    let body = Value::Object(document.body.clone());
    let rules = Rules::default();
    match document.kind {
        Kind::App => read(&body, |app: &Application| application(app, &rules)),
        Kind::Config => read(&body, |view: &ConfigurationView| {
            let mut found = validate_configuration(view, &rules);
            let stored = view.clone().into_stored();
            found.extend(too_large(&stored.data, MAX_CONFIGURATION_BYTES));
            found
        }),
        Kind::Secret => read(&body, |view: &SecretView| {
            let mut found = validate_secret(view, &rules);
            let stored = view.clone().into_stored();
            found.extend(too_large(&stored.data, MAX_SECRET_BYTES));
            found
        }),
        Kind::Registry => read(&body, |registry: &Registry| {
            kept(validate_registry(registry, &rules), exists)
        }),
        Kind::Certificate => certificate(&document.body, &rules, exists),
        Kind::Node => read(&body, validate_node),
    }
}

/// Reads a body with `T` and adds what `rules` finds; fields that `T` does not have are mistakes.
fn read<T: DeserializeOwned>(
    body: &Value,
    rules: impl FnOnce(&T) -> Vec<FieldError>,
) -> Vec<FieldError> {
    match strict::parse_value::<T>(body) {
        Ok(parsed) => {
            let mut found = rules(&parsed.value);
            found.extend(parsed.unknown.into_iter().map(unknown));
            found
        }
        Err(strict::ParseError::Field { path, message }) => vec![mistake(path, message)],
        Err(error @ strict::ParseError::Syntax(_)) => vec![mistake(".", error.to_string())],
    }
}

fn mistake(field: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError {
        field: field.into(),
        message: message.into(),
    }
}

fn unknown(field: String) -> FieldError {
    mistake(field, "unknown field")
}

fn too_large(data: &impl Serialize, max: usize) -> Option<FieldError> {
    let size = serde_json::to_vec(data).map_or(usize::MAX, |data| data.len());
    (size > max).then(|| mistake("data", format!("has {size} bytes, {max} are the most")))
}

/// Without those that the cloud fills in from what it has.
fn kept(mut found: Vec<FieldError>, exists: bool) -> Vec<FieldError> {
    found.retain(|error| !exists || error.message != "is needed");
    found
}

fn application(app: &Application, rules: &Rules) -> Vec<FieldError> {
    let mut found = validate_application(app, rules);
    if app.cron_status == 1 {
        found.push(mistake(
            "cronStatus",
            "deferred deployment is not part of this release",
        ));
    }
    found
}

/// The PEM texts of a certificate, which the REST interface has in `data`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pem {
    key: String,
    certificate: String,
}

fn certificate(body: &Map<String, Value>, rules: &Rules, exists: bool) -> Vec<FieldError> {
    let mut rest = body.clone();
    let data = rest
        .remove("data")
        .unwrap_or_else(|| Value::Object(Map::new()));
    let mut pem = Pem::default();
    let mut found = read(&data, |given: &Pem| {
        pem.key.clone_from(&given.key);
        pem.certificate.clone_from(&given.certificate);
        Vec::new()
    });
    // Beside `data` they have no place.
    let beside = ["key", "certificate"].map(|field| rest.remove(field).map(|_| field));
    found.extend(read(&Value::Object(rest), |given: &Certificate| {
        let given = Certificate {
            key: pem.key,
            certificate: pem.certificate,
            ..given.clone()
        };
        kept(validate_certificate(&given, rules), exists)
    }));
    for error in &mut found {
        if matches!(error.field.as_str(), "key" | "certificate") {
            error.field.insert_str(0, "data.");
        }
    }
    found.extend(
        beside
            .into_iter()
            .flatten()
            .map(|field| unknown(field.to_owned())),
    );
    found
}

/// Something a document needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// The field that names it.
    pub(crate) field: String,
    /// What it is.
    pub(crate) wanted: Wanted,
    pub(crate) name: String,
}

/// What a document can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// A resource of one of these kinds; the first one is its usual name.
    Resource(&'static [Kind]),
    /// A function runtime.
    Runtime,
    /// An uploaded file.
    Object,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Resource([kind, ..]) => kind.fmt(f),
            Self::Resource([]) => f.write_str("resource"),
            Self::Runtime => f.write_str("runtime"),
            Self::Object => f.write_str("object"),
        }
    }
}

/// What a document references. Nothing for a document that cannot be read: [`mistakes`] tells why.
pub(crate) fn references(document: &Document) -> Vec<Reference> {
    let body = Value::Object(document.body.clone());
    match document.kind {
        Kind::App => {
            strict::parse_value(&body).map_or_else(|_| Vec::new(), |app| of_app(&app.value))
        }
        Kind::Config => {
            strict::parse_value(&body).map_or_else(|_| Vec::new(), |view| of_config(&view.value))
        }
        Kind::Secret | Kind::Registry | Kind::Certificate | Kind::Node => Vec::new(),
    }
}

fn of_app(app: &Application) -> Vec<Reference> {
    const CONFIG: Wanted = Wanted::Resource(&[Kind::Config]);
    // A secret volume may name a registry or a certificate: they are secrets, too.
    const SECRET: Wanted = Wanted::Resource(&[Kind::Secret, Kind::Certificate, Kind::Registry]);
    let mut found = Vec::new();
    let mut add = |field: String, wanted: Wanted, name: &str| {
        if !name.is_empty() {
            let name = name.to_owned();
            found.push(Reference {
                field,
                wanted,
                name,
            });
        }
    };
    for (index, volume) in app.volumes.iter().enumerate() {
        if volume.name.starts_with(GENERATED) {
            continue;
        }
        let at = |source: &str| format!("volumes[{index}].{source}.name");
        if let Some(config) = &volume.config {
            add(at("config"), CONFIG, &config.name);
        }
        if let Some(secret) = &volume.secret {
            add(at("secret"), SECRET, &secret.name);
        }
        if let Some(certificate) = &volume.certificate {
            let wanted = Wanted::Resource(&[Kind::Certificate]);
            add(at("certificate"), wanted, &certificate.name);
        }
    }
    for (index, registry) in app.registries.iter().enumerate() {
        let wanted = Wanted::Resource(&[Kind::Registry]);
        add(format!("registries[{index}].name"), wanted, &registry.name);
    }
    for (list, services) in [
        ("initServices", &app.init_services),
        ("services", &app.services),
    ] {
        for (index, service) in services.iter().enumerate() {
            let at = |field: &str| format!("{list}[{index}].{field}");
            add(at("programConfig"), CONFIG, &service.program_config);
            if let Some(function) = service
                .function_config
                .as_ref()
                .filter(|_| app.kind() == "function")
            {
                add(at("functionConfig.name"), CONFIG, &function.name);
                add(
                    at("functionConfig.runtime"),
                    Wanted::Runtime,
                    &function.runtime,
                );
            }
        }
    }
    found
}

fn of_config(view: &ConfigurationView) -> Vec<Reference> {
    let mut found = Vec::new();
    for (index, item) in view.data.iter().enumerate() {
        let given = |field: &str| item.value.get(field).map_or("", String::as_str);
        if given("type") == "object" && given("source") == "baetyl" && !given("object").is_empty() {
            found.push(Reference {
                field: format!("data[{index}].value.object"),
                wanted: Wanted::Object,
                name: given("object").to_owned(),
            });
        }
    }
    found
}
