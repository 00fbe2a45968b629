//! A network that loses, repeats, reorders and breaks, and peers that crash: once it is good, both sides agree.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::desire::{Accept, accept_desire};
use crate::name::{Epoch, Generation, NodeUid};

fn digest(content: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&content.to_le_bytes());
    Digest::from_sha256(bytes)
}

/// What happens besides messages.
#[derive(Debug, Clone)]
enum Fate {
    /// Time passes.
    Pass(u64),
    /// The message at this place of the queue (up: towards the cloud) is delivered, and stays there when `again`.
    Deliver { up: bool, place: usize, again: bool },
    /// The message at this place is lost.
    Lose { up: bool, place: usize },
    /// The stream breaks.
    Break,
    /// The edge's programs die; what is on its disk stays.
    CrashEdge,
    /// The cloud's program dies; its database stays.
    CrashCloud,
    /// The cloud's database is put back to what it was at the last snapshot.
    Restore,
    /// The database is copied.
    Snapshot,
    /// An operator changes something; `content` may be what it was before.
    Change { content: u64 },
    /// The node's status changes.
    Status { content: u64 },
    /// Something happens that is an event.
    Event,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    let deliver = (any::<bool>(), 0usize..4, prop::bool::weighted(0.15));
    prop_oneof![
        4 => (0u64..40).prop_map(Fate::Pass),
        16 => deliver.prop_map(|(up, place, again)| Fate::Deliver { up, place, again }),
        3 => (any::<bool>(), 0usize..4).prop_map(|(up, place)| Fate::Lose { up, place }),
        1 => Just(Fate::Break),
        1 => Just(Fate::CrashEdge),
        1 => Just(Fate::CrashCloud),
        1 => Just(Fate::Restore),
        1 => Just(Fate::Snapshot),
        3 => (0u64..5).prop_map(|content| Fate::Change { content }),
        2 => (0u64..5).prop_map(|content| Fate::Status { content }),
        2 => Just(Fate::Event),
    ]
}

/// The cloud's database.
#[derive(Debug, Clone, Default)]
struct Database {
    epoch: u64,
    revision: u64,
    content: u64,
    /// The revision the content is of.
    generation: u64,
    status: Option<Digest>,
    /// Contents of the events stored, in order.
    events: Vec<u64>,
}

struct World {
    now: Duration,
    // The edge: what is on disk, and the program.
    held: Option<Header>,
    accepted: Vec<Header>,
    status: Digest,
    /// Events that happened; the number of an event is its place, from 1.
    happened: u64,
    acked: u64,
    edge: EdgeLink,
    // The cloud: database and program.
    database: Database,
    snapshot: Database,
    /// Everything this cloud ever signed, also before a restore: signatures cannot be taken back.
    signed: Vec<Header>,
    cloud: Option<CloudLink>,
    /// Events that a restore took out of the database after they had been acknowledged.
    lost: BTreeSet<u64>,
    // The network.
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    connected: bool,
}

impl World {
    fn new() -> Self {
        let status = digest(100);
        Self {
            now: Duration::ZERO,
            held: None,
            accepted: Vec::new(),
            status,
            happened: 0,
            acked: 0,
            edge: EdgeLink::new(None, Some(status), (0, 0)),
            database: Database::default(),
            snapshot: Database::default(),
            signed: Vec::new(),
            cloud: None,
            lost: BTreeSet::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            connected: false,
        }
    }

    fn uid() -> NodeUid {
        NodeUid::new("u1").unwrap()
    }

    fn wanted(&mut self) -> Header {
        let header = Header {
            node_uid: Self::uid(),
            epoch: Epoch(self.database.epoch),
            generation: Generation(self.database.generation),
            digest: digest(self.database.content),
        };
        if !self.signed.contains(&header) {
            self.signed.push(header.clone());
        }
        header
    }

    fn connect(&mut self) {
        self.connected = true;
        self.up.clear();
        self.down.clear();
        let wanted = self.wanted();
        let stored = self.database.events.last().copied().unwrap_or(0);
        self.cloud = Some(CloudLink::new(
            Periods::default(),
            Some(wanted),
            self.database.status,
            stored,
            self.now,
        ));
        self.tell_edge(EdgeInput::Connected);
    }

