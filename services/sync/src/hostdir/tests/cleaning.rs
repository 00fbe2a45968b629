//! Which directories of other configurations go, and which never do.

use super::*;

/// Longer than any Pod needs to start.
const LONG_AGO: Duration = Duration::from_secs(660);

impl Machine {
    fn lock_of(&self, text: &str) -> PathBuf {
        let hex = configuration(text).hex();
        self.dir.join(format!("objects/.{hex}.lock"))
    }

    /// As a run that ended left it: complete, last asked for so long ago.
    fn put_other(&self, text: &str, ago: Duration) -> PathBuf {
        let hex = configuration(text).hex();
        let marker = self.dir.join(format!("objects/.{hex}.complete"));
        let file = self.dir.write(format!("objects/{hex}/file"), text);
        fs::write(marker, r#"{"format":1,"minReader":1}"#).unwrap();
        let lock = fs::File::create(self.lock_of(text)).unwrap();
        lock.set_modified(SystemTime::now() - ago).unwrap();
        file
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("objects")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

#[tokio::test]
async fn only_what_nobody_needs_uses_or_asked_for_lately_is_removed() {
    let machine = Machine::with_sync().await;
    machine.one_object();
    let needed = machine.put_other("needed", LONG_AGO);
    let young = machine.put_other("young", Duration::from_secs(540));
    let future = machine.put_other("of a wrong clock", Duration::ZERO);
    fs::File::options()
        .write(true)
        .open(machine.lock_of("of a wrong clock"))
        .unwrap()
        .set_modified(SystemTime::now() + LONG_AGO)
        .unwrap();
    let busy = machine.put_other("busy", LONG_AGO);
    let held = fs::File::open(machine.lock_of("busy")).unwrap();
    held.lock().unwrap();
    let unknown = machine.put_other("without a lock", LONG_AGO);
    fs::remove_file(machine.lock_of("without a lock")).unwrap();
    let foreign = machine.dir.write("objects/lost+found/x", "x");
    let gone = machine.put_other("gone", LONG_AGO);
    let hex = configuration("gone").hex();
    machine
        .dir
        .write(format!("objects/.{hex}.work/partial/x"), "half");
    machine
        .dir
        .write(format!("objects/..{hex}.complete.tmp-1"), "cut");
    machine.sync.need(&[configuration("needed")]);
    machine.stage().await.unwrap();
    for kept in [&needed, &young, &future, &busy, &unknown, &foreign] {
        assert!(kept.exists(), "{}", kept.display());
    }
    assert!(!gone.exists());
    let left: Vec<_> = machine
        .names()
        .into_iter()
        .filter(|name| name.contains(&hex))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    // The one without a lock has one now, and its time begins.
    assert!(machine.lock_of("without a lock").exists());
}

#[tokio::test]
async fn while_sync_cannot_tell_what_is_needed_everything_stays() {
    let machine = Machine::with_sync().await;
    machine.one_object();
    let other = machine.put_other("other", LONG_AGO);
    machine.stage().await.unwrap();
    assert!(other.exists());
}

#[tokio::test]
async fn a_pod_that_asks_for_a_directory_keeps_it_from_being_removed() {
    let machine = Machine::with_sync().await;
    machine.one_object();
    machine.stage().await.unwrap();
    let lock = fs::File::options()
        .write(true)
        .open(machine.lock_of("models"))
        .unwrap();
    lock.set_modified(SystemTime::now() - LONG_AGO).unwrap();
    machine.stage().await.unwrap();
    let modified = fs::metadata(machine.lock_of("models")).unwrap().modified();
    let age = SystemTime::now().duration_since(modified.unwrap());
    assert!(age.unwrap_or_default() < PATIENCE);
}

#[tokio::test]
async fn the_lock_of_a_directory_that_was_removed_meanwhile_is_taken_anew() {
    let machine = Machine::with_sync().await;
    let model = machine.one_object();
    machine.stage().await.unwrap();
    // Another Pod cleans and removes directory and lock while this one waits for the lock.
    let cleaner = fs::File::open(machine.lock_of("models")).unwrap();
    cleaner.lock().unwrap();
    let inode = cleaner.metadata().unwrap().ino();
    let pod = machine.begin();
    // The kernel lists who waits for a lock.
    eventually!(
        fs::read_to_string("/proc/locks")
            .unwrap()
            .lines()
            .any(|line| line.contains("-> FLOCK") && line.contains(&format!(":{inode} ")))
    );
    for name in machine.names() {
        let path = machine.dir.join("objects").join(name);
        place::remove(&path).unwrap();
    }
    drop(cleaner);
    pod.await.unwrap().unwrap();
    assert_eq!(machine.content()["model.bin"], model);
    assert!(machine.lock_of("models").exists());
}
