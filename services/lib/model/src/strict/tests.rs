use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::resource::Application;

#[derive(Debug, PartialEq, Deserialize, Default)]
#[serde(default)]
struct Inner {
    number: u8,
    map: BTreeMap<String, String>,
    maybe: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Point,
    Circle(u8),
    Line(u8, u8),
    Box { wide: u8 },
}

#[derive(Debug, PartialEq, Deserialize, Default)]
#[serde(default)]
struct Outer {
    list: Vec<Inner>,
    shape: Option<Shape>,
    free: serde_json::Value,
}

fn unknown(raw: serde_json::Value) -> Vec<String> {
    parse_value::<Outer>(&raw).unwrap().unknown
}

fn mistake(raw: serde_json::Value) -> String {
    parse_value::<Outer>(&raw).unwrap_err().to_string()
}

#[test]
fn unknown_fields_are_listed_with_their_paths_whatever_their_value() {
    let raw = json!({"list": [{"number": 1}, {"nummer": 2, "x": null, "map": {"any": "key"}}], "bogus": {"a": 1}, "e": ""});
    assert_eq!(unknown(raw), ["bogus", "e", "list[1].nummer"]);
    assert_eq!(
        unknown(json!({"free": {"anything": {"goes": null}}})),
        [""; 0]
    );
}

#[test]
fn null_means_not_given_in_a_struct_and_null_in_free_json() {
    let raw = json!({"list": null, "shape": null, "free": {"a": null}});
    let parsed = parse_value::<Outer>(&raw).unwrap();
    assert_eq!(
        parsed.value,
        Outer {
            free: json!({"a": null}),
            ..Outer::default()
        }
    );
    assert_eq!(parsed.unknown, [""; 0]);
}

#[test]
fn a_wrong_value_is_named_with_its_path() {
    let text = mistake(json!({"list": [{}, {"number": "x"}]}));
    assert_eq!(
        text,
        "field list[1].number is invalid: invalid type: string \"x\", expected u8"
    );
    assert!(
        mistake(json!({"list": [{"number": 300}]}))
            .starts_with("field list[0].number is invalid: ")
    );
    assert!(
        mistake(json!({"list": [{"map": {"k": null}}]}))
            .starts_with("field list[0].map.k is invalid: ")
    );
    assert!(mistake(json!({"list": {}})).starts_with("field list is invalid: "));
    assert!(mistake(json!("text")).starts_with("field . is invalid: "));
    assert!(mistake(json!({"shape": "square"})).starts_with("field shape is invalid: "));
    assert!(
        mistake(json!({"shape": {"circle": "big"}})).starts_with("field shape.circle is invalid: ")
    );
}

#[test]
fn enumerations_are_read_in_all_their_forms() {
    for (raw, shape) in [
        (json!("point"), Shape::Point),
        (json!({"circle": 3}), Shape::Circle(3)),
        (json!({"line": [1, 2]}), Shape::Line(1, 2)),
        (json!({"box": {"wide": 4}}), Shape::Box { wide: 4 }),
    ] {
        let parsed = parse_value::<Outer>(&json!({"shape": raw})).unwrap();
        assert_eq!(parsed.value.shape, Some(shape));
    }
    assert_eq!(
        unknown(json!({"shape": {"box": {"wide": 1, "deep": 2}}})),
        ["shape.box.deep"]
    );
}

#[test]
fn text_that_is_no_json_is_told_from_a_wrong_field() {
    assert!(matches!(
        parse::<Outer>(b"{bad"),
        Err(ParseError::Syntax(_))
    ));
    assert!(matches!(
        parse::<Outer>(b"{} trailing"),
        Err(ParseError::Syntax(_))
    ));
    assert!(matches!(
        parse::<Outer>(b"[1]"),
        Err(ParseError::Field { .. })
    ));
}

#[test]
fn a_typo_deep_in_an_application_is_found() {
    let body = br#"{"name":"web","services":[{"name":"s1","imagee":"x","livenessProbe":{"httpGet":{"port":80,"pth":"/"}}}]}"#;
    let parsed = parse::<Application>(body).unwrap();
    assert_eq!(
        parsed.unknown,
        [
            "services[0].imagee",
            "services[0].livenessProbe.httpGet.pth"
        ]
    );
    let error =
        parse::<Application>(br#"{"services":[{"ports":[{"hostPort":"http"}]}]}"#).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("field services[0].ports[0].hostPort is invalid"),
        "{error}"
    );
}
