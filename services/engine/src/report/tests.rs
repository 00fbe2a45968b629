//! What node is told, between fakes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use baetyl_model::report::{RunMode, Truth};
use baetyl_testkit::eventually;

use crate::ports::ContentEvent;
use crate::testing::{Behaviour, Bench, app};

#[tokio::test]
async fn the_report_says_what_runs_since_when_and_for_which_generation() {
    let bench = Bench::started().await;
    eventually!(!bench.shadow.statuses().is_empty());
    let ready = |bench: &Bench| {
        bench
            .shadow
            .status()
            .conditions
            .into_iter()
            .find(|c| c.kind == "Ready")
            .unwrap()
    };
    assert_eq!(
        (ready(&bench).status, ready(&bench).reason.as_str()),
        (Truth::False, "NoDesire")
    );
    bench.desire(3, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    let status = bench.shadow.status();
    assert_eq!(
        (status.observed.unwrap().generation.get(), status.run_mode),
        (3, RunMode::Native)
    );
    assert_eq!(status.core.name, "baetyl-engine");
    let shop = bench.shadow.app("shop").unwrap();
    assert_eq!(
        (shop.deploy_type.as_str(), shop.observed_generation.get()),
        ("deployment", 3)
    );
    let instance = &shop.instances["baetyl-edge.shop.1.web.1"];
    assert!(
        instance.ready
            && instance.pid > 0
            && instance.start_time.is_some()
            && !instance.node_name.is_empty()
    );
    assert_eq!(instance.ports[0].port, 50200);
}

#[tokio::test]
async fn a_report_that_did_not_change_is_not_told_again() {
    let bench = Bench::started().await;
    bench.desire(3, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.quiet().await;
    let told = bench.shadow.statuses().len();
    // The runtime looks again and sees the same.
    bench.runtime.behave("1", Behaviour::Ready);
    bench.content.tell(ContentEvent::Online(true));
    bench.quiet().await;
    assert_eq!(bench.shadow.statuses().len(), told);
}

#[tokio::test]
async fn node_is_told_everything_again_when_it_comes_back() {
    let bench = Bench::started().await;
    bench.desire(3, &[&app("shop", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.quiet().await;
    let (told, keys) = (bench.shadow.statuses().len(), bench.shadow.keys().len());
    bench.shadow.leave();
    bench.shadow.refuse(true);
    bench.quiet().await;
    bench.shadow.refuse(false);
    bench.desire(3, &[&app("shop", "1")]);
    eventually!(bench.shadow.statuses().len() > told && bench.shadow.keys().len() > keys);
    let keys = bench.shadow.keys();
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn figures_of_instances_travel_on_their_own_period() {
    let mut bench = Bench::new();
    bench.config.report.stats_period = Duration::from_millis(5);
    bench.start().await;
    bench.desire(3, &[&app("shop", "1")]);
    eventually!(!bench.shadow.stats().is_empty());
    let stats = bench.shadow.stats().remove(0);
    assert_eq!(
        (
            stats.instances[0].app.as_str(),
            stats.instances[0].memory_used
        ),
        ("shop", 1 << 20)
    );
    assert!(stats.time.is_some());
}

#[tokio::test]
async fn applications_restarts_and_roll_backs_are_counted() {
    let bench = Bench::started().await;
    bench.desire(1, &[&app("shop", "1"), &app("till", "1")]);
    bench.until("shop", "Healthy 1").await;
    bench.until("till", "Healthy 1").await;
    bench.runtime.behave("2", Behaviour::Crash);
    bench.desire(2, &[&app("shop", "2"), &app("till", "1")]);
    bench.until("shop", "RolledBack 1").await;
    let (kit, _) = bench.engine.as_ref().unwrap();
    let has = |line: &str| kit.metrics().render().lines().any(|found| found == line);
    eventually!(has(r#"baetyl_engine_apps{phase="Healthy"} 1"#));
    eventually!(has(r#"baetyl_engine_apps{phase="RolledBack"} 1"#));
    assert!(has("baetyl_engine_rollbacks_total 1"));
    assert!(!has("baetyl_engine_instance_restarts_total 0"));
    assert!(has(
        r#"baetyl_engine_update_phase_seconds_count{phase="Staging"} 3"#
    ));
}
