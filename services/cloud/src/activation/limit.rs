//! How many requests one address may make: everybody may knock at this door, with or without a token.
//!
//! A bucket for each address fills with time; a request takes one token out of it, and one that finds it empty is told
//! to come back. Only the REST paths and the install scripts are counted: activation over gRPC reads nothing before the
//! token is checked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use baetyl_kit::clock::Clock;
use baetyl_kit::listen::{Peer, PeerAddr};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use super::rest::Refusal;

/// Requests an address may make at once: an installation makes two and then asks every two seconds.
const BURST: f64 = 60.0;

/// Requests a second it may make for ever: several installations at a time behind one address.
const PER_SECOND: f64 = 5.0;

/// Addresses that are remembered; beyond, those that have not asked for long are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// Time after which a bucket is full again, and so need not be remembered.
const FULL_AFTER: Duration = Duration::from_secs(12);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// Uptime of the last request.
    at: Duration,
}

/// All buckets.
#[derive(Debug)]
pub(super) struct Limit {
    clock: Clock,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Limit {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            buckets: Mutex::default(),
        }
    }

    /// Whether a request from there is served.
    pub(super) fn takes(&self, from: IpAddr) -> bool {
        let now = self.clock.uptime();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES {
            buckets.retain(|_, bucket| now.saturating_sub(bucket.at) < FULL_AFTER);
        }
        // So many at once are no machines that are installed. Those that are known go on.
        let key = network(from);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&key) {
            return false;
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            tokens: BURST,
            at: now,
        });
        let passed = now.saturating_sub(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * PER_SECOND).min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// An IPv6 network counts as one address: whoever has one address of it has 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// The layer.
pub(super) async fn admit(
    State(limit): State<Arc<Limit>>,
    request: Request,
    next: Next,
) -> Response {
    let from = request.extensions().get::<Peer>().map(|peer| peer.addr);
    let served = match from {
        Some(PeerAddr::Tcp(address)) => limit.takes(address.ip()),
        Some(PeerAddr::Unix { .. }) | None => true,
    };
    if served {
        return next.run(request).await;
    }
    let mut response = Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "ErrRequestLimited",
        "too many requests from this address; try again in a few seconds",
    )
    .answer(request.headers());
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

#[cfg(test)]
mod tests {
    use baetyl_testkit::ManualClock;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_asks_too_often_waits_and_others_do_not() {
        let clock = ManualClock::at("2026-01-01T00:00:00Z");
        let limit = Limit::new(clock.clock());
        let (loud, quiet) = (address("192.0.2.1"), address("192.0.2.2"));
        let served = (0..100).filter(|_| limit.takes(loud)).count();
        assert_eq!(served, 60);
        assert!(limit.takes(quiet));
        clock.advance(Duration::from_secs(1));
        let served = (0..100).filter(|_| limit.takes(loud)).count();
        assert_eq!(served, 5);
        clock.advance(FULL_AFTER);
        let served = (0..100).filter(|_| limit.takes(loud)).count();
        assert_eq!(served, 60, "a bucket fills, and does not overflow");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let clock = ManualClock::at("2026-01-01T00:00:00Z");
        let limit = Limit::new(clock.clock());
        let of = |last: u32| address(&format!("2001:db8::{last:x}"));
        let served = (1..=100).filter(|last| limit.takes(of(*last))).count();
        assert_eq!(served, 60);
        assert!(limit.takes(address("2001:db8:0:1::1")));
        let mapped = (0..100).filter(|_| limit.takes(address("::ffff:192.0.2.1")));
        assert_eq!(mapped.count(), 60);
        assert!(!limit.takes(address("192.0.2.1")));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_is_known_is_served() {
        let clock = ManualClock::at("2026-01-01T00:00:00Z");
        let limit = Limit::new(clock.clock());
        let of = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        assert!((0..MAX_ADDRESSES).all(|n| limit.takes(of(n))));
        assert!(!limit.takes(of(MAX_ADDRESSES)));
        assert!(limit.takes(of(0)));
        clock.advance(FULL_AFTER);
        assert!(limit.takes(of(MAX_ADDRESSES)));
    }
}
