//! One application from version to version, between fakes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use baetyl_model::report::{Phase, RunStatus};
use baetyl_testkit::{Capture, eventually};
use serde_json::json;
use tokio::sync::oneshot;

use super::Command;
use crate::ports::{ContentError, ContentEvent};
use crate::testing::{Behaviour, Bench, app, app_with, release};

#[tokio::test]
async fn a_new_version_runs_beside_the_old_one_until_it_is_ready() {
    let mut bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::NeverReady);
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "Probing 2").await;
    assert_eq!(bench.runtime.names(), ["shop.1.web", "shop.2.web"]);
    bench.runtime.behave("2", Behaviour::Ready);
    bench.until("shop", "Healthy 2").await;
    eventually!(bench.runtime.names() == ["shop.2.web"]);
    eventually!(
        bench.runtime.log() == ["start shop.1.web", "start shop.2.web", "remove shop.1.web"]
    );
    bench.kill().await;
}

#[tokio::test]
async fn the_old_version_serves_until_the_new_one_is_staged() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    let next = app("shop", "2");
    bench.content.hold(&next);
    bench.desire(2, &[&next]);
    bench.until("shop", "Staging 1").await;
    assert_eq!(bench.runtime.log(), ["start shop.1.web"]);
    assert_eq!(bench.shadow.app("shop").unwrap().status, RunStatus::Running);
    bench.content.let_go();
    bench.until("shop", "Healthy 2").await;
}

#[tokio::test]
async fn a_version_with_a_port_of_the_machine_waits_until_the_old_one_stopped() {
    let bench = Bench::started().await;
    let fixed = |version: &str| {
        app_with(
            "shop",
            version,
            json!({"services": [{"name": "web", "command": ["run"], "ports": [{"hostPort": 80}]}]}),
        )
    };
    bench.desire(1, &[&fixed("1")]);
    bench.until("shop", "Healthy 1").await;
    bench.desire(2, &[&fixed("2")]);
    bench.until("shop", "Healthy 2").await;
    eventually!(
        bench.runtime.log()
            == [
                "start shop.1.web",
                "stop shop.1.web",
                "start shop.2.web",
                "remove shop.1.web"
            ]
    );
}

#[tokio::test]
async fn a_version_that_crashes_is_undone_and_named_with_its_reason() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    let pids = bench.runtime.running();
    bench.runtime.behave("2", Behaviour::Crash);
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "RolledBack 1").await;
    let status = bench.shadow.app("shop").unwrap();
    let failed = status.failed.unwrap();
    assert_eq!(failed.version.as_str(), "2");
    assert!(
        failed.reason.contains("exited with code 1"),
        "{}",
        failed.reason
    );
    assert_eq!(
        (status.status, status.observed_generation.get()),
        (RunStatus::Running, 2)
    );
    eventually!(
        bench.runtime.running() == pids,
        "the old version was never touched"
    );
    eventually!(
        bench
            .content
            .events()
            .iter()
            .any(|event| event.reason == "AppRolledBack" && event.warning)
    );
}

