//! What is generated for a function application, as Baetyl v2 generates it: per service a configuration with the list of
//! its functions, mounted at `/etc/baetyl`, and its code, mounted at `/var/lib/baetyl/code`.

use std::collections::BTreeMap;

use baetyl_kit::crypto;
use baetyl_model::resource::{
    Application, Configuration, ContainerPort, Function, Reference, Service, Volume, VolumeMount,
    label, path,
};
use serde::Serialize;

use super::{Written, current, put};
use crate::store::{NewResource, StoreError, Tx};

/// Begins the names of generated configurations and their volumes.
pub(super) const CONFIG_PREFIX: &str = "baetyl-function-config-";
/// Begins the names of the volumes with code.
const CODE_PREFIX: &str = "baetyl-function-code-";
/// Key of the list of functions.
const CONF_KEY: &str = "conf.yml";
/// Longest resource or volume name.
const MAX_NAME: usize = 63;
/// Hex digits that keep shortened names apart.
const HASH_LEN: usize = 9;
/// Where a runtime of Baetyl v2 listens in its container.
const RUNTIME_PORT: i32 = 80;

/// The function runtimes this cloud knows, and the image each has in kube mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtimes(BTreeMap<String, String>);

impl Runtimes {
    /// Name to image.
    pub const fn new(images: BTreeMap<String, String>) -> Self {
        Self(images)
    }

    /// True when functions may ask for it.
    pub fn knows(&self, runtime: &str) -> bool {
        self.0.contains_key(runtime)
    }

    /// Name to image.
    pub const fn images(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[derive(Serialize)]
struct Conf<'a> {
    functions: &'a [Function],
}

/// Takes out what an author copied from a view: it is generated again. A mount of the code at a place of the author's
/// choice stays.
pub(super) fn strip_generated(app: &mut Application) {
    app.volumes
        .retain(|volume| !volume.name.starts_with(CONFIG_PREFIX));
    for service in app.init_services.iter_mut().chain(&mut app.services) {
        service
            .volume_mounts
            .retain(|mount| !mount.name.starts_with(CONFIG_PREFIX));
    }
}

/// Names of the configurations that were generated for a stored application.
pub(super) fn generated(app: &Application) -> Vec<String> {
    let names = app.config_names().into_iter();
    names
        .filter(|name| name.starts_with(CONFIG_PREFIX))
        .map(str::to_owned)
        .collect()
}

/// Writes the generated configurations and refers to them. The application is in its stored form.
pub(super) async fn generate(
    tx: &mut Tx,
    app: &mut Application,
    runtimes: &Runtimes,
) -> Result<(), StoreError> {
    if app.kind() != "function" {
        return Ok(());
    }
    let is_kube = app.mode() != "native";
    for index in 0..app.services.len() {
        let (code, conf, config_name, code_name) = {
            let service = &app.services[index];
            let Some(function) = service.function_config.clone() else {
                continue;
            };
            let config_name = limited(CONFIG_PREFIX, &app.name, &service.name);
            (
                function,
                conf(service)?,
                config_name,
                limited_if_long(CODE_PREFIX, &service.name),
            )
        };
        put_generated(tx, &app.name, &config_name, conf).await?;
        let volume_name = limited_if_long(CONFIG_PREFIX, &app.services[index].name);
        set_volume(&mut app.volumes, &code_name, &code.name);
        set_volume(&mut app.volumes, &volume_name, &config_name);
        let service = &mut app.services[index];
        mount(service, &code_name, path::CODE);
        mount(service, &volume_name, path::CONFIG);
        if is_kube {
            service.image = runtimes.0.get(&code.runtime).cloned().unwrap_or_default();
            let port = ContainerPort {
                container_port: RUNTIME_PORT,
                protocol: "TCP".to_owned(),
                ..ContainerPort::default()
            };
            service.ports = vec![port];
        }
    }
    app.fill_defaults();
    Ok(())
}

fn conf(service: &Service) -> Result<String, StoreError> {
    serde_json::to_string(&Conf {
        functions: &service.functions,
    })
    .map_err(|error| StoreError::Row {
        what: "list of functions",
        reason: error.to_string(),
    })
}

/// Does not propagate: the one application that uses it is being written.
async fn put_generated(tx: &mut Tx, app: &str, name: &str, conf: String) -> Result<(), StoreError> {
    let labels = BTreeMap::from([
        (label::CLOUD_SYSTEM.to_owned(), "true".to_owned()),
        (label::APP_NAME.to_owned(), app.to_owned()),
    ]);
    let config = Configuration {
        name: name.to_owned(),
        labels: labels.clone(),
        data: BTreeMap::from([(CONF_KEY.to_owned(), conf)]),
        system: true,
        ..Configuration::default()
    };
    let old: Option<Written<Configuration>> = current(tx, name).await?;
    let about = NewResource {
        kind: baetyl_model::Kind::Configuration,
        name: name.to_owned(),
        labels,
        system: true,
        subtype: String::new(),
        selector: String::new(),
        body: Vec::new(),
        references: Vec::new(),
        objects: Vec::new(),
    };
    put(tx, config, old, PartialEq::eq, about).await?;
    Ok(())
}

fn set_volume(volumes: &mut Vec<Volume>, name: &str, config: &str) {
    let config = Some(Reference {
        name: config.to_owned(),
        version: String::new(),
    });
    match volumes.iter_mut().find(|volume| volume.name == name) {
        // In its place: the order of volumes is the author's.
        Some(volume) => {
            *volume = Volume {
                name: name.to_owned(),
                config,
                ..Volume::default()
            }
        }
        None => volumes.push(Volume {
            name: name.to_owned(),
            config,
            ..Volume::default()
        }),
    }
}

fn mount(service: &mut Service, volume: &str, path: &str) {
    if service
        .volume_mounts
        .iter()
        .any(|mount| mount.name == volume)
        || service.mount_at(path).is_some()
    {
        return;
    }
    service.volume_mounts.push(VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: true,
        immutable: true,
        ..VolumeMount::default()
    });
}

/// `<prefix><app>-<service>-<hash>` within the limit of names. The hash keeps ("a-b", "c") and ("a", "b-c") apart.
fn limited(prefix: &str, app: &str, service: &str) -> String {
    let hash = &crypto::sha256_hex(format!("{app}\0{service}").as_bytes())[..HASH_LEN];
    let room = MAX_NAME - prefix.len() - 1 - HASH_LEN;
    let text = format!("{app}-{service}");
    // Names are ASCII.
    format!("{prefix}{}-{hash}", &text[..text.len().min(room)])
}

/// `<prefix><service>`, as Baetyl v2 names it, as long as it fits.
fn limited_if_long(prefix: &str, service: &str) -> String {
    if prefix.len() + service.len() <= MAX_NAME {
        format!("{prefix}{service}")
    } else {
        limited(prefix, "", service)
    }
}
