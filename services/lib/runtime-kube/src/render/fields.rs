//! JSON objects for server-side apply: what is not given is not there, so that we do not own it.

use serde_json::{Map, Value};

/// An object under construction.
#[derive(Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Sets a field, whatever its value.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a field, unless its value is what an author gets who writes nothing: null, false, 0 or empty.
    #[must_use]
    pub(super) fn given(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let nothing = match &value {
            Value::Null => true,
            Value::Bool(yes) => !yes,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        if nothing {
            self
        } else {
            self.with(name, value)
        }
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Object(fields.0)
    }
}

impl From<Fields> for Map<String, Value> {
    fn from(fields: Fields) -> Self {
        fields.0
    }
}
