//! Directories of configurations on a real disk, with a sync that does what the test says.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::SystemTime;

use baetyl_kit::Kit;
use baetyl_kit::clock::Clock;
use baetyl_kit::listen::Listen;
use baetyl_model::desire::Unpack;
use baetyl_model::trust::RELEASED;
use baetyl_proto::digest;
use baetyl_testkit::{Capture, Leaf, PATIENCE, TestCa, TestDir, eventually};
use tokio::task::JoinHandle;
use tonic::Status;

use super::*;

mod cleaning;
mod fake;
mod full;

use fake::FakeSync;

/// An object of some length that does not repeat itself.
fn object(seed: u8) -> Vec<u8> {
    (0..700_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}

/// A configuration whose body is this text.
fn configuration(text: &str) -> Digest {
    digest::of(text.as_bytes())
}

fn staged(file: &str, bytes: &[u8], unpack: Unpack) -> StagedObject {
    StagedObject {
        file_name: file.try_into().unwrap(),
        digest: digest::of(bytes),
        size: bytes.len() as u64,
        unpack,
    }
}

/// An archive of files with their modes.
fn tar(files: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        builder
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// A machine with a directory of objects, and the sync it asks.
struct Machine {
    dir: TestDir,
    kit: Kit,
    sync: FakeSync,
    args: StageArgs,
}

const PACE: Pace = Pace {
    min: Duration::from_millis(5),
    max: Duration::from_millis(50),
    silence: PATIENCE,
};

impl Machine {
    /// Sync is not started.
    fn new() -> Self {
        let dir = TestDir::new();
        let kit = Kit::new("sync", dir.path(), Clock::system());
        let sync = FakeSync::new();
        let args = StageArgs {
            dir: dir.join("objects").join(configuration("models").hex()),
            items: Some(dir.join("items")),
            plan: dir.join("plan.json"),
            server: Endpoint::unix(dir.join("sync.sock")),
            ca: None,
            ticket: dir.write("ticket", sync.ticket()),
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
        };
        fs::create_dir(dir.join("items")).unwrap();
        Self {
            dir,
            kit,
            sync,
            args,
        }
    }

    async fn with_sync() -> Self {
        let machine = Self::new();
        machine.start_sync().await;
        machine
    }

    async fn start_sync(&self) {
        let listen = Listen::Unix(self.dir.join("sync.sock"));
        self.sync.serve(&self.kit, &listen, None).await;
    }

    fn plan(&self, objects: &[StagedObject]) {
        let plan = StagePlan {
            max_unpacked: 1 << 20,
            objects: objects.to_vec(),
        };
        fs::write(&self.args.plan, plan.to_json().unwrap()).unwrap();
    }

    /// A configuration with one object, which sync has.
    fn one_object(&self) -> Vec<u8> {
        let bytes = object(1);
        self.sync.put(&bytes);
        self.plan(&[staged("model.bin", &bytes, Unpack::None)]);
        bytes
    }

    async fn stage(&self) -> Result<(), StageError> {
        stage(&self.args, PACE).await
    }

    /// Stages in the background, as another Pod does.
    fn begin(&self) -> JoinHandle<Result<(), StageError>> {
        let args = self.args.clone();
        tokio::spawn(async move { stage(&args, PACE).await })
    }

    /// Path to content of everything in the directory.
    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.args.dir, "", &mut files);
        files
    }

    /// Everything beside the directories, shortened to what it is.
    fn beside(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.join("objects"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| Some(name.strip_prefix('.')?.split_once('.')?.1.to_owned()))
            .collect();
        names.sort();
        names
    }
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.metadata().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn items_objects_and_what_archives_hold_are_there_for_every_user() {
    let machine = Machine::with_sync().await;
    // As the kubelet mounts a ConfigMap.
    let items = machine.dir.join("items");
    fs::create_dir(items.join("..2026_01_01")).unwrap();
    fs::write(items.join("..2026_01_01/conf.yml"), "a: 1\n").unwrap();
    fs::write(items.join("..2026_01_01/old.txt"), "item").unwrap();
    std::os::unix::fs::symlink("..2026_01_01", items.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/conf.yml", items.join("conf.yml")).unwrap();
    std::os::unix::fs::symlink("..data/old.txt", items.join("old.txt")).unwrap();
    let model = object(1);
    let code = tar(&[
        ("lib/index.py", "def handler(): pass\n", 0o600),
        ("run.sh", "#!/bin/sh\n", 0o700),
        ("old.txt", "archive", 0o644),
    ]);
    let more = tar(&[("lib/more.py", "more\n", 0o644)]);
    for bytes in [&model, &code, &more] {
        machine.sync.put(bytes);
    }
    machine.plan(&[
        staged("a.tar", &code, Unpack::Tar),
        staged("b.tar", &more, Unpack::Tar),
        staged("copy.bin", &model, Unpack::None),
        staged("model.bin", &model, Unpack::None),
    ]);
    machine.stage().await.unwrap();
    let content = machine.content();
    let expected: BTreeMap<String, Vec<u8>> = [
        ("conf.yml", b"a: 1\n".to_vec()),
        ("copy.bin", model.clone()),
        ("lib/index.py", b"def handler(): pass\n".to_vec()),
        ("lib/more.py", b"more\n".to_vec()),
        ("model.bin", model.clone()),
        ("old.txt", b"archive".to_vec()),
        ("run.sh", b"#!/bin/sh\n".to_vec()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into();
    assert_eq!(content, expected);
    let dir = &machine.args.dir;
    assert_eq!((mode(dir), mode(&dir.join("lib"))), (0o755, 0o755));
    assert_eq!(mode(&dir.join("lib/index.py")), 0o644);
    assert_eq!(mode(&dir.join("run.sh")), 0o755);
    assert_eq!(mode(&dir.join("model.bin")), 0o644);
    let inode = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
    assert_ne!(inode("model.bin"), inode("copy.bin"));
    assert_eq!(
        machine.sync.offsets(&model),
        [0],
        "each object travels once"
    );
    assert_eq!(machine.beside(), ["complete", "lock"]);
}

#[tokio::test]
async fn a_complete_directory_needs_neither_sync_nor_the_plan_nor_the_ticket() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    machine.stage().await.unwrap();
    let before = fs::metadata(&machine.args.dir).unwrap().ino();
    machine.kit.stop(PATIENCE).await.unwrap();
    for path in [&machine.args.plan, &machine.args.ticket] {
        fs::remove_file(path).unwrap();
    }
    fs::remove_dir_all(machine.dir.join("items")).unwrap();
    machine.stage().await.unwrap();
    assert_eq!(machine.content()["model.bin"], model);
    assert_eq!(fs::metadata(&machine.args.dir).unwrap().ino(), before);
}

#[tokio::test]
async fn several_pods_at_once_make_it_once() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    machine.sync.hold(true);
    let pods: Vec<_> = (0..4).map(|_| machine.begin()).collect();
    eventually!(machine.sync.offsets(&model).len() == 1);
    assert!(!machine.args.dir.exists());
    machine.sync.hold(false);
    for pod in pods {
        pod.await.unwrap().unwrap();
    }
    assert_eq!(machine.content()["model.bin"], model);
    assert_eq!(machine.sync.offsets(&model), [0]);
}

#[tokio::test]
async fn while_sync_is_away_or_does_not_have_it_yet_it_waits() {
    let machine = Machine::new();
    let model = object(1);
    machine.plan(&[staged("model.bin", &model, Unpack::None)]);
    let pod = machine.begin();
    machine.start_sync().await;
    // Not staged yet, a ticket of a key that is not known yet, a ticket of the version before.
    eventually!(machine.sync.offsets(&model).len() >= 2);
    let refusals = [
        Status::unavailable("tickets cannot be checked yet"),
        Status::permission_denied("the ticket does not name it"),
        Status::unauthenticated("not signed by this node's engine"),
    ];
    for refusal in refusals {
        let seen = machine.sync.offsets(&model).len();
        machine.sync.refuse(Some(refusal));
        eventually!(machine.sync.offsets(&model).len() > seen + 1);
    }
    assert!(!pod.is_finished() && !machine.args.dir.exists());
    machine.sync.refuse(None);
    machine.sync.put(&model);
    pod.await.unwrap().unwrap();
    assert_eq!(machine.content()["model.bin"], model);
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_ended_also_in_another_life() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    machine.sync.cut_after(300_000);
    machine.stage().await.unwrap();
    let offsets = machine.sync.offsets(&model);
    assert!(offsets.len() == 2 && offsets[1] >= 262_144, "{offsets:?}");
    assert_eq!(machine.content()["model.bin"], model);

    let other = Machine::with_sync().await;
    let model = other.one_object();
    other.sync.cut_after(300_000);
    other.sync.hold_next();
    let pod = other.begin();
    eventually!(other.sync.offsets(&model).len() == 2);
    pod.abort();
    assert!(pod.await.unwrap_err().is_cancelled());
    other.sync.hold(false);
    other.stage().await.unwrap();
    let offsets = other.sync.offsets(&model);
    assert_eq!((offsets.len(), offsets[1]), (3, offsets[2]), "{offsets:?}");
    assert_eq!(other.content()["model.bin"], model);
}

#[tokio::test]
async fn a_part_whose_bytes_are_wrong_is_thrown_away_and_fetched_anew() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    let work = Place::of(&machine.args.dir).unwrap().work();
    fs::create_dir_all(work.join("partial")).unwrap();
    let part = work.join("partial").join(digest::of(&model).hex());
    fs::write(&part, vec![0; 500_000]).unwrap();
    machine.stage().await.unwrap();
    assert_eq!(machine.sync.offsets(&model), [500_000, 0]);
    assert_eq!(machine.content()["model.bin"], model);
}

#[tokio::test]
async fn bytes_that_are_not_what_was_asked_for_end_it_and_nothing_is_put_into_place() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    machine.sync.put_as(digest::of(&model), &object(2));
    let error = machine.stage().await.unwrap_err();
    assert!(
        chain(&error).contains("does not match"),
        "{}",
        chain(&error)
    );
    let mut long = model.clone();
    long.push(0);
    machine.sync.put_as(digest::of(&model), &long);
    let error = machine.stage().await.unwrap_err();
    assert!(
        chain(&error).contains("700001 bytes instead of 700000"),
        "{}",
        chain(&error)
    );
    assert!(!machine.args.dir.exists());
    machine.sync.put(&model);
    machine.stage().await.unwrap();
    assert_eq!(machine.content()["model.bin"], model);
}

