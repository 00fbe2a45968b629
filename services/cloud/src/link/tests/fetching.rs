//! What a node may fetch.

use baetyl_model::Digest;
use baetyl_proto::digest;
use baetyl_proto::link::{FetchObjectRequest, FetchResourcesRequest, TunnelRequest};
use baetyl_testkit::eventually;
use tonic::Code;

use super::*;
use crate::store::ConfigObject;

impl Cloud {
    /// Bodies by digest, as they came.
    async fn fetch(
        &self,
        node: &Node,
        digests: &[Digest],
    ) -> Result<Vec<(String, Vec<u8>)>, Status> {
        let digests = digests.iter().map(ToString::to_string).collect();
        let mut answers = self
            .client(node)
            .fetch_resources(request(FetchResourcesRequest { digests }))
            .await?
            .into_inner();
        let mut bodies = Vec::new();
        let mut body = Vec::new();
        while let Some(part) = answers.message().await? {
            body.extend_from_slice(&part.chunk);
            if part.last {
                bodies.push((part.digest, std::mem::take(&mut body)));
            }
        }
        assert!(body.is_empty(), "the last body is complete");
        Ok(bodies)
    }

    async fn fetch_object(
        &self,
        node: &Node,
        digest: Digest,
        offset: u64,
    ) -> Result<(u64, Vec<u8>), Status> {
        let message = FetchObjectRequest {
            digest: digest.to_string(),
            offset,
        };
        let mut answers = self
            .client(node)
            .fetch_object(request(message))
            .await?
            .into_inner();
        let (mut total, mut bytes) = (None, Vec::new());
        while let Some(part) = answers.message().await? {
            total.get_or_insert(part.total_size);
            bytes.extend_from_slice(&part.chunk);
        }
        Ok((total.unwrap(), bytes))
    }

    async fn set_local(&self, name: &str) {
        let (store, namespace) = (&self.fixture.store, &self.fixture.namespace);
        let mut tx = store
            .begin(namespace, by(&self.fixture.clock))
            .await
            .unwrap();
        let mut row = tx.node(name).await.unwrap().unwrap();
        row.spec.sync_mode = "local".to_owned();
        tx.put_node(&mut row, crate::store::Verb::Update)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    /// A configuration that names this object, and an application for edge-1 that uses it.
    async fn put_object(&self, bytes: &[u8], stored: bool) -> Digest {
        if stored {
            self.write_object(bytes);
        }
        self.name_object(bytes, "").await
    }

    /// Bytes in the object directory, which is of all tenants.
    fn write_object(&self, bytes: &[u8]) {
        let path = self.deps.objects.path(&digest::of(bytes));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn name_object(&self, bytes: &[u8], url: &str) -> Digest {
        let digest = digest::of(bytes);
        let mut config = resource(Kind::Configuration, "pack", "", "{}");
        config.objects = vec![ConfigObject {
            file_name: "pack.zip".to_owned(),
            digest,
            size: bytes.len() as u64,
            url: url.to_owned(),
            object: if url.is_empty() { "pack" } else { "" }.to_owned(),
            unpack: String::new(),
        }];
        let mut tx = self
            .fixture
            .store
            .begin(&self.fixture.namespace, by(&self.fixture.clock))
            .await
            .unwrap();
        tx.put_resource(config).await.unwrap();
        tx.commit().await.unwrap();
        self.put_app(
            "app-pack",
            "name=edge-1",
            "{}",
            &[(Kind::Configuration, "pack")],
        )
        .await;
        digest
    }
}

fn body(name: &str) -> (Digest, Vec<u8>) {
    let bytes = format!("body of {name}").into_bytes();
    (digest::of(&bytes), bytes)
}

#[tokio::test]
async fn a_node_fetches_what_its_desire_references_and_secrets_come_decrypted() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud
        .put_app(
            "web",
            "name=edge-1",
            "app",
            &[(Kind::Configuration, "conf"), (Kind::Secret, "keys")],
        )
        .await;
    let desire = cloud
        .read(&cloud.connect(&node, None).await.desire().await)
        .await;
    let wanted: Vec<Digest> = desire.apps[0].digests().collect();
    let bodies = cloud.fetch(&node, &wanted).await.unwrap();
    let texts: Vec<_> = bodies
        .iter()
        .map(|(_, body)| String::from_utf8_lossy(body).into_owned())
        .collect();
    assert_eq!(texts, ["app", "body of conf", "body of keys"]);
    for ((digest, body), reference) in bodies.iter().zip(desire.apps[0].references()) {
        assert_eq!(
            (digest, body.len() as u64),
            (&reference.digest.to_string(), reference.size)
        );
        assert_eq!(digest::of(body), reference.digest);
    }
}

#[tokio::test]
async fn a_node_that_asks_for_the_secret_of_another_node_is_refused_and_gets_nothing_at_all() {
    let cloud = cloud().await;
    let (node, other) = (cloud.node("edge-1").await, cloud.node("edge-2").await);
    cloud
        .put_app(
            "mine",
            "name=edge-1",
            "app",
            &[(Kind::Configuration, "conf")],
        )
        .await;
    cloud
        .put_app("theirs", "name=edge-2", "app2", &[(Kind::Secret, "keys")])
        .await;
    let (own, secret) = (body("conf").0, body("keys").0);
    assert!(cloud.fetch(&other, &[secret]).await.is_ok());
    for digests in [vec![secret], vec![own, secret]] {
        let status = cloud.fetch(&node, &digests).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains(&secret.to_string()));
    }
}

