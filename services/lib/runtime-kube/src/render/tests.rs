//! Cases: what goes in and the objects that come out, side by side in `golden/`.
//!
//! `UPDATE_GOLDEN=1` writes what comes out anew; read the difference before it is committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use baetyl_model::desire::{AppRef, DesiredApp, ObjectRef, ResourceRef, Unpack};
use baetyl_model::name::{AppName, ConfigKey, Kind, ResourceName, Version};
use baetyl_model::{Application, Configuration, Digest, Secret, strict};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

mod bad;
mod manifests;
mod pods;
mod schema;

/// What goes into one rendering.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Case {
    app: Value,
    system: bool,
    configurations: Vec<Value>,
    secrets: Vec<Value>,
    /// `unpack` by configuration and file name; what is not here is left as it is.
    unpack: BTreeMap<String, BTreeMap<String, String>>,
}

/// 32 bytes that differ where texts differ.
fn digest(text: &str) -> Digest {
    let mut bytes = [0_u8; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let from = text.bytes().cycle().nth(at * 7).unwrap_or_default();
        *byte = from
            .wrapping_mul(31)
            .wrapping_add(u8::try_from(at).unwrap());
    }
    Digest::from_sha256(bytes)
}

fn place() -> Place {
    Place {
        sync_image: "registry.example/baetyl-sync:1.0".to_owned(),
        helm_image: "registry.example/baetyl-helm:1.0".to_owned(),
        init_image: "registry.example/baetyl-init:1.0".to_owned(),
        runtimes: BTreeMap::from([(
            "python3".to_owned(),
            "registry.example/baetyl-runtime-python:1.0".to_owned(),
        )]),
        devices: BTreeMap::from([("/dev/video0".to_owned(), "example.com/camera".to_owned())]),
        ..Place::default()
    }
}

impl Case {
    pub(super) fn app(app: Value) -> Self {
        Self {
            app,
            ..Self::default()
        }
    }

    /// One service with these fields.
    pub(super) fn service(fields: Value) -> Self {
        let mut service = json!({"name": "web", "image": "nginx:1.25"});
        service
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        Self::app(json!({"services": [service]}))
    }

    /// The same with other fields of the application.
    pub(super) fn with(mut self, fields: Value) -> Self {
        let app = self.app.as_object_mut().unwrap();
        app.extend(fields.as_object().unwrap().clone());
        self
    }

    pub(super) fn configuration(mut self, name: &str, data: Value) -> Self {
        self.configurations
            .push(json!({"name": name, "data": data}));
        self
    }

    pub(super) fn render(&self) -> Result<Rendered, RenderError> {
        self.render_at(&place())
    }

    pub(super) fn render_at(&self, place: &Place) -> Result<Rendered, RenderError> {
        let mut app: Application = read(&self.app);
        if app.name.is_empty() {
            "shop".clone_into(&mut app.name);
        }
        let mut release = DesiredApp {
            app: AppRef {
                name: AppName::new(app.name.as_str()).unwrap(),
                version: Version::new(if app.version.is_empty() {
                    "7"
                } else {
                    &app.version
                })
                .unwrap(),
                digest: digest(&self.app.to_string()),
                size: 1,
            },
            resources: Vec::new(),
            objects: Vec::new(),
            system: self.system,
        };
        let configurations = self.read_configurations(&mut release);
        let secrets = self.read_secrets(&mut release);
        let node = Node {
            namespace: "default".to_owned(),
            name: "edge-1".to_owned(),
        };
        render(&Request {
            release: &release,
            app: &app,
            configurations: &configurations,
            secrets: &secrets,
            node: &node,
            place,
        })
    }

    fn read_configurations(
        &self,
        release: &mut DesiredApp,
    ) -> BTreeMap<ResourceName, Configuration> {
        let mut all = BTreeMap::new();
        for raw in &self.configurations {
            let body: Configuration = read(raw);
            let name = ResourceName::new(body.name.as_str()).unwrap();
            let of = reference(Kind::Configuration, &name, raw);
            for (file, _) in body.objects().map(Result::unwrap) {
                let unpack = self
                    .unpack
                    .get(name.as_str())
                    .and_then(|files| files.get(file));
                release.objects.push(ObjectRef {
                    digest: digest(file),
                    size: 1000,
                    url: Some("https://files.example/signed?secret=1".to_owned()),
                    configuration: name.clone(),
                    configuration_version: of.version.clone(),
                    file_name: ConfigKey::new(file).unwrap(),
                    unpack: unpack.map_or(Unpack::None, |unpack| unpack.parse().unwrap()),
                });
            }
            release.resources.push(of);
            all.insert(name, body);
        }
        all
    }

