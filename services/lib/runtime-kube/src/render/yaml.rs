//! Files of objects: YAML documents as JSON, read by a real parser.

use serde::Deserialize as _;
use serde_json::{Map, Value};
use serde_norway::Value as Yaml;

use super::RenderError;

/// One document that is not empty.
#[derive(Debug)]
pub(super) struct Document {
    /// Configuration, file and number, for messages.
    pub(super) place: String,
    /// What it holds.
    pub(super) value: Value,
}

/// The documents of one file; those of a `List` one by one.
pub(super) fn documents(
    configuration: &str,
    file: &str,
    text: &str,
) -> Result<Vec<Document>, RenderError> {
    let mut documents = Vec::new();
    for (index, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let place = format!(
            "configuration \"{configuration}\", file {file}, document {}",
            index + 1
        );
        let mut parsed = match Yaml::deserialize(document) {
            Ok(parsed) => parsed,
            Err(source) => return Err(syntax(place, text, source)),
        };
        parsed
            .apply_merge()
            .map_err(|source| syntax(place.clone(), text, source))?;
        let mut value = json(parsed).map_err(|reason| RenderError::Document {
            place: place.clone(),
            reason,
        })?;
        modes(&mut value);
        spread(place, value, &mut documents);
    }
    Ok(documents)
}

fn syntax(place: String, text: &str, source: serde_norway::Error) -> RenderError {
    let line = source.location().map_or(0, |location| location.line());
    let indented_with_tab = text
        .lines()
        .nth(line.saturating_sub(1))
        .is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'));
    RenderError::Yaml {
        place,
        line,
        hint: if line > 0 && indented_with_tab {
            "; the line is indented with a tab, YAML wants spaces"
        } else {
            ""
        },
        source,
    }
}

/// A list of objects is each of them; an empty document is none.
fn spread(place: String, value: Value, documents: &mut Vec<Document>) {
    match value {
        Value::Null => {}
        Value::Object(mut list)
            if list.get("kind").and_then(Value::as_str) == Some("List")
                && list.get("items").is_some_and(Value::is_array) =>
        {
            let Some(Value::Array(items)) = list.remove("items") else {
                return;
            };
            for (index, item) in items.into_iter().enumerate() {
                spread(format!("{place}, item {}", index + 1), item, documents);
            }
        }
        value => documents.push(Document { place, value }),
    }
}

/// JSON has text keys and no tags.
fn json(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(yes) => yes.into(),
        Yaml::Number(number) => self::number(&number)?,
        Yaml::String(text) => text.into(),
        Yaml::Sequence(items) => items
            .into_iter()
            .map(json)
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        Yaml::Mapping(entries) => {
            let mut fields = Map::new();
            for (key, value) in entries {
                fields.insert(self::key(key)?, json(value)?);
            }
            fields.into()
        }
        Yaml::Tagged(tagged) => {
            return Err(format!(
                "the tag {} means nothing to Kubernetes; leave it out",
                tagged.tag
            ));
        }
    })
}

/// Kubernetes reads `0644` as an octal number; YAML 1.2, and so our parser, reads it as text. Where a number must stand it
/// is one: in `defaultMode`, and in `mode` beside a `path`. What is data of a ConfigMap or Secret is left as it is.
fn modes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(modes),
        Value::Object(fields) => {
            let with_path = fields.contains_key("path");
            for (name, value) in fields {
                let octal = match (name.as_str(), &*value) {
                    ("defaultMode", Value::String(text)) => octal(text),
                    ("mode", Value::String(text)) if with_path => octal(text),
                    ("data" | "stringData", _) => continue,
                    _ => None,
                };
                match octal {
                    Some(number) => *value = number.into(),
                    None => modes(value),
                }
            }
        }
        _ => {}
    }
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0')?;
    u32::from_str_radix(digits, 8).ok()
}

fn number(number: &serde_norway::Number) -> Result<Value, String> {
    if let Some(whole) = number.as_u64() {
        return Ok(whole.into());
    }
    if let Some(whole) = number.as_i64() {
        return Ok(whole.into());
    }
    let fraction = number.as_f64().and_then(serde_json::Number::from_f64);
    fraction
        .map(Value::Number)
        .ok_or_else(|| format!("{number} is no number Kubernetes has"))
}

fn key(key: Yaml) -> Result<String, String> {
    match key {
        Yaml::String(text) => Ok(text),
        Yaml::Number(number) => Ok(number.to_string()),
        Yaml::Bool(yes) => Ok(yes.to_string()),
        _ => Err("a key is neither text nor number".to_owned()),
    }
}
