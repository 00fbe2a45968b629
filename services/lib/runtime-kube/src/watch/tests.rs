use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::seen::Pod;
use crate::testing::{Fake, Reply, list, status};
use crate::world::{Shared, Sight, Watch, What};

fn pod(name: &str, phase: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "baetyl-edge",
            "labels": {"baetyl-app-name": "web", "baetyl-app-version": "1"},
        },
        "status": {"phase": phase},
    })
}

fn pods() -> Watch {
    Watch {
        what: What::Pods,
        namespace: "baetyl-edge".to_owned(),
    }
}

fn is_broken(shared: &Shared) -> bool {
    let world = shared.look();
    let sight = world.sights.get(&pods());
    sight.is_some_and(|sight| sight.broken.is_some())
}

/// Watches until the test ends.
struct Watching {
    fake: Fake,
    shared: Arc<Shared>,
    _task: tokio::task::JoinSet<()>,
}

impl Watching {
    fn of(fake: &Fake, watch: Watch) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(super::watch(fake.api(), watch, true, shared.clone()));
        Self {
            fake: fake.clone(),
            shared,
            _task: tasks,
        }
    }

    fn pods(fake: &Fake) -> Self {
        Self::of(fake, pods())
    }

    /// Waits for what there shall be.
    async fn until<T: PartialEq + std::fmt::Debug>(&self, look: impl Fn(&Shared) -> T, wanted: T) {
        let mut changes = self.shared.changes();
        let seen = async {
            while look(&self.shared) != wanted {
                changes.changed().await.unwrap();
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(3600), seen).await;
        assert!(
            seen.is_ok(),
            "{:?} instead of {wanted:?}",
            look(&self.shared)
        );
    }

    async fn until_pods(&self, wanted: &[(&str, &str)]) {
        let wanted: Vec<(String, String)> = wanted
            .iter()
            .map(|(name, phase)| ((*name).to_owned(), (*phase).to_owned()))
            .collect();
        self.until(
            |shared| {
                let world = shared.look();
                let all = world.pods.values().map(|entry| &entry.item);
                all.map(|pod: &Pod| (pod.metadata.name.clone(), pod.status.phase.to_string()))
                    .collect::<Vec<_>>()
            },
            wanted,
        )
        .await;
    }

    fn sight(&self, watch: &Watch) -> Sight {
        self.shared
            .look()
            .sights
            .get(watch)
            .cloned()
            .unwrap_or_default()
    }

    fn lists(&self) -> usize {
        let asked = self.fake.asked();
        asked.iter().filter(|asked| !asked.is_watch()).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_read_page_by_page_and_followed() {
    let fake = Fake::default();
    for name in ["a", "b", "c", "d", "e"] {
        fake.set(&list("Pod"), pod(name, "Pending"));
    }
    let watching = Watching::pods(&fake);
    let all = ["a", "b", "c", "d", "e"].map(|name| (name, "Pending"));
    watching.until_pods(&all).await;
    assert_eq!(watching.lists(), 3);
    fake.set(&list("Pod"), pod("c", "Running"));
    fake.delete(&format!("{}/a", list("Pod")));
    let rest = [
        ("b", "Pending"),
        ("c", "Running"),
        ("d", "Pending"),
        ("e", "Pending"),
    ];
    watching.until_pods(&rest).await;
    assert_eq!(watching.lists(), 3, "nothing is listed again");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_over_goes_on_where_it_ended() {
    let fake = Fake::default();
    fake.set(&list("Pod"), pod("a", "Pending"));
    let watching = Watching::pods(&fake);
    watching.until_pods(&[("a", "Pending")]).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    fake.end_watches();
    fake.set(&list("Pod"), pod("a", "Running"));
    watching.until_pods(&[("a", "Running")]).await;
    assert_eq!(watching.lists(), 1);
    assert!(watching.sight(&pods()).broken.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_went_while_nobody_looked_is_gone_after_the_next_list() {
    let fake = Fake::default();
    fake.set(&list("Pod"), pod("a", "Pending"));
    fake.set(&list("Pod"), pod("b", "Pending"));
    let watching = Watching::pods(&fake);
    watching
        .until_pods(&[("a", "Pending"), ("b", "Pending")])
        .await;
    fake.delete(&format!("{}/a", list("Pod")));
    watching.until_pods(&[("b", "Pending")]).await;
    fake.forget_history();
    fake.delete(&format!("{}/b", list("Pod")));
    fake.set(&list("Pod"), pod("c", "Pending"));
    fake.forget_history();
    watching.until_pods(&[("c", "Pending")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_is_listed_anew_whichever_way_that_is_told() {
    let too_old = json!({"type": "ERROR", "object": status(410, "Expired", "too old resource version: 1 (7)")});
    for reply in [
        Reply::Refuse(410, "too old resource version", None),
        Reply::Pieces(vec![format!("{too_old}\n")], true),
    ] {
        let fake = Fake::default();
        fake.set(&list("Pod"), pod("a", "Pending"));
        fake.rule(1, move |asked| asked.is_watch().then(|| reply.clone()));
        let watching = Watching::pods(&fake);
        watching.until(|_| watching.lists(), 2).await;
        watching.until(|_| fake.watches(), 1).await;
        watching.until_pods(&[("a", "Pending")]).await;
        assert!(watching.sight(&pods()).broken.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_says_how_long_to_wait() {
    let fake = Fake::default();
    fake.set(&list("Pod"), pod("a", "Pending"));
    fake.rule(1, |asked| {
        asked
            .is_watch()
            .then_some(Reply::Refuse(429, "too many requests", Some(20)))
    });
    let watching = Watching::pods(&fake);
    watching.until(|_| fake.watches(), 1).await;
    let asked = fake.asked();
    let watches: Vec<Instant> = asked
        .iter()
        .filter(|asked| asked.is_watch())
        .map(|asked| asked.at)
        .collect();
    let pause = watches[1] - watches[0];
    assert!((20..=25).contains(&pause.as_secs()), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn objects_are_put_together_from_pieces() {
    let fake = Fake::default();
    let event = |name: &str| {
        let mut pod = pod(name, "Running");
        pod["metadata"]["resourceVersion"] = "9".into();
        format!("{}\n", json!({"type": "ADDED", "object": pod}))
    };
    let (first, second) = (event("ä"), event("b"));
    let all = format!("{first}{second}");
    let pieces: Vec<String> = all
        .as_bytes()
        .chunks(7)
        .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
        .collect();
    // Seven bytes do not cut the one letter of two bytes here.
    assert_eq!(pieces.concat(), all);
    fake.rule(1, move |asked| {
        asked
            .is_watch()
            .then(|| Reply::Pieces(pieces.clone(), false))
    });
    let watching = Watching::pods(&fake);
    watching
        .until_pods(&[("b", "Running"), ("ä", "Running")])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_is_where_a_watch_goes_on() {
    let fake = Fake::default();
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "4711"}}});
    fake.rule(1, move |asked| {
        let pieces = vec![format!("{bookmark}\n")];
        asked.is_watch().then_some(Reply::Pieces(pieces, false))
    });
    let watching = Watching::pods(&fake);
    let versions = || {
        let asked = fake.asked();
        let watches = asked.iter().filter(|asked| asked.is_watch());
        watches
            .map(|asked| asked.query["resourceVersion"].clone())
            .collect::<Vec<_>>()
    };
    // The bookmark was the last sign of life.
    tokio::time::sleep(Duration::from_secs(140)).await;
    assert_eq!(versions(), ["0"]);
    watching.until(is_broken, true).await;
    watching.until(|_| versions().len(), 2).await;
    assert_eq!(versions(), ["0", "4711"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_told_of_and_asked_again_ever_more_slowly() {
    let fake = Fake::default();
    fake.rule(usize::MAX, |_| Some(Reply::Hang));
    let watching = Watching::pods(&fake);
    watching.until(is_broken, true).await;
    let (since, why) = watching.sight(&pods()).broken.unwrap();
    assert_eq!(
        why,
        "the API server at https://fake did not answer within 15 s"
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = fake.asked().len();
    assert!(
        (22..=30).contains(&asked),
        "{asked} requests in ten minutes"
    );
    assert_eq!(watching.sight(&pods()).broken.unwrap().0, since);
}

#[tokio::test(start_paused = true)]
async fn what_we_may_not_see_is_a_fault_only_where_it_is_needed() {
    let denied = |asked: &crate::testing::Asked| {
        let message = "events is forbidden: User cannot list resource";
        (!asked.is_watch()).then_some(Reply::Refuse(403, message, None))
    };
    let events = Watch {
        what: What::Warnings,
        namespace: "baetyl-edge".to_owned(),
    };
    for (watch, needed) in [(pods(), true), (events, false)] {
        let fake = Fake::default();
        fake.rule(usize::MAX, denied);
        let watching = Watching::of(&fake, watch.clone());
        watching
            .until(
                |shared| {
                    let world = shared.look();
                    let sight = world.sights.get(&watch);
                    sight.is_some_and(|sight| sight.denied.is_some() || sight.broken.is_some())
                },
                true,
            )
            .await;
        let sight = watching.sight(&watch);
        assert_eq!(sight.broken.is_some(), needed);
        assert_eq!(sight.denied.is_some(), !needed);
        tokio::time::sleep(Duration::from_secs(3000)).await;
        let asked = fake.asked().len();
        assert!(
            needed || asked <= 11,
            "{asked} requests for what we may not see"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_not_asked_for_without_a_pause() {
    let fake = Fake::default();
    fake.rule(usize::MAX, |asked| {
        asked.is_watch().then(|| Reply::Pieces(Vec::new(), true))
    });
    let _watching = Watching::pods(&fake);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let asked = fake.asked().len();
    assert!(asked < 20, "{asked} requests in 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_events_which_has_no_bookmarks_is_not_asked_for_again_because_it_is_silent() {
    let fake = Fake::default();
    fake.rule(usize::MAX, |asked| {
        asked.is_watch().then_some(Reply::Pieces(Vec::new(), false))
    });
    let watching = Watching::of(
        &fake,
        Watch {
            what: What::Warnings,
            namespace: "baetyl-edge".to_owned(),
        },
    );
    let _pods = Watching::pods(&fake);
    let watches = |kind: &str| {
        let asked = watching.fake.asked();
        let all = asked.iter().filter(|asked| asked.is_watch());
        all.filter(|asked| asked.path.ends_with(kind)).count()
    };
    baetyl_testkit::eventually(
        Duration::from_secs(3600),
        "Pods are asked for",
        async || watches("/pods") == 2,
    )
    .await;
    assert_eq!(watches("/events"), 1);
}
