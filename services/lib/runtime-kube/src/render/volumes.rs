//! Volumes of a Pod, and where its containers mount them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use baetyl_model::labels::is_dns_name;
use baetyl_model::resource::{Device, HostPath, Service, Volume, VolumeSource, path};
use serde_json::{Value, json};

use super::RenderError;
use super::build::Build;
use super::content::functions_key;
use super::fields::Fields;
use super::resources::quantity;
use super::staging::{self, Staging};
use crate::names;

/// The one variable of Baetyl v2 that host paths may contain; the cloud sends it literally.
const LIB_VARIABLES: [&str; 2] = ["{{.BAETYL_HOST_PATH_LIB}}", "{{ .BAETYL_HOST_PATH_LIB }}"];

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
];

/// Volume with the application's identity.
pub(super) const IDENTITY: &str = "baetyl-identity";
/// Volume with the machine's directory of objects.
pub(super) const OBJECTS: &str = "baetyl-objects";
/// Volume with the functions of the application's services.
const FUNCTIONS: &str = "baetyl-functions";
/// What volumes of our own begin with.
const OWN: [&str; 8] = [
    IDENTITY,
    OBJECTS,
    FUNCTIONS,
    "baetyl-code-",
    "baetyl-device-",
    "baetyl-items-",
    "baetyl-plan-",
    "baetyl-tmp",
];

/// Where programs of Baetyl v2 look for certificates; the token lies beside them.
pub(super) const IDENTITY_PATH: &str = "/var/lib/baetyl/system/certs";
/// Where they are when the author has something of his own there.
const IDENTITY_ELSEWHERE: &str = "/run/baetyl/certs";

/// The volumes of one Pod.
#[derive(Default)]
pub(super) struct Volumes {
    entries: BTreeMap<String, Value>,
    /// Configurations with objects.
    pub(super) staging: Staging,
}

/// Where a configuration or another source is found: a volume, and a path inside it.
struct Found {
    volume: String,
    inside: String,
    read_only: bool,
}

impl Volumes {
    /// Adds a volume; the same one again is fine.
    pub(super) fn add(&mut self, name: &str, source: &str, fields: impl Into<Value>) {
        let entry = Fields::new().with("name", name).with(source, fields);
        self.entries.insert(name.to_owned(), entry.into());
    }

    /// In order of their names.
    pub(super) fn into_list(self) -> Vec<Value> {
        self.entries.into_values().collect()
    }
}

