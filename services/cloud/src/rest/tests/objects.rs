//! Uploaded files and the configurations pinned to them.

use super::*;

fn pinned(name: &str, object: &str) -> Value {
    json!({"name": name, "data": [{"key": "app.zip", "value": {"type": "object", "source": "baetyl", "object": object, "unpack": "zip"}}]})
}

async fn upload(c: &TestCloud, name: &str, text: &'static str) -> Value {
    let answer = c
        .call_with(Method::PUT, &format!("/v1/objects/{name}"), &[], text)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.body
}

#[tokio::test]
async fn an_upload_is_answered_with_its_digests_and_size() {
    let c = cloud().await;
    let answer = upload(&c, "hello", "hello").await;
    assert_eq!(
        answer["sha256"],
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(
        (&answer["md5"], &answer["size"]),
        (&json!("5d41402abc4b2a76b9719d911017c592"), &json!(5))
    );
    assert_eq!(c.read("/v1/objects/hello").await, answer);
    assert_eq!(c.read("/v1/objects").await["items"][0], answer);
    assert_eq!(c.revision().await, 0, "an upload alone changes no node");
}

#[tokio::test]
async fn an_upload_larger_than_any_json_body_streams_through() {
    let c = cloud().await;
    let chunk = bytes::Bytes::from(vec![7u8; 1024 * 1024]);
    let chunks: Vec<Result<_, std::io::Error>> = (0..9).map(|_| Ok(chunk.clone())).collect();
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let answer = c
        .call_with(Method::PUT, "/v1/objects/large", &[], body)
        .await;
    assert_eq!(answer.body["size"], 9 * 1024 * 1024, "{}", answer.text);
}

#[tokio::test]
async fn an_upload_that_is_not_what_was_announced_is_refused() {
    let c = cloud().await;
    let headers = [(
        "x-content-sha256",
        "00000000000000000000000000000000000000000000000000000000000000ff",
    )];
    let answer = c
        .call_with(Method::PUT, "/v1/objects/hello", &headers, "hello")
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    assert_eq!(
        c.get("/v1/objects/hello").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_configuration_is_pinned_to_the_bytes_of_the_moment_it_is_written() {
    let c = cloud().await;
    let first = upload(&c, "app", "one").await;
    let config = c.created("/v1/configs", pinned("c1", "app")).await;
    let value = &config["data"][0]["value"];
    assert_eq!(
        (&value["sha256"], &value["object"], &value["source"]),
        (&first["sha256"], &json!("app"), &json!("baetyl"))
    );

    let second = upload(&c, "app", "two").await;
    assert_eq!(
        c.read("/v1/configs/c1").await,
        config,
        "a new upload changes nothing by itself"
    );
    let back = c.ok(Method::PUT, "/v1/configs/c1", &config).await;
    assert_eq!(
        back["version"], config["version"],
        "what was read is written back as it was"
    );
    let newer = c
        .ok(Method::PUT, "/v1/configs/c1", &pinned("c1", "app"))
        .await;
    assert_eq!(newer["data"][0]["value"]["sha256"], second["sha256"]);
    let stale = c.put("/v1/configs/c1", &config).await;
    assert_eq!(
        stale.fields(),
        ["data[0].value.sha256"],
        "its bytes are gone: {}",
        stale.text
    );
}

#[tokio::test]
async fn what_nodes_fetch_is_in_the_rows_of_their_desire() {
    let c = cloud().await;
    upload(&c, "app", "one").await;
    c.created("/v1/configs", pinned("c1", "app")).await;
    let mut body = app("a1");
    body["volumes"] = json!([{"name": "c-vol", "config": {"name": "c1"}}]);
    c.created("/v1/apps", body).await;
    let snapshot = c.store.snapshot(&c.namespace).await.unwrap();
    let (config, _, object) = &snapshot.apps[0].objects[0];
    assert_eq!(
        (config.as_str(), object.file_name.as_str(), object.size),
        ("c1", "app.zip", 3)
    );
    assert_eq!((object.url.as_str(), object.unpack.as_str()), ("", "zip"));
}

#[tokio::test]
async fn an_object_in_use_is_not_deleted_and_its_bytes_stay_while_anybody_is_pinned() {
    let c = cloud().await;
    upload(&c, "app", "one").await;
    let config = c.created("/v1/configs", pinned("c1", "app")).await;
    let digest = config["data"][0]["value"]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = c
        .dir
        .path()
        .join("objects")
        .join(&digest[..2])
        .join(&digest);
    let refused = c.delete("/v1/objects/app").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (403, "ErrResourceHasBeenUsed"),
        "{}",
        refused.text
    );
    upload(&c, "app", "two").await;
    assert!(file.exists(), "c1 is pinned to it");
    c.delete("/v1/configs/c1").await;
    assert!(!file.exists());
    assert_eq!(c.delete("/v1/objects/app").await.status, StatusCode::OK);
    assert_eq!(c.delete("/v1/objects/app").await.status, StatusCode::OK);
}

#[tokio::test]
async fn items_that_cannot_be_fetched_safely_are_refused_all_at_once() {
    let c = cloud().await;
    let body = json!({"name": "c1", "data": [
        {"key": "a", "value": {"type": "object", "source": "http", "url": "http://x/y"}},
        {"key": "b", "value": {"type": "object", "source": "http", "sha256": "00"}},
        {"key": "c", "value": {"type": "object", "source": "minio", "ak": "A", "sk": "S"}},
        {"key": "d", "value": {"type": "object", "source": "baetyl"}},
        {"key": "e", "value": {"type": "function", "function": "f", "version": "1", "runtime": "r", "handler": "h", "bucket": "b", "object": "o"}},
        {"key": "f", "value": {"type": "object", "source": "http", "url": "http://x/y", "sha256": "ab".repeat(32), "token": "t"}},
        {"key": "g"},
    ]});
    let answer = c.post("/v1/configs", &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    for field in [
        "data[0].value.sha256",
        "data[1].value.url",
        "data[1].value.sha256",
        "data[2].value.source",
        "data[2].value.ak",
        "data[3].value.object",
        "data[4].value.type",
        "data[5].value.token",
        "data[6].value.type",
    ] {
        assert!(
            answer.fields().contains(&field),
            "{field} in {:?}",
            answer.fields()
        );
    }
    let missing = c.post("/v1/configs", &pinned("c1", "nosuch")).await;
    assert_eq!(
        (missing.status.as_u16(), missing.message()),
        (404, "The (object) resource (nosuch) is not found.")
    );
    assert_eq!(c.revision().await, 0);
}

#[tokio::test]
async fn a_download_from_elsewhere_is_kept_as_given() {
    let c = cloud().await;
    let value = json!({"type": "object", "source": "http", "url": "https://x/y.tgz", "sha256": "ab".repeat(32), "size": "12", "unpack": "tgz"});
    let made = c
        .created(
            "/v1/configs",
            json!({"name": "c1", "data": [{"key": "y.tgz", "value": value}]}),
        )
        .await;
    assert_eq!(made["data"][0]["value"], value);
    let list = c.read("/v1/configs").await;
    assert!(
        list["items"][0].get("data").is_none(),
        "lists carry no data: {list}"
    );
}
