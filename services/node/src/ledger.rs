//! The ledger: what node must not forget, in `node.redb`.
//!
//! Owns the accepted desire (raw signed bytes in two alternating checksummed slots), the identity, the reported
//! properties and the last status. Every write is durable before the function returns. A file that cannot be read is
//! quarantined, never deleted, and a fresh one begins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use baetyl_kit::fsio;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// Format this program writes.
const FORMAT: u64 = 1;
/// Oldest program format that can read what this program writes.
const MIN_READER: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const DESIRE: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("desire");
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const PROPERTIES: TableDefinition<'_, &str, &str> = TableDefinition::new("properties");

/// Why the ledger cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store itself failed.
    #[error("the ledger {path} cannot be {action}")]
    Store {
        /// The file.
        path: PathBuf,
        /// "opened", "read" or "written".
        action: &'static str,
        /// What the store said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A newer program wrote it.
    #[error(
        "the ledger {path} has format {found}, this program reads up to {FORMAT}; use the newer program, or move the file away to start anew"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The format that is wanted at least.
        found: u64,
    },
    /// The file was unreadable and could not be moved aside.
    #[error("the ledger {path} is damaged and cannot be moved aside")]
    Quarantine {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The open ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    db: Database,
    quarantined: Option<PathBuf>,
}

impl Ledger {
    /// Opens `node.redb` in `dir`, creating it when absent and quarantining it when damaged.
    ///
    /// # Errors
    /// When the file was written by a newer program, or the disk refuses.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join("node.redb");
        match Self::open_at(&path) {
            Ok(db) => Ok(Self {
                path,
                db,
                quarantined: None,
            }),
            Err(LedgerError::Store { source, .. }) if is_damage(&source) => {
                tracing::error!(path = %path.display(), error = %source, "the ledger is damaged; it is moved aside");
                let aside = fsio::quarantine(&path).map_err(|source| LedgerError::Quarantine {
                    path: path.clone(),
                    source,
                })?;
                let db = Self::open_at(&path)?;
                Ok(Self {
                    path,
                    db,
                    quarantined: Some(aside),
                })
            }
            Err(error) => Err(error),
        }
    }

    fn open_at(path: &Path) -> Result<Database, LedgerError> {
        let fail = |action| {
            let path = path.to_path_buf();
            move |source: redb::Error| LedgerError::Store {
                path,
                action,
                source: Box::new(source),
            }
        };
        let db = Database::builder()
            .set_cache_size(256 * 1024)
            .create(path)
            .map_err(|e| fail("opened")(e.into()))?;
        let found = prepare(&db).map_err(fail("opened"))?;
        if found > FORMAT {
            return Err(LedgerError::TooNew {
                path: path.to_path_buf(),
                found,
            });
        }
        Ok(db)
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
        self.slots()
            .map(|slots| newest(&slots).map(|slot| slot.bytes.clone()))
            .map_err(|e| self.fail("read", e))
    }

    /// Persists a signed desire into the slot that does not hold the newest one.
    ///
    /// # Errors
    /// When the store fails; the previous desire is then still there.
    pub fn persist_desire(&self, bytes: &[u8]) -> Result<(), LedgerError> {
        self.try_persist_desire(bytes)
            .map_err(|e| self.fail("written", e))
    }

    fn try_persist_desire(&self, bytes: &[u8]) -> Result<(), redb::Error> {
        let slots = self.slots()?;
        let (target, sequence) =
            newest(&slots).map_or((0, 1), |slot| (1 - slot.index, slot.sequence + 1));
        let tx = self.db.begin_write()?;
        tx.open_table(DESIRE)?
            .insert(target, encode_slot(sequence, bytes).as_slice())?;
        tx.commit()?;
        Ok(())
    }

    fn slots(&self) -> Result<Vec<Slot>, redb::Error> {
        let tx = self.db.begin_read()?;
        let table = tx.open_table(DESIRE)?;
        let mut slots = Vec::new();
        for index in 0..2_u8 {
            if let Some(raw) = table.get(index)? {
                slots.extend(decode_slot(index, raw.value()));
            }
        }
        Ok(slots)
    }

    /// A named record (`identity`, `status`).
    ///
    /// # Errors
    /// When the store fails.
    pub fn read_record(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let read = || -> Result<_, redb::Error> {
            let tx = self.db.begin_read()?;
            let table = tx.open_table(RECORDS)?;
            Ok(table.get(name)?.map(|value| value.value().to_vec()))
        };
        read().map_err(|e| self.fail("read", e))
    }

    /// Persists a named record.
    ///
    /// # Errors
    /// When the store fails.
    pub fn persist_record(&self, name: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        let write = || -> Result<_, redb::Error> {
            let tx = self.db.begin_write()?;
            tx.open_table(RECORDS)?.insert(name, bytes)?;
            tx.commit()?;
            Ok(())
        };
        write().map_err(|e| self.fail("written", e))
    }

    /// The reported properties.
    ///
    /// # Errors
    /// When the store fails.
    pub fn read_properties(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        let read = || -> Result<_, redb::Error> {
            let tx = self.db.begin_read()?;
            let table = tx.open_table(PROPERTIES)?;
            let mut all = BTreeMap::new();
            for row in table.iter()? {
                let (key, value) = row?;
                all.insert(key.value().to_owned(), value.value().to_owned());
            }
            Ok(all)
        };
        read().map_err(|e| self.fail("read", e))
    }

    /// Applies changes (`None` deletes) in one transaction.
    ///
    /// # Errors
    /// When the store fails; nothing is changed then.
    pub fn persist_properties(
        &self,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), LedgerError> {
        let write = || -> Result<_, redb::Error> {
            let tx = self.db.begin_write()?;
            {
                let mut table = tx.open_table(PROPERTIES)?;
                for (key, value) in changes {
                    match value {
                        Some(value) => table.insert(key.as_str(), value.as_str())?,
                        None => table.remove(key.as_str())?,
                    };
                }
            }
            tx.commit()?;
            Ok(())
        };
        write().map_err(|e| self.fail("written", e))
    }

    fn fail(&self, action: &'static str, source: redb::Error) -> LedgerError {
        LedgerError::Store {
            path: self.path.clone(),
            action,
            source: Box::new(source),
        }
    }
}

/// Creates the tables and answers the oldest format a reader must know.
fn prepare(db: &Database) -> Result<u64, redb::Error> {
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

/// Whether the file, not the machine, is at fault.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted => true,
        redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(io) => {
            matches!(
                io.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            )
        }
        _ => false,
    }
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
