//! What an instance directory holds, and what is refused.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use bytes::Bytes;

use super::program::{Entry, resolve};
use super::*;
use crate::config::NativeConfig;
use crate::spec::{Instances as _, PROGRAM_MOUNT, Program, WorkloadKey};
use crate::status::Reason;

struct Fixture {
    root: tempfile::TempDir,
    paths: Paths,
    id: InstanceId,
}

impl Fixture {
    fn new(in_memory: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = NativeConfig::beneath(root.path(), PathBuf::new());
        let paths = Paths::new(&config, in_memory.then(|| root.path().join("memory")));
        let key = WorkloadKey {
            namespace: "baetyl-edge".try_into().unwrap(),
            app: "app".try_into().unwrap(),
            version: "1".try_into().unwrap(),
            service: "main".try_into().unwrap(),
        };
        Self {
            root,
            paths,
            id: key.instance(1),
        }
    }

    fn make(&self, mounts: Vec<Mount>) -> Result<Vec<Warning>, PrepareError> {
        materialise(
            &self.paths,
            &self.id,
            &InstanceSpec {
                mounts,
                ..InstanceSpec::default()
            },
        )
    }

    fn dir(&self) -> PathBuf {
        self.paths.instance(&self.id)
    }

    fn program(&self, spec: &InstanceSpec) -> Result<Entry, Reason> {
        materialise(&self.paths, &self.id, spec).unwrap();
        resolve(&self.dir(), spec, "/usr/bin:/bin").map_err(|error| error.reason)
    }
}

fn mount(name: &str, path: &str, source: MountSource) -> Mount {
    Mount {
        name: name.to_owned(),
        path: path.to_owned(),
        sub_path: String::new(),
        source,
    }
}

