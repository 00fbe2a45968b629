//! Applications, configurations and secrets: the current version of each, and every version by number and by digest.

use baetyl_model::{Digest, Kind, Namespace, Revision};
use jiff::Timestamp;

use super::error::Doing as _;
use super::row::{Labels, signed, stamp, to_json};
use super::{Change, Store, StoreError, Tx, Verb};

mod read;

pub(super) use read::version_row;
use read::{resource_row, seal_context, select_resource, select_users, select_version};

/// The current version of a resource, without its body.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceRow {
    /// Tenant.
    pub namespace: Namespace,
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// The revision that wrote the current version.
    pub version: Revision,
    /// Of the body.
    pub digest: Digest,
    /// Bytes of the body.
    pub size: u64,
    /// When the first version was written.
    pub create_time: Timestamp,
    /// When the current version was written.
    pub update_time: Timestamp,
    /// Labels, the hidden ones included.
    pub labels: Labels,
    /// Made by the cloud, not by an operator.
    pub system: bool,
    /// Applications: their type. Secrets: "config", "registry", "certificate". Configurations: empty.
    pub subtype: String,
    /// Applications: which nodes run it.
    pub selector: String,
}

/// One immutable version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRow {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// The revision that wrote it.
    pub version: Revision,
    /// Of the body.
    pub digest: Digest,
    /// Bytes of the body.
    pub size: u64,
}

/// One immutable version with its body as it was written (a secret's body decrypted).
#[derive(Debug, Clone, PartialEq)]
pub struct VersionBody {
    /// Which one.
    pub row: VersionRow,
    /// Compact JSON; its sha256 is the digest.
    pub body: Vec<u8>,
}

/// What an application references, at which version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Configuration or secret.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// Version the application runs with.
    pub version: Revision,
}

/// A version to be written.
#[derive(Debug, Clone)]
pub struct NewResource {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// Labels, the hidden ones included.
    pub labels: Labels,
    /// Made by the cloud, not by an operator.
    pub system: bool,
    /// See [`ResourceRow::subtype`].
    pub subtype: String,
    /// Applications: which nodes run it.
    pub selector: String,
    /// Compact JSON.
    pub body: Vec<u8>,
    /// Applications: what it references.
    pub references: Vec<Reference>,
    /// Configurations: large files it names.
    pub objects: Vec<super::ConfigObject>,
}

const VERSION_COLUMNS: &str =
    "SELECT kind, name, version, digest, size, sealed, body FROM resource_versions";

impl Store {
    /// The current version of a resource.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resource(
        &self,
        namespace: &Namespace,
        kind: Kind,
        name: &str,
    ) -> Result<Option<ResourceRow>, StoreError> {
        let mut connection = self.reader().acquire().await.doing("read the resource")?;
        select_resource(&mut connection, namespace, kind, name).await
    }

    /// The current versions of all resources of a kind, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resources(
        &self,
        namespace: &Namespace,
        kind: Kind,
    ) -> Result<Vec<ResourceRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE namespace = ? AND kind = ? ORDER BY create_time DESC, name")
            .bind(namespace.as_str())
            .bind(kind.as_str())
            .fetch_all(self.reader())
            .await
            .doing("list the resources")?;
        rows.iter().map(resource_row).collect()
    }

    /// One version of a resource with its body.
    ///
    /// # Errors
    /// When the database fails or the body cannot be decrypted.
    pub async fn version(
        &self,
        namespace: &Namespace,
        kind: Kind,
        name: &str,
        version: Revision,
    ) -> Result<Option<VersionBody>, StoreError> {
        let mut connection = self.reader().acquire().await.doing("read a version")?;
        select_version(&self.0, &mut connection, namespace, kind, name, version).await
    }

    /// A version by the digest of its body.
    ///
    /// # Errors
    /// When the database fails or the body cannot be decrypted.
    pub async fn version_by_digest(
        &self,
        namespace: &Namespace,
        digest: &Digest,
    ) -> Result<Option<VersionBody>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "{VERSION_COLUMNS} WHERE namespace = ? AND digest = ? LIMIT 1"
        )))
        .bind(namespace.as_str())
        .bind(digest.to_string())
        .fetch_optional(self.reader())
        .await
        .doing("read a version by digest")?;
        row.map(|row| self.0.version_body(namespace, &row))
            .transpose()
    }

    /// The versions up to a revision whose body has this digest, newest first, without their bodies.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn versions_by_digest(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        until: Revision,
    ) -> Result<Vec<VersionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT kind, name, version, digest, size FROM resource_versions \
             WHERE namespace = ? AND digest = ? AND version <= ? ORDER BY version DESC",
        )
        .bind(namespace.as_str())
        .bind(digest.to_string())
        .bind(signed(until.get()))
        .fetch_all(self.reader())
        .await
        .doing("read versions by digest")?;
        rows.iter().map(version_row).collect()
    }

    /// Names of the applications whose current version references a configuration or secret, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users(
        &self,
        namespace: &Namespace,
        kind: Kind,
        name: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut connection = self
            .reader()
            .acquire()
            .await
            .doing("find the users of a resource")?;
        select_users(&mut connection, namespace, kind, name).await
    }
}

