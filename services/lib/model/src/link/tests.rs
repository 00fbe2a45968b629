use super::*;
use crate::name::{Epoch, Generation, NodeUid};

const SECOND: Duration = Duration::from_secs(1);

fn digest(content: u8) -> Digest {
    Digest::from_sha256([content; 32])
}

fn header(epoch: u64, generation: u64, content: u8) -> Header {
    Header {
        node_uid: NodeUid::new("u1").unwrap(),
        epoch: Epoch(epoch),
        generation: Generation(generation),
        digest: digest(content),
    }
}

fn time() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn welcome(status: Option<Digest>, events: u64) -> EdgeInput {
    let time = Some(time());
    EdgeInput::Received(Down::Welcome {
        periods: Periods::default(),
        status,
        events,
        time,
    })
}

/// An edge that is online and has nothing left to say.
fn online(held: Option<Header>) -> EdgeLink {
    let mut edge = EdgeLink::new(held, Some(digest(1)), (0, 0));
    edge.next(EdgeInput::Connected, Duration::ZERO);
    edge.next(welcome(Some(digest(1)), 0), Duration::ZERO);
    assert!(edge.is_in_sync());
    edge
}

fn greeted(wanted: Header, held: Option<Header>) -> (CloudLink, Vec<CloudAction>) {
    let mut cloud = CloudLink::new(Periods::default(), Some(wanted), None, 0, Duration::ZERO);
    let hello = Up::Hello { held, status: None };
    let mut actions = cloud.next(CloudInput::Received(hello), Duration::ZERO, time());
    assert!(matches!(
        actions.remove(0),
        CloudAction::Send(Down::Welcome { .. })
    ));
    (cloud, actions)
}

fn tell(cloud: &mut CloudLink, input: CloudInput) -> Vec<CloudAction> {
    cloud.next(input, Duration::ZERO, time())
}

fn event(sequence: u64, stored: u64) -> EdgeAction {
    EdgeAction::SendEvent { sequence, stored }
}

fn send(message: Down) -> CloudAction {
    CloudAction::Send(message)
}

#[test]
fn peers_use_the_highest_protocol_they_share() {
    let range = |min, max| ProtocolRange { min, max };
    assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    assert_eq!(range(2, 5).common(range(1, 2)), Some(2));
    assert_eq!(range(1, 1).common(range(2, 3)), None);
    assert_eq!(PROTOCOL.common(PROTOCOL), Some(1));
}

#[test]
fn an_edge_greets_with_what_it_holds_and_reports_what_the_cloud_lacks() {
    let held = header(0, 5, 9);
    let mut edge = EdgeLink::new(Some(held.clone()), Some(digest(1)), (2, 4));
    let hello = Up::Hello {
        held: Some(held),
        status: Some(digest(1)),
    };
    assert_eq!(
        edge.next(EdgeInput::Connected, SECOND),
        [EdgeAction::Send(hello)]
    );
    assert_eq!(edge.phase(), EdgePhase::Greeting);
    assert_eq!(
        edge.next(welcome(None, 3), SECOND),
        [
            EdgeAction::CloudTime(time()),
            EdgeAction::DropEvents(3),
            EdgeAction::Send(Up::Status(digest(1))),
            event(4, 3),
            EdgeAction::Send(Up::Stats),
        ]
    );
    assert!(!edge.is_in_sync());
    edge.next(EdgeInput::Received(Down::StatusAck(digest(1))), SECOND);
    edge.next(EdgeInput::Received(Down::EventAck(4)), SECOND);
    assert!(edge.is_in_sync());
}

#[test]
fn a_status_the_cloud_has_is_not_sent_and_a_changed_one_is_at_once() {
    let mut edge = online(None);
    assert_eq!(edge.next(EdgeInput::Status(digest(1)), SECOND), []);
    assert_eq!(
        edge.next(EdgeInput::Status(digest(2)), SECOND),
        [EdgeAction::Send(Up::Status(digest(2)))]
    );
    assert_eq!(edge.next(EdgeInput::Tick, SECOND * 2), []);
}

#[test]
fn an_offered_desire_is_acknowledged_when_the_node_holds_it() {
    let mut edge = online(None);
    let desire = header(0, 1, 2);
    assert_eq!(
        edge.next(EdgeInput::Received(Down::Desire(desire.clone())), SECOND),
        [EdgeAction::Offer(desire.clone())]
    );
    let ack = Up::DesireAck {
        header: desire.clone(),
        refused: None,
    };
    assert_eq!(
        edge.next(EdgeInput::Held(desire.clone()), SECOND),
        [EdgeAction::Send(ack)]
    );
    let refused = Some(Refused::Signature);
    let ack = Up::DesireAck {
        header: desire.clone(),
        refused,
    };
    let input = EdgeInput::Refused {
        header: desire,
        refused: Refused::Signature,
    };
    assert_eq!(edge.next(input, SECOND), [EdgeAction::Send(ack)]);
}

