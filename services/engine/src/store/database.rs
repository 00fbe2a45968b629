//! The database beneath the store: what it must hold, sealing.

use std::path::Path;

use baetyl_kit::crypto::{self, CryptoError, KeyFile, SealKey};
use baetyl_kit::fsio;
use baetyl_ledger::Rules;
use baetyl_model::Digest;
use baetyl_model::name::Kind;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _};
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

pub(super) const RULES: Rules = Rules {
    cache: CACHE_BYTES,
    known: FORMAT,
    prepare,
    validate: read_all,
};

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

/// Makes the tables where they are absent and gives the oldest format a reader must know.
fn prepare(db: &Database) -> Result<u64, redb::Error> {
    match min_reader(&db.begin_read()?) {
        Err(redb::Error::TableDoesNotExist(_)) | Ok(None) => {}
        Ok(Some(wanted)) => return Ok(wanted),
        Err(error) => return Err(error),
    }
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

/// Of a file that lacks no table; None of one that says no format. Tables of a newer program are not looked at.
fn min_reader(tx: &ReadTransaction) -> Result<Option<u64>, redb::Error> {
    let meta = tx.open_table(META)?;
    let Some(stored) = meta.get(KEY_FORMAT)? else {
        return Ok(None);
    };
    let wanted = decode::<Format>(stored.value())?.min_reader;
    if wanted <= FORMAT {
        tx.open_table(APPS)?;
        tx.open_table(BODIES)?;
    }
    Ok(Some(wanted))
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

impl Inner {
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
