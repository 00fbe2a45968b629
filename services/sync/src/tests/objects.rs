//! The border for init containers of Pods: what a ticket opens, and what nothing opens.

use baetyl_kit::crypto::SigningKey;
use baetyl_kit::grpc::{Client, Connect, Endpoint};
use baetyl_model::Digest;
use baetyl_model::desire::{AppRef, DesiredApp};
use baetyl_model::objects::{StagePlan, directory_name};
use baetyl_proto::sync::object_service_client::ObjectServiceClient;
use baetyl_proto::sync::{
    FetchObjectRequest, SelectNeededRequest, SetPinsRequest, TrustAppKeyRequest,
};
use baetyl_proto::{digest, sign, ticket};
use baetyl_testkit::eventually;
use tonic::{Code, Status};

use super::harness::{World, desire, desire_key};
use super::staging::{object, object_ref, stage};
use crate::hostdir::{self, Pace, StageArgs};

/// A sync that knows the key, and the key.
async fn trusted(world: &World) -> SigningKey {
    let key = SigningKey::generate().unwrap();
    let request = TrustAppKeyRequest {
        public_key: key.public_key().to_vec().into(),
    };
    world
        .as_role("engine")
        .trust_app_key(request)
        .await
        .unwrap();
    key
}

fn ticket_for(key: &SigningKey, digests: Vec<Digest>) -> String {
    let claims = ticket::Claims {
        app: "shop".to_owned(),
        digests,
        iat: 0,
    };
    ticket::issue(&claims, |bytes| key.sign(bytes)).unwrap()
}

fn with_ticket(world: &World, ticket: &str) -> ObjectServiceClient<Client> {
    let endpoint = Endpoint::unix(world.kit.app_socket("sync"));
    ObjectServiceClient::new(Connect::new(endpoint).bearer(ticket).lazy().unwrap())
}

async fn fetch(
    client: &ObjectServiceClient<Client>,
    digest: &Digest,
    offset: u64,
) -> Result<Vec<u8>, Status> {
    let request = FetchObjectRequest {
        digest: digest.to_string(),
        offset,
    };
    let mut stream = client.clone().fetch_object(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_ticket_opens_the_staged_objects_it_names_from_any_offset_and_nothing_else() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let (mine, other) = (object(1), object(2));
    for bytes in [&mine, &other] {
        world.cloud.put_object(bytes);
        stage(&world, &[], &[object_ref(bytes, "")]).await.unwrap();
    }
    let key = trusted(&world).await;
    let (named, missing) = (digest::of(&mine), digest::of(b"not staged"));
    let mut digests: Vec<Digest> = (2..ticket::MAX_DIGESTS)
        .map(|n| digest::of(&n.to_be_bytes()))
        .collect();
    digests.extend([named, missing]);
    let pod = with_ticket(&world, &ticket_for(&key, digests));
    assert_eq!(fetch(&pod, &named, 0).await.unwrap(), mine);
    assert_eq!(fetch(&pod, &named, 399_000).await.unwrap(), mine[399_000..]);
    let all = mine.len() as u64;
    assert_eq!(fetch(&pod, &named, all).await.unwrap(), b"");
    let code =
        async |digest: &Digest, offset: u64| fetch(&pod, digest, offset).await.unwrap_err().code();
    assert_eq!(code(&named, all + 1).await, Code::OutOfRange);
    assert_eq!(code(&missing, 0).await, Code::NotFound);
    assert_eq!(code(&digest::of(&other), 0).await, Code::PermissionDenied);
    let malformed = FetchObjectRequest {
        digest: "sha1:00".to_owned(),
        offset: 0,
    };
    let refused = pod.clone().fetch_object(malformed).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_a_valid_ticket_nothing_opens_and_the_key_is_engines_to_tell() {
    let mut world = World::new().await;
    let own = SigningKey::generate().unwrap();
    let ticket = ticket_for(&own, vec![digest::of(b"x")]);
    let code = async |world: &World, ticket: &str| {
        let pod = with_ticket(world, ticket);
        fetch(&pod, &digest::of(b"x"), 0).await.unwrap_err().code()
    };
    assert_eq!(code(&world, &ticket).await, Code::Unavailable);
    let key = trusted(&world).await;
    assert_eq!(code(&world, &ticket).await, Code::Unauthenticated);
    let ticket = ticket_for(&key, vec![digest::of(b"x")]);
    assert_eq!(code(&world, &ticket).await, Code::NotFound);
    let short = TrustAppKeyRequest {
        public_key: vec![1; 31].into(),
    };
    let refused = world.as_role("engine").trust_app_key(short.clone()).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let refused = world.as_role("init").trust_app_key(short).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    // In memory only.
    world.stop_sync().await;
    world.start_sync().await;
    assert_eq!(code(&world, &ticket).await, Code::Unavailable);
}

#[tokio::test]
async fn what_is_needed_is_told_only_when_it_is_known() {
    let world = World::new().await;
    let key = trusted(&world).await;
    let mut pod = with_ticket(&world, &ticket_for(&key, Vec::new()));
    let (pinned, desired, unheard) = (digest::of(b"p"), digest::of(b"d"), digest::of(b"u"));
    let request = SelectNeededRequest {
        digests: [pinned, desired, unheard].map(|d| d.to_string()).to_vec(),
    };
    let early = pod.select_needed(request.clone()).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    let pins = SetPinsRequest {
        owner: "engine".to_owned(),
        digests: vec![pinned.to_string()],
    };
    world.as_role("engine").set_pins(pins).await.unwrap();
    let mut wanted = desire(1, "x");
    wanted.apps = vec![DesiredApp {
        app: AppRef {
            name: "shop".try_into().unwrap(),
            version: "1".try_into().unwrap(),
            digest: desired,
            size: 1,
        },
        resources: Vec::new(),
        objects: Vec::new(),
        system: false,
    }];
    let wanted = sign::sign_desire(&desire_key(), digest::complete_desire(wanted));
    world.node.held.send_replace(Some(wanted));
    eventually!(pod.clone().select_needed(request.clone()).await.is_ok());
    let answer = pod.select_needed(request).await.unwrap().into_inner();
    assert_eq!(answer.needed, [pinned, desired].map(|d| d.to_string()));
    let many = SelectNeededRequest {
        digests: vec![pinned.to_string(); 10_001],
    };
    let refused = pod.select_needed(many).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_init_container_of_a_pod_gets_its_objects_from_sync() {
    let mut world = World::new().await;
    let _stream = world.online().await;
    let model = object(3);
    world.cloud.put_object(&model);
    let reference = object_ref(&model, "");
    stage(&world, &[], std::slice::from_ref(&reference))
        .await
        .unwrap();
    let key = trusted(&world).await;
    let reference = reference.try_into().unwrap();
    let plan = StagePlan::of([&reference], 1 << 20);
    let configuration = digest::of(b"configuration");
    let dir = world
        .dir
        .join("objects")
        .join(directory_name(&configuration));
    let args = StageArgs {
        dir: dir.clone(),
        items: None,
        plan: world.dir.write("plan.json", plan.to_json().unwrap()),
        server: Endpoint::unix(world.kit.app_socket("sync")),
        ca: None,
        ticket: world
            .dir
            .write("ticket", ticket_for(&key, vec![digest::of(&model)])),
        log_level: "info".to_owned(),
        log_format: Default::default(),
    };
    hostdir::stage(&args, Pace::default()).await.unwrap();
    assert_eq!(std::fs::read(dir.join("file")).unwrap(), model);
}
