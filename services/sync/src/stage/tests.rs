//! Staging onto a disk that fills up or dies.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use baetyl_kit::Kit;
use baetyl_kit::clock::Clock;
use baetyl_kit::crypto::SealKey;
use baetyl_kit::tls::{self, ServerTrust};
use baetyl_model::{ConfigKey, Kind};
use baetyl_proto::digest;
use baetyl_testkit::{TestCa, TestDir};
use futures_util::TryStreamExt as _;
use tonic::Code;

use super::*;
use crate::db::{self, Db};
use crate::node::Held;
use crate::store::Shelf;
use crate::store::disk::fake::FakeDisk;
use crate::store::disk::{Disk, RealDisk};
use crate::store::gc::Watermark;
use crate::store::pins;
use crate::tests::fake::cloud::Cloud;

const LIMITS: Limits = Limits {
    reserve: 100,
    max_body: 1 << 20,
    max_object: 1 << 20,
    patience: Duration::from_secs(30),
};

struct Rig {
    stager: Arc<Stager>,
    store: Arc<Store>,
    db: Arc<Db>,
    _kit: Kit,
}

/// A stager on `disk`, whose node holds `held`, with a cloud behind it.
async fn rig(dir: &Path, disk: Arc<dyn Disk>, cloud: &Cloud, held: Held) -> Option<Rig> {
    let kit = Kit::new("sync", dir, Clock::system());
    let store = Store::open(dir, disk, SealKey::from_bytes(&[7; 32])).ok()?;
    let store = Arc::new(store);
    let db = Arc::new(db::open(&dir.join("sync.redb")).unwrap().file);
    let watermark = Watermark {
        high: u64::MAX,
        low: u64::MAX,
        min_free: 0,
    };
    let (_, held) = watch::channel(held);
    let keeper = Keeper::new(Arc::clone(&db), Arc::clone(&store), held, watermark);
    let address = cloud.serve_plain(&kit).await;
    let channel = tonic::transport::Endpoint::from_shared(address)
        .unwrap()
        .connect_lazy();
    let (_, uplink) = watch::channel(Some(channel));
    let roots = ServerTrust::Roots(TestCa::new("nobody").roots());
    let web = tls::client_config_with(&roots, None, None, &[]).unwrap();
    let stager = Stager::new(
        Arc::clone(&store),
        Arc::new(keeper),
        uplink,
        Http::new(&web, LIMITS.patience),
        Throttle::new(0),
        LIMITS,
        kit.tasks().clone(),
    );
    Some(Rig {
        stager: Arc::new(stager),
        store,
        db,
        _kit: kit,
    })
}

impl Rig {
    async fn stage(&self, wanted: &Wanted) -> Result<(), Code> {
        let staged = self.stager.stage(wanted.clone()).await;
        let stream = staged.map_err(|error| error.code())?.into_stream();
        let all: Result<Vec<_>, _> = stream.try_collect().await;
        all.map(|_| ()).map_err(|error| error.code())
    }
}

fn resource(kind: Kind, body: &[u8]) -> ResourceRef {
    ResourceRef {
        kind,
        name: "name".try_into().unwrap(),
        version: "1".try_into().unwrap(),
        digest: digest::of(body),
        size: body.len() as u64,
    }
}

fn object(bytes: &[u8]) -> ObjectRef {
    ObjectRef {
        digest: digest::of(bytes),
        size: bytes.len() as u64,
        url: None,
        configuration: "config".try_into().unwrap(),
        configuration_version: "1".try_into().unwrap(),
        file_name: ConfigKey::new("file").unwrap(),
        unpack: baetyl_model::desire::Unpack::None,
    }
}

/// What a node holds that references these bytes as an application.
fn holding(body: &[u8]) -> Held {
    use ring::signature::Ed25519KeyPair;

    let desire = digest::complete_desire(baetyl_model::Desire {
        namespace: "ns".try_into().unwrap(),
        node_name: "n1".try_into().unwrap(),
        node_uid: "uid".try_into().unwrap(),
        epoch: 0.into(),
        generation: 1.into(),
        digest: digest::of(b""),
        apps: vec![baetyl_model::DesiredApp {
            app: baetyl_model::AppRef {
                name: "app".try_into().unwrap(),
                version: "1".try_into().unwrap(),
                digest: digest::of(body),
                size: body.len() as u64,
            },
            resources: Vec::new(),
            objects: Vec::new(),
            system: false,
        }],
        node_properties: std::collections::BTreeMap::new(),
        core: None,
    });
    let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    Held::Desire(Arc::new(crate::node::HeldDesire {
        header: desire.header(),
        signed: baetyl_proto::sign::sign_desire(&key, desire),
    }))
}

