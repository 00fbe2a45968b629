use std::time::Duration;

use super::*;
use crate::desire::Release;
use crate::name::{AppName, Epoch, NodeUid, Version};
use crate::update::{Effect, Event, Limits};

const SERVICE: Shape = Shape {
    wanted: 2,
    job: false,
};
const JOB: Shape = Shape {
    wanted: 2,
    job: true,
};

fn instance(name: &str, status: RunStatus, ready: bool) -> InstanceStatus {
    InstanceStatus {
        name: name.into(),
        status,
        ready,
        ..InstanceStatus::default()
    }
}

fn running(name: &str) -> InstanceStatus {
    instance(name, RunStatus::Running, true)
}

fn of(shape: Shape, instances: &[InstanceStatus]) -> RunStatus {
    status(shape, &instances.iter().collect::<Vec<_>>())
}

fn health_of(shape: Shape, instances: &[InstanceStatus], before: &Restarts) -> Health {
    health(shape, &instances.iter().collect::<Vec<_>>(), before)
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn release(version: &str) -> Release {
    Release {
        version: Version::new(version).unwrap(),
        digests: Vec::new(),
    }
}

/// An update after a series of events at time zero.
fn update(events: Vec<Event>) -> Update {
    let limits = Limits {
        settle: Duration::ZERO,
        ..Limits::default()
    };
    let new = Update::new(AppName::new("web").unwrap(), limits);
    events
        .into_iter()
        .fold(new, |update, event| update.next(event, Duration::ZERO).0)
}

fn deployed(version: &str) -> Vec<Event> {
    let release = release(version);
    vec![
        Event::Want {
            release: release.clone(),
            generation: Generation(7),
        },
        Event::Staged {
            release: release.clone(),
            limits: None,
        },
        Event::Applied {
            release: release.clone(),
        },
        Event::Observed {
            release,
            health: Health::Ready,
        },
    ]
}

fn failed(version: &str) -> Vec<Event> {
    let mut events = deployed(version);
    events.pop();
    let health = Health::Failing {
        reason: "web.1 exits with code 1".into(),
    };
    events.push(Event::Observed {
        release: release(version),
        health,
    });
    events
}

fn roll(
    update: &Update,
    instances: Option<&[InstanceStatus]>,
    previous: Option<&AppStatus>,
    now: i64,
) -> AppStatus {
    let facts = AppFacts {
        update,
        shape: SERVICE,
        deploy_type: "deployment",
        system: false,
        instances,
        previous,
    };
    rollup_app(&facts, time(now))
}

fn truths(conditions: &[Condition]) -> Vec<(&str, Truth)> {
    conditions
        .iter()
        .map(|condition| (condition.kind.as_str(), condition.status))
        .collect()
}

#[test]
fn a_service_runs_when_enough_instances_are_ready() {
    use RunStatus::{Failed, Pending, Running, Succeeded, Unknown};
    for (instances, wanted) in [
        (vec![running("a"), running("b")], Running),
        (vec![running("a")], Pending),
        (vec![], Pending),
        (vec![running("a"), instance("b", Running, false)], Pending),
        (vec![running("a"), instance("b", Pending, false)], Pending),
        (
            vec![running("a"), running("b"), instance("c", Pending, false)],
            Pending,
        ),
        (vec![running("a"), instance("b", Unknown, false)], Unknown),
        (vec![running("a"), instance("b", Failed, false)], Failed),
        (
            vec![instance("a", Unknown, false), instance("b", Failed, false)],
            Failed,
        ),
        (vec![running("a"), instance("b", Succeeded, false)], Running),
    ] {
        assert_eq!(of(SERVICE, &instances), wanted, "{instances:?}");
    }
    assert_eq!(
        of(
            Shape {
                wanted: 0,
                job: false
            },
            &[]
        ),
        Running,
        "nothing was asked for and nothing is there"
    );
}

#[test]
fn a_job_succeeds_when_enough_instances_did() {
    let done = |name: &str| instance(name, RunStatus::Succeeded, false);
    assert_eq!(of(JOB, &[done("a"), done("b")]), RunStatus::Succeeded);
    assert_eq!(of(JOB, &[done("a"), running("b")]), RunStatus::Running);
    assert_eq!(
        of(JOB, &[done("a"), instance("b", RunStatus::Failed, false)]),
        RunStatus::Failed
    );
    assert_eq!(of(JOB, &[]), RunStatus::Pending);
    assert_eq!(
        health_of(JOB, &[done("a"), done("b")], &Restarts::new()),
        Health::Succeeded
    );
}

#[test]
fn an_instance_that_is_started_again_and_again_fails_its_release() {
    let crashing = |restarts: u32| InstanceStatus {
        restarts,
        cause: "exit code 1".into(),
        ..instance("web.1", RunStatus::Pending, false)
    };
    let one = Shape {
        wanted: 1,
        job: false,
    };
    assert_eq!(
        health_of(one, &[crashing(2)], &Restarts::new()),
        Health::Starting {
            why: "web.1: exit code 1".to_owned()
        }
    );
    let reason = "web.1 was started again 3 times: exit code 1".to_owned();
    assert_eq!(
        health_of(one, &[crashing(3)], &Restarts::new()),
        Health::Failing { reason }
    );
    let before = restarts(&[crashing(3)]);
    assert_eq!(
        health_of(one, &[crashing(5)], &before),
        Health::Starting {
            why: "web.1: exit code 1".to_owned()
        },
        "a former life does not count"
    );
    let reason = "web.1 failed: no such program".to_owned();
    let failed = InstanceStatus {
        cause: "no such program".into(),
        ..instance("web.1", RunStatus::Failed, false)
    };
    assert_eq!(
        health_of(one, &[failed], &Restarts::new()),
        Health::Failing { reason }
    );
}

#[test]
fn what_is_not_observed_is_unknown_and_not_pending() {
    let app = roll(&update(deployed("1")), None, None, 0);
    assert_eq!(app.status, RunStatus::Unknown);
    assert_eq!(app.conditions[0].status, Truth::Unknown);
    assert_eq!(app.cause, "its instances cannot be observed");
    assert_eq!(
        health_of(
            SERVICE,
            &[running("a"), instance("b", RunStatus::Unknown, false)],
            &Restarts::new()
        ),
        Health::Unknown
    );
}

#[test]
fn a_healthy_application_tells_its_version_generation_and_no_cause() {
    let app = roll(
        &update(deployed("1")),
        Some(&[running("a"), running("b")]),
        None,
        5,
    );
    assert_eq!(app.version, Some(Version::new("1").unwrap()));
    assert_eq!(
        (app.status, app.phase, app.cause.as_str()),
        (RunStatus::Running, Some(Phase::Healthy), "")
    );
    assert_eq!(app.observed_generation, Generation(7));
    assert_eq!(
        truths(&app.conditions),
        [
            ("Ready", Truth::True),
            ("Progressing", Truth::False),
            ("Degraded", Truth::False)
        ]
    );
    assert_eq!(app.instances.keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_release_that_was_undone_is_told_with_its_reason_while_the_old_one_runs() {
    let mut events = deployed("1");
    events.extend(failed("2"));
    events.extend([
        Event::Applied {
            release: release("1"),
        },
        Event::Observed {
            release: release("1"),
            health: Health::Ready,
        },
    ]);
    let app = roll(
        &update(events),
        Some(&[running("a"), running("b")]),
        None,
        0,
    );
    assert_eq!(
        (app.status, app.phase),
        (RunStatus::Running, Some(Phase::RolledBack))
    );
    assert_eq!(app.version, Some(Version::new("1").unwrap()));
    let failed = app.failed.unwrap();
    assert_eq!(
        (failed.version.as_str(), failed.reason.as_str()),
        ("2", "web.1 exits with code 1")
    );
    assert_eq!(
        app.cause,
        "version 2 failed and was undone: web.1 exits with code 1"
    );
    assert_eq!(
        truths(&app.conditions),
        [
            ("Ready", Truth::True),
            ("Progressing", Truth::False),
            ("Degraded", Truth::True)
        ]
    );
}

#[test]
fn an_application_on_its_way_says_what_it_waits_for() {
    let wanted = update(vec![Event::Want {
        release: release("1"),
        generation: Generation(7),
    }]);
    let app = roll(&wanted, Some(&[]), None, 0);
    assert_eq!(
        (app.status, app.cause.as_str()),
        (RunStatus::Pending, "its content is being fetched")
    );
    assert_eq!(app.version, None);
    let mut events = deployed("1");
    events.pop();
    let waiting = InstanceStatus {
        cause: "its readiness probe fails".into(),
        ..instance("a", RunStatus::Running, false)
    };
    let app = roll(&update(events), Some(&[waiting]), None, 0);
    assert_eq!(app.cause, "a: its readiness probe fails");
    assert_eq!(app.conditions[1].status, Truth::True);
}

#[test]
fn what_failed_before_it_began_has_failed() {
    let refused = Event::StageFailed {
        release: release("1"),
        reason: "refused".into(),
        permanent: true,
    };
    let it = update(vec![
        Event::Want {
            release: release("1"),
            generation: Generation(7),
        },
        refused,
    ]);
    let app = roll(&it, Some(&[]), None, 0);
    assert_eq!(
        (app.status, app.cause.as_str()),
        (RunStatus::Failed, "version 1 failed: refused")
    );
}

#[test]
fn what_is_fetched_again_has_not_failed() {
    let away = Event::StageFailed {
        release: release("2"),
        reason: "no route".into(),
        permanent: false,
    };
    let mut events = deployed("1");
    let release = release("2");
    let generation = Generation(8);
    events.extend([
        Event::Want {
            release,
            generation,
        },
        away,
    ]);
    let app = roll(
        &update(events),
        Some(&[running("a"), running("b")]),
        None,
        0,
    );
    assert_eq!(app.status, RunStatus::Running);
    let cause = "version 2 is not complete on this node yet: no route";
    assert_eq!((app.cause.as_str(), app.failed), (cause, None));
}

#[test]
fn the_time_of_a_transition_stays_while_the_status_does() {
    let it = update(deployed("1"));
    let first = roll(&it, Some(&[running("a")]), None, 10);
    let second = roll(&it, Some(&[running("a"), running("b")]), Some(&first), 20);
    let third = roll(&it, Some(&[running("a"), running("b")]), Some(&second), 30);
    let times = |app: &AppStatus| {
        app.conditions
            .iter()
            .map(|c| c.last_transition.unwrap().as_second())
            .collect::<Vec<_>>()
    };
    assert_eq!(times(&first), [10, 10, 10]);
    assert_eq!(times(&second), [20, 10, 10]);
    assert_eq!(times(&third), [20, 10, 10]);
    assert_eq!(second, third);
}

#[test]
fn the_node_names_who_is_on_its_way_and_who_is_degraded() {
    let header = Header {
        node_uid: NodeUid::new("u1").unwrap(),
        epoch: Epoch(0),
        generation: Generation(9),
        digest: crate::Digest::from_sha256([0; 32]),
    };
    let healthy = roll(
        &update(deployed("1")),
        Some(&[running("a"), running("b")]),
        None,
        0,
    );
    let mut broken = roll(
        &update(failed("1")),
        Some(&[instance("a", RunStatus::Pending, false)]),
        None,
        0,
    );
    broken.name = AppName::new("db").unwrap();
    let conditions = rollup_node(Some(&header), [&healthy, &broken], &[], time(3));
    assert_eq!(
        truths(&conditions),
        [
            ("Ready", Truth::True),
            ("Progressing", Truth::False),
            ("Degraded", Truth::True)
        ]
    );
    assert_eq!(conditions[2].message, "db");
    assert_eq!(conditions[0].observed_generation, Generation(9));
    let none = rollup_node(None, [], &conditions, time(4));
    assert_eq!(
        (none[0].status, none[0].reason.as_str()),
        (Truth::False, "NoDesire")
    );
}

#[test]
fn the_first_ready_moment_ends_the_update_of_a_settled_limit() {
    let (_, effects) = {
        let mut events = deployed("1");
        let last = events.pop().unwrap();
        update(events).next(last, Duration::ZERO)
    };
    assert_eq!(
        effects,
        [Effect::Ended {
            phase: Phase::Healthy
        }]
    );
}
