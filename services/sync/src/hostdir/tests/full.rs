//! A disk that is full, and has room later.

use std::process::Command;

use baetyl_testkit::{Capture, skipped};

use super::*;

/// A small file system in memory, until dropped.
struct Small(PathBuf);

impl Small {
    /// None when this machine does not let us.
    fn mount(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        mount(path, options).then(|| Self(path.to_owned()))
    }

    fn become_larger(&self, options: &str) {
        assert!(mount(&self.0, &format!("remount,{options}")));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(ended.unwrap().success());
    }
}

fn mount(path: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "baetyl-test"]);
    let output = command.arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn what_does_not_fit_waits_for_room_and_keeps_what_it_has() {
    let machine = Machine::with_sync().await;
    let objects = machine.dir.join("objects");
    let Some(disk) = Small::mount(&objects, "size=33m") else {
        return skipped("root, to mount a small file system");
    };
    let (first, second) = (object(1), object(2));
    machine.sync.put(&first);
    machine.sync.put(&second);
    machine.plan(&[
        staged("first", &first, Unpack::None),
        staged("second", &second, Unpack::None),
    ]);
    let waiting = Capture::start();
    let pod = machine.begin();
    // The first one fits; the second one would take what is to stay free.
    eventually!(
        waiting
            .events()
            .iter()
            .any(|event| event.field("error").contains("the disk is full"))
    );
    assert!(!pod.is_finished() && !machine.args.dir.exists());
    disk.become_larger("size=40m");
    pod.await.unwrap().unwrap();
    assert_eq!(machine.content()["first"], first);
    assert_eq!(machine.content()["second"], second);
    assert_eq!(machine.sync.offsets(&first), [0]);
}

#[tokio::test]
async fn a_part_on_a_disk_that_somebody_else_fills_is_given_back() {
    let machine = Machine::with_sync().await;
    let objects = machine.dir.join("objects");
    let Some(_disk) = Small::mount(&objects, "size=40m") else {
        return skipped("root, to mount a small file system");
    };
    let model = machine.one_object();
    machine.sync.cut_after(300_000);
    machine.sync.hold_next();
    let pod = machine.begin();
    eventually!(machine.sync.offsets(&model).len() == 2);
    let ballast = objects.join("ballast");
    assert!(fs::write(&ballast, vec![1; 41 << 20]).is_err());
    machine.sync.hold(false);
    let work = Place::of(&machine.args.dir).unwrap().work();
    let part = work.join("partial").join(digest::of(&model).hex());
    eventually!(!part.exists());
    fs::remove_file(ballast).unwrap();
    pod.await.unwrap().unwrap();
    assert_eq!(machine.sync.offsets(&model), [0, 300_000, 0]);
    assert_eq!(machine.content()["model.bin"], model);
}

#[tokio::test]
async fn a_disk_that_fills_up_while_an_archive_is_unpacked_is_waited_for() {
    let machine = Machine::with_sync().await;
    let objects = machine.dir.join("objects");
    let Some(disk) = Small::mount(&objects, "size=64m,nr_inodes=40") else {
        return skipped("root, to mount a small file system");
    };
    let names: Vec<String> = (0..60).map(|n| format!("file-{n}")).collect();
    let files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "x", 0o644))
        .collect();
    let archive = tar(&files);
    machine.sync.put(&archive);
    machine.plan(&[staged("code.tar", &archive, Unpack::Tar)]);
    let waiting = Capture::start();
    let pod = machine.begin();
    eventually!(
        waiting
            .events()
            .iter()
            .any(|event| event.field("error").contains("cannot be unpacked"))
    );
    assert!(!pod.is_finished() && !machine.args.dir.exists());
    disk.become_larger("nr_inodes=400");
    pod.await.unwrap().unwrap();
    assert_eq!(machine.content().len(), 60);
}

#[tokio::test]
async fn room_is_made_by_removing_what_nobody_needs() {
    let machine = Machine::with_sync().await;
    let objects = machine.dir.join("objects");
    let Some(_disk) = Small::mount(&objects, "size=36m") else {
        return skipped("root, to mount a small file system");
    };
    let old = configuration("old").hex();
    machine
        .dir
        .write(format!("objects/{old}/file"), vec![1; 4 << 20]);
    let lock = fs::File::create(objects.join(format!(".{old}.lock"))).unwrap();
    lock.set_modified(SystemTime::now() - Duration::from_secs(700))
        .unwrap();
    let model = machine.one_object();
    machine.sync.need(&[]);
    machine.stage().await.unwrap();
    assert_eq!(machine.content()["model.bin"], model);
    assert!(!objects.join(old).exists());
}
