//! Configurations and secrets as immutable ConfigMaps and Secrets, one for each version.

use baetyl_model::name::Kind;
use baetyl_model::resource::{Secret, SecretKind, Service, VolumeSource};
use baetyl_model::{Configuration, Digest, base64};
use serde_json::{Map, Value, json};

use super::RenderError;
use super::build::Build;
use super::fields::Fields;
use crate::names;
use crate::object::Object;

/// Kubernetes refuses larger ones.
const MAX_BYTES: usize = 1024 * 1024;

impl<'a> Build<'a> {
    /// A configuration of the release and its digest; `volume` is who names it.
    pub(super) fn configuration(
        &self,
        volume: &str,
        name: &str,
    ) -> Result<(&'a Configuration, Digest), RenderError> {
        let body = self.request.configurations.get(name);
        let found = body.zip(self.digest(Kind::Configuration, name));
        found.ok_or_else(|| RenderError::Reference {
            volume: volume.to_owned(),
            kind: "configuration",
            name: name.to_owned(),
        })
    }

    fn secret_body(&self, volume: &str, name: &str) -> Result<(&'a Secret, Digest), RenderError> {
        let body = self.request.secrets.get(name);
        let found = body.zip(self.digest(Kind::Secret, name));
        found.ok_or_else(|| RenderError::Reference {
            volume: volume.to_owned(),
            kind: "secret",
            name: name.to_owned(),
        })
    }

    fn digest(&self, kind: Kind, name: &str) -> Option<Digest> {
        let mut all = self.request.release.resources.iter();
        all.find(|reference| reference.kind == kind && reference.name == *name)
            .map(|reference| reference.digest)
    }

    /// The ConfigMap with the plain items of a configuration; gives its name.
    pub(super) fn config_map(
        &mut self,
        configuration: &Configuration,
        digest: &Digest,
    ) -> Result<String, RenderError> {
        let bytes = configuration
            .files()
            .map(|(key, text)| key.len() + text.len())
            .sum();
        if bytes > MAX_BYTES {
            return Err(RenderError::TooLarge {
                configuration: configuration.name.clone(),
                bytes,
                most: MAX_BYTES,
            });
        }
        let data: Map<String, Value> = configuration
            .files()
            .map(|(key, text)| (key.to_owned(), json!(text)))
            .collect();
        let rest = Fields::new().with("immutable", true).given("data", data);
        Ok(self.keep(Object::new(
            ("v1", "ConfigMap"),
            self.namespace,
            &names::content(&configuration.name, digest),
            &names::content_labels(digest),
            rest,
        )))
    }

    /// The Secret with the items of a secret; gives its name. None: it is a registry's, which nobody mounts.
    pub(super) fn secret(
        &mut self,
        volume: &str,
        name: &str,
    ) -> Result<Option<String>, RenderError> {
        let (secret, digest) = self.secret_body(volume, name)?;
        if secret.kind() == SecretKind::Registry {
            return Ok(None);
        }
        let data: Map<String, Value> = secret
            .data
            .iter()
            .map(|(key, bytes)| (key.clone(), json!(base64::encode(&bytes.0))))
            .collect();
        let rest = Fields::new()
            .with("immutable", true)
            .with("type", "Opaque")
            .given("data", data);
        Ok(Some(self.keep_secret(name, &digest, rest)))
    }

    /// The Secrets images are pulled with, one for each registry of the application, after those of the node.
    pub(super) fn pull_secrets(&mut self) -> Result<Vec<Value>, RenderError> {
        let mut found: Vec<String> = self.request.place.pull_secrets.clone();
        for volume in &self.app.volumes {
            let Some(VolumeSource::Secret(reference)) = volume.source() else {
                continue;
            };
            let (secret, digest) = self.secret_body(&volume.name, &reference.name)?;
            if secret.kind() == SecretKind::Registry {
                let rest = registry(&reference.name, secret)?;
                let name = self.keep_secret(&reference.name, &digest, rest);
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
        Ok(found
            .into_iter()
            .map(|name| json!({"name": name}))
            .collect())
    }

    fn keep_secret(&mut self, name: &str, digest: &Digest, rest: Fields) -> String {
        self.keep(Object::new(
            ("v1", "Secret"),
            self.namespace,
            &names::content(name, digest),
            &names::content_labels(digest),
            rest,
        ))
    }

    /// The ConfigMap with what runtimes have to know of the functions of each service, for those that mount none; gives
    /// its name. It is the application's own and changes with its version.
    pub(super) fn functions_map(&mut self, services: &[&Service]) -> String {
        let data: Map<String, Value> = services
            .iter()
            .map(|service| (functions_key(&service.name), json!(functions(service))))
            .collect();
        let name = names::functions(self.name, &self.request.release.app.digest);
        let rest = Fields::new().with("immutable", true).with("data", data);
        let object = self.object(("v1", "ConfigMap"), &name, rest);
        self.keep(object)
    }
}

/// Key of a service in the ConfigMap of functions.
pub(super) fn functions_key(service: &str) -> String {
    format!("{service}.yml")
}

/// JSON is YAML.
fn functions(service: &Service) -> String {
    let functions: Vec<Value> = service
        .functions
        .iter()
        .map(|function| {
            let entry = Fields::new()
                .with("name", function.name.as_str())
                .with("handler", function.handler.as_str())
                .with("codedir", function.code_dir.as_str())
                .given("timeoutMs", json!(function.timeout_ms));
            Value::from(entry)
        })
        .collect();
    json!({"functions": functions}).to_string()
}

fn registry(name: &str, secret: &Secret) -> Result<Fields, RenderError> {
    let address = secret.text("address");
    if address.is_empty() {
        return Err(RenderError::Registry(name.to_owned()));
    }
    let (username, password) = (secret.text("username"), secret.text("password"));
    let auth = base64::encode(format!("{username}:{password}").as_bytes());
    let entry = json!({"username": username, "password": password, "auth": auth});
    let config = json!({"auths": Map::from_iter([(address.to_owned(), entry)])}).to_string();
    let data = json!({".dockerconfigjson": base64::encode(config.as_bytes())});
    Ok(Fields::new()
        .with("immutable", true)
        .with("type", "kubernetes.io/dockerconfigjson")
        .with("data", data))
}
