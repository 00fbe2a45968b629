//! JSON schemas of types, by running their `Deserialize` on samples and noting what it asks for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, Visitor,
};
use serde_json::{Map, Value, json};

/// Writes the schema of a type: named types go into the map and are referred to.
pub(crate) type Shape = fn(&mut BTreeMap<String, Value>) -> Value;

/// The [`Shape`] of a type.
pub(crate) fn shape<T: DeserializeOwned>() -> Shape {
    schema_of::<T>
}

fn schema_of<T: DeserializeOwned>(named: &mut BTreeMap<String, Value>) -> Value {
    let notes = Notes {
        named: RefCell::new(std::mem::take(named)),
    };
    let seen = RefCell::new(json!({}));
    // A type that refuses the samples is noted as far as it was seen; a test finds it.
    let _ = T::deserialize(Tracer {
        notes: &notes,
        seen: &seen,
    });
    *named = notes.named.into_inner();
    seen.into_inner()
}

/// True when a type can be traced to its end.
#[cfg(test)]
pub(super) fn is_traceable<T: DeserializeOwned>() -> bool {
    let notes = Notes {
        named: RefCell::default(),
    };
    T::deserialize(Tracer {
        notes: &notes,
        seen: &RefCell::default(),
    })
    .is_ok()
}

struct Notes {
    named: RefCell<BTreeMap<String, Value>>,
}

/// Deserializes samples and notes in `seen` what they are.
#[derive(Clone, Copy)]
struct Tracer<'a> {
    notes: &'a Notes,
    seen: &'a RefCell<Value>,
}

/// A type that refuses a sample.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Tracer<'_> {
    fn note(&self, schema: Value) {
        *self.seen.borrow_mut() = schema;
    }

    /// Traces a part of what is traced, and gives its schema.
    fn part<'de, S: DeserializeSeed<'de>>(&self, seed: S) -> Result<(S::Value, Value), Refused> {
        let seen = RefCell::new(json!({}));
        let value = seed.deserialize(Tracer {
            notes: self.notes,
            seen: &seen,
        })?;
        Ok((value, seen.into_inner()))
    }
}

macro_rules! scalar {
    ($($method:ident => $visit:ident($sample:expr), $schema:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.note($schema);
            visitor.$visit($sample)
        })*
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Refused;

    scalar! {
        deserialize_any => visit_str(""), json!({});
        deserialize_bool => visit_bool(false), json!({"type": "boolean"});
        deserialize_i8 => visit_i8(0), json!({"type": "integer"});
        deserialize_i16 => visit_i16(0), json!({"type": "integer"});
        deserialize_i32 => visit_i32(0), json!({"type": "integer", "format": "int32"});
        deserialize_i64 => visit_i64(0), json!({"type": "integer", "format": "int64"});
        deserialize_u8 => visit_u8(0), json!({"type": "integer", "minimum": 0});
        deserialize_u16 => visit_u16(0), json!({"type": "integer", "minimum": 0});
        deserialize_u32 => visit_u32(0), json!({"type": "integer", "minimum": 0});
        deserialize_u64 => visit_u64(0), json!({"type": "integer", "minimum": 0});
        deserialize_f32 => visit_f32(0.0), json!({"type": "number"});
        deserialize_f64 => visit_f64(0.0), json!({"type": "number"});
        deserialize_char => visit_char('a'), json!({"type": "string"});
        deserialize_str => visit_str(""), json!({"type": "string"});
        deserialize_string => visit_str(""), json!({"type": "string"});
        deserialize_bytes => visit_bytes(&[]), json!({"type": "string", "format": "byte"});
        deserialize_byte_buf => visit_bytes(&[]), json!({"type": "string", "format": "byte"});
        deserialize_identifier => visit_str(""), json!({"type": "string"});
        deserialize_ignored_any => visit_str(""), json!({});
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note(json!({"type": "null"}));
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let mut items = json!({});
        let value = visitor.visit_seq(One {
            tracer: self,
            left: true,
            schema: &mut items,
        })?;
        self.note(json!({"type": "array", "items": items}));
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let mut values = json!({});
        let value = visitor.visit_map(One {
            tracer: self,
            left: true,
            schema: &mut values,
        })?;
        self.note(json!({"type": "object", "additionalProperties": values}));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let mut properties = Map::new();
        let value = visitor.visit_map(Fields {
            tracer: self,
            left: fields,
            properties: &mut properties,
        })?;
        let schema = json!({"type": "object", "properties": properties});
        let mut named = self.notes.named.borrow_mut();
        let known = named
            .entry(name.to_owned())
            .or_insert_with(|| schema.clone());
        // Two types of one name: the second is written out where it is used.
        self.note(if *known == schema {
            json!({"$ref": format!("#/components/schemas/{name}")})
        } else {
            schema
        });
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note(json!({"type": "string", "enum": variants}));
        let first = variants.first().copied().unwrap_or_default();
        visitor.visit_enum(BorrowedStrDeserializer::<Refused>::new(first))
    }
}

/// A list of one item, or a map of one entry.
struct One<'a, 's> {
    tracer: Tracer<'a>,
    left: bool,
    schema: &'s mut Value,
}

impl<'de> de::SeqAccess<'de> for One<'_, '_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        if !std::mem::take(&mut self.left) {
            return Ok(None);
        }
        let (value, schema) = self.tracer.part(seed)?;
        *self.schema = schema;
        Ok(Some(value))
    }
}

impl<'de> de::MapAccess<'de> for One<'_, '_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        if !std::mem::take(&mut self.left) {
            return Ok(None);
        }
        seed.deserialize("key".into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        let (value, schema) = self.tracer.part(seed)?;
        *self.schema = schema;
        Ok(value)
    }
}

/// A map with every field of a struct.
struct Fields<'a, 's> {
    tracer: Tracer<'a>,
    left: &'static [&'static str],
    properties: &'s mut Map<String, Value>,
}

impl<'de> de::MapAccess<'de> for Fields<'_, '_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        let Some(field) = self.left.first() else {
            return Ok(None);
        };
        seed.deserialize((*field).into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        let (field, left) = self
            .left
            .split_first()
            .ok_or_else(|| Refused("no field is left".to_owned()))?;
        self.left = left;
        let (value, schema) = self.tracer.part(seed)?;
        self.properties.insert((*field).to_owned(), schema);
        Ok(value)
    }
}
