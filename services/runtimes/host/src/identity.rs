//! Who this runtime is: what its application token says.

use std::path::{Path, PathBuf};

use baetyl_kit::fsio;
use baetyl_proto::token::{self, Claims, TokenError};

/// A token with its claims.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// Application, service and instance, as engine wrote them or told us.
    pub(crate) claims: Claims,
    /// The token itself.
    pub(crate) token: String,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("cannot read the application token {path}; BAETYL_TOKEN_FILE names it")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no application token")]
    NoToken { path: PathBuf, source: TokenError },
}

impl Proof {
    /// Reads the token file. A token of a whole application names neither `service` nor `instance`: these are ours then.
    pub(crate) fn read(path: &Path, service: &str, instance: &str) -> Result<Self, IdentityError> {
        let bytes = fsio::read_limited(path, 16 * 1024).map_err(|source| IdentityError::Read {
            path: path.to_owned(),
            source,
        })?;
        let token = String::from_utf8_lossy(&bytes).trim().to_owned();
        let mut claims = token::read(&token).map_err(|source| IdentityError::NoToken {
            path: path.to_owned(),
            source,
        })?;
        for (claimed, own) in [
            (&mut claims.service, service),
            (&mut claims.instance, instance),
        ] {
            if claimed.is_empty() {
                own.clone_into(claimed);
            }
        }
        Ok(Self { claims, token })
    }
}
