use super::*;
use crate::document::parse;

fn document(text: &str) -> Document {
    let text = format!("apiVersion: baetyl/v1\n{text}");
    parse(&text).unwrap().remove(0)
}

fn found(text: &str, exists: bool) -> Vec<String> {
    let found = mistakes(&document(text), exists);
    found.iter().map(ToString::to_string).collect()
}

const APP: &str = "kind: app\nname: web\nmode: native\n";

#[test]
fn an_unknown_field_is_named_with_its_path() {
    let found = found(
        &format!("{APP}services: [{{name: web, command: [run], imagePullPoliy: Never}}]\n"),
        false,
    );
    assert_eq!(found, ["services[0].imagePullPoliy: unknown field"]);
}

#[test]
fn a_wrong_type_and_a_broken_rule_are_named() {
    let wrong = found(&format!("{APP}services: none\n"), false);
    assert!(wrong[0].starts_with("services: "), "{wrong:?}");
    let broken = found(
        &format!("{APP}selector: 'a in (b'\nservices: [{{name: web, command: [run]}}]\n"),
        false,
    );
    assert!(broken[0].starts_with("selector: "), "{broken:?}");
    let node = found(
        "kind: node\nname: n1\nnodeMode: docker\nlabel: {a: b}\n",
        false,
    );
    assert_eq!(
        node,
        [
            "nodeMode: \"docker\" is not one of kube, native",
            "label: unknown field"
        ]
    );
}

#[test]
fn what_the_cloud_keeps_may_be_left_out_of_what_exists() {
    let registry = "kind: registry\nname: hub\naddress: hub:5000\nusername: u\n";
    assert_eq!(found(registry, false), ["password: is needed"]);
    assert_eq!(found(registry, true), [""; 0]);
    let certificate = "kind: certificate\nname: tls\ndata: {certificate: pem}\n";
    assert_eq!(found(certificate, false), ["data.key: is needed"]);
    assert_eq!(found(certificate, true), [""; 0]);
    let beside = "kind: certificate\nname: tls\nkey: pem\ndata: {certificate: pem, kay: x}\n";
    assert_eq!(
        found(beside, true),
        ["kay: unknown field", "key: unknown field"]
    );
}

#[test]
fn data_that_is_too_large_is_found_here() {
    let text = "x".repeat(MAX_SECRET_BYTES);
    let found = found(
        &format!("kind: secret\nname: s1\ndata: {{k: {text}}}\n"),
        false,
    );
    assert!(found[0].contains("are the most"), "{found:?}");
}

#[test]
fn everything_an_application_needs_is_a_reference_but_what_the_cloud_generates() {
    let text = "kind: app\nname: fn\ntype: function\nmode: native
services:
  - name: fn
    functionConfig: {name: code, runtime: python3}
    functions: [{name: f, handler: f.handler}]
volumes:
  - {name: baetyl-function-config-fn, config: {name: baetyl-function-config-fn-1}}
  - {name: code, config: {name: code}}
  - {name: key, secret: {name: api-key}}
  - {name: tls, certificate: {name: pair}}
";
    let words: Vec<_> = references(&document(text))
        .iter()
        .map(|r| format!("{} {} {}", r.field, r.wanted, r.name))
        .collect();
    assert_eq!(
        words,
        [
            "volumes[1].config.name config code",
            "volumes[2].secret.name secret api-key",
            "volumes[3].certificate.name certificate pair",
            "services[0].functionConfig.name config code",
            "services[0].functionConfig.runtime runtime python3",
        ]
    );
}

#[test]
fn an_uploaded_object_is_a_reference_of_its_configuration() {
    let text = "kind: config\nname: c1
data: [{key: a.bin, value: {type: object, source: baetyl, object: a.bin}}, {key: b, value: {type: kv, value: b}}]\n";
    let found = references(&document(text));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].wanted, Wanted::Object);
}
