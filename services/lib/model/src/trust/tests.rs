use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Timestamp {
    let text = if text.contains('T') {
        text.to_owned()
    } else {
        format!("{text}T00:00:00Z")
    };
    text.parse().unwrap()
}

fn validity(not_before: &str, not_after: &str) -> Validity {
    Validity {
        not_before: time(not_before),
        not_after: time(not_after),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_floor_begins_at_the_later_of_disk_and_build() {
    let built = time("2026-06-01");
    assert_eq!(TrustedTime::start(None, built, HOUR).now(HOUR), built);
    let older = Some(Floor(time("2026-01-01")));
    assert_eq!(TrustedTime::start(older, built, HOUR).now(HOUR), built);
    let newer = Some(Floor(time("2027-01-01")));
    assert_eq!(
        TrustedTime::start(newer, built, HOUR).now(HOUR * 3),
        time("2027-01-01T02:00:00Z")
    );
}

#[test]
fn evidence_raises_the_floor_and_never_lowers_it() {
    let built = time("2026-06-01");
    let mut trusted = TrustedTime::start(Some(Floor(built)), built, Duration::ZERO);
    assert_eq!(
        trusted.raise(time("2020-01-01"), built, Duration::ZERO),
        None
    );
    assert_eq!(trusted.now(Duration::ZERO), built);
    assert_eq!(
        trusted.raise(time("2026-07-01"), built, HOUR),
        Some(Floor(time("2026-07-01")))
    );
    assert_eq!(trusted.now(HOUR * 2), time("2026-07-01T01:00:00Z"));
    assert_eq!(trusted.floor(HOUR * 2), Floor(time("2026-07-01T01:00:00Z")));
}

#[test]
fn the_floor_is_written_once_an_hour_at_most_and_never_forgotten() {
    let built = time("2026-06-01");
    let mut trusted = TrustedTime::start(Some(Floor(built)), built, Duration::ZERO);
    let writes: Vec<u64> = (1..=8)
        .filter(|step| {
            let passed = HOUR / 2 * u32::try_from(*step).unwrap();
            let told = built + SignedDuration::try_from(passed).unwrap();
            trusted.raise(told, built, passed).is_some()
        })
        .collect();
    assert_eq!(writes, [2, 4, 6, 8]);
    let mut fresh = TrustedTime::start(None, built, Duration::ZERO);
    assert!(
        fresh.raise(built, built, Duration::ZERO).is_some(),
        "what was never written is"
    );
}

#[test]
fn a_time_beyond_reason_is_no_evidence() {
    let built = time("2026-06-01");
    let mut trusted = TrustedTime::start(Some(Floor(built)), built, Duration::ZERO);
    trusted.raise(time("9000-01-01"), built, Duration::ZERO);
    assert_eq!(trusted.now(Duration::ZERO), built);
}

/// (what, chain, floor, answer)
#[test]
fn an_edge_refuses_a_cloud_only_when_its_certificate_has_certainly_expired() {
    let root = validity("2020-01-01", "2046-01-01");
    let leaf = validity("2026-05-01", "2026-08-01");
    for (what, chain, floor, wanted) in [
        (
            "valid now",
            vec![leaf, root],
            "2026-06-01",
            Some("2026-06-01"),
        ),
        (
            "clock of the edge far behind: begins beyond the floor, and raises it",
            vec![leaf, root],
            "2019-01-01",
            Some("2026-05-01"),
        ),
        ("last second", vec![leaf], "2026-08-01", Some("2026-08-01")),
        (
            "expired before the floor",
            vec![leaf, root],
            "2026-08-02",
            None,
        ),
        (
            "authority expired before the floor",
            vec![leaf, validity("2020-01-01", "2026-05-31")],
            "2026-06-01",
            None,
        ),
        (
            "ends before it begins",
            vec![validity("2026-05-01", "2026-04-01")],
            "2026-01-01",
            None,
        ),
        (
            "members exclude each other",
            vec![leaf, validity("2020-01-01", "2025-01-01")],
            "2019-01-01",
            None,
        ),
        ("nothing to check", vec![], "2026-06-01", Some("2026-06-01")),
    ] {
        let answer = edge_accepts_cloud(&chain, time(floor));
        assert_eq!(answer.ok(), wanted.map(time), "{what}: {answer:?}");
    }
}

#[test]
fn the_wall_clock_of_an_edge_decides_nothing() {
    // The one clock in the signature is the trusted one: 400 days dark with a clock at 1970 change nothing but the floor.
    let built = time("2026-06-01");
    let mut trusted = TrustedTime::start(None, built, Duration::ZERO);
    let fresh = validity("2027-07-01", "2027-10-01");
    let accepted = edge_accepts_cloud(&[fresh], trusted.now(HOUR)).unwrap();
    assert_eq!(
        trusted.raise(accepted, built, HOUR),
        Some(Floor(time("2027-07-01")))
    );
    let replayed = validity("2026-05-01", "2026-08-01");
    assert!(
        edge_accepts_cloud(&[replayed], trusted.now(HOUR)).is_err(),
        "what expired before the new floor is refused"
    );
}

#[test]
fn a_cloud_admits_by_its_own_clock_and_lets_the_expired_renew() {
    let node = validity("2026-05-01", "2026-06-01");
    let grace = RENEWAL_GRACE;
    for (now, wanted) in [
        ("2026-05-15", Ok(Admission::Full)),
        ("2026-06-01", Ok(Admission::Full)),
        ("2026-06-02", Ok(Admission::RenewOnly)),
        ("2027-07-06", Ok(Admission::RenewOnly)),
        (
            "2027-07-07",
            Err(
                "the certificate expired at 2026-06-01T00:00:00Z, and it is at least 2027-07-07T00:00:00Z",
            ),
        ),
        ("2026-04-30T23:57:00Z", Ok(Admission::Full)),
        (
            "2026-04-30",
            Err(
                "the certificate is valid from 2026-05-01T00:00:00Z on, and it is 2026-04-30T00:00:00Z",
            ),
        ),
    ] {
        let answer = cloud_admits_node(node, time(now), grace).map_err(|error| error.to_string());
        assert_eq!(answer, wanted.map_err(str::to_owned), "{now}");
    }
    let inverted = validity("2026-06-01", "2026-05-01");
    assert_eq!(
        cloud_admits_node(inverted, time("2026-05-15"), grace),
        Err(TimeRefusal::Inverted)
    );
}

#[test]
fn a_renewal_is_due_at_two_thirds_of_life() {
    let quarter = validity("2026-01-01", "2026-04-01");
    assert_eq!(quarter.renew_at(), time("2026-03-02"));
    assert!(!quarter.is_renewal_due(time("2026-03-01T23:59:59Z")));
    assert!(quarter.is_renewal_due(time("2026-03-02")));
    assert!(!in_node_renewal_due(HOUR * 15, HOUR * 24));
    assert!(in_node_renewal_due(HOUR * 16, HOUR * 24));
}

proptest! {
    #[test]
    fn trusted_time_never_goes_back(evidence in prop::collection::vec((0i64..4_000_000_000, 0u64..100_000), 0..30)) {
        let built = time("2026-06-01");
        let mut mono = Duration::ZERO;
        let mut trusted = TrustedTime::start(None, built, mono);
        let mut disk = None;
        for (told, passed) in evidence {
            let before = trusted.now(mono);
            mono += Duration::from_secs(passed);
            disk = trusted.raise(Timestamp::from_second(told).unwrap(), built, mono).or(disk);
            prop_assert!(trusted.now(mono) >= before);
            // A restart loses an hour at most.
            let again = TrustedTime::start(disk, built, Duration::ZERO).now(Duration::ZERO);
            prop_assert!(again >= built && again <= trusted.now(mono));
            prop_assert!(trusted.now(mono).duration_since(again) < SignedDuration::from_hours(1));
        }
    }
}
