//! Engine between fakes, which can be killed and started again.

use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_testkit::{TestDir, eventually};
use serde_json::{Value, json};

use super::{FakeContent, FakeRuntime, FakeShadow, Release, release};
use crate::config::Config;
use crate::ports::Ports;
use crate::{Engine, Joined};

/// The fakes.
#[derive(Debug)]
pub(crate) struct Fakes;

impl Ports for Fakes {
    type Runtime = FakeRuntime;
    type Content = FakeContent;
    type Shadow = FakeShadow;
}

/// A node under test.
pub(crate) struct Bench {
    pub(crate) dir: TestDir,
    pub(crate) runtime: FakeRuntime,
    pub(crate) content: FakeContent,
    pub(crate) shadow: FakeShadow,
    pub(crate) config: Config,
    pub(crate) engine: Option<(Kit, Engine<Fakes>)>,
}

impl Bench {
    /// Nothing runs yet; deadlines are long, settling is short.
    pub(crate) fn new() -> Self {
        let dir = TestDir::new();
        let mut config = Config::default();
        config.update.min_ready = Duration::from_millis(5);
        config.report.gather = Duration::from_millis(1);
        Self {
            runtime: FakeRuntime::new(dir.join("machine")),
            content: FakeContent::new(dir.join("content")),
            shadow: FakeShadow::new(),
            dir,
            config,
            engine: None,
        }
    }

    /// Starts engine.
    pub(crate) async fn start(&mut self) {
        let kit = Kit::for_test(self.dir.path()).child("engine");
        let joined = Joined {
            runtime: self.runtime.clone(),
            content: self.content.clone(),
            shadow: self.shadow.clone(),
        };
        let engine = crate::begin::<Fakes>(self.config.clone(), &kit, joined)
            .await
            .unwrap();
        kit.readiness().until_ready().await;
        self.engine = Some((kit, engine));
    }

    pub(crate) async fn started() -> Self {
        let mut bench = Self::new();
        bench.start().await;
        bench
    }

    /// Kills engine; the machine goes on.
    pub(crate) async fn kill(&mut self) {
        if let Some((kit, engine)) = self.engine.take() {
            kit.tasks().abort();
            drop(engine);
            let _ = kit.stop(Duration::from_secs(5)).await;
        }
        self.runtime = self.runtime.reborn();
        // What was being written when it was killed is written by a thread that nobody can kill.
        let dir = self.dir.join("engine");
        eventually!(!dir.exists() || crate::store::Store::open(&dir).is_ok());
    }

    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Whether engine can write its records.
    pub(crate) fn fill_disk(&self, full: bool) {
        let (_, engine) = self.engine.as_ref().unwrap();
        engine.ctx.store.fill(full);
    }

    /// Loses a part of the data directory.
    pub(crate) fn lose(&self, path: &str) {
        let path = self.dir.join(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }

    /// The cloud wants exactly these.
    pub(crate) fn desire(&self, generation: u64, releases: &[&Release]) {
        for release in releases {
            self.content.publish(release);
        }
        self.shadow.desire(generation, releases);
    }

    /// Waits until the report says `<phase> <version>` of an application.
    pub(crate) async fn until(&self, app: &str, phase: &str) {
        let what = format!("{app} is {phase}");
        eventually(baetyl_testkit::PATIENCE, &what, async || {
            self.shadow.phase(app) == phase
        })
        .await;
    }

    /// Everything engine has to do on its own is done: several rounds of its tasks brought nothing new.
    pub(crate) async fn quiet(&self) {
        let state = || {
            (
                self.runtime.log().len(),
                self.shadow.statuses().len(),
                self.content.stages(),
            )
        };
        let last = std::cell::Cell::new((state(), 0));
        eventually!({
            let (before, rounds) = last.get();
            let now = state();
            last.set((now, if now == before { rounds + 1 } else { 0 }));
            rounds > 10
        });
    }
}

/// A version of an application with one service.
pub(crate) fn app(name: &str, version: &str) -> Release {
    app_with(name, version, json!({}))
}

/// The same with more fields of the application.
pub(crate) fn app_with(name: &str, version: &str, more: Value) -> Release {
    let mut body = json!({"mode": "native", "services": [{"name": "web", "command": ["run"]}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    release(name, version, body)
        .configuration(
            &format!("{name}-conf"),
            json!({"conf.yml": format!("version: {version}")}),
        )
        .build()
}
