use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use baetyl_callers::CallerId;
use baetyl_kit::config;
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::listen::Listen;
use baetyl_kit::tls::{Clients, ServiceIdentity};
use baetyl_proto::sync::sync_service_server::{SyncService, SyncServiceServer};
use baetyl_proto::sync::*;
use baetyl_testkit::{Leaf, SecretMount, TestCa};
use tonic::{Request, Response};

use super::*;

mod activating;

#[test]
fn the_example_configuration_is_the_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/init.yaml");
    let (_, read) = config::load_both::<baetyl_kit::cli::ShellConfig, Config>(
        "init",
        Some(&path),
        std::iter::empty(),
    )
    .unwrap();
    assert_eq!(
        config::render(&read).unwrap(),
        config::render(&Config::default()).unwrap()
    );
}

#[test]
fn the_key_survives_until_it_is_forgotten_and_only_we_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path()).child("init");
    let first = key::load_or_create(&kit).unwrap();
    let again = key::load_or_create(&kit).unwrap();
    assert_eq!(first.serialize_der(), again.serialize_der());
    let metadata = std::fs::metadata(dir.path().join("init/node.key")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    key::forget(&kit).unwrap();
    key::forget(&kit).unwrap();
    assert_ne!(
        key::load_or_create(&kit).unwrap().serialize_der(),
        first.serialize_der()
    );
}

#[test]
fn a_damaged_key_is_kept_aside_and_a_new_one_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path()).child("init");
    let state = kit.state_dir().unwrap();
    std::fs::write(state.join("node.key"), b"rubbish").unwrap();
    key::load_or_create(&kit).unwrap();
    let aside = std::fs::read_dir(&state)
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains("corrupt")
        })
        .count();
    assert_eq!(aside, 1);
}

#[test]
fn the_token_is_never_printed() {
    let config = Config {
        token: Some("secret-token".into()),
        ..Config::default()
    };
    assert!(!format!("{config:?}").contains("secret-token"));
    assert!(!config::render(&config).unwrap().contains("secret-token"));
}

#[derive(Default)]
struct FakeSync {
    installed: bool,
    /// How often it does not take an identity before it does.
    unavailable: AtomicU32,
    calls: Mutex<Vec<String>>,
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

type Never<T> = tokio_stream::Empty<Result<T, Status>>;

#[tonic::async_trait]
impl SyncService for FakeSync {
    type StageStream = Never<StageResponse>;
    type OpenObjectStream = Never<OpenObjectResponse>;
    type WatchLinkStateStream = Never<WatchLinkStateResponse>;

    async fn get_identity(
        &self,
        _: Request<GetIdentityRequest>,
    ) -> Result<Response<GetIdentityResponse>, Status> {
        self.calls.lock().unwrap().push("get_identity".into());
        Ok(Response::new(GetIdentityResponse {
            installed: self.installed,
            ..Default::default()
        }))
    }

    async fn install_identity(
        &self,
        _: Request<InstallIdentityRequest>,
    ) -> Result<Response<InstallIdentityResponse>, Status> {
        self.calls.lock().unwrap().push("install_identity".into());
        let less = |left: u32| left.checked_sub(1);
        if self.unavailable.fetch_update(SeqCst, SeqCst, less).is_ok() {
            return Err(Status::unavailable("starting"));
        }
        Ok(Response::new(InstallIdentityResponse { changed: true }))
    }

