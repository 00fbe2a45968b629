//! One program at a time on a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Name of the file that is locked, in the data directory.
const FILE: &str = "lock";

/// Why the data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another program has it.
    #[error(
        "another baetyl-cloud runs on the data directory {path}; stop it first, or give this one a directory of its own",
        path = .path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock the data directory {path}; is it there and writable?", path = .path.display())]
    File {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory that is this program's until it is dropped, also when the program is killed.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Takes the directory, which must be there.
    ///
    /// # Errors
    /// When another program has it.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File {
            path: data_dir.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(data_dir.join(FILE))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken {
                path: data_dir.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_had_by_one_and_free_again_when_that_ends() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirLock::take(dir.path()).unwrap();
        let error = DataDirLock::take(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("another baetyl-cloud"),
            "{error}"
        );
        drop(first);
        DataDirLock::take(dir.path()).unwrap();
    }
}
