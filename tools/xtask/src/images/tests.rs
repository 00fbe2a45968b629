//! Images from programs that were not built, whole: what is written is read back as the specification wants it.

use std::collections::BTreeMap;
use std::fs;

use super::oci::{CONTAINERD_NAME, REF_NAME};
use super::*;

fn stamp() -> Stamp {
    Stamp {
        version: "1.2.3".to_owned(),
        revision: "abc".to_owned(),
        epoch: 1_700_000_000,
    }
}

/// Programs that only have the header of one, for all images and architectures.
pub(super) fn fake_programs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut programs = Programs::new();
    let sources = dir.path().join("sources");
    fs::create_dir(&sources).unwrap();
    for arch in Arch::ALL {
        for program in catalog::IMAGES.iter().flat_map(|image| image.programs) {
            let path = sources.join(format!("{}-{}", arch.dir(), program.name));
            let mut bytes = program::smallest(arch, true);
            bytes.extend_from_slice(program.name.as_bytes());
            fs::write(&path, bytes).unwrap();
            programs.insert((arch, program.name), path);
        }
    }
    lay_out(&programs, dir.path()).unwrap();
    dir
}

/// Those of an edge node without Python, which comes from elsewhere.
pub(super) fn built(prebuilt: &Path) -> Vec<Built> {
    let mut wanted = catalog::select(&[], true, &Arch::ALL).unwrap();
    wanted.retain(|(image, _)| image.base == Base::Scratch);
    toolchain::find(&wanted, prebuilt).unwrap();
    assemble_all(&wanted, &stamp(), prebuilt, Compression::ZstdQuick).unwrap()
}

fn bytes_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes_below(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn the_same_programs_give_the_same_bytes_wherever_and_whenever() {
    let mut written = Vec::new();
    for _ in 0..2 {
        let programs = fake_programs();
        let out = tempfile::tempdir().unwrap();
        let images = built(programs.path());
        let mut all = BTreeMap::new();
        for image in &images {
            let dir = out.path().join(&image.name);
            layout::write(&dir, image, "r.example/", "1").unwrap();
            for (path, bytes) in bytes_below(&dir) {
                let path = path.strip_prefix(out.path()).unwrap().to_owned();
                all.insert(path, bytes);
            }
        }
        let bundle = out.path().join("all.tar");
        layout::bundle(&bundle, &images, "r.example/", "1", 7).unwrap();
        all.insert("all.tar".into(), fs::read(bundle).unwrap());
        written.push(all);
    }
    let (first, second) = (&written[0], &written[1]);
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        second.keys().collect::<Vec<_>>()
    );
    assert!(first == second);
}

#[test]
fn another_program_gives_another_digest_of_its_own_image_alone() {
    let programs = fake_programs();
    let before = built(programs.path());
    let changed = programs.path().join("arm64/bin/baetyl-node");
    let mut bytes = fs::read(&changed).unwrap();
    bytes.push(0);
    fs::write(&changed, bytes).unwrap();
    let after = built(programs.path());
    for (before, after) in before.iter().zip(&after) {
        let same = before.index.digest == after.index.digest;
        assert_eq!(same, before.name != "baetyl-node", "{}", before.name);
        for (one, other) in before.platforms.iter().zip(&after.platforms) {
            let same = one.digest == other.digest;
            assert_eq!(
                same,
                before.name != "baetyl-node" || one.arch != Arch::Arm64
            );
        }
    }
}

#[test]
fn a_layout_holds_one_index_over_the_architectures_and_tells_how_to_start() {
    let programs = fake_programs();
    let out = tempfile::tempdir().unwrap();
    for built in built(programs.path()) {
        let image = catalog::by_name(&built.name).unwrap();
        let dir = out.path().join(&built.name);
        layout::write(&dir, &built, "r.example/team/", "1.2.3").unwrap();
        let (content, tops) = layout::read(&dir).unwrap();
        let [top] = &tops[..] else { panic!("{tops:?}") };
        assert_eq!(top.annotations[REF_NAME], "1.2.3");
        let name = format!("r.example/team/{}:1.2.3", built.name);
        assert_eq!(top.annotations[CONTAINERD_NAME], name);
        let wholes = layout::check(&content, top).unwrap();
        let archs: Vec<_> = wholes.iter().map(|whole| whole.arch).collect();
        assert_eq!(archs, Arch::ALL);
        for whole in wholes {
            let process = &whole.config.config;
            assert_eq!(process.user, "65532:65532");
            assert_eq!(process.entrypoint, [image.entrypoint().unwrap()]);
            assert_eq!(process.cmd, image.command);
            assert_eq!(whole.config.created, "2023-11-14T22:13:20Z");
            let labels = &process.labels;
            assert_eq!(labels["org.opencontainers.image.revision"], "abc");
            assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
            assert_eq!(labels.len(), 6);
            let blobs = whole.layers.iter().map(|layer| content.get(layer).unwrap());
            let tree = Tree::unpack(blobs).unwrap();
            for program in image.programs {
                let node = tree.get(&format!("usr/bin/{}", program.name)).unwrap();
                assert_eq!((node.mode, node.owner), (0o755, (0, 0)));
            }
            let data = tree.get("var/lib/baetyl").unwrap();
            assert_eq!((&data.kind, data.owner), (&Kind::Dir, (65532, 65532)));
            assert_eq!(tree.get("tmp").unwrap().mode, 0o1777);
        }
    }
}

