//! Staging over the link: one batch, one flight, resume, and what goes wrong.

use std::fs;
use std::sync::Arc;

use baetyl_model::Digest;
use baetyl_proto::digest;
use baetyl_proto::resource::{ObjectRef, ResourceKind, ResourceRef};
use baetyl_proto::sync::open_object_response::Content;
use baetyl_proto::sync::{
    OpenObjectRequest, ReadResourceRequest, SetPinsRequest, StageRequest, StageResponse,
};
use baetyl_testkit::eventually;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use super::harness::World;
use crate::Config;

fn body_ref(kind: ResourceKind, body: &[u8]) -> ResourceRef {
    ResourceRef {
        kind: kind.into(),
        name: "name".to_owned(),
        version: "1".to_owned(),
        digest: digest::of(body).to_string(),
        size: body.len() as u64,
    }
}

fn config_ref(body: &[u8]) -> ResourceRef {
    body_ref(ResourceKind::Configuration, body)
}

pub(super) fn object_ref(object: &[u8], url: &str) -> ObjectRef {
    ObjectRef {
        digest: digest::of(object).to_string(),
        size: object.len() as u64,
        url: url.to_owned(),
        configuration: "config".to_owned(),
        configuration_version: "1".to_owned(),
        file_name: "file".to_owned(),
        unpack: String::new(),
    }
}

/// Stages and gives the last progress, or why not.
pub(super) async fn stage(
    world: &World,
    resources: &[ResourceRef],
    objects: &[ObjectRef],
) -> Result<StageResponse, Status> {
    let request = StageRequest {
        resources: resources.to_vec(),
        objects: objects.to_vec(),
    };
    let mut stream = world.as_role("engine").stage(request).await?.into_inner();
    let mut last = None;
    while let Some(progress) = stream.message().await? {
        last = Some(progress);
    }
    Ok(last.expect("at least one progress"))
}

pub(super) async fn read(world: &World, digest: &Digest) -> Result<Vec<u8>, Status> {
    let request = ReadResourceRequest {
        digest: digest.to_string(),
    };
    let answer = world.as_role("engine").read_resource(request).await?;
    Ok(answer.into_inner().body.to_vec())
}

/// The bytes of an object as a stream gives them.
pub(super) async fn open(world: &World, digest: &Digest) -> Result<Vec<u8>, Status> {
    let request = OpenObjectRequest {
        digest: digest.to_string(),
        want_path: false,
    };
    let mut stream = world
        .as_role("engine")
        .open_object(request)
        .await?
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        match message.content {
            Some(Content::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
            other => panic!("{other:?}"),
        }
    }
    Ok(bytes)
}

/// An object of some length that does not repeat itself.
pub(super) fn object(seed: u8) -> Vec<u8> {
    (0..400_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}

#[tokio::test]
async fn all_missing_bodies_come_in_one_fetch_and_none_is_fetched_twice() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bodies: Vec<Vec<u8>> = (0..5)
        .map(|n| format!("{{\"n\":{n}}}").into_bytes())
        .collect();
    let refs: Vec<_> = bodies.iter().map(|body| config_ref(body)).collect();
    for body in &bodies {
        world.cloud.put_body(body);
    }
    let progress = stage(&world, &refs[..2], &[]).await.unwrap();
    assert_eq!((progress.items_done, progress.items_total), (2, 2));
    let progress = stage(&world, &refs, &[]).await.unwrap();
    assert_eq!((progress.items_done, progress.items_total), (5, 5));
    assert_eq!(progress.bytes_done, 3 * bodies[0].len() as u64);
    let fetches: Vec<usize> = world.cloud.script().fetches.iter().map(Vec::len).collect();
    assert_eq!(fetches, [2, 3]);
    for body in &bodies {
        assert_eq!(read(&world, &digest::of(body)).await.unwrap(), *body);
    }
    // Also offline, and after a restart.
    world.stop_sync().await;
    world.start_sync().await;
    stage(&world, &refs, &[]).await.unwrap();
    assert_eq!(world.cloud.script().fetches.len(), 2);
}