/// What an edge says to a cloud that answers heartbeats and nothing else, as (second, action).
fn said_in(edge: &mut EdgeLink, time: Duration) -> Vec<(u64, EdgeAction)> {
    let mut sent = Vec::new();
    let mut now = Duration::ZERO;
    while now < time {
        let wait = edge.wake_in(now).expect("a link that was given up");
        assert!(wait > Duration::ZERO, "it spins at {now:?}");
        now += wait;
        for action in edge.next(EdgeInput::Tick, now) {
            if action == EdgeAction::Send(Up::Heartbeat) {
                edge.next(EdgeInput::Received(Down::HeartbeatAck { time: None }), now);
            }
            sent.push((now.as_secs(), action));
        }
    }
    sent
}

#[test]
fn a_quiet_edge_sends_heartbeats_and_stats_on_their_periods() {
    let sent = said_in(&mut online(None), SECOND * 60);
    let (stats, heartbeat) = (EdgeAction::Send(Up::Stats), EdgeAction::Send(Up::Heartbeat));
    let wanted = [
        (15, heartbeat.clone()),
        (20, stats.clone()),
        (30, heartbeat.clone()),
        (40, stats.clone()),
        (45, heartbeat.clone()),
        (60, stats),
        (60, heartbeat),
    ];
    assert_eq!(sent, wanted);
}

#[test]
fn an_edge_that_has_stats_to_send_all_the_time_does_not_take_a_living_cloud_for_a_dead_one() {
    for stats in [1, 14, 15] {
        let mut edge = EdgeLink::new(None, None, (0, 0));
        edge.next(EdgeInput::Connected, Duration::ZERO);
        let periods = Periods {
            stats: SECOND * stats,
            ..Periods::default()
        };
        let welcome = Down::Welcome {
            periods,
            status: None,
            events: 0,
            time: None,
        };
        edge.next(EdgeInput::Received(welcome), Duration::ZERO);
        let sent = said_in(&mut edge, SECOND * 300);
        assert!(!sent.iter().any(|(_, action)| *action == EdgeAction::Close));
    }
}

#[test]
fn a_silent_cloud_is_left() {
    let mut edge = online(None);
    let silence = Periods::default().silence();
    assert!(
        !edge
            .next(EdgeInput::Tick, silence - SECOND)
            .contains(&EdgeAction::Close)
    );
    assert_eq!(edge.next(EdgeInput::Tick, silence), [EdgeAction::Close]);
    assert_eq!(edge.phase(), EdgePhase::Offline);
    assert_eq!(edge.wake_in(silence), None);
}

#[test]
fn a_cloud_that_talks_but_never_welcomes_is_left() {
    let mut edge = EdgeLink::new(None, None, (0, 0));
    edge.next(EdgeInput::Connected, Duration::ZERO);
    let silence = Periods::default().silence();
    let desire = header(0, 1, 2);
    edge.next(
        EdgeInput::Received(Down::Desire(desire.clone())),
        silence - SECOND,
    );
    let ack = Up::DesireAck {
        header: desire.clone(),
        refused: None,
    };
    assert_eq!(
        edge.next(EdgeInput::Held(desire), silence - SECOND),
        [EdgeAction::Send(ack)]
    );
    assert_eq!(edge.next(EdgeInput::Tick, silence), [EdgeAction::Close]);
}

#[test]
fn a_command_is_executed_once() {
    let mut edge = online(None);
    let command = || EdgeInput::Received(Down::Command("c1".into()));
    assert_eq!(
        edge.next(command(), SECOND),
        [EdgeAction::Execute("c1".into())]
    );
    assert_eq!(edge.next(command(), SECOND), []);
    edge.next(EdgeInput::Closed, SECOND);
    edge.next(EdgeInput::Connected, SECOND);
    edge.next(welcome(Some(digest(1)), 0), SECOND);
    assert_eq!(edge.next(command(), SECOND), []);
}

#[test]
fn an_outbox_that_was_emptied_numbers_on_from_where_the_cloud_is() {
    let mut edge = EdgeLink::new(None, None, (0, 2));
    edge.next(EdgeInput::Connected, SECOND);
    let actions = edge.next(welcome(None, 40), SECOND);
    assert!(
        actions.contains(&EdgeAction::Renumber { after: 40 }),
        "{actions:?}"
    );
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, EdgeAction::SendEvent { .. }))
    );
    let sent = edge.next(EdgeInput::Queued(42), SECOND);
    assert_eq!(sent, [event(41, 40), event(42, 40)]);
}

