use super::*;
use crate::name::Version;

const SECOND: Duration = Duration::from_secs(1);

fn release(version: &str) -> Release {
    Release {
        version: Version::new(version).unwrap(),
        digests: Vec::new(),
    }
}

fn waiting(why: &str) -> Health {
    Health::Starting {
        why: why.to_owned(),
    }
}

/// An update with a clock; every step checks that the state survives being written and read.
struct Run {
    update: Update,
    now: Duration,
}

impl Run {
    fn new() -> Self {
        Self {
            update: Update::new(AppName::new("web").unwrap(), Limits::default()),
            now: SECOND,
        }
    }

    fn next(&mut self, event: Event) -> Vec<Effect> {
        let (update, effects) = self.update.clone().next(event, self.now);
        let text = serde_json::to_string(&update).unwrap();
        self.update = serde_json::from_str(&text).unwrap();
        assert_eq!(self.update, update);
        effects
    }

    fn want(&mut self, version: &str) -> Vec<Effect> {
        self.next(Event::Want {
            release: release(version),
            generation: Generation(1),
        })
    }

    fn staged(&mut self, version: &str) -> Vec<Effect> {
        self.next(Event::Staged {
            release: release(version),
            limits: None,
        })
    }

    fn applied(&mut self, version: &str) -> Vec<Effect> {
        self.next(Event::Applied {
            release: release(version),
        })
    }

    fn observed(&mut self, version: &str, health: Health) -> Vec<Effect> {
        self.next(Event::Observed {
            release: release(version),
            health,
        })
    }

    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.next(Event::Tick)
    }

    fn crash(&mut self, version: &str) -> Vec<Effect> {
        self.observed(
            version,
            Health::Failing {
                reason: format!("{version} exits with code 1"),
            },
        )
    }

    /// Brings a version to Healthy.
    fn deploy(&mut self, version: &str) {
        self.want(version);
        self.staged(version);
        self.applied(version);
        self.observed(version, Health::Ready);
        assert_eq!(
            self.after(5 * SECOND),
            [Effect::Ended {
                phase: Phase::Healthy
            }]
        );
        assert_eq!(self.update.good(), Some(&release(version)));
    }

    /// Brings a version to the point where it is watched.
    fn probe(&mut self, version: &str) {
        self.want(version);
        self.staged(version);
        self.applied(version);
        assert_eq!(self.update.phase(), Some(Phase::Probing));
    }

    fn failure(&self) -> (&str, &str) {
        let failure = self.update.failure().unwrap();
        (failure.release.version.as_str(), failure.reason.as_str())
    }
}

fn stage(version: &str) -> Effect {
    Effect::Stage {
        release: release(version),
        after: Duration::ZERO,
    }
}

fn run(version: &str) -> Effect {
    Effect::Run {
        release: release(version),
    }
}

#[test]
fn a_good_release_is_staged_run_watched_and_healthy() {
    let mut it = Run::new();
    assert_eq!(it.update.phase(), None);
    assert_eq!(it.want("1"), [stage("1")]);
    assert_eq!(it.update.running(), None);
    assert_eq!(it.staged("1"), [run("1")]);
    assert_eq!(it.applied("1"), []);
    assert_eq!(it.observed("1", waiting("")), []);
    assert_eq!(it.observed("1", Health::Ready), []);
    assert_eq!(it.update.wake_in(), Some(5 * SECOND));
    assert_eq!(it.after(4 * SECOND), []);
    assert_eq!(
        it.after(SECOND),
        [Effect::Ended {
            phase: Phase::Healthy
        }]
    );
    assert_eq!(it.update.wake_in(), None);
    assert_eq!(it.update.failure(), None);
}

#[test]
fn the_old_release_runs_until_the_new_one_is_staged() {
    let mut it = Run::new();
    it.deploy("1");
    assert_eq!(it.want("2"), [stage("2")]);
    assert_eq!(it.update.running(), Some(&release("1")));
    assert_eq!(it.update.kept(), [&release("1"), &release("2")]);
    assert_eq!(it.staged("2"), [run("2")]);
}

#[test]
fn a_release_that_crashes_is_undone_and_says_why() {
    let mut it = Run::new();
    it.deploy("1");
    it.probe("2");
    assert_eq!(it.crash("2"), [run("1")]);
    it.applied("1");
    it.observed("1", Health::Ready);
    assert_eq!(
        it.after(5 * SECOND),
        [Effect::Ended {
            phase: Phase::RolledBack
        }]
    );
    assert_eq!(it.failure(), ("2", "2 exits with code 1"));
    assert_eq!(it.update.running(), Some(&release("1")));
    assert!(it.update.failed(&release("2")).is_some());
}

