use super::*;

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_atomic_write_replaces_content_and_mode_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "old").unwrap();
    atomic_write(&path, b"new", 0o640).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(mode_of(&path), 0o640);
    assert_eq!(names_in(dir.path()), ["token"]);
}

#[test]
fn a_failed_atomic_write_keeps_the_old_content_and_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    // A directory in the target's place makes the rename fail after the write.
    let path = dir.path().join("token");
    fs::create_dir_all(path.join("child")).unwrap();
    assert!(atomic_write(&path, b"new", 0o600).is_err());
    assert_eq!(names_in(dir.path()), ["token"]);
    assert!(path.join("child").exists());
}

#[test]
fn a_private_directory_is_narrowed_when_it_was_wider() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    create_dir_private(&path).unwrap();
    assert_eq!(mode_of(&path), 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    create_dir_private(&path).unwrap();
    assert_eq!(mode_of(&path), 0o700);
}

#[test]
fn reading_stops_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "12345").unwrap();
    assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
    let error = read_limited(&path, 4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn quarantine_keeps_every_copy_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let mut kept = Vec::new();
    for content in ["first", "second"] {
        fs::write(&path, content).unwrap();
        kept.push((quarantine(&path).unwrap(), content));
        assert!(!path.exists());
    }
    assert_ne!(kept[0].0, kept[1].0);
    for (copy, content) in kept {
        assert_eq!(fs::read_to_string(&copy).unwrap(), content);
        let name = copy.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("node.redb.corrupt-"), "{name}");
    }
}

#[test]
fn quarantine_of_a_missing_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(quarantine(&dir.path().join("nothing")).is_err());
}

#[test]
fn free_space_is_known_for_an_existing_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let space = free_space(dir.path()).unwrap();
    assert!(space.total > 0 && space.free <= space.total);
    assert!(free_space(&dir.path().join("nothing")).is_err());
}
