use super::*;

fn core(version: &str) -> Core {
    Core {
        version: version.to_owned(),
        class: "k3s".to_owned(),
        registry: "r:5000/b".to_owned(),
    }
}

fn wish(version: &str) -> DesiredCore {
    DesiredCore {
        version: version.to_owned(),
        ..DesiredCore::default()
    }
}

fn record(phase: Phase) -> Upgrade {
    Upgrade {
        phase,
        ..Upgrade::new(core("1"), core("2"))
    }
}

const PHASES: [Phase; 5] = [
    Phase::Begun,
    Phase::Applying,
    Phase::RollingBack,
    Phase::Upgraded,
    Phase::Failed,
];

#[test]
fn what_is_not_wished_stays_as_it_is() {
    assert_eq!(core("1").wished(None), core("1"));
    assert_eq!(core("1").wished(Some(&wish(""))), core("1"));
    let all = DesiredCore {
        version: "2".to_owned(),
        class: "cluster".to_owned(),
        registry: "other".to_owned(),
    };
    let wished = core("1").wished(Some(&all));
    assert_eq!(wished.to_string(), "2 (cluster, other)");
}

#[test]
fn what_runs_is_left_alone_and_what_differs_is_begun() {
    let runs = core("1");
    for wish in [None, Some(&wish("")), Some(&wish("1"))] {
        assert_eq!(next(wish, &runs, None, &Job::Absent), Next::Rest);
    }
    let begun = next(Some(&wish("2")), &runs, None, &Job::Absent);
    assert_eq!(begun, Next::Begin(core("2")));
}

#[test]
fn a_version_that_failed_is_not_tried_again_until_something_else_is_wished() {
    let (runs, failed) = (core("1"), record(Phase::Failed));
    let ended = Job::Ended("BackoffLimitExceeded".to_owned());
    for job in [Job::Absent, ended] {
        let next = |wished: &str| next(Some(&wish(wished)), &runs, Some(&failed), &job);
        assert_eq!(next("2"), Next::Rest);
        assert_eq!(next("3"), Next::Begin(core("3")));
        // Then "2" is an ordinary wish again.
        assert_eq!(next("1"), Next::Forget);
        assert_eq!(next(""), Next::Forget);
    }
}

#[test]
fn a_new_version_rests_and_leads_on() {
    let (runs, upgraded) = (core("2"), record(Phase::Upgraded));
    let next = |wished: &str, job| next(Some(&wish(wished)), &runs, Some(&upgraded), job);
    assert_eq!(next("2", &Job::Active), Next::Look);
    assert_eq!(next("2", &Job::Absent), Next::Rest);
    assert_eq!(next("1", &Job::Absent), Next::Begin(core("1")));
}

#[test]
fn a_job_that_never_got_to_work_is_given_up_or_called_off() {
    let (runs, begun) = (core("1"), record(Phase::Begun));
    let why = || "ImagePullBackOff".to_owned();
    let next = |wished: &str, job: &Job| next(Some(&wish(wished)), &runs, Some(&begun), job);
    assert_eq!(next("2", &Job::Active), Next::Look);
    assert_eq!(next("2", &Job::Overdue(why())), Next::GiveUp(why()));
    assert_eq!(next("2", &Job::Ended(why())), Next::GiveUp(why()));
    assert_eq!(next("2", &Job::Absent), Next::Resume);
    for job in [Job::Absent, Job::Active, Job::Overdue(why())] {
        assert_eq!(next("1", &job), Next::Forget);
        assert_eq!(next("3", &job), Next::Forget);
        let installed = super::next(Some(&wish("2")), &core("2"), Some(&begun), &job);
        assert_eq!(installed, Next::Forget, "somebody else brought it");
    }
}

#[test]
fn one_that_changed_something_is_brought_to_its_end_whatever_is_wished_meanwhile() {
    for phase in [Phase::Applying, Phase::RollingBack] {
        for runs in ["1", "2"] {
            for wished in ["1", "2", "3", ""] {
                let next = |job: Job| {
                    let record = record(phase);
                    next(Some(&wish(wished)), &core(runs), Some(&record), &job)
                };
                assert_eq!(next(Job::Active), Next::Look);
                assert_eq!(next(Job::Overdue(String::new())), Next::Look);
                assert_eq!(next(Job::Absent), Next::Resume);
                assert_eq!(next(Job::Ended(String::new())), Next::Resume);
            }
        }
    }
}

#[test]
fn every_phase_has_a_word_and_a_record_is_read_as_it_was_written() {
    let words = PHASES.map(|phase| record(phase).tell().0);
    let expected = [
        "Upgrading",
        "Upgrading",
        "RollingBack",
        "Upgraded",
        "Failed",
    ];
    assert_eq!(words, expected);
    for phase in PHASES {
        let text = serde_json::to_string(&record(phase)).unwrap();
        assert_eq!(
            serde_json::from_str::<Upgrade>(&text).unwrap(),
            record(phase)
        );
    }
}
