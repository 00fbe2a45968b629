//! Secrets stay in files; the configuration holds their paths.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const MAX_SECRET: u64 = 64 * 1024;

/// The path of a file that holds a secret. Never the secret itself: a value that cannot be a path is refused
/// without being shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SecretFile(PathBuf);

/// A secret from a file. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read secret file {path}; check that it exists and that this user may read it")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is empty.
    #[error("secret file {path} is empty; write the secret into it")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// A text was wanted.
    #[error("secret file {path} does not hold UTF-8 text")]
    NotText {
        /// Which file.
        path: PathBuf,
    },
}

/// The value given is not the path of a file.
#[derive(Debug, thiserror::Error)]
#[error("expected the absolute path of a file that holds the secret, never the secret itself")]
pub struct NotAPath;

impl SecretFile {
    /// The secret at that path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the secret is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the secret as it is now.
    ///
    /// # Errors
    /// When the file cannot be read or is empty.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let path = self.0.clone();
        match crate::fsio::read_limited(&self.0, MAX_SECRET) {
            Ok(bytes) if bytes.is_empty() => Err(SecretError::Empty { path }),
            Ok(bytes) => Ok(Secret(bytes)),
            Err(source) => Err(SecretError::Read { path, source }),
        }
    }

    /// Reads the secret as text without the newline an editor adds.
    ///
    /// # Errors
    /// When the file cannot be read, is empty, or is not text.
    pub fn read_text(&self) -> Result<String, SecretError> {
        let path = self.0.clone();
        let secret = self.read()?;
        match std::str::from_utf8(secret.bytes()).map(str::trim) {
            Ok("") => Err(SecretError::Empty { path }),
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(SecretError::NotText { path }),
        }
    }
}

impl TryFrom<String> for SecretFile {
    type Error = NotAPath;

    fn try_from(text: String) -> Result<Self, NotAPath> {
        let path = PathBuf::from(&text);
        let one_line = !text.contains(['\n', '\0']);
        if path.is_absolute() && one_line && text.len() < 4096 {
            Ok(Self(path))
        } else {
            Err(NotAPath)
        }
    }
}

impl Secret {
    /// The secret itself. Never log it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
