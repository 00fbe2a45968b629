//! Sealing of what must not be readable in the database: bodies of secrets, private keys of the cloud.
//!
//! Owns the format of a sealed value and where the key comes from; knows nothing about what is sealed. A sealed value
//! is bound to the place it belongs to ([`SealContext`]): moved to another row it does not open.
//!
//! Format 1: one byte `1`, eight bytes of key id, then what [`baetyl_kit::crypto::SealKey`] makes (format byte, random
//! nonce, ChaCha20-Poly1305 ciphertext with tag). The key id tells which key to use after a rotation, and lets the
//! error name the missing key.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_kit::crypto::{self, SealKey};
use baetyl_kit::fsio;

/// Name of the key file in the data directory.
pub const KEY_FILE: &str = "seal.key";

const FORMAT: u8 = 1;
const KEY_ID_LEN: usize = 8;

/// Why something could not be sealed or opened. Never says anything about the content.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file could not be read or written.
    #[error(
        "cannot use the sealing key {path}; check that the file exists and that this user may read it"
    )]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file holds something else.
    #[error(
        "{path} does not hold 64 hex digits; restore it from a backup, a new key cannot open what the old one sealed"
    )]
    BadKey {
        /// Which file.
        path: PathBuf,
    },
    /// There is a database and not the key that belongs to it.
    #[error(
        "there is a database {database} but no {path}; put the {KEY_FILE} that belongs to it beside it, a new key \
         cannot open what the old one sealed",
        path = .path.display(), database = .database.display()
    )]
    Lost {
        /// The key file.
        path: PathBuf,
        /// The database.
        database: PathBuf,
    },
    /// The source of keys gave none.
    #[error("the source of sealing keys gave no key")]
    NoKey,
    /// Sealed with a key that is not there.
    #[error(
        "{context} was sealed with key {key_id}, which is not here; restore the {KEY_FILE} that belongs to this database"
    )]
    UnknownKey {
        /// What was to be opened.
        context: String,
        /// The key that sealed it.
        key_id: String,
    },
    /// Changed, or moved from another row.
    #[error(
        "{context} cannot be opened: its sealed value was changed or belongs to something else; restore the database from a backup"
    )]
    Damaged {
        /// What was to be opened.
        context: String,
    },
    /// The primitive failed (no randomness, too long).
    #[error("cannot seal {context}")]
    Crypto {
        /// What was to be sealed.
        context: String,
        /// Why.
        source: crypto::CryptoError,
    },
    /// No randomness for a new key.
    #[error("cannot make a sealing key")]
    NewKey(#[source] crypto::CryptoError),
}

/// The place a sealed value belongs to; authenticated with it, not stored in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealContext<'a> {
    /// Namespace of the row, empty for what belongs to the installation.
    pub namespace: &'a str,
    /// Kind of the row, e.g. "secret".
    pub kind: &'a str,
    /// Name of the row.
    pub name: &'a str,
    /// Version of the row, empty if it has none.
    pub version: &'a str,
}

impl SealContext<'_> {
    /// Lengths before values: no two different contexts give the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"baetyl.seal.v1\n".to_vec();
        for part in [self.namespace, self.kind, self.name, self.version] {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out
    }
}

impl fmt::Display for SealContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if !self.version.is_empty() {
            write!(f, " version {}", self.version)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " of namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

/// Where sealing keys come from: a file by default; a key management service unwraps its data key here.
pub trait KeySource: Send + Sync {
    /// All keys that may have sealed something, the one to seal with first. Called once, at start; may block.
    ///
    /// # Errors
    /// When the keys cannot be had.
    fn load(&self) -> Result<Vec<[u8; 32]>, SealError>;
}

/// 32 bytes as 64 hex digits in a file of mode 0600, made at first start.
#[derive(Clone, Debug)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// The key file of a data directory.
    pub fn in_dir(data_dir: &Path) -> Self {
        Self(data_dir.join(KEY_FILE))
    }
}

