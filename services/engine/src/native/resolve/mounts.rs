//! Volumes of a service, each at its path.

use std::path::{Component, Path, PathBuf};

use baetyl_model::desire::Unpack;
use baetyl_model::resource::{Service, VolumeSource, path};
use baetyl_runtime_native::spec::{Content, FileSpec, Mount, MountSource};

use super::{Request, ResolveError, WorkloadSpec};
use crate::certificates::CERTIFICATES;

/// The one variable of Baetyl v2 that host paths may contain; the cloud sends it literally.
const LIB_VARIABLES: [&str; 2] = ["{{.BAETYL_HOST_PATH_LIB}}", "{{ .BAETYL_HOST_PATH_LIB }}"];

/// All mounts of a service, in its order.
pub(super) fn mounts(request: &Request<'_>, service: &Service) -> Result<Vec<Mount>, ResolveError> {
    service
        .volume_mounts
        .iter()
        .map(|mount| {
            let volume =
                request
                    .bodies
                    .app
                    .volume(&mount.name)
                    .ok_or_else(|| ResolveError::Volume {
                        service: service.name.clone(),
                        volume: mount.name.clone(),
                    })?;
            let source = match volume.source() {
                Some(VolumeSource::HostPath(host)) => {
                    MountSource::HostPath(host_path(request, &host.path)?)
                }
                Some(VolumeSource::EmptyDir(_)) => MountSource::EmptyDir,
                Some(VolumeSource::Config(reference)) => {
                    return config_mount(
                        request,
                        &mount.name,
                        &mount.mount_path,
                        &mount.sub_path,
                        &reference.name,
                    );
                }
                Some(VolumeSource::Secret(reference)) => {
                    secret(request, &mount.name, &reference.name)?
                }
                Some(VolumeSource::Claim(_)) => {
                    return Err(ResolveError::Claim(mount.name.clone()));
                }
                Some(VolumeSource::Certificate(_)) | None => {
                    return Err(ResolveError::Source(mount.name.clone()));
                }
            };
            Ok(Mount {
                name: mount.name.clone(),
                path: mount.mount_path.clone(),
                sub_path: mount.sub_path.clone(),
                source,
            })
        })
        .collect()
}

/// A configuration at a path: its plain items as files, its objects as files or unpacked directories.
pub(super) fn config_mount(
    request: &Request<'_>,
    volume: &str,
    mount_path: &str,
    sub_path: &str,
    name: &str,
) -> Result<Mount, ResolveError> {
    let body = request
        .bodies
        .configurations
        .get(name)
        .ok_or_else(|| ResolveError::Reference {
            volume: volume.to_owned(),
            kind: "configuration",
            name: name.to_owned(),
        })?;
    // What lies where programs are started from can be started.
    let mode = (mount_path.trim_end_matches('/') == path::PROGRAM).then_some(0o755);
    let mut files: Vec<FileSpec> = body
        .files()
        .map(|(key, text)| FileSpec {
            path: key.to_owned(),
            content: Content::Bytes(text.as_bytes().to_vec().into()),
            mode,
        })
        .collect();
    for item in body
        .data
        .keys()
        .filter_map(|key| key.strip_prefix(baetyl_model::resource::configuration::OBJECT_PREFIX))
    {
        let object = request
            .release
            .objects
            .iter()
            .find(|object| object.configuration == *name && object.file_name == *item)
            .ok_or_else(|| ResolveError::Object {
                configuration: name.to_owned(),
                file: item.to_owned(),
            })?;
        files.push(match object.unpack {
            Unpack::None => FileSpec {
                path: item.to_owned(),
                content: Content::Copy(request.objects.file(&object.digest)),
                mode,
            },
            unpack => FileSpec {
                path: ".".to_owned(),
                content: Content::Tree(request.objects.tree(&object.digest, unpack)),
                mode,
            },
        });
    }
    Ok(Mount {
        name: volume.to_owned(),
        path: mount_path.to_owned(),
        sub_path: sub_path.to_owned(),
        source: MountSource::Config(files),
    })
}

/// Certificates where programs of Baetyl v2 look for them, unless the author has something of his own there.
pub(super) fn add_certificates(
    request: &Request<'_>,
    service: &Service,
    workload: &mut WorkloadSpec,
) {
    let Some(given) = request.certificates.get(&service.name) else {
        return;
    };
    let own = Path::new(CERTIFICATES);
    let taken = service.volume_mounts.iter().any(|mount| {
        let other = Path::new(mount.mount_path.trim_start_matches('/'));
        own.starts_with(other) || other.starts_with(own)
    });
    if taken {
        return;
    }
    let file = |name: &str, content: &bytes::Bytes| FileSpec {
        path: name.to_owned(),
        content: Content::Bytes(content.clone()),
        mode: None,
    };
    let mount = Mount {
        name: "certificates of the node".to_owned(),
        path: format!("/{CERTIFICATES}"),
        sub_path: String::new(),
        source: MountSource::Secret(vec![
            file("ca.pem", &given.ca),
            file("crt.pem", &given.certificate),
            file("key.pem", &given.key),
        ]),
    };
    for instance in &mut workload.instances {
        instance.mounts.push(mount.clone());
    }
}

fn secret(request: &Request<'_>, volume: &str, name: &str) -> Result<MountSource, ResolveError> {
    let body = request
        .bodies
        .secrets
        .get(name)
        .ok_or_else(|| ResolveError::Reference {
            volume: volume.to_owned(),
            kind: "secret",
            name: name.to_owned(),
        })?;
    let files = body.data.iter().map(|(key, value)| FileSpec {
        path: key.clone(),
        content: Content::Bytes(value.0.clone().into()),
        mode: None,
    });
    Ok(MountSource::Secret(files.collect()))
}

/// Absolute paths are of the machine; relative ones lie in the node's host directory and stay there.
fn host_path(request: &Request<'_>, given: &str) -> Result<PathBuf, ResolveError> {
    let lib = request.place.data_dir.display().to_string();
    let path = LIB_VARIABLES
        .iter()
        .fold(given.to_owned(), |path, variable| {
            path.replace(variable, &lib)
        });
    let path = Path::new(&path);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let stays = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !stays || given.is_empty() {
        return Err(ResolveError::HostPath(given.to_owned()));
    }
    Ok(request.place.data_dir.join("host").join(path))
}
