//! The ledger: what node must not forget, in `node.redb`.
//!
//! Owns the accepted desire (raw signed bytes in two alternating checksummed slots), the identity, the reported
//! properties and the last status. Every write is durable before the function returns. A file that cannot be read is
//! quarantined, never deleted, and a fresh one begins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_kit::metrics::Counter;
pub use baetyl_ledger::LedgerError;
use baetyl_ledger::medium::{Disk, Medium};
use baetyl_ledger::{LedgerFile, Opened, Rules};
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition,
    WriteTransaction,
};

/// Format this program writes.
const FORMAT: u64 = 1;
/// Oldest program format that can read what this program writes.
const MIN_READER: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const DESIRE: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("desire");
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const PROPERTIES: TableDefinition<'_, &str, &str> = TableDefinition::new("properties");

const RULES: Rules = Rules {
    cache: 256 * 1024,
    known: FORMAT,
    prepare,
    validate,
};

/// The open ledger.
#[derive(Debug)]
pub struct Ledger {
    file: LedgerFile,
    quarantined: Option<PathBuf>,
    failed_writes: Counter,
}

impl Ledger {
    /// Opens `node.redb` in `dir`, creating it when absent and quarantining it when damaged.
    ///
    /// # Errors
    /// When the file was written by a newer program, or the disk refuses.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        Self::open_on(Arc::new(Disk), dir)
    }

    /// As [`open`](Self::open), on something else than the disk of this machine.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_on(medium: Arc<dyn Medium>, dir: &Path) -> Result<Self, LedgerError> {
        let Opened { file, put_aside } =
            LedgerFile::open_on(medium, &dir.join("node.redb"), RULES)?;
        Ok(Self {
            file,
            quarantined: put_aside,
            failed_writes: Counter::default(),
        })
    }

    /// Counts writes that fail.
    #[must_use]
    pub fn counting(mut self, failed_writes: Counter) -> Self {
        self.failed_writes = failed_writes;
        self
    }

    /// Where a damaged predecessor was moved to at start.
    #[must_use]
    pub fn quarantined(&self) -> Option<&Path> {
        self.quarantined.as_deref()
    }

    /// The newest intact signed desire: exactly the bytes that were persisted.
    ///
    /// # Errors
    /// When the store fails.
    pub fn read_desire(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        let slots = self
            .file
            .read(|transaction| slots(&transaction.open_table(DESIRE)?))?;
        Ok(newest(&slots).map(|slot| slot.bytes.clone()))
    }

    /// Persists a signed desire into the slot that does not hold the newest one.
    ///
    /// # Errors
    /// When the store fails; the previous desire is then still there.
    pub fn persist_desire(&self, bytes: &[u8]) -> Result<(), LedgerError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(DESIRE)?;
            let (target, sequence) =
                newest(&slots(&table)?).map_or((0, 1), |slot| (1 - slot.index, slot.sequence + 1));
            table.insert(target, encode_slot(sequence, bytes).as_slice())?;
            Ok(())
        })
    }

    /// A named record (`identity`, `status`).
    ///
    /// # Errors
    /// When the store fails.
    pub fn read_record(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        self.file.read(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            Ok(table.get(name)?.map(|value| value.value().to_vec()))
        })
    }

    /// Persists a named record.
    ///
    /// # Errors
    /// When the store fails.
    pub fn persist_record(&self, name: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        self.write(|transaction| {
            transaction.open_table(RECORDS)?.insert(name, bytes)?;
            Ok(())
        })
    }

    /// The reported properties.
    ///
    /// # Errors
    /// When the store fails.
    pub fn read_properties(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        self.file.read(|transaction| {
            let mut all = BTreeMap::new();
            for row in transaction.open_table(PROPERTIES)?.iter()? {
                let (key, value) = row?;
                all.insert(key.value().to_owned(), value.value().to_owned());
            }
            Ok(all)
        })
    }

    /// Applies changes (`None` deletes) in one transaction.
    ///
    /// # Errors
    /// When the store fails; nothing is changed then.
    pub fn persist_properties(
        &self,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), LedgerError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(PROPERTIES)?;
            for (key, value) in changes {
                match value {
                    Some(value) => table.insert(key.as_str(), value.as_str())?,
                    None => table.remove(key.as_str())?,
                };
            }
            Ok(())
        })
    }

    fn write(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), LedgerError> {
        self.file
            .write(body)
            .inspect_err(|_| self.failed_writes.inc())
    }
}

