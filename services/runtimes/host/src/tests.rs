//! The pool with workers that are small shell scripts, and the link with a scripted proxy.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::{Failure, RegisterRequest};
use baetyl_testkit::{PATIENCE, TestDir, eventually, until};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::call::{Call, Kind, Open};

mod link;
mod pool;
mod tls;

/// Makes calls and takes their answers, as the link does.
struct Caller {
    open: Open,
    out: mpsc::Sender<RegisterRequest>,
    answers: mpsc::Receiver<RegisterRequest>,
    last: u64,
}

impl Caller {
    fn new() -> Self {
        let (out, answers) = mpsc::channel(16);
        Self {
            open: Open::default(),
            out,
            answers,
            last: 0,
        }
    }

    fn call(&mut self, function: &str, payload: &'static [u8], timeout: Duration) -> Call {
        self.last += 1;
        let (answer, cancelled) = self.open.begin(self.last, self.out.clone());
        Call {
            function: function.to_owned(),
            payload: Bytes::from_static(payload),
            metadata: BTreeMap::new(),
            deadline: Some(Instant::now() + timeout),
            cancelled,
            answer,
        }
    }

    async fn answer(&mut self) -> Up {
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await;
        answer.expect("no answer came").unwrap().message.unwrap()
    }

    async fn failure(&mut self) -> (Kind, String) {
        match self.answer().await {
            Up::Failure(Failure { kind, message, .. }) => (Kind::try_from(kind).unwrap(), message),
            other => panic!("not a failure: {other:?}"),
        }
    }
}
