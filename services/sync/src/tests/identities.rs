//! Installing an identity: who may, what is refused, what survives.

use std::fs;

use baetyl_proto::sync::link_state::Phase;
use baetyl_proto::sync::{GetIdentityRequest, InstallIdentityRequest, WatchLinkStateRequest};
use baetyl_testkit::{Leaf, eventually};
use tonic::{Code, Status};

use super::harness::{UID, World};

async fn install(world: &World, identity: &InstallIdentityRequest) -> Result<bool, Status> {
    let answer = world
        .as_role("init")
        .install_identity(identity.clone())
        .await?;
    Ok(answer.into_inner().changed)
}

async fn fingerprint(world: &World) -> String {
    let answer = world
        .as_role("init")
        .get_identity(GetIdentityRequest {})
        .await;
    answer.unwrap().into_inner().certificate_fingerprint
}

#[tokio::test]
async fn without_an_identity_sync_is_alive_and_waits_for_one() {
    let world = World::new().await;
    eventually!(
        world
            .sync_kit()
            .readiness()
            .snapshot()
            .latches
            .contains_key("identity")
    );
    let latch = world.sync_kit().readiness().snapshot().latches["identity"].clone();
    assert_eq!(
        (latch.ready, latch.reason.as_str()),
        (false, "waiting for identity")
    );
    assert_eq!(
        world.until_phase(Phase::WaitingForIdentity).await.connects,
        0
    );
    let identity = world
        .as_role("init")
        .get_identity(GetIdentityRequest {})
        .await
        .unwrap();
    assert!(!identity.into_inner().installed);
}

#[tokio::test]
async fn a_link_state_that_the_watcher_has_is_not_sent_again() {
    let mut world = World::new().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    let engine = world.as_role("engine");
    let watch = async |token: &str| {
        let resume_token = token.to_owned();
        let request = WatchLinkStateRequest { resume_token };
        let answer = engine.clone().watch_link_state(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let mut first = watch("").await.unwrap();
    let known = first.message().await.unwrap().unwrap();
    let mut again = watch(&known.resume_token).await.unwrap();
    world.install().await;
    let news = again.message().await.unwrap().unwrap();
    assert_ne!(news.state.unwrap().phase(), Phase::WaitingForIdentity);
    world.stop_sync().await;
    world.start_sync().await;
    let refused = watch(&news.resume_token).await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn an_installed_identity_opens_the_latch_is_told_to_node_and_survives_a_restart() {
    let mut world = World::new().await;
    let stream = world.online().await;
    assert!(world.sync_kit().readiness().is_ready());
    eventually!(
        world
            .node
            .identities
            .lock()
            .unwrap()
            .last()
            .is_some_and(|told| told.node_uid == UID)
    );
    let before = fingerprint(&world).await;
    assert_eq!(stream.fingerprint, before);
    drop(stream);
    world.stop_sync().await;
    world.start_sync().await;
    assert_eq!(world.stream().await.fingerprint, before);
}

#[tokio::test]
async fn the_same_identity_again_changes_nothing() {
    let world = World::new().await;
    let identity = world.install().await;
    assert!(!install(&world, &identity).await.unwrap());
}

#[tokio::test]
async fn another_certificate_or_address_of_the_same_node_replaces_the_installed_one() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    let other = world.identity_as(&World::leaf());
    assert!(install(&world, &other).await.unwrap());
    stream.ended().await;
    assert_eq!(world.stream().await.fingerprint, fingerprint(&world).await);
    let moved = InstallIdentityRequest {
        link_addresses: vec!["https://127.0.0.1:1".to_owned(), world.address.clone()],
        ..other
    };
    assert!(install(&world, &moved).await.unwrap());
    world.stream().await;
}

#[tokio::test]
async fn an_identity_for_another_uid_is_refused_and_the_installed_one_stays() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let before = fingerprint(&world).await;
    let other = InstallIdentityRequest {
        node_uid: "node-uid-2".to_owned(),
        ..world.identity_as(&Leaf::new("x").uri("spiffe://baetyl.local/ns/ns/node/node-uid-2"))
    };
    let refused = install(&world, &other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert!(refused.message().contains(UID) && refused.message().contains("node-uid-2"));
    assert_eq!(fingerprint(&world).await, before);
}

#[tokio::test]
async fn a_faulty_identity_is_refused_with_every_fault_and_nothing_is_installed() {
    let world = World::new().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    let good = world.identity_as(&World::leaf());
    let stranger = world.identity_as(&World::leaf());
    let faulty = InstallIdentityRequest {
        private_key: stranger.private_key,
        desire_keys: vec![vec![1; 31].into()],
        link_addresses: vec!["http://plain:1".to_owned()],
        trusted_authorities: Vec::new(),
        node_name: "Not A Name".to_owned(),
        ..good.clone()
    };
    let refused = install(&world, &faulty).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for fault in [
        "not for the private key",
        "not 32 bytes",
        "http://plain:1",
        "authorities",
        "Not A Name",
    ] {
        assert!(refused.message().contains(fault), "{fault}: {refused}");
    }
    let elsewhere = InstallIdentityRequest {
        namespace: "other".to_owned(),
        ..good
    };
    let refused = install(&world, &elsewhere).await.unwrap_err();
    assert!(refused.message().contains("spiffe://"), "{refused}");
    assert_eq!(fingerprint(&world).await, "");
}

#[tokio::test]
async fn only_init_may_install_an_identity() {
    let world = World::new().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    let identity = world.identity_as(&World::leaf());
    for role in ["node", "sync", "engine", "proxy", "admin"] {
        let answer = world.as_role(role).install_identity(identity.clone()).await;
        assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied, "{role}");
    }
}

#[tokio::test]
async fn the_private_key_is_on_the_disk_encrypted_and_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new().await;
    let identity = world.install().await;
    let sealed = world.dir.join("sync/sealed");
    let keys: Vec<_> = fs::read_dir(&sealed)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(keys.len(), 1);
    for file in [&keys[0], &world.dir.join("sync/seal.key")] {
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let secret = &identity.private_key[identity.private_key.len() - 40..];
    for file in [
        keys[0].clone(),
        world.dir.join("sync/sync.redb"),
        world.dir.join("sync/identity.json"),
    ] {
        let bytes = fs::read(&file).unwrap();
        let shown = bytes.windows(secret.len()).any(|window| window == secret);
        assert!(!shown, "{}", file.display());
    }
}
