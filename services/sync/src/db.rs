//! `sync.redb`: what sync remembers over a power cut. Nobody else opens this file.
//!
//! How it is opened, checked, put aside and reopened is `baetyl-ledger`'s; what is in the tables belongs to the modules
//! that write them (identity, pins, outbox, commands, trust). All functions block: call them through
//! [`crate::blocking`].

use baetyl_ledger::Rules;
pub(crate) use baetyl_ledger::{LedgerError as DbError, LedgerFile as Db};
use redb::{Database, ReadableDatabase as _, TableDefinition, TableError};

/// Numbers and texts with a name.
pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// What this release writes, and the oldest release that can read it.
const FORMAT: u32 = 1;
const MIN_READER: u32 = 1;

/// The tables are small and read rarely; the page cache of the system serves the rest.
pub(crate) const RULES: Rules = Rules {
    cache: 128 * 1024,
    known: FORMAT as u64,
    prepare,
    // Each record is judged where it is read: what cannot be understood counts as absent.
    validate: |_| Ok(()),
};

/// On the disk of this machine.
#[cfg(test)]
pub(crate) fn open(path: &std::path::Path) -> Result<baetyl_ledger::Opened, DbError> {
    Db::open(path, RULES)
}

/// Gives the oldest format a reader must know; a fresh file says this release's.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    if let Some(wanted) = min_reader(database)? {
        return Ok(wanted.into());
    }
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT.to_be_bytes().as_slice())?;
        meta.insert("min_reader", MIN_READER.to_be_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(MIN_READER.into())
}

fn min_reader(database: &Database) -> Result<Option<u32>, redb::Error> {
    let meta = match database.begin_read()?.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let wanted = meta.get("min_reader")?;
    Ok(wanted.and_then(|value| value.value().try_into().ok().map(u32::from_be_bytes)))
}

#[cfg(test)]
mod tests;