#[test]
fn a_release_that_never_becomes_ready_is_undone() {
    let mut it = Run::new();
    it.deploy("1");
    it.probe("2");
    it.observed("2", waiting(""));
    assert_eq!(it.after(Duration::from_secs(299)), []);
    assert_eq!(it.after(SECOND), [run("1")]);
    assert_eq!(it.failure(), ("2", "not ready within 300s"));
    it.probe("3");
    it.observed("3", waiting("web.1: its image cannot be pulled"));
    it.after(300 * SECOND);
    let reason = "not ready within 300s: web.1: its image cannot be pulled";
    assert_eq!(it.failure(), ("3", reason));
}

#[test]
fn a_release_that_comes_and_goes_is_not_healthy() {
    let mut it = Run::new();
    it.probe("1");
    for _ in 0..50 {
        it.observed("1", Health::Ready);
        assert_eq!(it.after(4 * SECOND), []);
        it.observed("1", waiting(""));
    }
    assert_eq!(it.update.phase(), Some(Phase::Probing));
    assert_eq!(
        it.after(100 * SECOND),
        [Effect::Ended {
            phase: Phase::Failed
        }]
    );
}

#[test]
fn a_first_release_that_fails_has_nothing_to_go_back_to_and_may_recover() {
    let mut it = Run::new();
    it.probe("1");
    assert_eq!(
        it.crash("1"),
        [Effect::Ended {
            phase: Phase::Failed
        }]
    );
    assert_eq!(it.update.good(), None);
    it.observed("1", Health::Ready);
    assert_eq!(
        it.after(5 * SECOND),
        [Effect::Ended {
            phase: Phase::Healthy
        }]
    );
    assert_eq!(it.update.failed(&release("1")), None);
}

#[test]
fn a_failed_release_is_tried_again_only_when_asked() {
    let mut it = Run::new();
    it.deploy("1");
    it.probe("2");
    it.crash("2");
    it.applied("1");
    it.observed("1", Health::Succeeded);
    assert_eq!(it.update.phase(), Some(Phase::RolledBack));
    assert_eq!(it.want("2"), []);
    assert_eq!(it.next(Event::Online), []);
    assert_eq!(it.next(Event::Retry), [stage("2")]);
    assert_eq!(it.update.failure(), None);
}

#[test]
fn what_could_not_be_staged_is_tried_again_when_the_cloud_is_back() {
    let mut it = Run::new();
    it.deploy("1");
    it.want("2");
    let failed = Event::StageFailed {
        release: release("2"),
        reason: "no route".into(),
        permanent: false,
    };
    assert_eq!(
        it.next(failed.clone()),
        [Effect::Stage {
            release: release("2"),
            after: SECOND
        }]
    );
    assert_eq!(
        it.next(failed),
        [Effect::Stage {
            release: release("2"),
            after: 2 * SECOND
        }]
    );
    assert_eq!(
        it.after(Limits::default().stage),
        [Effect::Ended {
            phase: Phase::RolledBack
        }]
    );
    assert_eq!(
        it.failure(),
        (
            "2",
            "not complete on this node within 1800s; last: no route"
        )
    );
    assert_eq!(it.update.running(), Some(&release("1")));
    assert_eq!(it.next(Event::Online), [stage("2")]);
}

#[test]
fn what_the_cloud_refuses_ends_the_update_at_once() {
    let mut it = Run::new();
    it.want("1");
    let failed = Event::StageFailed {
        release: release("1"),
        reason: "digest differs".into(),
        permanent: true,
    };
    assert_eq!(
        it.next(failed),
        [Effect::Ended {
            phase: Phase::Failed
        }]
    );
    assert_eq!(it.failure(), ("1", "digest differs"));
    assert_eq!(it.want("1"), [stage("1")]);
}