impl KeySource for KeyFile {
    fn load(&self) -> Result<Vec<[u8; 32]>, SealError> {
        let failed = |source| SealError::KeyFile {
            path: self.0.clone(),
            source,
        };
        match fsio::read_limited(&self.0, 1024) {
            Ok(text) => {
                let key = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| crypto::unhex(text.trim()))
                    .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                key.map(|key| vec![key]).ok_or_else(|| SealError::BadKey {
                    path: self.0.clone(),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = crypto::random_bytes::<32>().map_err(SealError::NewKey)?;
                fsio::atomic_write(&self.0, crypto::hex(&key).as_bytes(), 0o600).map_err(failed)?;
                Ok(vec![key])
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Seal(Arc<Ring>);

struct Ring {
    current: [u8; KEY_ID_LEN],
    keys: BTreeMap<[u8; KEY_ID_LEN], SealKey>,
}

impl Seal {
    /// With the keys of `source`.
    ///
    /// # Errors
    /// When the source gives none.
    pub fn open_source(source: &dyn KeySource) -> Result<Self, SealError> {
        let keys = source.load()?;
        let current = keys.first().map(key_id).ok_or(SealError::NoKey)?;
        let keys = keys
            .iter()
            .map(|key| (key_id(key), SealKey::from_bytes(key)))
            .collect();
        Ok(Self(Arc::new(Ring { current, keys })))
    }

    /// With `<data_dir>/seal.key`, which is made if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn open_dir(data_dir: &Path) -> Result<Self, SealError> {
        Self::open_source(&KeyFile::in_dir(data_dir))
    }

    /// As [`Seal::open_dir`], but makes no new key beside a database that is there: it would not be the one its
    /// secrets were sealed with.
    ///
    /// # Errors
    /// When the file cannot be used, or is not there and the database is.
    pub fn of_database(data_dir: &Path, database: &Path) -> Result<Self, SealError> {
        let path = data_dir.join(KEY_FILE);
        // An empty file is a first start that broke off: the key is made before anything is written into it.
        let is_used = std::fs::metadata(database).is_ok_and(|found| found.len() > 0);
        if is_used && !path.exists() {
            return Err(SealError::Lost {
                path,
                database: database.to_owned(),
            });
        }
        Self::open_dir(data_dir)
    }

    /// Encrypts `plain` for exactly this place.
    ///
    /// # Errors
    /// Without randomness.
    pub fn seal(&self, context: SealContext<'_>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let failed = |source| SealError::Crypto {
            context: context.to_string(),
            source,
        };
        let key = self.0.keys.get(&self.0.current).ok_or(SealError::NoKey)?;
        let sealed = key.seal(&context.bytes(), plain).map_err(failed)?;
        let mut out = Vec::with_capacity(1 + KEY_ID_LEN + sealed.len());
        out.push(FORMAT);
        out.extend_from_slice(&self.0.current);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Decrypts what [`seal`](Self::seal) made for the same place.
    ///
    /// # Errors
    /// When the value was changed, belongs to another place, or its key is not here.
    pub fn open(&self, context: SealContext<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let damaged = || SealError::Damaged {
            context: context.to_string(),
        };
        let (&format, rest) = sealed.split_first().ok_or_else(damaged)?;
        let (id, ciphertext) = rest.split_first_chunk::<KEY_ID_LEN>().ok_or_else(damaged)?;
        if format != FORMAT {
            return Err(damaged());
        }
        let key = self.0.keys.get(id).ok_or_else(|| SealError::UnknownKey {
            context: context.to_string(),
            key_id: crypto::hex(id),
        })?;
        key.open(&context.bytes(), ciphertext)
            .map_err(|_| damaged())
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({})", crypto::hex(&self.0.current))
    }
}

/// Tells keys apart and nothing about them: a hash of 32 random bytes under a prefix of its own.
fn key_id(key: &[u8; 32]) -> [u8; KEY_ID_LEN] {
    let digest = crypto::sha256(&[b"baetyl.seal.key-id.v1\n".as_slice(), key].concat());
    let mut id = [0; KEY_ID_LEN];
    id.copy_from_slice(&digest[..KEY_ID_LEN]);
    id
}

#[cfg(test)]
mod tests;
