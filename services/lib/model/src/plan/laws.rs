//! What holds for every desire and every observation.

use proptest::prelude::*;

use super::tests::{desire, desired};
use super::*;

const APPS: [&str; 4] = ["aa", "bb", "cc", "dd"];

fn any_app(name: &'static str) -> impl Strategy<Value = DesiredApp> {
    (
        0..3u8,
        prop::collection::btree_set(0..3u8, 0..3),
        any::<bool>(),
    )
        .prop_map(move |(version, configs, system)| {
            let configs: String = configs.iter().map(|config| format!("+c{config}")).collect();
            desired(&format!(
                "{name}@{version}{configs}{}",
                if system { "!" } else { "" }
            ))
        })
}

fn any_desire() -> impl Strategy<Value = Desire> {
    APPS.map(|name| proptest::option::of(any_app(name)))
        .prop_map(|apps| desire(apps.into_iter().flatten().collect()))
}

fn any_memory(name: &'static str) -> impl Strategy<Value = Option<Memory>> {
    let release = || any_app(name).prop_map(|app| app.release());
    let memory = (
        proptest::option::weighted(0.3, release()),
        proptest::option::of(release()),
        prop::collection::vec(release(), 0..2),
    );
    proptest::option::of(memory.prop_map(|(heading, good, failed)| Memory {
        heading,
        good,
        failed,
    }))
}

fn any_seen(name: &'static str) -> impl Strategy<Value = Option<Seen>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Seen::Unknown)),
        1 => Just(Some(Seen::Absent)),
        3 => any_app(name).prop_map(|app| Some(Seen::Present(app.release()))),
    ]
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let apps = APPS.map(|name| (any_seen(name), any_memory(name)));
    let stored = prop::collection::vec(any_app("aa"), 0..3);
    (apps, any::<bool>(), stored).prop_map(|(apps, complete, stored)| {
        let mut observed = Observed {
            complete,
            ..Observed::default()
        };
        for (name, (seen, memory)) in APPS.iter().zip(apps) {
            let name = AppName::new(*name).unwrap();
            observed.apps.extend(seen.map(|seen| (name.clone(), seen)));
            observed.memory.extend(memory.map(|memory| (name, memory)));
        }
        observed
            .stored
            .extend(stored.iter().flat_map(DesiredApp::digests));
        observed
    })
}

/// What the world is after a step that went well.
fn apply(step: &Step, observed: &mut Observed) {
    match step {
        Step::Stage { release, .. } => observed.stored.extend(&release.digests),
        Step::Stop { app, .. } => {
            observed.apps.insert(app.clone(), Seen::Absent);
            observed.memory.remove(app);
        }
        Step::Start { app, to } | Step::Update { app, to, .. } => {
            observed.apps.insert(app.clone(), Seen::Present(to.clone()));
            let memory = observed.memory.entry(app.clone()).or_default();
            memory.heading = None;
            memory.good = Some(to.clone());
        }
        Step::Prune { keep } => observed.stored.retain(|digest| keep.contains(digest)),
    }
}

fn whom(step: &Step) -> Option<&AppName> {
    match step {
        Step::Stage { app, .. }
        | Step::Stop { app, .. }
        | Step::Start { app, .. }
        | Step::Update { app, .. } => Some(app),
        Step::Prune { .. } => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_desire_plans_nothing(observed in any_observed()) {
        prop_assert_eq!(plan(None, &observed), vec![]);
    }

    /// What is left to prune shows only after the steps that made it unneeded: hence a second round.
    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(desire in any_desire(), observed in any_observed()) {
        let mut observed = observed;
        for step in plan(Some(&desire), &observed) {
            apply(&step, &mut observed);
        }
        let rest = plan(Some(&desire), &observed);
        prop_assert!(rest.iter().all(|step| matches!(step, Step::Prune { .. })), "{:?}", rest);
        rest.iter().for_each(|step| apply(step, &mut observed));
        prop_assert_eq!(plan(Some(&desire), &observed), vec![]);
    }

    #[test]
    fn nothing_is_planned_for_what_is_unknown(desire in any_desire(), observed in any_observed()) {
        for step in plan(Some(&desire), &observed) {
            if let Some(app) = whom(&step) {
                prop_assert_ne!(observed.seen(app), &Seen::Unknown, "{}", step);
            }
        }
    }

    #[test]
    fn only_what_a_desire_lacks_is_stopped(desire in any_desire(), observed in any_observed()) {
        for step in plan(Some(&desire), &observed) {
            if let Step::Stop { app, .. } = &step {
                prop_assert!(desire.app(app.as_str()).is_none(), "{}", step);
            }
        }
    }

    #[test]
    fn a_failed_release_is_never_started(desire in any_desire(), observed in any_observed()) {
        for step in plan(Some(&desire), &observed) {
            if let Step::Start { app, to } | Step::Update { app, to, .. } = &step
                && let Some(memory) = observed.memory.get(app)
            {
                prop_assert!(!memory.failed.contains(to) || memory.good.as_ref() == Some(to), "{}", step);
            }
        }
    }

    #[test]
    fn what_is_started_is_staged_before_or_on_disk(desire in any_desire(), observed in any_observed()) {
        let mut on_disk = observed.stored.clone();
        for step in plan(Some(&desire), &observed) {
            match &step {
                Step::Stage { release, .. } => on_disk.extend(&release.digests),
                Step::Start { app, to } | Step::Update { app, to, .. } => {
                    let good = observed.memory.get(app).and_then(|memory| memory.good.as_ref());
                    let known = to.digests.iter().all(|digest| on_disk.contains(digest));
                    prop_assert!(known || good == Some(to), "{}", step);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_runs_or_may_be_gone_back_to_is_never_pruned(desire in any_desire(), observed in any_observed()) {
        for step in plan(Some(&desire), &observed) {
            let Step::Prune { keep } = &step else { continue };
            prop_assert!(observed.complete);
            let running = observed.apps.values().filter_map(|seen| match seen {
                Seen::Present(release) => Some(release),
                _ => None,
            });
            let good = observed.memory.values().filter_map(|memory| memory.good.as_ref());
            prop_assert!(running.chain(good).flat_map(|release| &release.digests).all(|digest| keep.contains(digest)));
            prop_assert!(desire.apps.iter().flat_map(DesiredApp::digests).all(|digest| keep.contains(&digest)));
        }
    }

    /// Applications never block each other: what is planned for one does not depend on what is seen of another.
    #[test]
    fn the_steps_of_one_application_depend_on_that_application_alone(
        desire in any_desire(),
        observed in any_observed(),
        other in any_observed(),
    ) {
        let mut observed = observed;
        observed.complete = true;
        let of = |observed: &Observed, app: &AppName| -> Vec<Step> {
            plan(Some(&desire), observed).into_iter().filter(|step| whom(step) == Some(app)).collect()
        };
        let app = AppName::new(APPS[0]).unwrap();
        let before = of(&observed, &app);
        for name in &APPS[1..] {
            let name = AppName::new(*name).unwrap();
            let seen = other.seen(&name).clone();
            observed.apps.insert(name, seen);
        }
        prop_assert_eq!(of(&observed, &app), before);
    }
}
