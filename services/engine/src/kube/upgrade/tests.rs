use std::sync::{Arc, Mutex};

use baetyl_model::name::{Epoch, Generation};
use baetyl_model::{DesiredCore, Header};
use baetyl_testkit::eventually;

use super::*;
use crate::kube::testing::FakeSecrets;
use crate::release::NodeIdentity;
use crate::store::Accepted;

#[derive(Clone, Default)]
struct Fake {
    secrets: FakeSecrets,
    job: Arc<Mutex<Option<JobState>>>,
    jobs: Arc<Mutex<Vec<Object>>>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Secrets for Fake {
    async fn get(&self, namespace: &str, name: &str) -> Result<Option<Data>, RuntimeError> {
        self.secrets.get(namespace, name).await
    }

    async fn put(
        &self,
        namespace: &str,
        name: &str,
        labels: &std::collections::BTreeMap<String, String>,
        data: &Data,
    ) -> Result<(), RuntimeError> {
        self.secrets.put(namespace, name, labels, data).await
    }

    async fn remove(&self, namespace: &str, name: &str) -> Result<(), RuntimeError> {
        self.secrets.remove(namespace, name).await
    }
}

impl Jobs for Fake {
    async fn job(&self) -> Result<Option<JobState>, RuntimeError> {
        Ok(self.job.lock().unwrap().clone())
    }

    async fn trouble(&self) -> Result<Option<String>, RuntimeError> {
        Ok(self.trouble.lock().unwrap().clone())
    }

    async fn start(&self, job: Object) -> Result<(), RuntimeError> {
        self.jobs.lock().unwrap().push(job);
        *self.job.lock().unwrap() = Some(JobState::Active);
        Ok(())
    }

    async fn delete(&self) -> Result<(), RuntimeError> {
        *self.job.lock().unwrap() = None;
        Ok(())
    }
}

const IMAGE: &str = "r:5000/b/baetyl-sync:0.1.0";

fn settings() -> Settings {
    Settings {
        sync_image: Some(IMAGE.to_owned()),
        class: Some("k3s".to_owned()),
        pull_secrets: vec!["pull".to_owned()],
        ..Settings::default()
    }
}

fn accepted(generation: u64, version: &str) -> Accepted {
    Accepted {
        header: Header {
            node_uid: "uid-1".try_into().unwrap(),
            epoch: Epoch(0),
            generation: Generation(generation),
            digest: crate::testing::digest(b""),
        },
        node: NodeIdentity {
            namespace: "default".to_owned(),
            name: "edge-1".to_owned(),
        },
        versions: Default::default(),
        core: (!version.is_empty()).then(|| DesiredCore {
            version: version.to_owned(),
            ..DesiredCore::default()
        }),
    }
}

impl Fake {
    /// Engine of this image begins to look after upgrades; the one before has ended.
    fn engine(&self, settings: Settings, board: &Board) -> tokio::task::AbortHandle {
        tokio::spawn(keep(self.clone(), settings, board.clone())).abort_handle()
    }

    fn record(&self) -> Option<Upgrade> {
        let record = self.secrets.held(SECRET)?.remove(RECORD)?;
        Some(serde_json::from_slice(&record).unwrap())
    }

    /// The Job writes down how far it is.
    fn write(&self, phase: Phase, message: &str) {
        let record = Upgrade {
            phase,
            message: message.to_owned(),
            ..self.record().unwrap()
        };
        let record = serde_json::to_vec(&record).unwrap();
        self.secrets
            .hold(SECRET, Data::from([(RECORD.to_owned(), record)]));
    }

    fn end(&self, state: JobState) {
        *self.job.lock().unwrap() = Some(state);
    }