fn file(path: &str, text: &str) -> FileSpec {
    FileSpec {
        path: path.to_owned(),
        content: Content::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        mode: None,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn package(files: Vec<FileSpec>) -> InstanceSpec {
    InstanceSpec {
        mounts: vec![mount("program", PROGRAM_MOUNT, MountSource::Config(files))],
        ..InstanceSpec::default()
    }
}

#[test]
fn every_kind_of_volume_appears_beneath_the_instance() {
    let fixture = Fixture::new(true);
    let warnings = fixture
        .make(vec![
            mount(
                "conf",
                "/etc/baetyl",
                MountSource::Config(vec![file("conf.yml", "a: 1")]),
            ),
            mount(
                "certs",
                "etc/baetyl/certs",
                MountSource::Secret(vec![file("key.pem", "k")]),
            ),
            mount("data", "/var/data", MountSource::EmptyDir),
            mount(
                "shared",
                "/mnt/shared",
                MountSource::HostPath("shared/x".into()),
            ),
        ])
        .unwrap();
    assert_eq!(warnings, []);
    let dir = fixture.dir();
    assert_eq!(
        (
            fs::read(dir.join("etc/baetyl/conf.yml")).unwrap(),
            mode(&dir.join("etc/baetyl/conf.yml"))
        ),
        (b"a: 1".to_vec(), 0o644)
    );
    assert_eq!(
        (
            fs::read(dir.join("etc/baetyl/certs/key.pem")).unwrap(),
            mode(&dir.join("etc/baetyl/certs/key.pem"))
        ),
        (b"k".to_vec(), 0o600)
    );
    assert!(
        fs::canonicalize(dir.join("etc/baetyl/certs/key.pem"))
            .unwrap()
            .starts_with(fixture.root.path().canonicalize().unwrap().join("memory"))
    );
    assert!(dir.join("var/data").is_dir());
    assert_eq!(
        fs::read_link(dir.join("mnt/shared")).unwrap(),
        fixture.root.path().join("host/shared/x")
    );
    assert!(dir.join("mnt/shared").is_dir());
}

#[test]
fn without_memory_secrets_lie_on_disk_and_it_says_so() {
    let fixture = Fixture::new(false);
    let warnings = fixture
        .make(vec![mount(
            "s",
            "/s",
            MountSource::Secret(vec![file("k", "v")]),
        )])
        .unwrap();
    assert_eq!(warnings[0].kind, "SecretsOnDisk");
    assert_eq!(mode(&fixture.dir().join("s/k")), 0o600);
}

#[test]
fn making_it_again_writes_nothing_and_mends_what_is_torn() {
    let fixture = Fixture::new(false);
    let original = fixture.root.path().join("object");
    fs::write(&original, "big").unwrap();
    let copied = FileSpec {
        path: "object".to_owned(),
        content: Content::Copy(original),
        mode: None,
    };
    let mounts = vec![mount(
        "c",
        "/c",
        MountSource::Config(vec![file("same", "x"), file("torn", "whole"), copied]),
    )];
    fixture.make(mounts.clone()).unwrap();
    let inode = |name: &str| {
        fs::metadata(fixture.dir().join("c").join(name))
            .unwrap()
            .ino()
    };
    let before = (inode("same"), inode("object"));
    fs::write(fixture.dir().join("c/torn"), "wh").unwrap();
    fixture.make(mounts).unwrap();
    assert_eq!((inode("same"), inode("object")), before);
    assert_eq!(fs::read(fixture.dir().join("c/torn")).unwrap(), b"whole");
}

#[test]
fn objects_are_copied_linked_or_unpacked_as_told() {
    let fixture = Fixture::new(false);
    let store = fixture.root.path().join("store");
    fs::create_dir_all(store.join("tree/sub")).unwrap();
    fs::write(store.join("model.bin"), "m").unwrap();
    fs::write(store.join("tree/sub/run.sh"), "#!/bin/sh").unwrap();
    fs::set_permissions(
        store.join("tree/sub/run.sh"),
        fs::Permissions::from_mode(0o500),
    )
    .unwrap();
    let from = |path: &str, content| FileSpec {
        path: path.to_owned(),
        content,
        mode: None,
    };
    let files = vec![
        from("copy", Content::Copy(store.join("model.bin"))),
        from("link", Content::Link(store.join("model.bin"))),
        from("dir", Content::Tree(store.join("tree"))),
    ];
    fixture
        .make(vec![mount("o", "/o", MountSource::Config(files))])
        .unwrap();
    let at = |name: &str| fs::metadata(fixture.dir().join("o").join(name)).unwrap();
    assert_ne!(
        at("copy").ino(),
        fs::metadata(store.join("model.bin")).unwrap().ino()
    );
    assert_eq!(
        at("link").ino(),
        fs::metadata(store.join("model.bin")).unwrap().ino()
    );
    assert_eq!(
        at("dir/sub/run.sh").permissions().mode() & 0o777,
        0o744 | 0o500
    );
}

#[test]
fn a_part_of_a_volume_can_be_mounted() {
    let fixture = Fixture::new(false);
    let files = vec![file("a.yml", "a"), file("sub/b.yml", "b")];
    let part = |path: &str, sub_path: &str, files: &[FileSpec]| Mount {
        sub_path: sub_path.to_owned(),
        ..mount("c", path, MountSource::Config(files.to_vec()))
    };
    fixture
        .make(vec![
            part("/etc/one.yml", "a.yml", &files),
            part("/etc/dir", "sub", &files),
        ])
        .unwrap();
    assert_eq!(fs::read(fixture.dir().join("etc/one.yml")).unwrap(), b"a");
    assert_eq!(fs::read(fixture.dir().join("etc/dir/b.yml")).unwrap(), b"b");
    let error = fixture
        .make(vec![part("/x", "absent", &files)])
        .unwrap_err();
    assert!(matches!(error, PrepareError::SubPath { .. }), "{error}");
}

#[test]
fn paths_that_lead_out_of_the_instance_are_refused() {
    let fixture = Fixture::new(false);
    for path in ["../x", "/a/../../x", "a/.."] {
        let error = fixture
            .make(vec![mount("v", path, MountSource::EmptyDir)])
            .unwrap_err();
        assert!(
            matches!(error, PrepareError::Outside { .. }),
            "{path}: {error}"
        );
        let error = fixture
            .make(vec![mount(
                "v",
                "/v",
                MountSource::Config(vec![file(path, "x")]),
            )])
            .unwrap_err();
        assert!(
            matches!(error, PrepareError::Outside { .. }),
            "{path}: {error}"
        );
    }
}

#[test]
fn volumes_in_one_place_or_inside_a_host_path_are_refused() {
    let fixture = Fixture::new(false);
    let host = || mount("host", "/h", MountSource::HostPath("/tmp".into()));
    for other in ["/h", "h/", "/h/inner", "/h/a/b", "/", ""] {
        let error = fixture
            .make(vec![host(), mount("other", other, MountSource::EmptyDir)])
            .unwrap_err();
        assert!(
            matches!(error, PrepareError::Overlap { .. }),
            "{other}: {error}"
        );
    }
}

#[test]
fn a_link_planted_by_the_application_is_not_followed() {
    let fixture = Fixture::new(false);
    let victim = fixture.root.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::create_dir_all(fixture.dir()).unwrap();
    symlink(&victim, fixture.dir().join("etc")).unwrap();
    let error = fixture
        .make(vec![mount(
            "c",
            "/etc/sub",
            MountSource::Config(vec![file("f", "x")]),
        )])
        .unwrap_err();
    assert!(matches!(error, PrepareError::Io { .. }), "{error}");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    // A link in place of a file is replaced, not written through.
    fs::remove_file(fixture.dir().join("etc")).unwrap();
    fs::create_dir(fixture.dir().join("etc")).unwrap();
    fs::write(victim.join("precious"), "p").unwrap();
    symlink(victim.join("precious"), fixture.dir().join("etc/f")).unwrap();
    fixture
        .make(vec![mount(
            "c",
            "/etc",
            MountSource::Config(vec![file("f", "x")]),
        )])
        .unwrap();
    assert_eq!(fs::read(victim.join("precious")).unwrap(), b"p");
    assert_eq!(fs::read(fixture.dir().join("etc/f")).unwrap(), b"x");
}

#[test]
fn a_package_names_its_entry_which_becomes_executable() {
    let fixture = Fixture::new(false);
    let mut spec = package(vec![
        file("program.yml", "entry: bin/run.sh\nargs: [-v]\nother: 1"),
        file("bin/run.sh", "#!/bin/sh"),
    ]);
    spec.args = vec!["more".to_owned()];
    let entry = fixture.program(&spec).unwrap();
    assert_eq!(
        entry.program,
        fixture.dir().join("var/lib/baetyl/bin/bin/run.sh")
    );
    assert_eq!(
        (entry.args, entry.cwd),
        (vec!["-v".into(), "more".into()], fixture.dir())
    );
    assert_eq!(mode(&entry.program), 0o755);
    // Made again, it stays executable.
    fixture.program(&spec).unwrap();
}

#[test]
fn a_command_is_looked_up_where_its_form_says() {
    let fixture = Fixture::new(false);
    let spec = |word: &str| InstanceSpec {
        program: Program::Command(vec![word.to_owned(), "x".to_owned()]),
        ..package(vec![file("run.sh", "#!/bin/sh")])
    };
    assert!(
        fixture
            .program(&spec("sh"))
            .unwrap()
            .program
            .ends_with("bin/sh")
    );
    assert_eq!(
        fixture.program(&spec("/bin/sh")).unwrap().program,
        Path::new("/bin/sh")
    );
    assert_eq!(
        fixture.program(&spec("./run.sh")).unwrap().program,
        fixture.dir().join("var/lib/baetyl/bin/./run.sh")
    );
}

#[test]
fn what_cannot_be_started_has_a_clear_reason() {
    let fixture = Fixture::new(false);
    let command = |words: &[&str]| InstanceSpec {
        program: Program::Command(words.iter().map(|word| (*word).to_owned()).collect()),
        files: vec![
            file("plain", "#!/bin/sh"),
            FileSpec {
                mode: Some(0o755),
                ..file("empty", "")
            },
        ],
        ..InstanceSpec::default()
    };
    let cases = [
        (InstanceSpec::default(), Reason::EntryMissing),
        (package(vec![]), Reason::EntryMissing),
        (
            package(vec![file("program.yml", "no entry")]),
            Reason::EntryMissing,
        ),
        (
            package(vec![file("program.yml", "entry: ''")]),
            Reason::EntryMissing,
        ),
        (
            package(vec![file("program.yml", "entry: absent")]),
            Reason::EntryMissing,
        ),
        (command(&[]), Reason::EntryMissing),
        (command(&["no-such-program"]), Reason::EntryMissing),
        (command(&["/no/such/program"]), Reason::EntryMissing),
        (command(&["/tmp"]), Reason::NotExecutable),
        (command(&["./plain"]), Reason::NotExecutable),
        (command(&["./empty"]), Reason::BadFormat),
        (
            InstanceSpec {
                working_dir: Some("/no/such/dir".into()),
                ..command(&["sh"])
            },
            Reason::WorkingDirMissing,
        ),
    ];
    for (spec, reason) in cases {
        assert_eq!(fixture.program(&spec).unwrap_err(), reason, "{spec:?}");
    }
}

#[test]
fn a_working_directory_means_the_volume_there_before_the_machines() {
    let fixture = Fixture::new(false);
    let spec = |dir: &str| InstanceSpec {
        program: Program::Command(vec!["sh".to_owned()]),
        working_dir: Some(dir.into()),
        mounts: vec![mount("d", "/data", MountSource::EmptyDir)],
        ..InstanceSpec::default()
    };
    assert_eq!(
        fixture.program(&spec("/data")).unwrap().cwd,
        fixture.dir().join("data")
    );
    assert_eq!(
        fixture.program(&spec("data")).unwrap().cwd,
        fixture.dir().join("data")
    );
    assert_eq!(
        fixture.program(&spec("/tmp")).unwrap().cwd,
        Path::new("/tmp")
    );
}

#[test]
fn a_file_in_the_way_is_an_error_that_names_the_place() {
    let fixture = Fixture::new(false);
    fs::create_dir_all(fixture.root.path().join("engine")).unwrap();
    fs::write(fixture.root.path().join("engine/run"), "").unwrap();
    let error = fixture.make(vec![]).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot make ") && error.contains("engine/run/baetyl-edge"),
        "{error}"
    );
}

#[test]
fn a_program_is_looked_up_where_the_user_can_come() {
    let root = tempfile::tempdir_in("/tmp").unwrap();
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(root.path(), 0o755);
    for (name, mode) in [("closed", 0o700), ("open", 0o755)] {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("tool"), "#!/bin/sh\n").unwrap();
        set(&dir.join("tool"), 0o755);
        set(&dir, mode);
    }
    let (closed, open) = (root.path().join("closed"), root.path().join("open"));
    let path = format!("{}:{}", closed.display(), open.display());
    let found = |user| {
        let spec = InstanceSpec {
            program: Program::Command(vec!["tool".to_owned()]),
            user,
            ..InstanceSpec::default()
        };
        resolve(root.path(), &spec, &path).unwrap().program
    };
    let somebody = RunAs {
        uid: 61_234,
        gid: 61_234,
    };
    assert_eq!(found(None), closed.join("tool"));
    assert_eq!(found(Some(somebody)), open.join("tool"));
}
