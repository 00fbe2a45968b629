//! Reading columns into the types of the model.

use std::collections::BTreeMap;
use std::str::FromStr;

use baetyl_model::Revision;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::StoreError;

/// Labels or annotations.
pub(crate) type Labels = BTreeMap<String, String>;

fn bad(what: &'static str, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Row {
        what,
        reason: reason.to_string(),
    }
}

/// A text column parsed into one of the model's types.
pub(crate) fn parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text(row, column)?
        .parse()
        .map_err(|error| bad(column, error))
}

/// A text column.
pub(crate) fn text<'r>(row: &'r SqliteRow, column: &'static str) -> Result<&'r str, StoreError> {
    row.try_get(column).map_err(|error| bad(column, error))
}

/// An optional text column parsed into one of the model's types.
pub(crate) fn optional<T: FromStr>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, StoreError>
where
    T::Err: std::fmt::Display,
{
    let value: Option<&str> = row.try_get(column).map_err(|error| bad(column, error))?;
    value
        .map(|value| value.parse().map_err(|error| bad(column, error)))
        .transpose()
}

/// A text column that holds JSON.
pub(crate) fn json<T: DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(text(row, column)?).map_err(|error| bad(column, error))
}

/// A count or size.
pub(crate) fn number(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(|error| bad(column, error))?;
    u64::try_from(value).map_err(|error| bad(column, error))
}

/// A revision.
pub(crate) fn revision(row: &SqliteRow, column: &'static str) -> Result<Revision, StoreError> {
    number(row, column).map(Revision)
}

/// A truth value.
pub(crate) fn flag(row: &SqliteRow, column: &'static str) -> Result<bool, StoreError> {
    number(row, column).map(|value| value != 0)
}

/// Bytes.
pub(crate) fn blob<'r>(row: &'r SqliteRow, column: &'static str) -> Result<&'r [u8], StoreError> {
    row.try_get(column).map_err(|error| bad(column, error))
}

/// SQLite's integers are signed; no counter here reaches 2^63.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// JSON text of a value.
pub(crate) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| bad(what, error))
}

/// A time as it is stored: always six digits of a second, so that text order is time order.
pub(crate) fn stamp(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}