#[tokio::test]
async fn a_full_disk_is_resource_exhausted_what_was_complete_stays_and_room_heals() {
    let dir = TestDir::new();
    let (cloud, _streams) = Cloud::new();
    let (small, large) = (vec![1; 100], vec![2; 50_000]);
    cloud.put_body(&small);
    cloud.put_object(&large);
    let disk = Arc::new(FakeDisk::with_room(20_000));
    let rig = rig(dir.path(), disk.clone(), &cloud, Held::Nothing)
        .await
        .unwrap();
    let wanted = Wanted {
        resources: vec![resource(Kind::Configuration, &small)],
        objects: vec![object(&large)],
    };
    assert_eq!(rig.stage(&wanted).await, Err(Code::ResourceExhausted));
    assert!(rig.store.read_body(&digest::of(&small)).unwrap().is_some());
    assert_eq!(rig.store.object(&digest::of(&large)).unwrap(), None);
    assert_eq!(cloud.script().fetches.len(), 1);
    disk.room.store(1 << 20, SeqCst);
    assert_eq!(rig.stage(&wanted).await, Ok(()));
    assert_eq!(
        cloud.script().fetches.len(),
        1,
        "what was complete is not fetched again"
    );
}

#[tokio::test]
async fn a_disk_that_fills_up_while_an_object_is_written_is_not_kept_full_by_its_part() {
    let dir = TestDir::new();
    let (cloud, _streams) = Cloud::new();
    let large = vec![2; 50_000];
    cloud.put_object(&large);
    let disk = Arc::new(FakeDisk::with_room(20_000));
    let rig = rig(dir.path(), disk.clone(), &cloud, Held::Nothing)
        .await
        .unwrap();
    disk.claims.store(1, SeqCst);
    let wanted = Wanted {
        objects: vec![object(&large)],
        ..Wanted::default()
    };
    assert_eq!(rig.stage(&wanted).await, Err(Code::ResourceExhausted));
    assert_eq!(fs::read_dir(dir.join("partial")).unwrap().count(), 0);
    assert_eq!(disk.room.load(SeqCst), 20_000);
}

#[tokio::test]
async fn a_full_disk_gives_up_what_nobody_needs_and_never_what_is_pinned_or_desired() {
    let dir = TestDir::new();
    let (cloud, _streams) = Cloud::new();
    let (desired, pinned, old) = (vec![1; 1000], vec![2; 1000], vec![3; 1000]);
    let large = vec![4; 2500];
    let disk = Arc::new(FakeDisk::with_room(5000));
    let rig = rig(dir.path(), disk, &cloud, holding(&desired))
        .await
        .unwrap();
    for body in [&desired, &pinned, &old] {
        rig.store
            .put_body(Shelf::Plain, &digest::of(body), body)
            .unwrap();
    }
    cloud.put_object(&large);
    let wanted = Wanted {
        objects: vec![object(&large)],
        ..Wanted::default()
    };
    // Before anybody has said what it needs, everything may be needed.
    assert_eq!(rig.stage(&wanted).await, Err(Code::ResourceExhausted));
    assert!(rig.store.read_body(&digest::of(&old)).unwrap().is_some());
    pins::set_pins(&rig.db, "engine", &[digest::of(&pinned)]).unwrap();
    assert_eq!(rig.stage(&wanted).await, Ok(()));
    let left: HashSet<Digest> = rig
        .store
        .entries()
        .unwrap()
        .iter()
        .map(|entry| entry.digest)
        .collect();
    assert_eq!(
        left,
        [&desired, &pinned, &large]
            .map(|bytes| digest::of(bytes))
            .into()
    );
}

/// The same steps as a staging does them, cut at each one: what is found after the restart is right or not there, and
/// staging again completes.
#[tokio::test]
async fn a_power_cut_at_any_step_of_staging_is_healed_by_staging_again() {
    let (cloud, _streams) = Cloud::new();
    let (body, secret, large) = (b"{\"a\":1}", b"{\"s\":2}", vec![5; 3000]);
    cloud.put_body(body);
    cloud.put_body(secret);
    cloud.put_object(&large);
    let wanted = Wanted {
        resources: vec![
            resource(Kind::Configuration, body),
            resource(Kind::Secret, secret),
        ],
        objects: vec![object(&large)],
    };
    let mut steps = 0;
    loop {
        steps += 1;
        let dir = TestDir::new();
        let disk = Arc::new(FakeDisk::dying_after(steps));
        let cut = rig(dir.path(), disk.clone(), &cloud, Held::Nothing).await;
        let ended = match &cut {
            Some(rig) => rig.stage(&wanted).await,
            None => Err(Code::Internal),
        };
        drop(cut);
        let after = rig(dir.path(), Arc::new(RealDisk), &cloud, Held::Nothing)
            .await
            .unwrap();
        for (bytes, expected) in [(digest::of(body), body), (digest::of(secret), secret)] {
            let read = after.store.read_body(&bytes).unwrap();
            assert!(read.is_none_or(|read| read == expected), "step {steps}");
        }
        if let Some(path) = after.store.object(&digest::of(&large)).unwrap() {
            assert_eq!(fs::read(path).unwrap(), large, "step {steps}");
        }
        assert_eq!(after.stage(&wanted).await, Ok(()), "step {steps}");
        assert!(after.store.object(&digest::of(&large)).unwrap().is_some());
        if !disk.is_dead() {
            assert_eq!(ended, Ok(()));
            break;
        }
    }
    assert!(steps > 15, "only {steps} steps: the fake disk was not used");
}
