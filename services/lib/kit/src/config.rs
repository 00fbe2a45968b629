//! Configuration: defaults < file (TOML or YAML) < environment, every mistake reported at once.
//!
//! A service's configuration is a struct with `Deserialize + Serialize + Default`, snake_case keys and
//! `#[serde(default, deny_unknown_fields)]`. A key `store.max_size` of the service `node` is set by the
//! environment variable `BAETYL_NODE__STORE__MAX_SIZE`. Unknown keys are mistakes, also where a struct forgot
//! `deny_unknown_fields`. Secrets are never in the configuration: use [`SecretFile`], the path to one.
//!
//! Use [`duration`] (`#[serde(with = "baetyl_kit::config::duration")]`) for times such as `"10s"` and
//! [`ByteSize`] for sizes such as `"64MiB"`.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

mod extract;
mod layers;
mod secret;
mod units;

pub use secret::{Secret, SecretError, SecretFile};
pub use units::{ByteSize, UnitError, duration, format_duration, parse_duration};

use layers::Layers;

/// What a configuration type has to be able to do. Implemented for every type that can.
pub trait Configuration: DeserializeOwned + Serialize + Default + Send + 'static {}

impl<T: DeserializeOwned + Serialize + Default + Send + 'static> Configuration for T {}

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is: `file /etc/baetyl/node.toml` or `environment`.
    pub source: String,
    /// Which key, dotted, or the name of the environment variable. Empty for the file as a whole.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            key,
            problem,
        } = self;
        if key.is_empty() {
            write!(f, "{source}: {problem}")
        } else {
            write!(f, "{source}: {key}: {problem}")
        }
    }
}

/// All mistakes that were found, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The mistakes, in the order in which they were found.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(
            f,
            "the configuration has {count} {noun}; correct and start again"
        )?;
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Loads the configuration of `service` from defaults, `file` and the variables of `env` that belong to it
/// (usually `std::env::vars()`).
///
/// # Errors
/// All mistakes that were found.
pub fn load<T: Configuration>(
    service: &str,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let layers = Layers::read(&[defaults::<T>()?], service, file, env)?;
    extract::extract(&layers, layers.merged(), &layers.defaults[0])
        .map_err(|mistakes| ConfigError { mistakes })
}

/// As [`load`], for a file in which the sections of `Outer` stand beside those of `Inner`: the shell's own
/// sections (`admin`, `log`, …) and the service's. Top-level keys of `Outer` win.
///
/// # Errors
/// All mistakes that were found in either.
pub fn load_both<Outer: Configuration, Inner: Configuration>(
    service: &str,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(Outer, Inner), ConfigError> {
    let tree = [defaults::<Outer>()?, defaults::<Inner>()?];
    if let Some(key) = tree[1].keys().find(|key| tree[0].contains_key(*key)) {
        return Err(type_mistake(format!(
            "the key {key} of the service belongs to the shell; rename it"
        )));
    }
    let layers = Layers::read(&tree, service, file, env)?;
    let (outer, inner) = layers
        .merged()
        .into_iter()
        .partition(|(key, _)| layers.defaults[0].contains_key(key));
    let outer = extract::extract(&layers, outer, &layers.defaults[0]);
    let inner = extract::extract(&layers, inner, &layers.defaults[1]);
    match (outer, inner) {
        (Ok(outer), Ok(inner)) => Ok((outer, inner)),
        (outer, inner) => Err(ConfigError {
            mistakes: [outer.err(), inner.err()]
                .into_iter()
                .flatten()
                .flatten()
                .collect(),
        }),
    }
}

/// The effective configuration as YAML, for `--print-config`.
///
/// # Errors
/// When a value cannot be written as YAML.
pub fn render<T: Serialize>(config: &T) -> Result<String, serde_norway::Error> {
    serde_norway::to_string(config)
}

fn defaults<T: Configuration>() -> Result<figment::value::Dict, ConfigError> {
    let value = figment::value::Value::serialize(T::default());
    match value {
        Ok(figment::value::Value::Dict(_, dict)) => Ok(dict),
        // `()` and empty structs: nothing can be configured.
        Ok(figment::value::Value::Empty(..)) => Ok(figment::value::Dict::new()),
        Ok(_) | Err(_) => Err(type_mistake(
            "the configuration type does not serialize to a map".to_owned(),
        )),
    }
}

/// A mistake of the program, not of its user.
fn type_mistake(problem: String) -> ConfigError {
    ConfigError {
        mistakes: vec![Mistake {
            source: "defaults".to_owned(),
            key: String::new(),
            problem,
        }],
    }
}

#[cfg(test)]
mod tests;
