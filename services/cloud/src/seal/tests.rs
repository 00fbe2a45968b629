use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Keys(Vec<[u8; 32]>);

impl KeySource for Keys {
    fn load(&self) -> Result<Vec<[u8; 32]>, SealError> {
        Ok(self.0.clone())
    }
}

const PLACE: SealContext<'_> = SealContext {
    namespace: "default",
    kind: "secret",
    name: "db",
    version: "7",
};

#[test]
fn what_is_sealed_opens_in_its_place_and_hides_its_content() {
    let seal = Seal::open_source(&Keys(vec![[1; 32]])).unwrap();
    let sealed = seal.seal(PLACE, b"pass word").unwrap();
    assert!(!sealed.windows(4).any(|window| window == b"pass"));
    assert_eq!(seal.open(PLACE, &sealed).unwrap(), b"pass word");
    assert_ne!(
        seal.seal(PLACE, b"pass word").unwrap(),
        sealed,
        "the nonce is random"
    );
}

#[test]
fn a_value_moved_to_another_place_does_not_open() {
    let seal = Seal::open_source(&Keys(vec![[1; 32]])).unwrap();
    let sealed = seal.seal(PLACE, b"x").unwrap();
    for other in [
        SealContext {
            namespace: "other",
            ..PLACE
        },
        SealContext {
            kind: "config",
            ..PLACE
        },
        SealContext {
            name: "db2",
            ..PLACE
        },
        SealContext {
            version: "8",
            ..PLACE
        },
        SealContext {
            name: "d",
            version: "b7",
            ..PLACE
        },
    ] {
        assert!(
            matches!(seal.open(other, &sealed), Err(SealError::Damaged { .. })),
            "{other}"
        );
    }
}

#[test]
fn a_changed_or_cut_value_does_not_open() {
    let seal = Seal::open_source(&Keys(vec![[1; 32]])).unwrap();
    let sealed = seal.seal(PLACE, b"value").unwrap();
    for at in (0..sealed.len()).filter(|at| !(1..=KEY_ID_LEN).contains(at)) {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(
            matches!(seal.open(PLACE, &changed), Err(SealError::Damaged { .. })),
            "byte {at}"
        );
    }
    for length in 0..sealed.len() {
        assert!(
            seal.open(PLACE, &sealed[..length]).is_err(),
            "cut to {length}"
        );
    }
}

#[test]
fn an_old_key_still_opens_and_a_missing_one_is_named() {
    let old = Seal::open_source(&Keys(vec![[1; 32]])).unwrap();
    let sealed = old.seal(PLACE, b"x").unwrap();
    let rotated = Seal::open_source(&Keys(vec![[2; 32], [1; 32]])).unwrap();
    assert_eq!(rotated.open(PLACE, &sealed).unwrap(), b"x");
    let foreign = Seal::open_source(&Keys(vec![[2; 32]])).unwrap();
    let error = foreign.open(PLACE, &sealed).unwrap_err();
    assert!(matches!(error, SealError::UnknownKey { .. }));
    assert!(
        error
            .to_string()
            .contains("secret db version 7 of namespace default"),
        "{error}"
    );
}

#[test]
fn the_key_file_is_made_once_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = Seal::open_dir(dir.path()).unwrap();
    let mode = std::fs::metadata(dir.path().join(KEY_FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let sealed = first.seal(PLACE, b"x").unwrap();
    let second = Seal::open_dir(dir.path()).unwrap();
    assert_eq!(second.open(PLACE, &sealed).unwrap(), b"x");
}

#[test]
fn a_damaged_key_file_is_an_error_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(KEY_FILE);
    std::fs::write(&path, "short").unwrap();
    assert!(matches!(
        Seal::open_dir(dir.path()),
        Err(SealError::BadKey { .. })
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "short");
    assert!(matches!(
        Seal::open_source(&Keys(Vec::new())),
        Err(SealError::NoKey)
    ));
}

#[test]
fn no_new_key_is_made_beside_a_database_that_was_sealed_with_another() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("cloud.db");
    Seal::of_database(dir.path(), &database).unwrap();
    std::fs::write(&database, b"SQLite format 3").unwrap();
    Seal::of_database(dir.path(), &database).unwrap();
    let key = dir.path().join(KEY_FILE);
    std::fs::remove_file(&key).unwrap();
    let error = Seal::of_database(dir.path(), &database).unwrap_err();
    assert!(matches!(error, SealError::Lost { .. }), "{error}");
    assert!(!key.exists());
}
