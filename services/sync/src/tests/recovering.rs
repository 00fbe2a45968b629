//! What is left of the state after damage, and what sync makes of it.

use std::fs;

use baetyl_proto::link::Welcome;
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::sync::link_state::Phase;
use baetyl_testkit::eventually;

use super::harness::World;

fn put_aside(world: &World, name: &str) -> usize {
    fs::read_dir(world.dir.join("sync"))
        .unwrap()
        .filter(|entry| {
            let found = entry.as_ref().unwrap().file_name();
            found
                .to_string_lossy()
                .starts_with(&format!("{name}.corrupt-"))
        })
        .count()
}

#[tokio::test]
async fn a_damaged_database_is_put_aside_and_told_and_the_node_is_back_with_its_identity() {
    for damage in ["garbage", "cut", "empty"] {
        let mut world = World::new().await;
        let before = world.online().await.fingerprint;
        world.stop_sync().await;
        let path = world.dir.join("sync/sync.redb");
        let bytes = fs::read(&path).unwrap();
        match damage {
            "garbage" => fs::write(&path, vec![0xa5; 5000]).unwrap(),
            "cut" => fs::write(&path, &bytes[..bytes.len() / 3]).unwrap(),
            _ => fs::write(&path, b"").unwrap(),
        }
        world.start_sync().await;
        let mut stream = world.stream().await;
        assert_eq!(stream.fingerprint, before, "{damage}");
        stream.welcome(Welcome::default()).await;
        match stream.next_news().await {
            Up::Event(event) => {
                assert_eq!(event.reason, "StateLost", "{damage}");
                assert!(
                    event.message.contains("sync.redb.corrupt-"),
                    "{}",
                    event.message
                );
            }
            other => panic!("{damage}: {other:?}"),
        }
        assert_eq!(put_aside(&world, "sync.redb"), 1, "{damage}");
        assert!(world.sync_kit().readiness().is_ready());
    }
}

#[tokio::test]
async fn with_its_directory_emptied_sync_waits_for_an_identity_and_takes_one() {
    let mut world = World::new().await;
    drop(world.online().await);
    world.stop_sync().await;
    fs::remove_dir_all(world.dir.join("sync")).unwrap();
    world.start_sync().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    assert!(!world.sync_kit().readiness().is_ready());
    world.online().await;
}

#[tokio::test]
async fn with_a_damaged_key_of_secrets_the_identity_is_lost_and_the_latch_says_why() {
    let mut world = World::new().await;
    drop(world.online().await);
    world.stop_sync().await;
    fs::write(world.dir.join("sync/seal.key"), b"not a key").unwrap();
    world.start_sync().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    eventually!({
        let snapshot = world.sync_kit().readiness().snapshot();
        snapshot
            .latches
            .get("identity")
            .is_some_and(|latch| latch.reason.contains("key file"))
    });
    assert_eq!(
        (put_aside(&world, "seal.key"), put_aside(&world, "sealed")),
        (1, 1)
    );
    world.online().await;
}

#[tokio::test]
async fn a_database_put_back_to_an_older_copy_does_no_harm() {
    let mut world = World::new().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    world.stop_sync().await;
    let path = world.dir.join("sync/sync.redb");
    let older = fs::read(&path).unwrap();
    world.start_sync().await;
    drop(world.online().await);
    world.stop_sync().await;
    fs::write(&path, older).unwrap();
    world.start_sync().await;
    let stream = world.stream().await;
    stream.welcome(Welcome::default()).await;
    world.until_phase(Phase::Online).await;
}
