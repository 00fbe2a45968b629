use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

#[test]
fn keys_and_values_follow_kubernetes() {
    for good in [
        "a",
        "env",
        "example.com/k",
        "A_b.c-D",
        "a.b-c.example/x",
        &"k".repeat(63),
    ] {
        assert!(validate_key(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "bad key!",
        "-a",
        "a-",
        "/a",
        "a/",
        "a/b/c",
        "Example.com/k",
        "a..b/k",
        &"k".repeat(64),
    ] {
        assert!(validate_key(bad).is_err(), "{bad}");
    }
    for good in ["", "v", "1.2-x_Y", &"v".repeat(63)] {
        assert!(validate_value("k", good).is_ok(), "{good}");
    }
    for bad in ["x y", "-v", "v.", "ü", &"v".repeat(64)] {
        assert!(validate_value("k", bad).is_err(), "{bad}");
    }
}

#[test]
fn all_mistakes_in_labels_are_named() {
    let errors = validate_labels(&labels(&[("bad key!", "x y"), ("good", "v"), ("k", "-")]));
    assert_eq!(errors.len(), 3, "{errors:?}");
}

/// The table of Kubernetes' own semantics.
#[test]
fn matching_follows_kubernetes() {
    let node = labels(&[("env", "prod"), ("arch", "arm64"), ("empty", "")]);
    for (text, matches) in [
        ("env=prod", true),
        ("env==prod", true),
        ("env = prod", true),
        ("env=test", false),
        ("env!=test", true),
        ("env!=prod", false),
        // An absent label is different from every value.
        ("zone!=a", true),
        ("zone notin (a,b)", true),
        ("zone in (a,b)", false),
        ("zone=a", false),
        ("env in (test, prod)", true),
        ("env notin (test, prod)", false),
        ("env", true),
        ("zone", false),
        ("!zone", true),
        ("! env", false),
        ("empty=", true),
        ("empty in ()", true),
        ("zone=", false),
        ("env=prod,arch=arm64", true),
        ("env=prod,arch=amd64", false),
        ("env in (prod),!zone , arch", true),
    ] {
        assert_eq!(selector(text).matches(&node), matches, "{text}");
    }
}

#[test]
fn the_empty_selector_lists_everything_and_runs_nowhere() {
    for text in ["", "   "] {
        assert!(selector(text).matches_everything());
        assert!(selector(text).matches(&labels(&[])));
        assert!(!selector(text).matches_app_node(&labels(&[("env", "prod")])));
    }
    assert!(selector("env").matches_app_node(&labels(&[("env", "prod")])));
}

#[test]
fn broken_selectors_are_refused_with_the_place() {
    for (text, at) in [
        ("a=b,", 5),
        (",a", 1),
        ("a=b c", 5),
        ("a in x", 6),
        ("a in (x", 8),
        ("a in (x y)", 9),
        ("a b", 3),
        ("=b", 1),
        ("!", 2),
        ("!!a", 2),
        ("a=b=c", 4),
        ("()", 1),
    ] {
        match text.parse::<Selector>() {
            Err(SelectorError::Syntax { at: found, .. }) => assert_eq!(found, at, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    for text in ["bad key! = x", "a=-b", "a in (b_)", "a>1", "ключ=1"] {
        assert!(text.parse::<Selector>().is_err(), "{text}");
    }
}

#[test]
fn a_selector_error_shows_the_selector() {
    let error = "env in prod".parse::<Selector>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "selector \"env in prod\" is invalid at character 8: '(' is wanted"
    );
}

#[test]
fn in_and_notin_are_also_label_names() {
    let named = labels(&[("in", "in"), ("notin", "x")]);
    assert!(selector("in in (in),notin notin (in),in=in").matches(&named));
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,5}[a-zA-Z0-9])?"
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let key = prop_oneof![
        word(),
        word().prop_map(|name| format!("example.com/{name}")),
        Just("in".to_owned())
    ];
    let value = prop_oneof![word(), Just(String::new()), Just("notin".to_owned())];
    let values = prop::collection::btree_set(value.clone(), 1..4);
    let operator = prop_oneof![
        value.clone().prop_map(Operator::Equals),
        value.prop_map(Operator::NotEquals),
        values.clone().prop_map(Operator::In),
        values.prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::Absent),
    ];
    (key, operator).prop_map(|(key, operator)| Requirement { key, operator })
}

proptest! {
    #[test]
    fn a_selector_is_read_back_as_it_was_written(requirements in prop::collection::vec(requirement(), 0..5)) {
        let text = requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let parsed: Selector = text.parse().unwrap();
        prop_assert_eq!(parsed.requirements(), &requirements[..]);
        prop_assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,30}|[a-c!=(), ]{0,20}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        }
    }

    #[test]
    fn in_is_an_or_of_equals_and_notin_its_opposite(
        key in word(),
        values in prop::collection::btree_set(word(), 1..4),
        node in prop::collection::btree_map(word(), word(), 0..3),
        hit in any::<Option<prop::sample::Index>>(),
    ) {
        let mut node = node;
        if let Some(hit) = hit {
            let values: Vec<_> = values.iter().cloned().collect();
            node.insert(key.clone(), hit.get(&values).clone());
        }
        let is = |operator| Requirement { key: key.clone(), operator }.matches(&node);
        let any = values.iter().any(|value| is(Operator::Equals(value.clone())));
        prop_assert_eq!(is(Operator::In(values.clone())), any);
        prop_assert_eq!(is(Operator::NotIn(values)), !any);
        prop_assert_eq!(is(Operator::Exists), !is(Operator::Absent));
    }
}

#[test]
fn values_of_a_set_are_kept_once() {
    let parsed = selector("a in (y,x,y)");
    let wanted = BTreeSet::from(["x".to_owned(), "y".to_owned()]);
    assert_eq!(parsed.requirements()[0].operator, Operator::In(wanted));
}
