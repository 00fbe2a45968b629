//! Who calls: roles on core sockets, application tokens on application sockets.
//!
//! [`core`] and [`apps`] make the [`Authorize`] functions that servers of the edge are given; both end at the table of
//! [`baetyl_proto::callers`]; tokens are those of [`baetyl_proto::token`]. [`tickets`] is for the objects of Pods. See `docs/adr/0003-roles-on-sockets.md` and `docs/adr/0004-application-tokens.md`.

use std::sync::Arc;

use baetyl_kit::grpc::{Authorize, CallerInfo, ROLE};
use baetyl_proto::callers::{Role, may_call};
use baetyl_proto::token;
use http::HeaderMap;
use tonic::Status;

mod tickets;

pub use tickets::tickets;

/// For a core socket: the peer must be our own user or root, and names its role itself; without a role it is `admin`.
pub fn core() -> Authorize {
    Arc::new(|peer, path, headers| {
        if !peer.is_same_user() {
            return Err(Status::unauthenticated(
                "this socket is for the services of the node and their administrator",
            ));
        }
        let role = match headers.get(ROLE).map(|role| role.to_str()) {
            None => Role::Admin,
            Some(Ok(word)) => word
                .parse()
                .map_err(|error| Status::unauthenticated(format!("{error}")))?,
            Some(Err(_)) => return Err(Status::unauthenticated("the role is not plain text")),
        };
        allow(role, path).map(|()| CallerInfo::new(role.as_str()))
    })
}

/// For an application socket: the role is always `app`, whatever is claimed, and a token of engine's key is wanted.
/// `key` answers engine's public key, once it is known.
pub fn apps(key: impl Fn() -> Option<Vec<u8>> + Send + Sync + 'static) -> Authorize {
    Arc::new(move |_, path, headers| {
        let claims = bearer(headers, key().as_deref())?;
        allow(Role::App, path)?;
        Ok(CallerInfo::new(Role::App.as_str())
            .subject(claims.app.clone())
            .with_detail(claims))
    })
}

/// The claims of the bearer token in the headers.
///
/// # Errors
/// `UNAUTHENTICATED` without a valid token, `UNAVAILABLE` while engine's key is not known.
pub fn bearer(headers: &HeaderMap, key: Option<&[u8]>) -> Result<token::Claims, Status> {
    let token = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| {
            Status::unauthenticated(
                "an application token is wanted (the file named by BAETYL_TOKEN_FILE)",
            )
        })?;
    let key = key.ok_or_else(|| {
        Status::unavailable("tokens cannot be checked yet: engine has not told its key")
    })?;
    token::verify(token, key).map_err(|error| Status::unauthenticated(error.to_string()))
}

fn allow(role: Role, path: &str) -> Result<(), Status> {
    if may_call(role, path) {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "{role} may not call {path}"
    )))
}

#[cfg(test)]
mod tests {
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
        let refused =
            authorize(&peer, "/baetyl.node.v1.NodeService/PutReport", &allowed).unwrap_err();
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
}