#[tokio::test]
async fn a_recreated_version_that_crashes_brings_the_old_one_back() {
    let bench = Bench::started().await;
    let labels = json!({"labels": {"baetyl-update-strategy": "recreate"}});
    bench.desire(1, &[&app_with("shop", "1", labels.clone())]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::Crash);
    bench.desire(2, &[&app_with("shop", "2", labels)]);
    bench.until("shop", "RolledBack 1").await;
    assert_eq!(bench.runtime.names(), ["shop.1.web"]);
    let log = [
        "start shop.1.web",
        "stop shop.1.web",
        "start shop.2.web",
        "stop shop.2.web",
        "start shop.1.web",
    ];
    assert_eq!(bench.runtime.log(), log);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_the_old_version_down() {
    let mut bench = Bench::started().await;
    let labels = json!({"labels": {"baetyl-update-strategy": "recreate"}});
    bench.desire(1, &[&app_with("shop", "1", labels.clone())]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::NeverReady);
    bench.desire(2, &[&app_with("shop", "2", labels)]);
    bench.until("shop", "Probing 2").await;
    bench.fill_disk(true);
    bench.runtime.behave("2", Behaviour::Fail);
    eventually!(bench.runtime.names() == ["shop.1.web"]);
    // Nothing of it is on disk, so it happens once more after a restart, when there is room again.
    bench.runtime.forget_log();
    bench.restart().await;
    let again = [
        "stop shop.1.web",
        "start shop.2.web",
        "stop shop.2.web",
        "start shop.1.web",
    ];
    eventually!(bench.runtime.log() == again);
    let settled = |bench: &Bench| {
        let (_, engine) = bench.engine.as_ref().unwrap();
        engine.ctx.store.apps().unwrap()[0].update.is_settled()
    };
    eventually!(settled(&bench));
    bench.runtime.forget_log();
    bench.restart().await;
    bench.quiet().await;
    assert_eq!(bench.runtime.names(), ["shop.1.web"]);
    assert_eq!(bench.runtime.log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_version_that_never_becomes_ready_is_undone_at_its_deadline() {
    let mut bench = Bench::new();
    bench.config.update.progress_deadline = Duration::from_millis(50);
    bench.start().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::NeverReady);
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "RolledBack 1").await;
    let failed = bench.shadow.app("shop").unwrap().failed.unwrap();
    assert!(
        failed.reason.contains("not ready within"),
        "{}",
        failed.reason
    );
}

#[tokio::test]
async fn a_version_the_cloud_refuses_to_give_leaves_the_old_one_running() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench
        .content
        .fail(Some(ContentError::Never("the cloud refuses it".to_owned())));
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "RolledBack 1").await;
    assert!(
        bench
            .shadow
            .app("shop")
            .unwrap()
            .failed
            .unwrap()
            .reason
            .contains("refuses")
    );
    assert_eq!(bench.runtime.log(), ["start shop.1.web"]);
    bench.content.fail(None);
    bench.content.tell(ContentEvent::Online(true));
    bench.until("shop", "Healthy 2").await;
}

#[tokio::test]
async fn what_cannot_be_fetched_now_is_fetched_later() {
    let bench = Bench::started().await;
    bench
        .content
        .fail(Some(ContentError::Later("the disk is full".to_owned())));
    bench.desire(1, &[&app("shop", "1")]);
    eventually!(
        bench
            .shadow
            .app("shop")
            .is_some_and(|app| app.cause.contains("the disk is full"))
    );
    assert_eq!(
        bench.shadow.app("shop").unwrap().phase,
        Some(Phase::Staging)
    );
    bench.content.fail(None);
    bench.until("shop", "Healthy 1").await;
}

#[tokio::test]
async fn a_version_that_cannot_run_here_fails_before_the_old_one_is_stopped() {
    let bench = Bench::started().await;
    let labels = json!({"labels": {"baetyl-update-strategy": "recreate"}});
    bench.desire(1, &[&app_with("shop", "1", labels)]);
    bench.until("shop", "Healthy 1").await;
    let impossible =
        json!({"services": [{"name": "web"}], "labels": {"baetyl-update-strategy": "recreate"}});
    bench.desire(2, &[&app_with("shop", "2", impossible)]);
    bench.until("shop", "RolledBack 1").await;
    assert!(
        bench
            .shadow
            .app("shop")
            .unwrap()
            .failed
            .unwrap()
            .reason
            .contains("has no program")
    );
    assert_eq!(bench.runtime.log(), ["start shop.1.web"]);
}

#[tokio::test]
async fn a_first_version_that_fails_has_nothing_to_go_back_to() {
    let bench = Bench::started().await;
    bench.runtime.behave("1", Behaviour::Crash);
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Failed 1").await;
    let status = bench.shadow.app("shop").unwrap();
    assert!(
        status.cause.contains("exited with code 1"),
        "{}",
        status.cause
    );
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "Healthy 2").await;
    eventually!(bench.runtime.names() == ["shop.2.web"]);
}

#[tokio::test]
async fn a_failed_version_is_not_tried_again_until_an_operator_asks() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::Crash);
    let bad = app("shop", "2");
    bench.desire(2, &[&bad]);
    bench.until("shop", "RolledBack 1").await;
    bench.runtime.forget_log();
    bench.desire(3, &[&bad]);
    bench.content.tell(ContentEvent::Online(true));
    eventually!(bench.shadow.app("shop").unwrap().observed_generation.get() == 3);
    bench.quiet().await;
    assert_eq!(bench.runtime.log(), Vec::<String>::new());
    bench.runtime.behave("2", Behaviour::Ready);
    assert_eq!(ask_restart(&bench, "shop").await, Some(Ok(())));
    bench.until("shop", "Healthy 2").await;
}

