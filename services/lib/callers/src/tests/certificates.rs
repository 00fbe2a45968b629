//! Methods × roles of certificates, without a connection.

use baetyl_testkit::{Leaf, TestCa};

use super::*;

/// Roles that a certificate can name.
pub(super) const CORE: [Role; 6] = [
    Role::Init,
    Role::Node,
    Role::Sync,
    Role::Engine,
    Role::Proxy,
    Role::Admin,
];

pub(super) fn app_id() -> CallerId {
    CallerId::App {
        namespace: "baetyl-edge".try_into().unwrap(),
        app: "web".try_into().unwrap(),
    }
}

/// A peer over TLS whose certificate has these URIs.
fn peer(uris: &[String]) -> Peer {
    let leaf = uris
        .iter()
        .fold(Leaf::new("somebody"), |leaf, uri| leaf.uri(uri));
    let mut peer = tcp();
    peer.certificates = Arc::new([TestCa::new("ca").issue(&leaf).certificate]);
    peer
}

fn of(id: &CallerId) -> Peer {
    peer(&[id.to_string()])
}

fn tcp() -> Peer {
    Peer::new(PeerAddr::Tcp(([127, 0, 0, 1], 1).into()))
}

#[test]
fn on_a_core_listener_every_certificate_opens_exactly_the_rows_of_its_role() {
    let authorize = core();
    for role in CORE {
        let peer = of(&CallerId::Core(role));
        for (path, roles) in TABLE {
            for headers in [HeaderMap::new(), headers(&[(ROLE, role.as_str())])] {
                let answer = authorize(&peer, path, &headers);
                assert_eq!(answer.is_ok(), roles.contains(&role), "{role} {path}");
                assert!(
                    answer.is_ok_and(|caller| caller.role == role.as_str())
                        || !roles.contains(&role)
                );
            }
        }
    }
}

#[test]
fn a_role_that_the_certificate_does_not_name_is_refused_whatever_it_may_call() {
    let authorize = core();
    for role in CORE {
        let peer = of(&CallerId::Core(role));
        for (path, _) in TABLE {
            for claimed in Role::ALL.into_iter().filter(|claimed| *claimed != role) {
                let claimed = headers(&[(ROLE, claimed.as_str())]);
                let refused = authorize(&peer, path, &claimed).unwrap_err();
                assert_eq!(refused.code(), Code::PermissionDenied, "{role} {path}");
            }
        }
    }
}

#[test]
fn who_shows_no_certificate_of_a_core_service_is_nobody_on_a_core_listener() {
    let authorize = core();
    let engine = CallerId::Core(Role::Engine).to_string();
    let nobody = [
        tcp(),
        peer(&[]),
        of(&app_id()),
        peer(&["spiffe://baetyl/ns/default/node/n-1".to_owned()]),
        peer(&["https://node.baetyl/core/engine".to_owned()]),
        // Two ids are none.
        peer(&[engine, CallerId::Core(Role::Sync).to_string()]),
    ];
    for peer in nobody {
        for (path, _) in TABLE {
            for headers in [HeaderMap::new(), headers(&[(ROLE, "engine")])] {
                let refused = authorize(&peer, path, &headers).unwrap_err();
                assert_eq!(refused.code(), Code::Unauthenticated, "{path}");
            }
        }
    }
}

#[test]
fn on_an_application_listener_a_certificate_opens_exactly_the_rows_of_applications() {
    let authorize = apps(|| None);
    let web = of(&app_id());
    for (path, roles) in TABLE {
        for role in Role::ALL {
            let answer = authorize(&web, path, &headers(&[(ROLE, role.as_str())]));
            assert_eq!(answer.is_ok(), roles.contains(&Role::App), "{role} {path}");
            let Ok(caller) = answer else { continue };
            let claims = caller.detail::<token::Claims>().unwrap();
            assert_eq!(
                (caller.role.as_ref(), caller.subject.as_deref()),
                ("app", Some("web"))
            );
            assert_eq!((claims.app.as_str(), claims.service.as_str()), ("web", ""));
        }
    }
}

#[test]
fn on_an_application_listener_core_services_and_strangers_are_nobody() {
    let authorize = apps(|| None);
    let path = "/baetyl.node.v1.LocalService/GetProperties";
    let strangers = CORE.map(|role| of(&CallerId::Core(role)));
    for peer in strangers.into_iter().chain([tcp(), peer(&[])]) {
        let refused = authorize(&peer, path, &HeaderMap::new()).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}

#[test]
fn a_token_counts_more_than_a_certificate() {
    let key = SigningKey::generate().unwrap();
    let public = key.public_key().to_vec();
    let authorize = apps(move || Some(public.clone()));
    let claims = token::Claims {
        app: "till".into(),
        service: "till".into(),
        instance: "i".into(),
        iat: 0,
    };
    let path = "/baetyl.node.v1.LocalService/GetProperties";
    let bearer = format!("Bearer {}", token::issue(&claims, |bytes| key.sign(bytes)));
    let web = of(&app_id());
    let caller = authorize(&web, path, &headers(&[("authorization", &bearer)])).unwrap();
    assert_eq!(caller.subject.as_deref(), Some("till"));
    // A certificate does not mend a token that is wrong.
    let refused = authorize(&web, path, &headers(&[("authorization", "Bearer x")]));
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
}
