//! Times as Baetyl v2 writes them: RFC 3339, and the year 1 for "not set". We read both and leave unset times out.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Go's zero time, 0001-01-01T00:00:00Z, in seconds of the Unix epoch.
const GO_ZERO: i64 = -62_135_596_800;

/// Writes a time in RFC 3339, UTC.
pub fn serialize<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.serialize(serializer)
}

/// Reads RFC 3339 with any offset; Go's zero time and the empty text are `None`.
pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    parse(&text).map_err(serde::de::Error::custom)
}

/// Reads a time as [`deserialize`] does.
pub fn parse(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let time: Timestamp = text.parse().map_err(|_| {
        format!("\"{text}\" is not a time; RFC 3339 is wanted, e.g. 2026-01-31T08:00:00Z")
    })?;
    Ok((time.as_second() != GO_ZERO).then_some(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_zero_time_is_no_time() {
        assert_eq!(parse("0001-01-01T00:00:00Z"), Ok(None));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(
            parse("2026-11-23T19:59:13.250443661Z")
                .unwrap()
                .unwrap()
                .to_string(),
            "2026-11-23T19:59:13.250443661Z"
        );
        assert_eq!(
            parse("2023-12-14T15:15:46+08:00")
                .unwrap()
                .unwrap()
                .to_string(),
            "2023-12-14T07:15:46Z"
        );
        assert!(parse("tomorrow").unwrap_err().contains("RFC 3339"));
    }
}
