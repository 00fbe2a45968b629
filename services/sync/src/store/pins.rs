//! What owners declared they still need. Durable; a collection never removes it.

use std::collections::HashSet;

use baetyl_model::Digest;
use redb::{ReadableTable as _, TableDefinition, TableError};

use crate::db::{Db, DbError};

/// Owner to the raw digests, one after the other.
const PINS: TableDefinition<&str, &[u8]> = TableDefinition::new("pins");

/// Replaces what `owner` declared before.
///
/// # Errors
/// What the database says.
pub(crate) fn set_pins(db: &Db, owner: &str, digests: &[Digest]) -> Result<(), DbError> {
    let mut sorted = digests.to_vec();
    sorted.sort();
    sorted.dedup();
    let bytes: Vec<u8> = sorted.iter().flat_map(Digest::as_bytes).copied().collect();
    let known = db.read(|transaction| {
        let table = match transaction.open_table(PINS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(table.get(owner)?.map(|value| value.value() == bytes))
    })?;
    if known == Some(true) {
        // Engine declares at every start; flash is not written for that.
        return Ok(());
    }
    db.write(|transaction| {
        transaction
            .open_table(PINS)?
            .insert(owner, bytes.as_slice())?;
        Ok(())
    })
}

/// What all owners need; None when nobody has declared anything yet, which is not the same as nothing.
///
/// # Errors
/// What the database says.
pub(crate) fn pins(db: &Db) -> Result<Option<HashSet<Digest>>, DbError> {
    db.read(|transaction| {
        let table = match transaction.open_table(PINS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut pinned = HashSet::new();
        for row in table.iter()? {
            let (_, value) = row?;
            let (raw, _) = value.value().as_chunks::<32>();
            pinned.extend(raw.iter().copied().map(Digest::from_sha256));
        }
        Ok(Some(pinned))
    })
}