#[test]
fn a_pause_between_attempts_never_exceeds_a_minute() {
    let mut it = Run::new();
    it.want("1");
    let failed = Event::StageFailed {
        release: release("1"),
        reason: "x".into(),
        permanent: false,
    };
    for _ in 0..200 {
        match it.next(failed.clone()).as_slice() {
            [Effect::Stage { after, .. }] => assert!(*after <= MAX_STAGE_PAUSE),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_newer_wish_pre_empts_staging_probing_and_going_back() {
    let mut it = Run::new();
    it.deploy("1");
    it.want("2");
    assert_eq!(it.want("3"), [stage("3")]);
    assert_eq!(it.staged("2"), []);
    assert_eq!(it.staged("3"), [run("3")]);
    assert_eq!(it.want("4"), [stage("4")]);
    assert_eq!(it.applied("3"), []);
    assert_eq!(it.crash("3"), []);
    it.staged("4");
    it.applied("4");
    assert_eq!(it.crash("4"), [run("1")]);
    assert_eq!(it.want("5"), [stage("5")]);
    assert_eq!(it.update.candidate(), Some(&release("5")));
}

#[test]
fn wishing_the_last_good_release_again_while_it_runs_does_nothing() {
    let mut it = Run::new();
    it.deploy("1");
    it.want("2");
    assert_eq!(
        it.want("1"),
        [Effect::Ended {
            phase: Phase::Healthy
        }]
    );
    it.probe("3");
    it.crash("3");
    assert_eq!(it.update.state(), State::Applying { back: true });
    assert_eq!(it.want("1"), []);
    assert_eq!(it.update.state(), State::Applying { back: false });
    it.applied("1");
    assert_eq!(
        it.observed("1", Health::Succeeded),
        [Effect::Ended {
            phase: Phase::Healthy
        }]
    );
    assert_eq!(it.update.failure(), None);
}

#[test]
fn wishing_a_release_that_failed_goes_back_at_once() {
    let mut it = Run::new();
    it.deploy("1");
    it.probe("2");
    it.crash("2");
    it.probe("3");
    assert_eq!(it.want("2"), [run("1")]);
    assert_eq!(it.failure(), ("2", "2 exits with code 1"));
}

#[test]
fn going_back_that_fails_too_ends_and_tells_both_reasons() {
    let mut it = Run::new();
    it.deploy("1");
    it.probe("2");
    it.crash("2");
    let refused = Event::ApplyFailed {
        release: release("1"),
        reason: "no space".into(),
    };
    assert_eq!(
        it.next(refused),
        [Effect::Ended {
            phase: Phase::Failed
        }]
    );
    assert_eq!(
        it.failure(),
        ("2", "2 exits with code 1; going back failed too: no space")
    );
    it.observed("1", Health::Ready);
    assert_eq!(
        it.after(5 * SECOND),
        [Effect::Ended {
            phase: Phase::RolledBack
        }]
    );
}

#[test]
fn a_healthy_release_is_left_alone_whatever_happens() {
    let mut it = Run::new();
    it.deploy("1");
    assert_eq!(it.crash("1"), []);
    assert_eq!(it.want("1"), []);
    assert_eq!(it.next(Event::Online), []);
    assert_eq!(it.next(Event::Retry), []);
    assert_eq!(it.after(Duration::from_secs(1_000_000)), []);
    assert_eq!(it.update.phase(), Some(Phase::Healthy));
}

#[test]
fn a_program_that_starts_again_tells_everything_again_and_time_begins_anew() {
    let mut it = Run::new();
    it.deploy("1");
    assert_eq!(it.next(Event::Resume), [run("1")]);
    it.want("2");
    it.now = Duration::ZERO;
    assert_eq!(it.next(Event::Resume), [run("1"), stage("2")]);
    it.staged("2");
    it.after(119 * SECOND);
    it.now = Duration::ZERO;
    assert_eq!(it.next(Event::Resume), [run("2")]);
    assert_eq!(it.update.phase(), Some(Phase::Applying));
    assert_eq!(it.after(SECOND), [run("1")]);
    assert_eq!(it.failure(), ("2", "not taken by the runtime within 120s"));
}

#[test]
fn limits_that_follow_from_the_application_replace_the_general_ones() {
    let mut it = Run::new();
    it.want("1");
    let limits = Limits {
        settle: Duration::ZERO,
        ..Limits::default()
    };
    it.next(Event::Staged {
        release: release("1"),
        limits: Some(limits),
    });
    it.applied("1");
    assert_eq!(
        it.observed("1", Health::Ready),
        [Effect::Ended {
            phase: Phase::Healthy
        }]
    );
}

#[test]
fn only_so_many_failures_are_remembered() {
    let mut it = Run::new();
    it.deploy("g");
    for version in 0..40 {
        it.probe(&format!("v{version}"));
        it.crash(&format!("v{version}"));
    }
    assert_eq!(it.update.failures().len(), MAX_FAILED);
    assert!(it.update.failed(&release("v39")).is_some());
}

#[test]
fn passing_time_is_not_worth_a_write() {
    let mut it = Run::new();
    it.want("1");
    let before = it.update.clone();
    it.after(SECOND);
    assert_ne!(it.update, before);
    assert!(!it.update.differs(&before));
    it.staged("1");
    assert!(it.update.differs(&before));
}