/// Checks that every volume of the application has a name of its own and one source.
pub(super) fn check(build: &Build<'_>) -> Result<(), RenderError> {
    let mut seen = BTreeSet::new();
    for volume in &build.app.volumes {
        if !seen.insert(pod_name(&volume.name)) {
            return Err(RenderError::Twice {
                what: "volume",
                name: volume.name.clone(),
            });
        }
        if OWN.iter().any(|own| volume.name.starts_with(own)) {
            return Err(RenderError::Reserved {
                what: "volume",
                name: volume.name.clone(),
            });
        }
        match volume.source() {
            None | Some(VolumeSource::Certificate(_)) => {
                return Err(RenderError::Source(volume.name.clone()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Volumes of a Pod have no dots in their names.
fn pod_name(volume: &str) -> String {
    volume.replace('.', "-")
}

/// The mounts of a service, and their volumes.
pub(super) fn mounts(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    service: &Service,
) -> Result<Vec<Value>, RenderError> {
    let mut mounts = Vec::new();
    let mut paths = BTreeSet::new();
    for mount in &service.volume_mounts {
        if !paths.insert(mount.mount_path.trim_end_matches('/')) {
            return Err(RenderError::MountTwice {
                service: service.name.clone(),
                path: mount.mount_path.clone(),
            });
        }
        let volume = build
            .app
            .volume(&mount.name)
            .ok_or_else(|| RenderError::Volume {
                service: service.name.clone(),
                volume: mount.name.clone(),
            })?;
        match source(build, volumes, volume)? {
            Some(found) => mounts.push(entry(
                found,
                &mount.mount_path,
                &mount.sub_path,
                mount.read_only,
            )),
            None => build.warn(format!(
                "service {} mounts volume {}, which is a registry: images are pulled with it, nothing is mounted",
                service.name, mount.name
            )),
        }
    }
    Ok(mounts)
}

fn entry(found: Found, path: &str, sub_path: &str, read_only: bool) -> Value {
    let inside = [found.inside.as_str(), sub_path.trim_matches('/')];
    let inside: Vec<&str> = inside.into_iter().filter(|part| !part.is_empty()).collect();
    Fields::new()
        .with("name", found.volume)
        .with("mountPath", path)
        .given("subPath", inside.join("/"))
        .given("readOnly", read_only || found.read_only)
        .into()
}

/// Puts the source of a volume into the Pod. None: there is nothing to mount.
fn source(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    volume: &Volume,
) -> Result<Option<Found>, RenderError> {
    let name = pod_name(&volume.name);
    let found = |read_only| {
        Ok(Some(Found {
            volume: name.clone(),
            inside: String::new(),
            read_only,
        }))
    };
    match volume.source() {
        Some(VolumeSource::Config(reference)) => {
            configuration(build, volumes, &name, &volume.name, &reference.name).map(Some)
        }
        Some(VolumeSource::Secret(reference)) => {
            let Some(secret) = build.secret(&volume.name, &reference.name)? else {
                return Ok(None);
            };
            volumes.add(&name, "secret", json!({"secretName": secret}));
            found(true)
        }
        Some(VolumeSource::HostPath(host)) => {
            volumes.add(&name, "hostPath", host_path(build, &volume.name, host)?);
            found(false)
        }
        Some(VolumeSource::EmptyDir(dir)) => {
            if !dir.size_limit.is_empty() {
                quantity(&dir.size_limit).map_err(|reason| RenderError::Amount {
                    what: format!("sizeLimit of volume {}", volume.name),
                    reason,
                })?;
            }
            let fields = Fields::new()
                .given("medium", dir.medium.as_str())
                .given("sizeLimit", dir.size_limit.as_str());
            volumes.add(&name, "emptyDir", fields);
            found(false)
        }
        Some(VolumeSource::Claim(claim)) => {
            if !is_dns_name(&claim.claim_name) {
                return Err(RenderError::ObjectName {
                    what: "claimName",
                    name: claim.claim_name.clone(),
                    rule: "a claim is called by 1 to 253 characters of a-z, 0-9, '-' and '.'",
                });
            }
            let fields = Fields::new()
                .with("claimName", claim.claim_name.as_str())
                .given("readOnly", claim.read_only);
            volumes.add(&name, "persistentVolumeClaim", fields);
            found(claim.read_only)
        }
        Some(VolumeSource::Certificate(_)) | None => Err(RenderError::Source(volume.name.clone())),
    }
}

/// A configuration is a ConfigMap; one with objects is a directory of the machine, which several Pods share.
fn configuration(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    name: &str,
    volume: &str,
    reference: &str,
) -> Result<Found, RenderError> {
    let (body, digest) = build.configuration(volume, reference)?;
    let objects = body.objects().next().is_some();
    let map = if !objects || body.files().next().is_some() {
        Some(build.config_map(body, &digest)?)
    } else {
        None
    };
    if let (false, Some(map)) = (objects, &map) {
        volumes.add(name, "configMap", json!({"name": map}));
        return Ok(Found {
            volume: name.to_owned(),
            inside: String::new(),
            read_only: true,
        });
    }
    let (volume, inside) = staging::add(build, volumes, body, &digest, map)?;
    Ok(Found {
        volume: volume.to_owned(),
        inside,
        read_only: true,
    })
}

/// Mounts a whole configuration at a path.
pub(super) fn mount_configuration(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    volume: &str,
    reference: &str,
    path: &str,
) -> Result<Value, RenderError> {
    let found = configuration(build, volumes, &pod_name(volume), volume, reference)?;
    Ok(entry(found, path, "", true))
}

/// Absolute paths are of the machine; relative ones lie in the node's host directory and stay there.
fn host_path(build: &Build<'_>, volume: &str, host: &HostPath) -> Result<Value, RenderError> {
    if !HOST_PATH_TYPES.contains(&host.kind.as_str()) {
        return Err(RenderError::HostPathType {
            volume: volume.to_owned(),
            kind: host.kind.clone(),
        });
    }
    let lib = build.request.place.host_path_lib.as_str();
    let given = LIB_VARIABLES
        .iter()
        .fold(host.path.clone(), |path, variable| {
            path.replace(variable, lib)
        });
    let path = Path::new(&given);
    let leaves = path.components().any(|part| part == Component::ParentDir);
    if leaves || given.is_empty() {
        return Err(RenderError::HostPath(host.path.clone()));
    }
    if path.is_absolute() {
        return Ok(Fields::new()
            .with("path", given)
            .given("type", host.kind.as_str())
            .into());
    }
    // Nobody else makes directories in there.
    let kind = if host.kind.is_empty() {
        "DirectoryOrCreate"
    } else {
        host.kind.as_str()
    };
    let path = Path::new(lib).join("host").join(path);
    Ok(json!({"path": path.display().to_string(), "type": kind}))
}

/// Mounts token and certificate where programs of Baetyl v2 look for them, or beside what the author has there; gives
/// the path. None: he has something at both places.
pub(super) fn mount_identity(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    service: &Service,
    mounts: &mut Vec<Value>,
) -> Option<&'static str> {
    let free = |own: &&&str| {
        !service.volume_mounts.iter().any(|mount| {
            let (own, other) = (Path::new(**own), Path::new(&mount.mount_path));
            own.starts_with(other) || other.starts_with(own)
        })
    };
    let Some(own) = [IDENTITY_PATH, IDENTITY_ELSEWHERE].iter().find(free) else {
        build.warn(format!(
            "service {} has volumes at {IDENTITY_PATH} and {IDENTITY_ELSEWHERE}: it gets neither token nor certificate",
            service.name
        ));
        return None;
    };
    add_identity(build, volumes);
    mounts.push(json!({"name": IDENTITY, "mountPath": own, "readOnly": true}));
    Some(own)
}

pub(super) fn add_identity(build: &Build<'_>, volumes: &mut Volumes) {
    let secret = json!({"secretName": names::identity(build.name)});
    volumes.add(IDENTITY, "secret", secret);
}

/// The cloud sends a functions file at `/etc/baetyl` and the author mounts the code; what is missing of the two is made
/// from the application itself.
pub(super) fn mount_functions(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    index: usize,
    service: &Service,
    mounts: &mut Vec<Value>,
) -> Result<(), RenderError> {
    let code = service
        .function_config
        .as_ref()
        .map_or("", |config| config.name.as_str());
    if service.mount_at(path::CODE).is_none() && !code.is_empty() {
        let volume = format!("baetyl-code-{index}");
        let who = format!("functions of {}", service.name);
        let found = configuration(build, volumes, &volume, &who, code)?;
        mounts.push(entry(found, path::CODE, "", true));
    }
    if service.mount_at(path::CONFIG).is_none() {
        let services: Vec<&Service> = build
            .app
            .services
            .iter()
            .filter(|service| service.mount_at(path::CONFIG).is_none())
            .collect();
        let map = build.functions_map(&services);
        volumes.add(FUNCTIONS, "configMap", json!({"name": map}));
        mounts.push(json!({
            "name": FUNCTIONS,
            "mountPath": format!("{}/conf.yml", path::CONFIG),
            "subPath": functions_key(&service.name),
            "readOnly": true,
        }));
    }
    Ok(())
}

/// A device of the machine, as a file at its own path. Containers that use the same one share the volume.
pub(super) fn mount_device(
    build: &Build<'_>,
    volumes: &mut Volumes,
    device: &Device,
    mounts: &mut Vec<Value>,
) {
    let path = device.device_path.as_str();
    let all: BTreeSet<&str> = build
        .app
        .all_services()
        .flat_map(|service| &service.devices)
        .map(|device| device.device_path.as_str())
        .collect();
    let before = all.iter().take_while(|other| **other < path).count();
    let volume = format!("baetyl-device-{before}");
    volumes.add(
        &volume,
        "hostPath",
        json!({"path": path, "type": "CharDevice"}),
    );
    let found = Found {
        volume,
        inside: String::new(),
        read_only: !device.policy.is_empty() && !device.policy.contains('w'),
    };
    mounts.push(entry(found, path, "", false));
}
