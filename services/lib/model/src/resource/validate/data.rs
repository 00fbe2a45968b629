//! Configurations, secrets, registries, certificates.

use super::super::configuration::OBJECT_PREFIX;
use super::super::{Certificate, ConfigItem, ConfigurationView, Registry, SecretView};
use super::{FieldError, Findings, Rules, unique};
use crate::desire::Unpack;
use crate::name::{ConfigKey, ResourceName};

#[cfg(test)]
mod tests;

/// All mistakes of a configuration.
pub fn validate_configuration(view: &ConfigurationView, rules: &Rules) -> Vec<FieldError> {
    let mut found = Vec::new();
    let mut findings = Findings {
        path: String::new(),
        found: &mut found,
    };
    findings.name("name", ResourceName::new(view.name.as_str()));
    findings.not_system(rules, &view.name);
    findings.labels(&view.labels);
    for (index, item) in view.data.iter().enumerate() {
        config_item(item, &mut findings.item("data", index));
    }
    let keys = view.data.iter().enumerate();
    unique(
        keys.map(|(index, item)| (format!("data[{index}].key"), item.key.as_str())),
        &mut findings,
    );
    found
}

fn config_item(item: &ConfigItem, findings: &mut Findings<'_>) {
    findings.name("key", ConfigKey::new(item.key.as_str()));
    if item.key.starts_with(OBJECT_PREFIX) {
        findings.add("key", format!("must not begin with {OBJECT_PREFIX}"));
    }
    let given = |key: &str| item.value.get(key).is_some_and(|value| !value.is_empty());
    match item.value.get("type").map_or("", String::as_str) {
        "kv" => {
            if !item.value.contains_key("value") {
                findings.add("value.value", "is needed with type kv");
            }
        }
        "object" => {
            if !given("source") {
                findings.add("value.source", "is needed with type object, e.g. http");
            }
            if item
                .value
                .get("source")
                .is_some_and(|source| source == "http")
            {
                let url = item.value.get("url").map_or("", String::as_str);
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    findings.add(
                        "value.url",
                        "must begin with http:// or https:// with source http",
                    );
                }
            }
            object_fields(item, findings);
        }
        "function" => {
            for field in [
                "function", "version", "runtime", "handler", "bucket", "object",
            ] {
                if !given(field) {
                    findings.add(
                        format_args!("value.{field}"),
                        "is needed with type function",
                    );
                }
            }
            object_fields(item, findings);
        }
        "" => findings.add("value.type", "is needed: kv, object or function"),
        other => findings.add(
            "value.type",
            format!("\"{other}\" is not one of kv, object, function"),
        ),
    }
}

fn object_fields(item: &ConfigItem, findings: &mut Findings<'_>) {
    if let Some(unpack) = item.value.get("unpack")
        && let Err(error) = unpack.parse::<Unpack>()
    {
        findings.add("value.unpack", error.to_string());
    }
    if let Some(sha256) = item.value.get("sha256").filter(|sha256| !sha256.is_empty())
        && (sha256.len() != 64 || !sha256.bytes().all(|digit| digit.is_ascii_hexdigit()))
    {
        findings.add("value.sha256", "must be 64 hex digits");
    }
    if let Some(size) = item.value.get("size").filter(|size| !size.is_empty())
        && size.parse::<u64>().is_err()
    {
        findings.add("value.size", "must be a number of bytes");
    }
}

/// All mistakes of a secret.
pub fn validate_secret(view: &SecretView, rules: &Rules) -> Vec<FieldError> {
    let mut found = Vec::new();
    let mut findings = Findings {
        path: String::new(),
        found: &mut found,
    };
    findings.name("name", ResourceName::new(view.name.as_str()));
    findings.not_system(rules, &view.name);
    findings.labels(&view.labels);
    if view.data.is_empty() {
        findings.add("data", "is needed");
    }
    for key in view.data.keys() {
        if let Err(error) = ConfigKey::new(key.as_str()) {
            findings.add("data", error.to_string());
        }
    }
    found
}

/// All mistakes of a registry that is created.
pub fn validate_registry(registry: &Registry, rules: &Rules) -> Vec<FieldError> {
    let mut found = Vec::new();
    let mut findings = Findings {
        path: String::new(),
        found: &mut found,
    };
    findings.name("name", ResourceName::new(registry.name.as_str()));
    findings.not_system(rules, &registry.name);
    findings.labels(&registry.labels);
    for (field, value) in [
        ("address", &registry.address),
        ("username", &registry.username),
        ("password", &registry.password),
    ] {
        if value.is_empty() {
            findings.add(field, "is needed");
        }
    }
    found
}

/// All mistakes of a certificate that is created, as far as they show without reading its PEM.
pub fn validate_certificate(certificate: &Certificate, rules: &Rules) -> Vec<FieldError> {
    let mut found = Vec::new();
    let mut findings = Findings {
        path: String::new(),
        found: &mut found,
    };
    findings.name("name", ResourceName::new(certificate.name.as_str()));
    findings.not_system(rules, &certificate.name);
    findings.labels(&certificate.labels);
    for (field, value) in [
        ("key", &certificate.key),
        ("certificate", &certificate.certificate),
    ] {
        if value.is_empty() {
            findings.add(field, "is needed");
        }
    }
    found
}