#[test]
fn a_layout_that_was_changed_is_noticed() {
    let programs = fake_programs();
    let out = tempfile::tempdir().unwrap();
    let image = built(programs.path()).remove(0);
    layout::write(out.path(), &image, "", "1").unwrap();
    let part = &image.platforms[0].digest;
    let path = out.path().join("blobs/sha256").join(part.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(b' ');
    fs::write(&path, bytes).unwrap();
    assert!(layout::read(out.path()).is_err());
    fs::remove_file(&path).unwrap();
    let (content, tops) = layout::read(out.path()).unwrap();
    let error = layout::check(&content, &tops[0]).unwrap_err();
    assert!(format!("{error:#}").contains("missing"), "{error:#}");
}

#[test]
fn an_archive_of_all_images_names_each_and_holds_each_once() {
    let programs = fake_programs();
    let images = built(programs.path());
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("all.tar");
    layout::bundle(&file, &images, "r.example/", "9", 7).unwrap();
    let unpacked = out.path().join("all");
    tar::Archive::new(fs::File::open(&file).unwrap())
        .unpack(&unpacked)
        .unwrap();
    let (content, tops) = layout::read(&unpacked).unwrap();
    let names: Vec<_> = tops
        .iter()
        .map(|top| top.annotations[CONTAINERD_NAME].clone())
        .collect();
    let wanted: Vec<_> = images
        .iter()
        .map(|image| format!("r.example/{}:9", image.name))
        .collect();
    assert_eq!(names, wanted);
    for (top, image) in tops.iter().zip(&images) {
        assert_eq!(layout::check(&content, top).unwrap().len(), 3);
        assert_eq!(top.digest, image.index.digest);
    }
}

#[test]
fn a_directory_with_other_files_is_not_emptied() {
    let programs = fake_programs();
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("letter"), "dear").unwrap();
    let image = &built(programs.path())[0];
    let error = layout::write(out.path(), image, "", "1").unwrap_err();
    assert!(error.to_string().contains("neither empty nor"), "{error}");
    assert_eq!(fs::read(out.path().join("letter")).unwrap(), b"dear");
}

#[test]
fn a_cloud_is_built_for_this_machine_unless_it_is_named() {
    let all = catalog::select(&[], false, &Arch::ALL).unwrap();
    let cloud = all.iter().find(|(image, _)| image.name == "baetyl-cloud");
    let host: Vec<_> = Arch::host().into_iter().collect();
    assert_eq!(
        cloud.map(|(_, archs)| archs.clone()).unwrap_or_default(),
        host
    );
    let named = catalog::select(&["baetyl-cloud".to_owned()], false, &Arch::ALL).unwrap();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].1, Arch::ALL);
    assert!(catalog::select(&["baetyl".to_owned()], false, &Arch::ALL).is_err());
}

#[test]
fn helm_is_built_for_every_architecture_but_only_when_it_is_named() {
    for edge in [false, true] {
        let all = catalog::select(&[], edge, &Arch::ALL).unwrap();
        assert!(all.iter().all(|(image, _)| image.name != "baetyl-helm"));
    }
    let named = catalog::select(&["baetyl-helm".to_owned()], false, &Arch::ALL).unwrap();
    let [(image, archs)] = &named[..] else {
        panic!("{named:?}")
    };
    assert_eq!(image.entrypoint().unwrap(), "/usr/bin/helm");
    assert_eq!(*archs, Arch::ALL);
}

#[test]
fn tags_are_those_a_registry_takes() {
    assert!(is_tag("0.1.0") && is_tag("v1_a-b"));
    assert!(!is_tag("") && !is_tag(".1") && !is_tag("a/b") && !is_tag(&"a".repeat(129)));
}