    fn disconnect(&mut self) {
        if self.connected {
            self.connected = false;
            self.up.clear();
            self.down.clear();
            self.cloud = None;
            self.tell_edge(EdgeInput::Closed);
        }
    }

    fn tell_edge(&mut self, input: EdgeInput) {
        for action in self.edge.next(input, self.now) {
            self.do_edge(action);
        }
    }

    fn do_edge(&mut self, action: EdgeAction) {
        match action {
            EdgeAction::Send(message) => self.up.push_back(message),
            EdgeAction::SendEvent { sequence, stored } => {
                let before = if sequence == self.acked + 1 {
                    stored
                } else {
                    sequence - 1
                };
                let dropped = (sequence - 1).saturating_sub(before);
                self.up.push_back(Up::Event { sequence, dropped });
            }
            EdgeAction::Present => {
                if let Some(header) = self.held.clone() {
                    let genuine = self.signed.contains(&header);
                    self.up.push_back(Up::Presented { header, genuine });
                }
            }
            EdgeAction::Offer(header) => {
                match accept_desire(Some(&Self::uid()), self.held.as_ref(), &header) {
                    Accept::New => {
                        self.held = Some(header.clone());
                        self.accepted.push(header.clone());
                        self.tell_edge(EdgeInput::Held(header));
                    }
                    Accept::Same => self.tell_edge(EdgeInput::Held(header)),
                    Accept::Refused(refusal) => {
                        self.tell_edge(EdgeInput::Refused {
                            header,
                            refused: refusal.into(),
                        });
                    }
                }
            }
            EdgeAction::DropEvents(sequence) => self.acked = sequence,
            EdgeAction::Close => self.disconnect(),
            EdgeAction::Renumber { .. } => panic!("this edge never loses its outbox"),
            EdgeAction::Execute(_) | EdgeAction::CloudTime(_) | EdgeAction::Removed => {}
        }
    }

    fn tell_cloud(&mut self, input: CloudInput) {
        let Some(mut cloud) = self.cloud.take() else {
            return;
        };
        let actions = cloud.next(input, self.now, Timestamp::UNIX_EPOCH);
        self.cloud = Some(cloud);
        for action in actions {
            self.do_cloud(action);
        }
    }

    fn do_cloud(&mut self, action: CloudAction) {
        match action {
            CloudAction::Send(message) => self.down.push_back(message),
            CloudAction::StoreStatus(digest) => {
                self.database.status = Some(digest);
                self.tell_cloud(CloudInput::StatusStored(digest));
            }
            CloudAction::StoreEvent(sequence) => {
                self.database.events.push(sequence);
                self.tell_cloud(CloudInput::EventsStored(sequence));
            }
            CloudAction::RaiseEpoch { above } => {
                self.database.epoch = self.database.epoch.max(above.get() + 1);
                let wanted = self.wanted();
                self.tell_cloud(CloudInput::Wanted(wanted));
            }
            CloudAction::Close { .. } => self.disconnect(),
            CloudAction::KeepStats | CloudAction::Delivered(_) | CloudAction::Refused { .. } => {}
        }
    }

    fn live(&mut self, fate: Fate) {
        match fate {
            Fate::Pass(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.tick();
            }
            Fate::Deliver { up, place, again } => self.deliver(up, place, again),
            Fate::Lose { up: true, place } => drop(self.up.remove(place)),
            Fate::Lose { up: false, place } => drop(self.down.remove(place)),
            Fate::Break => self.disconnect(),
            Fate::CrashEdge => {
                self.disconnect();
                self.edge = EdgeLink::new(
                    self.held.clone(),
                    Some(self.status),
                    (self.acked, self.happened),
                );
            }
            Fate::CrashCloud => self.disconnect(),
            Fate::Restore => {
                self.disconnect();
                let kept = self.snapshot.events.clone();
                let lost = self
                    .database
                    .events
                    .iter()
                    .filter(|event| !kept.contains(event));
                self.lost.extend(lost);
                self.database = self.snapshot.clone();
            }
            Fate::Snapshot => self.snapshot = self.database.clone(),
            Fate::Change { content } => {
                self.database.revision += 1;
                if self.database.content != content {
                    self.database.content = content;
                    self.database.generation = self.database.revision;
                }
                let wanted = self.wanted();
                self.tell_cloud(CloudInput::Wanted(wanted));
            }
            Fate::Status { content } => {
                self.status = digest(100 + content);
                self.tell_edge(EdgeInput::Status(self.status));
            }
            Fate::Event => {
                self.happened += 1;
                self.tell_edge(EdgeInput::Queued(self.happened));
            }
        }
    }