#[tokio::test]
async fn a_secret_is_read_back_and_never_on_the_disk_in_plaintext() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let body = b"{\"data\":\"hunter2hunter2\"}";
    world.cloud.put_body(body);
    let secret = body_ref(ResourceKind::Secret, body);
    stage(&world, &[secret], &[]).await.unwrap();
    assert_eq!(read(&world, &digest::of(body)).await.unwrap(), body);
    let hex = digest::of(body).hex();
    let sealed = world.dir.join(format!("sync/sealed/{}/{hex}", &hex[..2]));
    let bytes = fs::read(sealed).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    let plain = world
        .dir
        .join(format!("sync/resources/{}/{hex}", &hex[..2]));
    assert!(!plain.exists());
}

#[tokio::test]
async fn what_the_cloud_does_not_give_has_the_code_of_the_contract_and_stores_nothing() {
    let mut world = World::new().await;
    let code = |answer: Result<StageResponse, Status>| answer.unwrap_err().code();
    let body = b"{\"a\":1}";
    let wanted = [config_ref(body)];
    assert_eq!(code(stage(&world, &wanted, &[]).await), Code::Unavailable);
    let _stream = world.online().await;
    assert_eq!(code(stage(&world, &wanted, &[]).await), Code::NotFound);
    world.cloud.script().refuse_fetch = Some(Status::permission_denied("not yours"));
    assert_eq!(
        code(stage(&world, &wanted, &[]).await),
        Code::PermissionDenied
    );
    world.cloud.script().refuse_fetch = None;
    // Under the right digest the wrong bytes: shorter, other, longer.
    for wrong in [b"{\"a\"}".as_slice(), b"{\"a\":2}", b"{\"a\":1} and more"] {
        world
            .cloud
            .script()
            .bodies
            .insert(digest::of(body), wrong.to_vec());
        assert_eq!(code(stage(&world, &wanted, &[]).await), Code::DataLoss);
        assert_eq!(
            read(&world, &digest::of(body)).await.unwrap_err().code(),
            Code::NotFound
        );
    }
    world.cloud.put_body(body);
    stage(&world, &wanted, &[]).await.unwrap();
}

#[tokio::test]
async fn one_wrong_body_does_not_cost_the_others() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let (good, bad) = (b"{\"good\":true}", b"{\"bad\":true}");
    world.cloud.put_body(good);
    world
        .cloud
        .script()
        .bodies
        .insert(digest::of(bad), b"{\"worse\":1}".to_vec());
    let refused = stage(&world, &[config_ref(bad), config_ref(good)], &[]).await;
    assert_eq!(refused.unwrap_err().code(), Code::DataLoss);
    assert_eq!(read(&world, &digest::of(good)).await.unwrap(), good);
}

#[tokio::test]
async fn a_malformed_reference_is_refused_by_name() {
    let world = World::new().await;
    let faulty = ResourceRef {
        digest: "md5:1234".to_owned(),
        ..config_ref(b"{}")
    };
    let refused = stage(&world, &[faulty], &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("digest"), "{refused}");
}

