#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use baetyl_kit::metrics::Metrics;
use baetyl_proto::function::failure::Kind;
use baetyl_proto::function::register_response::Message as Down;
use baetyl_proto::function::{FunctionSpec, RegisterResponse};
use proptest::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::*;
use crate::reply::Answer;

const FUNCTIONS: [&str; 2] = ["f", "g"];

/// What may happen to an application. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Register { places: usize, functions: usize },
    Enter { function: usize },
    Answer { which: usize, fail: bool },
    CallerGoes { which: usize, overdue: bool },
    RuntimeGoes { which: usize },
    Resize { which: usize, places: usize },
    Impatient { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8_usize;
    prop_oneof![
        2 => (1..4_usize, 1..3_usize).prop_map(|(places, functions)| Step::Register { places, functions }),
        6 => (0..2_usize).prop_map(|function| Step::Enter { function }),
        5 => (which.clone(), any::<bool>()).prop_map(|(which, fail)| Step::Answer { which, fail }),
        2 => (which.clone(), any::<bool>()).prop_map(|(which, overdue)| Step::CallerGoes { which, overdue }),
        1 => which.clone().prop_map(|which| Step::RuntimeGoes { which }),
        1 => (which.clone(), 0..4_usize).prop_map(|(which, places)| Step::Resize { which, places }),
        1 => which.prop_map(|which| Step::Impatient { which }),
    ]
}

/// A runtime as a test sees it: what it was given and has not answered.
struct Seen {
    id: u64,
    functions: usize,
    most: usize,
    messages: mpsc::Receiver<Result<RegisterResponse, Status>>,
    open: Vec<u64>,
}

struct Caller {
    id: u64,
    receiver: oneshot::Receiver<Result<Answer, CallError>>,
    /// It was taken back: no answer is owed.
    left: bool,
}

struct Model {
    app: App,
    entry: Entry,
    runtimes: Vec<Seen>,
    callers: Vec<Caller>,
    /// Calls that were given to some runtime.
    given: BTreeSet<u64>,
}

impl Model {
    fn new() -> Self {
        let limits = Limits {
            timeout: Duration::from_secs(60),
            max_timeout: Duration::from_secs(300),
            queue: 5,
        };
        let functions = FUNCTIONS.map(str::to_owned).to_vec();
        Self {
            app: App::new("greet", limits, Meters::new(&Metrics::new("test"), "greet")),
            entry: Entry {
                functions,
                access: crate::directory::Access::Token,
            },
            runtimes: Vec::new(),
            callers: Vec::new(),
            given: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Register { places, functions } => self.register(places, functions),
            Step::Enter { function } => self.enter(FUNCTIONS[function]),
            Step::Answer { which, fail } => self.answer(which, fail),
            Step::CallerGoes { which, overdue } => {
                if let Some(caller) = self.callers.get_mut(which) {
                    self.app.abandon(caller.id, overdue);
                    caller.left = true;
                }
            }
            Step::Impatient { which } => {
                if let Some(caller) = self.callers.get_mut(which) {
                    caller.left |= self.app.leave_queue(caller.id);
                }
            }
            Step::RuntimeGoes { which } => {
                if which < self.runtimes.len() {
                    self.app.remove(self.runtimes.remove(which).id);
                }
            }
            Step::Resize { which, places } => {
                if let Some(seen) = self.runtimes.get_mut(which) {
                    seen.most = seen.most.max(places);
                    self.app.resize(seen.id, places);
                }
            }
        }
        self.listen();
    }

    fn register(&mut self, places: usize, functions: usize) {
        let (out, messages) = mpsc::channel(64);
        let spec = |name: &&str| FunctionSpec {
            name: (*name).to_owned(),
            ..FunctionSpec::default()
        };
        let id = self.app.add(NewRuntime {
            instance: format!("greet.{}", self.app.lock().last_id),
            kind: "test".to_owned(),
            functions: FUNCTIONS[..functions].iter().map(spec).collect(),
            places,
            out,
            end: CancellationToken::new(),
        });
        self.runtimes.push(Seen {
            id,
            functions,
            most: places,
            messages,
            open: Vec::new(),
        });
    }

