//! The copies of identity and desire outside of sync's volume: what they are good for, and what never counts.

use std::fs;
use std::path::PathBuf;

use baetyl_kit::clock::Clock;
use baetyl_kit::grpc::details;
use baetyl_proto::link::Welcome;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::sync::link_state::Phase;
use baetyl_proto::sync::{
    ExportIdentityRequest, GetIdentityRequest, GetLinkStateRequest, InstallIdentityRequest,
};
use baetyl_proto::{mirror, reasons, sign};
use baetyl_testkit::{Capture, ClosedPort, eventually};
use ring::signature::Ed25519KeyPair;
use tonic::Code;

use super::harness::{World, desire, signed};
use crate::Config;

/// A world whose sync looks for copies in a directory that is empty. No identity is installed.
async fn mirrored() -> World {
    let mut world = World::without_sync(Config::default(), Clock::system()).await;
    world.config.identity.mirror = Some(world.dir.join("mirror"));
    fs::create_dir(world.dir.join("mirror")).unwrap();
    world.start_sync().await;
    world
}

fn put_identity(world: &World, identity: &InstallIdentityRequest) {
    let content = mirror::write_identity(identity);
    world
        .dir
        .write(format!("mirror/{}", mirror::IDENTITY), content);
}

fn put_desire(world: &World, signed: &SignedDesire) {
    let content = mirror::write_desire(signed);
    world
        .dir
        .write(format!("mirror/{}", mirror::DESIRE), content);
}

/// What engine would write into the Secret.
async fn export(world: &World) -> Option<InstallIdentityRequest> {
    let answer = world
        .as_role("engine")
        .export_identity(ExportIdentityRequest {})
        .await;
    answer.unwrap().into_inner().identity
}

async fn fingerprint(world: &World) -> String {
    let answer = world
        .as_role("engine")
        .get_identity(GetIdentityRequest {})
        .await;
    answer.unwrap().into_inner().certificate_fingerprint
}

fn latch(world: &World) -> (bool, String) {
    let snapshot = world.sync_kit().readiness().snapshot();
    let latch = &snapshot.latches["identity"];
    (latch.ready, latch.reason.clone())
}

/// An identity of this node whose cloud cannot be reached.
fn away(world: &World, port: &ClosedPort) -> InstallIdentityRequest {
    InstallIdentityRequest {
        link_addresses: vec![format!("https://{}", port.addr())],
        ..world.identity_as(&World::leaf())
    }
}

fn offered(world: &World) -> Vec<SignedDesire> {
    world.node.offered.lock().unwrap().clone()
}

#[tokio::test]
async fn with_an_emptied_volume_the_link_comes_up_with_the_copy_and_nobody_activates() {
    let mut world = mirrored().await;
    assert_eq!(export(&world).await, None);
    let before = world.online().await.fingerprint;
    put_identity(&world, &export(&world).await.unwrap());
    world.stop_sync().await;
    fs::remove_dir_all(world.dir.join("sync")).unwrap();
    world.start_sync().await;
    assert!(latch(&world).0);
    let stream = world.stream().await;
    assert_eq!(stream.fingerprint, before);
    stream.welcome(Welcome::default()).await;
    world.until_phase(Phase::Online).await;
    // From now on it remembers by itself.
    fs::remove_dir_all(world.dir.join("mirror")).unwrap();
    world.stop_sync().await;
    world.start_sync().await;
    assert_eq!(world.stream().await.fingerprint, before);
}

#[tokio::test]
async fn what_is_exported_is_what_was_installed_and_only_engine_and_init_get_it() {
    let world = mirrored().await;
    let identity = world.install().await;
    assert_eq!(export(&world).await, Some(identity));
    for role in ["node", "sync", "proxy", "admin"] {
        let answer = world
            .as_role(role)
            .export_identity(ExportIdentityRequest {})
            .await;
        assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied, "{role}");
    }
}

#[tokio::test]
async fn an_identity_that_is_installed_wins_over_the_copy() {
    let mut world = mirrored().await;
    drop(world.online().await);
    let installed = fingerprint(&world).await;
    put_identity(&world, &world.identity_as(&World::leaf()));
    world.stop_sync().await;
    world.start_sync().await;
    assert_eq!(world.stream().await.fingerprint, installed);
    assert_eq!(fingerprint(&world).await, installed);
}

#[tokio::test]
async fn a_copy_of_no_use_is_told_and_one_that_is_mended_is_taken_without_a_restart() {
    let mut world = mirrored().await;
    let good = world.identity_as(&World::leaf());
    let stranger = InstallIdentityRequest {
        private_key: world.identity_as(&World::leaf()).private_key,
        ..good.clone()
    };
    let cases = [
        (b"{\"format\":1".to_vec(), "damaged"),
        (b"{\"format\":9,\"minReader\":9}".to_vec(), "later release"),
        (mirror::write_identity(&stranger), "not for the private key"),
    ];
    for (content, reason) in cases {
        world.stop_sync().await;
        world
            .dir
            .write(format!("mirror/{}", mirror::IDENTITY), content);
        world.start_sync().await;
        let (ready, told) = latch(&world);
        assert!(!ready && told.contains(reason), "{told}");
        assert!(told.starts_with("waiting for identity: "), "{told}");
        world.until_phase(Phase::WaitingForIdentity).await;
    }
    put_identity(&world, &good);
    world.stream().await;
    eventually!(latch(&world).0);
}