    async fn stage(&self, _: Request<StageRequest>) -> Result<Response<Self::StageStream>, Status> {
        not_here()
    }
    async fn open_object(
        &self,
        _: Request<OpenObjectRequest>,
    ) -> Result<Response<Self::OpenObjectStream>, Status> {
        not_here()
    }
    async fn watch_link_state(
        &self,
        _: Request<WatchLinkStateRequest>,
    ) -> Result<Response<Self::WatchLinkStateStream>, Status> {
        not_here()
    }
    async fn set_pins(
        &self,
        _: Request<SetPinsRequest>,
    ) -> Result<Response<SetPinsResponse>, Status> {
        not_here()
    }
    async fn read_resource(
        &self,
        _: Request<ReadResourceRequest>,
    ) -> Result<Response<ReadResourceResponse>, Status> {
        not_here()
    }
    async fn get_link_state(
        &self,
        _: Request<GetLinkStateRequest>,
    ) -> Result<Response<GetLinkStateResponse>, Status> {
        not_here()
    }
    async fn put_event(
        &self,
        _: Request<PutEventRequest>,
    ) -> Result<Response<PutEventResponse>, Status> {
        not_here()
    }
    async fn export_identity(
        &self,
        _: Request<ExportIdentityRequest>,
    ) -> Result<Response<ExportIdentityResponse>, Status> {
        not_here()
    }
    async fn trust_app_key(
        &self,
        _: Request<TrustAppKeyRequest>,
    ) -> Result<Response<TrustAppKeyResponse>, Status> {
        not_here()
    }
}

/// A sync on its socket; its health is that of the kit.
async fn serve(kit: &Kit, sync: FakeSync) -> Arc<FakeSync> {
    let sync = Arc::new(sync);
    grpc::Server::new(kit, "sync")
        .add_service(SyncServiceServer::from_arc(Arc::clone(&sync)))
        .authorize(baetyl_callers::core())
        .serve(&baetyl_kit::listen::Listen::Unix(kit.core_socket("sync")))
        .await
        .unwrap();
    sync
}

fn config() -> Config {
    Config {
        wait_for: vec![Service::Sync],
        deadline: Duration::from_secs(20),
        ..Config::default()
    }
}

#[tokio::test]
async fn with_an_identity_present_nothing_is_asked_and_init_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let sync = serve(
        &kit,
        FakeSync {
            installed: true,
            ..FakeSync::default()
        },
    )
    .await;
    run(config(), kit.child("init")).await.unwrap();
    assert_eq!(*sync.calls.lock().unwrap(), ["get_identity"]);
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn without_identity_and_without_a_token_init_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let sync = serve(&kit, FakeSync::default()).await;
    let error = run(config(), kit.child("init")).await.unwrap_err();
    assert!(error.to_string().contains("activate.url"), "{error}");
    assert_eq!(*sync.calls.lock().unwrap(), ["get_identity"]);
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

/// A kit with the identity of this role, whose files are in `dir`.
fn identified(kit: &Kit, dir: &Path, role: Role, ca: &TestCa) -> Kit {
    let mut mount = SecretMount::new(dir.join(format!("tls-{role}")));
    let id = CallerId::Core(role).to_string();
    let leaf = Leaf::new(role.as_str()).uri(&id).name("127.0.0.1");
    mount.identity(&ca.issue(&leaf), &[ca]);
    kit.with_identity(ServiceIdentity::mounted(kit, mount.path()))
}

#[tokio::test]
async fn over_tls_services_are_where_the_configuration_says_and_as_who_they_must_be() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new("node"));
    let plain = Kit::for_test(dir.path());
    let kit = identified(&plain, dir.path(), Role::Sync, &ca);
    let sync = Arc::new(FakeSync {
        installed: true,
        ..FakeSync::default()
    });
    let bound = grpc::Server::new(&kit, "sync")
        .add_service(SyncServiceServer::from_arc(Arc::clone(&sync)))
        .authorize(baetyl_callers::core())
        .in_node(Clients::Required)
        .serve(&Listen::loopback())
        .await
        .unwrap();
    let there: Option<Endpoint> = Some(format!("https://{bound}").parse().unwrap());
    let init = identified(&plain.child("init"), dir.path(), Role::Init, &ca);
    let right = Config {
        peers: Peers {
            sync: there.clone(),
            ..Peers::default()
        },
        ..config()
    };
    run(right.clone(), init.clone()).await.unwrap();
    assert_eq!(*sync.calls.lock().unwrap(), ["get_identity"]);
    // Ready, but not who is waited for.
    let wrong = Config {
        peers: Peers {
            node: there,
            ..right.peers.clone()
        },
        wait_for: vec![Service::Node],
        deadline: Duration::from_millis(500),
        ..right.clone()
    };
    let error = run(wrong, init).await.unwrap_err().to_string();
    assert!(
        error.contains("is spiffe://node.baetyl/core/sync and not spiffe://node.baetyl/core/node"),
        "{error}"
    );
    let error = run(right, plain.child("init")).await.unwrap_err();
    assert!(matches!(error, Error::Peer { .. }), "{error:?}");
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_service_that_does_not_get_ready_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let latch = kit.readiness().register("identity");
    latch.not_ready("waiting");
    serve(
        &kit,
        FakeSync {
            installed: true,
            ..FakeSync::default()
        },
    )
    .await;
    let short = Config {
        deadline: Duration::from_millis(300),
        ..config()
    };
    let error = run(short, kit.child("init")).await.unwrap_err();
    assert!(error.to_string().contains("sync is not ready"), "{error}");
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

#[test]
fn the_token_comes_from_the_environment() {
    let env = [("BAETYL_INIT__TOKEN".to_owned(), "bi1.abc".to_owned())];
    let (_, read) =
        config::load_both::<baetyl_kit::cli::ShellConfig, Config>("init", None, env).unwrap();
    assert_eq!(read.token.as_deref(), Some("bi1.abc"));
}
