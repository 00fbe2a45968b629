//! The door for the init containers of Pods with objects.

use std::sync::Arc;

use baetyl_kit::grpc::{Authorize, CallerInfo};
use baetyl_proto::callers::Role;
use baetyl_proto::ticket;
use http::header::AUTHORIZATION;
use tonic::Status;

/// For the application socket of sync: the role is always `app`, whatever is claimed, and a ticket of engine's key is
/// wanted (`authorization: Bearer <ticket>`). Handlers find its claims in the details of the caller. `key` answers
/// engine's public key, once it is known.
pub fn tickets(key: impl Fn() -> Option<Vec<u8>> + Send + Sync + 'static) -> Authorize {
    Arc::new(move |_, path, headers| {
        let ticket = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("a ticket for objects is wanted"))?;
        let key = key().ok_or_else(|| {
            Status::unavailable("tickets cannot be checked yet: engine has not told its key")
        })?;
        let claims = ticket::verify(ticket, &key)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        super::allow(Role::App, path)?;
        Ok(CallerInfo::new(Role::App.as_str())
            .subject(claims.app.clone())
            .with_detail(claims))
    })
}

#[cfg(test)]
mod tests {
    use baetyl_kit::crypto::SigningKey;
    use baetyl_kit::grpc::ROLE;
    use baetyl_kit::listen::{Peer, PeerAddr};
    use baetyl_model::Digest;
    use baetyl_proto::token;
    use http::HeaderMap;
    use tonic::Code;

    use super::*;

    const FETCH: &str = "/baetyl.sync.v1.ObjectService/FetchObject";

    fn peer() -> Peer {
        Peer::new(PeerAddr::Unix {
            uid: 4711,
            gid: 0,
            pid: None,
        })
    }

    fn headers(bearer: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {bearer}").parse().unwrap());
        headers
    }

    #[test]
    fn a_ticket_opens_the_rows_of_applications_in_no_other_role_and_is_handed_to_the_handler() {
        let key = SigningKey::generate().unwrap();
        let public = key.public_key().to_vec();
        let authorize = tickets(move || Some(public.clone()));
        let claims = ticket::Claims {
            app: "shop".to_owned(),
            digests: vec![Digest::from_sha256([1; 32])],
            iat: 0,
        };
        let ticket = ticket::issue(&claims, |bytes| key.sign(bytes)).unwrap();
        let mut headers = headers(&ticket);
        headers.insert(ROLE, "engine".parse().unwrap());
        let caller = authorize(&peer(), FETCH, &headers).unwrap();
        assert_eq!(
            (&*caller.role, caller.subject.as_deref()),
            ("app", Some("shop"))
        );
        assert_eq!(caller.detail::<ticket::Claims>(), Some(&claims));
        let pins = "/baetyl.sync.v1.SyncService/SetPins";
        let refused = authorize(&peer(), pins, &headers).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }

    #[test]
    fn without_a_ticket_of_the_key_nothing_opens() {
        let (key, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let public = key.public_key().to_vec();
        let authorize = tickets(move || Some(public.clone()));
        let claims = ticket::Claims {
            app: "shop".to_owned(),
            digests: Vec::new(),
            iat: 0,
        };
        let forged = ticket::issue(&claims, |bytes| other.sign(bytes)).unwrap();
        let token = token::Claims {
            app: "shop".to_owned(),
            service: "web".to_owned(),
            instance: "i".to_owned(),
            iat: 0,
        };
        let token = token::issue(&token, |bytes| key.sign(bytes));
        for bearer in [forged, token, "rubbish".to_owned()] {
            let refused = authorize(&peer(), FETCH, &headers(&bearer)).unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{bearer}");
        }
        let refused = authorize(&peer(), FETCH, &HeaderMap::new()).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        let early = tickets(|| None)(&peer(), FETCH, &headers("x"));
        assert_eq!(early.unwrap_err().code(), Code::Unavailable);
    }
}
