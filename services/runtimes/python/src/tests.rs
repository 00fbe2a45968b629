//! Real workers with real functions, as the host runs them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use baetyl_proto::function::RegisterRequest;
use baetyl_proto::function::register_request::Message as Up;
use baetyl_runtime_host::functions::Function;
use baetyl_runtime_host::{Call, Executor as _, Kind, MAX_PAYLOAD, Pool, PoolSettings};
use baetyl_testkit::{PATIENCE, TestDir, eventually, until};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::language;

mod endings;
mod loading;
mod values;

/// Workers with the code a test wrote.
struct World {
    dir: TestDir,
    pool: Pool,
    log: PathBuf,
}

/// What became of a call.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    chunks: Vec<Bytes>,
    payload: Bytes,
    metadata: BTreeMap<String, String>,
    failure: Option<(Kind, String)>,
}

impl Outcome {
    #[track_caller]
    fn ok(self) -> Bytes {
        assert_eq!(self.failure, None);
        self.payload
    }

    #[track_caller]
    fn failed(self) -> (Kind, String) {
        self.failure.expect("it did not fail")
    }
}

impl World {
    /// One worker; `index.py` is the code, and each of its functions is called by its own name.
    async fn new(code: &str, functions: &[&str]) -> Self {
        let functions: Vec<_> = functions
            .iter()
            .map(|name| (*name, format!("index.{name}"), ""))
            .collect();
        Self::with(&[("index.py", code)], &functions, |_| ()).await
    }

    /// `files` are beneath the code directory; `functions` are name, handler and codedir.
    async fn with(
        files: &[(&str, &str)],
        functions: &[(&str, String, &str)],
        change: impl FnOnce(&mut PoolSettings),
    ) -> Self {
        Self::run_by("python3", files, functions, change).await
    }

    async fn run_by(
        python: &str,
        files: &[(&str, &str)],
        functions: &[(&str, String, &str)],
        change: impl FnOnce(&mut PoolSettings),
    ) -> Self {
        let dir = TestDir::new();
        for (name, text) in files {
            dir.write(format!("code/{name}"), text);
        }
        let log = dir.write("log", "");
        let file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        let functions: Vec<Function> = functions
            .iter()
            .map(|(name, handler, codedir)| Function {
                name: (*name).to_owned(),
                handler: handler.clone(),
                codedir: (*codedir).to_owned(),
                timeout_ms: 0,
            })
            .collect();
        let mut settings = PoolSettings::default();
        change(&mut settings);
        let code = dir.join("code").display().to_string();
        let pool = Pool::start(
            language(python, Some(file)).program,
            &code,
            &functions,
            settings,
        )
        .unwrap();
        tokio::time::timeout(PATIENCE, pool.loaded())
            .await
            .expect("it did not load");
        Self { dir, pool, log }
    }

    async fn call(&self, function: &str, payload: impl Into<Bytes>) -> Outcome {
        self.call_with(function, payload, &[]).await
    }

    async fn call_with(
        &self,
        function: &str,
        payload: impl Into<Bytes>,
        metadata: &[(&str, &str)],
    ) -> Outcome {
        let metadata = pairs(metadata);
        let (call, answers) = Call::for_test(function, payload, metadata, PATIENCE);
        self.pool.start(call).await;
        outcome(answers).await
    }

    /// Calls a function and cancels it once it has printed `begun`.
    async fn cancelled(&self, function: &str) -> Outcome {
        let (call, answers) = Call::for_test(function, "", BTreeMap::new(), PATIENCE);
        let token = call.cancelled.clone();
        self.pool.start(call).await;
        eventually!(self.log().contains("begun"), "the function runs");
        token.cancel();
        outcome(answers).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn outcome(mut answers: mpsc::Receiver<RegisterRequest>) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.recv()).await;
        match answer.expect("no answer came").unwrap().message.unwrap() {
            Up::Chunk(chunk) => outcome.chunks.push(chunk.payload),
            Up::Result(result) => {
                return Outcome {
                    payload: result.payload,
                    metadata: result.metadata,
                    ..outcome
                };
            }
            Up::Failure(failure) => {
                return Outcome {
                    failure: Some((failure.kind(), failure.message)),
                    ..outcome
                };
            }
            other => panic!("no answer: {other:?}"),
        }
    }
}
