//! From the merged tree to the type, collecting every mistake.
//!
//! serde stops at the first mistake. So that all are reported at once, each value that is refused is noted,
//! replaced by its default (or taken out), and the tree is tried again until it fits. What a type lets
//! through silently (a struct without `deny_unknown_fields`) is found by comparing the keys that were given
//! with those the result knows.

use std::collections::{BTreeMap, BTreeSet};

use figment::error::Kind;
use figment::value::{Dict, Tag, Value};

use super::layers::{ENVIRONMENT, Layers};
use super::{Configuration, Mistake};

/// More mistakes than anybody reads; also the bound of the loop.
const MAX_MISTAKES: usize = 100;

pub(super) fn extract<T: Configuration>(
    layers: &Layers,
    tree: Dict,
    defaults: &Dict,
) -> Result<T, Vec<Mistake>> {
    let mut attempt = Attempt {
        layers,
        tree: Value::Dict(Tag::Default, tree),
        defaults: Value::Dict(Tag::Default, defaults.clone()),
        mistakes: Vec::new(),
        removed: BTreeMap::new(),
        taken: BTreeSet::new(),
    };
    // Twice the bound: a text from the environment is tried a second time without being a mistake.
    for _ in 0..MAX_MISTAKES * 2 {
        match T::deserialize(&attempt.tree) {
            Ok(config) => {
                attempt.note_unread_keys(&config);
                return if attempt.mistakes.is_empty() {
                    Ok(config)
                } else {
                    Err(attempt.mistakes)
                };
            }
            Err(error) => {
                if !attempt.note_and_repair(&error) {
                    break;
                }
            }
        }
    }
    Err(attempt.mistakes)
}

struct Attempt<'l> {
    layers: &'l Layers,
    tree: Value,
    defaults: Value,
    mistakes: Vec<Mistake>,
    /// Indices (as given) taken out of each list, so that later mistakes name the index as given.
    removed: BTreeMap<Vec<String>, Vec<usize>>,
    /// Keys taken out (as given), so that their absence is not reported on top.
    taken: BTreeSet<Vec<String>>,
}

impl Attempt<'_> {
    /// False when nothing can be repaired, so that trying again would not help.
    fn note_and_repair(&mut self, error: &figment::Error) -> bool {
        let mut path = error.path.clone();
        if let Kind::UnknownField(field, _) = &error.kind
            && path.last() != Some(field)
        {
            path.push(field.clone());
        }
        let source = self.source_at(&path);
        if source.as_deref() == Some(ENVIRONMENT)
            && matches!(error.kind, Kind::InvalidType(..))
            && self.keep_as_text(&path)
        {
            return true;
        }
        let source = source.unwrap_or_else(|| "defaults".to_owned());
        let shown = self.as_given(&path);
        if let Kind::MissingField(field) = &error.kind {
            let missing: Vec<String> = shown.iter().cloned().chain([field.to_string()]).collect();
            if self.taken.contains(&missing) {
                return self.repair(&path);
            }
        }
        self.mistakes.push(Mistake {
            key: self.layers.key_name(&source, &shown),
            source,
            problem: describe(&error.kind),
        });
        self.mistakes.len() < MAX_MISTAKES && self.repair(&path)
    }

    /// The layer of the value at `path`, or of the nearest thing that holds it.
    fn source_at(&self, path: &[String]) -> Option<String> {
        (0..=path.len()).rev().find_map(|length| {
            let value = at(&self.tree, &path[..length])?;
            given_by(self.layers, value)
        })
    }

    /// A number or list from the environment where a text is wanted is that text.
    fn keep_as_text(&mut self, path: &[String]) -> bool {
        let Some(value) = at_mut(&mut self.tree, path) else {
            return false;
        };
        let text = match value {
            Value::Num(_, number) => number
                .to_u128()
                .map(|n| n.to_string())
                .or_else(|| number.to_i128().map(|n| n.to_string()))
                .or_else(|| number.to_f64().map(|n| n.to_string())),
            Value::Bool(_, flag) => Some(flag.to_string()),
            Value::Char(_, letter) => Some(letter.to_string()),
            _ => None,
        };
        let Some(text) = text else {
            return false;
        };
        *value = Value::String(value.tag(), text);
        true
    }

    /// Puts the default in place of the value at `path`, or takes it out; of the nearest enclosing value if
    /// it has neither.
    fn repair(&mut self, path: &[String]) -> bool {
        for length in (1..=path.len()).rev() {
            let path = &path[..length];
            let Some(current) = at(&self.tree, path) else {
                continue;
            };
            match at(&self.defaults, path).cloned() {
                Some(default) if *current != default => {
                    if let Some(place) = at_mut(&mut self.tree, path) {
                        *place = default;
                        return true;
                    }
                }
                // The default itself is refused: look further out.
                Some(_) => {}
                None => return self.take_out(path),
            }
        }
        false
    }

    fn take_out(&mut self, path: &[String]) -> bool {
        let Some((last, parent)) = path.split_last() else {
            return false;
        };
        let given = self.as_given(path);
        match at_mut(&mut self.tree, parent) {
            Some(Value::Dict(_, dict)) => {
                let was_there = dict.remove(last).is_some();
                self.taken.insert(given);
                was_there
            }
            Some(Value::Array(_, list)) => {
                let index = last.parse().unwrap_or(usize::MAX);
                if index >= list.len() {
                    return false;
                }
                list.remove(index);
                let (index, list) = (&given[given.len() - 1], given[..given.len() - 1].to_vec());
                let removed = self.removed.entry(list).or_default();
                removed.push(index.parse().unwrap_or(usize::MAX));
                removed.sort_unstable();
                true
            }
            _ => false,
        }
    }

    fn as_given(&self, path: &[String]) -> Vec<String> {
        let mut given = Vec::with_capacity(path.len());
        for segment in path {
            let shifted = self.removed.get(&given).and_then(|removed| {
                let index: usize = segment.parse().ok()?;
                Some(removed.iter().fold(
                    index,
                    |index, gone| {
                        if index >= *gone { index + 1 } else { index }
                    },
                ))
            });
            given.push(shifted.map_or_else(|| segment.clone(), |index| index.to_string()));
        }
        given
    }

    fn note_unread_keys<T: Configuration>(&mut self, config: &T) {
        if let Ok(read) = Value::serialize(config) {
            let mut unread = Vec::new();
            compare(self.layers, &self.tree, &read, &mut Vec::new(), &mut unread);
            for (source, path) in unread {
                self.mistakes.push(Mistake {
                    key: self.layers.key_name(&source, &self.as_given(&path)),
                    source,
                    problem: "unknown key".to_owned(),
                });
            }
        }
    }
}

