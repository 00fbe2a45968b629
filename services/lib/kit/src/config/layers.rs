//! The three layers and their merge; remembers which value came from where.

use std::path::Path;

use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{ConfigError, Mistake};

const MAX_FILE: u64 = 4 * 1024 * 1024;
pub(super) const ENVIRONMENT: &str = "environment";

pub(super) struct Layers {
    figment: Figment,
    pub(super) defaults: Vec<Dict>,
    prefix: String,
}

/// A named source of values; figment tags every value with the name.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

impl Layers {
    pub(super) fn read(
        defaults: &[Dict],
        service: &str,
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        // Later calls win, and the first tree of defaults shall win over the second.
        for dict in defaults.iter().rev() {
            figment = figment.merge(Serialized::defaults(dict));
        }
        if let Some(path) = file {
            let dict = read_file(path).map_err(|mistake| ConfigError {
                mistakes: vec![mistake],
            })?;
            let name = format!("file {}", path.display());
            figment = figment.merge(Layer { name, dict });
        }
        let prefix = env_prefix(service);
        let dict = read_env(&prefix, env, defaults);
        let name = ENVIRONMENT.to_owned();
        figment = figment.merge(Layer { name, dict });
        Ok(Self {
            figment,
            defaults: defaults.to_vec(),
            prefix,
        })
    }

    pub(super) fn merged(&self) -> Dict {
        self.figment
            .data()
            .ok()
            .and_then(|mut profiles| profiles.remove(&Profile::Default))
            .unwrap_or_default()
    }

    /// The layer a value came from; None for defaults.
    pub(super) fn source_of(&self, value: &Value) -> Option<&str> {
        let name = &self.figment.get_metadata(value.tag())?.name;
        (name == ENVIRONMENT || name.starts_with("file ")).then_some(name)
    }

    /// How a person finds this key in that layer.
    pub(super) fn key_name(&self, source: &str, path: &[String]) -> String {
        if source == ENVIRONMENT {
            format!("{}{}", self.prefix, path.join("__").to_uppercase())
        } else {
            path.join(".")
        }
    }
}

pub(super) fn env_prefix(service: &str) -> String {
    format!("BAETYL_{}__", service.replace('-', "_").to_uppercase())
}

fn read_file(path: &Path) -> Result<Dict, Mistake> {
    let mistake = |problem: String| Mistake {
        source: format!("file {}", path.display()),
        key: String::new(),
        problem,
    };
    let bytes = crate::fsio::read_limited(path, MAX_FILE)
        .map_err(|error| mistake(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| mistake("is not UTF-8 text".to_owned()))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => {
            Toml::from_str(&text).map_err(|error| mistake(format!("is not valid TOML: {error}")))
        }
        Some("yaml" | "yml" | "json") => serde_norway::from_str::<Option<Dict>>(&text)
            .map(Option::unwrap_or_default)
            .map_err(|error| mistake(format!("is not valid YAML: {error}"))),
        _ => Err(mistake(
            "has an unknown format; name it .toml or .yaml".to_owned(),
        )),
    }
}

fn read_env(
    prefix: &str,
    env: impl IntoIterator<Item = (String, String)>,
    defaults: &[Dict],
) -> Dict {
    let mut dict = Dict::new();
    for (name, text) in env {
        let Some(key) = name.strip_prefix(prefix) else {
            continue;
        };
        let segments: Vec<&str> = key.split("__").collect();
        let (path, default) = resolve(&segments, defaults);
        // A text stays text where the default is one: a name such as "007" is not a number.
        let value = match default {
            Some(Value::String(..)) => Value::from(text),
            _ => text.parse().unwrap_or_else(|_| Value::from(text)),
        };
        insert(&mut dict, &path, value);
    }
    dict
}

/// The path in the spelling of the defaults (variables are upper case, keys need not be lower case).
fn resolve<'d>(segments: &[&str], defaults: &'d [Dict]) -> (Vec<String>, Option<&'d Value>) {
    let mut level: Vec<&'d Dict> = defaults.iter().collect();
    let mut path = Vec::new();
    let mut found = None;
    for segment in segments {
        let plain = |key: &str| key.replace('-', "_").to_lowercase();
        let entry = level
            .iter()
            .flat_map(|dict| dict.iter())
            .find(|(key, _)| plain(key) == plain(segment));
        found = entry.map(|(_, value)| value);
        path.push(entry.map_or_else(|| segment.to_lowercase(), |(key, _)| key.clone()));
        level = match found {
            Some(Value::Dict(_, dict)) => vec![dict],
            _ => Vec::new(),
        };
    }
    (path, found)
}

fn insert(dict: &mut Dict, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut dict = dict;
    for parent in parents {
        let entry = dict
            .entry(parent.clone())
            .or_insert_with(|| Value::from(Dict::new()));
        if !matches!(entry, Value::Dict(..)) {
            *entry = Value::from(Dict::new());
        }
        let Value::Dict(_, inner) = entry else {
            return;
        };
        dict = inner;
    }
    dict.insert(last.clone(), value);
}