#[test]
fn a_cloud_that_was_put_back_is_told_what_is_gone() {
    let mut edge = EdgeLink::new(None, None, (5, 6));
    edge.next(EdgeInput::Connected, SECOND);
    let actions = edge.next(welcome(None, 3), SECOND);
    assert!(actions.contains(&event(6, 3)), "{actions:?}");
}

#[test]
fn only_so_many_events_are_under_way() {
    let mut edge = online(None);
    assert_eq!(edge.next(EdgeInput::Queued(1000), SECOND).len(), 64);
    let next = edge.next(EdgeInput::Received(Down::EventAck(10)), SECOND);
    assert_eq!(next[0], EdgeAction::DropEvents(10));
    assert_eq!(
        next[1..],
        (65..=74)
            .map(|sequence| event(sequence, 10))
            .collect::<Vec<_>>()[..]
    );
}

#[test]
fn a_removed_node_says_nothing_more() {
    let mut edge = online(None);
    assert_eq!(
        edge.next(EdgeInput::Received(Down::Removed), SECOND),
        [EdgeAction::Removed]
    );
    assert_eq!(edge.next(EdgeInput::Closed, SECOND), []);
    assert_eq!(edge.next(EdgeInput::Status(digest(9)), SECOND), []);
    assert_eq!(edge.phase(), EdgePhase::Removed);
}

#[test]
fn a_node_with_the_wanted_content_is_sent_nothing_even_at_an_older_generation() {
    let (cloud, actions) = greeted(header(0, 9, 2), Some(header(0, 5, 2)));
    assert_eq!(actions, []);
    assert!(cloud.is_in_sync());
}

#[test]
fn a_node_without_or_with_older_content_is_sent_the_desire_at_once() {
    for held in [None, Some(header(0, 5, 1))] {
        let (mut cloud, actions) = greeted(header(0, 9, 2), held);
        assert_eq!(actions, [send(Down::Desire(header(0, 9, 2)))]);
        assert_eq!(tell(&mut cloud, CloudInput::Tick), []);
        let ack = Up::DesireAck {
            header: header(0, 9, 2),
            refused: None,
        };
        assert_eq!(
            tell(&mut cloud, CloudInput::Received(ack)),
            [CloudAction::Delivered(header(0, 9, 2))]
        );
        assert!(cloud.is_in_sync());
    }
}

#[test]
fn a_change_is_sent_at_once_also_while_an_older_one_is_under_way() {
    let (mut cloud, _) = greeted(header(0, 9, 2), None);
    assert_eq!(
        tell(&mut cloud, CloudInput::Wanted(header(0, 10, 3))),
        [send(Down::Desire(header(0, 10, 3)))]
    );
    let late = Up::DesireAck {
        header: header(0, 9, 2),
        refused: None,
    };
    assert_eq!(
        tell(&mut cloud, CloudInput::Received(late)),
        [CloudAction::Delivered(header(0, 9, 2))]
    );
    assert!(!cloud.is_in_sync());
}

#[test]
fn while_another_desire_is_under_way_what_the_node_claimed_counts_no_more() {
    let (mut cloud, _) = greeted(header(0, 9, 2), Some(header(0, 5, 1)));
    let back = header(0, 10, 1);
    assert_eq!(
        tell(&mut cloud, CloudInput::Wanted(back.clone())),
        [send(Down::Desire(back))]
    );
}

#[test]
fn what_is_not_answered_is_sent_again_after_a_while() {
    let (mut cloud, _) = greeted(header(0, 9, 2), None);
    let retry = Periods::default().retry;
    assert_eq!(cloud.next(CloudInput::Tick, retry - SECOND, time()), []);
    assert_eq!(
        cloud.next(CloudInput::Tick, retry, time()),
        [send(Down::Desire(header(0, 9, 2)))]
    );
}

#[test]
fn a_cloud_whose_state_went_back_raises_the_epoch_on_its_own_signature_only() {
    let (mut cloud, actions) = greeted(header(0, 5, 2), Some(header(0, 9, 3)));
    assert_eq!(actions, [send(Down::PresentDesire)]);
    let genuine = Up::Presented {
        header: header(0, 9, 3),
        genuine: true,
    };
    let raised = tell(&mut cloud, CloudInput::Received(genuine));
    assert_eq!(raised[0], CloudAction::RaiseEpoch { above: Epoch(0) });
    assert_eq!(
        tell(&mut cloud, CloudInput::Wanted(header(1, 5, 2))),
        [send(Down::Desire(header(1, 5, 2)))]
    );
}

