//! `baetyl-sync stage` as the kubelet runs it: killed whenever it likes, told to stop, called wrongly.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_kit::clock::Clock;
use baetyl_kit::crypto::SigningKey;
use baetyl_kit::grpc::Server;
use baetyl_kit::listen::Listen;
use baetyl_model::Digest;
use baetyl_model::desire::Unpack;
use baetyl_model::objects::{StagePlan, StagedObject, directory_name};
use baetyl_proto::sync::object_service_server::{ObjectService, ObjectServiceServer};
use baetyl_proto::sync::{
    FetchObjectRequest, FetchObjectResponse, SelectNeededRequest, SelectNeededResponse,
};
use baetyl_proto::{digest, ticket};
use baetyl_testkit::{PATIENCE, TestDir};
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::{Request, Response, Status};

const PROGRAM: &str = env!("CARGO_BIN_EXE_baetyl-sync");

struct Objects(HashMap<Digest, Bytes>);

#[tonic::async_trait]
impl ObjectService for Objects {
    type FetchObjectStream =
        Pin<Box<dyn Stream<Item = Result<FetchObjectResponse, Status>> + Send>>;

    async fn fetch_object(
        &self,
        request: Request<FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        let request = request.into_inner();
        let object = &self.0[&request.digest.parse().unwrap()];
        let rest = object.slice(usize::try_from(request.offset).unwrap()..);
        let chunks: Vec<_> = rest.chunks(64 * 1024).map(Bytes::copy_from_slice).collect();
        let chunks = chunks
            .into_iter()
            .map(|chunk| Ok(FetchObjectResponse { chunk }));
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn select_needed(
        &self,
        _: Request<SelectNeededRequest>,
    ) -> Result<Response<SelectNeededResponse>, Status> {
        Err(Status::unavailable("not known"))
    }
}

/// A Pod with a model and an archive of many files.
struct Pod {
    dir: TestDir,
    model: Vec<u8>,
    archive: Vec<u8>,
    key: Arc<SigningKey>,
}

const FILES: usize = 120;

impl Pod {
    fn new() -> Self {
        let dir = TestDir::new();
        let model: Vec<u8> = (0..6_000_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut archive = tar::Builder::new(Vec::new());
        for n in 0..FILES {
            let mut header = tar::Header::new_gnu();
            header.set_size(1000);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, format!("d{}/f{n}", n % 7), &[b'x'; 1000][..])
                .unwrap();
        }
        Self {
            dir,
            model,
            archive: archive.into_inner().unwrap(),
            key: Arc::new(SigningKey::generate().unwrap()),
        }
    }

    fn prepare(&self) {
        let staged = |file: &str, bytes: &[u8], unpack| StagedObject {
            file_name: file.try_into().unwrap(),
            digest: digest::of(bytes),
            size: bytes.len() as u64,
            unpack,
        };
        let plan = StagePlan {
            max_unpacked: 1 << 20,
            objects: vec![
                staged("code.tar", &self.archive, Unpack::Tar),
                staged("model.bin", &self.model, Unpack::None),
            ],
        };
        self.dir.write("plan.json", plan.to_json().unwrap());
        self.dir.write("items/conf.yml", "a: 1\n");
        let claims = ticket::Claims {
            app: "shop".to_owned(),
            digests: Vec::new(),
            iat: 0,
        };
        let ticket = ticket::issue(&claims, |bytes| self.key.sign(bytes)).unwrap();
        self.dir.write("ticket", ticket);
    }

    async fn serve(&self) -> Kit {
        let kit = Kit::new("sync", self.dir.path(), Clock::system());
        let objects = [&self.model, &self.archive]
            .map(|bytes| (digest::of(bytes), Bytes::copy_from_slice(bytes)));
        let public = self.key.public_key().to_vec();
        Server::new(&kit, "sync-apps")
            .add_service(ObjectServiceServer::new(Objects(objects.into())))
            .authorize(baetyl_callers::tickets(move || Some(public.clone())))
            .serve(&Listen::Unix(self.dir.join("sync.sock")))
            .await
            .unwrap();
        kit
    }

    fn target(&self) -> PathBuf {
        let name = directory_name(&digest::of(b"configuration"));
        self.dir.join("objects").join(name)
    }

    fn run(&self) -> Child {
        let path = |name: &str| self.dir.join(name).display().to_string();
        Command::new(PROGRAM)
            .arg("stage")
            .args(["--dir", &self.target().display().to_string()])
            .args(["--items", &path("items"), "--plan", &path("plan.json")])
            .args(["--server", &format!("unix:{}", path("sync.sock"))])
            .args(["--ticket", &path("ticket")])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn is_marked(&self) -> bool {
        let name = directory_name(&digest::of(b"configuration"));
        self.dir.join(format!("objects/.{name}.complete")).exists()
    }

    fn assert_whole(&self) {
        assert_eq!(
            fs::read(self.target().join("model.bin")).unwrap(),
            self.model
        );
        assert_eq!(fs::read(self.target().join("conf.yml")).unwrap(), b"a: 1\n");
        let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
        let unpacked: usize = (0..7)
            .map(|n| count(&self.target().join(format!("d{n}"))))
            .sum();
        assert_eq!(unpacked, FILES);
    }
}

#[tokio::test]
async fn killed_at_any_point_it_goes_on_and_what_is_marked_is_whole() {
    let pod = Pod::new();
    pod.prepare();
    let _kit = pod.serve().await;
    let mut life = Duration::from_millis(1);
    let mut kills = 0;
    let status = loop {
        let mut child = pod.run();
        match tokio::time::timeout(life, child.wait()).await {
            Ok(ended) => break ended.unwrap(),
            Err(_) => child.kill().await.unwrap(),
        }
        kills += 1;
        if pod.is_marked() {
            pod.assert_whole();
        }
        life = life * 6 / 5 + Duration::from_millis(1);
        assert!(life < PATIENCE, "it never ends");
    };
    assert!(
        status.success() && kills > 0,
        "{status} after {kills} kills"
    );
    assert!(pod.is_marked());
    pod.assert_whole();
    let beside = fs::read_dir(pod.dir.join("objects")).unwrap().count();
    assert_eq!(beside, 3, "directory, marker and lock");
    assert!(pod.run().wait().await.unwrap().success());
}

#[tokio::test]
async fn told_to_stop_while_it_waits_it_ends_at_once_and_says_for_what_it_waited() {
    let pod = Pod::new();
    pod.prepare();
    let mut child = pod.run();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.unwrap().unwrap().expect("a line before the end");
        if line.contains("waiting") {
            break line;
        }
    };
    assert!(told.contains("cannot be fetched from unix:"), "{told}");
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(sent.unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(143));
}

#[tokio::test]
async fn what_waiting_does_not_mend_ends_it_with_one_and_a_wrong_call_with_two() {
    let pod = Pod::new();
    pod.prepare();
    pod.dir.write("plan.json", "no plan");
    assert_eq!(pod.run().wait().await.unwrap().code(), Some(1));
    let output = Command::new(PROGRAM).arg("stage").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--plan"));
}

#[tokio::test]
async fn the_usual_subcommands_are_there_beside_stage() {
    let output = Command::new(PROGRAM).arg("version").output().await.unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("baetyl-sync "));
    let script = Command::new(PROGRAM)
        .args(["completion", "bash"])
        .output()
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&script.stdout).contains("stage"));
}
