use proptest::prelude::*;

use super::*;

fn uid(text: &str) -> NodeUid {
    NodeUid::new(text).unwrap()
}

fn header(node: &str, epoch: u64, generation: u64, content: u8) -> Header {
    Header {
        node_uid: uid(node),
        epoch: Epoch(epoch),
        generation: Generation(generation),
        digest: Digest::from_sha256([content; 32]),
    }
}

fn reference(kind: Kind, name: &str) -> ResourceRef {
    ResourceRef {
        kind,
        name: ResourceName::new(name).unwrap(),
        version: Version::new("1").unwrap(),
        digest: Digest::from_sha256([1; 32]),
        size: 1,
    }
}

#[test]
fn the_first_desire_is_accepted() {
    assert_eq!(
        accept_desire(None, None, &header("u1", 0, 1, 1)),
        Accept::New
    );
    assert_eq!(
        accept_desire(Some(&uid("u1")), None, &header("u1", 0, 1, 1)),
        Accept::New
    );
}

#[test]
fn epoch_orders_before_generation() {
    let held = header("u1", 1, 100, 1);
    assert_eq!(
        accept_desire(None, Some(&held), &header("u1", 2, 5, 2)),
        Accept::New
    );
    assert_eq!(
        accept_desire(None, Some(&held), &header("u1", 0, 500, 2)),
        Accept::Refused(Refusal::Stale)
    );
}

#[test]
fn the_same_generation_is_a_repetition_or_a_conflict() {
    let held = header("u1", 1, 100, 1);
    assert_eq!(accept_desire(None, Some(&held), &held), Accept::Same);
    let other = header("u1", 1, 100, 2);
    assert_eq!(
        accept_desire(None, Some(&held), &other),
        Accept::Refused(Refusal::Conflict)
    );
}

#[test]
fn the_desire_of_another_node_is_refused_even_when_it_is_newer() {
    let held = header("u1", 1, 100, 1);
    let other = header("u2", 9, 900, 2);
    assert_eq!(
        accept_desire(None, Some(&held), &other),
        Accept::Refused(Refusal::WrongNode)
    );
    assert_eq!(
        accept_desire(Some(&uid("u1")), None, &other),
        Accept::Refused(Refusal::WrongNode)
    );
}

#[test]
fn what_was_held_in_a_former_life_does_not_count() {
    let held = header("u1", 9, 900, 1);
    assert_eq!(
        accept_desire(Some(&uid("u2")), Some(&held), &header("u2", 0, 1, 2)),
        Accept::New
    );
}

#[test]
fn only_a_reference_to_an_application_stands_for_one() {
    assert!(AppRef::try_from(reference(Kind::Application, "web")).is_ok());
    let error = AppRef::try_from(reference(Kind::Secret, "web")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "secret web stands where an application is wanted"
    );
    assert!(AppRef::try_from(reference(Kind::Application, &"a".repeat(56))).is_err());
}

#[test]
fn a_release_changes_with_everything_it_consists_of() {
    let app = AppRef::try_from(reference(Kind::Application, "web")).unwrap();
    let mut config = reference(Kind::Configuration, "c1");
    config.digest = Digest::from_sha256([2; 32]);
    let one = DesiredApp {
        app,
        resources: vec![config],
        objects: Vec::new(),
        system: false,
    };
    let mut other = one.clone();
    assert_eq!(one.release(), other.release());
    other.resources[0].digest = Digest::from_sha256([3; 32]);
    assert_ne!(one.release(), other.release());
    assert_eq!(one.references().len(), 2);
}

fn any_header() -> impl Strategy<Value = Header> {
    (0u64..3, 0u64..4, 0u8..3)
        .prop_map(|(epoch, generation, content)| header("u1", epoch, generation, content))
}

proptest! {
    /// Whatever comes in whatever order, what is held never goes back.
    #[test]
    fn stale_never_wins(offers in prop::collection::vec(any_header(), 0..30)) {
        let mut held: Option<Header> = None;
        for offer in offers {
            let before = held.as_ref().map(Header::order);
            match accept_desire(None, held.as_ref(), &offer) {
                Accept::New => {
                    prop_assert!(before < Some(offer.order()));
                    held = Some(offer);
                }
                Accept::Same => prop_assert_eq!(held.as_ref(), Some(&offer)),
                Accept::Refused(_) => prop_assert!(before >= Some(offer.order())),
            }
        }
    }

    #[test]
    fn what_is_held_is_accepted_again_and_changes_nothing(held in any_header()) {
        prop_assert_eq!(accept_desire(None, Some(&held), &held.clone()), Accept::Same);
    }
}
