//! The power is cut at every step: what is read afterwards has the digest it was asked for, or is not there.

use super::*;

fn put_all(store: &Store, body: &[u8], secret: &[u8], object: &[u8]) -> Result<(), StoreError> {
    store.put_body(Shelf::Plain, &digest_of(body), body)?;
    store.put_body(Shelf::Sealed, &digest_of(secret), secret)?;
    let mut partial = store.begin(&digest_of(object))?;
    let (first, second) = object.split_at(object.len() / 2);
    for part in [first, second] {
        if partial.length() < object.len() as u64 {
            let from = usize::try_from(partial.length()).unwrap();
            let part = if partial.is_resumed() {
                &object[from..]
            } else {
                part
            };
            store.append(&mut partial, part)?;
        }
    }
    store.finish(partial).map(|_| ())
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_that_was_acknowledged_and_shows_nothing_wrong() {
    let (body, secret, object) = (b"a body", b"a secret", b"an object of some length");
    let mut steps = 0;
    loop {
        steps += 1;
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FakeDisk::dying_after(steps));
        let finished = Store::open(dir.path(), disk.clone(), key())
            .and_then(|store| put_all(&store, body, secret, object));

        let store = open(&dir);
        for expected in [body.as_slice(), secret] {
            let read = store.read_body(&digest_of(expected)).unwrap();
            assert!(read.is_none_or(|read| read == expected), "step {steps}");
        }
        if let Some(path) = store.object(&digest_of(object)).unwrap() {
            assert_eq!(fs::read(path).unwrap(), object, "step {steps}");
        }
        assert!(!contains(&all_bytes(dir.path()), secret), "step {steps}");

        put_all(&store, body, secret, object).unwrap();
        assert!(store.object(&digest_of(object)).unwrap().is_some());
        let left: Vec<_> = fs::read_dir(dir.path().join("partial")).unwrap().collect();
        assert!(left.is_empty(), "step {steps}: {left:?}");
        if !disk.is_dead() {
            finished.unwrap();
            break;
        }
    }
    assert!(steps > 15, "only {steps} steps: the fake disk was not used");
}