#[tokio::test]
async fn a_failed_version_is_remembered_over_a_restart_of_engine() {
    let mut bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::Crash);
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "RolledBack 1").await;
    bench.kill().await;
    bench.runtime.forget_log();
    bench.start().await;
    bench.until("shop", "RolledBack 1").await;
    bench.quiet().await;
    assert_eq!(bench.runtime.log(), Vec::<String>::new());
    assert_eq!(
        bench
            .shadow
            .app("shop")
            .unwrap()
            .failed
            .unwrap()
            .version
            .as_str(),
        "2"
    );
}

#[tokio::test]
async fn a_newer_generation_pre_empts_a_version_on_probation() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::NeverReady);
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "Probing 2").await;
    bench.desire(3, &[&app("shop", "3")]);
    bench.until("shop", "Healthy 3").await;
    eventually!(bench.runtime.names() == ["shop.3.web"]);
    assert!(
        bench.shadow.app("shop").unwrap().failed.is_none(),
        "a version nobody wants any more did not fail"
    );
}

#[tokio::test]
async fn a_newer_generation_pre_empts_what_is_being_fetched() {
    let bench = Bench::started().await;
    let slow = app("shop", "1");
    bench.content.hold(&slow);
    bench.desire(1, &[&slow]);
    bench.until("shop", "Staging ").await;
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "Healthy 2").await;
    assert_eq!(bench.runtime.log(), ["start shop.2.web"]);
}

#[tokio::test]
async fn applications_do_not_wait_for_each_other() {
    let bench = Bench::started().await;
    let (slow, bad, good) = (app("slow", "1"), app("crash", "9"), app("shop", "1"));
    bench.content.hold(&slow);
    bench.runtime.behave("9", Behaviour::Crash);
    bench.desire(1, &[&slow, &bad, &good]);
    bench.until("shop", "Healthy 1").await;
    bench.until("crash", "Failed 9").await;
    assert_eq!(bench.shadow.phase("slow").trim(), "Staging");
}

#[tokio::test]
async fn an_application_that_is_no_longer_desired_is_removed_with_all_it_left() {
    let bench = Bench::started().await;
    let (shop, till) = (app("shop", "1"), app("till", "1"));
    bench.desire(1, &[&shop, &till]);
    bench.until("shop", "Healthy 1").await;
    bench.until("till", "Healthy 1").await;
    let of_till: Vec<_> = till.desired.digests().collect();
    bench.desire(2, &[&shop]);
    eventually!(bench.shadow.app("till").is_none());
    assert_eq!(bench.runtime.present(), ["baetyl-edge.shop.1.web"]);
    let (_, engine) = bench.engine.as_ref().unwrap();
    eventually!(
        of_till
            .iter()
            .all(|digest| engine.ctx.store.body(digest).unwrap().is_none())
    );
    eventually!(bench.content.pins().unwrap() == shop.desired.digests().collect());
    assert_eq!(engine.ctx.store.apps().unwrap().len(), 1);
}

#[tokio::test]
async fn sync_learns_the_key_of_tickets_again_when_it_may_have_forgotten_it() {
    let bench = Bench::started().await;
    let (_, engine) = bench.engine.as_ref().unwrap();
    let key = Some(engine.ctx.tokens.public_key());
    eventually!(bench.content.key() == key);
    bench.content.lose_everything();
    bench
        .content
        .fail(Some(ContentError::Later("not now".to_owned())));
    bench.content.tell(ContentEvent::Opened);
    bench.content.fail(None);
    eventually!(bench.content.key() == key);
}

#[tokio::test]
async fn an_application_that_is_wished_again_while_it_goes_comes_back() {
    let bench = Bench::started().await;
    let shop = app("shop", "1");
    bench.desire(1, &[&shop]);
    bench.until("shop", "Healthy 1").await;
    bench.desire(2, &[]);
    bench.desire(3, &[&shop]);
    eventually!(
        bench
            .shadow
            .app("shop")
            .is_some_and(|app| app.observed_generation.get() == 3)
    );
    bench.until("shop", "Healthy 1").await;
    assert_eq!(bench.runtime.names(), ["shop.1.web"]);
}

