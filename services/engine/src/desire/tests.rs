//! The desire, what was lost, and what goes on regardless, between fakes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use baetyl_model::report::{RunStatus, Truth};
use baetyl_testkit::eventually;
use serde_json::json;

use crate::app::Command;
use crate::testing::{Behaviour, Bench, app, app_with};

/// Two applications that run well.
async fn two_apps() -> Bench {
    let bench = Bench::started().await;
    bench.desire(5, &[&app("shop", "1"), &app("till", "2")]);
    bench.until("shop", "Healthy 1").await;
    bench.until("till", "Healthy 2").await;
    bench.runtime.forget_log();
    bench
}

#[tokio::test]
async fn without_an_accepted_desire_no_running_app_stops_whatever_was_emptied() {
    for (node, sync, engine, online) in
        (0..16).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0))
    {
        let what = format!(
            "node emptied: {node}, sync emptied: {sync}, engine emptied: {engine}, online: {online}"
        );
        let mut bench = two_apps().await;
        let pids = bench.runtime.running();
        bench.kill().await;
        if node {
            bench.shadow.forget();
        }
        if sync {
            bench.content.lose_everything();
        }
        if engine {
            bench.lose("engine");
        }
        bench
            .content
            .tell(crate::ports::ContentEvent::Online(online));
        bench.start().await;
        // Node is there in all cases; with its ledger the desire is known again.
        if node {
            eventually!(bench.shadow.status().apps.len() == 2, &what);
        } else {
            bench.until("shop", "Healthy 1").await;
            bench.until("till", "Healthy 2").await;
        }
        bench.quiet().await;
        assert_eq!(bench.runtime.running(), pids, "{what}");
        assert_eq!(bench.runtime.log(), Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn a_node_that_is_away_changes_nothing() {
    let mut bench = two_apps().await;
    let pids = bench.runtime.running();
    bench.shadow.leave();
    bench.shadow.refuse(true);
    bench.restart().await;
    bench.quiet().await;
    assert_eq!(
        (bench.runtime.running(), bench.runtime.log()),
        (pids, Vec::new())
    );
}

#[tokio::test]
async fn after_a_power_cut_everything_starts_with_nobody_there() {
    let mut bench = two_apps().await;
    bench.kill().await;
    bench.runtime.power_cut();
    bench.shadow.leave();
    bench.content.lose_everything();
    bench.start().await;
    eventually!(bench.runtime.names() == ["shop.1.web", "till.2.web"]);
    assert_eq!(
        bench.content.stages(),
        2,
        "nothing is fetched that was there"
    );
}

#[tokio::test]
async fn records_that_were_lost_do_not_keep_an_unwanted_app_alive() {
    let mut bench = two_apps().await;
    bench.kill().await;
    bench.lose("engine");
    bench.desire(6, &[&app("till", "2")]);
    bench.start().await;
    bench.until("till", "Healthy 2").await;
    eventually!(bench.runtime.present() == ["baetyl-edge.till.2.web"]);
    assert_eq!(bench.runtime.log(), ["remove shop.1.web"]);
}

#[tokio::test]
async fn what_was_found_without_a_record_runs_on_until_the_wanted_version_is_ready() {
    let mut bench = two_apps().await;
    bench.kill().await;
    bench.lose("engine");
    bench.runtime.behave("3", Behaviour::NeverReady);
    bench.desire(6, &[&app("shop", "3"), &app("till", "2")]);
    bench.start().await;
    bench.until("shop", "Probing 3").await;
    assert_eq!(
        bench.runtime.names(),
        ["shop.1.web", "shop.3.web", "till.2.web"]
    );
    bench.runtime.behave("3", Behaviour::Ready);
    bench.until("shop", "Healthy 3").await;
    eventually!(bench.runtime.names() == ["shop.3.web", "till.2.web"]);
}

#[tokio::test]
async fn a_damaged_store_is_reported_and_what_runs_is_left_alone() {
    let mut bench = two_apps().await;
    let pids = bench.runtime.running();
    bench.kill().await;
    std::fs::write(bench.dir.join("engine/engine.redb"), [9; 5000]).unwrap();
    bench.shadow.forget();
    bench.start().await;
    eventually!(
        bench
            .shadow
            .status()
            .conditions
            .iter()
            .any(|c| c.kind == "EngineStateLost" && c.status == Truth::True)
    );
    eventually!(
        bench
            .content
            .events()
            .iter()
            .any(|event| event.reason == "EngineStateLost")
    );
    eventually!(
        bench
            .shadow
            .app("shop")
            .is_some_and(|app| app.cause.contains("without a record"))
    );
    let status = bench.shadow.app("shop").unwrap();
    assert_eq!(
        (status.status, status.version.unwrap().as_str()),
        (RunStatus::Unknown, "1")
    );
    assert_eq!(bench.runtime.running(), pids);
    assert_eq!(
        bench.content.pins().map(|pins| pins.is_empty()),
        Some(false),
        "what sync keeps for us stays kept"
    );
    bench.desire(6, &[&app("shop", "1"), &app("till", "2")]);
    bench.until("shop", "Healthy 1").await;
    assert_eq!(bench.runtime.running(), pids);
}

#[tokio::test]
async fn the_same_desire_twice_restarts_nothing() {
    let bench = two_apps().await;
    let pids = bench.runtime.running();
    let (shop, till) = (app("shop", "1"), app("till", "2"));
    bench.desire(5, &[&shop, &till]);
    bench.shadow.leave();
    bench.desire(6, &[&shop, &till]);
    eventually!(
        ["shop", "till"].iter().all(|name| bench
            .shadow
            .app(name)
            .unwrap()
            .observed_generation
            .get()
            == 6)
    );
    assert_eq!(
        (bench.runtime.running(), bench.runtime.log()),
        (pids, Vec::new())
    );
}

#[tokio::test]
async fn a_stale_or_unreadable_desire_changes_nothing() {
    let bench = two_apps().await;
    let pids = bench.runtime.running();
    bench.desire(4, &[]);
    bench.shadow.say(b"no desire at all".to_vec());
    bench.desire(7, &[&app("shop", "1"), &app("till", "2")]);
    eventually!(
        bench
            .shadow
            .status()
            .observed
            .is_some_and(|header| header.generation.get() == 7)
    );
    assert_eq!(
        (bench.runtime.running(), bench.runtime.log()),
        (pids, Vec::new())
    );
}

#[tokio::test]
async fn a_list_that_fails_is_unknown_and_not_empty() {
    let mut bench = two_apps().await;
    let pids = bench.runtime.running();
    bench.kill().await;
    bench.runtime.fail_lists(true);
    bench.start().await;
    eventually!(
        bench
            .shadow
            .app("shop")
            .is_some_and(|app| !app.conditions.is_empty())
    );
    bench.quiet().await;
    assert_eq!(bench.runtime.running(), pids);
    bench.runtime.fail_lists(false);
    bench.until("shop", "Healthy 1").await;
    assert_eq!(bench.runtime.log(), Vec::<String>::new());
}

#[tokio::test]
async fn engine_killed_in_any_state_of_an_update_goes_on_and_ends() {
    // (what happens to version 2, the phase in which engine is killed, what is wanted at the end)
    let cases = [
        ("held", Behaviour::Ready, "Staging 1", "Healthy 2"),
        ("", Behaviour::NeverReady, "Probing 2", "Healthy 2"),
        ("", Behaviour::Ready, "Healthy 2", "Healthy 2"),
        ("", Behaviour::Crash, "RolledBack 1", "RolledBack 1"),
        ("held", Behaviour::Crash, "Staging 1", "RolledBack 1"),
    ];
    for power_cut in [false, true] {
        for (held, behaviour, killed_in, end) in cases {
            let mut bench = Bench::started().await;
            bench.desire(1, &[&app("shop", "1")]);
            bench.until("shop", "Healthy 1").await;
            bench.runtime.behave("2", behaviour);
            let next = app("shop", "2");
            if !held.is_empty() {
                bench.content.hold(&next);
            }
            bench.desire(2, &[&next]);
            bench.until("shop", killed_in).await;
            bench.kill().await;
            if power_cut {
                bench.runtime.power_cut();
            }
            if behaviour == Behaviour::NeverReady {
                bench.runtime.behave("2", Behaviour::Ready);
            }
            bench.content.let_go();
            bench.start().await;
            bench.until("shop", end).await;
            let version = end.rsplit(' ').next().unwrap();
            eventually!(
                bench.runtime.names() == [format!("shop.{version}.web")],
                &format!("{killed_in}, {power_cut}")
            );
        }
    }
}

#[tokio::test]
async fn a_version_that_kills_engine_or_the_machine_is_undone_at_the_third_start() {
    for power_cut in [false, true] {
        let mut bench = Bench::started().await;
        bench.desire(1, &[&app("shop", "1")]);
        bench.until("shop", "Healthy 1").await;
        bench.runtime.behave("2", Behaviour::NeverReady);
        bench.desire(2, &[&app("shop", "2")]);
        for _ in 0..baetyl_model::update::MAX_RESUMES {
            bench.until("shop", "Probing 2").await;
            bench.kill().await;
            if power_cut {
                bench.runtime.power_cut();
            }
            bench.start().await;
        }
        bench.until("shop", "RolledBack 1").await;
        eventually!(bench.runtime.names() == ["shop.1.web"]);
        let failed = bench.shadow.app("shop").unwrap().failed.unwrap();
        assert_eq!(
            failed.reason,
            "the node or engine restarted 3 times while the release was on probation"
        );
    }
}

#[tokio::test]
async fn a_first_version_that_kills_engine_is_stopped_and_does_not_keep_a_better_one_away() {
    let mut bench = Bench::started().await;
    bench.runtime.behave("1", Behaviour::NeverReady);
    bench.desire(1, &[&app("shop", "1")]);
    for _ in 0..baetyl_model::update::MAX_RESUMES {
        bench.until("shop", "Probing 1").await;
        bench.restart().await;
    }
    for _ in 0..2 {
        bench.until("shop", "Failed 1").await;
        eventually!(bench.runtime.names().is_empty());
        bench.restart().await;
    }
    bench.desire(2, &[&app("shop", "2")]);
    bench.until("shop", "Healthy 2").await;
}

#[tokio::test]
async fn what_is_held_runs_again_when_an_operator_asks() {
    let mut bench = Bench::started().await;
    bench.runtime.behave("1", Behaviour::NeverReady);
    bench.desire(1, &[&app("shop", "1")]);
    for _ in 0..baetyl_model::update::MAX_RESUMES {
        bench.until("shop", "Probing 1").await;
        bench.restart().await;
    }
    bench.until("shop", "Failed 1").await;
    bench.runtime.behave("1", Behaviour::Ready);
    let (asked, answer) = tokio::sync::oneshot::channel();
    let (_, engine) = bench.engine.as_ref().unwrap();
    let commands = engine.apps.commands("shop").unwrap();
    commands.send(Command::Restart(asked)).await.unwrap();
    assert_eq!(answer.await.unwrap(), Ok(()));
    bench.until("shop", "Healthy 1").await;
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_finished() {
    let mut bench = two_apps().await;
    bench.kill().await;
    let store = crate::store::Store::open(&bench.dir.join("engine")).unwrap();
    let mut record = store
        .apps()
        .unwrap()
        .into_iter()
        .find(|record| *record.update.app() == *"shop")
        .unwrap();
    record.removing = true;
    store.persist_app(&record).await.unwrap();
    drop(store);
    bench.shadow.leave();
    bench.start().await;
    eventually!(bench.runtime.present() == ["baetyl-edge.till.2.web"]);
}

#[tokio::test]
async fn content_that_was_lost_is_fetched_again_while_the_app_runs_on() {
    let mut bench = two_apps().await;
    let pids = bench.runtime.running();
    bench.kill().await;
    let store = crate::store::Store::open(&bench.dir.join("engine")).unwrap();
    store
        .retain_bodies(&crate::registry::Registry::default())
        .await
        .unwrap();
    drop(store);
    bench.start().await;
    bench.until("shop", "Healthy 1").await;
    eventually!(bench.shadow.app("shop").unwrap().status == RunStatus::Running);
    assert_eq!(
        (bench.runtime.running(), bench.runtime.log()),
        (pids, Vec::new())
    );
}

#[tokio::test]
async fn ports_stay_with_an_instance_over_restarts_of_engine() {
    let mut bench = Bench::started().await;
    let body = json!({"services": [{"name": "web", "command": ["run"], "ports": [{"containerPort": 80}]}]});
    bench.desire(1, &[&app_with("shop", "1", body)]);
    bench.until("shop", "Healthy 1").await;
    let port = |bench: &Bench| {
        bench.shadow.app("shop").unwrap().instances["baetyl-edge.shop.1.web.1"].ports[0].port
    };
    let before = port(&bench);
    bench.kill().await;
    bench.runtime.power_cut();
    bench.start().await;
    eventually!(
        bench
            .shadow
            .app("shop")
            .is_some_and(|app| app.status == RunStatus::Running)
    );
    assert_eq!(port(&bench), before);
}

#[tokio::test]
async fn each_application_keeps_its_user_over_restarts_of_engine_and_gives_it_back_when_it_goes() {
    let mut bench = Bench::new();
    bench.runtime = bench.runtime.clone().with_users(70_000..=70_001);
    bench.start().await;
    let (shop, till) = (app("shop", "1"), app("till", "1"));
    bench.desire(1, &[&shop]);
    bench.until("shop", "Healthy 1").await;
    bench.desire(2, &[&shop, &till]);
    bench.until("till", "Healthy 1").await;
    let users = |bench: &Bench| {
        let users = bench.runtime.users_of();
        (users["shop"], users["till"])
    };
    assert_eq!(users(&bench), (Some(70_000), Some(70_001)));
    bench.desire(3, &[&till]);
    eventually!(bench.shadow.app("shop").is_none());
    bench.kill().await;
    bench.runtime.power_cut();
    bench.desire(4, &[&app("shop", "2"), &till]);
    bench.start().await;
    bench.until("shop", "Healthy 2").await;
    eventually!(bench.runtime.names().len() == 2);
    assert_eq!(users(&bench), (Some(70_000), Some(70_001)));
    bench.desire(5, &[&app("shop", "2"), &till, &app("cafe", "1")]);
    bench.until("cafe", "Failed 1").await;
    let cause = bench.shadow.app("cafe").unwrap().cause;
    assert!(cause.contains("widen the range of user ids"), "{cause}");
}

#[tokio::test]
async fn a_desire_of_another_life_of_this_machine_counts_as_new() {
    let bench = two_apps().await;
    let other = baetyl_model::Desire {
        namespace: "default".try_into().unwrap(),
        node_name: "edge-9".try_into().unwrap(),
        node_uid: "uid-9".try_into().unwrap(),
        epoch: Default::default(),
        generation: baetyl_model::Generation(1),
        digest: crate::testing::digest(b""),
        apps: vec![app("shop", "1").desired],
        node_properties: Default::default(),
        core: None,
    };
    let other = baetyl_proto::digest::complete_desire(other);
    bench.shadow.say(prost::Message::encode_to_vec(
        &baetyl_proto::shadow::Desire::from(other),
    ));
    eventually!(bench.runtime.names() == ["shop.1.web"]);
}
