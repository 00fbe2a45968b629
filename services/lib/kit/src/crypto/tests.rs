use super::*;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn sha256_matches_the_published_vector() {
    assert_eq!(
        sha256_hex(b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let mut steps = Sha256::new();
    steps.update(b"a");
    steps.update(b"bc");
    assert_eq!(steps.finish_hex(), sha256_hex(b"abc"));
    let (digest, length) = sha256_reader(&mut &b"abc"[..]).unwrap();
    assert_eq!((hex(&digest), length), (sha256_hex(b"abc"), 3));
}

#[test]
fn hex_goes_both_ways_and_refuses_what_is_not_hex() {
    assert_eq!(unhex(&hex(&[0, 15, 255])).unwrap(), [0, 15, 255]);
    assert_eq!(unhex("abc"), None);
    assert_eq!(unhex("zz"), None);
    assert_eq!(unhex("+1"), None);
}

#[test]
fn a_signature_fits_one_message_and_one_key() {
    let key = SigningKey::generate().unwrap();
    let other = SigningKey::generate().unwrap();
    let signature = key.sign(b"payload");
    verify(&key.public_key(), b"payload", &signature).unwrap();
    assert!(verify(&key.public_key(), b"payload!", &signature).is_err());
    assert!(verify(&other.public_key(), b"payload", &signature).is_err());
    assert!(verify(&key.public_key(), b"payload", b"short").is_err());
}

#[test]
fn a_signing_key_survives_its_file_and_the_file_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.der");
    let made = SigningKey::load_or_create(&path).unwrap();
    let loaded = SigningKey::load_or_create(&path).unwrap();
    assert_eq!(made.public_key(), loaded.public_key());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(key_id(&made.public_key()).len(), 16);
}

#[test]
fn sealed_data_opens_only_unchanged_in_its_context_with_its_key() {
    let key = SealKey::from_bytes(&[7; 32]);
    let sealed = key.seal(b"secret/a", b"hunter2").unwrap();
    assert_eq!(key.open(b"secret/a", &sealed).unwrap(), b"hunter2");
    assert!(key.open(b"secret/b", &sealed).is_err());
    assert!(
        SealKey::from_bytes(&[8; 32])
            .open(b"secret/a", &sealed)
            .is_err()
    );
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        assert!(key.open(b"secret/a", &changed).is_err(), "byte {index}");
    }
    for length in 0..sealed.len() {
        assert!(key.open(b"secret/a", &sealed[..length]).is_err());
    }
}

#[test]
fn sealing_the_same_twice_gives_different_bytes() {
    let key = SealKey::from_bytes(&[7; 32]);
    assert_ne!(key.seal(b"", b"x").unwrap(), key.seal(b"", b"x").unwrap());
}

#[test]
fn a_damaged_key_file_is_reported_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    let sealed = KeyFile::load_or_create(&path)
        .unwrap()
        .seal(b"", b"x")
        .unwrap();
    let again = KeyFile::load_or_create(&path).unwrap();
    assert_eq!(again.open(b"", &sealed).unwrap(), b"x");
    std::fs::write(&path, "broken").unwrap();
    assert!(matches!(
        KeyFile::load_or_create(&path),
        Err(CryptoError::BadKey { .. })
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "broken");
}

#[test]
fn comparison_is_by_content() {
    assert!(constant_time_eq(b"token", b"token"));
    assert!(!constant_time_eq(b"token", b"tokem"));
    assert!(!constant_time_eq(b"token", b"token2"));
}

#[test]
fn random_values_differ() {
    assert_ne!(random_hex::<16>().unwrap(), random_hex::<16>().unwrap());
    assert_eq!(random_hex::<16>().unwrap().len(), 32);
}
