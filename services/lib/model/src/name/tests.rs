use proptest::prelude::*;

use super::*;

#[test]
fn resource_names_follow_the_rule_of_baetyl_v2() {
    for good in [
        "ab",
        "a1",
        "n.dot",
        "a-b.c",
        &"a".repeat(63),
        "baetyl-core-x",
    ] {
        assert!(ResourceName::new(good).is_ok(), "{good}");
        assert!(NodeName::new(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "a",
        "Upper",
        "-n1",
        "n1-",
        ".n1",
        "n1.",
        "a_b",
        "a b",
        "ä1",
        "a\n",
        &"a".repeat(64),
    ] {
        assert!(ResourceName::new(bad).is_err(), "{bad}");
        assert!(NodeName::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_application_name_leaves_room_for_a_suffix() {
    assert!(AppName::new("a".repeat(55)).is_ok());
    let error = AppName::new("a".repeat(56)).unwrap_err();
    assert!(error.to_string().contains("2 to 55 characters"), "{error}");
}

#[test]
fn service_names_and_namespaces_have_no_dots() {
    assert!(ServiceName::new("web-1").is_ok());
    assert!(ServiceName::new("web.1").is_err());
    assert!(ServiceName::new("w").is_err());
    assert!(Namespace::new("d").is_ok());
    assert!(Namespace::new("default-1").is_ok());
    assert!(Namespace::new("de.fault").is_err());
    assert!(Namespace::new("-default").is_err());
    assert!(Namespace::new("a".repeat(64)).is_err());
}

#[test]
fn a_config_key_is_always_a_safe_file_name() {
    for good in ["conf.yml", "_object_app.zip", "A-B_c.1", "..."] {
        assert!(ConfigKey::new(good).is_ok(), "{good}");
    }
    for bad in ["", ".", "..", "a b", "a/b", "../x", "a\0b", "ü"] {
        assert!(ConfigKey::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn versions_and_uids_are_safe_in_paths_and_in_instance_names() {
    for good in ["1", "42", "1795463945scnu7g", "v1"] {
        assert!(Version::new(good).is_ok(), "{good}");
    }
    for bad in ["", ".", "1.2", "-1", "a/b", &"1".repeat(65)] {
        assert!(Version::new(bad).is_err(), "{bad}");
    }
    assert!(NodeUid::new("0194c7a0-1111-7222-8333-944455566677").is_ok());
    assert!(NodeUid::new("").is_err());
    assert!(NodeUid::new("UPPER").is_err());
}

#[test]
fn an_error_names_the_value_and_the_rule_and_stays_short() {
    let error = NodeName::new("Big Name").unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"Big Name\" is not a valid node name: 2 to 63 characters of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
    );
    assert!(
        NodeName::new("X".repeat(10_000))
            .unwrap_err()
            .to_string()
            .len()
            < 300
    );
}

#[test]
fn json_is_checked_where_it_comes_in() {
    assert_eq!(serde_json::from_str::<NodeName>("\"n1\"").unwrap(), *"n1");
    assert!(
        serde_json::from_str::<NodeName>("\"N1\"")
            .unwrap_err()
            .to_string()
            .contains("node name")
    );
    assert_eq!(
        serde_json::to_string(&Version::from(Revision(7))).unwrap(),
        "\"7\""
    );
    assert_eq!(serde_json::to_string(&Generation(7)).unwrap(), "7");
}

#[test]
fn kinds_are_read_by_their_long_and_their_short_names() {
    for (word, kind) in [
        ("application", Kind::Application),
        ("app", Kind::Application),
        ("configuration", Kind::Configuration),
        ("config", Kind::Configuration),
        ("secret", Kind::Secret),
    ] {
        assert_eq!(word.parse::<Kind>().unwrap(), kind);
        assert_eq!(serde_json::from_value::<Kind>(word.into()).unwrap(), kind);
    }
    assert!("bogus".parse::<Kind>().is_err());
    assert_eq!(
        serde_json::to_value(Kind::Application).unwrap(),
        "application"
    );
}

#[test]
fn baetyl_in_any_case_belongs_to_the_system() {
    assert!(is_system_name("my-Baetyl-c"));
    assert!(!is_system_name("bae-tyl"));
}

proptest! {
    #[test]
    fn every_accepted_name_survives_a_round_trip_and_is_no_path(text in "\\PC{0,70}|[a-z0-9.-]{0,66}") {
        if let Ok(name) = ResourceName::new(text.clone()) {
            prop_assert_eq!(name.to_string().parse::<ResourceName>().unwrap(), name);
            prop_assert!(!text.contains('/') && text != "." && text != "..");
            prop_assert!((2..=63).contains(&text.len()));
        }
    }
}
