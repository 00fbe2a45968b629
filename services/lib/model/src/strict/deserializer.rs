//! A deserializer over `serde_json::Value` that knows where it is.

use std::cell::RefCell;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// What is learned on the way.
#[derive(Default)]
pub(super) struct Log {
    /// Paths of fields nobody asked for.
    pub(super) unknown: Vec<String>,
    /// Path of the innermost value that could not be read.
    pub(super) failed: Option<String>,
}

/// A part of a path; parts live on the stack, the text is only made when it is needed.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Key(parent, key) => {
                let parent = parent.text();
                if parent.is_empty() {
                    (*key).to_owned()
                } else {
                    format!("{parent}.{key}")
                }
            }
            Self::Index(parent, index) => format!("{}[{index}]", parent.text()),
        }
    }
}

/// One value and where it is.
pub(super) struct Located<'de, 'p> {
    value: &'de Value,
    path: Path<'p>,
    log: &'p RefCell<Log>,
}

impl<'de, 'p> Located<'de, 'p> {
    pub(super) fn root(value: &'de Value, log: &'p RefCell<Log>) -> Self {
        Self {
            value,
            path: Path::Root,
            log,
        }
    }

    /// `nulls` tells whether a `null` member of the value itself is a member (maps) or not given (structs).
    fn visit<V: Visitor<'de>>(self, visitor: V, nulls: bool) -> Result<V::Value, Error> {
        let Self { value, path, log } = self;
        let result = match value {
            Value::Object(fields) => visitor.visit_map(Fields {
                fields: fields.iter(),
                nulls,
                current: None,
                path: &path,
                log,
            }),
            Value::Array(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
                path: &path,
                log,
            }),
            scalar => scalar.deserialize_any(visitor),
        };
        result.inspect_err(|_| note(log, &path))
    }
}

/// The innermost failure is noted first and stays.
fn note(log: &RefCell<Log>, path: &Path<'_>) {
    log.borrow_mut().failed.get_or_insert_with(|| path.text());
}

impl<'de> Deserializer<'de> for Located<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor, true)
    }

    /// Steps over `null` members: a Go client writes them for empty lists and maps.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit(visitor, false)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Self { value, path, log } = self;
        let (variant, content) = match value {
            Value::String(word) => (word.as_str(), None),
            Value::Object(fields) if fields.len() == 1 => match fields.iter().next() {
                Some((word, content)) => (word.as_str(), Some(content)),
                None => ("", None),
            },
            other => {
                return other
                    .deserialize_any(visitor)
                    .inspect_err(|_| note(log, &path));
            }
        };
        visitor
            .visit_enum(Variant {
                variant,
                content,
                path: &path,
                log,
            })
            .inspect_err(|_| note(log, &path))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.log.borrow_mut().unknown.push(self.path.text());
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

struct Fields<'de, 'p> {
    fields: serde_json::map::Iter<'de>,
    nulls: bool,
    current: Option<(&'de str, &'de Value)>,
    path: &'p Path<'p>,
    log: &'p RefCell<Log>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let nulls = self.nulls;
        let mut members = self
            .fields
            .by_ref()
            .map(|(key, value)| (key.as_str(), value));
        self.current = members.find(|(_, value)| nulls || !value.is_null());
        match self.current {
            Some((key, _)) => {
                let path = Path::Key(self.path, key);
                seed.deserialize(key.into_deserializer())
                    .map(Some)
                    .inspect_err(|_| note(self.log, &path))
            }
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((key, value)) = self.current.take() else {
            return Err(serde::de::Error::custom(
                "a value was asked for before its key",
            ));
        };
        let path = Path::Key(self.path, key);
        seed.deserialize(Located {
            value,
            path,
            log: self.log,
        })
        .inspect_err(|_| note(self.log, &path))
    }
}

struct Items<'de, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    path: &'p Path<'p>,
    log: &'p RefCell<Log>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((index, value)) = self.items.next() else {
            return Ok(None);
        };
        let path = Path::Index(self.path, index);
        seed.deserialize(Located {
            value,
            path,
            log: self.log,
        })
        .map(Some)
        .inspect_err(|_| note(self.log, &path))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Variant<'de, 'p> {
    variant: &'de str,
    content: Option<&'de Value>,
    path: &'p Path<'p>,
    log: &'p RefCell<Log>,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'de, 'p> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name = seed.deserialize(self.variant.into_deserializer())?;
        Ok((name, self))
    }
}

impl<'de> Variant<'de, '_> {
    fn content(&self) -> Result<Located<'de, '_>, Error> {
        let missing = || serde::de::Error::custom(format!("\"{}\" needs a value", self.variant));
        let value = self.content.ok_or_else(missing)?;
        Ok(Located {
            value,
            path: Path::Key(self.path, self.variant),
            log: self.log,
        })
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(serde::de::Error::custom(format!(
                "\"{}\" takes no value",
                self.variant
            ))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.content()?.visit(visitor, true)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.content()?.visit(visitor, false)
    }
}