#[tokio::test]
async fn a_copy_that_cannot_be_read_as_a_file_does_no_harm_and_init_can_still_install_an_identity()
{
    let mut world = mirrored().await;
    world.stop_sync().await;
    let path: PathBuf = world.dir.join("mirror").join(mirror::IDENTITY);
    fs::create_dir(path).unwrap();
    world.start_sync().await;
    assert!(
        latch(&world).1.contains("cannot be read"),
        "{}",
        latch(&world).1
    );
    world.online().await;
}

#[tokio::test]
async fn an_identity_whose_key_is_lost_is_replaced_by_its_copy_and_the_loss_is_told() {
    let mut world = mirrored().await;
    let before = world.online().await.fingerprint;
    put_identity(&world, &export(&world).await.unwrap());
    world.stop_sync().await;
    fs::write(world.dir.join("sync/seal.key"), b"not a key").unwrap();
    world.start_sync().await;
    assert!(latch(&world).0);
    assert_eq!(world.stream().await.fingerprint, before);
}

#[tokio::test]
async fn without_cloud_and_desire_node_gets_the_copy_of_the_last_one_with_the_emptied_volumes() {
    let mut world = mirrored().await;
    world.stop_sync().await;
    let nobody = ClosedPort::take();
    put_identity(&world, &away(&world, &nobody));
    put_desire(&world, &signed(7, "kept"));
    world.start_sync().await;
    eventually!(*world.node.held.borrow() == Some(signed(7, "kept")));
    // Node loses its volume later: the same again.
    world.node.held.send_replace(None);
    eventually!(*world.node.held.borrow() == Some(signed(7, "kept")));
    assert_eq!(offered(&world).len(), 2);
}

#[tokio::test]
async fn a_copy_is_not_offered_to_a_node_that_holds_a_desire() {
    let mut world = mirrored().await;
    let nobody = ClosedPort::take();
    world.node.held.send_replace(Some(signed(3, "held")));
    put_desire(&world, &signed(7, "kept"));
    world.install_as(&away(&world, &nobody)).await;
    eventually!(
        world
            .as_role("engine")
            .get_link_state(GetLinkStateRequest {})
            .await
            .is_ok_and(|answer| !answer.into_inner().state.unwrap().message.is_empty())
    );
    // Only now it holds none: the one offer there is comes after that.
    assert_eq!(offered(&world), []);
    world.node.held.send_replace(None);
    eventually!(offered(&world) == [signed(7, "kept")]);
    world.stop_sync().await;
}

#[tokio::test]
async fn a_cloud_that_is_there_gives_the_desire_itself() {
    let mut world = mirrored().await;
    put_desire(&world, &signed(3, "old"));
    let stream = world.online().await;
    stream.say(Down::Desire(signed(5, "new"))).await;
    eventually!(*world.node.held.borrow() == Some(signed(5, "new")));
    assert_eq!(offered(&world), [signed(5, "new")]);
}

#[tokio::test]
async fn a_copy_that_node_refuses_as_stale_is_not_offered_again_and_a_newer_one_is() {
    let mut world = mirrored().await;
    world.stop_sync().await;
    let stale = details::refused(Code::FailedPrecondition, reasons::STALE, "STALE: old");
    *world.node.refuse.lock().unwrap() = Some(stale);
    let nobody = ClosedPort::take();
    put_identity(&world, &away(&world, &nobody));
    put_desire(&world, &signed(3, "old"));
    let events = Capture::start();
    world.start_sync().await;
    eventually!(events.events().iter().any(|event| {
        event
            .field("message")
            .contains("copy of the last desire is refused")
    }));
    *world.node.refuse.lock().unwrap() = None;
    // Everything that makes sync look again: node comes back, and says once more that it holds nothing.
    world.stop_node().await;
    world.start_node().await;
    put_desire(&world, &signed(4, "newer"));
    world.node.held.send_replace(None);
    eventually!(*world.node.held.borrow() == Some(signed(4, "newer")));
    assert_eq!(offered(&world), [signed(3, "old"), signed(4, "newer")]);
}

#[tokio::test]
async fn a_copy_by_another_key_or_that_is_no_desire_never_reaches_node() {
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let forged = mirror::write_desire(&sign::sign_desire(&stranger, desire(9, "forged")));
    for (content, told) in [
        (forged, "copy of the last desire is refused"),
        (vec![0xff; 40], "no desire can be restored"),
    ] {
        let mut world = mirrored().await;
        world.stop_sync().await;
        let nobody = ClosedPort::take();
        put_identity(&world, &away(&world, &nobody));
        world
            .dir
            .write(format!("mirror/{}", mirror::DESIRE), content);
        let events = Capture::start();
        world.start_sync().await;
        eventually!(
            events
                .events()
                .iter()
                .any(|event| event.field("message").contains(told))
        );
        assert_eq!(offered(&world), []);
    }
}
