use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn applied(mut target: Value, patch: Value) -> Value {
    apply(&mut target, patch);
    target
}

/// Appendix A of RFC 7396.
#[test]
fn the_examples_of_rfc_7396_hold() {
    for (original, patch, result) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": "b"}),
            json!({"b": "c"}),
            json!({"a": "b", "b": "c"}),
        ),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (
            json!({"a": "b", "b": "c"}),
            json!({"a": null}),
            json!({"b": "c"}),
        ),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (
            json!({"a": [{"b": "c"}]}),
            json!({"a": [1]}),
            json!({"a": [1]}),
        ),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a": "b"}), json!(["c"]), json!(["c"])),
        (json!({"a": "foo"}), json!(null), json!(null)),
        (json!({"a": "foo"}), json!("bar"), json!("bar")),
        (
            json!({"e": null}),
            json!({"a": 1}),
            json!({"e": null, "a": 1}),
        ),
        (
            json!([1, 2]),
            json!({"a": "b", "c": null}),
            json!({"a": "b"}),
        ),
        (
            json!({}),
            json!({"a": {"bb": {"ccc": null}}}),
            json!({"a": {"bb": {}}}),
        ),
    ] {
        assert_eq!(
            applied(original.clone(), patch.clone()),
            result,
            "{original} + {patch}"
        );
    }
}

/// The cases of Baetyl v2's own tests: (desire, report, delta without nulls).
#[test]
fn the_shadow_cases_of_baetyl_v2_hold() {
    let app = |name: &str, version: &str| json!({"name": name, "version": version});
    let (a1, b1, b2, c2) = (app("a", "1"), app("b", "1"), app("b", "2"), app("c", "2"));
    for (desire, report, delta) in [
        (json!({}), json!(null), json!({})),
        (
            json!({"name": "m", "version": "45"}),
            json!({"name": "m", "version": "43"}),
            json!({"version": "45"}),
        ),
        (
            json!({"module": {"image": "v2"}}),
            json!({"module": {"image": "v1"}}),
            json!({"module": {"image": "v2"}}),
        ),
        (
            json!({"module": {"image": "v2", "array": []}}),
            json!({"module": {"image": "v1", "object": {"attr": "v"}}}),
            json!({"module": {"image": "v2", "array": []}}),
        ),
        (
            json!({"apps": [a1, b1]}),
            json!({"apps": [b2, c2]}),
            json!({"apps": [a1, b1]}),
        ),
        (
            json!({"apps": [a1, b1]}),
            json!({"apps": null}),
            json!({"apps": [a1, b1]}),
        ),
        (json!({"apps": null}), json!({"apps": [a1, b1]}), json!({})),
        (
            json!({"apps": []}),
            json!({"apps": [a1, b1]}),
            json!({"apps": []}),
        ),
    ] {
        assert_eq!(
            create_without_nulls(&report, &desire),
            delta,
            "{report} -> {desire}"
        );
    }
}

#[test]
fn with_nulls_what_is_no_longer_wanted_is_named() {
    let report = json!({"apps": [1], "nodeprops": {"a": "1", "b": "2"}});
    assert_eq!(
        create(&report, &json!({"apps": null})),
        json!({"apps": null, "nodeprops": null})
    );
    assert_eq!(
        create(&report, &json!({"apps": [1], "nodeprops": {"b": "2"}})),
        json!({"nodeprops": {"a": null}})
    );
    assert_eq!(create(&report, &report), json!({}));
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| {
        Value::Object([("a".to_owned(), inner)].into_iter().collect())
    })
}

/// Takes a value apart level by level: dropping a deep `Value` recurses.
fn dismantle(mut value: Value) {
    while let Value::Object(mut fields) = value {
        value = fields.remove("a").unwrap_or(Value::Null);
    }
}

#[test]
fn depth_is_no_reason_to_fail() {
    const LEVELS: usize = 100_000;
    let mut target = deep(LEVELS);
    apply(&mut target, json!({"b": 2}));
    assert_eq!(target["b"], 2);
    apply(&mut target, deep(LEVELS));
    strip_nulls(&mut target);
    dismantle(target);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn creating_a_patch_and_applying_it_gives_the_target(source in tree(), target in tree()) {
        let patch = create(&source, &target);
        prop_assert_eq!(applied(source, patch), target);
    }

    #[test]
    fn applying_a_patch_twice_is_applying_it_once(target in tree(), patch in tree()) {
        let once = applied(target, patch.clone());
        prop_assert_eq!(applied(once.clone(), patch), once);
    }

    #[test]
    fn without_nulls_nothing_is_ever_removed(source in tree(), target in tree()) {
        let mut patch = create_without_nulls(&source, &target);
        let before = patch.clone();
        strip_nulls(&mut patch);
        prop_assert_eq!(&patch, &before);
        if let (Value::Object(before), Value::Object(after)) = (&source, &applied(source.clone(), patch)) {
            prop_assert!(before.keys().all(|key| after.contains_key(key)));
        }
    }
}
