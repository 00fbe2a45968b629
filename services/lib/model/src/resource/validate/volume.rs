//! Volumes and registries.

use std::path::{Component, Path};

use super::super::{Application, VolumeSource};
use super::service::quantity;
use super::{Findings, unique};
use crate::labels::is_dns_name;
use crate::name::ResourceName;

/// True when a path cannot leave the place it is put in.
pub(super) fn stays_inside(path: &str) -> bool {
    !Path::new(path)
        .components()
        .any(|part| part == Component::ParentDir)
}

pub(super) fn volumes(app: &Application, findings: &mut Findings<'_>) {
    for (index, volume) in app.volumes.iter().enumerate() {
        let mut findings = findings.item("volumes", index);
        findings.name("name", ResourceName::new(volume.name.as_str()));
        match volume.sources().as_slice() {
            [] => findings.here(
                "has no source; one of hostPath, config, secret, certificate, emptyDir, persistentVolumeClaim is needed",
            ),
            [VolumeSource::Claim(_)] if app.mode() == "native" => {
                findings.add("persistentVolumeClaim", "needs mode kube");
            }
            [one] => source(*one, &mut findings),
            several => findings.here(format!(
                "has {} sources; exactly one is needed",
                several.len()
            )),
        }
    }
    let names = app.volumes.iter().enumerate();
    unique(
        names.map(|(index, volume)| (format!("volumes[{index}].name"), volume.name.as_str())),
        findings,
    );
    for (index, registry) in app.registries.iter().enumerate() {
        findings
            .item("registries", index)
            .name("name", ResourceName::new(registry.name.as_str()));
    }
    let names = app.registries.iter().enumerate();
    unique(
        names
            .map(|(index, registry)| (format!("registries[{index}].name"), registry.name.as_str())),
        findings,
    );
}

fn source(source: VolumeSource<'_>, findings: &mut Findings<'_>) {
    match source {
        VolumeSource::HostPath(host) => {
            if host.path.is_empty() {
                findings.add("hostPath.path", "is needed");
            } else if !stays_inside(&host.path) {
                findings.add("hostPath.path", "must not contain \"..\"");
            }
        }
        VolumeSource::Config(config) => {
            findings.name("config.name", ResourceName::new(config.name.as_str()));
        }
        VolumeSource::Secret(secret) => {
            findings.name("secret.name", ResourceName::new(secret.name.as_str()));
        }
        VolumeSource::Certificate(certificate) => {
            findings.name(
                "certificate.name",
                ResourceName::new(certificate.name.as_str()),
            );
        }
        VolumeSource::Claim(claim) => {
            if !is_dns_name(&claim.claim_name) {
                findings.add(
                    "persistentVolumeClaim.claimName",
                    "must be 1 to 253 characters of a-z, 0-9, '-' and '.', each part between dots beginning and ending with a letter or digit",
                );
            }
        }
        VolumeSource::EmptyDir(dir) => {
            findings.one_of("emptyDir.medium", &dir.medium, &["Memory"]);
            if !dir.size_limit.is_empty() {
                quantity("emptyDir.sizeLimit", &dir.size_limit, findings);
            }
        }
    }
}
