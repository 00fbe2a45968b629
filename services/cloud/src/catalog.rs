//! What a tenant has (applications, configurations, secrets) and the rules that hold between them.
//!
//! All functions work inside one [`Tx`]: what an application references exists, is pinned to a version with its newest
//! content, and when that changes, the application changes with it, at the same revision. So (application, version) names everything
//! an application runs with. Writing what is there already writes nothing.
//!
//! The bodies given here are well formed (`baetyl_model::resource::validate`); HTTP is `rest`'s.

use baetyl_model::resource::{Application, Configuration, FieldError, Secret};
use baetyl_model::{Kind, Revision};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{NewResource, ResourceRow, StoreError, Tx};

pub mod applications;
pub mod configurations;
mod functions;
pub mod secrets;

/// Why something is not written or deleted. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Things that are referenced and not there: kind in Baetyl v2's word, and name.
    #[error("what it references does not exist: {}", list(.0))]
    Missing(Vec<(&'static str, String)>),
    /// Others reference it.
    #[error("{kind} {name} is used by {}", .users.join(", "))]
    InUse {
        /// Baetyl v2's word.
        kind: &'static str,
        /// Which one.
        name: String,
        /// Who references it.
        users: Vec<String>,
    },
    /// Fields that are wrong in the light of what is there.
    #[error("{} fields are wrong", .0.len())]
    Fields(Vec<FieldError>),
    /// Its data has too many bytes.
    #[error("its data has {size} bytes, {max} are the most")]
    TooLarge {
        /// Bytes as JSON.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// No randomness for the salt of a secret.
    #[error("cannot salt the secret")]
    Salt(#[source] baetyl_kit::crypto::CryptoError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(things: &[(&'static str, String)]) -> String {
    let words: Vec<_> = things
        .iter()
        .map(|(kind, name)| format!("{kind} {name}"))
        .collect();
    words.join(", ")
}

/// What was written, or what was there already.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// The current version.
    pub row: ResourceRow,
    /// Its body.
    pub body: T,
}

/// A body of the catalog.
pub trait Body: Serialize + DeserializeOwned + PartialEq + Clone + Send {
    /// The kind of resource it is the body of.
    const KIND: Kind;
    /// The fields the cloud writes.
    fn stamp(&mut self, row: &Stamp);
}

/// What the cloud writes into every body.
#[derive(Debug, Clone)]
pub struct Stamp {
    namespace: String,
    create_time: jiff::Timestamp,
    update_time: jiff::Timestamp,
    version: Revision,
}

macro_rules! body {
    ($type:ty, $kind:expr) => {
        impl Body for $type {
            const KIND: Kind = $kind;

            fn stamp(&mut self, stamp: &Stamp) {
                self.namespace.clone_from(&stamp.namespace);
                self.create_time = Some(stamp.create_time);
                self.update_time = Some(stamp.update_time);
                self.version = stamp.version.to_string();
            }
        }
    };
}

body!(Application, Kind::Application);
body!(Configuration, Kind::Configuration);
body!(Secret, Kind::Secret);

/// The current version of a resource with its body.
///
/// # Errors
/// When the database fails.
pub async fn current<T: Body>(tx: &mut Tx, name: &str) -> Result<Option<Written<T>>, StoreError> {
    let Some(row) = tx.resource(T::KIND, name).await? else {
        return Ok(None);
    };
    let version = tx.version(T::KIND, name, row.version).await?;
    let body = version.map(|version| parse(&version.body)).transpose()?;
    body.map(|body| Written { row, body })
        .ok_or_else(|| StoreError::Row {
            what: "resource",
            reason: format!("{name} has no current version"),
        })
        .map(Some)
}

/// Reads a body that was stored by this program.
///
/// # Errors
/// When it is another one.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(|error| StoreError::Row {
        what: "body",
        reason: error.to_string(),
    })
}

/// Writes a body as a new version, unless it says what the current one says. `about` is the rest of the row; its body
/// is filled in here.
async fn put<T: Body>(
    tx: &mut Tx,
    mut body: T,
    old: Option<Written<T>>,
    same: impl FnOnce(&T, &T) -> bool,
    about: NewResource,
) -> Result<Written<T>, StoreError> {
    let (create_time, before) = match &old {
        Some(old) => (old.row.create_time, Some(old.row.version)),
        None => (tx.by().time, None),
    };
    let mut stamp = Stamp {
        namespace: tx.namespace().to_string(),
        create_time,
        update_time: tx.by().time,
        version: tx.revision(),
    };
    if let (Some(old), Some(before)) = (old, before) {
        let stamped = Stamp {
            update_time: old.row.update_time,
            version: before,
            ..stamp.clone()
        };
        let (mut then, mut now) = (old.body.clone(), body.clone());
        then.stamp(&stamped);
        now.stamp(&stamped);
        if same(&then, &now) {
            return Ok(old);
        }
        stamp.create_time = old.row.create_time;
    }
    body.stamp(&stamp);
    let bytes = serde_json::to_vec(&body).map_err(|error| StoreError::Row {
        what: "body",
        reason: error.to_string(),
    })?;
    let row = tx
        .put_resource(NewResource {
            body: bytes,
            ..about
        })
        .await?;
    Ok(Written { row, body })
}

/// Deletes a configuration or secret that nobody references. False when it was not there.
///
/// # Errors
/// When applications reference it.
pub async fn delete(
    tx: &mut Tx,
    kind: Kind,
    word: &'static str,
    name: &str,
) -> Result<bool, CatalogError> {
    let users = tx.users(kind, name).await?;
    if !users.is_empty() {
        return Err(CatalogError::InUse {
            kind: word,
            name: name.to_owned(),
            users,
        });
    }
    Ok(tx.delete_resource(kind, name).await?.is_some())
}
