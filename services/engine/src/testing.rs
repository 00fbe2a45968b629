//! What several test modules of engine build upon: releases made from JSON.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use baetyl_kit::crypto;
use baetyl_model::desire::{AppRef, DesiredApp, ObjectRef, ResourceRef, Unpack};
use baetyl_model::name::Kind;
use baetyl_model::{Digest, Version};
use serde_json::{Value, json};

use crate::bodies::Bodies;

mod bench;
mod content;
mod runtime;
mod shadow;

pub(crate) use bench::{Bench, app, app_with};
pub(crate) use content::FakeContent;
pub(crate) use runtime::{Behaviour, FakeRuntime};
pub(crate) use shadow::FakeShadow;

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(crypto::sha256(bytes))
}

/// One release under construction, and the bytes it references.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseBuilder {
    app: Value,
    version: String,
    resources: Vec<ResourceRef>,
    objects: Vec<ObjectRef>,
    system: bool,
    pub(crate) bytes: BTreeMap<Digest, Vec<u8>>,
}

/// A release of the application that is `app` (name and version are put in).
pub(crate) fn release(name: &str, version: &str, mut app: Value) -> ReleaseBuilder {
    app["name"] = json!(name);
    app["version"] = json!(version);
    ReleaseBuilder {
        app,
        version: version.to_owned(),
        resources: Vec::new(),
        objects: Vec::new(),
        system: false,
        bytes: BTreeMap::new(),
    }
}

impl ReleaseBuilder {
    pub(crate) fn configuration(self, name: &str, data: Value) -> Self {
        let version = self.version.clone();
        self.resource(
            Kind::Configuration,
            name,
            json!({"name": name, "version": version, "data": data}),
        )
    }

    pub(crate) fn secret(self, name: &str, data: Value) -> Self {
        let version = self.version.clone();
        let salt = "AAAAAAAAAAAAAAAAAAAAAA==";
        let body = json!({"name": name, "version": version, "data": data, "salt": salt});
        self.resource(Kind::Secret, name, body)
    }

    fn resource(mut self, kind: Kind, name: &str, body: Value) -> Self {
        let bytes = serde_json::to_vec(&body).unwrap();
        self.resources.push(ResourceRef {
            kind,
            name: name.try_into().unwrap(),
            version: Version::new(self.version.as_str()).unwrap(),
            digest: digest(&bytes),
            size: bytes.len() as u64,
        });
        self.bytes.insert(digest(&bytes), bytes);
        self
    }

    pub(crate) fn object(
        mut self,
        configuration: &str,
        file: &str,
        content: &[u8],
        unpack: Unpack,
    ) -> Self {
        self.objects.push(ObjectRef {
            digest: digest(content),
            size: content.len() as u64,
            url: None,
            configuration: configuration.try_into().unwrap(),
            configuration_version: Version::new(self.version.as_str()).unwrap(),
            file_name: file.try_into().unwrap(),
            unpack,
        });
        self.bytes.insert(digest(content), content.to_vec());
        self
    }

    pub(crate) fn system(mut self) -> Self {
        self.system = true;
        self
    }

    pub(crate) fn build(mut self) -> Release {
        let bytes = serde_json::to_vec(&self.app).unwrap();
        let app = AppRef {
            name: self.app["name"].as_str().unwrap().try_into().unwrap(),
            version: Version::new(self.version.as_str()).unwrap(),
            digest: digest(&bytes),
            size: bytes.len() as u64,
        };
        self.bytes.insert(app.digest, bytes);
        Release {
            desired: DesiredApp {
                app,
                resources: self.resources,
                objects: self.objects,
                system: self.system,
            },
            bytes: self.bytes,
        }
    }
}

/// A finished release.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) desired: DesiredApp,
    pub(crate) bytes: BTreeMap<Digest, Vec<u8>>,
}

impl Release {
    pub(crate) fn bodies(&self) -> Bodies {
        Bodies::parse(&self.desired, |digest| self.bytes.get(digest).cloned()).unwrap()
    }
}