#[tokio::test]
async fn a_digest_nobody_knows_is_refused_like_that_of_another_node() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let status = cloud
        .fetch(&node, &[Digest::from_sha256([9; 32])])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let message = FetchResourcesRequest {
        digests: vec!["sha256:short".to_owned()],
    };
    let status = cloud
        .client(&node)
        .fetch_resources(request(message))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let message = FetchResourcesRequest {
        digests: vec![String::new(); 1001],
    };
    let status = cloud
        .client(&node)
        .fetch_resources(request(message))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_was_delivered_before_the_last_change_can_still_be_fetched_but_nothing_older() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    let mut digests = Vec::new();
    for text in ["1", "2", "3"] {
        cloud.app_for("edge-1", text).await;
        digests.push(cloud.read(&stream.desire().await).await.apps[0].app.digest);
    }
    assert_eq!(
        cloud
            .fetch(&node, &[digests[1], digests[2]])
            .await
            .unwrap()
            .len(),
        2
    );
    let status = cloud.fetch(&node, &[digests[0]]).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_large_body_comes_in_parts_and_an_empty_one_in_one() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let long = "x".repeat(200_000);
    cloud.put_app("aa", "name=edge-1", &long, &[]).await;
    cloud.put_app("bb", "name=edge-1", "", &[]).await;
    let bodies = cloud
        .fetch(&node, &[digest::of(long.as_bytes()), digest::of(b"")])
        .await
        .unwrap();
    let lengths: Vec<_> = bodies.iter().map(|(_, body)| body.len()).collect();
    assert_eq!(lengths, [200_000, 0]);
}

#[tokio::test]
async fn a_resource_that_was_deleted_meanwhile_is_named() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud.put_app("web", "name=edge-1", "app", &[]).await;
    let mut stream = cloud.connect(&node, None).await;
    let digest = cloud.read(&stream.desire().await).await.apps[0].app.digest;
    let mut tx = cloud
        .fixture
        .store
        .begin(&cloud.fixture.namespace, by(&cloud.fixture.clock))
        .await
        .unwrap();
    tx.delete_resource(Kind::Application, "web").await.unwrap();
    tx.commit().await.unwrap();
    stream.desire().await;
    let status = cloud.fetch(&node, &[digest]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("application web"), "{status}");
}

#[tokio::test]
async fn an_object_is_fetched_from_any_offset() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let bytes: Vec<u8> = (0..150_000u32).map(|at| (at % 251) as u8).collect();
    let digest = cloud.put_object(&bytes, true).await;
    for offset in [0, 1, 65_536, 149_999, 150_000] {
        let (total, got) = cloud.fetch_object(&node, digest, offset).await.unwrap();
        assert_eq!(total, 150_000);
        assert_eq!(got, bytes[usize::try_from(offset).unwrap()..]);
    }
    let status = cloud
        .fetch_object(&node, digest, 150_001)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn an_object_of_another_node_is_refused_and_a_missing_one_is_named() {
    let cloud = cloud().await;
    let (node, other) = (cloud.node("edge-1").await, cloud.node("edge-2").await);
    let digest = cloud.put_object(b"bytes", false).await;
    let status = cloud.fetch_object(&other, digest, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = cloud.fetch_object(&node, digest, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains(&digest.to_string()));
}

#[tokio::test]
async fn a_tunnel_is_not_part_of_this_release() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let status = cloud
        .client(&node)
        .tunnel(tokio_stream::iter([TunnelRequest::default()]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_upload_of_another_tenant_is_not_had_by_naming_its_digest_with_a_url() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud.write_object(b"theirs");
    let digest = cloud
        .name_object(b"theirs", "https://example.com/pack")
        .await;
    let status = cloud.fetch_object(&node, digest, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    // The same bytes, uploaded by the node's own tenant.
    let (store, namespace) = (&cloud.fixture.store, &cloud.fixture.namespace);
    let mut tx = store
        .begin(namespace, by(&cloud.fixture.clock))
        .await
        .unwrap();
    tx.put_object("mine", digest, "", 6).await.unwrap();
    tx.commit().await.unwrap();
    let (_, bytes) = cloud.fetch_object(&node, digest, 0).await.unwrap();
    assert_eq!(bytes, b"theirs");
}

#[tokio::test]
async fn a_node_in_mode_local_fetches_again_what_it_runs_and_nothing_of_others() {
    let cloud = cloud().await;
    let (node, _) = (cloud.node("edge-1").await, cloud.node("edge-2").await);
    cloud.app_for("edge-1", "first").await;
    let mut stream = cloud.connect(&node, None).await;
    let desire = cloud.read(&stream.desire().await).await;
    stream.ack(&desire).await;
    stream.is_quiet().await;
    drop(stream);
    cloud.set_local("edge-1").await;
    cloud.app_for("edge-1", "second").await;
    cloud.app_for("edge-2", "theirs").await;
    let of = |text: &str| digest::of(text.as_bytes());
    eventually!(cloud.report(&node).await.summary.acknowledged.is_some());
    eventually!(cloud.deps.links.is_empty(), "the stream is gone");
    for text in ["first", "second"] {
        assert!(cloud.fetch(&node, &[of(text)]).await.is_ok(), "{text}");
    }
    let status = cloud.fetch(&node, &[of("theirs")]).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}