/// Creates the tables where they are absent and answers the oldest format a reader must know.
fn prepare(db: &Database) -> Result<u64, redb::Error> {
    match min_reader(&db.begin_read()?) {
        Err(redb::Error::TableDoesNotExist(_)) | Ok(0) => {}
        other => return other,
    }
    let tx = db.begin_write()?;
    let found;
    {
        let mut meta = tx.open_table(META)?;
        found = meta.get("min_reader")?.map_or(0, |v| v.value());
        if found == 0 {
            meta.insert("format", FORMAT)?;
            meta.insert("min_reader", MIN_READER)?;
        }
        tx.open_table(DESIRE)?;
        tx.open_table(RECORDS)?;
        tx.open_table(PROPERTIES)?;
    }
    tx.commit()?;
    Ok(found)
}

/// Of a file that lacks no table. Those of a newer program are not looked at.
fn min_reader(tx: &ReadTransaction) -> Result<u64, redb::Error> {
    let meta = tx.open_table(META)?;
    let found = meta.get("min_reader")?.map_or(0, |v| v.value());
    if found > FORMAT {
        return Ok(found);
    }
    tx.open_table(DESIRE)?;
    tx.open_table(RECORDS)?;
    tx.open_table(PROPERTIES)?;
    Ok(found)
}

/// Everything must be readable, or nothing is trusted. What it says is judged where it is used.
fn validate(db: &Database) -> Result<(), redb::Error> {
    let tx = db.begin_read()?;
    for row in tx.open_table(DESIRE)?.iter()? {
        row?.1.value();
    }
    for row in tx.open_table(RECORDS)?.iter()? {
        let (key, value) = row?;
        let _ = (key.value(), value.value());
    }
    for row in tx.open_table(PROPERTIES)?.iter()? {
        let (key, value) = row?;
        let _ = (key.value(), value.value());
    }
    Ok(())
}

/// The copies that are intact.
fn slots(table: &impl ReadableTable<u8, &'static [u8]>) -> Result<Vec<Slot>, redb::Error> {
    let mut slots = Vec::new();
    for index in 0..2_u8 {
        if let Some(raw) = table.get(index)? {
            slots.extend(decode_slot(index, raw.value()));
        }
    }
    Ok(slots)
}

struct Slot {
    index: u8,
    sequence: u64,
    bytes: Vec<u8>,
}

fn newest(slots: &[Slot]) -> Option<&Slot> {
    slots.iter().max_by_key(|slot| slot.sequence)
}

/// `sequence (8 bytes, little endian) | sha256 of sequence and bytes (32) | bytes`
fn encode_slot(sequence: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + bytes.len());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&checksum(sequence, bytes));
    out.extend_from_slice(bytes);
    out
}

fn decode_slot(index: u8, raw: &[u8]) -> Option<Slot> {
    let (head, bytes) = raw.split_at_checked(40)?;
    let (sequence, sum) = head.split_at_checked(8)?;
    let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
    if checksum(sequence, bytes) != sum {
        tracing::error!(
            index,
            "a copy of the desire in the ledger does not match its checksum; the other copy is used"
        );
        return None;
    }
    Some(Slot {
        index,
        sequence,
        bytes: bytes.to_vec(),
    })
}

fn checksum(sequence: u64, bytes: &[u8]) -> [u8; 32] {
    let mut hash = baetyl_kit::crypto::Sha256::new();
    hash.update(&sequence.to_le_bytes());
    hash.update(bytes);
    hash.finish()
}

#[cfg(test)]
mod tests;
