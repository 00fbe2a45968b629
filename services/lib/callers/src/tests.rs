//! Methods × roles on every kind of listener, and over real TLS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use baetyl_kit::crypto::SigningKey;
use baetyl_kit::listen::{Peer, PeerAddr};
use baetyl_proto::callers::TABLE;
use tonic::Code;

use super::*;

fn unix(uid: u32) -> Peer {
    Peer::new(PeerAddr::Unix {
        uid,
        gid: 0,
        pid: None,
    })
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

#[test]
fn on_a_core_socket_every_role_gets_exactly_its_rows() {
    let authorize = core();
    for (path, roles) in TABLE {
        for role in Role::ALL {
            let answer = authorize(&unix(0), path, &headers(&[(ROLE, role.as_str())]));
            assert_eq!(answer.is_ok(), roles.contains(&role), "{role} {path}");
        }
    }
}

#[test]
fn another_user_is_nobody_on_a_core_socket() {
    let refused = core()(
        &unix(54321),
        "/baetyl.engine.v1.EngineService/ListApps",
        &HeaderMap::new(),
    );
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
}

#[test]
fn without_a_role_the_caller_is_the_administrator_and_an_unknown_role_is_refused() {
    let path = "/baetyl.engine.v1.EngineService/ListApps";
    assert_eq!(
        core()(&unix(0), path, &HeaderMap::new()).unwrap().role,
        "admin"
    );
    let refused = core()(&unix(0), path, &headers(&[(ROLE, "king")])).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[test]
fn on_an_application_socket_a_claimed_role_counts_for_nothing() {
    let key = SigningKey::generate().unwrap();
    let public = key.public_key().to_vec();
    let authorize = apps(move || Some(public.clone()));
    let claims = token::Claims {
        app: "web".into(),
        service: "web".into(),
        instance: "i".into(),
        iat: 0,
    };
    let bearer = format!("Bearer {}", token::issue(&claims, |bytes| key.sign(bytes)));
    let allowed = headers(&[("authorization", &bearer), (ROLE, "engine")]);
    let peer = unix(54321);
    let caller = authorize(
        &peer,
        "/baetyl.node.v1.LocalService/GetProperties",
        &allowed,
    )
    .unwrap();
    assert_eq!(
        (caller.role.as_ref(), caller.subject.as_deref()),
        ("app", Some("web"))
    );
    let refused = authorize(&peer, "/baetyl.node.v1.NodeService/PutReport", &allowed).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = authorize(
        &peer,
        "/baetyl.node.v1.LocalService/GetProperties",
        &HeaderMap::new(),
    )
    .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[test]
fn on_an_application_socket_a_token_opens_exactly_the_rows_of_applications() {
    let key = SigningKey::generate().unwrap();
    let public = key.public_key().to_vec();
    let authorize = apps(move || Some(public.clone()));
    let claims = token::Claims {
        app: "web".into(),
        service: "web".into(),
        instance: "i".into(),
        iat: 0,
    };
    let bearer = format!("Bearer {}", token::issue(&claims, |bytes| key.sign(bytes)));
    for (path, roles) in TABLE {
        for role in Role::ALL {
            let claimed = [(ROLE, role.as_str()), ("authorization", bearer.as_str())];
            let answer = authorize(&unix(0), path, &headers(&claimed));
            assert_eq!(answer.is_ok(), roles.contains(&Role::App), "{role} {path}");
            let without = authorize(&unix(0), path, &headers(&claimed[..1]));
            assert_eq!(
                without.unwrap_err().code(),
                Code::Unauthenticated,
                "{role} {path}"
            );
        }
    }
}

#[test]
fn before_engine_told_its_key_tokens_cannot_be_checked() {
    let refused = apps(|| None)(
        &unix(1),
        "/faas.Function/Call",
        &headers(&[("authorization", "Bearer x")]),
    );
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
}

mod certificates;
mod handshake;
