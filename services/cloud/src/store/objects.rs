//! Uploaded files and the configurations that name large files. The bytes lie outside the database, under their digest.

use baetyl_model::{Digest, Namespace};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;

use super::error::Doing as _;
use super::row::{number, parsed, signed, stamp, text};
use super::{Store, StoreError, Tx};

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRow {
    /// Name an operator gave it.
    pub name: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Hex, of its bytes.
    pub md5: String,
    /// Bytes.
    pub size: u64,
    /// When the name was first used.
    pub create_time: Timestamp,
    /// When it was uploaded last.
    pub update_time: Timestamp,
}

/// A large file that the current version of a configuration names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigObject {
    /// Name it gets in the configuration's directory.
    pub file_name: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes; 0 = the author did not say.
    pub size: u64,
    /// Where to fetch it; empty = over the link.
    pub url: String,
    /// The uploaded file it was pinned from; empty for a url.
    pub object: String,
    /// "", "zip", "tar" or "tgz".
    pub unpack: String,
}

impl Store {
    /// All uploaded files of a namespace, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn objects(&self, namespace: &Namespace) -> Result<Vec<ObjectRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM objects WHERE namespace = ? ORDER BY name")
            .bind(namespace.as_str())
            .fetch_all(self.reader())
            .await
            .doing("list the objects")?;
        rows.iter().map(object_row).collect()
    }

    /// An uploaded file by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn object(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<ObjectRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM objects WHERE namespace = ? AND name = ?")
            .bind(namespace.as_str())
            .bind(name)
            .fetch_optional(self.reader())
            .await
            .doing("read the object")?;
        row.as_ref().map(object_row).transpose()
    }

    /// True when this namespace uploaded these bytes, under whatever name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_object_digest(
        &self,
        namespace: &Namespace,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let used: i64 = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM objects WHERE namespace = ? AND digest = ?)",
        )
        .bind(namespace.as_str())
        .bind(digest.to_string())
        .fetch_one(self.reader())
        .await
        .doing("look for an object")?;
        Ok(used != 0)
    }

    /// True when some namespace still needs the bytes of this digest.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_digest_used(&self, digest: &Digest) -> Result<bool, StoreError> {
        let digest = digest.to_string();
        let used: i64 = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM objects WHERE digest = ?) \
             OR EXISTS (SELECT 1 FROM config_objects WHERE digest = ? AND url = '')",
        )
        .bind(&digest)
        .bind(&digest)
        .fetch_one(self.writer())
        .await
        .doing("look for users of an object")?;
        Ok(used != 0)
    }
}

impl Tx {
    /// An uploaded file by name, inside this write.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn object(&mut self, name: &str) -> Result<Option<ObjectRow>, StoreError> {
        let namespace = self.namespace().clone();
        let row = sqlx::query("SELECT * FROM objects WHERE namespace = ? AND name = ?")
            .bind(namespace.as_str())
            .bind(name)
            .fetch_optional(self.connection())
            .await
            .doing("read the object")?;
        row.as_ref().map(object_row).transpose()
    }

    /// Points a name at uploaded bytes. Changes no desire: configurations are pinned to a digest when they are written.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_object(
        &mut self,
        name: &str,
        digest: Digest,
        md5: &str,
        size: u64,
    ) -> Result<ObjectRow, StoreError> {
        let time = self.by().time;
        let create_time = self.object(name).await?.map_or(time, |old| old.create_time);
        let namespace = self.namespace().clone();
        sqlx::query(
            "INSERT INTO objects (namespace, name, digest, md5, size, create_time, update_time) \
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest, md5 = excluded.md5, \
             size = excluded.size, update_time = excluded.update_time",
        )
        .bind(namespace.as_str())
        .bind(name)
        .bind(digest.to_string())
        .bind(md5)
        .bind(signed(size))
        .bind(stamp(create_time))
        .bind(stamp(time))
        .execute(self.connection())
        .await
        .doing("write the object")?;
        Ok(ObjectRow {
            name: name.to_owned(),
            digest,
            md5: md5.to_owned(),
            size,
            create_time,
            update_time: time,
        })
    }

    /// Forgets an uploaded file. What it was, or none when it is not there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_object(&mut self, name: &str) -> Result<Option<ObjectRow>, StoreError> {
        let row = self.object(name).await?;
        let namespace = self.namespace().clone();
        sqlx::query("DELETE FROM objects WHERE namespace = ? AND name = ?")
            .bind(namespace.as_str())
            .bind(name)
            .execute(self.connection())
            .await
            .doing("delete the object")?;
        Ok(row)
    }

    /// Names of the configurations that are pinned to this uploaded file.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn object_users(&mut self, name: &str) -> Result<Vec<String>, StoreError> {
        let namespace = self.namespace().clone();
        sqlx::query_scalar(
            "SELECT DISTINCT config FROM config_objects WHERE namespace = ? AND object = ? ORDER BY config",
        )
        .bind(namespace.as_str())
        .bind(name)
        .fetch_all(self.connection())
        .await
        .doing("find the users of an object")
    }

    pub(super) async fn replace_config_objects(
        &mut self,
        config: &str,
        objects: &[ConfigObject],
    ) -> Result<(), StoreError> {
        let namespace = self.namespace().clone();
        sqlx::query("DELETE FROM config_objects WHERE namespace = ? AND config = ?")
            .bind(namespace.as_str())
            .bind(config)
            .execute(self.connection())
            .await
            .doing("clear the objects of a configuration")?;
        for object in objects {
            sqlx::query(
                "INSERT INTO config_objects (namespace, config, file_name, digest, size, url, object, unpack) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(namespace.as_str())
            .bind(config)
            .bind(&object.file_name)
            .bind(object.digest.to_string())
            .bind(signed(object.size))
            .bind(&object.url)
            .bind(&object.object)
            .bind(&object.unpack)
            .execute(self.connection())
            .await
            .doing("write an object of a configuration")?;
        }
        Ok(())
    }
}

fn object_row(row: &SqliteRow) -> Result<ObjectRow, StoreError> {
    Ok(ObjectRow {
        name: text(row, "name")?.to_owned(),
        digest: parsed(row, "digest")?,
        md5: text(row, "md5")?.to_owned(),
        size: number(row, "size")?,
        create_time: parsed(row, "create_time")?,
        update_time: parsed(row, "update_time")?,
    })
}

pub(super) fn config_object(row: &SqliteRow) -> Result<ConfigObject, StoreError> {
    Ok(ConfigObject {
        file_name: text(row, "file_name")?.to_owned(),
        digest: parsed(row, "digest")?,
        size: number(row, "size")?,
        url: text(row, "url")?.to_owned(),
        object: text(row, "object")?.to_owned(),
        unpack: text(row, "unpack")?.to_owned(),
    })
}
