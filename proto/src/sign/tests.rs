use baetyl_model::Digest;
use baetyl_model::name::{Epoch, Generation, Namespace, NodeName};
use proptest::prelude::*;

use super::*;

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(key: &Ed25519KeyPair) -> Vec<u8> {
    key.public_key().as_ref().to_vec()
}

fn uid(text: &str) -> NodeUid {
    NodeUid::new(text).unwrap()
}

fn desire() -> Desire {
    digest::complete_desire(Desire {
        namespace: Namespace::new("default").unwrap(),
        node_name: NodeName::new("n1").unwrap(),
        node_uid: uid("u1"),
        epoch: Epoch(1),
        generation: Generation(42),
        digest: Digest::from_sha256([0; 32]),
        apps: Vec::new(),
        node_properties: [("k".to_owned(), "v".to_owned())].into(),
        core: None,
    })
}

#[test]
fn a_signed_desire_is_read_by_who_trusts_the_key() {
    let signed = sign_desire(&key(1), desire());
    let trusted = [public(&key(2)), public(&key(1))];
    assert_eq!(
        verify_desire(&trusted, Some(&uid("u1")), &signed),
        Ok(desire())
    );
    assert_eq!(read_desire(&signed), Ok(desire()));
}

#[test]
fn an_unsigned_desire_is_refused() {
    let mut signed = sign_desire(&key(1), desire());
    signed.signatures.clear();
    let refused = verify_desire(&[public(&key(1))], None, &signed);
    assert_eq!(refused, Err(VerifyError::Unsigned));
    assert_eq!(refused.unwrap_err().as_str(), "signature");
}

#[test]
fn a_desire_signed_by_another_key_is_refused_and_the_key_is_named() {
    let signed = sign_desire(&key(1), desire());
    let key_ids = key_id(&public(&key(1)));
    assert_eq!(key_ids.len(), 16);
    let refused = verify_desire(&[public(&key(2))], None, &signed);
    assert_eq!(refused, Err(VerifyError::UnknownKey { key_ids }));
    let nobody: [Vec<u8>; 0] = [];
    assert!(matches!(
        verify_desire(&nobody, None, &signed),
        Err(VerifyError::UnknownKey { .. })
    ));
}

#[test]
fn another_algorithm_is_no_signature() {
    let mut signed = sign_desire(&key(1), desire());
    signed.signatures[0].algorithm = "none".into();
    assert!(matches!(
        verify_desire(&[public(&key(1))], None, &signed),
        Err(VerifyError::UnknownKey { .. })
    ));
}

#[test]
fn a_signature_without_the_domain_is_no_signature_of_a_desire() {
    let mut signed = sign_desire(&key(1), desire());
    signed.signatures[0].value = key(1).sign(&signed.payload).as_ref().to_vec().into();
    assert!(matches!(
        verify_desire(&[public(&key(1))], None, &signed),
        Err(VerifyError::Altered { .. })
    ));
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let mut signed = sign_desire(&key(1), desire());
    add_signature(&key(2), &mut signed);
    signed.signatures[0].value = vec![0; 64].into();
    let trusted = [public(&key(1)), public(&key(2))];
    assert_eq!(verify_desire(&trusted, None, &signed), Ok(desire()));
}

#[test]
fn the_desire_of_another_node_is_refused_although_it_is_genuine() {
    let signed = sign_desire(&key(1), desire());
    let refused = verify_desire(&[public(&key(1))], Some(&uid("u2")), &signed).unwrap_err();
    assert_eq!(
        refused,
        VerifyError::WrongNode {
            expected: uid("u2"),
            found: uid("u1")
        }
    );
    assert_eq!(refused.as_str(), "wrong-node");
}

#[test]
fn signed_bytes_that_are_no_desire_are_malformed() {
    for payload in [&b"\xff\xff"[..], b""] {
        let mut signed = shadow::SignedDesire {
            payload: payload.to_vec().into(),
            signatures: Vec::new(),
        };
        add_signature(&key(1), &mut signed);
        let refused = verify_desire(&[public(&key(1))], None, &signed).unwrap_err();
        assert_eq!(refused.as_str(), "malformed", "{refused}");
    }
}

/// A newer cloud may add fields: they are part of what is signed and must not make the digest look wrong.
#[test]
fn fields_this_program_does_not_know_are_no_fault() {
    let mut signed = sign_desire(&key(1), desire());
    let unknown_field_900 = [0xa2, 0x38, 0x01, b'x'];
    signed.payload = [&signed.payload[..], &unknown_field_900].concat().into();
    signed.signatures.clear();
    add_signature(&key(1), &mut signed);
    assert_eq!(
        verify_desire(&[public(&key(1))], Some(&uid("u1")), &signed),
        Ok(desire())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_altered_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8, in_payload: bool) {
        let mut signed = sign_desire(&key(1), desire());
        let bytes = if in_payload { &mut signed.payload } else { &mut signed.signatures[0].value };
        let mut altered = bytes.to_vec();
        let at = at.index(altered.len());
        altered[at] ^= 1 << bit;
        *bytes = altered.into();
        let refused = verify_desire(&[public(&key(1))], None, &signed);
        prop_assert!(matches!(refused, Err(VerifyError::Altered { .. })), "{:?}", refused);
    }
}