#[tokio::test]
async fn an_object_is_handed_out_as_bytes_and_as_a_path() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bytes = object(1);
    let digest = world.cloud.put_object(&bytes);
    assert_eq!(
        open(&world, &digest).await.unwrap_err().code(),
        Code::NotFound
    );
    let progress = stage(&world, &[], &[object_ref(&bytes, "")]).await.unwrap();
    assert_eq!(progress.bytes_done, bytes.len() as u64);
    assert_eq!(open(&world, &digest).await.unwrap(), bytes);
    let request = OpenObjectRequest {
        digest: digest.to_string(),
        want_path: true,
    };
    let mut stream = world
        .as_role("engine")
        .open_object(request)
        .await
        .unwrap()
        .into_inner();
    let Some(Content::Path(path)) = stream.message().await.unwrap().unwrap().content else {
        panic!("no path");
    };
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn an_object_that_breaks_off_goes_on_from_where_it_was_also_after_a_restart() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bytes = object(2);
    let digest = world.cloud.put_object(&bytes);
    world.cloud.script().cut_object = Some(300_000);
    stage(&world, &[], &[object_ref(&bytes, "")]).await.unwrap();
    assert_eq!(world.cloud.script().offsets, [0, 300_000]);
    assert_eq!(open(&world, &digest).await.unwrap(), bytes);

    let other = object(3);
    world.cloud.put_object(&other);
    world.stop_sync().await;
    let part = world
        .dir
        .join(format!("sync/partial/{}", digest::of(&other).hex()));
    fs::write(&part, &other[..1234]).unwrap();
    world.start_sync().await;
    let stream = world.stream().await;
    stream.welcome(baetyl_proto::link::Welcome::default()).await;
    world
        .until_phase(baetyl_proto::sync::link_state::Phase::Online)
        .await;
    stage(&world, &[], &[object_ref(&other, "")]).await.unwrap();
    assert_eq!(world.cloud.script().offsets.last(), Some(&1234));
    assert_eq!(open(&world, &digest::of(&other)).await.unwrap(), other);
}

#[tokio::test]
async fn a_part_that_rotted_is_thrown_away_and_the_object_fetched_from_the_start() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bytes = object(4);
    let digest = world.cloud.put_object(&bytes);
    let part = world.dir.join(format!("sync/partial/{}", digest.hex()));
    fs::write(&part, vec![0; 1000]).unwrap();
    stage(&world, &[], &[object_ref(&bytes, "")]).await.unwrap();
    assert_eq!(world.cloud.script().offsets, [1000, 0]);
    assert_eq!(open(&world, &digest).await.unwrap(), bytes);
    // A part longer than the whole is of no use either, and one that lacks nothing needs no fetch.
    let (long, whole) = (object(5), object(6));
    world.cloud.put_object(&long);
    let part = |bytes: &[u8]| {
        world
            .dir
            .join(format!("sync/partial/{}", digest::of(bytes).hex()))
    };
    fs::write(part(&long), vec![0; long.len() + 1]).unwrap();
    fs::write(part(&whole), &whole).unwrap();
    let refs = [object_ref(&long, ""), object_ref(&whole, "")];
    stage(&world, &[], &refs).await.unwrap();
    assert_eq!(world.cloud.script().offsets, [1000, 0, 0]);
}