    fn read_secrets(&self, release: &mut DesiredApp) -> BTreeMap<ResourceName, Secret> {
        let mut all = BTreeMap::new();
        for raw in &self.secrets {
            let body: Secret = read(raw);
            let name = ResourceName::new(body.name.as_str()).unwrap();
            release.resources.push(reference(Kind::Secret, &name, raw));
            all.insert(name, body);
        }
        all
    }
}

fn reference(kind: Kind, name: &ResourceName, raw: &Value) -> ResourceRef {
    ResourceRef {
        kind,
        name: name.clone(),
        version: Version::new("3").unwrap(),
        digest: digest(&raw.to_string()),
        size: 1,
    }
}

/// Nothing of a case is lost on the way in.
fn read<T: serde::de::DeserializeOwned>(raw: &Value) -> T {
    let parsed = strict::parse_value::<T>(raw).unwrap();
    assert_eq!(parsed.unknown, [""; 0], "{raw}");
    parsed.value
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/render/golden")
}

/// All cases by name.
pub(super) fn cases() -> BTreeMap<String, Case> {
    let mut cases = BTreeMap::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some(name) = name.strip_suffix(".in.yaml") {
            let text = fs::read_to_string(&path).unwrap();
            let case = serde_norway::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            cases.insert(name.to_owned(), case);
        }
    }
    assert!(cases.len() > 10, "the cases are not where they should be");
    cases
}

/// What the test sees of a rendering: everything.
fn shown(rendered: &Rendered) -> Value {
    let bodies: Vec<&Value> = rendered.objects.iter().map(|object| &object.body).collect();
    json!({
        "kind": format!("{:?}", rendered.kind),
        "wanted": rendered.wanted,
        "preserve": rendered.preserve,
        "warnings": rendered.warnings,
        "objects": bodies,
    })
}

#[test]
fn every_case_gives_the_objects_it_shall_give() {
    let write = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (name, case) in cases() {
        let rendered = case
            .render()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let shown = shown(&rendered);
        let path = folder().join(format!("{name}.out.yaml"));
        if write {
            fs::write(&path, serde_norway::to_string(&shown).unwrap()).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        let expected: Value = serde_norway::from_str(&text).unwrap();
        assert_eq!(
            serde_json::to_string_pretty(&shown).unwrap(),
            serde_json::to_string_pretty(&expected).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn rendering_again_gives_the_same_bytes() {
    for (name, case) in cases() {
        let bytes = || serde_json::to_string(&shown(&case.render().unwrap())).unwrap();
        assert_eq!(bytes(), bytes(), "{name}");
    }
}

#[test]
fn an_object_says_in_its_body_what_it_says_beside_it() {
    for (name, case) in cases() {
        let rendered = case.render().unwrap();
        assert_eq!(rendered.key.service.as_str(), baetyl_model::workload::WHOLE);
        for object in rendered.objects {
            let body = &object.body;
            assert_eq!(body["apiVersion"], object.api_version, "{name}: {object}");
            assert_eq!(body["kind"], object.kind, "{name}: {object}");
            assert_eq!(body["metadata"]["name"], object.name, "{name}: {object}");
            let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
            assert_eq!(namespace, object.namespace, "{name}: {object}");
            let labels = &body["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/managed-by"], "baetyl", "{object}");
            let content = labels.get("baetyl.io/digest").is_some();
            let owned = labels.get("baetyl-app-name").is_some()
                && labels.get("baetyl-app-version").is_some();
            assert_ne!(content, owned, "{name}: {object}");
        }
    }
}

#[test]
fn secrets_of_a_rendering_are_not_shown_by_accident() {
    let case = &cases()["volumes"];
    let text = format!("{:?}", case.render().unwrap());
    assert!(text.contains("Secret baetyl-edge/"), "{text}");
    assert!(!text.contains("c2VjcmV0"), "{text}");
}
