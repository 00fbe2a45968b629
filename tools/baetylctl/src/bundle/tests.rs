use std::os::unix::fs::PermissionsExt as _;

use super::*;

const MANIFESTS: &str = "# baetyl.io/version: 0.1.0
# baetyl.io/class: k3s
# baetyl.io/cloud: https://cloud:9003
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  template:
    spec:
      initContainers: [{name: i, image: 'r/baetyl-sync:0.1.0'}]
      containers: [{name: c, image: 'r/baetyl-node:0.1.0'}]
";

fn parts() -> Parts {
    Parts {
        script: "#!/bin/sh\n".to_owned(),
        manifests: MANIFESTS.to_owned(),
        ca: "pem".to_owned(),
        token: "bi1.secret".to_owned(),
        expires: "2026-01-09T03:04:05Z".to_owned(),
    }
}

/// An OCI layout in an archive, with these images, under these annotations.
fn archive(dir: &Path, file: &str, names: &[(&str, &str)]) -> PathBuf {
    let manifests: Vec<_> = names
        .iter()
        .map(|(key, name)| serde_json::json!({"digest": "sha256:0", "annotations": {*key: name}}))
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let path = dir.join(file);
    let mut out = tar::Builder::new(File::create(&path).unwrap());
    for (name, text) in [
        ("blobs/sha256/0", "x".repeat(2000)),
        ("./index.json", index),
    ] {
        let size = text.len() as u64;
        add(&mut out, name, 0o644, size, text.as_bytes()).unwrap();
    }
    out.finish().unwrap();
    path
}

const CONTAINERD: &str = NAME_ANNOTATIONS[0];
const REFERENCE: &str = NAME_ANNOTATIONS[1];

#[test]
fn an_image_that_no_archive_has_is_named_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let node = archive(dir.path(), "a.tar", &[(CONTAINERD, "r/baetyl-node:0.1.0")]);
    let error = check_images(MANIFESTS, std::slice::from_ref(&node)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("name: r/baetyl-sync:0.1.0;"), "{text}");
    let sync = archive(dir.path(), "b.tar", &[(REFERENCE, "r/baetyl-sync:0.1.0")]);
    check_images(MANIFESTS, &[node, sync]).unwrap();
}

#[test]
fn what_is_no_layout_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    tar::Builder::new(File::create(&path).unwrap())
        .finish()
        .unwrap();
    let error = check_images(MANIFESTS, std::slice::from_ref(&path)).unwrap_err();
    assert!(format!("{error:#}").contains("no index.json"), "{error:#}");
    let none = check_images(MANIFESTS, &[dir.path().join("none.tar")]);
    assert!(none.is_err());
}

#[test]
fn a_bundle_has_everything_in_one_directory_and_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let archives = [
        archive(dir.path(), "images.tar", &[]),
        archive(dir.path(), "more", &[]),
    ];
    let output = dir.path().join("n1.bundle");
    // Of a file that is there the rights are not kept.
    fs::write(&output, "old").unwrap();
    fs::set_permissions(&output, fs::Permissions::from_mode(0o644)).unwrap();
    pack("n1", &parts(), &archives, &output).unwrap();
    assert_eq!(
        output.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut bundle = tar::Archive::new(File::open(&output).unwrap());
    let mut seen = Vec::new();
    for entry in bundle.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mode = entry.header().mode().unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        seen.push((path, mode, content));
    }
    let names: Vec<_> = seen
        .iter()
        .map(|(path, mode, _)| (path.as_str(), *mode))
        .collect();
    assert_eq!(
        names,
        [
            ("baetyl-n1/README.txt", 0o644),
            ("baetyl-n1/install.sh", 0o755),
            ("baetyl-n1/manifests.yaml", 0o644),
            ("baetyl-n1/ca.pem", 0o644),
            ("baetyl-n1/token", 0o600),
            ("baetyl-n1/images/00-images.tar", 0o644),
            ("baetyl-n1/images/01-more.tar", 0o644),
        ]
    );
    assert_eq!(seen[5].2, fs::read(&archives[0]).unwrap());
    let readme = String::from_utf8(seen[0].2.clone()).unwrap();
    assert!(readme.contains("node n1, version 0.1.0, class k3s") && !readme.contains("secret"));
    let rest = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(rest, 3, "nothing half written is left");
}

#[test]
fn of_a_bundle_that_cannot_be_written_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("n1.bundle");
    let missing = [dir.path().join("none.tar")];
    let error = pack("n1", &parts(), &missing, &output).unwrap_err();
    assert!(format!("{error:#}").contains("none.tar"), "{error:#}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