impl Tx {
    /// The current version of a resource, inside this write.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resource(
        &mut self,
        kind: Kind,
        name: &str,
    ) -> Result<Option<ResourceRow>, StoreError> {
        let namespace = self.namespace().clone();
        select_resource(self.connection(), &namespace, kind, name).await
    }

    /// One version of a resource with its body, inside this write.
    ///
    /// # Errors
    /// When the database fails or the body cannot be decrypted.
    pub async fn version(
        &mut self,
        kind: Kind,
        name: &str,
        version: Revision,
    ) -> Result<Option<VersionBody>, StoreError> {
        let (namespace, store) = (self.namespace().clone(), self.store.clone());
        select_version(&store.0, self.connection(), &namespace, kind, name, version).await
    }

    /// Names of the applications whose current version references a configuration or secret, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users(&mut self, kind: Kind, name: &str) -> Result<Vec<String>, StoreError> {
        let namespace = self.namespace().clone();
        select_users(self.connection(), &namespace, kind, name).await
    }

    /// Writes a version at this write's revision, makes it the current one, replaces what it references, and records
    /// the change.
    ///
    /// # Errors
    /// When the database fails, also when something it references does not exist.
    pub async fn put_resource(&mut self, new: NewResource) -> Result<ResourceRow, StoreError> {
        let old = self.resource(new.kind, &new.name).await?;
        let row = ResourceRow {
            namespace: self.namespace().clone(),
            kind: new.kind,
            name: new.name,
            version: self.revision(),
            digest: Digest::from_sha256(baetyl_kit::crypto::sha256(&new.body)),
            size: new.body.len() as u64,
            create_time: old.as_ref().map_or(self.by().time, |old| old.create_time),
            update_time: self.by().time,
            labels: new.labels,
            system: new.system,
            subtype: new.subtype,
            selector: new.selector,
        };
        self.insert_version(&row, &new.body).await?;
        self.upsert_current(&row).await?;
        match row.kind {
            Kind::Application => self.replace_references(&row.name, &new.references).await?,
            Kind::Configuration => self.replace_config_objects(&row.name, &new.objects).await?,
            Kind::Secret => {}
        }
        let verb = if old.is_some() {
            Verb::Update
        } else {
            Verb::Create
        };
        self.record_resource(
            verb,
            row.kind,
            &row.name,
            old.map(|old| old.digest),
            Some(row.digest),
        );
        Ok(row)
    }

    /// Removes a resource with all its versions. What it was, or none when it is not there.
    ///
    /// # Errors
    /// When the database fails, also when an application still references it.
    pub async fn delete_resource(
        &mut self,
        kind: Kind,
        name: &str,
    ) -> Result<Option<ResourceRow>, StoreError> {
        let Some(row) = self.resource(kind, name).await? else {
            return Ok(None);
        };
        match kind {
            Kind::Application => self.replace_references(name, &[]).await?,
            Kind::Configuration => self.replace_config_objects(name, &[]).await?,
            Kind::Secret => {}
        }
        for statement in [
            "DELETE FROM resources WHERE namespace = ? AND kind = ? AND name = ?",
            "DELETE FROM resource_versions WHERE namespace = ? AND kind = ? AND name = ?",
        ] {
            sqlx::query(statement)
                .bind(row.namespace.as_str())
                .bind(kind.as_str())
                .bind(name)
                .execute(self.connection())
                .await
                .doing("delete the resource")?;
        }
        self.record_resource(Verb::Delete, kind, name, Some(row.digest), None);
        Ok(Some(row))
    }

    fn record_resource(
        &mut self,
        verb: Verb,
        kind: Kind,
        name: &str,
        old: Option<Digest>,
        new: Option<Digest>,
    ) {
        self.record(Change {
            verb,
            subject: kind.into(),
            name: name.to_owned(),
            uid: None,
            old,
            new,
        });
    }

    async fn insert_version(&mut self, row: &ResourceRow, body: &[u8]) -> Result<(), StoreError> {
        let sealed = row.kind == Kind::Secret;
        let stored = if sealed {
            let version = row.version.to_string();
            let context = seal_context(&row.namespace, row.kind, &row.name, &version);
            let sealed = self.store.0.seal.seal(context, body);
            sealed.map_err(|source| StoreError::Seal {
                verb: "sealed",
                source,
            })?
        } else {
            body.to_vec()
        };
        sqlx::query(
            "INSERT INTO resource_versions (namespace, kind, name, version, digest, size, sealed, body) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.namespace.as_str())
        .bind(row.kind.as_str())
        .bind(&row.name)
        .bind(signed(row.version.get()))
        .bind(row.digest.to_string())
        .bind(signed(row.size))
        .bind(sealed)
        .bind(stored)
        .execute(self.connection())
        .await
        .doing("write a version")?;
        Ok(())
    }

    async fn upsert_current(&mut self, row: &ResourceRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO resources (namespace, kind, name, version, digest, size, create_time, update_time, labels, \
             system, subtype, selector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (namespace, kind, name) DO UPDATE SET version = excluded.version, digest = excluded.digest, \
             size = excluded.size, update_time = excluded.update_time, labels = excluded.labels, \
             system = excluded.system, subtype = excluded.subtype, selector = excluded.selector",
        )
        .bind(row.namespace.as_str())
        .bind(row.kind.as_str())
        .bind(&row.name)
        .bind(signed(row.version.get()))
        .bind(row.digest.to_string())
        .bind(signed(row.size))
        .bind(stamp(row.create_time))
        .bind(stamp(row.update_time))
        .bind(to_json("labels", &row.labels)?)
        .bind(row.system)
        .bind(&row.subtype)
        .bind(&row.selector)
        .execute(self.connection())
        .await
        .doing("write the resource")?;
        Ok(())
    }

    async fn replace_references(
        &mut self,
        app: &str,
        references: &[Reference],
    ) -> Result<(), StoreError> {
        let namespace = self.namespace().clone();
        sqlx::query("DELETE FROM resource_refs WHERE namespace = ? AND app = ?")
            .bind(namespace.as_str())
            .bind(app)
            .execute(self.connection())
            .await
            .doing("clear the references")?;
        for reference in references {
            sqlx::query(
                "INSERT INTO resource_refs (namespace, app, kind, name, version) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT DO UPDATE SET version = excluded.version",
            )
            .bind(namespace.as_str())
            .bind(app)
            .bind(reference.kind.as_str())
            .bind(&reference.name)
            .bind(signed(reference.version.get()))
            .execute(self.connection())
            .await
            .doing("write a reference")?;
        }
        Ok(())
    }
}
