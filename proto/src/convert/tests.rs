use baetyl_model::desire::{Desire, ObjectRef, ResourceRef};
use baetyl_model::name::{Epoch, Generation};
use baetyl_model::report::{AppStatus, NodeStatus, RunStatus};
use proptest::prelude::*;

use super::any::{any_desire, any_object, any_reference, any_stats, any_status, any_time};
use super::*;
use crate::{digest, resource, shadow};

/// Through the wire's bytes and back.
fn round_trip<W, D>(domain: D) -> D
where
    W: prost::Message + Default + From<D>,
    D: TryFrom<W, Error = ConvertError>,
{
    let bytes = W::from(domain).encode_to_vec();
    D::try_from(W::decode(bytes.as_slice()).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn references_survive_the_wire(reference in any_reference(), object in any_object()) {
        prop_assert_eq!(round_trip::<resource::ResourceRef, _>(reference.clone()), reference);
        prop_assert_eq!(round_trip::<resource::ObjectRef, _>(object.clone()), object);
    }

    #[test]
    fn a_desire_survives_the_wire(desire in any_desire()) {
        prop_assert_eq!(round_trip::<shadow::Desire, _>(desire.clone()), desire.clone());
        prop_assert_eq!(round_trip::<shadow::DesireHeader, _>(desire.header()), desire.header());
    }

    #[test]
    fn a_status_survives_the_wire(status in any_status()) {
        prop_assert_eq!(round_trip::<shadow::NodeStatus, _>(status.clone()), status);
    }

    #[test]
    fn stats_survive_the_wire(stats in any_stats()) {
        prop_assert_eq!(round_trip::<shadow::NodeStats, _>(stats.clone()), stats);
    }

    #[test]
    fn times_survive_the_wire(time in any_time()) {
        let wire = time.map(time::to_wire);
        prop_assert!(wire.as_ref().is_none_or(|wire| (0..1_000_000_000).contains(&wire.nanos)));
        prop_assert_eq!(time::optional("time", wire).unwrap(), time);
    }

    /// Epoch and generation are no content, everything else is.
    #[test]
    fn equal_content_has_an_equal_digest_and_other_content_another(
        desire in any_desire(),
        other in any_desire(),
    ) {
        let later = Desire { epoch: Epoch(1), generation: Generation(1), ..desire.clone() };
        prop_assert_eq!(digest::complete_desire(later).digest, desire.digest);
        let content = |desire: &Desire| {
            (desire.apps.clone(), desire.node_properties.clone(), desire.core.clone())
        };
        let same = content(&desire) == content(&other);
        prop_assert_eq!(desire.digest == other.digest, same);
        let mut shuffled = desire.clone();
        shuffled.apps.reverse();
        prop_assert_eq!(digest::complete_desire(shuffled), desire);
    }

    #[test]
    fn times_of_transitions_alone_are_no_news(status in any_status(), time in any_time()) {
        let mut later = status.clone();
        later.conditions.iter_mut().for_each(|condition| condition.last_transition = time);
        for app in later.apps.values_mut() {
            app.conditions.iter_mut().for_each(|condition| condition.last_transition = time);
        }
        let of = |status: &NodeStatus| digest::of_status(&shadow::NodeStatus::from(status.clone()));
        prop_assert_eq!(of(&later), of(&status));
        later.mode_info.push('x');
        prop_assert_ne!(of(&later), of(&status));
    }
}

fn wire_reference() -> resource::ResourceRef {
    resource::ResourceRef {
        kind: resource::ResourceKind::Application.into(),
        name: "web".into(),
        version: "7".into(),
        digest: digest::of(b"").to_string(),
        size: 1,
    }
}

fn mistake(reference: resource::ResourceRef) -> String {
    ResourceRef::try_from(reference).unwrap_err().to_string()
}

#[test]
fn a_reference_that_breaks_a_rule_names_the_field() {
    assert!(
        mistake(resource::ResourceRef {
            kind: 0,
            ..wire_reference()
        })
        .starts_with("kind is missing")
    );
    assert!(
        mistake(resource::ResourceRef {
            kind: 9,
            ..wire_reference()
        })
        .starts_with("kind: ")
    );
    assert!(
        mistake(resource::ResourceRef {
            name: "Web".into(),
            ..wire_reference()
        })
        .starts_with("resource name: ")
    );
    assert!(
        mistake(resource::ResourceRef {
            version: "../x".into(),
            ..wire_reference()
        })
        .starts_with("version: ")
    );
    assert!(
        mistake(resource::ResourceRef {
            digest: "md5:1".into(),
            ..wire_reference()
        })
        .starts_with("digest: ")
    );
}

fn wire_desire(apps: &[&str]) -> shadow::Desire {
    let app = |name: &&str| shadow::DesiredApp {
        app: Some(resource::ResourceRef {
            name: (*name).to_owned(),
            ..wire_reference()
        }),
        ..shadow::DesiredApp::default()
    };
    shadow::Desire {
        namespace: "default".into(),
        node_name: "n1".into(),
        node_uid: "u1".into(),
        digest: digest::of(b"").to_string(),
        apps: apps.iter().map(app).collect(),
        ..shadow::Desire::default()
    }
}

#[test]
fn a_desire_that_is_not_in_order_or_names_an_application_twice_is_refused() {
    assert!(Desire::try_from(wire_desire(&["aa", "bb"])).is_ok());
    for apps in [["bb", "aa"], ["aa", "aa"]] {
        let error = Desire::try_from(wire_desire(&apps)).unwrap_err();
        assert!(error.to_string().starts_with("apps: "), "{error}");
    }
    let mut no_app = wire_desire(&["aa"]);
    no_app.apps[0].app = None;
    assert_eq!(
        Desire::try_from(no_app),
        Err(ConvertError::Missing { field: "app" })
    );
    let mut twice = wire_desire(&[]);
    let property = shadow::Property {
        key: "k".into(),
        value: "v".into(),
    };
    twice.node_properties = vec![property.clone(), property];
    assert!(
        Desire::try_from(twice)
            .unwrap_err()
            .to_string()
            .contains("\"k\" is given twice")
    );
}

#[test]
fn a_file_name_that_leaves_its_directory_is_refused() {
    let object = resource::ObjectRef {
        digest: digest::of(b"").to_string(),
        configuration: "c1".into(),
        configuration_version: "1".into(),
        file_name: "../../etc/passwd".into(),
        ..resource::ObjectRef::default()
    };
    assert!(
        ObjectRef::try_from(object)
            .unwrap_err()
            .to_string()
            .starts_with("key: ")
    );
}

#[test]
fn a_status_of_a_newer_program_is_read_as_unknown() {
    let app = shadow::AppStatus {
        name: "web".into(),
        status: 77,
        ..shadow::AppStatus::default()
    };
    assert_eq!(AppStatus::try_from(app).unwrap().status, RunStatus::Unknown);
    let bad = shadow::AppStatus {
        name: "web".into(),
        phase: "Dreaming".into(),
        ..shadow::AppStatus::default()
    };
    assert_eq!(
        AppStatus::try_from(bad).unwrap_err().to_string(),
        "phase: \"Dreaming\" is not a phase"
    );
}

#[test]
fn bytes_in_pieces_have_the_digest_of_the_whole() {
    let mut hasher = digest::Hasher::new();
    hasher.update(b"a");
    hasher.update(b"bc");
    assert_eq!(hasher.finish(), digest::of(b"abc"));
    assert_eq!(
        digest::of(b"abc").to_string(),
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
