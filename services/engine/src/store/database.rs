//! The database beneath the store: opening, quarantine, transactions, sealing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use baetyl_kit::crypto::{self, CryptoError, KeyFile, SealKey};
use baetyl_kit::fsio;
use baetyl_model::Digest;
use baetyl_model::name::Kind;
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{
    APPS, Accepted, AppRecord, BODIES, Body, CACHE_BYTES, FORMAT, Inner, KEY_ACCEPTED, META,
    MIN_READER, StoreError,
};

const KEY_FORMAT: &str = "format";
/// First byte of a body: as it is, or sealed.
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Format {
    format: u64,
    min_reader: u64,
}

/// Opens the file, or puts a damaged one aside and begins anew; says where the damaged one is.
pub(super) fn open(path: &Path) -> Result<(Database, Option<PathBuf>), StoreError> {
    match open_file(path) {
        Ok(db) => Ok((db, None)),
        Err(StoreError::Database { source, .. }) if is_damage(&source) => {
            tracing::error!(file = %path.display(), error = %source, "the store is damaged; a new one is begun");
            let aside = fsio::quarantine(path).map_err(|source| StoreError::Quarantine {
                path: path.to_owned(),
                source,
            })?;
            Ok((open_file(path)?, Some(aside)))
        }
        Err(error) => Err(error),
    }
}

/// A damaged key file is put aside: what it sealed is staged again.
pub(super) fn open_seal_key(path: &Path) -> Result<SealKey, StoreError> {
    match KeyFile::load_or_create(path) {
        Err(CryptoError::BadKey { .. }) => {
            fsio::quarantine(path).map_err(|source| StoreError::Quarantine {
                path: path.to_owned(),
                source,
            })?;
            Ok(KeyFile::load_or_create(path)?)
        }
        other => Ok(other?),
    }
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    let fail = |source: redb::Error| StoreError::Database {
        path: path.to_owned(),
        action: "opened",
        source: Box::new(source),
    };
    // Debug builds of redb panic on some damage instead of reporting it.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create(path)?;
        let wanted = prepare(&db)?;
        // A format that cannot be read is no damage: nothing beyond it is looked at.
        if wanted <= FORMAT {
            read_all(&db)?;
        }
        Ok((db, wanted))
    }));
    let (db, wanted) = opened
        .unwrap_or_else(|_| {
            Err(redb::Error::Corrupted(
                "the database is inconsistent".to_owned(),
            ))
        })
        .map_err(fail)?;
    if wanted > FORMAT {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            wanted,
        });
    }
    Ok(db)
}

/// Makes the tables and gives the oldest format a reader must know.
fn prepare(db: &Database) -> Result<u64, redb::Error> {
    let tx = db.begin_write()?;
    let format;
    {
        let mut meta = tx.open_table(META)?;
        let stored = meta
            .get(KEY_FORMAT)?
            .map(|value| decode::<Format>(value.value()))
            .transpose()?;
        format = match stored {
            Some(format) => format,
            None => {
                let format = Format {
                    format: FORMAT,
                    min_reader: MIN_READER,
                };
                // Two numbers always serialise.
                let json = serde_json::to_vec(&format).unwrap_or_default();
                meta.insert(KEY_FORMAT, json.as_slice())?;
                format
            }
        };
        tx.open_table(APPS)?;
        tx.open_table(BODIES)?;
    }
    tx.commit()?;
    Ok(format.min_reader)
}

/// Everything but bodies must be readable, or nothing is trusted.
fn read_all(db: &Database) -> Result<(), redb::Error> {
    let tx = db.begin_read()?;
    for row in tx.open_table(APPS)?.iter()? {
        decode::<AppRecord>(row?.1.value())?;
    }
    if let Some(value) = tx.open_table(META)?.get(KEY_ACCEPTED)? {
        decode::<Accepted>(value.value())?;
    }
    Ok(())
}

/// A record that is no JSON of its type is damage.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| redb::Error::Corrupted(format!("a record cannot be read: {error}")))
}

/// Whether the file, not the machine, is at fault.
fn is_damage(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted => true,
        redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::TableIsMultimap(_) => true,
        redb::Error::Io(io) => matches!(io.kind(), InvalidData | UnexpectedEof),
        _ => false,
    }
}

impl Inner {
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let run = || {
            let tx = self.db.begin_read()?;
            read(&tx)
        };
        run().map_err(|source| self.fail("read", source))
    }

    /// Commits when `write` gives something, else nothing changes.
    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<Option<T>, redb::Error>,
    ) -> Result<Option<T>, StoreError> {
        let run = || {
            let tx = self.db.begin_write()?;
            let written = write(&tx)?;
            if written.is_some() {
                tx.commit()?;
            } else {
                tx.abort()?;
            }
            Ok(written)
        };
        run().map_err(|source| self.fail("written", source))
    }

    fn fail(&self, action: &'static str, source: redb::Error) -> StoreError {
        StoreError::Database {
            path: self.path.clone(),
            action,
            source: Box::new(source),
        }
    }

    /// Keys and values as they are written.
    pub(super) fn sealed(&self, bodies: Vec<Body>) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        bodies
            .into_iter()
            .map(|body| {
                let key = body.digest.hex();
                let value = if body.kind == Kind::Secret {
                    let sealed = self.seal.seal(key.as_bytes(), &body.bytes)?;
                    [&[SEALED], sealed.as_slice()].concat()
                } else {
                    [&[PLAIN], body.bytes.as_slice()].concat()
                };
                Ok((key, value))
            })
            .collect()
    }

    pub(super) fn open_body(&self, digest: &Digest, stored: &[u8]) -> Option<Vec<u8>> {
        let (kind, rest) = stored.split_first()?;
        let bytes = if *kind == SEALED {
            self.seal.open(digest.hex().as_bytes(), rest).ok()?
        } else {
            rest.to_vec()
        };
        if crypto::sha256(&bytes) == *digest.as_bytes() {
            return Some(bytes);
        }
        tracing::warn!(%digest, "a stored body is damaged and will be staged again");
        None
    }
}
