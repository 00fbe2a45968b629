use super::*;

/// A key pair in PEM: certificate and key.
pub(super) fn pair(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

pub(super) async fn create_certificate(c: &TestCloud, name: &str) -> Value {
    let (certificate, key) = pair(name);
    c.created(
        "/v1/certificates",
        json!({"name": name, "data": {"key": key, "certificate": certificate}}),
    )
    .await
}

#[tokio::test]
async fn a_secret_is_shown_alone_and_hidden_in_lists() {
    let c = cloud().await;
    let made = c
        .created(
            "/v1/secrets",
            json!({"name": "s1", "labels": {"a": "b"}, "data": {"u": "user", "p": "pass"}}),
        )
        .await;
    assert_eq!(
        (&made["data"], &made["labels"]),
        (&json!({"u": "user", "p": "pass"}), &json!({"a": "b"}))
    );
    let list = c.read("/v1/secrets").await;
    assert_eq!(list["selector"], "!baetyl-cloud-system,secret-type=config");
    assert!(list["items"][0].get("data").is_none(), "{list}");
}

#[tokio::test]
async fn every_version_of_a_secret_has_another_salt() {
    let c = cloud().await;
    let mut digests = std::collections::BTreeSet::new();
    for text in ["one", "two", "one"] {
        let body = json!({"name": "s1", "data": {"k": text}});
        if c.put("/v1/secrets/s1", &body).await.status == StatusCode::NOT_FOUND {
            c.created("/v1/secrets", body).await;
        }
        let row = c
            .store
            .resource(&c.namespace, baetyl_model::Kind::Secret, "s1")
            .await
            .unwrap()
            .unwrap();
        let stored = c
            .store
            .version(&c.namespace, row.kind, "s1", row.version)
            .await
            .unwrap()
            .unwrap();
        let stored: Value = serde_json::from_slice(&stored.body).unwrap();
        assert_eq!(
            stored["salt"].as_str().unwrap().len(),
            24,
            "16 bytes in base64"
        );
        digests.insert(row.digest);
    }
    assert_eq!(digests.len(), 3, "equal content, different digests");
}

#[tokio::test]
async fn kinds_of_secrets_do_not_see_each_other() {
    let c = cloud().await;
    c.created("/v1/secrets", json!({"name": "s1", "data": {"k": "v"}}))
        .await;
    c.created(
        "/v1/registries",
        json!({"name": "r1", "address": "a", "username": "u", "password": "p"}),
    )
    .await;
    create_certificate(&c, "t1").await;
    for (path, own) in [
        ("/v1/secrets", "s1"),
        ("/v1/registries", "r1"),
        ("/v1/certificates", "t1"),
    ] {
        assert_eq!(c.read(path).await["total"], 1, "{path}");
        for name in ["s1", "r1", "t1"] {
            let answer = c.get(&format!("{path}/{name}")).await;
            assert_eq!(
                answer.status == StatusCode::OK,
                name == own,
                "{path}/{name}"
            );
            if name != own {
                c.delete(&format!("{path}/{name}")).await;
            }
        }
    }
    assert_eq!(
        c.read("/v1/secrets/s1").await["name"],
        "s1",
        "deleting by another kind did nothing"
    );
}

#[tokio::test]
async fn a_registry_never_shows_its_password_and_keeps_it_when_none_is_given() {
    let c = cloud().await;
    let made = c
        .created(
            "/v1/registries",
            json!({"name": "r1", "address": "a", "username": "u", "password": "hidden-1"}),
        )
        .await;
    assert!(made.get("password").is_none());
    let put = c
        .ok(
            Method::PUT,
            "/v1/registries/r1",
            &json!({"description": "new"}),
        )
        .await;
    assert_eq!(
        (&put["description"], &put["address"]),
        (&json!("new"), &json!("a"))
    );
    let refreshed = c
        .ok(
            Method::POST,
            "/v1/registries/r1/refresh",
            &json!({"password": "hidden-2"}),
        )
        .await;
    assert_eq!(refreshed["description"], "new");
    for path in ["/v1/registries/r1", "/v1/registries"] {
        assert!(!c.get(path).await.text.contains("hidden"), "{path}");
    }
    let row = c
        .store
        .resource(&c.namespace, baetyl_model::Kind::Secret, "r1")
        .await
        .unwrap()
        .unwrap();
    let stored = c
        .store
        .version(&c.namespace, row.kind, "r1", row.version)
        .await
        .unwrap()
        .unwrap();
    let stored: baetyl_model::resource::Secret = serde_json::from_slice(&stored.body).unwrap();
    assert_eq!(stored.text("password"), "hidden-2");
    assert_eq!(
        c.post("/v1/registries/r1/refresh", &json!({}))
            .await
            .fields(),
        ["password"]
    );
}

#[tokio::test]
async fn a_certificate_is_read_and_its_key_is_never_shown() {
    let c = cloud().await;
    let made = create_certificate(&c, "t1").await;
    assert_eq!(made["signatureAlgorithm"], "ECDSA-SHA256");
    assert_eq!(made["issuer"], "t1");
    assert!(
        made["effectiveTime"]
            .as_str()
            .unwrap()
            .ends_with(" +0000 UTC"),
        "{made}"
    );
    assert!(
        made["serialNumber"]
            .as_str()
            .unwrap()
            .bytes()
            .all(|digit| digit.is_ascii_digit()),
        "{made}"
    );
    assert_eq!(made["fingerPrint"].as_str().unwrap().len(), 32 * 3 - 1);
    assert!(
        made["data"]["certificate"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    for path in ["/v1/certificates/t1", "/v1/certificates"] {
        assert!(!c.get(path).await.text.contains("PRIVATE KEY"), "{path}");
    }
}

#[tokio::test]
async fn a_certificate_needs_its_own_key() {
    let c = cloud().await;
    let ((certificate, key), (_, other)) = (pair("one"), pair("two"));
    for (data, fields) in [
        (json!({"certificate": certificate}), vec!["data.key"]),
        (json!({"key": key}), vec!["data.certificate"]),
        (
            json!({"certificate": certificate, "key": other}),
            vec!["data.key"],
        ),
        (
            json!({"certificate": "no PEM", "key": key}),
            vec!["data.certificate"],
        ),
        (
            json!({"certificate": certificate, "key": "no PEM"}),
            vec!["data.key"],
        ),
        (json!({}), vec!["data.key", "data.certificate"]),
    ] {
        let answer = c
            .post("/v1/certificates", &json!({"name": "t1", "data": data}))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.fields()),
            (400, fields),
            "{data}: {}",
            answer.text
        );
    }
    c.created(
        "/v1/certificates",
        json!({"name": "t1", "data": {"certificate": certificate, "key": key}}),
    )
    .await;
    let half = c
        .put(
            "/v1/certificates/t1",
            &json!({"data": {"certificate": pair("three").0}}),
        )
        .await;
    assert_eq!(
        half.fields(),
        ["data.key"],
        "half a pair is not ignored: {}",
        half.text
    );
}

#[tokio::test]
async fn a_new_description_is_kept_and_rolls_nothing_out() {
    let c = cloud().await;
    c.created("/v1/configs", config("c1", "one")).await;
    c.created(
        "/v1/secrets",
        json!({"name": "s1", "data": {"k": "dmFsdWU="}}),
    )
    .await;
    c.created(
        "/v1/registries",
        json!({"name": "r1", "address": "registry.example", "username": "u", "password": "p"}),
    )
    .await;
    let mut body = app("a1");
    body["volumes"] = json!([
        {"name": "conf", "config": {"name": "c1"}}, {"name": "keys", "secret": {"name": "s1"}},
    ]);
    body["registries"] = json!([{"name": "r1"}]);
    let before = c.created("/v1/apps", body).await["version"].clone();
    for path in ["/v1/configs/c1", "/v1/secrets/s1", "/v1/registries/r1"] {
        let mut shown = c.read(path).await;
        let version = shown["version"].clone();
        shown["description"] = json!("new words");
        let put = c.ok(Method::PUT, path, &shown).await;
        assert_ne!(put["version"], version, "{path}");
        assert_eq!(c.read(path).await["description"], "new words");
        assert_eq!(c.read("/v1/apps/a1").await["version"], before, "{path}");
    }
    let shown = c.read("/v1/apps/a1").await;
    let again = c.ok(Method::PUT, "/v1/apps/a1", &shown).await;
    assert_eq!(again["version"], before, "writing it again either");
    c.ok(Method::PUT, "/v1/configs/c1", &config("c1", "two"))
        .await;
    assert_ne!(c.read("/v1/apps/a1").await["version"], before);
}
