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
