//! Lint and breaking-change check of the contracts in `proto/` against the stored baseline.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::{codegen, root};

const BASELINE: &str = "proto/baseline.json";

/// Facts of a contract that may never change or vanish, as `key -> value`.
type Facts = BTreeMap<String, String>;

/// Lints the contracts and compares them with the baseline; with `accept` writes the baseline anew (allowed only for additions).
///
/// # Errors
/// When a rule is broken or something that others rely on changed.
pub(crate) fn run(accept: bool) -> Result<()> {
    let set = codegen::descriptors()?;
    let mut faults = lint(&set);
    let now = facts(&set);
    let path = root().join(BASELINE);
    let before: Facts = if path.exists() {
        serde_json::from_str(&fs::read_to_string(&path)?).context("the baseline is not readable")?
    } else {
        Facts::new()
    };
    faults.extend(breaking(&before, &now));
    if !faults.is_empty() {
        for fault in &faults {
            println!("contracts: {fault}");
        }
        bail!("{} faults in the contracts", faults.len());
    }
    if accept {
        fs::write(&path, serde_json::to_string_pretty(&now)? + "\n")?;
        println!("contracts: baseline written, {} facts", now.len());
    } else if now.len() != before.len() {
        bail!(
            "contracts grew by {} facts; run `cargo xtask contracts --accept`",
            now.len() - before.len()
        );
    } else {
        println!("contracts: {} facts as in the baseline", now.len());
    }
    Ok(())
}

fn breaking(before: &Facts, now: &Facts) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, old) in before {
        match now.get(key) {
            None => faults.push(format!("{key} ({old}) was removed; contracts only grow")),
            Some(new) if new != old => faults.push(format!("{key} changed from {old} to {new}")),
            Some(_) => {}
        }
    }
    faults
}

fn facts(set: &FileDescriptorSet) -> Facts {
    let mut facts = Facts::new();
    for file in set.file.iter().filter(|file| is_ours(file)) {
        for service in &file.service {
            for method in &service.method {
                let key = format!(
                    "rpc {}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                );
                let stream = |on: bool| if on { "stream " } else { "" };
                let value = format!(
                    "{}{} -> {}{}",
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type()
                );
                facts.insert(key, value);
            }
        }
        for message in &file.message_type {
            message_facts(file.package(), message, &mut facts);
        }
        for enumeration in &file.enum_type {
            enum_facts(file.package(), enumeration, &mut facts);
        }
    }
    facts
}

fn message_facts(scope: &str, message: &DescriptorProto, facts: &mut Facts) {
    let scope = format!("{scope}.{}", message.name());
    for field in &message.field {
        let label = if field.label() == Label::Repeated {
            "repeated "
        } else {
            ""
        };
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        facts.insert(
            format!("field {scope}#{}", field.number()),
            format!("{label}{kind} {}", field.name()),
        );
    }
    for nested in &message.nested_type {
        message_facts(&scope, nested, facts);
    }
    for enumeration in &message.enum_type {
        enum_facts(&scope, enumeration, facts);
    }
}

fn enum_facts(scope: &str, enumeration: &prost_types::EnumDescriptorProto, facts: &mut Facts) {
    for value in &enumeration.value {
        facts.insert(
            format!("enum {scope}.{}#{}", enumeration.name(), value.number()),
            value.name().to_owned(),
        );
    }
}

fn is_ours(file: &FileDescriptorProto) -> bool {
    file.package().starts_with("baetyl.") || file.package() == "faas"
}

/// Names, packages and comments as `proto/README.md` asks for.
fn lint(set: &FileDescriptorSet) -> Vec<String> {
    let mut faults = Vec::new();
    for file in set
        .file
        .iter()
        .filter(|file| file.package().starts_with("baetyl."))
    {
        let folder = file.package().replace('.', "/");
        if !file.name().starts_with(&folder) {
            faults.push(format!(
                "{}: package {} does not match the path",
                file.name(),
                file.package()
            ));
        }
        for service in &file.service {
            if !service.name().ends_with("Service") {
                faults.push(format!(
                    "{}: service {} must end in Service",
                    file.name(),
                    service.name()
                ));
            }
            for method in &service.method {
                let request = format!(".{}.{}Request", file.package(), method.name());
                let response = format!(".{}.{}Response", file.package(), method.name());
                if method.input_type() != request || method.output_type() != response {
                    faults.push(format!(
                        "{}: {} must take {request} and give {response}",
                        file.name(),
                        method.name()
                    ));
                }
            }
        }
        for message in &file.message_type {
            lint_message(file.name(), message, &mut faults);
        }
    }
    faults
}

fn lint_message(file: &str, message: &DescriptorProto, faults: &mut Vec<String>) {
    for field in &message.field {
        if field.name().chars().any(|c| c.is_ascii_uppercase()) {
            faults.push(format!(
                "{file}: {}.{} must be lower_snake_case",
                message.name(),
                field.name()
            ));
        }
    }
    for enumeration in &message.enum_type {
        let zero = enumeration.value.first();
        if !zero.is_some_and(|value| value.number() == 0 && value.name().ends_with("_UNSPECIFIED"))
        {
            faults.push(format!(
                "{file}: the first value of {} must be …_UNSPECIFIED = 0",
                enumeration.name()
            ));
        }
    }
    for nested in &message.nested_type {
        lint_message(file, nested, faults);
    }
}