    fn enter(&mut self, function: &str) {
        let call = Call {
            function: function.to_owned(),
            payload: Bytes::new(),
            metadata: BTreeMap::new(),
            began: Instant::now(),
            timeout: None,
        };
        let (reply, receiver) = Reply::whole();
        match self.app.enter(call, reply, Some(&self.entry)) {
            Ok(entered) => self.callers.push(Caller {
                id: entered.id,
                receiver,
                left: false,
            }),
            Err(error) => assert!(
                matches!(error, CallError::QueueFull { waiting: 5, .. }),
                "{error}"
            ),
        }
    }

    fn answer(&mut self, which: usize, fail: bool) {
        let Some((runtime, id)) = self.runtimes.iter_mut().find_map(|seen| {
            let at = which.min(seen.open.len().checked_sub(1)?);
            Some((seen.id, seen.open.remove(at)))
        }) else {
            return;
        };
        let finish = if fail {
            Finish::Failure(Kind::Function, "x".to_owned())
        } else {
            Finish::Result(Answer::default())
        };
        self.app.finish(runtime, id, finish);
    }

    /// What the runtimes were told, and that it may be so.
    fn listen(&mut self) {
        for seen in &mut self.runtimes {
            while let Ok(message) = seen.messages.try_recv() {
                match message.unwrap().message.unwrap() {
                    Down::Invoke(invocation) => {
                        assert!(
                            self.given.insert(invocation.invocation),
                            "a call was given twice"
                        );
                        assert!(
                            FUNCTIONS[..seen.functions].contains(&invocation.function.as_str())
                        );
                        seen.open.push(invocation.invocation);
                    }
                    Down::Cancel(cancel) => assert!(seen.open.contains(&cancel.invocation)),
                    other => panic!("unexpected: {other:?}"),
                }
            }
            assert!(seen.open.len() <= seen.most, "more calls than places");
        }
        let load = self.app.load();
        assert!(load.queued <= 5);
        assert_eq!(
            load.in_flight,
            self.runtimes
                .iter()
                .map(|seen| seen.open.len())
                .sum::<usize>()
        );
    }

    /// Everything ends: each caller that did not leave has its one answer, and the figures are back at nothing.
    fn end(mut self) {
        self.app.stop();
        for seen in std::mem::take(&mut self.runtimes) {
            self.app.remove(seen.id);
        }
        for caller in &mut self.callers {
            let answer = caller.receiver.try_recv();
            assert!(answer.is_ok() || caller.left, "a caller waits for ever");
        }
        assert!(self.app.is_empty() && self.app.is_idle());
        let meters = &self.app.meters;
        assert_eq!(
            (
                meters.in_flight.get(),
                meters.queued.get(),
                meters.runtimes.get()
            ),
            (0.0, 0.0, 0.0)
        );
    }
}

proptest! {
    #[test]
    fn whatever_happens_each_call_runs_at_most_once_and_each_caller_is_answered(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
        }
        model.end();
    }
}

#[test]
fn what_can_run_does_not_wait() {
    let mut model = Model::new();
    model.enter("g");
    model.enter("f");
    model.register(1, 1);
    model.listen();
    // The runtime has only f, and takes it past the call of g that came first.
    assert_eq!(model.runtimes[0].open, [model.callers[1].id]);
    model.register(1, 2);
    model.listen();
    assert_eq!(model.runtimes[1].open, [model.callers[0].id]);
}

#[test]
fn a_runtime_that_does_not_read_is_ended() {
    let model = Model::new();
    let (out, _unread) = mpsc::channel(1);
    let end = CancellationToken::new();
    let functions = vec![FunctionSpec {
        name: "f".to_owned(),
        ..FunctionSpec::default()
    }];
    let (instance, kind) = ("greet.1".to_owned(), "test".to_owned());
    model.app.add(NewRuntime {
        instance,
        kind,
        functions,
        places: 4,
        out,
        end: end.clone(),
    });
    let mut model = model;
    model.enter("f");
    assert!(!end.is_cancelled());
    model.enter("f");
    assert!(end.is_cancelled());
}