#[tokio::test]
async fn restarting_an_application_restarts_its_instances_and_nothing_else() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1"), &app("till", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.until("till", "Healthy 1").await;
    assert_eq!(ask_restart(&bench, "shop").await, Some(Ok(())));
    assert_eq!(bench.runtime.log().last().unwrap(), "restart shop.1.web");
    eventually!(
        bench.shadow.app("shop").unwrap().instances["baetyl-edge.shop.1.web.1"].restarts == 1
    );
    assert_eq!(bench.shadow.phase("shop"), "Healthy 1");
    assert!(
        ask_restart(&bench, "nobody")
            .await
            .is_none_or(|answer| answer.is_err())
    );
}

#[tokio::test]
async fn a_job_is_healthy_when_it_succeeded_and_failed_when_it_did_not() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app_with("batch", "1", json!({"workload": "job"}))]);
    bench.until("batch", "Healthy 1").await;
    assert_eq!(
        bench.shadow.app("batch").unwrap().status,
        RunStatus::Succeeded
    );
    bench.runtime.behave("2", Behaviour::Fail);
    bench.desire(2, &[&app_with("batch", "2", json!({"workload": "job"}))]);
    bench.until("batch", "RolledBack 1").await;
}

#[tokio::test]
async fn init_services_run_once_and_before_the_others() {
    let mut bench = Bench::started().await;
    let body = json!({"initServices": [{"name": "first", "command": ["prepare"]}], "services": [{"name": "web", "command": ["run"]}]});
    let shop = release("shop", "1", body).build();
    bench.desire(1, &[&shop]);
    bench.until("shop", "Healthy 1").await;
    assert_eq!(
        bench.runtime.log(),
        ["start shop.1.first", "start shop.1.web"]
    );
    bench.kill().await;
    bench.runtime.power_cut();
    bench.runtime.forget_log();
    bench.start().await;
    bench.until("shop", "Healthy 1").await;
    assert_eq!(bench.runtime.log(), ["start shop.1.web"]);
}

#[tokio::test]
async fn an_init_service_that_fails_fails_the_version() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::Fail);
    let body = json!({"initServices": [{"name": "first", "command": ["prepare"]}], "services": [{"name": "web", "command": ["run"]}]});
    bench.desire(2, &[&release("shop", "2", body).build()]);
    bench.until("shop", "RolledBack 1").await;
    let failed = bench.shadow.app("shop").unwrap().failed.unwrap();
    assert!(
        failed.reason.contains("init service first failed"),
        "{}",
        failed.reason
    );
}

#[tokio::test]
async fn every_hop_of_a_desire_is_told_once() {
    let capture = Capture::start();
    let bench = Bench::started().await;
    bench.desire(7, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    assert_eq!(capture.named("desire.staged").len(), 1);
    let applied = capture.named("desire.applied");
    assert_eq!(
        (
            applied.len(),
            applied[0].field("generation"),
            applied[0].field("app")
        ),
        (1, "7", "shop")
    );
    assert!(
        !capture.named("report.observed").is_empty() && !capture.named("report.rolled").is_empty()
    );
}

async fn ask_restart(bench: &Bench, app: &str) -> Option<Result<(), String>> {
    let (_, engine) = bench.engine.as_ref().unwrap();
    let commands = engine.apps.commands(app)?;
    let (sender, receiver) = oneshot::channel();
    commands.send(Command::Restart(sender)).await.ok()?;
    receiver.await.ok()
}

#[tokio::test]
async fn while_nobody_can_tell_the_report_says_unknown_and_no_probation_ends() {
    let mut bench = Bench::new();
    let deadline = Duration::from_millis(300);
    bench.config.update.progress_deadline = deadline;
    bench.start().await;
    bench.desire(1, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::NeverReady);
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "Probing 2").await;
    bench.runtime.blind(Some("the API server does not answer"));
    eventually!({
        let status = bench.shadow.status();
        let shop = &status.apps["shop"];
        shop.status == RunStatus::Unknown && shop.cause == "the API server does not answer"
    });
    let began = std::time::Instant::now();
    eventually!(began.elapsed() > 3 * deadline);
    assert_eq!(bench.shadow.phase("shop"), "Probing 2");
    bench.runtime.behave("2", Behaviour::Ready);
    bench.runtime.blind(None);
    bench.until("shop", "Healthy 2").await;
    bench.kill().await;
}
