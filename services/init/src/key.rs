//! The key of the node: made here, before the first request, and forgotten when sync has it.

use std::io;
use std::path::PathBuf;

use baetyl_kit::{Kit, fsio};
use rcgen::KeyPair;

use crate::Error;

const MAX_KEY: u64 = 16 * 1024;

fn path(kit: &Kit) -> Result<PathBuf, Error> {
    let path = kit.data_dir().join("init/node.key"); // for errors before the directory exists
    let dir = kit.state_dir().map_err(|source| Error::Key {
        path: path.clone(),
        source,
    })?;
    Ok(dir.join("node.key"))
}

/// The key that waits for an answer, or a new one on disk before anybody hears of it: activation is idempotent by key.
///
/// # Errors
/// When it can neither be read nor written.
pub(crate) fn load_or_create(kit: &Kit) -> Result<KeyPair, Error> {
    let path = path(kit)?;
    let fail = |source| Error::Key {
        path: path.clone(),
        source,
    };
    match fsio::read_limited(&path, MAX_KEY) {
        Ok(der) => match KeyPair::try_from(der.as_slice()) {
            Ok(key) => return Ok(key),
            Err(_) => drop(fsio::quarantine(&path).map_err(fail)?),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let key = KeyPair::generate().map_err(Error::Request)?;
    fsio::atomic_write(&path, key.serialized_der(), 0o600).map_err(fail)?;
    Ok(key)
}

/// Removes the key.
///
/// # Errors
/// When it is there and cannot be removed.
pub(crate) fn forget(kit: &Kit) -> Result<(), Error> {
    let path = path(kit)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Key {
            path,
            source: error,
        }),
        _ => Ok(()),
    }
}
