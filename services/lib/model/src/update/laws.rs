//! What always holds, whatever happens in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::name::Version;

const RELEASES: u8 = 4;

fn release(number: u8) -> Release {
    Release {
        version: Version::new(format!("v{number}")).unwrap(),
        digests: Vec::new(),
    }
}

fn limits() -> Limits {
    Limits {
        stage: Duration::from_secs(40),
        apply: Duration::from_secs(20),
        probe: Duration::from_secs(30),
        settle: Duration::from_secs(5),
    }
}

fn any_health() -> impl Strategy<Value = Health> {
    prop_oneof![
        1 => Just(Health::Unknown),
        1 => Just(Health::Starting { why: "no image".into() }),
        4 => Just(Health::Ready),
        1 => Just(Health::Succeeded),
        2 => Just(Health::Failing { reason: "it exits".into() }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let which = || (0..RELEASES).prop_map(release);
    prop_oneof![
        3 => which().prop_map(|release| Event::Want { release, generation: Generation(1) }),
        4 => which().prop_map(|release| Event::Staged { release, limits: None }),
        1 => (which(), any::<bool>())
            .prop_map(|(release, permanent)| Event::StageFailed { release, reason: "no".into(), permanent }),
        4 => which().prop_map(|release| Event::Applied { release }),
        1 => which().prop_map(|release| Event::ApplyFailed { release, reason: "no".into() }),
        6 => (which(), any_health()).prop_map(|(release, health)| Event::Observed { release, health }),
        2 => Just(Event::Tick),
        1 => Just(Event::Online),
        1 => Just(Event::Retry),
        1 => Just(Event::Resume),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<(Duration, Event)>> {
    let pause = prop_oneof![
        3 => Just(Duration::ZERO),
        2 => (0u64..6_000).prop_map(Duration::from_millis),
        1 => (0u64..60).prop_map(Duration::from_secs),
    ];
    prop::collection::vec((pause, any_event()), 0..80)
}

/// The machine, and what an onlooker knows.
struct World {
    update: Update,
    now: Duration,
    /// What is complete on disk. What is not kept is removed at once.
    on_disk: BTreeSet<Release>,
    /// What was healthy at some time.
    was_healthy: BTreeSet<Release>,
}

impl World {
    fn new() -> Self {
        Self {
            update: Update::new(AppName::new("web").unwrap(), limits()),
            now: Duration::ZERO,
            on_disk: BTreeSet::new(),
            was_healthy: BTreeSet::new(),
        }
    }

    /// Takes an event through the machine and through its written form, and checks every effect.
    fn next(&mut self, event: Event) -> Vec<Effect> {
        if let Event::Staged { release, .. } = &event {
            self.on_disk.insert(release.clone());
        }
        let before = self.update.clone();
        let read: Update = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        let (update, effects) = before.clone().next(event.clone(), self.now);
        assert_eq!(
            read.next(event, self.now),
            (update.clone(), effects.clone()),
            "what is read goes on as what was written"
        );
        self.update = update;
        assert!(
            !self.on_probation() || self.update.resumes() < MAX_RESUMES,
            "a release on probation outlives the starts it is allowed"
        );
        for effect in &effects {
            self.check(effect);
        }
        let kept: BTreeSet<Release> = self.update.kept().into_iter().cloned().collect();
        self.on_disk.retain(|release| kept.contains(release));
        effects
    }

    fn check(&mut self, effect: &Effect) {
        match effect {
            Effect::Run { release } => {
                assert!(
                    self.on_disk.contains(release),
                    "{release} is run and not on disk"
                );
                if matches!(self.update.state(), State::Applying { back: true }) {
                    assert!(
                        self.was_healthy.contains(release),
                        "{release} is gone back to and never was healthy"
                    );
                }
            }
            Effect::Stage { release, .. } => assert_eq!(Some(release), self.update.target()),
            Effect::Ended { phase } => {
                assert_eq!(Some(*phase), self.update.phase());
                assert!(phase.is_end() && self.update.is_settled());
                match phase {
                    Phase::Healthy => {
                        assert_eq!(self.update.running(), self.update.target());
                        self.was_healthy
                            .insert(self.update.running().unwrap().clone());
                    }
                    Phase::RolledBack => {
                        let running = self.update.running().unwrap();
                        assert!(self.was_healthy.contains(running));
                        assert_ne!(Some(running), self.update.target());
                        assert!(self.update.failure().is_some());
                    }
                    _ => assert!(self.update.failure().is_some()),
                }
            }
        }
    }

    fn on_probation(&self) -> bool {
        matches!(
            self.update.state(),
            State::Applying { back: false } | State::Probing { back: false }
        )
    }

    fn live(&mut self, history: Vec<(Duration, Event)>) {
        for (pause, event) in history {
            self.now += pause;
            self.next(event);
        }
    }

    /// Nothing but time happens until the update ends; gives how long that took.
    fn wait(&mut self) -> Duration {
        let start = self.now;
        for _ in 0..10 {
            if self.update.is_settled() {
                break;
            }
            self.now += self
                .update
                .wake_in()
                .expect("who is under way has a deadline");
            self.next(Event::Tick);
        }
        assert!(self.update.is_settled(), "{:?}", self.update.state());
        self.now - start
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_update_always_ends_before_its_deadline(history in any_history()) {
        let mut world = World::new();
        world.live(history);
        prop_assert!(world.wait() <= limits().total());
    }

    #[test]
    fn a_newer_wish_pre_empts_and_nothing_about_older_ones_matters(
        history in any_history(),
        late in prop::collection::vec(any_event(), 0..20),
    ) {
        let mut world = World::new();
        world.live(history);
        let newest = Release { version: Version::new("newest").unwrap(), digests: Vec::new() };
        let effects = world.next(Event::Want { release: newest.clone(), generation: Generation(9) });
        let staged = Effect::Stage { release: newest.clone(), after: Duration::ZERO };
        prop_assert_eq!(effects, vec![staged]);
        for event in late.into_iter().filter(|event| !matches!(event, Event::Want { .. } | Event::Resume)) {
            prop_assert_eq!(world.next(event), vec![]);
            prop_assert_eq!(world.update.target(), Some(&newest));
            prop_assert_eq!(world.update.phase(), Some(Phase::Staging));
        }
        world.next(Event::Staged { release: newest.clone(), limits: None });
        prop_assert_eq!(world.update.running(), Some(&newest));
    }

    #[test]
    fn a_healthy_release_is_never_touched_without_a_new_wish(
        history in any_history(),
        events in any_history(),
    ) {
        let mut world = World::new();
        world.live(history);
        world.deploy(9);
        for (pause, event) in events {
            let wish = Event::Want { release: release(9), generation: Generation(2) };
            let event = if matches!(event, Event::Want { .. }) { wish } else { event };
            let resumes = event == Event::Resume;
            world.now += pause;
            let expected = if resumes { vec![Effect::Run { release: release(9) }] } else { vec![] };
            prop_assert_eq!(world.next(event), expected);
            prop_assert_eq!(world.update.phase(), Some(Phase::Healthy));
        }
    }

    #[test]
    fn a_bad_release_after_a_good_one_is_always_undone(
        history in any_history(),
        bad_health in any_health().prop_filter("bad", |health| !matches!(health, Health::Ready | Health::Succeeded)),
    ) {
        let mut world = World::new();
        world.live(history);
        world.deploy(9);
        world.next(Event::Want { release: release(10), generation: Generation(3) });
        world.next(Event::Staged { release: release(10), limits: None });
        world.next(Event::Applied { release: release(10) });
        world.next(Event::Observed { release: release(10), health: bad_health });
        if world.update.running() == Some(&release(10)) {
            world.now += limits().probe;
            world.next(Event::Tick);
        }
        prop_assert_eq!(world.update.running(), Some(&release(9)));
        world.next(Event::Applied { release: release(9) });
        world.next(Event::Observed { release: release(9), health: Health::Ready });
        world.wait();
        prop_assert_eq!(world.update.phase(), Some(Phase::RolledBack));
        prop_assert_eq!(world.next(Event::Want { release: release(10), generation: Generation(4) }), vec![]);
    }

    #[test]
    fn a_release_that_ends_the_program_again_and_again_is_undone(
        history in any_history(),
        lives in prop::collection::vec((any::<bool>(), any::<bool>(), 0u64..6), MAX_RESUMES as usize),
        good in any::<bool>(),
    ) {
        let mut world = World::new();
        if good {
            world.live(history);
            world.deploy(9);
        }
        world.next(Event::Want { release: release(10), generation: Generation(3) });
        world.next(Event::Staged { release: release(10), limits: None });
        for (applied, starting, seconds) in lives {
            prop_assert_eq!(world.update.candidate(), Some(&release(10)));
            if applied {
                world.next(Event::Applied { release: release(10) });
            }
            let health = if starting { Health::Starting { why: String::new() } } else { Health::Unknown };
            world.next(Event::Observed { release: release(10), health });
            // Less than any deadline: it is the starts that end it.
            world.now += Duration::from_secs(seconds);
            world.next(Event::Tick);
            world.now = Duration::ZERO;
            world.next(Event::Resume);
        }
        let failure = world.update.failed(&release(10)).unwrap();
        prop_assert!(failure.reason.contains("restarted 3 times"), "{}", failure.reason);
        if good {
            prop_assert_eq!(world.update.running(), Some(&release(9)));
        } else {
            prop_assert_eq!(world.update.phase(), Some(Phase::Failed));
            prop_assert!(world.update.is_held());
            prop_assert_eq!(world.next(Event::Resume), vec![], "it would end the program once more");
        }
    }
}

impl World {
    /// Everything goes well for one release.
    fn deploy(&mut self, number: u8) {
        self.next(Event::Want {
            release: release(number),
            generation: Generation(1),
        });
        self.next(Event::Staged {
            release: release(number),
            limits: None,
        });
        self.next(Event::Applied {
            release: release(number),
        });
        self.next(Event::Observed {
            release: release(number),
            health: Health::Ready,
        });
        self.wait();
        assert_eq!(self.update.phase(), Some(Phase::Healthy));
    }
}