/// Collects the keys somebody gave that are in `tree` and not in what the type made of it.
fn compare(
    layers: &Layers,
    tree: &Value,
    read: &Value,
    path: &mut Vec<String>,
    unread: &mut Vec<(String, Vec<String>)>,
) {
    match (tree, read) {
        (Value::Dict(_, given), Value::Dict(_, known)) => {
            for (key, value) in given {
                path.push(key.clone());
                match known.get(key) {
                    Some(read) => compare(layers, value, read, path, unread),
                    // A null says "not set", which a type may leave out.
                    None if matches!(value, Value::Empty(..)) => {}
                    None => unread.extend(given_by(layers, value).map(|s| (s, path.clone()))),
                }
                path.pop();
            }
        }
        (Value::Array(_, given), Value::Array(_, known)) => {
            for (index, (value, read)) in given.iter().zip(known).enumerate() {
                path.push(index.to_string());
                compare(layers, value, read, path, unread);
                path.pop();
            }
        }
        _ => {}
    }
}

/// The layer that gave this value or, for a table, something in it.
fn given_by(layers: &Layers, value: &Value) -> Option<String> {
    if let Some(source) = layers.source_of(value) {
        return Some(source.to_owned());
    }
    match value {
        Value::Dict(_, dict) => dict.values().find_map(|value| given_by(layers, value)),
        Value::Array(_, list) => list.iter().find_map(|value| given_by(layers, value)),
        _ => None,
    }
}

fn at<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, segment| match value {
        Value::Dict(_, dict) => dict.get(segment),
        Value::Array(_, list) => list.get(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

fn at_mut<'v>(value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, segment| match value {
        Value::Dict(_, dict) => dict.get_mut(segment),
        Value::Array(_, list) => list.get_mut(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(_, []) => "unknown key".to_owned(),
        Kind::UnknownField(_, known) => format!("unknown key; known here: {}", known.join(", ")),
        Kind::MissingField(field) => format!("the key {field} is missing"),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("is {found}, expected {expected}")
        }
        Kind::UnknownVariant(found, known) => {
            format!("is {found:?}, expected one of {}", known.join(", "))
        }
        other => other.to_string(),
    }
}
