//! Decisions, without a process.

use super::*;

fn exit(end: RunEnd) -> LastExit {
    LastExit {
        end,
        reason: Reason::Exited,
        message: String::new(),
        at_ms: None,
    }
}

fn backoff() -> Backoff {
    Backoff {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(10),
        reset_after: Duration::from_secs(60),
    }
}

fn judge_all(policy: RestartPolicy, end: RunEnd) -> Verdict {
    judge(
        policy,
        &backoff(),
        &mut History::default(),
        &exit(end),
        Seen::Watched(Some(Duration::from_secs(1))),
    )
}

#[test]
fn each_policy_says_what_follows_each_end() {
    let restart = Verdict::Restart(Duration::from_secs(1));
    let (good, bad, unknown) = (RunEnd::Code(0), RunEnd::Code(1), RunEnd::Unknown);
    for (policy, end, verdict) in [
        (RestartPolicy::Always, good, restart),
        (RestartPolicy::Always, bad, restart),
        (RestartPolicy::OnFailure, good, Verdict::Succeeded),
        (RestartPolicy::OnFailure, RunEnd::Signal(9), restart),
        (RestartPolicy::OnFailure, unknown, restart),
        (RestartPolicy::Never, good, Verdict::Succeeded),
        (RestartPolicy::Never, bad, Verdict::Failed),
        (RestartPolicy::Never, unknown, Verdict::Failed),
        (RestartPolicy::Never, RunEnd::NotStarted, Verdict::Failed),
    ] {
        assert_eq!(judge_all(policy, end), verdict, "{policy:?} {end:?}");
    }
}

#[test]
fn waiting_doubles_up_to_its_limit_and_a_long_run_starts_it_anew() {
    let mut history = History::default();
    let mut next = |seconds| {
        let verdict = judge(
            RestartPolicy::Always,
            &backoff(),
            &mut history,
            &exit(RunEnd::Code(1)),
            Seen::Watched(Some(Duration::from_secs(seconds))),
        );
        let Verdict::Restart(delay) = verdict else {
            panic!("{verdict:?}")
        };
        delay.as_secs()
    };
    assert_eq!(
        [next(0), next(1), next(2), next(3), next(59), next(5)],
        [1, 2, 4, 8, 10, 10]
    );
    assert_eq!([next(60), next(0)], [1, 2]);
    assert_eq!((history.restarts, history.failures), (8, 8));
}

#[test]
fn what_is_found_ended_waits_for_nothing_and_is_no_part_of_a_crash_loop() {
    let mut history = History::default();
    let mut next = |seen| {
        judge(
            RestartPolicy::Always,
            &backoff(),
            &mut history,
            &exit(RunEnd::Unknown),
            seen,
        )
    };
    for _ in 0..3 {
        assert_eq!(next(Seen::Before), Verdict::Restart(Duration::ZERO));
    }
    let watched = next(Seen::Watched(None));
    assert_eq!(watched, Verdict::Restart(backoff().initial));
    assert_eq!((history.restarts, history.failures), (4, 4));
    let good = judge(
        RestartPolicy::OnFailure,
        &backoff(),
        &mut history,
        &exit(RunEnd::Code(0)),
        Seen::Before,
    );
    assert_eq!(good, Verdict::Succeeded);
}

#[test]
fn a_hundred_ends_in_a_row_do_not_overflow() {
    assert_eq!(delay(&backoff(), 100), Duration::from_secs(10));
    assert_eq!(
        delay(
            &Backoff {
                max: Duration::MAX,
                ..backoff()
            },
            200
        ),
        Duration::from_secs(u64::from(u32::MAX))
    );
}

#[test]
fn a_requested_restart_and_a_reboot_wait_for_nothing_and_are_no_failure() {
    for reason in [Reason::Requested, Reason::Rebooted] {
        let mut history = History {
            streak: 5,
            ..History::default()
        };
        let ended = LastExit {
            reason,
            ..exit(RunEnd::Signal(15))
        };
        let seen = Seen::Watched(None);
        let verdict = judge(RestartPolicy::Never, &backoff(), &mut history, &ended, seen);
        assert_eq!(verdict, Verdict::Restart(Duration::ZERO));
        assert_eq!(
            (history.streak, history.restarts, history.failures),
            (0, 1, 0)
        );
    }
}

#[test]
fn a_job_keeps_its_parallelism_and_ends_when_all_succeeded() {
    let mut job = Job::new(3, 2, 6);
    assert_eq!(job.begin(), [0, 1]);
    assert!(job.begin().is_empty());
    assert_eq!(job.ended(1, true, 0), JobState::Active);
    assert_eq!(job.begin(), [2]);
    assert_eq!(job.ended(0, true, 0), JobState::Active);
    assert_eq!(job.ended(2, true, 0), JobState::Succeeded);
    assert!(job.begin().is_empty());
}

#[test]
fn a_job_tries_again_up_to_its_limit() {
    let mut job = Job::new(1, 0, 1);
    assert_eq!(job.begin(), [0]);
    assert_eq!(job.ended(0, false, 1), JobState::Active);
    assert_eq!(job.begin(), [0]);
    assert_eq!(job.ended(0, false, 2), JobState::Failed);
    assert!(job.begin().is_empty());
}

#[test]
fn a_job_without_completions_has_succeeded() {
    assert_eq!(Job::new(0, 1, 0).state(), JobState::Succeeded);
}
