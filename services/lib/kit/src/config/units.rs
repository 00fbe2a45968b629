//! Times and sizes as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time or size that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

const A_DURATION: &str = "a time such as \"500ms\", \"10s\", \"5m\", \"1h30m\" or \"7d\"";
const A_SIZE: &str = "a size such as \"4096\", \"64KiB\", \"10MB\" or \"2GiB\"";

const DURATION_UNITS: [(&str, u128); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads `"500ms"`, `"10s"`, `"1h30m"`, `"7d"` or `"0"`.
///
/// # Errors
/// For anything else: a number without a unit is ambiguous and refused.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError {
        text: text.to_owned(),
        expected: A_DURATION,
    };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut millis: u128 = 0;
    if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let (number, tail) = split_number(rest).ok_or_else(error)?;
        let length = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (name, tail) = tail.split_at(length);
        let (_, factor) = DURATION_UNITS
            .iter()
            .find(|(unit, _)| *unit == name)
            .ok_or_else(error)?;
        millis = u128::from(number)
            .checked_mul(*factor)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(error)?;
        rest = tail;
    }
    u64::try_from(millis)
        .map(Duration::from_millis)
        .map_err(|_| error())
}

/// Writes a time so that [`parse_duration`] reads it again (to the millisecond).
pub fn format_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS {
        let count = millis / factor;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            millis %= factor;
        }
    }
    text
}

/// `#[serde(with = "baetyl_kit::config::duration")]` for a [`Duration`]; [`mod@duration::option`] for an
/// optional one.
pub mod duration {
    use super::*;

    /// Writes `"1m30s"`.
    ///
    /// # Errors
    /// What the serializer reports.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_duration(*value))
    }

    /// Reads `"1m30s"`.
    ///
    /// # Errors
    /// When it is no time with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_any(Visitor(A_DURATION, |text: &str| parse_duration(text)))
    }

    /// The same for `Option<Duration>`.
    pub mod option {
        use super::*;

        #[derive(Serialize, Deserialize)]
        struct Wrapped(#[serde(with = "super")] Duration);

        /// Writes `"1m30s"` or nothing.
        ///
        /// # Errors
        /// What the serializer reports.
        pub fn serialize<S: Serializer>(
            value: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(Wrapped).serialize(to)
        }

        /// Reads `"1m30s"` or nothing.
        ///
        /// # Errors
        /// When it is no time with a unit.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<Wrapped>::deserialize(from)?.map(|wrapped| wrapped.0))
        }
    }
}

/// A number of bytes, written as `"64MiB"`, `"10MB"` or a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

impl ByteSize {
    /// `count` KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError {
            text: text.to_owned(),
            expected: A_SIZE,
        };
        let (number, unit) = split_number(text.trim()).ok_or_else(error)?;
        let unit = unit.trim_start();
        let factor = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, factor)| *factor)
            .or_else(|| unit.is_empty().then_some(1))
            .ok_or_else(error)?;
        number.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Visitor(A_SIZE, |text: &str| text.parse()))
    }
}

struct Visitor<F>(&'static str, F);

impl<T, F: FnOnce(&str) -> Result<T, UnitError>> de::Visitor<'_> for Visitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let length = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(length);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests;