#[tokio::test]
async fn an_archive_that_leads_outside_is_too_large_or_damaged_ends_it() {
    let machine = Machine::with_sync().await;
    let mut outside = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.as_mut_bytes()[..7].copy_from_slice(b"../evil");
    header.set_cksum();
    outside.append(&header, &b"x"[..]).unwrap();
    let large = "x".repeat(2 << 20);
    let cases = [
        (outside.into_inner().unwrap(), "leads outside"),
        (tar(&[("large", &large, 0o644)]), "more than 1048576 bytes"),
        (vec![7; 700], "cannot be unpacked"),
    ];
    for (archive, said) in cases {
        machine.sync.put(&archive);
        machine.plan(&[staged("code.tar", &archive, Unpack::Tar)]);
        let error = machine.stage().await.unwrap_err();
        assert!(chain(&error).contains(said), "{}", chain(&error));
        assert!(!machine.args.dir.exists());
        assert!(!machine.dir.join("objects/evil").exists());
    }
}

#[tokio::test]
async fn a_file_where_another_object_has_a_directory_is_told_by_name() {
    let machine = Machine::with_sync().await;
    let (code, lib) = (tar(&[("lib/index.py", "", 0o644)]), object(1));
    for bytes in [&code, &lib] {
        machine.sync.put(bytes);
    }
    machine.plan(&[
        staged("code.tar", &code, Unpack::Tar),
        staged("lib", &lib, Unpack::None),
    ]);
    let error = machine.stage().await.unwrap_err();
    assert!(
        matches!(&error, StageError::Conflict { file, .. } if file == "lib"),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_a_run_left_that_was_killed_after_the_marker_goes_with_the_next() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    machine.stage().await.unwrap();
    let hex = configuration("models").hex();
    machine
        .dir
        .write(format!("objects/.{hex}.work/partial/x"), "left");
    machine
        .dir
        .write(format!("objects/.{hex}.removed/x"), "left");
    machine.stage().await.unwrap();
    assert_eq!(machine.content()["model.bin"], model);
    assert_eq!(machine.beside(), ["complete", "lock"]);
}

#[tokio::test]
async fn what_has_no_marker_is_not_complete_and_gives_way() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    // As the runtime of containers makes it when it is mounted before it is there, and as a cut leaves it.
    fs::create_dir_all(&machine.args.dir).unwrap();
    machine.stage().await.unwrap();
    let marker = machine.dir.join(format!(
        "objects/.{}.complete",
        configuration("models").hex()
    ));
    fs::remove_file(&marker).unwrap();
    fs::write(machine.args.dir.join("model.bin"), "half").unwrap();
    machine.stage().await.unwrap();
    assert_eq!(machine.content()["model.bin"], model);
    assert_eq!(machine.beside(), ["complete", "lock"]);

    fs::write(&marker, r#"{"format":9,"minReader":2}"#).unwrap();
    let error = machine.stage().await.unwrap_err();
    assert!(
        matches!(error, StageError::TooNew { wanted: 2, .. }),
        "{error}"
    );
    assert_eq!(machine.content()["model.bin"], model);
}

#[tokio::test]
async fn wrong_arguments_are_told_and_not_waited_for() {
    let mut machine = Machine::new();
    fs::write(&machine.args.plan, "{}").unwrap();
    let error = machine.stage().await.unwrap_err();
    assert!(matches!(error, StageError::Plan { .. }), "{error}");
    machine.one_object();
    fs::remove_file(&machine.args.ticket).unwrap();
    let error = machine.stage().await.unwrap_err();
    assert!(chain(&error).contains("ticket"), "{}", chain(&error));
    machine.args.server = "https://127.0.0.1:1".parse().unwrap();
    machine.dir.write("ticket", machine.sync.ticket());
    let error = machine.stage().await.unwrap_err();
    assert!(chain(&error).contains("--ca"), "{}", chain(&error));
    machine.args.dir = machine.dir.join("objects/models");
    let error = machine.stage().await.unwrap_err();
    assert!(matches!(error, StageError::Name(_)), "{error}");
}

#[tokio::test]
async fn over_tls_sync_is_known_by_the_authority_of_the_node_whatever_the_clock_says() {
    let mut machine = Machine::new();
    let model = machine.one_object();
    let (node, stranger) = (TestCa::new("node"), TestCa::new("stranger"));
    let hour = jiff::SignedDuration::from_hours(1);
    let (begin, end) = (RELEASED - hour, RELEASED + hour);
    let leaf = Leaf::new("sync")
        .name("127.0.0.1")
        .valid(&begin.to_string(), &end.to_string());
    let listen = Listen::loopback();
    let address = machine
        .sync
        .serve(&machine.kit, &listen, Some(node.issue(&leaf)))
        .await;
    machine.args.server = format!("https://{address}").parse().unwrap();
    machine.args.ca = Some(machine.dir.write("ca.pem", stranger.pem()));
    let waiting = Capture::start();
    let pod = machine.begin();
    eventually!(
        waiting
            .events()
            .iter()
            .any(|event| event.field("error").contains("cannot be fetched"))
    );
    assert_eq!(machine.sync.offsets(&model), [0_u64; 0]);
    // The authority is replaced while the Pod waits.
    machine.dir.write("ca.pem", node.pem());
    pod.await.unwrap().unwrap();
    assert_eq!(machine.content()["model.bin"], model);
}
