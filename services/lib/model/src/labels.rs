//! Labels and label selectors with the syntax and the semantics of Kubernetes.

use std::collections::BTreeMap;

mod selector;

pub use selector::{Operator, Requirement, Selector, SelectorError};

#[cfg(test)]
mod tests;

/// A label that breaks Kubernetes' rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The key.
    #[error(
        "label key \"{0}\" is invalid: at most 63 characters of A-Z, a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit, optionally after a DNS name of at most 253 characters and '/'"
    )]
    Key(String),
    /// The value.
    #[error(
        "value \"{value}\" of label \"{key}\" is invalid: empty, or at most 63 characters of A-Z, a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit"
    )]
    Value {
        /// The label.
        key: String,
        /// Its value.
        value: String,
    },
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// True for a DNS name of small letters, as most Kubernetes objects are called: at most 253 characters.
pub fn is_dns_name(text: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let edge = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

/// Checks a label key.
pub fn validate_key(key: &str) -> Result<(), LabelError> {
    let valid = match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_word(name),
        None => is_word(key),
    };
    if valid {
        Ok(())
    } else {
        Err(LabelError::Key(key.to_owned()))
    }
}

/// Checks the value of a label.
pub fn validate_value(key: &str, value: &str) -> Result<(), LabelError> {
    if value.is_empty() || is_word(value) {
        Ok(())
    } else {
        Err(LabelError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// All mistakes in a set of labels.
pub fn validate_labels(labels: &BTreeMap<String, String>) -> Vec<LabelError> {
    let keys = labels.keys().map(|key| validate_key(key));
    let values = labels.iter().map(|(key, value)| validate_value(key, value));
    keys.chain(values).filter_map(Result::err).collect()
}
