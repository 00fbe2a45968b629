//! Lint and breaking-change check of the contracts in `proto/` against the stored baseline.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::{codegen, root};

mod lint;
#[cfg(test)]
mod tests;

const BASELINE: &str = "proto/baseline.json";

/// Facts of a contract that may never change or vanish, as `key -> value`.
type Facts = BTreeMap<String, String>;

/// Lints the contracts and compares them with the baseline; with `accept` writes the baseline anew (allowed only for additions).
///
/// # Errors
/// When a rule is broken or something that others rely on changed.
pub(crate) fn run(accept: bool) -> Result<()> {
    let set = codegen::descriptors()?;
    let mut faults = lint::faults(&set);
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
            format!("{label}{kind} {}{}", field.name(), presence(message, field)),
        );
    }
    for nested in &message.nested_type {
        message_facts(&scope, nested, facts);
    }
    for enumeration in &message.enum_type {
        enum_facts(&scope, enumeration, facts);
    }
}

/// Which fields exclude each other, and whether absence can be told: both change what old peers read.
fn presence(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    if field.proto3_optional() {
        return " optional".to_owned();
    }
    let group = field
        .oneof_index
        .and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
    group.map_or_else(String::new, |group| format!(" in oneof {}", group.name()))
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
