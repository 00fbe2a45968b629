//! Against a cloud of this test: whom init trusts at which time, and what becomes of the key.

use baetyl_kit::grpc::{CallerInfo, Server};
use baetyl_kit::listen::Listen;
use baetyl_kit::tls;
use baetyl_model::report::RunMode;
use baetyl_proto::activation::activation_service_server::{
    ActivationService, ActivationServiceServer,
};
use baetyl_proto::activation::{ActivateRequest, ActivateResponse};
use baetyl_testkit::{Leaf, TestCa, TestIdentity};
use rcgen::{CertificateSigningRequestParams, PublicKeyData as _};

use super::*;

/// A cloud that gives one node away: to the first key that asks, as often as it asks.
#[derive(Default)]
struct FakeCloud {
    keys: Mutex<Vec<Vec<u8>>>,
    modes: Mutex<Vec<String>>,
}

#[tonic::async_trait]
impl ActivationService for FakeCloud {
    async fn activate(
        &self,
        request: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        let request = request.into_inner();
        self.modes.lock().unwrap().push(request.mode);
        let csr = request.csr.to_vec();
        let csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let key = csr.public_key.der_bytes().to_vec();
        let mut keys = self.keys.lock().unwrap();
        keys.push(key.clone());
        if keys[0] != key {
            return Err(Status::already_exists("activated with another key"));
        }
        Ok(Response::new(ActivateResponse {
            node_name: "n".to_owned(),
            ..ActivateResponse::default()
        }))
    }
}

/// A cloud that shows this certificate, and what init must be told to find it.
async fn serve_cloud(kit: &Kit, ca: &TestCa, server: &TestIdentity) -> (Arc<FakeCloud>, Config) {
    let cloud = Arc::new(FakeCloud::default());
    let tls = tls::server_config(server.identity(), &tls::ClientAuth::None, None).unwrap();
    let listen = Server::new(kit, "cloud")
        .add_service(ActivationServiceServer::from_arc(Arc::clone(&cloud)))
        .tls(tls)
        .authorize(Arc::new(|_, _, _| Ok(CallerInfo::new("anybody"))))
        .serve(&Listen::loopback())
        .await
        .unwrap();
    let config = Config {
        activate: Activate {
            url: Some(format!("https://{listen}")),
            ca_pin: Some(format!("sha256:{}", tls::fingerprint(&ca.certificate()))),
        },
        token: Some("bi1.token".to_owned()),
        ..config()
    };
    (cloud, config)
}

fn server(ca: &TestCa, not_before: &str, not_after: &str) -> TestIdentity {
    let leaf = Leaf::new("localhost").name("127.0.0.1");
    ca.issue(&leaf.valid(not_before, not_after))
}

#[tokio::test]
async fn the_cloud_is_told_how_this_machine_runs_applications() {
    for (mode, word) in [(RunMode::Native, "native"), (RunMode::Kube, "kube")] {
        let dir = tempfile::tempdir().unwrap();
        let kit = Kit::for_test(dir.path());
        let _sync = serve(&kit, FakeSync::default()).await;
        let ca = TestCa::new("cloud");
        let server = server(&ca, "2000-01-01T00:00:00Z", "2090-01-01T00:00:00Z");
        let (cloud, config) = serve_cloud(&kit, &ca, &server).await;
        run(Config { mode, ..config }, kit.child("init"))
            .await
            .unwrap();
        assert_eq!(*cloud.modes.lock().unwrap(), [word]);
    }
}

#[tokio::test]
async fn a_cloud_whose_certificate_begins_in_the_future_of_this_clock_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let sync = serve(&kit, FakeSync::default()).await;
    let ca = TestCa::new("cloud");
    let future = server(&ca, "2090-01-01T00:00:00Z", "2091-01-01T00:00:00Z");
    let (_, config) = serve_cloud(&kit, &ca, &future).await;
    run(config, kit.child("init")).await.unwrap();
    assert_eq!(
        *sync.calls.lock().unwrap(),
        ["get_identity", "install_identity"]
    );
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_cloud_whose_certificate_ended_before_this_release_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    serve(&kit, FakeSync::default()).await;
    let ca = TestCa::new("cloud");
    let past = server(&ca, "2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z");
    let (cloud, config) = serve_cloud(&kit, &ca, &past).await;
    let short = Config {
        deadline: Duration::from_secs(2),
        ..config
    };
    let error = run(short, kit.child("init")).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert!(cloud.keys.lock().unwrap().is_empty());
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_sync_that_cannot_take_the_identity_yet_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let starting = FakeSync {
        unavailable: AtomicU32::new(2),
        ..FakeSync::default()
    };
    let sync = serve(&kit, starting).await;
    let ca = TestCa::new("cloud");
    let (cloud, config) = serve_cloud(&kit, &ca, &ca.server()).await;
    run(config, kit.child("init")).await.unwrap();
    let installed = |call: &&String| *call == "install_identity";
    assert_eq!(
        sync.calls.lock().unwrap().iter().filter(installed).count(),
        3
    );
    assert_eq!(
        cloud.keys.lock().unwrap().len(),
        1,
        "the cloud is asked once"
    );
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn where_sync_has_the_identity_an_emptied_directory_of_init_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let ca = TestCa::new("cloud");
    let (cloud, config) = serve_cloud(&kit, &ca, &ca.server()).await;
    let present = FakeSync {
        installed: true,
        ..FakeSync::default()
    };
    let sync = serve(&kit, present).await;
    key::load_or_create(&kit.child("init")).unwrap();
    std::fs::remove_dir_all(dir.path().join("init")).unwrap();
    run(config, kit.child("init")).await.unwrap();
    assert_eq!(*sync.calls.lock().unwrap(), ["get_identity"]);
    assert!(cloud.keys.lock().unwrap().is_empty());
    kit.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_lost_before_sync_has_it_is_told_and_nothing_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let away = FakeSync {
        unavailable: AtomicU32::new(u32::MAX),
        ..FakeSync::default()
    };
    let sync = serve(&kit, away).await;
    let ca = TestCa::new("cloud");
    let (cloud, config) = serve_cloud(&kit, &ca, &ca.server()).await;
    let short = Config {
        deadline: Duration::from_secs(2),
        ..config.clone()
    };
    let error = run(short, kit.child("init")).await.unwrap_err();
    assert!(error.to_string().contains("sync does not take"), "{error}");
    std::fs::remove_dir_all(dir.path().join("init")).unwrap();
    sync.calls.lock().unwrap().clear();

    let error = run(config, kit.child("init")).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert!(error.to_string().contains("another key"), "{error}");
    assert_eq!(*sync.calls.lock().unwrap(), ["get_identity"]);
    let keys = cloud.keys.lock().unwrap();
    assert!(keys.len() == 2 && keys[0] != keys[1]);
}