#[test]
fn an_unsigned_claim_changes_nothing() {
    let (mut cloud, _) = greeted(header(0, 5, 2), Some(header(7, 900, 3)));
    let forged = Up::Presented {
        header: header(7, 900, 3),
        genuine: false,
    };
    let wanted = header(0, 5, 2);
    assert_eq!(
        tell(&mut cloud, CloudInput::Received(forged)),
        [send(Down::Desire(wanted.clone()))]
    );
    let refused = Some(Refused::Stale);
    let ack = Up::DesireAck {
        header: wanted.clone(),
        refused,
    };
    assert_eq!(
        tell(&mut cloud, CloudInput::Received(ack)),
        [CloudAction::Refused {
            header: wanted,
            refused: Refused::Stale
        }]
    );
    assert_eq!(
        cloud.next(CloudInput::Tick, Periods::default().retry, time()),
        [],
        "it is not sent again and again"
    );
}

#[test]
fn the_same_generation_with_other_content_is_a_state_that_went_back_too() {
    let (_, actions) = greeted(header(0, 5, 2), Some(header(0, 5, 3)));
    assert_eq!(actions, [send(Down::PresentDesire)]);
}

#[test]
fn a_refused_signature_is_told_and_not_repeated_until_something_changes() {
    let (mut cloud, _) = greeted(header(0, 5, 2), None);
    let refused = Some(Refused::Signature);
    let ack = Up::DesireAck {
        header: header(0, 5, 2),
        refused,
    };
    let told = CloudAction::Refused {
        header: header(0, 5, 2),
        refused: Refused::Signature,
    };
    assert_eq!(tell(&mut cloud, CloudInput::Received(ack)), [told]);
    assert!(!cloud.is_in_sync());
    assert_eq!(
        tell(&mut cloud, CloudInput::Wanted(header(0, 6, 4))),
        [send(Down::Desire(header(0, 6, 4)))]
    );
}

#[test]
fn events_are_stored_once_in_order_and_a_gap_that_is_announced_is_no_hole() {
    let (mut cloud, _) = greeted(header(0, 5, 2), Some(header(0, 5, 2)));
    let event = |sequence, dropped| CloudInput::Received(Up::Event { sequence, dropped });
    assert_eq!(tell(&mut cloud, event(1, 0)), [CloudAction::StoreEvent(1)]);
    assert_eq!(
        tell(&mut cloud, CloudInput::EventsStored(1)),
        [send(Down::EventAck(1))]
    );
    assert_eq!(
        tell(&mut cloud, event(1, 0)),
        [send(Down::EventAck(1))],
        "it came twice"
    );
    assert_eq!(
        tell(&mut cloud, event(3, 0)),
        [send(Down::EventAck(1))],
        "the second is on its way"
    );
    assert_eq!(
        tell(&mut cloud, event(9, 7)),
        [CloudAction::StoreEvent(9)],
        "2 to 8 were dropped"
    );
}

#[test]
fn who_does_not_greet_first_is_sent_away() {
    let mut cloud = CloudLink::new(Periods::default(), None, None, 0, Duration::ZERO);
    let actions = tell(&mut cloud, CloudInput::Received(Up::Heartbeat));
    assert!(matches!(actions.as_slice(), [CloudAction::Close { .. }]));
    assert_eq!(
        tell(
            &mut cloud,
            CloudInput::Received(Up::Hello {
                held: None,
                status: None
            })
        ),
        []
    );
}

#[test]
fn a_silent_node_and_a_deleted_one_end_the_stream() {
    let (mut cloud, _) = greeted(header(0, 5, 2), None);
    let silence = Periods::default().silence();
    let actions = cloud.next(CloudInput::Tick, silence, time());
    assert!(matches!(actions.as_slice(), [CloudAction::Close { .. }]));
    let (mut cloud, _) = greeted(header(0, 5, 2), None);
    assert_eq!(tell(&mut cloud, CloudInput::Deleted), [send(Down::Removed)]);
    assert_eq!(tell(&mut cloud, CloudInput::Wanted(header(0, 6, 3))), []);
}

#[test]
fn the_words_of_a_refusal_are_those_of_the_contract() {
    for refused in [
        Refused::Stale,
        Refused::Conflict,
        Refused::Signature,
        Refused::WrongNode,
        Refused::Malformed,
    ] {
        assert_eq!(Refused::from_word(refused.as_str()), refused);
    }
    assert_eq!(Refused::from_word("a newer word"), Refused::Malformed);
}