#[tokio::test]
async fn an_object_that_does_not_match_is_data_loss_and_leaves_nothing() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bytes = object(7);
    let digest = world.cloud.put_object(&bytes);
    let mut wrong = bytes.clone();
    wrong[200_000] ^= 1;
    world.cloud.script().objects.insert(digest, wrong);
    let refused = stage(&world, &[], &[object_ref(&bytes, "")])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert_eq!(
        open(&world, &digest).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        fs::read_dir(world.dir.join("sync/partial"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn an_object_without_a_known_size_is_checked_by_its_digest_alone() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bytes = object(8);
    let digest = world.cloud.put_object(&bytes);
    let unknown = ObjectRef {
        size: 0,
        ..object_ref(&bytes, "")
    };
    // Longer than what the cloud has: the offset is beyond its end.
    let part = world.dir.join(format!("sync/partial/{}", digest.hex()));
    fs::write(&part, vec![0; bytes.len() + 5]).unwrap();
    stage(&world, &[], &[unknown]).await.unwrap();
    assert_eq!(open(&world, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn two_callers_wait_for_one_fetch_and_one_of_them_may_leave() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bytes = object(9);
    let digest = world.cloud.put_object(&bytes);
    let hold = Arc::new(Semaphore::new(0));
    world.cloud.script().hold_objects = Some(Arc::clone(&hold));
    let request = StageRequest {
        resources: Vec::new(),
        objects: vec![object_ref(&bytes, "")],
    };
    let mut first = world
        .as_role("engine")
        .stage(request.clone())
        .await
        .unwrap()
        .into_inner();
    first.message().await.unwrap();
    eventually!(world.cloud.script().offsets.len() == 1);
    let mut second = world
        .as_role("init")
        .stage(request)
        .await
        .unwrap()
        .into_inner();
    second.message().await.unwrap();
    drop(first);
    hold.add_permits(1);
    while second.message().await.unwrap().is_some() {}
    assert_eq!(world.cloud.script().offsets, [0]);
    assert_eq!(open(&world, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn an_object_nobody_waits_for_stops_and_can_be_asked_for_again() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let bytes = object(10);
    world.cloud.put_object(&bytes);
    let hold = Arc::new(Semaphore::new(0));
    world.cloud.script().hold_objects = Some(Arc::clone(&hold));
    let request = StageRequest {
        resources: Vec::new(),
        objects: vec![object_ref(&bytes, "")],
    };
    let mut first = world
        .as_role("engine")
        .stage(request)
        .await
        .unwrap()
        .into_inner();
    first.message().await.unwrap();
    eventually!(world.cloud.script().offsets.len() == 1);
    drop(first);
    eventually!(
        !world
            .sync_kit()
            .tasks()
            .running()
            .contains("sync/fetch-object")
    );
    world.cloud.script().hold_objects = None;
    stage(&world, &[], &[object_ref(&bytes, "")]).await.unwrap();
    assert_eq!(world.cloud.script().offsets, [0, 0]);
}

#[tokio::test]
async fn what_is_pinned_or_desired_stays_and_the_rest_goes_above_the_watermark() {
    let mut config = Config::default();
    config.store.high_watermark = baetyl_kit::config::ByteSize(0);
    config.store.low_watermark = baetyl_kit::config::ByteSize(0);
    let mut world = World::with(config, baetyl_kit::clock::Clock::system()).await;
    let bodies = [b"{\"a\":1}", b"{\"b\":2}", b"{\"c\":3}"];
    let dir = world.dir.join("sync/resources");
    // Left by an earlier run, so that nothing is held because it was staged a moment ago.
    for body in bodies {
        let hex = digest::of(body).hex();
        let path = dir.join(&hex[..2]).join(&hex);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }
    let mut desire = super::harness::desire(7, "a");
    desire.apps = vec![app(bodies[0])];
    let desire = digest::complete_desire(desire);
    let desire = baetyl_proto::sign::sign_desire(&super::harness::desire_key(), desire);
    let pins = |digests: &[&[u8]]| SetPinsRequest {
        owner: "engine".to_owned(),
        digests: digests
            .iter()
            .map(|body| digest::of(body).to_string())
            .collect(),
    };
    let present = || {
        bodies.map(|body| {
            let hex = digest::of(body).hex();
            dir.join(&hex[..2]).join(&hex).exists()
        })
    };
    let mut engine = world.as_role("engine");
    engine.set_pins(pins(&[bodies[1]])).await.unwrap();
    world.node.held.send_replace(Some(desire));
    eventually!(present() == [true, true, false]);
    engine.set_pins(pins(&[])).await.unwrap();
    eventually!(present() == [true, false, false]);
    let _stream = world.online().await;
}

fn app(body: &[u8]) -> baetyl_model::DesiredApp {
    baetyl_model::DesiredApp {
        app: baetyl_model::AppRef {
            name: "app".try_into().unwrap(),
            version: "1".try_into().unwrap(),
            digest: digest::of(body),
            size: body.len() as u64,
        },
        resources: Vec::new(),
        objects: Vec::new(),
        system: false,
    }
}

#[tokio::test]
async fn faulty_pins_are_refused() {
    let world = World::new().await;
    for (owner, pinned) in [("", "sha256:"), ("engine", "nonsense")] {
        let request = SetPinsRequest {
            owner: owner.to_owned(),
            digests: vec![pinned.to_owned()],
        };
        let refused = world.as_role("engine").set_pins(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}