    fn jobs(&self) -> usize {
        self.jobs.lock().unwrap().len()
    }
}

fn told(board: &Board) -> (&'static str, String) {
    let remark = board.watch_remark().borrow().clone();
    remark.map_or(("", String::new()), |remark| {
        (remark.reason, remark.message)
    })
}

#[tokio::test(start_paused = true)]
async fn another_version_is_one_job_whose_end_the_new_engine_tells() {
    let (fake, board) = (Fake::default(), Board::new(Some(accepted(1, ""))));
    let old = fake.engine(settings(), &board);
    board.accept(accepted(2, "0.2.0"));
    eventually!(fake.jobs() == 1);
    eventually!(told(&board).0 == "Upgrading");
    let record = fake.record().unwrap();
    let words = "0.1.0 (k3s, r:5000/b)";
    assert_eq!(
        (record.from.to_string().as_str(), record.phase),
        (words, Phase::Begun)
    );
    fake.write(Phase::Applying, "");
    // Something else of the desire changes meanwhile.
    board.accept(accepted(3, "0.2.0"));
    eventually!(!told(&board).1.contains("not begun"));
    old.abort();

    let board = Board::new(Some(accepted(3, "0.2.0")));
    let image = "r:5000/b/baetyl-sync:0.2.0".to_owned();
    let new = Settings {
        sync_image: Some(image),
        ..settings()
    };
    fake.engine(new, &board);
    eventually!(told(&board).0 == "Upgrading");
    fake.write(Phase::Upgraded, "");
    fake.end(JobState::Succeeded);
    eventually!(told(&board).0 == "Upgraded");
    assert_eq!(fake.jobs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_failed_is_left_alone_until_something_else_was_wished() {
    let (fake, board) = (Fake::default(), Board::new(Some(accepted(1, "0.2.0"))));
    let first = fake.engine(settings(), &board);
    eventually!(fake.jobs() == 1);
    fake.write(
        Phase::Failed,
        "baetyl-engine is not available; 0.1.0 was put back",
    );
    fake.end(JobState::Failed("exit code 3".to_owned()));
    eventually!(told(&board).0 == "Failed");
    assert!(told(&board).1.contains("baetyl-engine is not available"));
    // Another start of engine remembers it.
    first.abort();
    let board = Board::new(Some(accepted(2, "0.2.0")));
    fake.engine(settings(), &board);
    eventually!(told(&board).0 == "Failed");
    assert_eq!(fake.jobs(), 1);
    board.accept(accepted(3, "0.1.0"));
    eventually!(fake.record().is_none() && told(&board).0.is_empty());
    board.accept(accepted(4, "0.2.0"));
    eventually!(fake.jobs() == 2);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_ends_after_its_time_and_changes_nothing() {
    let (fake, board) = (Fake::default(), Board::new(Some(accepted(1, "0.2.0"))));
    *fake.trouble.lock().unwrap() = Some("ImagePullBackOff: not found".to_owned());
    let soon = Settings {
        upgrade_start_deadline: Duration::from_secs(10),
        ..settings()
    };
    fake.engine(soon, &board);
    eventually!(
        told(&board)
            .1
            .ends_with("not begun yet: ImagePullBackOff: not found")
    );
    eventually!(told(&board).0 == "Failed");
    let words = "ImagePullBackOff: not found; nothing was changed";
    assert!(told(&board).1.ends_with(words), "{}", told(&board).1);
    assert_eq!(*fake.job.lock().unwrap(), None);
    assert_eq!(fake.jobs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_gone_in_the_middle_is_made_again() {
    let (fake, board) = (Fake::default(), Board::new(Some(accepted(1, "0.2.0"))));
    fake.engine(settings(), &board);
    eventually!(fake.jobs() == 1);
    fake.write(Phase::RollingBack, "x");
    fake.end(JobState::Failed("BackoffLimitExceeded".to_owned()));
    eventually!(fake.jobs() == 2);
    // Even when nobody wishes it any more: something was changed.
    board.accept(accepted(2, ""));
    *fake.job.lock().unwrap() = None;
    eventually!(fake.jobs() == 3);
}

#[tokio::test(start_paused = true)]
async fn a_core_that_the_cloud_did_not_install_is_left_to_who_did() {
    let (fake, board) = (Fake::default(), Board::new(Some(accepted(1, "0.2.0"))));
    let by_hand = Settings {
        class: None,
        ..settings()
    };
    fake.engine(by_hand, &board);
    eventually!(told(&board).0 == "Failed");
    assert!(
        told(&board)
            .1
            .contains("somebody else than the cloud's install command")
    );
    assert_eq!(fake.jobs(), 0);
}

#[test]
fn the_job_names_its_version_and_is_nothing_the_namespace_forbids() {
    let to = Core {
        version: "0.2.0".to_owned(),
        class: "k3s".to_owned(),
        registry: "r:5000/b".to_owned(),
    };
    let job = job::job(&settings(), &to).body;
    let pod = &job["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "r:5000/b/baetyl-init:0.2.0");
    let args = container["args"].as_array().unwrap();
    let args: Vec<_> = args.iter().map(|arg| arg.as_str().unwrap()).collect();
    let expected =
        "upgrade --to 0.2.0 --class k3s --registry r:5000/b --deadline 10m --pull-secret pull";
    assert_eq!(args.join(" "), expected);
    assert_eq!(pod["serviceAccountName"], "baetyl-upgrade");
    assert_eq!(pod["imagePullSecrets"][0]["name"], "pull");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        container["securityContext"]["allowPrivilegeEscalation"],
        false
    );
}
