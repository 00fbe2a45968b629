//! Between what the REST interface shows and what is stored.
//!
//! Applications: certificates and registries of the view are secret volumes of what is stored, and a `programConfig` is
//! a configuration volume mounted at `/var/lib/baetyl/bin`. Configurations: typed items and `_object_` keys.

use std::collections::BTreeMap;

use super::configuration::{OBJECT_PREFIX, ObjectItem};
use super::{
    Application, ConfigItem, Configuration, ConfigurationView, NamedRef, Reference, RegistryRef,
    Secret, SecretBytes, SecretKind, SecretView, Volume, VolumeMount, label, path,
};

#[cfg(test)]
mod tests;

/// Prefix of the volumes made from `programConfig`; the service name follows.
pub const PROGRAM_VOLUME_PREFIX: &str = "baetyl-program-config-";

/// What is known of a secret when an application is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSecret {
    /// What it is for.
    pub kind: SecretKind,
    /// Address and user name of a registry; empty otherwise.
    pub registry: (String, String),
}

impl From<&Secret> for KnownSecret {
    fn from(secret: &Secret) -> Self {
        let kind = secret.kind();
        let registry = match kind {
            SecretKind::Registry => (
                secret.text("address").to_owned(),
                secret.text("username").to_owned(),
            ),
            _ => Default::default(),
        };
        Self { kind, registry }
    }
}

impl Application {
    /// The stored form of what the REST interface takes. Also copies the label of the mode, as Baetyl v2 does.
    ///
    /// A volume made for a `programConfig` is named after its service, so that several services do not take each
    /// other's.
    #[must_use]
    pub fn into_stored(mut self) -> Self {
        for volume in &mut self.volumes {
            if let Some(NamedRef { name }) = volume.certificate.take() {
                volume.secret = Some(Reference {
                    name,
                    version: String::new(),
                });
            }
        }
        for RegistryRef { name, .. } in std::mem::take(&mut self.registries) {
            if self.volume(&name).is_none() {
                let secret = Some(Reference {
                    name: name.clone(),
                    version: String::new(),
                });
                self.volumes.push(Volume {
                    name,
                    secret,
                    ..Volume::default()
                });
            }
        }
        for service in self.init_services.iter_mut().chain(&mut self.services) {
            let program = std::mem::take(&mut service.program_config);
            if program.is_empty() {
                continue;
            }
            let name = format!("{PROGRAM_VOLUME_PREFIX}{}", service.name);
            self.volumes.retain(|volume| volume.name != name);
            service.volume_mounts.retain(|mount| mount.name != name);
            let config = Some(Reference {
                name: program,
                version: String::new(),
            });
            self.volumes.push(Volume {
                name: name.clone(),
                config,
                ..Volume::default()
            });
            let mount_path = path::PROGRAM.to_owned();
            service.volume_mounts.push(VolumeMount {
                name,
                mount_path,
                read_only: true,
                ..VolumeMount::default()
            });
        }
        self.labels
            .insert(label::APP_MODE.to_owned(), self.mode().to_owned());
        self
    }

    /// The form the REST interface shows. `secret` tells what is known of a secret by name; a secret nobody knows is
    /// shown as a secret volume.
    #[must_use]
    pub fn into_view(mut self, secret: impl Fn(&str) -> Option<KnownSecret>) -> Self {
        self.labels.remove(label::APP_MODE);
        for service in self.init_services.iter_mut().chain(&mut self.services) {
            let name = format!("{PROGRAM_VOLUME_PREFIX}{}", service.name);
            let made = self.volumes.iter().position(|volume| volume.name == name);
            if let Some(config) = made.and_then(|at| self.volumes.remove(at).config) {
                service.program_config = config.name;
                service.volume_mounts.retain(|mount| mount.name != name);
            }
        }
        let mut volumes = Vec::with_capacity(self.volumes.len());
        for mut volume in self.volumes {
            let name = volume
                .secret
                .as_ref()
                .map(|reference| reference.name.clone());
            let known = name.as_deref().and_then(&secret);
            match (known, name) {
                (
                    Some(KnownSecret {
                        kind: SecretKind::Registry,
                        registry,
                    }),
                    Some(name),
                ) => {
                    let (address, username) = registry;
                    self.registries.push(RegistryRef {
                        name,
                        address,
                        username,
                    });
                    continue;
                }
                (
                    Some(KnownSecret {
                        kind: SecretKind::Certificate,
                        ..
                    }),
                    Some(name),
                ) => {
                    volume.secret = None;
                    volume.certificate = Some(NamedRef { name });
                }
                _ => {}
            }
            volumes.push(volume);
        }
        self.volumes = volumes;
        self
    }

