//! Reading JSON bodies: unknown fields are listed instead of lost, mistakes are named with their path, and Go's `null`
//! counts as "not given".

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::Value;

mod deserializer;

#[cfg(test)]
mod tests;

/// A value and what was in its body but has no place in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    /// The value.
    pub value: T,
    /// Paths of unknown fields, e.g. `services[0].imagee`, in order of the body's keys.
    pub unknown: Vec<String>,
}

/// A body that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is no JSON.
    #[error("the body is not valid JSON: {0}")]
    Syntax(String),
    /// A field has a value of the wrong type.
    #[error("field {path} is invalid: {message}")]
    Field {
        /// Where, e.g. `services[0].ports[1].hostPort`; `.` for the body itself.
        path: String,
        /// What is wrong.
        message: String,
    },
}

/// Reads a value from a body and lists the fields it does not know.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<Parsed<T>, ParseError> {
    let raw: Value =
        serde_json::from_slice(body).map_err(|error| ParseError::Syntax(error.to_string()))?;
    parse_value(&raw)
}

/// Reads a value from JSON that was parsed already, e.g. from YAML.
pub fn parse_value<T: DeserializeOwned>(raw: &Value) -> Result<Parsed<T>, ParseError> {
    let log = RefCell::new(deserializer::Log::default());
    let result = T::deserialize(deserializer::Located::root(raw, &log));
    let log = log.into_inner();
    match result {
        Ok(value) => Ok(Parsed {
            value,
            unknown: log.unknown,
        }),
        Err(error) => Err(ParseError::Field {
            path: log
                .failed
                .filter(|path| !path.is_empty())
                .unwrap_or_else(|| ".".to_owned()),
            message: error.to_string(),
        }),
    }
}