    fn deliver(&mut self, up: bool, place: usize, again: bool) {
        if up && place < self.up.len() {
            let message = self.up.remove(place).unwrap();
            if again {
                self.up.insert(place, message.clone());
            }
            self.tell_cloud(CloudInput::Received(message));
        } else if !up && place < self.down.len() {
            let message = self.down.remove(place).unwrap();
            if again {
                self.down.insert(place, message.clone());
            }
            self.tell_edge(EdgeInput::Received(message));
        }
    }

    fn tick(&mut self) {
        self.tell_edge(EdgeInput::Tick);
        self.tell_cloud(CloudInput::Tick);
        if !self.connected {
            self.connect();
        }
    }

    /// From now on nothing is lost and nothing comes too late; gives how long it took until both sides agree.
    fn calm(&mut self) -> Duration {
        let start = self.now;
        for _ in 0..200 {
            for _ in 0..1000 {
                if let Some(message) = self.up.pop_front() {
                    self.tell_cloud(CloudInput::Received(message));
                } else if let Some(message) = self.down.pop_front() {
                    self.tell_edge(EdgeInput::Received(message));
                } else {
                    break;
                }
            }
            assert!(
                self.up.is_empty() && self.down.is_empty(),
                "they never stop talking"
            );
            if self.agree() {
                return self.now - start;
            }
            let waits = [
                self.edge.wake_in(self.now),
                self.cloud
                    .as_ref()
                    .and_then(|cloud| cloud.wake_in(self.now)),
            ];
            self.now += waits
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(Duration::from_secs(1));
            self.tick();
        }
        panic!(
            "no agreement: edge {:?}, cloud {:?}, held {:?}",
            self.edge, self.cloud, self.held
        );
    }

    fn agree(&self) -> bool {
        let wanted = digest(self.database.content);
        self.held.as_ref().is_some_and(|held| held.digest == wanted)
            && self.edge.is_in_sync()
            && self.cloud.as_ref().is_some_and(CloudLink::is_in_sync)
            && self.database.status == Some(self.status)
            && self.acked == self.happened
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn both_sides_agree_soon_after_the_network_is_good(fates in prop::collection::vec(any_fate(), 0..150)) {
        let mut world = World::new();
        for fate in fates {
            world.live(fate);
        }
        let took = world.calm();
        // A dead stream is noticed after the silence, anything lost is sent again after one retry.
        let periods = Periods::default();
        prop_assert!(took <= periods.silence() + periods.retry * 2, "{took:?}");
        // What was told is told once, in order, without holes.
        let stored = &world.database.events;
        prop_assert!(stored.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", stored);
        let missing = (1..=world.happened).filter(|event| !stored.contains(event));
        prop_assert_eq!(missing.filter(|event| !world.lost.contains(event)).collect::<Vec<_>>(), Vec::<u64>::new());
        // What is held never went back.
        prop_assert!(world.accepted.windows(2).all(|pair| pair[0].order() < pair[1].order()));
    }

    #[test]
    fn reconnecting_with_nothing_changed_sends_nothing_but_greetings(
        fates in prop::collection::vec(any_fate(), 0..60),
    ) {
        let mut world = World::new();
        for fate in fates {
            world.live(fate);
        }
        world.calm();
        let accepted = world.accepted.len();
        world.disconnect();
        world.connect();
        let mut sent = Vec::new();
        while let Some(message) = world.up.pop_front() {
            sent.push(message.clone());
            world.tell_cloud(CloudInput::Received(message));
            while let Some(message) = world.down.pop_front() {
                prop_assert!(matches!(message, Down::Welcome { .. }), "{:?}", message);
                world.tell_edge(EdgeInput::Received(message));
            }
        }
        prop_assert!(
            sent.iter().all(|message| matches!(message, Up::Hello { .. } | Up::Stats | Up::Heartbeat)),
            "{:?}", sent
        );
        prop_assert_eq!(world.accepted.len(), accepted);
    }
}