    /// Names of the configurations it references, in order, each once.
    pub fn config_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .volumes
            .iter()
            .filter_map(|volume| Some(volume.config.as_ref()?.name.as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Names of the secrets it references, in order, each once.
    pub fn secret_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .volumes
            .iter()
            .filter_map(|volume| Some(volume.secret.as_ref()?.name.as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Fields of an object item that are its own; everything else an author gives is `metadata`.
const OBJECT_FIELDS: [&str; 6] = ["md5", "sha256", "size", "url", "token", "unpack"];

impl ConfigurationView {
    /// The stored form. Give it what [`super::validate_configuration`] accepted.
    #[must_use]
    pub fn into_stored(self) -> Configuration {
        let mut stored = Configuration {
            name: self.name,
            namespace: self.namespace,
            labels: self.labels,
            data: BTreeMap::new(),
            create_time: self.create_time,
            update_time: self.update_time,
            description: self.description,
            version: self.version,
            system: self.system,
        };
        for ConfigItem { key, mut value } in self.data {
            if value.get("type").is_none_or(|kind| kind == "kv") {
                stored
                    .data
                    .insert(key, value.remove("value").unwrap_or_default());
                continue;
            }
            let mut take = |field: &str| value.remove(field).unwrap_or_default();
            let [md5, sha256, size, url, token, unpack] = OBJECT_FIELDS.map(&mut take);
            let size = size.parse().unwrap_or(0);
            let item = ObjectItem {
                md5,
                sha256: sha256.to_ascii_lowercase(),
                size,
                url,
                token,
                unpack,
                metadata: value,
            };
            stored.insert_object(&key, &item);
        }
        stored
    }
}

impl Configuration {
    /// The form the REST interface shows.
    #[must_use]
    pub fn into_view(self) -> ConfigurationView {
        let data =
            self.data
                .into_iter()
                .map(|(key, value)| match key.strip_prefix(OBJECT_PREFIX) {
                    Some(file) => ConfigItem {
                        key: file.to_owned(),
                        value: object_view(&value),
                    },
                    None => {
                        let value = BTreeMap::from([
                            ("type".to_owned(), "kv".to_owned()),
                            ("value".to_owned(), value),
                        ]);
                        ConfigItem { key, value }
                    }
                });
        ConfigurationView {
            data: data.collect(),
            name: self.name,
            namespace: self.namespace,
            labels: self.labels,
            create_time: self.create_time,
            update_time: self.update_time,
            description: self.description,
            version: self.version,
            system: self.system,
        }
    }
}

/// What the author gave, without the user id the cloud of Baetyl v2 keeps beside it. An unreadable item shows its type
/// alone.
fn object_view(text: &str) -> BTreeMap<String, String> {
    let item: ObjectItem = serde_json::from_str(text).unwrap_or_default();
    let size = if item.size == 0 {
        String::new()
    } else {
        item.size.to_string()
    };
    let mut value = item.metadata;
    value.remove("userID");
    value
        .entry("type".to_owned())
        .or_insert_with(|| "object".to_owned());
    for (field, text) in OBJECT_FIELDS.iter().zip([
        item.md5,
        item.sha256,
        size,
        item.url,
        item.token,
        item.unpack,
    ]) {
        if !text.is_empty() {
            value.insert((*field).to_owned(), text);
        }
    }
    value
}

impl SecretView {
    /// The stored form of a plain secret, without salt.
    #[must_use]
    pub fn into_stored(self) -> Secret {
        Secret {
            name: self.name,
            namespace: self.namespace,
            labels: self.labels,
            annotations: self.annotations,
            data: self
                .data
                .into_iter()
                .map(|(key, text)| (key, SecretBytes(text.into_bytes())))
                .collect(),
            create_time: self.create_time,
            update_time: self.update_time,
            description: self.description,
            version: self.version,
            system: false,
            salt: SecretBytes::default(),
        }
    }
}

impl Secret {
    /// The form the REST interface shows; bytes that are no text are shown with replacement characters.
    #[must_use]
    pub fn into_view(self) -> SecretView {
        let text = |bytes: SecretBytes| String::from_utf8_lossy(&bytes.0).into_owned();
        SecretView {
            name: self.name,
            namespace: self.namespace,
            labels: self.labels,
            annotations: self.annotations,
            data: self
                .data
                .into_iter()
                .map(|(key, bytes)| (key, text(bytes)))
                .collect(),
            create_time: self.create_time,
            update_time: self.update_time,
            description: self.description,
            version: self.version,
        }
    }
}
